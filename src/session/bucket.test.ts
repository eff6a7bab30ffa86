import assert from "node:assert/strict";
import test from "node:test";
import { Bucket } from "./bucket.ts";

test("a bucket gives what it holds at once, and refills steadily up to its capacity", () => {
  const bucket = new Bucket({ capacity: 10, perSecond: 2 }, 0);
  for (let taken = 0; taken < 10; taken++) assert.ok(bucket.take(1, 0));
  assert.ok(!bucket.take(1, 0));
  assert.ok(!bucket.take(1, 499));
  assert.ok(bucket.take(1, 500));
  assert.ok(!bucket.take(1, 500));
  assert.equal(bucket.level(1_000), 1);
  assert.equal(bucket.level(1e9), 10);
});

test("what is refused takes nothing", () => {
  const bucket = new Bucket({ capacity: 10, perSecond: 1 }, 0);
  assert.ok(!bucket.take(11, 0));
  assert.ok(bucket.take(9, 0));
  assert.ok(!bucket.take(5, 0));
  assert.equal(bucket.level(0), 1);
});

test("many small steps of time refill as much as one large step", () => {
  const bucket = new Bucket({ capacity: 1_000, perSecond: 33 }, 0);
  assert.ok(bucket.take(1_000, 0));
  for (let now = 0; now < 10_000; now += 0.5) bucket.take(0, now);
  assert.ok(Math.abs(bucket.level(10_000) - 330) < 0.001);
});
