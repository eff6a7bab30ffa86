/**
 * Frames for fast-check: every type with every value its header can carry.
 * @module
 */
import fc from "fast-check";
import { type Range, REQUEST_BYTES_MAX, type SequencedContent, type UnsequencedFrame } from "../../src/wire/index.ts";

const position = fc.oneof(
  fc.maxSafeNat(),
  fc.constantFrom(0, 1, 0xffff_ffff, 0x1_0000_0000, 0x1_0000_0001, Number.MAX_SAFE_INTEGER),
);
const stream = fc.oneof(fc.integer({ min: 1, max: 0xffff_ffff }), fc.constantFrom(1, 2, 0x7fff_ffff, 0xffff_ffff));
const word = fc.oneof(fc.integer({ min: 0, max: 0xffff_ffff }), fc.constantFrom(0, 0xffff_ffff));
const reason = fc.stringMatching(/^[ -~]{0,255}$/);

/** Objects as the decoder makes them, so that they compare equal. */
const plain = { noNullPrototype: true };

/** Frames about one connection. */
export const unsequencedFrame: fc.Arbitrary<UnsequencedFrame> = fc.oneof(
  fc.record({ type: fc.constant("ack" as const), received: position, limit: position, held: fc.constant([]) }, plain),
  fc
    .tuple(fc.nat(2 ** 40), position, fc.array(fc.integer({ min: 1, max: 2 ** 40 }), { maxLength: 32 }))
    .map(([received, limit, steps]) => ({ type: "ack" as const, received, limit, held: rangesAbove(received, steps) })),
  fc.record({ type: fc.constant("ping" as const), received: position, opaque: position, reply: fc.boolean() }, plain),
  fc.record({ type: fc.constant("closeConnection" as const), received: position, code: position, reason }, plain),
  fc.record({ type: fc.constant("ticketStored" as const), received: position, generation: position }, plain),
  fc.record({ type: fc.constant("skipped" as const), received: position }, plain),
);

/** Ranges above a position: every second step is a gap. */
function rangesAbove(received: number, steps: readonly number[]): Range[] {
  const ranges: Range[] = [];
  let at = received;
  for (let step = 0; step + 1 < steps.length; step += 2) {
    const start = at + (steps[step] ?? 1);
    at = start + (steps[step + 1] ?? 1);
    ranges.push({ start, end: at });
  }
  return ranges;
}

/** What a frame with a place in the log says. */
export const sequencedContent: fc.Arbitrary<SequencedContent> = fc.oneof(
  fc.record(
    {
      type: fc.constant("data" as const),
      stream,
      offset: position,
      fin: fc.boolean(),
      payload: fc.oneof(
        fc.uint8Array({ maxLength: 200 }),
        fc.integer({ min: 0, max: 65_512 }).map((length) => new Uint8Array(length).fill(length)),
      ),
    },
    plain,
  ),
  fc.record(
    {
      type: fc.constant("open" as const),
      stream,
      credit: position,
      request: fc.uint8Array({ minLength: 1, maxLength: REQUEST_BYTES_MAX }),
    },
    plain,
  ),
  fc.record({ type: fc.constant("reset" as const), stream, code: position }, plain),
  fc.record({ type: fc.constant("credit" as const), stream, limit: position }, plain),
  fc.record({ type: fc.constant("goaway" as const), lastStream: position, code: word, reason }, plain),
  fc.record(
    {
      type: fc.constant("settings" as const),
      entries: fc
        .array(fc.tuple(fc.integer({ min: 0, max: 0xffff }), word), { maxLength: 16 })
        .map((entries) => new Map(entries)),
    },
    plain,
  ),
  fc.record({ type: fc.constant("end" as const), code: position }, plain),
  fc.record({ type: fc.constant("skippedInLog" as const) }, plain),
);

/** A place in the log. */
export const seq: fc.Arbitrary<number> = position;
