/**
 * The launcher `bin/fived.js`: what an older Node does with it. Runs a copy of it beside a small program of the test's own, so that
 * nothing here depends on what `fived` does. Without an older Node on the machine the pinned one says that it is 20.
 * @module
 */
import assert from "node:assert/strict";
import { type ChildProcess, spawn } from "node:child_process";
import { createHash, randomBytes } from "node:crypto";
import { once } from "node:events";
import fs from "node:fs/promises";
import os from "node:os";
import path from "node:path";
import { buffer, text } from "node:stream/consumers";
import test, { after } from "node:test";

const repository = path.join(import.meta.dirname, "..", "..");
const old = await olderNode();
const folders: string[] = [];
after(async () => {
  for (const folder of folders) await fs.rm(folder, { recursive: true });
});

/** A program that answers in the way its first argument says. */
const PROGRAM = `
import { pipeline } from "node:stream/promises";
export async function main([verb, ...rest]) {
  if (verb === "args") console.log(JSON.stringify({ rest, node: process.versions.node }));
  if (verb === "copy") await pipeline(process.stdin, process.stdout);
  if (verb === "stderr") console.error("to the standard error");
  if (verb === "status") return Number(rest[0]);
  if (verb === "lost") await new Promise(() => {});
  if (verb === "die") process.kill(process.pid, rest[0]);
  if (verb === "die" || verb === "sleep") await new Promise(() => setInterval(() => {}, 1000));
  if (verb === "hear") {
    const heard = new Promise((resolve) => process.once(rest[0], resolve));
    const alive = setInterval(() => {}, 1000);
    console.log("ready");
    console.log("heard " + (await heard));
    clearInterval(alive);
    return 7;
  }
  return 0;
}
`;

test("an older node hands every argument over unchanged to the pinned runtime", async () => {
  const args = ["", "a b", "--flag=ä", "--", "'\"$HOME\\", "\n"];
  const child = await launch(["args", ...args]);
  const answer = JSON.parse(await text(child.stdout));
  assert.deepEqual(answer.rest, args);
  assert.ok(Number.parseInt(answer.node, 10) >= 24);
  assert.deepEqual(await ended(child), { code: 0, signal: null });
});

test("standard input and output pass through the launcher as they are, binary and larger than any buffer", async () => {
  const child = await launch(["copy"]);
  const sent = randomBytes(3_000_000);
  child.stdin.end(sent);
  const got = await buffer(child.stdout);
  assert.equal(sha256(got), sha256(sent));
  assert.deepEqual(await ended(child), { code: 0, signal: null });
});

test("standard error stays apart from standard output", async () => {
  const child = await launch(["stderr"]);
  const [out, err] = await Promise.all([text(child.stdout), text(child.stderr)]);
  assert.equal(out, "");
  assert.equal(err, "to the standard error\n");
});

test("the exit status of the program is the exit status of the launcher", async () => {
  for (const status of [0, 1, 2, 255]) {
    assert.deepEqual(await ended(await launch(["status", String(status)])), { code: status, signal: null });
  }
});

for (const signal of ["SIGTERM", "SIGINT", "SIGHUP", "SIGQUIT", "SIGUSR1", "SIGUSR2"] as const) {
  test(`${signal} is passed on, and the program's answer to it stands`, async () => {
    const child = await launch(["hear", signal]);
    const lines = child.stdout.setEncoding("utf8")[Symbol.asyncIterator]();
    assert.equal((await lines.next()).value, "ready\n");
    child.kill(signal);
    assert.equal((await lines.next()).value, `heard ${signal}\n`);
    assert.deepEqual(await ended(child), { code: 7, signal: null });
  });
}

test("when a signal ends the program it ends the launcher too", async () => {
  for (const signal of ["SIGTERM", "SIGKILL", "SIGABRT"] as const) {
    assert.deepEqual(await ended(await launch(["die", signal])), { code: null, signal });
  }
});

test("a program that waits for what never comes ends as a failure, and says so", async () => {
  const child = await launch(["lost"]);
  assert.equal(await text(child.stderr), "fived: Internal error: it ended without saying how; report this\n");
  assert.deepEqual(await ended(child), { code: 255, signal: null });
});

