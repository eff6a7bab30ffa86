import assert from "node:assert/strict";
import test from "node:test";
import fc from "fast-check";
import { effort, seed } from "../../../test/sim/seed.ts";
import type { ClientChoices } from "../choices.ts";
import { ANSWER_BYTES_MAX, HELLO, LINE_BYTES_MAX, MessageReader, overEvent, readEvent, readSaid } from "./messages.ts";

const CHOICES: ClientChoices = {
  knownHosts: "/home/alice/.config/fived/known_hosts",
  identityFiles: [],
  keysFolder: "/home/alice/.ssh",
  loginsFile: "/home/alice/.local/state/fived/logins.yaml",
};

function said(message: unknown): ReturnType<typeof readSaid> {
  return readSaid(JSON.stringify(message));
}

test("each request is read as it was said", () => {
  const open = { do: "open", address: "example.org", service: "wiki", choices: CHOICES } as const;
  assert.deepEqual(said({ id: 1, ...open, confirm: true, ask: false, tries: 3 }), {
    type: "request",
    id: 1,
    request: open,
    asks: { confirm: true, ask: false, tries: 3 },
  });
  const goOn = { ...open, do: "goOn", session: "S3TPv3QjuwvHEF_yyPytIg", stream: 7, took: 0 } as const;
  for (const request of [
    { ...open, host: "other.example" },
    { do: "list", address: "example.org", choices: CHOICES },
    { do: "list", address: "example.org", service: "wiki", choices: { ...CHOICES, user: "alice", careful: true } },
    { do: "login", address: "example.org", choices: { ...CHOICES, mechanisms: ["pubkey"], agent: "/run/agent" } },
    goOn,
    { ...goOn, host: "other.example", had: { answer: 3, octets: 12 }, took: 5 },
    { do: "listening", address: "127.0.0.1:8080" },
    { do: "status" },
    { do: "end", address: "example.org" },
    { do: "stop" },
  ]) {
    const read = said({ id: 7, ...request });
    assert.deepEqual(read?.type === "request" ? read.request : read, request);
  }
  assert.deepEqual(said({ hello: HELLO }), { type: "hello" });
  assert.deepEqual(said({ data: "token", id: 2 }), { type: "data", token: "token", id: 2 });
  assert.deepEqual(said({ id: 2, do: "leave" }), { type: "leave", id: 2 });
  assert.deepEqual(said({ id: 2, do: "took", octets: 9 }), { type: "took", id: 2, octets: 9 });
  assert.deepEqual(said({ id: 2, do: "answer", yes: false }), { type: "answer", id: 2, yes: false });
  assert.deepEqual(said({ id: 2, do: "answer", bytes: 13 }), { type: "octets", id: 2, bytes: 13 });
});

