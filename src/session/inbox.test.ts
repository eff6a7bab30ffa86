import assert from "node:assert/strict";
import test from "node:test";
import { type Random, seededTest } from "../../test/sim/seed.ts";
import type { SequencedFrame } from "../wire/index.ts";
import { type Arrival, Inbox } from "./inbox.ts";
import { GAPS_MAX, HELD_FRAMES_MAX } from "./limits.ts";

const LIMIT = 2 ** 30;

function skip(seq: number, size = 24): SequencedFrame {
  return { type: "skippedInLog", seq, size };
}

function data(seq: number, stream: number, offset: number, payload: Uint8Array): SequencedFrame {
  return { type: "data", seq, size: 24 + payload.length, stream, offset, fin: false, payload };
}

/** Places a frame, and moves on if it was next; gives what took its turn behind it. */
function take(inbox: Inbox, frame: SequencedFrame): { arrival: Arrival; turns: SequencedFrame[] } {
  const arrival = inbox.place(frame, LIMIT);
  const turns: SequencedFrame[] = [];
  if (arrival === "next") {
    turns.push(frame);
    for (let next = inbox.advance(frame.size); next !== undefined; next = inbox.advance(next.frame.size))
      if (!next.delivered) turns.push(next.frame);
  }
  return { arrival, turns };
}

seededTest(
  "frames that come over several connections, with some of them twice, take their turns once and in order",
  (random) => {
    for (let round = 0; round < 300; round++) {
      const inbox = new Inbox();
      const log: SequencedFrame[] = [];
      let end = 0;
      for (let frames = random.between(1, 80); frames > 0; frames--) {
        const frame = skip(end, random.between(24, 90));
        end += frame.size;
        log.push(frame);
      }
      const turns: SequencedFrame[] = [];
      for (const frame of shuffledByConnection(random, log)) {
        const { arrival, turns: taken } = take(inbox, frame);
        assert.ok(arrival === "next" || arrival === "early" || arrival === "duplicate", arrival);
        turns.push(...taken);
        const reached = turns.reduce((sum, { size }) => sum + size, 0);
        assert.equal(inbox.received, reached);
        assert.equal(inbox.gap, inbox.held > 0);
        assert.equal(inbox.ranges.length > 0, inbox.gap);
      }
      assert.deepEqual(turns, log);
      assert.equal(inbox.held, 0);
    }
  },
);

/** The frames as some connections bring them: in order on each, and now and then a connection says the last few again on another. */
function shuffledByConnection(random: Random, log: readonly SequencedFrame[]): SequencedFrame[] {
  const connections: SequencedFrame[][] = [[], [], []];
  let on = 0;
  for (const frame of log) {
    if (random.chance(0.2)) on = random.between(0, 2);
    connections[on]?.push(frame);
    if (random.chance(0.1)) connections[(on + 1) % 3]?.push(frame);
  }
  const arrivals: SequencedFrame[] = [];
  while (connections.some((waiting) => waiting.length > 0)) {
    const frame = random.pick(connections.filter((waiting) => waiting.length > 0)).shift();
    if (frame !== undefined) arrivals.push(frame);
  }
  return arrivals;
}

test("M12 a frame that overlaps what was received, or what is held, is SEQ wherever it begins and ends", () => {
  // Received up to 100; held: 200 to 300 and 300 to 340.
  const fresh = (): Inbox => {
    const inbox = new Inbox();
    take(inbox, skip(0, 100));
    assert.equal(inbox.place(skip(200, 100), LIMIT), "early");
    assert.equal(inbox.place(skip(300, 40), LIMIT), "early");
    return inbox;
  };
  for (let seq = 60; seq < 380; seq++) {
    for (const size of [24, 40, 60, 100, 101, 140, 200]) {
      const end = seq + size;
      let expected: Arrival = seq === 100 ? "next" : "early";
      if (end <= 100) expected = "duplicate";
      else if (seq < 100) expected = "SEQ";
      else if ((seq === 200 && size === 100) || (seq === 300 && size === 40)) expected = "duplicate";
      else if (seq < 340 && end > 200) expected = "SEQ";
      assert.equal(fresh().place(skip(seq, size), LIMIT), expected, `${seq} to ${end}`);
    }
  }
});

test("M12 a held frame that comes again saying something else is SEQ, whatever it says", () => {
  const base = { seq: 100, size: 24 };
  const pairs: readonly (readonly [SequencedFrame, SequencedFrame])[] = [
    [data(100, 1, 0, Uint8Array.of(1, 2)), data(100, 1, 0, Uint8Array.of(1, 3))],
    [data(100, 1, 0, Uint8Array.of(1, 2)), data(100, 3, 0, Uint8Array.of(1, 2))],
    [data(100, 1, 0, Uint8Array.of(1, 2)), data(100, 1, 2, Uint8Array.of(1, 2))],
    [
      { ...base, type: "credit", stream: 1, limit: 5 },
      { ...base, type: "credit", stream: 1, limit: 6 },
    ],
    [
      { ...base, type: "credit", stream: 1, limit: 5 },
      { ...base, type: "reset", stream: 1, code: 5 },
    ],
    [
      { ...base, type: "end", code: 0 },
      { ...base, type: "end", code: 1 },
    ],
    [
      { ...base, type: "settings", entries: new Map([[1, 1]]) },
      { ...base, type: "settings", entries: new Map([[1, 2]]) },
    ],
  ];
  for (const [held, changed] of pairs) {
    const inbox = new Inbox();
    assert.equal(inbox.place(held, LIMIT), "early");
    assert.equal(inbox.place({ ...held }, LIMIT), "duplicate");
    assert.equal(inbox.place(changed, LIMIT), "SEQ", held.type);
  }
});

