import assert from "node:assert/strict";
import test from "node:test";
import { HEADER_BYTES } from "../wire/index.ts";
import { DRIBBLE_BYTES, DRIBBLE_MS, SEND_QUEUE_BYTES } from "./limits.ts";
import { Stream } from "./stream.ts";

function stream(credit: number): Stream {
  return new Stream(1, false, credit, 65_536, 0);
}

/** What is taken, as session.ts does: the chunk's octets behind its header, and `sent` moved on. */
function take(from: Stream, now = 0): Buffer | undefined {
  if (!from.ready) return undefined;
  const chunk = from.take(now);
  if (chunk === undefined) return undefined;
  from.sent += chunk.used - HEADER_BYTES;
  return Buffer.from(chunk.memory.subarray(HEADER_BYTES, chunk.used));
}

test("small writes are gathered while they wait, large ones lie in memory of their own size", () => {
  const one = stream(1e6);
  one.copy(Buffer.from("first"), 0);
  for (const word of ["a", "b", "c"]) one.copy(Buffer.from(word), 0);
  one.copy(Buffer.alloc(5_000, "x"), 0);
  assert.equal(one.queuedBytes, 5_008);
  assert.equal(take(one)?.toString(), "first");
  assert.equal(take(one)?.toString(), "abc");
  const large = [take(one), take(one), take(one)].map((part) => part?.length);
  assert.deepEqual(large, [1_250, 1_258, 2_492]);
  assert.ok(one.drained && !one.ready);
});

test("F07 single octets that wait take little more room than they are", () => {
  const one = stream(1e6);
  for (let octets = 0; octets < 100_000; octets++) one.copy(Uint8Array.of(octets), 0);
  let chunks = 0;
  let memory = 0;
  for (let chunk = one.take(0); chunk !== undefined; chunk = one.take(0)) {
    chunks++;
    memory += chunk.memory.length;
    one.sent += chunk.used - HEADER_BYTES;
  }
  assert.equal(one.sent, 100_000);
  assert.ok(chunks < 30 && memory < 200_000, `${chunks} chunks, ${memory} octets`);
});

test("a copy does not change when the caller's memory does", () => {
  const one = stream(1e6);
  const memory = Buffer.from("good");
  one.copy(memory, 0);
  memory.fill(0xee);
  assert.equal(take(one)?.toString(), "good");
});

test("what is queued beyond the credit waits for it, and goes in parts", () => {
  const one = stream(3);
  one.copy(Buffer.from("abcdefgh"), 0);
  one.copy(Buffer.from("ij"), 0);
  assert.equal(take(one)?.toString(), "abc");
  assert.equal(take(one), undefined);
  one.grant(4, 0);
  assert.equal(take(one)?.toString(), "d");
  one.grant(9, 0);
  assert.equal(take(one)?.toString(), "efgh");
  assert.equal(take(one)?.toString(), "i");
  assert.equal(one.queuedBytes, 1);
  one.grant(100, 0);
  assert.equal(take(one)?.toString(), "j");
});

test("lent memory goes whole or not at all", () => {
  const one = stream(3);
  one.lend(new Uint8Array(HEADER_BYTES + 4), 0);
  assert.equal(take(one), undefined);
  one.grant(4, 0);
  assert.equal(take(one)?.length, 4);
});

test("a source may queue what the credit allows, and no more than a flush", () => {
  assert.equal(stream(100_000).sendable(0), 100_000);
  const rich = stream(1e9);
  assert.equal(rich.sendable(0), SEND_QUEUE_BYTES);
  rich.lend(new Uint8Array(HEADER_BYTES + SEND_QUEUE_BYTES - DRIBBLE_BYTES), 0);
  assert.equal(rich.sendable(0), DRIBBLE_BYTES);
  rich.copy(Uint8Array.of(1), 0);
  assert.equal(rich.sendable(0), 0, "a queue that is almost full is full");
  for (const state of ["due", "sent"] as const) {
    const over = stream(1e6);
    over.ending = state;
    assert.equal(over.sendable(0), 0);
  }
});

