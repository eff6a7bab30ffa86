import assert from "node:assert/strict";
import test from "node:test";
import { Stream } from "./stream.ts";
import { Untaken } from "./untaken.ts";

function kept(id: number): Stream {
  const stream = new Stream(id, false, 0, 0, 0);
  stream.kept = "yes";
  return stream;
}

test("the oldest frame that was not passed on holds back all behind it, and nothing else does", () => {
  const untaken = new Untaken();
  const [one, other] = [kept(1), kept(3)];
  assert.equal(untaken.taken(50, 0), 50);
  untaken.add(50, one, 10, 0);
  untaken.add(90, other, 20, 0);
  untaken.add(130, one, 21, 0); // ten octets more, and the end
  assert.equal(untaken.taken(170, 0), 50);
  other.passedOn = 20;
  assert.equal(untaken.taken(170, 0), 50);
  one.passedOn = 10;
  assert.equal(untaken.taken(170, 0), 130);
  one.passedOn = 20;
  assert.equal(untaken.taken(170, 0), 130, "the end is yet to be passed on");
  one.passedOn = 21;
  assert.equal(untaken.taken(170, 0), 170);
});

test("what came early stands behind what has yet to come", () => {
  const untaken = new Untaken();
  const [one, other] = [kept(1), kept(3)];
  untaken.add(200, one, 10, 0);
  assert.equal(untaken.taken(100, 0), 100, "it is no part of what was received");
  untaken.add(100, other, 10, 0);
  assert.equal(untaken.taken(240, 0), 100);
  other.passedOn = 10;
  assert.equal(untaken.taken(240, 0), 200);
});

test("who takes nothing is waited for, and then is not, until he has caught up; who is gone is not", () => {
  const untaken = new Untaken();
  const [stopped, gone] = [kept(1), kept(3)];
  untaken.add(0, stopped, 10, 0);
  assert.equal(untaken.deadline, 1_000);
  assert.equal(untaken.taken(40, 999), 0);
  assert.equal(untaken.taken(40, 1_000), 40);
  assert.equal(stopped.kept, "not now");
  assert.equal(untaken.deadline, Number.POSITIVE_INFINITY);
  untaken.add(40, gone, 10, 1_000);
  gone.dead = true;
  assert.equal(untaken.taken(80, 1_000), 80);
});

test("a crowd behind one is waited for less long", () => {
  const untaken = new Untaken();
  const [stopped, other] = [kept(1), kept(3)];
  untaken.add(0, stopped, 10, 0);
  for (let at = 1; at <= 300; at++) untaken.add(at * 40, other, at * 10, 0);
  other.passedOn = 3_000;
  assert.equal(untaken.taken(20_000, 99), 0);
  assert.equal(untaken.taken(20_000, 100), 20_000);
});
