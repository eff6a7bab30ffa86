/**
 * The session manager as its person meets it: started by the first command, shared by all, visible, ended, and killed in the middle of things.
 * @module
 */
import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { once } from "node:events";
import fs from "node:fs/promises";
import net from "node:net";
import path from "node:path";
import test from "node:test";
import { promisify } from "node:util";
import { eventually } from "../support/deadline.ts";
import { complaints, type Home, home, repository } from "./command.ts";

const TRUST = ["-o", "StrictHostKeyChecking=accept-new"];

interface Status {
  readonly running: boolean;
  readonly pid: number;
  readonly sessions: readonly { readonly address: string; readonly state: string; readonly streams: number }[];
  readonly forwards: readonly string[];
}

async function statusOf(mine: Home): Promise<Status> {
  return JSON.parse((await mine.fived(["status", "--json"])).stdout.toString());
}

/** A server of this home, and its address. */
async function serving(mine: Home, ...targets: readonly string[]): Promise<string> {
  const server = mine.start(["serve", ...targets, "--listen", "tcp://127.0.0.1:0"]);
  const [, address = ""] = await server.line(/listening on tcp:\/\/(\S+)/);
  return address;
}

test("the first command starts a manager, the next ones use its session, and status shows it", async () => {
  await using mine = await home({ manager: true });
  const address = await serving(mine, "cat=exec:cat");
  const before = await mine.fived(["status"]);
  assert.equal(before.code, 1);
  assert.equal(before.stderr, "fived: no session manager runs\n");
  assert.deepEqual(await statusOf(mine), { running: false });

  // Started by npm: what it starts ends with it, but for the manager.
  const env = { npm_execpath: "npm" };
  const first = await mine.fived(["connect", address, "cat", ...TRUST], { input: "one", env });
  assert.deepEqual([first.code, first.stdout.toString(), complaints(first.stderr)], [0, "one", ""]);
  const status = await statusOf(mine);
  assert.ok(status.running);
  assert.deepEqual(
    status.sessions.map((session) => [session.address, session.state]),
    [[address, "ready"]],
  );
  const second = await mine.fived(["connect", address, "cat", ...TRUST], { input: "two" });
  assert.equal(second.stdout.toString(), "two");
  const { pid, sessions } = await statusOf(mine);
  assert.equal(pid, status.pid);
  assert.equal(sessions.length, 1);

  const shown = (await mine.fived(["status"])).stdout.toString();
  assert.match(shown, new RegExp(`^session manager ${pid}\nADDRESS +AS +STATE +CONNECTIONS +STREAMS +QUEUED +RTT\n`));
  assert.match(shown, new RegExp(`^${address} +- +ready +1 +0 +0 B +(-|[0-9.]+ ms)\n`, "m"));

  assert.equal((await mine.fived(["down", address])).code, 0);
  assert.deepEqual((await statusOf(mine)).sessions, []);
  assert.deepEqual((await mine.fived(["down", address])).stderr, `fived: no session is held at ${address}\n`);
  assert.equal((await mine.fived(["down"])).code, 0);
  assert.deepEqual(await statusOf(mine), { running: false });
  await assert.rejects(fs.access(path.join(mine.folder, "run", "manager.sock")), { code: "ENOENT" });
});

test("up says where the manager is, and starts no second one", async () => {
  await using mine = await home({ manager: true });
  const said = (await mine.fived(["up", "--json"])).stdout.toString();
  const socket = path.join(mine.folder, "run", "manager.sock");
  const { pid } = JSON.parse(said) as { readonly pid: number };
  assert.deepEqual(JSON.parse(said), { pid, socket });
  assert.equal((await mine.fived(["up"])).stdout.toString(), `fived: session manager ${pid} at ${socket}\n`);
  assert.equal(((await fs.stat(path.dirname(socket))).mode & 0o777).toString(8), "700");
  const second = await mine.fived(["up", "--foreground"]);
  assert.notEqual(second.code, 0);
  assert.match(second.stderr, /already/);
});