test("the rest of a large grant may be used at once", () => {
  const one = stream(65_536);
  one.sent = 65_536 - 10;
  assert.equal(one.sendable(0), 10);
});

test("F03 credit in crumbs is waited out, each time anew", () => {
  const one = stream(65_536);
  one.sent = 65_536;
  one.wanting = true;
  let now = 0;
  for (let crumbs = 0; crumbs < 5; crumbs++) {
    one.grant(one.credit + 1, now);
    assert.equal(one.sendable(now), 0);
    assert.equal(one.dribbleAt, now + DRIBBLE_MS);
    one.grant(one.credit + 1, now + 100);
    assert.equal(one.sendable(now + DRIBBLE_MS - 1), 0);
    now += DRIBBLE_MS;
    assert.equal(one.sendable(now), 2);
    one.sent += 2;
    now += 1_000;
  }
});

test("F03 crumbs that add up to enough need not be waited out", () => {
  const one = stream(65_536);
  one.sent = 65_536;
  for (let crumbs = 0; crumbs < 4; crumbs++) {
    assert.equal(one.sendable(0), 0);
    one.grant(one.credit + DRIBBLE_BYTES / 4, 0);
  }
  assert.equal(one.sendable(0), DRIBBLE_BYTES);
});

test("a stream with no credit at all does not ask to be woken for crumbs", () => {
  const one = stream(65_536);
  one.sent = 65_536;
  one.wanting = true;
  assert.equal(one.sendable(0), 0);
  assert.equal(one.dribbleAt, Number.POSITIVE_INFINITY);
  one.grant(65_537, 0);
  one.sent = 65_537;
  assert.equal(one.sendable(10_000), 0);
  assert.equal(one.dribbleAt, Number.POSITIVE_INFINITY);
});

test("dropping gives back what was lent, once", () => {
  const one = stream(1e6);
  const lent = new Uint8Array(HEADER_BYTES + 10);
  one.copy(Uint8Array.of(1), 0);
  one.lend(lent, 0);
  const released: Uint8Array[] = [];
  one.drop((memory) => void released.push(memory));
  one.drop((memory) => void released.push(memory));
  assert.deepEqual(released, [lent]);
  assert.equal(one.queuedBytes, 0);
});

/** The frames in which a stream says what is queued, at this time. */
function frames(from: Stream, now: number): number[] {
  const lengths: number[] = [];
  for (let frame = take(from, now); frame !== undefined; frame = take(from, now)) lengths.push(frame.length);
  return lengths;
}

test("a burst begins with a frame of one packet, and each of the next is as large as all before it", () => {
  const one = stream(1e6);
  const lent = new Uint8Array(HEADER_BYTES + 60_000).map((_, at) => at % 251);
  const payload = Buffer.from(lent.subarray(HEADER_BYTES));
  one.lend(lent, 0);
  const parts: Buffer[] = [];
  for (let chunk = one.take(0); chunk !== undefined; chunk = one.take(0)) {
    parts.push(Buffer.from(chunk.memory.subarray(HEADER_BYTES, chunk.used)));
    chunk.memory.fill(0xee, 0, HEADER_BYTES); // as the header is written
    assert.equal(chunk.lent, one.drained ? lent : undefined, "it is handed back once, with its end");
  }
  assert.deepEqual(
    parts.map((part) => part.length),
    [1_250, 1_250, 2_500, 5_000, 10_000, 20_000, 20_000],
  );
  assert.deepEqual(Buffer.concat(parts), payload);
  one.lend(new Uint8Array(HEADER_BYTES + 60_000), 5);
  assert.deepEqual(frames(one, 100), [60_000], "waiting for room is no silence");
  one.lend(new Uint8Array(HEADER_BYTES + 2_000), 106);
  assert.deepEqual(frames(one, 106), [1_250, 750], "having nothing to say is");
});
