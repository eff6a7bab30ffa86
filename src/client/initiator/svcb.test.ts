import assert from "node:assert/strict";
import test from "node:test";
import fc from "fast-check";
import { effort, seed } from "../../../test/sim/seed.ts";
import { readSvcb } from "./svcb.ts";

/** RFC 9460, appendix D: the data of a record, and what it says. */
function hex(text: string): Buffer {
  return Buffer.from(text.replace(/\s/g, ""), "hex");
}

test("the test vectors of RFC 9460 mean what it says", () => {
  // D.1: an alias.
  const alias = readSvcb(hex("0000 03 666f6f 07 6578616d706c65 03 636f6d 00"));
  assert.deepEqual(alias, { priority: 0, target: "foo.example.com", port: undefined, hints: [], usable: true });
  // D.2, figure 3: the name itself.
  assert.deepEqual(readSvcb(hex("0001 00"))?.target, "");
  // Figure 4: a port.
  const port = readSvcb(hex("0010 03 666f6f 07 6578616d706c65 03 636f6d 00 0003 0002 0035"));
  assert.deepEqual([port?.priority, port?.port, port?.usable], [16, 53, true]);
  // Figure 5: a key that nobody knows, which is passed over.
  assert.equal(readSvcb(hex("0001 03 666f6f 07 6578616d706c65 03 636f6d 00 029b 0005 68656c6c6f"))?.usable, true);
  // Figure 7: two addresses of IPv6.
  const six = "20010db8000000000000000000000001 20010db8000000000000000000530001";
  const hinted = readSvcb(hex(`0001 03 666f6f 07 6578616d706c65 03 636f6d 00 0006 0020 ${six}`));
  assert.deepEqual(hinted?.hints, ["2001:db8:0:0:0:0:0:1", "2001:db8:0:0:0:0:53:1"]);
  // Figure 9: what is mandatory: alpn and ipv4hint, which we know.
  const rest = "0000 0004 0001 0004 0001 0009 02 6832 05 68332d3139 0004 0004 c0000201";
  const demanding = readSvcb(hex(`0010 03 666f6f 07 6578616d706c65 03 6f7267 00 ${rest}`));
  assert.deepEqual([demanding?.usable, demanding?.hints], [true, ["192.0.2.1"]]);
});

test("a record is for us unless it offers other protocols only, or demands what we do not know", () => {
  const usable = (parameters: string): boolean | undefined => readSvcb(hex(`0001 00 ${parameters}`))?.usable;
  assert.equal(usable("0001 0003 02 6832"), true, "h2, and the default besides");
  assert.equal(usable("0001 0003 02 6832 0002 0000"), false, "h2 alone");
  assert.equal(usable("0001 0008 07 66697665642f31 0002 0000"), true, "fived/1 alone");
  assert.equal(usable("0000 0002 0005 0005 0001 00"), false, "ech is a must");
});

test("octets that are no record are none, wherever they are cut", () => {
  const whole = hex(
    "0010 03 666f6f 07 6578616d706c65 03 6f7267 00 0000 0004 0001 0004 0001 0003 02 6832 0004 0004 c0000201",
  );
  assert.ok(readSvcb(whole) !== undefined);
  // Only where a parameter has just ended, what is left is a record as well.
  const ends = [whole.length - 8, whole.length - 15, whole.length - 23];
  for (let end = 0; end < whole.length; end++)
    assert.equal(readSvcb(whole.subarray(0, end)) !== undefined, ends.includes(end), `cut at ${end}`);
  assert.equal(readSvcb(hex("0001 00 0003 0002 0035 0003 0002 0036")), undefined, "a key twice");
  assert.equal(readSvcb(hex("0001 00 0004 0003 c00002")), undefined, "three quarters of an address");
  assert.equal(readSvcb(hex("0001 c00c")), undefined, "a compressed name");
  assert.equal(readSvcb(hex("0001 01 00 00")), undefined, "a name with NUL");
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 64 }), (octets) => {
      const record = readSvcb(octets);
      assert.ok(record === undefined || record.priority >= 0);
    }),
    { seed, numRuns: 2_000 * effort },
  );
});
