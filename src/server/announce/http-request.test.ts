import assert from "node:assert/strict";
import test from "node:test";
import fc from "fast-check";
import { effort, Random, seed } from "../../../test/sim/seed.ts";
import {
  ChunksReader,
  FIELDS_MAX,
  HEAD_BYTES_MAX,
  type HttpRequest,
  judgeHead,
  judgeTrailers,
  LAST_CHUNK,
  type Lines,
  LinesReader,
} from "./http-request.ts";

fc.configureGlobal({ seed, numRuns: 300 * effort });

const octets = (text: string): Buffer => Buffer.from(text, "latin1");

/** Reads lines from pieces; what is left behind them too. */
function readLines(pieces: readonly Uint8Array[], what: "head" | "trailers" = "head"): { lines: Lines; rest: string } {
  const reader = new LinesReader(what);
  for (const [index, piece] of pieces.entries()) {
    const lines = reader.read(piece, 0);
    if (lines.type === "more") continue;
    const rest = lines.type === "lines" ? [piece.subarray(lines.end), ...pieces.slice(index + 1)] : [];
    return {
      lines: lines.type === "lines" ? { ...lines, end: 0 } : lines,
      rest: Buffer.concat(rest).toString("latin1"),
    };
  }
  return { lines: { type: "more" }, rest: "" };
}

/** Whole, octet by octet and cut at random: it must be the same. */
function readEveryWay(text: string, what: "head" | "trailers" = "head") {
  const whole = readLines([octets(text)], what);
  assert.deepEqual(
    readLines(
      Array.from(octets(text), (octet) => Uint8Array.of(octet)),
      what,
    ),
    whole,
    "octet by octet",
  );
  const random = new Random(seed);
  for (let times = 0; times < 3; times++) assert.deepEqual(readLines(random.cut(octets(text)), what), whole, "cut");
  return whole;
}

function judged(head: string): ReturnType<typeof judgeHead> {
  const { lines } = readEveryWay(head);
  if (lines.type === "more") assert.fail("the head has no end");
  return lines.type === "refused" ? lines : judgeHead(lines.lines);
}

function request(head: string): HttpRequest {
  const verdict = judged(head);
  assert.ok(verdict.type === "request", `${JSON.stringify(head)}: ${JSON.stringify(verdict)}`);
  return verdict;
}

function refusal(head: string): number {
  const verdict = judged(head);
  assert.ok(verdict.type === "refused", `${JSON.stringify(head)} is handed on as ${JSON.stringify(verdict)}`);
  assert.match(verdict.text, /^[ -~]+$/);
  return verdict.status;
}

/** A request of HTTP/1.1 with these fields. */
const get = (...fields: readonly string[]) => `GET / HTTP/1.1\r\n${["Host: x", ...fields, ""].join("\r\n")}\r\n`;
const post = (...fields: readonly string[]) => `POST / HTTP/1.1\r\n${["Host: x", ...fields, ""].join("\r\n")}\r\n`;

test("lines end at an empty one, in any segmentation, and what is behind them is left", () => {
  assert.deepEqual(readEveryWay("GET / HTTP/1.1\r\nHost: x\r\n\r\nbody"), {
    lines: { type: "lines", end: 0, lines: ["GET / HTTP/1.1", "Host: x"] },
    rest: "body",
  });
  assert.deepEqual(readEveryWay("\r\nGET / HTTP/1.1\r\n\r\n").lines, {
    type: "lines",
    end: 0,
    lines: ["GET / HTTP/1.1"],
  });
  assert.deepEqual(readEveryWay("\r\n\r\nGET / HTTP/1.1\r\n\r\n"), {
    lines: { type: "lines", end: 0, lines: [] },
    rest: "GET / HTTP/1.1\r\n\r\n",
  });
  assert.deepEqual(readEveryWay("GET / HTTP/1.1\r\nHost: x\r\n").lines, { type: "more" });
  assert.deepEqual(readEveryWay("\r\nrest", "trailers"), { lines: { type: "lines", end: 0, lines: [] }, rest: "rest" });
  assert.deepEqual(readEveryWay("A: b\r\n\r\nrest", "trailers").rest, "rest");
});

