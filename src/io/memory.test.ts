import assert from "node:assert/strict";
import test from "node:test";
import { seededTest } from "../../test/sim/seed.ts";
import { isScratch, SLAB_BYTES, SLOT_BYTES, type Slab, scratch, slabOf, slabsHeld, takeSlab } from "./memory.ts";

test("a slab is given out again when its last holder has released it, and not before", () => {
  const slab = takeSlab();
  slab.hold();
  slab.hold();
  slab.release();
  slab.release();
  const other = takeSlab();
  assert.notEqual(other, slab);
  slab.release();
  assert.equal(takeSlab(), slab);
  slab.release();
  other.release();
  assert.equal(slabsHeld(), 0);
});

test("a slab is spent when only its reader holds it", () => {
  const slab = takeSlab();
  assert.equal(slab.spent, true);
  slab.hold();
  assert.equal(slab.spent, false);
  slab.release();
  assert.equal(slab.spent, true);
  slab.release();
});

test("releasing more often than holding throws, as the slab would then have two readers", () => {
  const slab = takeSlab();
  slab.release();
  assert.throws(() => slab.release(), /released more often than held/);
});

seededTest("no slab has two takers, whoever holds and releases in whatever order", (random) => {
  const holders: Slab[] = [];
  for (let step = 0; step < 20_000; step++) {
    const at = random.between(0, holders.length);
    const one = holders[at];
    const choice = random.fraction();
    if (one === undefined || choice < 0.3) {
      const taken = takeSlab();
      assert.ok(!holders.includes(taken), "a slab that is held was given out");
      holders.push(taken);
    } else if (choice < 0.5) {
      one.hold();
      holders.push(one);
    } else {
      holders.splice(at, 1);
      one.release();
    }
    assert.equal(slabsHeld(), new Set(holders).size);
  }
  for (const slab of holders) slab.release();
  assert.equal(slabsHeld(), 0);
});

test("32 slabs are kept for reuse, and what a peak had more is left to the collector", () => {
  const peak = Array.from({ length: 40 }, () => takeSlab());
  assert.equal(slabsHeld(), 40);
  for (const slab of peak) slab.release();
  assert.equal(slabsHeld(), 0);
  const again = Array.from({ length: 40 }, () => takeSlab());
  assert.equal(again.filter((slab) => peak.includes(slab)).length, 32);
  for (const slab of peak) assert.equal(slabOf(slab.bytes) === slab, again.includes(slab));
  for (const slab of again) slab.release();
});

test("bytes know the slab they lie in, and whether they lie in the memory that all share", () => {
  const slab = takeSlab();
  assert.equal(slab.bytes.length, SLAB_BYTES);
  assert.equal(slabOf(slab.bytes.subarray(SLOT_BYTES, SLOT_BYTES + 1)), slab);
  assert.equal(slabOf(slab.bytes.slice(0, 10)), undefined);
  assert.equal(slabOf(scratch), undefined);
  assert.equal(isScratch(scratch.subarray(7, 9)), true);
  assert.equal(isScratch(scratch.slice()), false);
  assert.equal(isScratch(slab.bytes), false);
  slab.release();
});
