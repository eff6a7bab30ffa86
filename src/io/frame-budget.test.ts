import assert from "node:assert/strict";
import test from "node:test";
import { FrameBudget } from "./frame-budget.ts";

test("F07 a session alone may have any number of small frames", () => {
  const budget = new FrameBudget(20_000);
  const alone = budget.open(0);
  for (let now = 0; now < 1_000; now++) assert.equal(budget.charge(alone, 1_000, now), 0);
});

test("F07 beside another session one is held up for what it has had too many", () => {
  const budget = new FrameBudget(20_000);
  const greedy = budget.open(0);
  const modest = budget.open(0);
  let paused = 0;
  for (let now = 0; now < 1_000; now += 10) {
    assert.equal(budget.charge(modest, 1, now), 0);
    paused += budget.charge(greedy, 1_000, now + 5);
  }
  assert.ok(paused > 500, `paused for ${paused} ms of 1,000`);
});

test("F07 what was used while alone is not owed when another comes", () => {
  const budget = new FrameBudget(20_000);
  const first = budget.open(0);
  for (let now = 0; now < 1_000; now++) budget.charge(first, 1_000, now);
  budget.charge(budget.open(1_000), 0, 1_000);
  assert.equal(budget.charge(first, 1, 1_001), 0);
});
