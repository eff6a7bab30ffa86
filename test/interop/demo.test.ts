/**
 * What `fived demo` proposes for programs that are not ours, netcat, openssl and curl, typed as it is printed. What it proposes for `fived`
 * itself is tested in e2e.
 * @module
 */
import assert from "node:assert/strict";
import test, { type TestContext } from "node:test";
import { fived } from "../support/fived.ts";
import { freePort, Lab } from "../support/lab.ts";
import { needs } from "../support/needs.ts";

test("the demonstration by hand, over netcat and over openssl", { skip: needs("nc", "openssl") }, async (t) => {
  const { lab, proposed } = await demonstration(t);
  for (const pattern of [/^nc -C .*$/m, /^openssl s_client .*$/m]) {
    const person = lab.start(["sh", "-c", `exec ${proposed(pattern)}`]);
    person.says("LIST\n");
    await person.hears(/^LIST\r\n(?:\S+\r\n)+\r\n/);
    person.says("hello\n");
    await person.hears(/^\+ SUCCESS\r\nHello .*\n/);
  }
});

test("the demonstration's web page through a forward, for curl", { skip: needs("curl") }, async (t) => {
  const { lab, proposed } = await demonstration(t);
  const [, to = ""] = /forward 8078=(\S+)$/.exec(proposed(/^.*fived forward .*$/m)) ?? [];
  // The only word that is not taken as printed: port 8078 of this machine may be in use.
  const port = await freePort();
  const forward = lab.start(fived("forward", "-o", "StrictHostKeyChecking=accept-new", `${port}=${to}`));
  await forward.hears(/->/);
  const { status, stdout, stderr } = await lab.run(["curl", "-sS", `http://127.0.0.1:${port}`]);
  assert.equal(status, 0, stderr);
  assert.match(stdout.toString(), /came through a session/);
});

/** A demonstration, and the commands that it prints. */
async function demonstration(t: TestContext) {
  const lab = await Lab.open(t);
  const demo = lab.start(fived("demo", "--listen", "tcp://127.0.0.1:0"));
  const [printed] = await demo.hears(/Try, in another terminal:\n\n(?: .*\n)+/);
  const commands = [...printed.matchAll(/^ {2}(\S.*?) {2,}# /gm)].map(([, command = ""]) => command).join("\n");
  return {
    lab,
    proposed: (pattern: RegExp): string => pattern.exec(commands)?.[0] ?? assert.fail(`no ${pattern} in ${commands}`),
  };
}
