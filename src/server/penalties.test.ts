import assert from "node:assert/strict";
import test from "node:test";
import fc from "fast-check";
import { Penalties } from "./penalties.ts";

const LIMITS = {
  authFailureMs: 5_000,
  minMs: 15_000,
  maxMs: 600_000,
  sources: 65_536,
  exempt: [],
  spareLoopback: false,
  ipv4Prefix: 32,
  ipv6Prefix: 56,
};

/** So many failures at one time. */
function fail(penalties: Penalties, address: string | undefined, times: number, now: number): void {
  for (let time = 0; time < times; time++) penalties.failed(address, now);
}

test("A04 a source is refused from its third failure on, until its penalty has run off; others are not", () => {
  const penalties = new Penalties(LIMITS);
  fail(penalties, "192.0.2.1", 2, 0);
  assert.equal(penalties.refuses("192.0.2.1", 0), false);
  penalties.failed("192.0.2.1", 0);
  assert.equal(penalties.refuses("192.0.2.1", 0), true);
  assert.equal(penalties.refuses("192.0.2.2", 0), false);
  assert.equal(penalties.refuses("192.0.2.1", 14_999), true);
  assert.equal(penalties.refuses("192.0.2.1", 15_000), false);
});

test("A04 a thousand failures are ten minutes, not longer", () => {
  const penalties = new Penalties(LIMITS);
  fail(penalties, "192.0.2.1", 1_000, 0);
  assert.equal(penalties.refuses("192.0.2.1", 599_999), true);
  assert.equal(penalties.refuses("192.0.2.1", 600_000), false);
});

test("failures far apart are no penalty: somebody mistypes now and then", () => {
  const penalties = new Penalties(LIMITS);
  for (let now = 0; now < 1_000_000; now += 5_000) {
    penalties.failed("192.0.2.1", now);
    assert.equal(penalties.refuses("192.0.2.1", now), false);
  }
});

test("an IPv6 customer is one source, whichever of his addresses he takes, and an IPv4 address is one in both spellings", () => {
  const penalties = new Penalties(LIMITS);
  for (const address of ["2001:db8::1", "2001:db8:0:ff::2", "2001:db8:0:1::"]) penalties.failed(address, 0);
  assert.equal(penalties.refuses("2001:db8:0:7f::9", 0), true);
  assert.equal(penalties.refuses("2001:db8:0:100::", 0), false);
  fail(penalties, "::ffff:192.0.2.1", 3, 0);
  assert.equal(penalties.refuses("192.0.2.1", 0), true);
});

test("exempt networks, and this computer where it is spared, get no penalties", () => {
  const penalties = new Penalties({ ...LIMITS, exempt: ["10.0.0.0/8", "2001:db8::/32"], spareLoopback: true });
  for (const address of ["10.1.2.3", "2001:db8::1", "127.0.0.1", "::1", undefined]) {
    fail(penalties, address, 10, 0);
    assert.equal(penalties.refuses(address, 0), false, address);
  }
  fail(penalties, "192.0.2.1", 3, 0);
  assert.equal(penalties.refuses("192.0.2.1", 0), true);
  penalties.limits = LIMITS;
  fail(penalties, "10.1.2.3", 3, 0);
  assert.equal(penalties.refuses("10.1.2.3", 0), true);
});

test("however many sources fail, no more are remembered than is allowed, and the one that fails most is among them", () => {
  const penalties = new Penalties({ ...LIMITS, sources: 100 });
  fail(penalties, "192.0.2.1", 100, 0);
  for (let source = 0; source < 10_000; source++) penalties.failed(`10.0.${source >> 8}.${source & 255}`, 1);
  assert.equal(penalties.refuses("192.0.2.1", 1), true);
});

test("more failures never make a penalty shorter", () => {
  fc.assert(
    fc.property(fc.array(fc.nat(30_000), { maxLength: 50 }), fc.nat(1_000_000), (gaps, later) => {
      const [few, many] = [new Penalties(LIMITS), new Penalties(LIMITS)];
      let now = 0;
      for (const [index, gap] of gaps.entries()) {
        now += gap;
        many.failed("192.0.2.1", now);
        if (index % 2 === 0) few.failed("192.0.2.1", now);
      }
      if (few.refuses("192.0.2.1", now + later)) assert.ok(many.refuses("192.0.2.1", now + later));
    }),
  );
});