test("M14 a frame beyond the log limit is FLOW_CONTROL and leaves nothing behind; END alone may go 24 octets further", () => {
  const inbox = new Inbox();
  assert.equal(inbox.place(skip(1_000 - 23), 1_000), "FLOW_CONTROL");
  assert.equal(inbox.place(skip(Number.MAX_SAFE_INTEGER), 1_000), "FLOW_CONTROL");
  assert.equal(inbox.held, 0);
  assert.equal(inbox.place({ type: "end", code: 0, seq: 1_000, size: 24 }, 1_000), "early");
  assert.equal(inbox.place({ type: "end", code: 0, seq: 1_001, size: 24 }, 1_000), "FLOW_CONTROL");
});

test("M11 so many gaps are held and no more; a frame that joins on opens none", () => {
  const inbox = new Inbox();
  for (let gap = 0; gap < GAPS_MAX; gap++) assert.equal(inbox.place(skip(100 + gap * 100), LIMIT), "early");
  assert.equal(inbox.place(skip(100 + GAPS_MAX * 100), LIMIT), "SEQ");
  assert.equal(inbox.place(skip(124), LIMIT), "early");
  assert.equal(inbox.place(skip(176), LIMIT), "early"); // joins two stretches from the left
  assert.equal(inbox.place(skip(148, 28), LIMIT), "early"); // and closes a gap
  assert.equal(inbox.place(skip(90_000), LIMIT), "early");
  assert.equal(inbox.place(skip(95_000), LIMIT), "SEQ");
});

test("D24 thousands of frames behind one gap are one gap, and are taken without a search", () => {
  const inbox = new Inbox();
  for (let frame = 1; frame <= 10_000; frame++) assert.equal(inbox.place(skip(frame * 24), LIMIT), "early");
  assert.deepEqual(inbox.ranges, [{ start: 24, end: 24 * 10_001 }]);
  assert.equal(take(inbox, skip(0)).turns.length, 10_001);
  assert.equal(inbox.held, 0);
});

test("frames held are bounded in number, too: one more is not kept, and no fault", () => {
  const inbox = new Inbox();
  for (let frame = 1; frame <= HELD_FRAMES_MAX; frame++) assert.equal(inbox.place(skip(frame * 24), LIMIT), "early");
  assert.equal(inbox.place(skip((HELD_FRAMES_MAX + 1) * 24), LIMIT), "full");
  assert.equal(inbox.place(skip(24), LIMIT), "duplicate");
  assert.equal(inbox.held, HELD_FRAMES_MAX);
  assert.equal(take(inbox, skip(0)).turns.length, HELD_FRAMES_MAX + 1);
  assert.equal(inbox.place(skip((HELD_FRAMES_MAX + 1) * 24), LIMIT), "next");
});

test("an ACK can name the first sixteen stretches", () => {
  const inbox = new Inbox();
  for (let gap = 20; gap > 0; gap--) assert.equal(inbox.place(skip(gap * 100), LIMIT), "early");
  assert.equal(inbox.place(skip(124), LIMIT), "early");
  assert.equal(inbox.ranges.length, 16);
  assert.deepEqual(inbox.ranges.slice(0, 2), [
    { start: 100, end: 148 },
    { start: 200, end: 224 },
  ]);
});

test("DATA that came early is delivered early if it continues its stream, once, and in the order of its log", () => {
  const inbox = new Inbox();
  const memory = Buffer.from("abcd");
  assert.equal(inbox.place(data(200, 1, 4, memory), LIMIT), "early");
  assert.equal(inbox.place(data(100, 1, 0, memory), LIMIT), "early");
  assert.equal(inbox.place(data(300, 3, 7, memory), LIMIT), "early");
  memory.fill(0xee); // what was placed is a copy, also of a Buffer
  assert.equal(inbox.deliver(1, 4), undefined);
  assert.equal(inbox.deliver(5, 0), undefined);
  assert.equal(inbox.deliver(3, 0), undefined);
  assert.equal(Buffer.from(inbox.deliver(1, 0)?.payload ?? []).toString(), "abcd");
  assert.equal(inbox.deliver(1, 0), undefined);
  assert.equal(Buffer.from(inbox.deliver(1, 4)?.payload ?? []).toString(), "abcd");
  assert.equal(inbox.deliver(1, 8), undefined);
  const { turns } = take(inbox, skip(0, 100));
  assert.deepEqual(turns.length, 1); // the one at 100 was delivered; its place is taken all the same
  assert.equal(inbox.received, 128);
});

test("DATA that took its turn before it was delivered is not delivered again", () => {
  const inbox = new Inbox();
  assert.equal(inbox.place(data(100, 1, 0, Uint8Array.of(1)), LIMIT), "early");
  assert.equal(inbox.place(data(125, 1, 1, Uint8Array.of(2)), LIMIT), "early");
  assert.equal(take(inbox, skip(0, 100)).turns.length, 3);
  assert.equal(inbox.deliver(1, 0), undefined);
  assert.equal(inbox.deliver(1, 1), undefined);
});