test("a head is bounded, and however slowly it comes it costs no more memory than it has octets", () => {
  const fits = `GET / HTTP/1.1\r\nA: ${"x".repeat(HEAD_BYTES_MAX - 16 - 3 - 4)}\r\n\r\n`;
  assert.equal(octets(fits).length, HEAD_BYTES_MAX);
  assert.equal(judged(fits).type, "request");
  assert.equal(refusal(`GET / HTTP/1.1\r\nA: ${"x".repeat(HEAD_BYTES_MAX)}\r\n\r\n`), 431);
  assert.equal(readLines([octets("x".repeat(HEAD_BYTES_MAX + 1))]).lines.type, "refused", "without an end, too");
  const many = (fields: number) => get(...Array.from({ length: fields - 1 }, (_, index) => `A${index}: b`));
  assert.equal(judged(many(FIELDS_MAX)).type, "request");
  assert.equal(refusal(many(FIELDS_MAX + 1)), 431);
});

test("an ordinary request is handed on as it was", () => {
  const head =
    "POST /a?b=%20 HTTP/1.1\r\nHost: x\r\nAccept: */*\r\nX-Empty: \r\nContent-Length: 12\r\nCookie: a=b; c=d\r\n";
  const { type, ...rest } = request(`${head}\r\n`);
  assert.deepEqual(rest, {
    head,
    method: "POST",
    body: { type: "length", bytes: 12 },
    expectsContinue: false,
    tunnel: "none",
    last: false,
  });
  assert.equal(type, "request");
  assert.equal(request("GET / HTTP/1.1\r\nA:b\r\nC:\t d \t\r\n\r\n").head, "GET / HTTP/1.1\r\nA: b\r\nC: d\r\n");
  assert.equal(request(get("X: caf\xe9\t\x80")).head, "GET / HTTP/1.1\r\nHost: x\r\nX: caf\xe9\t\x80\r\n");
});

test("what only we may say is taken out, in every spelling that a gateway could take for it", () => {
  const names = [
    ...["Fived-User", "fived-user", "FIVED-USER", "Fived_User", "fived_roles", "Fived-Assertion", "Fived.User"],
    ...[
      "Fived-",
      "Fived",
      "fived--user",
      "Fived!User",
      "FiVeD~SeSsIoN",
      "Fived-Anything-Else",
      "Fived'User",
      "Fived|x",
    ],
  ];
  for (const name of names) {
    assert.equal(request(get(`${name}: root`, "A: b")).head, "GET / HTTP/1.1\r\nHost: x\r\nA: b\r\n", name);
    refusal(get(`${name} : root`));
    refusal(get(` ${name}: root`));
    refusal(get(`\t${name}: root`));
  }
  assert.match(request(get("Fivedom: x", "X-Fived-User: x")).head, /Fivedom: x\r\nX-Fived-User: x/);
});

test("nobody has our fields dropped behind us by naming them in Connection", () => {
  const of = (...fields: readonly string[]) => /Connection: (.*)\r\n/.exec(request(get(...fields)).head)?.[1];
  assert.equal(of("Connection: close, Fived-User"), "close");
  assert.equal(of("Connection: Fived_User, keep-alive", "Connection: fived-assertion"), "keep-alive");
  assert.equal(of("Connection: Host"), undefined);
  assert.equal(of("Connection: TE", "TE: trailers"), "te");
  assert.equal(refusal(get("Connection: close Fived-User")), 400);
  assert.equal(refusal(get("Connection: clo\x80se")), 400);
});

