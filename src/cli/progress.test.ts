import assert from "node:assert/strict";
import test from "node:test";
import { progressLine, size } from "./progress.ts";

test("sizes have the unit that people read", () => {
  const shown = [0, 1, 1_023, 1_024, 1_048_575, 1_048_576, 3.5 * 2 ** 30, 2 ** 50].map(size);
  assert.deepEqual(shown, ["0 B", "1 B", "1023 B", "1.0 KiB", "1024.0 KiB", "1.0 MiB", "3.5 GiB", "1024.0 TiB"]);
});

test("progress says which way octets went, and how fast", () => {
  assert.equal(progressLine({ received: 10 * 2 ** 20, sent: 0 }, 2_000), "10.0 MiB received, 5.0 MiB/s");
  assert.equal(progressLine({ received: 0, sent: 2_048 }, 1_000), "2.0 KiB sent, 2.0 KiB/s");
  assert.equal(progressLine({ received: 1, sent: 1 }, 1_000), "1 B received, 1 B sent, 2 B/s");
  assert.equal(progressLine({ received: 0, sent: 0 }, 1_000), "0 B received, 0 B/s");
});
