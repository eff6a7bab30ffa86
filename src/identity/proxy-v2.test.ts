import assert from "node:assert/strict";
import test from "node:test";
import fc from "fast-check";
import { effort, seed } from "../../test/sim/seed.ts";
import { encodeProxyV2, PROXY_HEADER_BYTES_MAX, type ProxyHeader, ProxyTlv, parseProxyV2 } from "./proxy-v2.ts";

fc.configureGlobal({ seed, numRuns: 300 * effort });

type Proxied = Extract<ProxyHeader, { type: "proxy" }>;

const BARE: Proxied = {
  type: "proxy",
  source: { address: "192.0.2.1", port: 4711 },
  destination: { address: "198.51.100.2", port: 1078 },
  authority: undefined,
  uniqueId: undefined,
  ssl: undefined,
  assertion: undefined,
  user: undefined,
  others: [],
};

const FULL: Proxied = {
  ...BARE,
  authority: "git.example.org",
  uniqueId: new TextEncoder().encode("f9e1/7"),
  ssl: { version: "TLSv1.3", certificate: true, verified: true, commonName: "Ålice" },
  assertion: "a.b.c",
  user: "alice@p.example",
  others: [{ type: 0xea, value: Uint8Array.of(1, 2, 3) }],
};

const hex = (octets: Uint8Array): string => Buffer.from(octets).toString("hex");
const octets = (text: string): Uint8Array => new Uint8Array(Buffer.from(text.replaceAll(/\s/g, ""), "hex"));
const SIGNATURE = "0d0a0d0a000d0a515549540a";

function parsed(from: Uint8Array): ProxyHeader {
  const reading = parseProxyV2(from);
  assert.ok(reading.type === "header", JSON.stringify(reading));
  assert.equal(reading.bytes, from.length);
  return reading.header;
}

test("a header is what the protocol's text says, octet by octet", () => {
  const header = encodeProxyV2({ ...BARE, user: "al" });
  // 7 octets of checksum and 5 of the user behind 12 of addresses.
  const withoutChecksum = hex(header).replace(/(?<=030004)[0-9a-f]{8}/, "........");
  assert.equal(withoutChecksum, `${SIGNATURE}21110018c0000201c63364021267043603${"0004........"}e10002616c`);
  assert.equal(hex(encodeProxyV2({ type: "local" })).slice(0, 38), `${SIGNATURE}20000007030004`);
});

test("the checksum is CRC-32C: the one that others computed for a header of theirs is believed", () => {
  // The standard's check value: CRC-32C("123456789") is e3069283. It is in here by way of a header whose checksum we did not compute.
  const header = encodeProxyV2({ type: "local" });
  assert.deepEqual(parsed(header), { type: "local" });
  const crc = (text: string): number => {
    let value = 0xffff_ffff;
    for (const octet of Buffer.from(text, "latin1")) {
      value ^= octet;
      for (let bit = 0; bit < 8; bit++) value = (value >>> 1) ^ ((value & 1) === 0 ? 0 : 0x82f6_3b78);
    }
    return ~value >>> 0;
  };
  assert.equal(crc("123456789"), 0xe306_9283);
  const zeroed = Buffer.from(header);
  zeroed.fill(0, 19);
  assert.equal(Buffer.from(header).readUInt32BE(19), crc(zeroed.toString("latin1")));
});

test("everything that is said comes out again", () => {
  for (const header of [BARE, FULL, { ...FULL, source: undefined, destination: undefined }])
    assert.deepEqual(parsed(encodeProxyV2(header)), header);
});

test("addresses of both families fit, and one family is chosen where they differ", () => {
  const through = (source: string, destination: string | undefined) => {
    const header = parsed(
      encodeProxyV2({
        ...BARE,
        source: { address: source, port: 65_535 },
        destination: destination === undefined ? undefined : { address: destination, port: 1 },
      }),
    );
    assert.ok(header.type === "proxy");
    return [header.source?.address, header.destination?.address];
  };
  assert.deepEqual(through("2001:db8::1", "2001:db8:0:1::"), ["2001:db8::1", "2001:db8:0:1::"]);
  assert.deepEqual(through("::1", undefined), ["::1", "::"]);
  assert.deepEqual(through("255.255.255.255", undefined), ["255.255.255.255", "0.0.0.0"]);
  assert.deepEqual(through("::ffff:192.0.2.1", "192.0.2.2"), ["192.0.2.1", "192.0.2.2"]);
  assert.deepEqual(through("192.0.2.1", "2001:db8::2"), ["::ffff:c000:201", "2001:db8::2"]);
  assert.deepEqual(through("fe80::1%eth0", "1:2:3:4:5:6:7:8"), ["fe80::1", "1:2:3:4:5:6:7:8"]);
  assert.throws(() => through("nowhere", undefined), /no IP address/);
  assert.throws(() => through("1.2.3.256", undefined), /no IP address/);
});

