/**
 * What stands in the token of a detached session, and its bounds: `detached.ts` writes and reads it.
 * @module
 */
import { z } from "zod";
import { SECRET_BYTES, SID_BYTES } from "../identity/index.ts";

const STREAMS_MAX = 10_000;

const count = z.number().int().min(0).max(Number.MAX_SAFE_INTEGER);
const streamId = z.number().int().min(1).max(0xffff_ffff);
const octets = (length: number) =>
  z
    .string()
    .regex(/^[\w-]*$/)
    .transform((text) => new Uint8Array(Buffer.from(text, "base64url")))
    .refine((bytes) => bytes.length === length);

export const detachedSchema = z
  .strictObject({
    version: z.literal(1),
    address: z.string().min(1).max(600),
    key: z.string().regex(/^SHA256:[\w+/]{43}$/),
    session: octets(SID_BYTES),
    generation: z.number().int().min(0).max(0xffff_ffff),
    secret: octets(SECRET_BYTES),
    keep: count,
    expires: count,
    sent: count,
    received: count,
    limit: count,
    nextStream: z.number().int().min(1).max(0x1_0000_0001),
    lastTaken: count.optional(),
    peer: z.strictObject({ payload: count.max(0xffff_ffff), streams: count, credit: count, window: count }),
    streams: z
      .array(
        z.strictObject({
          id: streamId,
          request: z.string().max(2_000),
          sent: count,
          credit: count,
          received: count,
          granted: count,
          window: count,
          ended: z.boolean(),
          finished: z.boolean(),
        }),
      )
      .max(STREAMS_MAX),
    reset: z.array(z.tuple([streamId, count])).max(STREAMS_MAX),
  })
  .refine(({ received, limit }) => limit >= received)
  .refine(({ streams }) => new Set(streams.map(({ id }) => id)).size === streams.length)
  .refine(({ streams, nextStream }) =>
    streams.every(
      ({ id, received, granted, sent, credit }) => id < nextStream && received <= granted && sent <= credit,
    ),
  );

/** The contents as they are written. */
export type DetachedText = z.input<typeof detachedSchema>;
