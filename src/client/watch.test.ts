import assert from "node:assert/strict";
import test from "node:test";
import { type Computer, thisComputer, watcherOf } from "./watch.ts";

/** A computer whose clocks and addresses a test sets. */
function computer(): Computer & { wall: number; running: number; at: string[] } {
  return {
    wall: 1_000_000,
    running: 50,
    at: ["eth0 192.0.2.1", "lo 127.0.0.1"],
    wallClock() {
      return this.wall;
    },
    monotonic() {
      return this.running;
    },
    addresses() {
      return this.at;
    },
  };
}

function pass(it: { wall: number; running: number }, ms: number): void {
  it.wall += ms;
  it.running += ms;
}

test("a computer that runs and stays where it is gives no reason to doubt", () => {
  const it = computer();
  const happened = watcherOf(it);
  pass(it, 2_000);
  assert.equal(happened(), undefined);
  it.wall += 1_000; // ntp
  it.at.reverse();
  assert.equal(happened(), undefined);
});

test("sleep is told once, from the clock that went on meanwhile", () => {
  const it = computer();
  const happened = watcherOf(it);
  it.wall += 60_000;
  assert.equal(happened(), "slept");
  pass(it, 2_000);
  assert.equal(happened(), undefined);
});

test("another address, or one fewer, is told once", () => {
  const it = computer();
  const happened = watcherOf(it);
  it.at = ["wlan0 198.51.100.7", "lo 127.0.0.1"];
  assert.equal(happened(), "moved");
  assert.equal(happened(), undefined);
  it.at = ["lo 127.0.0.1"];
  assert.equal(happened(), "moved");
});

test("this computer has clocks and a loopback address", () => {
  assert.ok(thisComputer.wallClock() > 1_700_000_000_000);
  assert.ok(thisComputer.monotonic() > 0);
  assert.ok(thisComputer.addresses().some((address) => address.endsWith(" 127.0.0.1")));
  assert.equal(watcherOf(thisComputer)(), undefined);
});