test("a caller without an address keeps his other fields", () => {
  const header = encodeProxyV2({ ...FULL, source: undefined, destination: undefined });
  assert.equal(hex(header.subarray(12, 14)), "2100");
  const read = parsed(header);
  assert.ok(read.type === "proxy");
  assert.equal(read.assertion, "a.b.c");
});

test("a header that arrives in pieces is read when it is whole, and asks for no octet behind it", () => {
  const whole = encodeProxyV2(FULL);
  for (let length = 0; length < whole.length; length++) {
    const reading = parseProxyV2(whole.subarray(0, length));
    assert.ok(reading.type === "more", `${length}: ${JSON.stringify(reading)}`);
    assert.equal(reading.bytes, length < 16 ? 16 : whole.length);
  }
  const more = parseProxyV2(Buffer.concat([whole, Buffer.from("GET / HTTP/1.1\r\n")]));
  assert.ok(more.type === "header");
  assert.equal(more.bytes, whole.length);
});

test("any octet of a header that is changed is noticed", () => {
  const whole = encodeProxyV2(FULL);
  for (let at = 0; at < whole.length; at++) {
    for (const change of [0x01, 0x80, 0xff]) {
      const changed = whole.slice();
      changed[at] = (changed[at] ?? 0) ^ change;
      const reading = parseProxyV2(changed);
      const local = reading.type === "header" && reading.header.type === "local"; // the command itself
      const unchecked = at >= 28 && at < 31; // the type and length of the checksum: another type is another field
      assert.ok(reading.type !== "header" || local || unchecked, `octet ${at}: ${JSON.stringify(reading)}`);
    }
  }
});

test("what cannot be a header is refused at the first octet that shows it", () => {
  const cases: readonly (readonly [string, RegExp])[] = [
    ["47", /signature/],
    ["0d0a0d0a0d", /signature/],
    ["50524f585920", /signature/], // version 1
    [`${SIGNATURE}11`, /command 0x11/],
    [`${SIGNATURE}22`, /command 0x22/],
    [`${SIGNATURE}2141`, /transport 0x41/],
    [`${SIGNATURE}2113`, /transport 0x13/],
    [`${SIGNATURE}2111000b`, /too short for its addresses/],
    [`${SIGNATURE}21210023`, /too short for its addresses/],
    [`${SIGNATURE}21000001 02`, /cut off/],
    [`${SIGNATURE}21000002 0200`, /cut off/],
    [`${SIGNATURE}21000003 020001`, /longer than the header/],
    [`${SIGNATURE}21000003 02ffff`, /longer than the header/],
    [`${SIGNATURE}21000008 02000161 02000162`, /twice/],
    [`${SIGNATURE}21000004 020001ff`, /no UTF-8/],
    [`${SIGNATURE}21000004 e00001ff`, /no UTF-8/],
    [`${SIGNATURE}21000004 e10001c0`, /no UTF-8/],
    [`${SIGNATURE}21000006 030003000000`, /checksum/],
    [`${SIGNATURE}21000007 03000400000000`, /checksum/],
    [`${SIGNATURE}21000007 20000401000000`, /ssl field is too short/],
    [`${SIGNATURE}2100000a 2000070100000001 2100`, /ssl field a field is cut off/],
    [`${SIGNATURE}2100000b 2000080100000001 210001`, /longer than the header/],
    [`${SIGNATURE}21000084 050081${"00".repeat(129)}`, /unique identifier is too long/],
  ];
  for (const [text, reason] of cases) {
    const reading = parseProxyV2(octets(text));
    assert.ok(reading.type === "error", `${text}: ${JSON.stringify(reading)}`);
    assert.match(reading.reason, reason);
    assert.equal(reading.code, "PROXY_HEADER_BAD");
  }
});

test("of a LOCAL header the rest is skipped, whatever it is", () => {
  assert.deepEqual(parsed(octets(`${SIGNATURE}20110003 ffffff`)), { type: "local" });
});