test("what makes no sense is no message", () => {
  const open = { id: 1, do: "open", address: "example.org", service: "wiki", choices: CHOICES };
  const goOn = { ...open, do: "goOn", session: "S3TPv3QjuwvHEF_yyPytIg", stream: 7, took: 0 };
  for (const message of [
    null,
    [],
    1,
    {},
    { hello: "fived-manager/0" },
    { ...open, id: 0 },
    { ...open, id: 1.5 },
    { ...open, id: "1" },
    { ...open, id: 2 ** 53 },
    { ...open, do: "reboot" },
    { ...open, do: "__proto__" },
    { ...open, address: "" },
    { ...open, address: 7 },
    { ...open, service: undefined },
    { ...open, host: 3 },
    { ...open, service: "x".repeat(5_000) },
    { ...open, choices: undefined },
    { ...open, choices: [] },
    { ...open, choices: { ...CHOICES, knownHosts: undefined } },
    { ...open, choices: { ...CHOICES, newerChoice: true } },
    { ...open, choices: { ...CHOICES, tls: "maybe" } },
    { ...open, choices: { ...CHOICES, identityFiles: Array.from({ length: 65 }, () => "k") } },
    { ...open, choices: { ...CHOICES, identityFiles: [{}] } },
    { ...open, choices: { ...CHOICES, certificate: { certificate: "a" } } },
    { ...open, choices: { ...CHOICES, connectTimeoutMs: -1 } },
    { ...goOn, session: "../manager" },
    { ...goOn, session: "S3TPv3QjuwvHEF_yyPytI" },
    { ...goOn, session: 7 },
    { ...goOn, stream: -1 },
    { ...goOn, took: undefined },
    { ...goOn, had: 3 },
    { ...goOn, had: { answer: 3 } },
    { ...goOn, had: { answer: 3, octets: 0.5 } },
    { id: 1, do: "took", octets: -1 },
    { id: 1, do: "took" },
    { id: 1, do: "listening" },
    { id: 1, do: "answer", bytes: ANSWER_BYTES_MAX + 1 },
    { id: 1, do: "answer", bytes: -1 },
    { id: 1, do: "answer" },
  ])
    assert.equal(said(message), undefined, JSON.stringify(message));
  assert.equal(readSaid("{"), undefined);
  assert.equal(readSaid(""), undefined);
  const proto = JSON.stringify(open).replace('"knownHosts"', '"__proto__":{"tls":"off"},"knownHosts"');
  assert.equal(readSaid(proto), undefined);
});

test("no line whatsoever breaks a reader", () => {
  fc.assert(
    fc.property(fc.oneof(fc.string(), fc.json()), (line) => {
      readSaid(line);
      readEvent(line);
    }),
    { seed, numRuns: 2_000 * effort },
  );
});

test("events are read as they were told", () => {
  assert.deepEqual(readEvent(JSON.stringify({ hello: HELLO, token: "t", pid: 3 })), { token: "t", pid: 3 });
  const over = { id: 4, ...overEvent(0) };
  assert.deepEqual(readEvent(JSON.stringify(over)), { id: 4, event: over });
  for (const line of ["", "{}", '{"id":1}', '{"event":"ready"}', '{"hello":"x","token":"t","pid":3}', "null"])
    assert.equal(readEvent(line), undefined, line);
});

test("lines and octets are found wherever what came is cut", () => {
  const octets = Buffer.from('{"id":1}\n\u0000\u000aÄb{"id":2}\n', "utf8");
  for (let cut = 0; cut <= octets.length; cut++) {
    const reader = new MessageReader();
    const found: unknown[] = [];
    for (const part of [octets.subarray(0, cut), octets.subarray(cut)]) {
      reader.push(Buffer.from(part)); // what is wiped afterwards is the reader's own
      if (found.length === 0) take(reader.line(), found);
      if (found.length === 1) take(reader.octets(5)?.toString(), found);
      if (found.length === 2) take(reader.line(), found);
    }
    assert.deepEqual(found, ['{"id":1}', Buffer.from("\u0000\u000aÄb").join(), '{"id":2}'], `cut at ${cut}`);
    assert.equal(reader.rest().length, 0);
  }

  function take(value: unknown, found: unknown[]): void {
    if (value !== undefined) found.push(value);
  }
});

test("a line may have so many octets and no more", () => {
  const reader = new MessageReader();
  reader.push(Buffer.from(`${"x".repeat(LINE_BYTES_MAX)}\n`));
  assert.equal(reader.line()?.length, LINE_BYTES_MAX);
  reader.push(Buffer.alloc(LINE_BYTES_MAX, "x"));
  assert.equal(reader.line(), undefined);
  reader.push(Buffer.from("x"));
  assert.equal(reader.line(), null);
  const whole = new MessageReader();
  whole.push(Buffer.from(`${"x".repeat(LINE_BYTES_MAX + 1)}\n`));
  assert.equal(whole.line(), null);
});

test("an answer leaves no trace in the reader", () => {
  const reader = new MessageReader();
  const received = Buffer.from("secret");
  reader.push(received);
  reader.octets(6);
  assert.equal(reader.rest().length, 0);
});