test("a body ends where everybody thinks that it does, or the request is refused", () => {
  const chunked = request(post("Transfer-Encoding: Chunked"));
  assert.deepEqual(chunked.body, { type: "chunked" });
  assert.match(chunked.head, /Transfer-Encoding: chunked\r\n/);
  const leading = request(post("Content-Length: 0012"));
  assert.match(leading.head, /Content-Length: 12\r\n/);
  assert.deepEqual(request(post("Content-Length: 0")).body, { type: "none" });
  assert.deepEqual(request(post()).body, { type: "none" });
  const refused: readonly (readonly string[])[] = [
    ["Content-Length: 5", "Transfer-Encoding: chunked"],
    ["Transfer-Encoding: chunked", "Content-Length: 5"],
    ["Transfer-Encoding: chunked", "Content-Length: 0"],
    ["Content-Length: 5", "Content-Length: 5"],
    ["Content-Length: 5", "content-length: 6"],
    ...["5, 5", "5,6", "+5", "-5", "5 5", "0x5", "5.0", "1e1", "", "५", "5;", "1234567890123456", "\x0b5"].map(
      (length) => [`Content-Length: ${length}`],
    ),
    ["Transfer-Encoding: chunked", "Transfer-Encoding: chunked"],
    ["Transfer-Encoding: chunked", "Transfer-Encoding: identity"],
    ...[
      "gzip, chunked",
      "chunked, identity",
      "chunked,",
      '"chunked"',
      "chunked;q=1",
      "x",
      "",
      "xchunked",
      "\x0bchunked",
    ].map((coding) => [`Transfer-Encoding: ${coding}`]),
    ["Transfer-Encoding : chunked"],
    [" Transfer-Encoding: chunked"],
    ["X: y", " Transfer-Encoding: chunked"],
    ["X: y\rTransfer-Encoding: chunked"],
    ["X: y\nTransfer-Encoding: chunked"],
    ["X: y\0"],
    ["Transfer-Encoding\0: chunked"],
    ["\x0bTransfer-Encoding: chunked"],
    ["Transfer_Encoding: chunked"],
    ["Content_Length: 5"],
    ["Content.Length: 5"],
    [": chunked"],
    ["chunked"],
    ["Host: y"],
  ];
  for (const fields of refused) refusal(post(...fields));
  assert.equal(refusal("POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n"), 400);
});

test("a line that ends in LF alone is refused as soon as it does", () => {
  for (const head of ["GET / HTTP/1.1\n", "GET / HTTP/1.1\r\nHost: x\n", "\n", "GET / HTTP/1.1\r\nA: b\n\n"]) {
    const { lines } = readEveryWay(head);
    assert.ok(lines.type === "refused" && lines.status === 400, JSON.stringify(head));
  }
  refusal("GET / HTTP/1.1\r\nA: b\r\r\n\r\n");
});

test("a first line is a request of HTTP/1.1 or HTTP/1.0, and says so in one way only", () => {
  for (const first of [
    ...[
      "GET /",
      "GET  / HTTP/1.1",
      "GET / HTTP/1.1 ",
      " GET / HTTP/1.1",
      "GET /\tHTTP/1.1",
      "GET / http/1.1",
      "G{T / HTTP/1.1",
    ],
    ...[
      "GET / HTTP/1.1\0",
      "GET /\x85 HTTP/1.1",
      "GET /\xa0 HTTP/1.1",
      "GET / x HTTP/1.1",
      "GET / HTTP/11",
      "GET / HTTP/1.10",
    ],
    ...["get / HTTP/1.1", "Post / HTTP/1.1", "HEAD", "", `${"A".repeat(65)} / HTTP/1.1`, "GET /\r HTTP/1.1"],
  ])
    assert.equal(refusal(`${first}\r\nHost: x\r\n\r\n`), 400, first);
  for (const version of ["2.0", "0.9", "1.2", "3.0"]) assert.equal(refusal(`GET / HTTP/${version}\r\n\r\n`), 505);
  assert.equal(refusal("PRI * HTTP/2.0\r\n\r\n"), 505, "HTTP/2 without asking first");
  assert.equal(refusal("TRACE / HTTP/1.1\r\n\r\n"), 501);
  for (const first of ["GET http://x/ HTTP/1.1", "OPTIONS * HTTP/1.1", "PROPFIND /a HTTP/1.1", "M-SEARCH * HTTP/1.1"])
    assert.equal(request(`${first}\r\n\r\n`).head, `${first}\r\n`);
});

