/**
 * What is different at a terminal: questions, headers, and a service's end ending `fived connect`. The terminal is that of `script` (bsdutils).
 * @module
 */
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import fs from "node:fs/promises";
import path from "node:path";
import { text } from "node:stream/consumers";
import test from "node:test";
import { eventually } from "../support/deadline.ts";
import { type Home, home, repository } from "./command.ts";

/** Runs a fived command at a terminal. */
function atTerminal({ environment: env }: Home, args: readonly string[]) {
  const command = [process.execPath, path.join(repository, "bin", "fived.js"), ...args]
    .map((word) => `'${word}'`)
    .join(" ");
  return spawn(
    "script",
    ["--quiet", "--echo", "never", "--return", "--command", `${command}; echo "ended with $?"`, "/dev/null"],
    { env },
  );
}

/** The same where somebody types; answers all that was on the screen. */
async function typed(home: Home, args: readonly string[], keys: string): Promise<string> {
  const child = atTerminal(home, args);
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

test("connect -t is a terminal of the service's: every key goes there, and ~. at the start of a line leaves", async () => {
  await using mine = await home();
  const file = path.join(mine.folder, "shell.yaml");
  const shell = {
    exec: ["script", "--quiet", "--echo", "never", "--command", "stty -echo; echo ready; cat -A", "/dev/null"],
    allow: ["anyone"],
  };
  await fs.writeFile(file, JSON.stringify({ listen: ["tcp://127.0.0.1:0"], services: { shell } }));
  const server = mine.start(["serve", "-c", file, "--state", path.join(mine.folder, "server")]);
  const [, address = ""] = await server.line(/listening on tcp:\/\/(\S+)/);
  const child = atTerminal(mine, ["connect", "-t", address, "shell", "-o", "StrictHostKeyChecking=accept-new"]);
  let shown = "";
  child.stdout.on("data", (octets: Buffer) => {
    shown += octets.toString().replaceAll("\r", "");
  });
  const sees = (what: RegExp): Promise<void> =>
    eventually(async () => assert.match(shown, what), `${what} on the screen`);
  await sees(/ready\n/);
  child.stdin.write("a\tb~.c\r");
  await sees(/a\^Ib~\.c\$\n/); // what is typed in a line is the service's
  child.stdin.write("~~d\r");
  await sees(/\n~d\$\n/); // two are one
  child.stdin.write("~.");
  await sees(/fived: Left with ~\.\n/);
  await sees(/ended with 255\n$/);
  child.stdin.end();
  if (child.exitCode === null) await once(child, "exit");
});
