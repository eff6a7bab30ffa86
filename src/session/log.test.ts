import assert from "node:assert/strict";
import test from "node:test";
import { seededTest } from "../../test/sim/seed.ts";
import { type Entry, Log } from "./log.ts";

const nobody = (): void => {};

function resent(log: Log, connection: number): number[] {
  const positions: number[] = [];
  for (let entry = log.resend(connection); entry !== undefined; entry = log.resend(connection))
    positions.push(entry.seq);
  return positions;
}

test("acknowledging forgets whole frames only, and tells of each once", () => {
  const log = new Log(true);
  for (const size of [24, 30, 40]) log.append(new Uint8Array(size), undefined, 1);
  const released: number[] = [];
  const release = (entry: Entry): void => void released.push(entry.seq);
  assert.ok(log.acknowledge(53, release));
  assert.deepEqual(released, [0]);
  assert.equal(log.acknowledged, 53);
  assert.ok(log.acknowledge(94, release));
  assert.deepEqual(released, [0, 24, 54]);
  assert.equal(log.unacknowledged, 0);
  assert.ok(log.acknowledge(94, release));
  log.clear(release);
  assert.deepEqual(released, [0, 24, 54]);
});

test("D09 an older acknowledgement, overtaken on another connection, changes nothing", () => {
  const log = new Log(true);
  log.append(new Uint8Array(100), undefined, 1);
  assert.ok(log.acknowledge(100, nobody));
  assert.ok(log.acknowledge(40, nobody));
  assert.equal(log.acknowledged, 100);
});

test("an acknowledgement of what was never said is refused", () => {
  const log = new Log(true);
  log.append(new Uint8Array(100), undefined, 1);
  assert.ok(!log.acknowledge(101, nobody));
  assert.equal(log.acknowledged, 0);
});

test("what a lost connection carried goes again in log order, and only that", () => {
  const log = new Log(true);
  for (const connection of [1, 2, 1, 2, 1]) log.append(new Uint8Array(24), undefined, connection);
  assert.ok(log.acknowledge(24, nobody));
  assert.ok(!log.replaying);
  log.lost(1);
  assert.ok(log.replaying);
  assert.deepEqual(resent(log, 2), [48, 96]);
  assert.ok(!log.replaying);
  log.lost(1);
  assert.deepEqual(resent(log, 3), []);
  log.lost(2);
  assert.deepEqual(resent(log, 3), [24, 48, 72, 96]);
});

test("when the second connection is lost in the middle of saying again, nothing is forgotten or said twice", () => {
  const log = new Log(true);
  for (let frames = 0; frames < 5; frames++) log.append(new Uint8Array(24), undefined, 1);
  log.lost(1);
  assert.equal(log.resend(2)?.seq, 0);
  assert.equal(log.resend(2)?.seq, 24);
  log.lost(2);
  assert.deepEqual(resent(log, 3), [0, 24, 48, 72, 96]);
});

test("what is acknowledged, or named as held, while it waits to go again does not go again", () => {
  const log = new Log(true);
  for (let frames = 0; frames < 5; frames++) log.append(new Uint8Array(24), undefined, 1);
  log.lost(1);
  assert.ok(log.acknowledge(48, nobody));
  log.hold([{ start: 72, end: 96 }]);
  assert.deepEqual(resent(log, 2), [48, 96]);
});

test("a range holds the frames that lie in it whole", () => {
  const log = new Log(true);
  for (let frames = 0; frames < 6; frames++) log.append(new Uint8Array(24), undefined, 1);
  log.hold([
    { start: 25, end: 71 },
    { start: 72, end: 120 },
    { start: 500, end: 600 },
  ]);
  log.lost(1);
  assert.deepEqual(resent(log, 2), [0, 24, 48, 120]);
});

test("a log that retains nothing still counts", () => {
  const log = new Log(false);
  log.append(new Uint8Array(24), undefined, 1);
  assert.equal(log.end, 24);
  assert.equal(log.unacknowledged, 24);
  assert.equal(log.oldestOn, undefined);
  const released: Entry[] = [];
  assert.ok(log.acknowledge(24, (entry) => void released.push(entry)));
  log.lost(1);
  log.clear((entry) => void released.push(entry));
  assert.deepEqual([released, resent(log, 2)], [[], []]);
});

seededTest(
  "the connection to suspect is that of the oldest frame, and every frame is released once, in any order of events",
  (random) => {
    for (let round = 0; round < 200; round++) {
      const log = new Log(true);
      const model: { seq: number; size: number; on: number | undefined; gone: boolean }[] = [];
      const released = new Set<number>();
      const release = ({ seq }: Entry): void => {
        assert.ok(!released.has(seq), "released twice");
        released.add(seq);
      };
      let acknowledged = 0;
      for (let step = 0; step < 200; step++) {
        const waiting = model.filter(({ gone }) => !gone);
        const act = random.between(0, 9);
        if (act < 5) {
          const size = random.between(24, 100);
          const on = random.between(1, 3);
          const { seq } = log.append(new Uint8Array(size), undefined, on);
          model.push({ seq, size, on, gone: false });
        } else if (act < 7) {
          const position = random.between(0, log.end);
          assert.ok(log.acknowledge(position, release));
          acknowledged = Math.max(acknowledged, position);
          for (const entry of waiting) if (entry.seq + entry.size <= acknowledged) entry.gone = true;
        } else if (act < 8) {
          const on = random.between(1, 3);
          log.lost(on);
          for (const entry of waiting) if (entry.on === on) entry.on = undefined;
        } else {
          const on = random.between(1, 3);
          const expected = waiting.find((entry) => entry.on === undefined);
          assert.equal(log.resend(on)?.seq, expected?.seq);
          if (expected !== undefined) expected.on = on;
        }
        const oldest = model.find(({ gone }) => !gone);
        assert.equal(log.oldestOn, oldest?.on);
        assert.equal(log.acknowledged, acknowledged);
      }
      log.clear(release);
      assert.equal(released.size, model.length);
    }
  },
);

test("a long log is cut now and then: what was forgotten is not kept alive", () => {
  const log = new Log(true);
  const kept: WeakRef<Uint8Array>[] = [];
  for (let frames = 0; frames < 1_000; frames++) {
    const frame = new Uint8Array(24);
    kept.push(new WeakRef(frame));
    log.append(frame, undefined, 1);
  }
  // Which objects a collector has taken cannot be asked for; that none but the last is reachable can: nothing goes again.
  assert.ok(log.acknowledge(24 * 999, nobody));
  log.lost(1);
  assert.deepEqual(resent(log, 2), [24 * 999]);
  assert.equal(kept.length, 1_000);
});