test("only to WebSocket may the protocol change: elsewhere there would be requests that nobody looks at", () => {
  const upgrade = request(get("Connection: keep-alive, Upgrade", "Upgrade: WebSocket", "Sec-WebSocket-Key: x"));
  assert.equal(upgrade.tunnel, "upgrade");
  assert.equal(
    upgrade.head,
    "GET / HTTP/1.1\r\nHost: x\r\nSec-WebSocket-Key: x\r\nUpgrade: websocket\r\nConnection: keep-alive, upgrade\r\n",
  );
  const ignored: readonly (readonly string[])[] = [
    ["Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA"],
    ["Connection: Upgrade", "Upgrade: websocket, h2c"],
    ["Connection: Upgrade", "Upgrade: websocket", "Upgrade: h2c"],
    ["Connection: Upgrade", "Upgrade: TLS/1.0"],
    ["Connection: Upgrade", "Upgrade: HTTP/2.0"],
    ["Upgrade: websocket"],
    ["Connection: Upgrade"],
  ];
  for (const fields of ignored) {
    const { head, tunnel } = request(get(...fields));
    assert.deepEqual([head, tunnel], ["GET / HTTP/1.1\r\nHost: x\r\n", "none"]);
  }
  assert.equal(refusal(get("Connection: Upgrade", "Upgrade: websocket", "Content-Length: 5")), 400);
  assert.equal(request("CONNECT x:443 HTTP/1.1\r\n\r\n").tunnel, "connect");
  assert.equal(refusal("CONNECT x:443 HTTP/1.1\r\nContent-Length: 5\r\n\r\n"), 400);
  assert.equal(refusal("CONNECT x:443 HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n"), 400);
  assert.equal(request("GET / HTTP/1.0\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n").tunnel, "none");
});

test("a body where none belongs is the last thing on its connection", () => {
  for (const method of ["GET", "HEAD", "DELETE", "OPTIONS"]) {
    const { head, last } = request(`${method} / HTTP/1.1\r\nContent-Length: 5\r\nConnection: keep-alive\r\n\r\n`);
    assert.deepEqual([head, last], [`${method} / HTTP/1.1\r\nContent-Length: 5\r\nConnection: close\r\n`, true]);
    assert.equal(request(`${method} / HTTP/1.1\r\nContent-Length: 0\r\n\r\n`).last, false);
  }
  assert.equal(request(post("Connection: close")).last, true);
  assert.equal(request("GET / HTTP/1.0\r\n\r\n").last, true);
  assert.equal(request("GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n").last, false);
});

test("only 100-continue can be expected", () => {
  assert.equal(request(post("Expect: 100-Continue", "Content-Length: 1")).expectsContinue, true);
  for (const value of ["", "y 100-continue", "100-continue, x", "200-ok"])
    assert.equal(refusal(post(`Expect: ${value}`)), 417);
  assert.equal(refusal(post("Expect: 100-continue", "Expect: 100-continue")), 400);
});

test("trailers are judged as fields are", () => {
  assert.equal(judgeTrailers([]), undefined);
  assert.equal(judgeTrailers(["A: b", "Fived-User: root"]), undefined);
  for (const wrong of [" A: b", "A : b", "A", "A: b\r", "A: \0"]) assert.equal(judgeTrailers([wrong])?.status, 400);
  assert.equal(judgeTrailers(Array.from({ length: FIELDS_MAX + 1 }, () => "A: b"))?.status, 431);
});

/** What is handed on of a chunked body, and what is behind it; or the refusal. */
function readChunks(pieces: readonly Uint8Array[]): { handed: string; rest: string } | { refused: number } | "more" {
  const reader = new ChunksReader();
  let handed = "";
  for (const [index, piece] of pieces.entries()) {
    for (let at = 0; at < piece.length; ) {
      const part = reader.read(piece, at);
      if (part.type === "refused") return { refused: part.status };
      assert.ok(part.end > at, "it gets on");
      if (part.type === "data") handed += Buffer.from(piece.subarray(at, part.end)).toString("latin1");
      if (part.type === "line") handed += part.line;
      at = part.end;
      if (part.type !== "over") continue;
      const rest = Buffer.concat([piece.subarray(at), ...pieces.slice(index + 1)]).toString("latin1");
      return { handed: handed + LAST_CHUNK, rest };
    }
  }
  return "more";
}

