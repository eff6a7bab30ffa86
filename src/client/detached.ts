/**
 * A detached session as text: what `fived detach` prints, and `fived attach` reads on another computer. Whoever has it has the session, so it is a secret,
 * and it is good once: attaching makes another ticket (PROTOCOL §4.8).
 * @module
 */
import { z } from "zod";
import { SECRET_BYTES, SID_BYTES, type Ticket } from "../identity/index.ts";
import { FivedError } from "../io/index.ts";
import type { SessionState } from "../session/index.ts";
import { isServiceName } from "../wire/index.ts";

/** A session without a process. */
export interface DetachedSession {
  /** Where its server is. */
  readonly address: string;
  /** `SHA256:…` of the server's key. */
  readonly fingerprint: string;
  readonly ticket: Ticket;
  /** For how long the server keeps it without a connection, in milliseconds; and so when it forgets it at the latest, in milliseconds since 1970. */
  readonly ttlMs: number;
  readonly expires: number;
  readonly state: SessionState;
}

/** One of its streams, for people to look at. */
export interface DetachedStream {
  readonly id: number;
  readonly service: string;
  /** Octets that the service has taken, and that it has said, so far. */
  readonly sent: number;
  readonly received: number;
}

/** What every token begins with. */
const PREFIX = "fived-session:";
/** Characters of a token at most; a session with 100 streams has some 20,000. */
const TOKEN_CHARACTERS_MAX = 1_000_000;
const STREAMS_MAX = 10_000;

const count = z.number().int().min(0).max(Number.MAX_SAFE_INTEGER);
const streamId = z.number().int().min(1).max(0xffff_ffff);
const octets = (length: number) =>
  z
    .string()
    .regex(/^[\w-]*$/)
    .transform((text) => new Uint8Array(Buffer.from(text, "base64url")))
    .refine((bytes) => bytes.length === length);

const schema = z
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

/** The token of a session. */
export function printDetached({ address, fingerprint, ticket, ttlMs, expires, state }: DetachedSession): string {
  const { lastTaken, streams, ...counts } = state;
  const contents: z.input<typeof schema> = {
    version: 1,
    address,
    key: fingerprint,
    session: Buffer.from(ticket.sid).toString("base64url"),
    generation: ticket.generation,
    secret: Buffer.from(ticket.secret).toString("base64url"),
    keep: ttlMs,
    expires,
    ...counts,
    ...(lastTaken === undefined ? {} : { lastTaken }),
    streams: streams.map(({ request, ...stream }) => ({ ...stream, request: Buffer.from(request).toString("latin1") })),
    reset: counts.reset.map(([id, octets]) => [id, octets]),
  };
  return PREFIX + Buffer.from(JSON.stringify(contents)).toString("base64url");
}

/** Reads a token; blanks around it are no mistake. Throws TOKEN_BAD for what is none, and for one whose time is over. */
export function parseDetached(text: string, now: number): DetachedSession {
  const said = text.length <= TOKEN_CHARACTERS_MAX ? text.trim() : "";
  const { success, data } = schema.safeParse(
    said.startsWith(PREFIX) ? contentsOf(said.slice(PREFIX.length)) : undefined,
  );
  if (!success)
    throw new FivedError(
      "TOKEN_BAD",
      `Cannot attach: this is no token of a detached session, which begins with ${PREFIX}`,
    );
  const { address, key, session, generation, secret, keep, expires, lastTaken, streams, ...counts } = data;
  if (expires <= now)
    throw new FivedError(
      "TOKEN_BAD",
      `Cannot attach: the server has kept the session until ${new Date(expires).toISOString()}`,
    );
  const { sent, received, limit, nextStream, peer, reset } = counts;
  return {
    address,
    fingerprint: key,
    ticket: { sid: session, generation, secret },
    ttlMs: keep,
    expires,
    state: {
      ...{ sent, received, limit, nextStream, lastTaken, peer, reset },
      streams: streams.map(({ request, ...stream }) => ({ ...stream, request: Buffer.from(request, "latin1") })),
    },
  };
}

/** Streams that are open, in the order in which they were opened. */
export function detachedStreams({ streams }: Pick<SessionState, "streams">): DetachedStream[] {
  return streams.map(({ id, request, sent, received }) => ({ id, service: serviceOf(request), sent, received }));
}

function serviceOf(request: Uint8Array): string {
  const [word = ""] = Buffer.from(request).toString("latin1").split(" ");
  return isServiceName(word) ? word : "?";
}

function contentsOf(text: string): unknown {
  try {
    return JSON.parse(Buffer.from(text, "base64url").toString("utf8"));
  } catch {
    return undefined;
  }
}
