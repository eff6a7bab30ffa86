/**
 * `fived demo`: what it prints works as it is printed, and Ctrl-C leaves nothing behind but the key.
 * @module
 */
import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { once } from "node:events";
import fs from "node:fs/promises";
import net from "node:net";
import path from "node:path";
import { text } from "node:stream/consumers";
import test from "node:test";
import { promisify } from "node:util";
import { home, type Running, repository } from "./command.ts";

const FREE = ["--listen", "tcp://127.0.0.1:0"];

/** The commands that the demonstration proposes. */
async function proposed(demo: Running): Promise<readonly string[]> {
  await demo.line(/^Try, in another terminal:$/);
  const commands: string[] = [];
  await demo.line(/^$/);
  for (;;) {
    const [command] = await demo.line(/^.*$/);
    if (command === "") return commands;
    commands.push(command.replace(/ {2}# .*$/, "").trim());
  }
}

test("every command that the demonstration proposes works as printed", async () => {
  await using mine = await home();
  const demo = mine.start(["demo", ...FREE]);
  const commands = await proposed(demo);
  // `fived` or `npx fived` is the checkout's own here; the home's folders are those of this test.
  const bin = path.join(mine.folder, "bin");
  await fs.mkdir(bin);
  await fs.writeFile(
    path.join(bin, "fived"),
    `#!/bin/sh\nexec "${process.execPath}" "${path.join(repository, "bin", "fived.js")}" "$@"\n`,
    { mode: 0o755 },
  );
  await fs.writeFile(path.join(bin, "npx"), '#!/bin/sh\nexec "$@"\n', { mode: 0o755 });
  const env = {
    ...mine.environment,
    PATH: `${bin}:${process.env["PATH"]}`,
  };
  const shell = (command: string) =>
    promisify(execFile)("sh", ["-c", `${command} </dev/null`], { env, cwd: mine.folder });
  const find = (pattern: RegExp) =>
    commands.find((command) => pattern.test(command)) ?? assert.fail(`no ${pattern} in ${commands.join("\n")}`);

  const list = await shell(find(/ list /));
  for (const name of ["hello", "clock", "echo", "whoami", "web", "date"])
    assert.match(list.stdout, new RegExp(`^${name}$`, "m"));
  assert.match((await shell(find(/ hello$/))).stdout, /^Hello stranger/);
  assert.equal((await promisify(execFile)("sh", ["-c", find(/ echo$/)], { env })).stdout, "anyone there\n");
  const clock = await shell(find(/ clock$/));
  assert.match(clock.stdout, /^\d\d:\d\d:\d\d\n/);

  const [, to = ""] = /forward 8078=(\S+)$/.exec(find(/ forward /)) ?? [];
  const forward = mine.start(["forward", `0=${to}`]);
  const [, port] = await forward.line(/^fived: 127\.0\.0\.1:(\d+) ->/);
  assert.match(await (await fetch(`http://127.0.0.1:${port}/`)).text(), /through a session/);

  const [, host = "", tcp = ""] = /^nc -C (\S+) (\d+)$/.exec(find(/^nc /)) ?? [];
  const byHand = net.connect(Number(tcp), host);
  byHand.end("whoami\r\n");
  assert.match(await text(byHand), /^\+ SUCCESS\r\n\{"user":"nobody"/);
  const inTls = promisify(execFile)("sh", ["-c", `echo hello | ${find(/^openssl /)}`], { env });
  assert.match((await inTls).stdout, /^\+ SUCCESS\r\nHello/m);
  assert.deepEqual(await demo.stop("SIGINT"), { code: 0, signal: null });
});

test("two demonstrations get along: the second takes another port", async () => {
  await using mine = await home();
  const first = mine.start(["demo"]);
  const second = mine.start(["demo"]);
  const [a, b] = await Promise.all([first.line(/listening on (\S+)/), second.line(/listening on (\S+)/)]);
  assert.notEqual(a[1], b[1]);
  await Promise.all([first.stop(), second.stop()]);
});

test("the key of the demonstration stays, so a pin made while playing is good tomorrow and for fived serve", async () => {
  await using mine = await home();
  const keys = new Set<string | undefined>();
  for (const verb of [["demo"], ["demo"], ["serve", "web=3000"]]) {
    const running = mine.start([...verb, ...FREE]);
    keys.add((await running.line(/key (SHA256:\S+)/))[1]);
    await running.stop("SIGINT");
  }
  assert.equal(keys.size, 1);
});

test("the whoami service tells what it learns about its caller", async () => {
  await using mine = await home();
  const demo = mine.start(["demo", ...FREE]);
  const [, address = ""] = await demo.line(/listening on tcp:\/\/(\S+)/);
  const { stdout } = await mine.fived(["connect", address, "whoami", "-o", "StrictHostKeyChecking=accept-new"]);
  const { user, roles, host, secure } = JSON.parse(stdout.toString());
  assert.deepEqual({ user, roles, host, secure }, { user: "nobody", roles: [], host: "default", secure: true });
  const closed = once(demo.child, "exit");
  demo.child.kill("SIGHUP"); // The terminal was closed.
  assert.deepEqual(await closed, [0, null]);
});