function chunksEveryWay(text: string): ReturnType<typeof readChunks> {
  const whole = readChunks([octets(text)]);
  assert.deepEqual(readChunks(Array.from(octets(text), (octet) => Uint8Array.of(octet))), whole, JSON.stringify(text));
  return whole;
}

test("chunks are handed on in the one form that everybody reads alike", () => {
  assert.deepEqual(chunksEveryWay("5\r\nhello\r\n0\r\n\r\nGET"), { handed: "5\r\nhello\r\n0\r\n\r\n", rest: "GET" });
  assert.deepEqual(chunksEveryWay('00A;x="y" \t;z\r\n0123456789\r\n000;q\r\nA: b\r\nFived-User: root\r\n\r\n'), {
    handed: "a\r\n0123456789\r\n0\r\n\r\n",
    rest: "",
  });
  assert.equal(chunksEveryWay("5\r\nhell"), "more");
  assert.equal(chunksEveryWay("0\r\nA: b\r\n"), "more");
});

test("chunks that two readers could read in two ways are refused", () => {
  const wrong = [
    ...[
      "\r\n",
      "x\r\n",
      "-1\r\n",
      "+1\r\n",
      "0x1\r\n",
      " 1\r\n",
      "1 \r\n",
      "1\t\r\n",
      "1\n",
      "1;\n",
      "1;x\nx\r\n",
      "1;x\rx\r\n",
    ],
    ...[
      "1;\0\r\n",
      "1,\r\n",
      "fffffffffffffff\r\n",
      "00000000000001\r\n",
      "1_0\r\n",
      "1\r\r\n",
      `1;${"x".repeat(300)}\r\n`,
    ],
    ...[
      "1\r\nab\r\n",
      "1\r\na\n",
      "1\r\na\r\r",
      "1\r\na\rx",
      "0\r\nA: b\n\r\n",
      "0\r\n A: b\r\n\r\n",
      "0\r\nA : b\r\n\r\n",
    ],
    ...["0\n", "0\r\nx\r\n\r\n", "0\r\n\n"],
  ];
  for (const text of wrong) {
    const read = chunksEveryWay(text);
    assert.ok(typeof read === "object" && "refused" in read, `${JSON.stringify(text)}: ${JSON.stringify(read)}`);
  }
});

test("no octets make the readers throw, and no segmentation makes a difference", () => {
  const part = fc.constantFrom(
    ...[
      "GET",
      "POST",
      " ",
      "/",
      "HTTP/1.1",
      "\r\n",
      "\n",
      "\r",
      "Host: x",
      "Content-Length: 5",
      "Transfer-Encoding: chunked",
    ],
    ...[
      "Fived-User: root",
      ":",
      "\0",
      "\x80",
      "0",
      "5",
      "hello",
      ";x",
      "\t",
      "Connection: close",
      "Expect: 100-continue",
    ],
  );
  const text = fc.array(part, { maxLength: 20 }).map((parts) => parts.join(""));
  fc.assert(
    fc.property(text, (all) => {
      const { lines } = readEveryWay(all);
      if (lines.type === "lines") judgeHead(lines.lines);
      chunksEveryWay(all);
    }),
  );
});

test("whatever is handed on has nothing of ours in it, and every line of it is one field", () => {
  const name = fc.stringMatching(/^[A-Za-z_.~-]{1,8}$/).map((end) => `Fived${end}`);
  const field = fc.tuple(fc.oneof(name, fc.string()), fc.string()).map(([key, value]) => `${key}:${value}`);
  fc.assert(
    fc.property(fc.array(field, { maxLength: 5 }), (fields) => {
      const verdict = judgeHead(["GET / HTTP/1.1", ...fields]);
      if (verdict.type === "refused") return;
      const [, ...lines] = verdict.head.split("\r\n").slice(0, -1);
      for (const line of lines) assert.match(line, /^(?!fived[^a-z0-9])[^\s:]+: [\t\x20-\x7e\x80-\xff]*$/i);
    }),
  );
});
