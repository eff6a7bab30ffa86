import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import test from "node:test";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { configurationSchema } from "./schema.ts";

const schema = configurationSchema({ folder: "/", path: "/bin" });

/** The limits that a file with these would give, or its complaints. */
function limits(entries: readonly (readonly [string, unknown])[]) {
  const result = schema.safeParse(new Map([["limits", new Map(entries)]]));
  return result.success
    ? result.data.limits
    : result.error.issues.map(({ path, message }) => `${path.join(".")}: ${message}`);
}

test("the JSON Schema and the reference page are those of the schema", async () => {
  const script = fileURLToPath(new URL("../../scripts/schema.ts", import.meta.url));
  await promisify(execFile)(process.execPath, [script, "--check"]);
});

test("durations and sizes are read with their units, and come out as milliseconds and octets", () => {
  const read = limits([
    ["connect", "1.5s"],
    ["stall", "2m"],
    ["shutdown", "1ms"],
    ["streamStall", "24d"],
    ["sendQueue", "16384B"],
    ["window", "1.5MiB"],
    ["logWindow", "1GiB"],
  ]);
  assert.ok(!Array.isArray(read) && "connectMs" in read);
  assert.deepEqual(
    [read.connectMs, read.stallMs, read.shutdownMs, read.streamStallMs],
    [1_500, 120_000, 1, 24 * 86_400_000],
  );
  assert.deepEqual(
    [read.sendQueueBytes, read.windowBytesMax, read.logWindowBytesMax],
    [16_384, 1_572_864, 1_073_741_824],
  );
});

test("durations and sizes without a unit, of another unit or beyond what we can keep are refused", () => {
  for (const connect of ["", "5", 5, "5S", "-5s", "5 s", "1h30m", "0s", "0.4ms", "25d", "1e3s", "٣s", null]) {
    const read = limits([["connect", connect]]);
    assert.ok(Array.isArray(read) && read[0]?.startsWith("limits.connect: expected a duration"), String(connect));
  }
  for (const window of ["", "1MB", "1mib", 65_536, "64KiB ", "63KiB", "65GiB", "NaNB"]) {
    const read = limits([["window", window]]);
    assert.ok(Array.isArray(read) && read[0]?.startsWith("limits.window: expected a size"), String(window));
  }
});

test("limits that contradict each other are refused", () => {
  assert.deepEqual(limits([["initialCredit", "8MiB"]]), ["limits.window: expected at least initialCredit"]);
  assert.deepEqual(limits([["unauthenticated", new Map([["full", 5]])]]), [
    "limits.unauthenticated.full: expected at least as many as start",
  ]);
});
