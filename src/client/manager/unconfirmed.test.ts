import assert from "node:assert/strict";
import test from "node:test";
import fc from "fast-check";
import { effort, seed } from "../../../test/sim/seed.ts";
import { Unconfirmed } from "./unconfirmed.ts";

test("what was confirmed may be forgotten, and nothing else is", () => {
  const steps = fc.array(fc.record({ write: fc.nat(50), confirm: fc.nat(60) }), { maxLength: 300 });
  fc.assert(
    fc.property(steps, fc.nat(), (all, pick) => {
      const unconfirmed = new Unconfirmed();
      const said: number[] = [];
      let confirmed = 0;
      for (const { write, confirm } of all) {
        const piece = Uint8Array.from({ length: write }, (_, at) => (said.length + at) % 251);
        said.push(...piece);
        unconfirmed.add(piece);
        confirmed = Math.min(confirmed + confirm, said.length);
        unconfirmed.confirm(confirmed);
      }
      const from = confirmed + (pick % (said.length - confirmed + 1));
      assert.deepEqual(
        [...Buffer.concat([...(unconfirmed.since(from) ?? assert.fail("it is gone"))])],
        said.slice(from),
      );
      assert.ok(unconfirmed.bytes <= said.length - confirmed + 50);
      assert.equal(unconfirmed.since(said.length + 1), undefined);
    }),
    { seed, numRuns: 300 * effort },
  );
});

test("what was forgotten is not there any more", () => {
  const unconfirmed = new Unconfirmed();
  unconfirmed.add(Uint8Array.of(1, 2, 3));
  unconfirmed.add(Uint8Array.of(4));
  unconfirmed.confirm(3);
  assert.equal(unconfirmed.since(2), undefined);
  assert.deepEqual(unconfirmed.since(3), [Uint8Array.of(4)]);
  assert.deepEqual(unconfirmed.since(4), []);
});
