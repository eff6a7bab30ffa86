import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { EventEmitter } from "node:events";
import test from "node:test";
import { lendEvents } from "./guest.ts";

/** What becomes of a process that has run this, with guests. */
function fate(program: string) {
  const prelude = `
    import { asGuest, lendEvents } from ${JSON.stringify(new URL("guest.ts", import.meta.url).href)};
    const failed = (error) => console.log("told", error?.message ?? error);`;
  return spawnSync(process.execPath, ["--input-type=module", "--eval", prelude + program], { encoding: "utf8" });
}

test("what a guest throws later is told, and the process lives", () => {
  for (const act of [
    "setTimeout(() => { throw new Error('boom'); })",
    "process.nextTick(() => { throw 'boom'; })",
    "Promise.reject(new Error('boom'))",
    "import('node:net').then(({ connect }) => connect(9, '127.0.0.9'))",
  ]) {
    const { status, stdout } = fate(`asGuest(failed, () => void ${act}); setTimeout(() => console.log("lives"), 200);`);
    assert.match(stdout, /^told (?:boom|connect ECONNREFUSED 127\.0\.0\.9:9)\nlives\n$/, act);
    assert.equal(status, 0);
  }
});

test("what nobody's guest throws ends the process, and so does what we throw on a guest's behalf", () => {
  for (const act of [
    "asGuest(failed, () => {}); setTimeout(() => { throw new Error('boom'); })",
    // asGuest itself is ours: calling it wrongly stands for a mistake of ours.
    "asGuest(failed, () => void setTimeout(asGuest, 1, failed, 'boom'))",
  ]) {
    const { status, stdout, stderr } = fate(`${act}; setTimeout(() => console.log("lives"), 2_000);`);
    assert.equal(stdout, "", act);
    assert.match(stderr, /boom|guest\.ts/);
    assert.equal(status, 1);
  }
});

test("what a listener throws is told, and the others are not called: as if it had been thrown", () => {
  const emitter = new EventEmitter();
  const told: unknown[] = [];
  lendEvents(emitter, (error) => told.push(error));
  emitter.on("event", (what) => {
    throw what;
  });
  emitter.on("event", () => assert.fail("called behind one that threw"));
  assert.equal(emitter.emit("event", "boom"), true);
  assert.equal(emitter.emit("other"), false);
  assert.deepEqual(told, ["boom"]);
});
