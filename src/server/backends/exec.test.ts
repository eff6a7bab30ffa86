import assert from "node:assert/strict";
import { once } from "node:events";
import { readFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import type { Readable } from "node:stream";
import { buffer, text } from "node:stream/consumers";
import test, { type TestContext } from "node:test";
import { setTimeout as delay, setImmediate as immediate } from "node:timers/promises";
import type { Identity } from "../auth/mechanism.ts";
import { type Log, silentLog } from "../log.ts";
import type { Caller } from "../service.ts";
import { ExecService } from "./exec.ts";
import { FakeTalk, RecordingLog } from "./fake-talk.test.ts";

interface Options {
  readonly log?: Log;
  readonly processesMax?: number;
  readonly caller?: Partial<Caller>;
  readonly host?: string;
}

function exec(
  program: string,
  args: readonly string[],
  { log = silentLog, processesMax = 10 }: Options = {},
): ExecService {
  return new ExecService("clock", { type: "exec", program, args, folder: tmpdir(), processesMax }, log);
}

/** A stream of a program that was started. */
async function started(t: TestContext, program: string, args: readonly string[], options: Options = {}) {
  const talk = new FakeTalk("clock", options.caller, options.host);
  assert.equal(await exec(program, args, options).serve(talk), "bytes");
  assert.deepEqual(talk.said, ["+ SUCCESS"]);
  t.after(() => talk.backEnd.destroy());
  return talk.backEnd;
}

const shell = (t: TestContext, script: string, options?: Options) => started(t, "/bin/sh", ["-c", script], options);

async function line(from: Readable): Promise<string> {
  const [chunk] = await once(from, "data");
  return String(chunk).trim();
}

/** Resolves when no process has that number, or only its remains that its parent has not looked at. */
async function ended(pid: number): Promise<void> {
  for (;;) {
    const stat = await readFile(`/proc/${pid}/stat`, "latin1").catch(() => undefined);
    if (stat === undefined || stat.includes(") Z ")) return;
    await delay(10);
  }
}

test("a program gets the caller's bytes and its half-close, and the stream ends when it does", async (t) => {
  const { input, output, endsWithOutput } = await started(t, "/bin/cat", []);
  assert.equal(endsWithOutput, true);
  const closed = once(output, "close");
  input.end("hello");
  assert.equal(await text(output), "hello");
  await closed;
});

test("arguments are the program's as they are: there is no shell", async (t) => {
  const args = ["$(id)", ";", "*", "a b", "`x`", '"'];
  const { output } = await started(t, "/usr/bin/printf", ["%s\n", ...args]);
  assert.deepEqual((await text(output)).trimEnd().split("\n"), args);
});

test("a program is told who is calling, and nothing else of our environment", async (t) => {
  process.env["FIVED_TEST_SECRET"] = "x";
  t.after(() => delete process.env["FIVED_TEST_SECRET"]);
  const who = { user: "alice", groups: [], roles: [] };
  const identity: Identity = { ...who, mechanism: "pubkey", secondFactor: true, at: 0 };
  // A role that could be taken for two is kept back.
  const roles = ["ops", "staff", "x,root"];
  const caller = { user: "alice", roles, identity, session: "s9", peer: "[2001:db8::1]:4711" };
  const { output } = await started(t, "/usr/bin/env", [], { caller, host: "git.example.org" });
  assert.deepEqual((await text(output)).trimEnd().split("\n").sort(), [
    "FIVED_HOST=git.example.org",
    "FIVED_MECHANISM=pubkey",
    "FIVED_PEER=[2001:db8::1]:4711",
    "FIVED_ROLES=ops,staff",
    "FIVED_SECOND_FACTOR=yes",
    "FIVED_SERVICE=clock",
    "FIVED_SESSION=s9",
    "FIVED_USER=alice",
    `LANG=${process.env["LANG"] ?? "C.UTF-8"}`,
    `PATH=${process.env["PATH"]}`,
  ]);
  const stranger = await started(t, "/usr/bin/env", []);
  const said = (await text(stranger.output)).split("\n");
  for (const empty of ["USER", "ROLES", "HOST", "MECHANISM", "SECOND_FACTOR"].map((name) => `FIVED_${name}=`))
    assert.ok(said.includes(empty), empty);
});

test("a program that cannot be started is a 502", async () => {
  for (const program of ["/nonexistent/program", "/etc/passwd", "/tmp"]) {
    const talk = new FakeTalk("clock");
    const log = new RecordingLog();
    assert.equal(await exec(program, [], { log }).serve(talk), "closed");
    assert.deepEqual(talk.said, ["- 502 clock: back end cannot be started"]);
    assert.equal((await log.seen("cannot start a program")).file, program);
  }
  const odd = new FakeTalk("clock");
  assert.equal(await exec("/bin/echo", ["a\0b"]).serve(odd), "closed");
  assert.deepEqual(odd.said, ["- 502 clock: back end cannot be started"]);
});

test("what a program wrote just before its exit arrives, however late it is read", async (t) => {
  const { output } = await shell(t, "head -c 150000 /dev/zero");
  output.pause();
  await delay(300); // it has exited by now, and nobody has read
  assert.equal((await buffer(output)).length, 150_000);
  const { output: large } = await shell(t, "head -c 20000000 /dev/zero");
  let bytes = 0;
  for await (const chunk of large) {
    if (bytes === 0) await delay(50);
    bytes += chunk.length;
  }
  assert.equal(bytes, 20_000_000);
});

test("the stream ends with the program even if a child of it holds the output open, silent or not", async (t) => {
  const { output } = await shell(t, "sleep 60 & echo $!");
  const child = Number(await text(output));
  process.kill(child);

  const { output: chatty } = await shell(t, "yes & echo $! >&2", { log: new RecordingLog() });
  assert.ok((await buffer(chatty)).length < 16 * 1024 * 1024, "a child that goes on talking is cut off");
});

test("a program that closes its output and goes on is not over yet", async (t) => {
  const { input, output } = await shell(t, "exec >&-; read line");
  output.resume();
  const over = once(output, "end").then(() => "over");
  assert.equal(await Promise.race([over, delay(50, "running")]), "running");
  input.end("now\n");
  assert.equal(await over, "over");
});

test("a program need not read its input", async (t) => {
  const { input, output } = await started(t, "/bin/true", []);
  output.resume();
  const over = once(output, "end");
  while (!input.destroyed) {
    input.write(Buffer.alloc(65_536));
    await immediate(); // as from a network, not faster than anything else can happen
  }
  await over;
});

test("when the stream dies the program is told to end, and what it has started too", async (t) => {
  const backEnd = await shell(t, "sleep 60 & echo $! $$; wait");
  const pids = (await line(backEnd.output)).split(" ").map(Number);
  backEnd.destroy();
  for (const pid of pids) await ended(pid);
});

test("a program that does not end after SIGTERM is killed five seconds later", async (t) => {
  const backEnd = await shell(t, "trap '' TERM; echo $$; while :; do sleep 1; done");
  const pid = Number(await line(backEnd.output));
  t.mock.timers.enable({ apis: ["setTimeout"] });
  backEnd.destroy();
  t.mock.timers.tick(4_999);
  assert.doesNotThrow(() => process.kill(pid, 0));
  t.mock.timers.tick(1);
  t.mock.timers.reset();
  await ended(pid);
});

test("a program that has ended leaves no zombie", async (t) => {
  const { output } = await shell(t, "echo $$");
  const pid = Number(await text(output));
  await assert.rejects(readFile(`/proc/${pid}/stat`), { code: "ENOENT" });
});

test("a caller who has left starts nothing", async () => {
  const gone = new FakeTalk("clock");
  gone.abort();
  assert.equal(await exec("/bin/cat", []).serve(gone), "closed");
  assert.deepEqual(gone.said, []);
});

test("only so many run at once, and the place of one that ended is free", async (t) => {
  const service = exec("/bin/cat", [], { processesMax: 2 });
  const talks = [new FakeTalk("clock"), new FakeTalk("clock")];
  for (const talk of talks) {
    assert.equal(await service.serve(talk), "bytes");
    t.after(() => talk.backEnd.destroy());
  }
  const refused = new FakeTalk("clock");
  assert.equal(await service.serve(refused), "closed");
  assert.deepEqual(refused.said, ["- 429 clock: too many are running, try again later"]);
  const [first] = talks;
  first?.backEnd.input.end();
  await buffer(first?.backEnd.output ?? assert.fail());
  const next = new FakeTalk("clock");
  assert.equal(await service.serve(next), "bytes");
  next.backEnd.destroy();
});

test("standard error goes to the log line by line, within bounds", async (t) => {
  const log = new RecordingLog();
  const { output } = await shell(t, "echo one >&2; printf %05000d 1 >&2; echo >&2; printf three >&2", { log });
  output.resume();
  await log.seen("program said");
  while (log.events.length < 3) await delay(5);
  const lines = log.events.map(({ fields }) => String(fields.line));
  assert.deepEqual([lines[0], lines[1]?.length, lines[2]], ["one", 1_000, "three"]);
  assert.deepEqual([log.events[0]?.fields.service, log.events[0]?.fields.session], ["clock", "s1"]);

  const flood = new RecordingLog();
  const { output: other } = await shell(t, "seq 1 100000 >&2", { log: flood });
  await buffer(other);
  await flood.seen("program says too much for the log");
  assert.equal(flood.events.length, 101);
});