test("without a pinned runtime the launcher says in one line what to install", async () => {
  const child = await launch(["args"], { runtime: false });
  const [out, err] = await Promise.all([text(child.stdout), text(child.stderr)]);
  assert.equal(out, "");
  assert.match(err, /^fived: Cannot start on Node \d+\.\d+\.\d+: install Node 24 or later \(.*\)\n$/);
  assert.deepEqual(await ended(child), { code: 255, signal: null });
});

test("the pinned runtime is found above the package, where npm puts it for a package that depends on fived", async () => {
  const child = await launch(["args", "x"], { nested: true });
  assert.deepEqual(JSON.parse(await text(child.stdout)).rest, ["x"]);
});

test("a checkout that was never built says so", async () => {
  const child = await launch(["args"], { built: false });
  assert.match(
    await text(child.stderr),
    /^fived: Cannot start: .*main\.js is missing; build it with "npm run build"\n$/,
  );
  assert.deepEqual(await ended(child), { code: 255, signal: null });
});

test("a node that is new enough runs the program itself", async () => {
  const child = await launch(["args", "x"], { node: [process.execPath], runtime: false });
  assert.deepEqual(JSON.parse(await text(child.stdout)), { rest: ["x"], node: process.versions.node });
});

interface Layout {
  readonly node?: readonly [string, ...string[]];
  readonly runtime?: boolean;
  readonly nested?: boolean;
  readonly built?: boolean;
}

async function launch(
  args: readonly string[],
  { node = old, runtime = true, nested = false, built = true }: Layout = {},
) {
  const top = await fs.mkdtemp(path.join(os.tmpdir(), "fived-launcher-"));
  folders.push(top);
  const folder = nested ? path.join(top, "node_modules", "fived") : top;
  await fs.mkdir(path.join(folder, "bin"), { recursive: true });
  await fs.mkdir(path.join(folder, "dist", "cli"), { recursive: true });
  await fs.mkdir(path.join(top, "node_modules"), { recursive: true });
  await fs.writeFile(path.join(folder, "package.json"), '{ "type": "module" }');
  await fs.copyFile(path.join(repository, "bin", "fived.js"), path.join(folder, "bin", "fived.js"));
  if (built) await fs.writeFile(path.join(folder, "dist", "cli", "main.js"), PROGRAM);
  if (runtime) {
    const bin = path.join(top, "node_modules", `node-linux-${process.arch}`, "bin");
    await fs.mkdir(bin, { recursive: true });
    await fs.symlink(process.execPath, path.join(bin, "node"));
  }
  const [command, ...before] = node;
  return spawn(command, [...before, path.join(folder, "bin", "fived.js"), ...args], { stdio: "pipe" });
}

async function ended(child: ChildProcess): Promise<{ code: number | null; signal: string | null }> {
  if (child.exitCode === null && child.signalCode === null) await once(child, "exit");
  return { code: child.exitCode, signal: child.signalCode };
}

/** The command of a Node that is too old for fived: one of this machine, or the running one in disguise. */
async function olderNode(): Promise<readonly [string, ...string[]]> {
  for (const folder of (process.env["PATH"] ?? "").split(path.delimiter)) {
    const candidate = path.join(folder, "node");
    if (
      !(await fs.access(candidate, fs.constants.X_OK).then(
        () => true,
        () => false,
      ))
    )
      continue;
    const child = spawn(candidate, ["--version"], { stdio: ["ignore", "pipe", "ignore"] });
    const major = Number.parseInt((await text(child.stdout)).slice(1), 10);
    if (major >= 18 && major < 24) return [candidate];
  }
  const disguise = 'Object.defineProperty(process,"versions",{value:{...process.versions,node:"20.0.0"}})';
  return [process.execPath, "--import", `data:text/javascript,${encodeURIComponent(disguise)}`];
}

function sha256(bytes: Uint8Array): string {
  return createHash("sha256").update(bytes).digest("hex");
}
