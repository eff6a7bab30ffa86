import assert from "node:assert/strict";
import test from "node:test";
import fc from "fast-check";
import { seed } from "../../../test/sim/seed.ts";
import { readAddressList } from "./address-list.ts";

fc.configureGlobal({ seed, numRuns: 1_000 });

function includes(list: string, address: string | undefined, kinds: "ranges" | "patterns" = "patterns"): boolean {
  const read = readAddressList(list, kinds);
  assert.ok(read.type === "list", JSON.stringify(read));
  return read.includes(address);
}

test("ranges and addresses include what lies in them", () => {
  for (const [list, address] of [
    ["192.0.2.1", "192.0.2.1"],
    ["192.0.2.0/24", "192.0.2.255"],
    ["10.0.0.0/9", "10.127.255.255"],
    ["0.0.0.0/0", "203.0.113.9"],
    ["2001:db8::/33", "2001:db8:7fff::1"],
    ["2001:DB8::1", "2001:db8:0:0::1"],
    ["fe80::/10", "fe80::1%eth0"],
    ["198.51.100.0/24,192.0.2.0/24", "192.0.2.7"],
    ["::ffff:192.0.2.0/120", "192.0.2.7"],
    ["192.0.2.7", "::ffff:192.0.2.7"],
    ["::/0", "2001:db8::1"],
  ] as const)
    assert.equal(includes(list, address), true, `${list} ${address}`);
  for (const [list, address] of [
    ["192.0.2.1", "192.0.2.10"],
    ["192.0.2.0/24", "192.0.3.0"],
    ["10.0.0.0/9", "10.128.0.0"],
    ["2001:db8::/33", "2001:db8:8000::1"],
    ["::/0", "192.0.2.1"],
    ["0.0.0.0/0", "2001:db8::1"],
    ["192.0.2.0/24", "example.org"],
    ["192.0.2.0/24", ""],
    ["0.0.0.0/0", undefined],
    ["*", undefined],
  ] as const)
    assert.equal(includes(list, address), false, `${list} ${address}`);
});

test("patterns match addresses, and what is ruled out stays out wherever it stands", () => {
  assert.equal(includes("192.0.2.*", "192.0.2.9"), true);
  assert.equal(includes("192.0.2.?", "192.0.2.10"), false);
  assert.equal(includes("2001:DB8:*", "2001:db8::1"), true);
  assert.equal(includes("*", "192.0.2.9"), true);
  assert.equal(includes("*,!192.0.2.0/24", "192.0.2.9"), false);
  assert.equal(includes("!192.0.2.0/24,*", "192.0.2.9"), false);
  assert.equal(includes("!192.0.2.0/24,*", "192.0.3.9"), true);
  assert.equal(includes("!192.0.2.0/24", "192.0.3.9"), false, "only what rules out lets nobody in");
});

test("names of hosts never match, and cannot rule out", () => {
  assert.equal(includes("*.example.org,192.0.2.1", "192.0.2.1"), true);
  assert.equal(includes("*.example.org", "192.0.2.1"), false);
  assert.equal(includes("1*a", "192.0.2.1"), false);
  assert.equal(readAddressList("*,!*.example.org").type, "unusable");
});

test("what cannot be understood spoils the list: lengths that are too long, bits behind the prefix, blanks, nothing", () => {
  for (const list of [
    ...["192.0.2.0/33", "2001:db8::/129", "192.0.2.1/24", "2001:db8::1/64", "192.0.2.0/024", "192.0.2.0/-1"],
    ...["", "192.0.2.1,", ",192.0.2.1", "192.0.2.1, 192.0.2.2", "192.0.2", "192.0.2.0/", "!!192.0.2.1", "300.0.0.1/8"],
    ...["a b", "x\0", new Array(257).fill("::1").join(",")],
  ])
    assert.equal(readAddressList(list).type, "unusable", list);
  for (const list of ["192.0.2.*", "!192.0.2.1", "example.org", ""])
    assert.equal(readAddressList(list, "ranges").type, "unusable", list);
  assert.equal(includes("192.0.2.0/24,::1", "::1", "ranges"), true);
});

test("whatever is written and whoever comes, nothing is thrown", () => {
  const entry = fc.oneof(fc.string(), fc.ipV4(), fc.ipV6(), fc.stringMatching(/^!?[0-9a-f:.*?/]{1,30}$/));
  fc.assert(
    fc.property(fc.array(entry), fc.oneof(fc.string(), fc.ipV4(), fc.ipV6()), (entries, address) => {
      const read = readAddressList(entries.join(","));
      if (read.type === "list") read.includes(address);
    }),
  );
  fc.assert(fc.property(fc.ipV4(), (address) => includes(address, address)));
  fc.assert(fc.property(fc.ipV6(), (address) => includes(address, address)));
});
