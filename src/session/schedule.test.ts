import assert from "node:assert/strict";
import test from "node:test";
import { Schedule } from "./schedule.ts";
import { Stream } from "./stream.ts";

function stream(id: number, chunks: number, size: number): Stream {
  const made = new Stream(id, false, 2 ** 30, 65_536, 0);
  for (let chunk = 0; chunk < chunks; chunk++) made.lend(new Uint8Array(24 + size), 0);
  return made;
}

/** Lets each stream whose turn it is say one chunk, until nobody has anything to say. */
function turns(schedule: Schedule, now: number): number[] {
  const order: number[] = [];
  for (let next = schedule.next(); next !== undefined; next = schedule.next()) {
    next.take(now);
    order.push(next.id);
    if (next.ready) schedule.add(next, now);
  }
  return order;
}

test("interactive streams take turns, a frame each", () => {
  const schedule = new Schedule();
  for (const each of [stream(1, 3, 10), stream(3, 2, 10), stream(5, 1, 10)]) schedule.add(each, 0);
  assert.deepEqual(turns(schedule, 0), [1, 3, 5, 1, 3, 1]);
  assert.ok(schedule.empty);
});

/** A schedule of streams that have said much, and have so many frames left. */
function bulk(frames: number, ...ids: number[]): Schedule {
  const schedule = new Schedule();
  for (const id of ids) {
    const each = stream(id, frames + 1, 60_000);
    while (each.queuedBytes > frames * 60_000) each.take(0);
    schedule.add(each, 0);
  }
  return schedule;
}

test("bulk streams take turns, four frames each", () => {
  assert.deepEqual(turns(bulk(6, 1, 3), 0), [1, 1, 1, 1, 3, 3, 3, 3, 1, 1, 3, 3]);
  assert.deepEqual(turns(bulk(9, 1), 0), [1, 1, 1, 1, 1, 1, 1, 1, 1]);
});

test("a stream that said little lately goes before those that said much, also in the middle of their turn", () => {
  const schedule = bulk(5, 1, 3);
  const speaking = schedule.next();
  assert.equal(speaking?.id, 1);
  speaking.take(0);
  schedule.add(speaking, 0);
  schedule.add(stream(5, 2, 10), 0);
  assert.deepEqual(turns(schedule, 0), [5, 5, 1, 1, 1, 3, 3, 3, 3, 1, 3]);
});

test("what was said fades: a bulk stream that paused is interactive again", () => {
  const once = stream(1, 1, 60_000);
  while (!once.drained) once.take(0);
  assert.ok(!once.interactive(0));
  assert.ok(!once.interactive(150));
  assert.ok(once.interactive(250));
});

test("a stream is listed once, and passed over when it has nothing to say or no credit", () => {
  const schedule = new Schedule();
  const twice = stream(1, 1, 10);
  schedule.add(twice, 0);
  schedule.add(twice, 0);
  const silent = stream(3, 0, 0);
  schedule.add(silent, 0);
  const dead = stream(5, 1, 10);
  dead.dead = true;
  schedule.add(dead, 0);
  const poor = new Stream(7, false, 0, 65_536, 0);
  poor.copy(new Uint8Array(5), 0);
  schedule.add(poor, 0);
  assert.deepEqual(turns(schedule, 0), [1]);
  poor.grant(5, 0);
  schedule.add(poor, 0);
  assert.deepEqual(turns(schedule, 0), [7]);
});
