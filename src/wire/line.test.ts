import assert from "node:assert/strict";
import test from "node:test";
import fc from "fast-check";
import { effort, Random, seed, seededTest } from "../../test/sim/seed.ts";
import { encodeLine, isServiceName, LINE_BYTES_MAX, type Line, LineReader, parseReply, parseRequest } from "./line.ts";

fc.configureGlobal({ seed, numRuns: 500 * effort });

function octetsOf(text: string): Uint8Array {
  return new Uint8Array(Buffer.from(text, "latin1"));
}

/** Reads until nothing more comes, and what was left over. */
function read(pieces: readonly Uint8Array[]): { lines: Line[]; rest: string } {
  const reader = new LineReader();
  const lines: Line[] = [];
  for (const piece of pieces) {
    reader.push(piece);
    if (lines.at(-1)?.type === "error") continue;
    for (let line = reader.next(); line !== undefined; line = reader.next()) {
      lines.push(line);
      if (line.type === "error") break;
    }
  }
  const { buffered } = reader;
  const rest = Buffer.from(reader.rest()).toString("latin1");
  assert.equal(rest.length, buffered);
  assert.equal(reader.buffered, 0);
  return { lines, rest };
}

/** Reads whole, octet by octet and cut at random places: it must always be the same. */
function readEveryWay(text: string, random: Random): { lines: Line[]; rest: string } {
  const octets = octetsOf(text);
  const whole = read([octets]);
  assert.deepEqual(read(Array.from(octets, (octet) => Uint8Array.of(octet))), whole, "octet by octet");
  for (let times = 0; times < 3; times++) assert.deepEqual(read(random.cut(octets)), whole, "cut at random");
  return whole;
}

const text = (line: Line | undefined): string => (line?.type === "line" ? line.text : assert.fail("no line"));

test("lines end in CRLF and nothing else, in any segmentation", () => {
  const cases: readonly (readonly [string, readonly string[], string])[] = [
    ["", [], ""],
    ["\r\n", [""], ""],
    ["LIST\r\n", ["LIST"], ""],
    ["LIST\r\nHELP\r\n", ["LIST", "HELP"], ""],
    ["LIST\r\nHELP", ["LIST"], "HELP"],
    ["LIST\nHELP\r\n", ["LIST\nHELP"], ""],
    ["LIST\rHELP\r\n", ["LIST\rHELP"], ""],
    ["LIST\r\r\n", ["LIST\r"], ""],
    ["LIST\n\r\n", ["LIST\n"], ""],
    ["\n", [], "\n"],
    ["LIST\r", [], "LIST\r"],
    ["\r\n\r\n\r\n", ["", "", ""], ""],
    ["\0\t\x1b\x80\xff\r\n", ["\0\t\x1b\x80\xff"], ""],
  ];
  for (const [input, lines, rest] of cases) {
    const got = readEveryWay(input, new Random(1));
    assert.deepEqual(got.lines.map(text), lines, JSON.stringify(input));
    assert.equal(got.rest, rest, JSON.stringify(input));
  }
});

test("every text without CRLF reads back as it was written", () => {
  const line = fc.stringMatching(/^[ -~]{0,1024}$/);
  fc.assert(
    fc.property(
      fc.array(line, { maxLength: 5 }),
      fc.stringMatching(/^[ -~]{0,30}$/),
      fc.integer(),
      (lines, rest, dice) => {
        const octets = Buffer.concat(lines.map(encodeLine)).toString("latin1") + rest;
        const got = readEveryWay(octets, new Random(dice));
        assert.deepEqual(got.lines.map(text), lines);
        assert.equal(got.rest, rest);
      },
    ),
  );
});

