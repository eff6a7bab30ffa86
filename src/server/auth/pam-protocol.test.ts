import assert from "node:assert/strict";
import test from "node:test";
import fc from "fast-check";
import {
  PAM_ANSWER_BYTES_MAX,
  PAM_GROUPS_MAX,
  PAM_TEXT_BYTES_MAX,
  PamFrameReader,
  type PamMessage,
  PamMessageReader,
  parseRequest,
  printFrame,
  printMessage,
  printRequest,
} from "./pam-protocol.ts";

const MESSAGES: readonly PamMessage[] = [
  { type: "ready" },
  { type: "ask", text: "Password: ", shown: false },
  { type: "ask", text: "\u001b[2JTöken:\n", shown: true },
  { type: "tell", text: "" },
  { type: "found", user: "bob", groups: ["staff", "domain users"] },
  { type: "refused", why: "Authentication failure" },
  { type: "broken", why: "x".repeat(PAM_TEXT_BYTES_MAX) },
];

/** All that can be read, one octet after the other. */
function read<Message>(
  reader: { push(chunk: Uint8Array): void; next(): Message | "garbage" | undefined },
  octets: Uint8Array,
  pieces = 1,
): (Message | "garbage")[] {
  const found: (Message | "garbage")[] = [];
  for (let at = 0; at < octets.length; at += pieces) {
    reader.push(octets.subarray(at, at + pieces));
    for (let next = reader.next(); next !== undefined; next = reader.next()) {
      found.push(next);
      if (next === "garbage") return found;
    }
  }
  return found;
}

test("messages, requests and answers mean the same behind the socket, in any segmentation", () => {
  const octets = Buffer.concat(MESSAGES.map(printMessage));
  for (const pieces of [1, 7, octets.length]) assert.deepEqual(read(new PamMessageReader(), octets, pieces), MESSAGES);
  const request = { user: "bob", address: "2001:db8::1" };
  const answers = [Buffer.from("secret"), Buffer.alloc(0), Buffer.alloc(PAM_ANSWER_BYTES_MAX, 0xff)];
  const said = Buffer.concat([printRequest(request), ...answers.map(printFrame)]);
  for (const pieces of [1, 3, said.length]) {
    const [first, ...rest] = read(new PamFrameReader(), said, pieces);
    assert.ok(first instanceof Uint8Array);
    assert.deepEqual(parseRequest(first), request);
    assert.deepEqual(
      rest,
      answers.map((answer) => Uint8Array.from(answer)),
    );
  }
});

test("A08 what is no message is garbage, and so is all that follows", () => {
  const found = { type: "found", user: "bob", groups: [] };
  const wrong: readonly unknown[] = [
    null,
    [],
    "found",
    {},
    { type: "FOUND" },
    { type: "__proto__" },
    { ...found, user: "" },
    { ...found, user: 1 },
    { ...found, user: "b ob" },
    { ...found, user: "bob\n" },
    { ...found, user: "b".repeat(256) },
    { ...found, groups: "staff" },
    { ...found, groups: [1] },
    { ...found, groups: ["a\u0000"] },
    { ...found, groups: [""] },
    { ...found, groups: Array.from({ length: PAM_GROUPS_MAX + 1 }, (_, at) => `g${at}`) },
    { type: "found", user: "bob" },
    { type: "ask", text: "x" },
    { type: "ask", text: "x", shown: "no" },
    { type: "ask", text: "ä".repeat(PAM_TEXT_BYTES_MAX / 2 + 1), shown: true },
    { type: "tell" },
    { type: "refused" },
    { type: "broken", why: {} },
  ];
  for (const value of wrong) {
    const reader = new PamMessageReader();
    const line = JSON.stringify(value);
    assert.deepEqual(read(reader, Buffer.from(`${line}\n`)), ["garbage"], line);
    reader.push(printMessage({ type: "found", user: "bob", groups: [] }));
    assert.equal(reader.next(), "garbage", line);
  }
  for (const line of ["\n", "{\n", '{"type":"ready"}{"type":"ready"}\n', "x".repeat(70_000)])
    assert.deepEqual(read(new PamMessageReader(), Buffer.from(line), 5_000), ["garbage"], line.slice(0, 40));
});

test("an answer above its bound is neither said nor heard, and nothing behind it", () => {
  assert.throws(() => printFrame(new Uint8Array(PAM_ANSWER_BYTES_MAX + 1)), RangeError);
  const reader = new PamFrameReader();
  assert.deepEqual(read(reader, Buffer.from([0x04, 0x01, 1, 2, 3])), ["garbage"]);
  reader.push(printFrame(Buffer.from("secret")));
  assert.equal(reader.next(), "garbage");
});

test("a request names somebody, from an address or from none, and nothing else", () => {
  const read = (text: string) => parseRequest(Buffer.from(text));
  assert.deepEqual(read('{"user":"bob"}'), { user: "bob" });
  assert.deepEqual(read('{"user":"bob","x":1}'), { user: "bob" });
  for (const text of [
    "",
    "bob",
    "[]",
    "{}",
    '{"user":""}',
    '{"user":"a b"}',
    '{"user":"a\\u0000"}',
    '{"user":["bob"]}',
    '{"user":"bob","address":""}',
    '{"user":"bob","address":"host.example"}',
    '{"user":"bob","address":null}',
  ])
    assert.equal(read(text), undefined, text);
});

test("A08 no octets whatever make a reader throw, or find somebody who was not named", () => {
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 200 }), fc.integer({ min: 1, max: 50 }), (octets, pieces) => {
      read(new PamFrameReader(), octets, pieces);
      for (const message of read(new PamMessageReader(), octets, pieces)) assert.equal(message, "garbage");
      parseRequest(octets);
    }),
  );
});
