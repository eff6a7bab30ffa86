/**
 * Plaintext "as from elsewhere" (PROTOCOL §2.3): nobody on this computer comes from elsewhere, so those tests run once more in a network
 * namespace of their own, where an address of documentation (RFC 5737) belongs to the loopback interface and is no loopback address.
 * @module
 */
import assert from "node:assert/strict";
import test from "node:test";
import { needs, unshare } from "../support/needs.ts";
import { run } from "../support/program.ts";

const VARIABLE = "FIVED_TEST_ELSEWHERE";
const ADDRESS = "192.0.2.1";

/** Set in the namespace: the address to listen at. Undefined outside, where only everything else is tested. */
export const elsewhere = process.env[VARIABLE];

/** Outside the namespace: a test that runs this file again inside. */
export function testElsewhere(file: string): void {
  if (elsewhere !== undefined) return;
  test("the same from elsewhere, in a network namespace", { skip: needs("namespaces", "ip", "unshare") }, async () => {
    const set = `ip link set lo up && ip address add ${ADDRESS}/32 dev lo && exec "$@"`;
    const command = [...unshare("--net"), "sh", "-c", set, "sh", process.execPath, "--test-reporter=tap", file];
    // NODE_TEST_CONTEXT would make the file report to our own runner, in whose name it does not run.
    const { NODE_TEST_CONTEXT: _, ...env } = process.env;
    const { status, stdout, stderr } = await run(command, { env: { ...env, [VARIABLE]: ADDRESS }, ms: 120_000 });
    assert.equal(status, 0, `${stdout.toString()}${stderr}`);
    assert.match(stdout.toString(), /^# pass [1-9]/m, "looked at something");
  });
}
