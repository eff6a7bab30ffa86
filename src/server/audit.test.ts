import assert from "node:assert/strict";
import { once } from "node:events";
import { mkdtemp, readFile, rename, rm, stat } from "node:fs/promises";
import { connect } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import test, { type TestContext } from "node:test";
import { setImmediate as turn } from "node:timers/promises";
import { openAudit } from "./audit.ts";
import { RecordingLog, STRANGER } from "./backends/fake-talk.test.ts";
import { configurationFromTargets } from "./config.ts";
import { silentLog } from "./log.ts";
import { serve } from "./server.ts";

async function folderOf(t: TestContext): Promise<string> {
  const folder = await mkdtemp(join(tmpdir(), "fived-audit-"));
  t.after(() => rm(folder, { recursive: true, force: true }));
  return folder;
}

async function linesOf(file: string): Promise<Record<string, unknown>[]> {
  const text = await readFile(file, "utf8");
  return text
    .split("\n")
    .filter((line) => line !== "")
    .map((line) => JSON.parse(line));
}

/** Resolves when so many lines are there: they are written in their own time. */
async function written(file: string, lines: number): Promise<void> {
  while ((await linesOf(file)).length < lines) await turn();
}

test("each event is one JSON object a line, with when and who, in a file that nobody else reads", async (t) => {
  const file = join(await folderOf(t), "audit.jsonl");
  const audit = openAudit({ file, onFailure: "continue" }, silentLog);
  audit.record(STRANGER, {
    event: "sign-in-refused",
    mechanism: "up",
    claimed: `x\n{"event":"sign-in"}${"y".repeat(1_000)}`,
  });
  audit.record({ ...STRANGER, user: "alice" }, { event: "open", service: "wiki", host: undefined });
  audit[Symbol.dispose]();
  await written(file, 2);
  const [refused, opened, ...more] = await linesOf(file);
  assert.deepEqual(more, []);
  assert.match(String(refused?.["time"]), /^\d{4}-\d\d-\d\dT[\d:.]+Z$/);
  assert.equal(String(refused?.["claimed"]).length, 128);
  assert.deepEqual(
    { ...opened, time: "" },
    { time: "", session: "s1", peer: "192.0.2.1:4711", user: "alice", event: "open", service: "wiki" },
  );
  assert.equal((await stat(file)).mode & 0o777, 0o600);
});

test("a file that cannot be written is told at the start", () => {
  assert.throws(() => openAudit({ file: "/nonexistent/audit", onFailure: "continue" }, silentLog), {
    code: "CONFIGURATION_BAD",
  });
});

test("S02 a disk that is full is told once, and requests are refused where the administrator wants that", async (t) => {
  for (const onFailure of ["continue", "refuse"] as const) {
    const log = new RecordingLog();
    const audit = openAudit({ file: "/dev/full", onFailure }, log);
    t.after(() => audit[Symbol.dispose]());
    assert.equal(audit.refuses, false);
    audit.record(STRANGER, { event: "open", service: "wiki", host: undefined });
    await log.seen("cannot write the audit");
    assert.equal(audit.refuses, onFailure === "refuse");
  }
});

test("a server writes what is refused, what is opened, and what went through it when it is over; a reload follows logrotate", async (t) => {
  const folder = await folderOf(t);
  const file = join(folder, "audit.jsonl");
  const configuration = {
    ...configurationFromTargets({ targets: ["cat=exec:cat"], listen: ["unix:socket"], folder, state: folder }),
    audit: { file, onFailure: "continue" as const },
  };
  const server = await serve(configuration, { log: silentLog });
  const say = async (text: string): Promise<void> => {
    const socket = connect({ path: join(folder, "socket") });
    socket.end(text);
    socket.resume();
    await once(socket, "close");
  };
  await say("nonexistent\r\n");
  await say("cat\r\n12345");
  await rename(file, `${file}.1`);
  await server.reload(configuration);
  await say("cat\r\n");
  await server[Symbol.asyncDispose]();
  await written(file, 2);
  const before = (await linesOf(`${file}.1`)).map(({ event, service, code, received, sent, why }) => ({
    ...{ event, service, code, received, sent, why },
  }));
  const none = { code: undefined, received: undefined, sent: undefined, why: undefined };
  assert.deepEqual(before, [
    { ...none, event: "refused", service: "nonexistent", code: 404 },
    { ...none, event: "open", service: "cat" },
    { ...none, event: "close", service: "cat", received: 5, sent: 5, why: "ended" },
  ]);
  assert.deepEqual(
    (await linesOf(file)).map(({ event }) => event),
    ["open", "close"],
  );
});