test("L03 a line may have 1,024 octets, and is given up at the next", () => {
  const longest = "x".repeat(LINE_BYTES_MAX);
  assert.deepEqual(readEveryWay(`${longest}\r\n`, new Random(1)).lines.map(text), [longest]);
  assert.equal(readEveryWay(`${longest}\r`, new Random(1)).lines.length, 0);
  for (const tooLong of [`${longest}x`, `${longest}xx\r\n`, `${longest}x\r\n`, `${longest}\r\r\n`, `${longest}\n`]) {
    const { lines } = read([octetsOf(tooLong)]);
    assert.equal(lines.length, 1);
    assert.ok(lines[0]?.type === "error");
    assert.equal(lines[0].code, "LINE_TOO_LONG");
    const single = read(Array.from(octetsOf(tooLong), (octet) => Uint8Array.of(octet)));
    assert.equal(single.lines[0]?.type, "error");
  }
});

test("L03 of 64 KiB without CRLF no more than a line and its end is taken, however often it is asked", () => {
  const reader = new LineReader();
  reader.push(new Uint8Array(65_536).fill(0x41));
  for (let times = 0; times < 3; times++) {
    const line = reader.next();
    assert.ok(line?.type === "error");
    assert.ok(line.bytes <= LINE_BYTES_MAX + 2);
  }
  assert.equal(reader.rest().length, 65_536);
});

test("what follows the last line that was read is handed over untouched, and reading goes on from nothing", () => {
  const reader = new LineReader();
  reader.push(octetsOf("TLS\r\n\x16\x03\x01\r\nmore"));
  assert.equal(text(reader.next()), "TLS");
  assert.equal(Buffer.from(reader.rest()).toString("latin1"), "\x16\x03\x01\r\nmore");
  assert.equal(reader.next(), undefined);
  reader.push(octetsOf("LIST\r\n"));
  assert.equal(text(reader.next()), "LIST");
});

test("a line cut in the middle is handed over too", () => {
  const reader = new LineReader();
  reader.push(octetsOf("LI"));
  assert.equal(reader.next(), undefined);
  reader.push(octetsOf("S"));
  assert.equal(Buffer.from(reader.rest()).toString("latin1"), "LIS");
});

seededTest(`M04 ${20_000 * effort} random conversations: no exception, and no octet lost`, (random) => {
  const alphabet = octetsOf("ab \r\n\0\xff");
  for (let round = 0; round < 20_000 * effort; round++) {
    const long = random.chance(0.02);
    const octets = Uint8Array.from({ length: random.between(0, long ? 2_500 : 40) }, () =>
      long && random.chance(0.99) ? 0x61 : random.pick([...alphabet]),
    );
    const whole = read([octets]);
    if (whole.lines.at(-1)?.type !== "error") {
      const spoken = `${whole.lines.map((line) => `${text(line)}\r\n`).join("")}${whole.rest}`;
      assert.equal(spoken, Buffer.from(octets).toString("latin1"));
    }
    assert.deepEqual(
      read(random.cut(octets)).lines.map((line) => line.type),
      whole.lines.map((line) => line.type),
    );
    for (const line of whole.lines) if (line.type === "line") parseRequest(line.text);
    for (const line of whole.lines) if (line.type === "line") parseReply(line.text);
  }
});

test("L05 L06 a service name is 1 to 64 of its own characters and nothing else, and __proto__ is a name like any other", () => {
  for (const good of [
    "a",
    "0",
    "_",
    "LIST",
    "__proto__",
    "constructor",
    "research-service",
    "a.b+c_d-e",
    "x".repeat(64),
  ])
    assert.ok(isServiceName(good), good);
  for (const bad of [
    "",
    ".",
    ".a",
    "-a",
    "+a",
    "x".repeat(65),
    "a b",
    "a\0",
    "a\t",
    "a\x1b",
    "a\x80",
    "a\xff",
    "ı",
    "ＬＩＳＴ",
    "a\n",
    "a/b",
  ])
    assert.ok(!isServiceName(bad), JSON.stringify(bad));
});

