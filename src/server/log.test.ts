import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { text } from "node:stream/consumers";
import test from "node:test";
import { createLog, escapeControls, type LogOptions } from "./log.ts";

/** A log whose lines are kept. */
function recorded(options: Omit<LogOptions, "write">) {
  const lines: string[] = [];
  return { lines, log: createLog({ ...options, write: (line) => lines.push(line) }) };
}

test("an event is one JSON object on one line, whatever a peer put into its fields", () => {
  const { lines, log } = recorded({ level: "info", json: true });
  const hostile = "alice\r\nfake: line\u001b[2J\u009b31m\u202eevil\u2028x\u0000\u007f";
  log.warn({ user: hostile, code: 404 }, "request refused");
  const [line = ""] = lines;
  assert.equal(lines.length, 1);
  assert.match(line, /^[\x20-\x7e]+\n$/);
  const entry = JSON.parse(line);
  assert.equal(entry.user, hostile, "the value survives its escaping");
  assert.deepEqual(
    { level: entry.level, msg: entry.msg, code: entry.code },
    { level: "warn", msg: "request refused", code: 404 },
  );
  assert.ok(!Number.isNaN(Date.parse(entry.time)));
});

test("text for a terminal is one line with every control escaped", () => {
  const { lines, log } = recorded({ level: "info", json: false });
  log.info({ url: "tcp://127.0.0.1:1078", reason: "two words\r\n\u001b[0m\u202e" }, "listening");
  assert.match(lines[0] ?? "", /^\d\d:\d\d:\d\d info listening url=tcp:\/\/127\.0\.0\.1:1078 reason="[^"]*"\n$/);
  assert.match(lines[0] ?? "", /^[\x20-\x7e]+\n$/);
});

test("fields that are not on the list are dropped, even when the types were outwitted", () => {
  const { lines, log } = recorded({ level: "info", json: true });
  const fields = { service: "web", password: "hunter2", payload: "secret" };
  log.info(fields, "stream opened");
  assert.ok(!lines[0]?.includes("hunter2") && !lines[0]?.includes("secret"));
  assert.equal(JSON.parse(lines[0] ?? "").service, "web");
});

test("an error keeps its code and its causes, an unforeseen one its stack", () => {
  const { lines, log } = recorded({ level: "info", json: true });
  const refused = Object.assign(new Error("connect ECONNREFUSED"), { code: "ECONNREFUSED" });
  log.error({ error: new TypeError("x is not a function", { cause: refused }) }, "stream ended");
  const { error } = JSON.parse(lines[0] ?? "");
  assert.equal(error.message, "x is not a function");
  assert.match(error.stack, /log\.test\.ts/);
  assert.deepEqual(error.cause, { message: "connect ECONNREFUSED", code: "ECONNREFUSED" });

  const terminal = recorded({ level: "info", json: false });
  terminal.log.error({ error: new TypeError("x\u001b", { cause: refused }) }, "stream ended");
  assert.match(terminal.lines[0] ?? "", /error stream ended: x\\x1b: connect ECONNREFUSED\n {2}at .*log\.test\.ts/);
});

test("an error that is its own cause is logged and left", () => {
  const { lines, log } = recorded({ level: "info", json: true });
  const error = new Error("round");
  error.cause = error;
  log.error({ error }, "stream ended");
  log.error({ error: "thrown text" }, "stream ended");
  assert.equal(JSON.parse(lines[1] ?? "").error, "thrown text");
});

test("levels below the chosen one are not written", () => {
  const { lines, log } = recorded({ level: "warn", json: true });
  log.debug({}, "a");
  log.info({}, "b");
  log.warn({}, "c");
  log.error({}, "d");
  assert.equal(lines.length, 2);
});

test("without a terminal lines are JSON on standard error and are all there when the process exits", async () => {
  const program = `
    const { createLog } = await import(${JSON.stringify(new URL("./log.ts", import.meta.url).href)});
    const log = createLog({ level: "info" });
    for (let n = 0; n < 1000; n++) log.info({ count: n }, "line");
    process.exit(0);`;
  const child = spawn(process.execPath, ["--input-type=module", "--eval", program], {
    stdio: ["ignore", "inherit", "pipe"],
  });
  const [stderr] = await Promise.all([text(child.stderr), once(child, "exit")]);
  const entries = stderr.trimEnd().split("\n");
  assert.equal(entries.length, 1_000);
  assert.equal(JSON.parse(entries.at(-1) ?? "").count, 999);
});

test("controls are escaped one by one and other text is left alone", () => {
  assert.equal(escapeControls("a\tb\u009bc\u2066d\ud800 grüße"), "a\\x09b\\x9bc\\u2066d\ufffd grüße");
});