test("what others write is understood: datagrams and Unix sockets have no address here, unknown fields are kept", () => {
  const read = parsed(octets(`${SIGNATURE}2112000c 0102030405060708 00090010`));
  assert.ok(read.type === "proxy");
  assert.equal(read.source, undefined);
  const unix = parsed(octets(`${SIGNATURE}213100dd ${"2f".repeat(216)} f0000201 02`));
  assert.ok(unix.type === "proxy");
  assert.deepEqual(unix.others, [{ type: 0xf0, value: Uint8Array.of(1, 2) }]);
  const unencrypted = parsed(octets(`${SIGNATURE}21000008 2000050000000001`));
  assert.ok(unencrypted.type === "proxy");
  assert.equal(unencrypted.ssl, undefined);
  const unverified = parsed(octets(`${SIGNATURE}2100000b 2000050700000001 040000`));
  assert.ok(unverified.type === "proxy");
  assert.deepEqual(unverified.ssl, { version: undefined, certificate: true, verified: false, commonName: undefined });
});

test("no certificate is a certificate that was not verified", () => {
  const ssl = { version: "TLSv1.3", certificate: false, verified: true, commonName: undefined };
  const read = parsed(encodeProxyV2({ ...BARE, ssl }));
  assert.ok(read.type === "proxy");
  assert.deepEqual(read.ssl, { ...ssl, verified: false });
  assert.match(hex(encodeProxyV2({ ...BARE, ssl })), /20000f0100000001210007/);
});

test("what does not fit is not written at all", () => {
  const long = "x".repeat(70_000);
  assert.throws(() => encodeProxyV2({ ...BARE, assertion: long }), /too long/);
  assert.throws(() => encodeProxyV2({ ...BARE, uniqueId: new Uint8Array(129) }), /too long/);
  const half = "x".repeat(33_000);
  assert.throws(() => encodeProxyV2({ ...BARE, assertion: half, user: half }), /too long/);
  const room = PROXY_HEADER_BYTES_MAX - 16 - 12 - 7 - 3;
  assert.equal(encodeProxyV2({ ...BARE, assertion: "x".repeat(room) }).length, PROXY_HEADER_BYTES_MAX);
  assert.throws(() => encodeProxyV2({ ...BARE, assertion: "x".repeat(room + 1) }), /too long/);
});

test("no octets make the reader throw, or ask for more than there can be", () => {
  const fields = fc.array(
    fc
      .tuple(fc.constantFrom(...Object.values(ProxyTlv), 0x21, 0xff), fc.uint8Array({ maxLength: 20 }))
      .map(([type, value]) => Buffer.concat([Uint8Array.of(type, 0, value.length), value])),
    { maxLength: 6 },
  );
  const hostile = fc
    .tuple(
      fc.constantFrom(0x20, 0x21),
      fc.constantFrom(0x00, 0x11, 0x21, 0x31),
      fields,
      fc.uint8Array({ maxLength: 40 }),
    )
    .map(([command, family, list, tail]) => {
      const addresses = Buffer.alloc([0, 12, 36, 216][family >> 4] ?? 0);
      const body = Buffer.concat([addresses, ...list, tail]);
      return Buffer.concat([octets(SIGNATURE), Uint8Array.of(command, family, body.length >> 8, body.length), body]);
    });
  fc.assert(
    fc.property(fc.oneof(hostile, fc.uint8Array({ maxLength: 300 })), fc.nat(), (bytes, at) => {
      const whole = parseProxyV2(bytes);
      if (whole.type !== "error") assert.ok(whole.bytes <= PROXY_HEADER_BYTES_MAX);
      if (whole.type === "header") assert.ok(whole.bytes <= bytes.length);
      // A part is never believed where the whole is refused later: it only asks for more.
      const part = parseProxyV2(bytes.subarray(0, at % (bytes.length + 1)));
      if (part.type === "error") assert.equal(whole.type, "error");
      if (part.type === "header") assert.deepEqual(whole, part);
    }),
  );
});

test("whatever is said comes out again (at random)", () => {
  const text = fc.option(fc.string({ unit: "grapheme", maxLength: 40 }), { nil: undefined });
  const plain = { noNullPrototype: true };
  const address = fc.record({ address: fc.ipV4(), port: fc.nat(65_535) }, plain);
  const fields = {
    type: fc.constant("proxy" as const),
    source: address,
    destination: address,
    authority: text,
    uniqueId: fc.option(fc.uint8Array({ maxLength: 128 }), { nil: undefined }),
    ssl: fc.option(
      fc.record({ version: text, certificate: fc.boolean(), verified: fc.constant(false), commonName: text }, plain),
      { nil: undefined },
    ),
    assertion: text,
    user: text,
    others: fc.uniqueArray(fc.record({ type: fc.integer({ min: 0xe2, max: 0xef }), value: fc.uint8Array() }, plain), {
      selector: ({ type }) => type,
    }),
  };
  fc.assert(fc.property(fc.record(fields, plain), (each) => assert.deepEqual(parsed(encodeProxyV2(each)), each)));
});
