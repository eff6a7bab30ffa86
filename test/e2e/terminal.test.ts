/**
 * What is different at a terminal: questions, headers, and a service's end ending `fived connect`. The terminal is that of `script` (bsdutils).
 * @module
 */
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import path from "node:path";
import { text } from "node:stream/consumers";
import test from "node:test";
import { type Home, home, repository } from "./command.ts";

/** Runs a fived command at a terminal where somebody types; answers all that was on the screen. */
async function typed({ environment: env }: Home, args: readonly string[], keys: string): Promise<string> {
  const command = [process.execPath, path.join(repository, "bin", "fived.js"), ...args]
    .map((word) => `'${word}'`)
    .join(" ");
  const child = spawn(
    "script",
    ["--quiet", "--echo", "never", "--return", "--command", `${command}; echo "ended with $?"`, "/dev/null"],
    { env },
  );
  const screen = text(child.stdout);
  child.stdin.write(keys);
  const shown = (await screen).replaceAll("\r", "");
  child.stdin.end();
  return shown;
}

test("at a terminal an unknown key is a question; yes pins it, no refuses", async () => {
  await using mine = await home();
  const server = mine.start(["serve", "web=3000", "--listen", "tcp://127.0.0.1:0"]);
  const [, address = "", key = ""] = await server.line(/listening on tcp:\/\/(\S+) {2}key (\S+)/);

  const refused = await typed(mine, ["list", address], "perhaps\nno\n");
  assert.ok(refused.includes(key), `the question shows the key: ${refused}`);
  assert.match(refused, /\(yes\/no\) Please write yes or no: /);
  assert.match(refused, /ended with 255\n$/);

  const accepted = await typed(mine, ["list", address], "yes\n");
  assert.match(accepted, /\(yes\/no\)/);
  assert.match(accepted, /^web$/m);
  assert.match(accepted, /ended with 0\n$/);

  const known = await typed(mine, ["list", address], "");
  assert.doesNotMatch(known, /yes\/no/);
  assert.match(known, new RegExp(`SERVICES AT ${address}`));
});

test("at a terminal the end of a service ends connect", async () => {
  await using mine = await home();
  const server = mine.start(["demo", "--listen", "tcp://127.0.0.1:0"]);
  const [, address = ""] = await server.line(/listening on tcp:\/\/(\S+)/);
  const shown = await typed(mine, ["connect", address, "hello", "-o", "StrictHostKeyChecking=accept-new"], "");
  assert.match(shown, /^Hello stranger/m);
  assert.match(shown, /ended with 0\n$/);
});