test("a request is a name and printable words behind it", () => {
  assert.deepEqual(parseRequest("LIST"), { type: "request", word: "LIST", args: [] });
  assert.deepEqual(parseRequest("LIST  wiki "), { type: "request", word: "LIST", args: ["wiki"] });
  assert.deepEqual(parseRequest("HOST a.example b"), { type: "request", word: "HOST", args: ["a.example", "b"] });
  assert.deepEqual(parseRequest("GET / HTTP/1.1"), { type: "request", word: "GET", args: ["/", "HTTP/1.1"] });
  for (const bad of ["", " ", " LIST", "LIST\t", "LIST\0", "L\x80", "é", "LIST\r", "LIST\nHELP", "-LIST", "a/b"])
    assert.deepEqual(parseRequest(bad), { type: "error", code: "NAME_BAD" }, JSON.stringify(bad));
});

test("a reply is + or -, with a number or without", () => {
  assert.deepEqual(parseReply("+"), { type: "accepted", text: "" });
  assert.deepEqual(parseReply("+ SUCCESS"), { type: "accepted", text: "SUCCESS" });
  assert.deepEqual(parseReply("+Go"), { type: "accepted", text: "Go" });
  assert.deepEqual(parseReply("- 404 no such service"), { type: "refused", code: 404, text: "no such service" });
  assert.deepEqual(parseReply("-404"), { type: "refused", code: 404, text: "" });
  assert.deepEqual(parseReply("- Service not available"), {
    type: "refused",
    code: undefined,
    text: "Service not available",
  });
  assert.deepEqual(parseReply("- 4040 x"), { type: "refused", code: undefined, text: "4040 x" });
  assert.deepEqual(parseReply("-"), { type: "refused", code: undefined, text: "" });
  for (const bad of ["", " +", "hello", "HTTP/1.1 400 Bad Request"])
    assert.deepEqual(parseReply(bad), { type: "error", code: "REPLY_BAD" }, bad);
});

for (const cut of [1, 3, 1_000]) {
  test(`A09 an answer is read as octets and wiped where it lay, in pieces of ${cut}`, () => {
    const reader = new LineReader();
    const text = Buffer.from("AUTH up\r\nse\xffcret\r\nLIST\r\n", "latin1");
    const chunks: Uint8Array[] = [];
    const lines: unknown[] = [];
    let asked = false;
    for (let at = 0; at < text.length; at += cut) {
      const chunk = new Uint8Array(text.subarray(at, at + cut));
      chunks.push(chunk);
      reader.push(chunk);
      for (;;) {
        const line = asked && lines.length === 1 ? reader.nextOctets() : reader.next();
        if (line === undefined) break;
        lines.push(line instanceof Uint8Array ? Buffer.from(line).toString("latin1") : line);
        asked = true;
      }
    }
    assert.deepEqual(lines, [{ type: "line", text: "AUTH up" }, "se\xffcret", { type: "line", text: "LIST" }]);
    assert.equal(reader.buffered, 0);
    assert.doesNotMatch(Buffer.concat(chunks).toString("latin1"), /cret/);
  });
}

test("an answer longer than a line is an error, wherever it is cut", () => {
  for (const cut of [1, 100, 5_000]) {
    const reader = new LineReader();
    const octets = new Uint8Array(LINE_BYTES_MAX + 2).fill(97);
    let heard: unknown;
    for (let at = 0; at < octets.length && heard === undefined; at += cut) {
      reader.push(octets.slice(at, at + cut));
      heard = reader.nextOctets();
    }
    reader.push(new Uint8Array(1).fill(97));
    heard ??= reader.nextOctets();
    assert.ok(typeof heard === "object" && heard !== null && "code" in heard && heard.code === "LINE_TOO_LONG");
  }
});

test("an answer whose beginning was read as text is whole", () => {
  const reader = new LineReader();
  reader.push(Buffer.from("alic"));
  assert.equal(reader.next(), undefined);
  assert.equal(reader.nextOctets(), undefined);
  assert.equal(reader.buffered, 4);
  reader.push(Buffer.from("e\r\n"));
  assert.equal(Buffer.from(reader.nextOctets() as Uint8Array).toString(), "alice");
  assert.equal(reader.buffered, 0);
});
