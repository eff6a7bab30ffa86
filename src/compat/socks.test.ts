import assert from "node:assert/strict";
import test from "node:test";
import fc from "fast-check";
import { effort, seed } from "../../test/sim/seed.ts";
import { type SocksRead, SocksReader, socksAnswer } from "./socks.ts";

/** What a program says, octet by octet or in other pieces, becomes; and what was said to it meanwhile. */
function heard(pieces: readonly Uint8Array[]): { readonly last: SocksRead; readonly said: string } {
  const reader = new SocksReader();
  let said = "";
  let last: SocksRead = { type: "more" };
  for (const piece of pieces) {
    last = reader.push(piece);
    for (; last.type === "say"; last = reader.push(new Uint8Array(0))) said += last.octets.toString("hex");
    if (last.type === "wrong") break;
  }
  return { last, said };
}

function request(octets: Buffer): object | undefined {
  const each = heard([...octets].map((octet) => Buffer.of(octet))).last;
  const whole = heard([octets]).last;
  assert.deepEqual(
    each.type === "request" ? each.request : each.type,
    whole.type === "request" ? whole.request : whole.type,
  );
  return whole.type === "request" ? whole.request : undefined;
}

const hello = Buffer.of(5, 1, 0);
const name = (text: string): Buffer => Buffer.concat([Buffer.of(3, text.length), Buffer.from(text)]);

test("SOCKS 5: a name, an address of either family, and Tor's questions", () => {
  const five = (command: number, address: Buffer): Buffer =>
    Buffer.concat([hello, Buffer.of(5, command, 0), address, Buffer.of(0, 80)]);
  assert.deepEqual(request(five(1, name("wiki.example.org"))), {
    version: 5,
    command: "connect",
    host: "wiki.example.org",
    port: 80,
  });
  assert.deepEqual(request(five(1, Buffer.of(1, 192, 0, 2, 1))), {
    version: 5,
    command: "connect",
    host: "192.0.2.1",
    port: 80,
  });
  const six = Buffer.concat([Buffer.of(4), Buffer.alloc(15), Buffer.of(1)]);
  assert.deepEqual(request(five(1, six)), { version: 5, command: "connect", host: "0:0:0:0:0:0:0:1", port: 80 });
  assert.deepEqual(request(five(0xf0, name("x")))?.["command" as never], "resolve");
  assert.deepEqual(request(five(0xf1, Buffer.of(1, 198, 18, 0, 1)))?.["command" as never], "resolve-ptr");
  assert.deepEqual(request(five(3, name("x")))?.["command" as never], "other", "UDP");
});

test("SOCKS 5 with a user and a password, for programs that insist", () => {
  const pieces = [
    Buffer.of(5, 1, 2),
    Buffer.from("\x01\x02me\x02pw"),
    Buffer.concat([Buffer.of(5, 1, 0), name("x"), Buffer.of(0, 1)]),
  ];
  const { last, said } = heard(pieces);
  assert.equal(said, "05020100");
  assert.ok(last.type === "request" && last.request.host === "x");
  assert.deepEqual(heard([Buffer.of(5, 1, 1)]).last, { type: "wrong", octets: Buffer.of(5, 0xff) });
});

test("SOCKS 4 and 4a; what stands behind a request is left", () => {
  const four = Buffer.concat([Buffer.of(4, 1, 0, 80, 192, 0, 2, 1), Buffer.from("me\0rest")]);
  const { last } = heard([four]);
  assert.ok(last.type === "request");
  assert.deepEqual(last.request, { version: 4, command: "connect", host: "192.0.2.1", port: 80 });
  assert.equal(last.rest.toString(), "rest");
  const named = Buffer.concat([Buffer.of(4, 1, 0, 80, 0, 0, 0, 1), Buffer.from("me\0wiki.example.org\0")]);
  assert.deepEqual(request(named), { version: 4, command: "connect", host: "wiki.example.org", port: 80 });
});

test("whatever comes, it is a request, or wrong, within a bounded number of octets", () => {
  assert.equal(heard([Buffer.of(4, 1, 0, 80, 0, 0, 0, 1), Buffer.alloc(2_000, 0x61)]).last.type, "wrong");
  assert.equal(heard([Buffer.from("GET / HTTP/1.1\r\n\r\n")]).last.type, "wrong");
  const pieces = fc.array(fc.uint8Array({ maxLength: 40 }), { maxLength: 60 });
  fc.assert(
    fc.property(fc.constantFrom(4, 5), pieces, (version, more) => {
      const { last } = heard([Buffer.of(version), ...more]);
      const bytes = more.reduce((sum, piece) => sum + piece.length, 0);
      assert.ok(last.type !== "more" || bytes <= 1_100);
    }),
    { seed, numRuns: 1_000 * effort },
  );
});

test("answers are as the versions have them", () => {
  assert.equal(socksAnswer(5, 0).toString("hex"), "05000001000000000000");
  assert.equal(socksAnswer(5, 0, [198, 18, 0, 1]).toString("hex"), "05000001c61200010000");
  assert.equal(socksAnswer(5, 0, "ab").toString("hex"), "050000030261620000");
  assert.equal(socksAnswer(4, 0).toString("hex"), "005a000000000000");
  assert.equal(socksAnswer(4, 5).toString("hex"), "005b000000000000");
});