test("a folder that others may enter is refused, and what asked for the manager fails", async () => {
  await using mine = await home({ manager: true });
  await fs.mkdir(path.join(mine.folder, "run"));
  await fs.chmod(path.join(mine.folder, "run"), 0o777);
  const { code, stderr } = await mine.fived(["up"]);
  assert.notEqual(code, 0);
  assert.match(stderr, /manager/);
  await fs.chmod(path.join(mine.folder, "run"), 0o700);
});

test("S04 a manager that is killed takes no forward with it: another is started, and shows it", async () => {
  await using mine = await home({ manager: true });
  const address = await serving(mine, "cat=exec:cat");
  const forward = mine.start(["forward", `0=${address}/cat`, ...TRUST]);
  const [, port = ""] = await forward.line(/^fived: 127\.0\.0\.1:(\d+) -> /);
  assert.equal(await echoed(Number(port), "before"), "before");
  const { pid } = await statusOf(mine);
  const cut = net.connect(Number(port), "127.0.0.1");
  cut.on("error", () => {}).write("on its way");
  await once(cut, "data");
  process.kill(pid, "SIGKILL");
  await new Promise((resolve) => cut.once("close", resolve)); // the server keeps no session of nobody's, and the end says so
  await forward.complains(/lost the session manager: going on by way of another/);
  await eventually(async () => assert.equal(await echoed(Number(port), "after"), "after"), "the port to lead on", {
    seen: () => forward.stderr(),
  });
  const next = await statusOf(mine);
  assert.notEqual(next.pid, pid);
  assert.deepEqual(next.forwards.length, 1);
  assert.equal((await forward.stop()).code, 0);
  assert.deepEqual((await statusOf(mine)).forwards, []);
});

test("S04 a manager that is killed in the middle of a stream is an error of connect, and the next connect has another", async () => {
  await using mine = await home({ manager: true });
  const address = await serving(mine, "cat=exec:cat");
  const connect = mine.start(["connect", address, "cat", ...TRUST]);
  connect.child.stdin.write("first line\n");
  await connect.line(/^first line$/);
  const { pid } = await statusOf(mine);
  process.kill(pid, "SIGKILL");
  const [code] = await once(connect.child, "exit");
  assert.notEqual(code, 0);
  assert.match(connect.stderr(), /Lost the session manager: it has ended/);
  const next = await mine.fived(["connect", address, "cat", ...TRUST], { input: "again" });
  assert.deepEqual([next.code, next.stdout.toString()], [0, "again"]);
});

test("a program with the library goes through the manager where one runs, and starts none", async () => {
  await using mine = await home({ manager: true });
  const address = await serving(mine, "cat=exec:cat");
  const program = path.join(mine.folder, "program.ts");
  const library = path.join(repository, "src", "index.ts");
  await fs.writeFile(
    program,
    `import { connect } from ${JSON.stringify(library)};
     import { text } from "node:stream/consumers";
     const stream = connect(process.argv[2], "cat");
     stream.end("from a program");
     console.log(await text(stream));
     await using session = await connect(process.argv[2]);
     console.log((await session.list()).includes("cat"));`,
  );
  const run = async (): Promise<string> =>
    (await promisify(execFile)(process.execPath, [program, address], { env: mine.environment })).stdout;
  await mine.fived(["list", address, ...TRUST], { env: { FIVED_MANAGER: "off" } }); // pins the key
  assert.equal(await run(), "from a program\ntrue\n");
  assert.deepEqual(await statusOf(mine), { running: false });
  await mine.fived(["up"]);
  assert.equal(await run(), "from a program\ntrue\n");
  assert.equal((await statusOf(mine)).sessions.length, 1);
});

test("a long transfer shows how far it is where that was asked for", async () => {
  await using mine = await home({ manager: true });
  const address = await serving(mine, "cat=exec:cat");
  const connect = mine.start(["connect", address, "cat", "--progress", ...TRUST]);
  connect.child.stdin.write("0123456789");
  await connect.complains(/^fived: 10 B received, 10 B sent, [0-9]+ B\/s$/m);
  connect.child.stdin.end();
  assert.equal((await once(connect.child, "exit"))[0], 0);
});

async function echoed(port: number, words: string): Promise<string> {
  const socket = net.connect(port, "127.0.0.1");
  socket.end(words);
  let heard = "";
  for await (const part of socket) heard += part;
  return heard;
}
