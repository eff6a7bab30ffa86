import assert from "node:assert/strict";
import test from "node:test";
import fc from "fast-check";
import { TOTP, URI } from "otpauth";
import { WorkCounter } from "../../../test/abuse/counted-work.ts";
import { scripted } from "../../../test/support/exchange.ts";
import type { User, Users } from "./mechanism.ts";
import { CodeMemory, newSecondFactor, SecondFactor } from "./second-factor.ts";

/** Of RFC 6238 appendix B, for SHA-1. */
const SECRET = Buffer.from("12345678901234567890");
const PERIOD_MS = 30_000;

function people(...names: readonly string[]): Users {
  const users = new Map(
    names.map((name): [string, User] => [
      name,
      { name, groups: [], roles: [], keys: [], totp: Uint8Array.from(SECRET) },
    ]),
  );
  users.set("bare", { name: "bare", groups: [], roles: [], keys: [], totp: undefined });
  return {
    find: (name) => users.get(name),
    verify: async () => undefined,
    onChange: () => () => {},
    [Symbol.dispose]() {},
  };
}

/** A second factor whose clock a test moves. */
function at(
  start: number,
  ...names: readonly string[]
): { now: number; try(user: string, code: string): Promise<boolean> } {
  const clock = {
    now: start,
    try: (user: string, code: string) => factor.askSecondFactor(scripted([code]), user),
  };
  const factor = new SecondFactor({ users: people(...names), memory: new CodeMemory(), now: () => clock.now });
  return clock;
}

/** The code of another implementation of the library's object, for a moment. */
function codeAt(now: number): string {
  const code = new TOTP({ secret: hex(SECRET), algorithm: "SHA1", digits: 6, period: 30 }).generate({ timestamp: now });
  return code;
}

function hex(octets: Uint8Array) {
  const uri = URI.parse(`otpauth://totp/x?secret=GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ`);
  assert.deepEqual([...uri.secret.bytes], [...octets]);
  return uri.secret;
}

test("the codes of RFC 6238 appendix B are accepted, at their time, by their last six digits", async () => {
  const vectors: readonly (readonly [seconds: number, code: string])[] = [
    [59, "94287082"],
    [1_111_111_109, "07081804"],
    [1_111_111_111, "14050471"],
    [1_234_567_890, "89005924"],
    [2_000_000_000, "69279037"],
    [20_000_000_000, "65353130"],
  ];
  for (const [seconds, code] of vectors)
    assert.equal(await at(seconds * 1_000, "alice").try("alice", code.slice(-6)), true, code);
});

test("the question is asked once, and shown, and the answer is wiped", async () => {
  const factor = new SecondFactor({ users: people("alice"), memory: new CodeMemory(), now: () => 59_000 });
  const exchange = scripted(["287082"]);
  assert.equal(await factor.askSecondFactor(exchange, "alice"), true);
  assert.deepEqual(exchange.asked, [{ question: "Enter Code: ", answer: "shown" }]);
  assert.deepEqual([...(exchange.given[0] ?? [])], [0, 0, 0, 0, 0, 0]);
});

test("a code counts in its own period and its neighbours, and no further", async () => {
  const code = codeAt(100 * PERIOD_MS);
  for (const [period, right] of [
    [97, false],
    [98, false],
    [99, true],
    [100, true],
    [101, true],
    [102, false],
    [103, false],
  ] as const) {
    assert.equal(await at(period * PERIOD_MS, "alice").try("alice", code), right, `period ${period}`);
    assert.equal(await at((period + 1) * PERIOD_MS - 1, "alice").try("alice", code), right, `end of period ${period}`);
  }
});

test("a code is accepted once, also by two who come at the same time, and no older one after it", async () => {
  const clock = at(100 * PERIOD_MS, "alice");
  const both = await Promise.all([clock.try("alice", codeAt(clock.now)), clock.try("alice", codeAt(clock.now))]);
  assert.deepEqual(both, [true, false]);
  assert.equal(await clock.try("alice", codeAt(99 * PERIOD_MS)), false);
  assert.equal(await clock.try("alice", codeAt(101 * PERIOD_MS)), true);
  clock.now += PERIOD_MS;
  assert.equal(await clock.try("alice", codeAt(clock.now)), false, "given already, a period early");
  clock.now += PERIOD_MS;
  assert.equal(await clock.try("alice", codeAt(clock.now)), true);
});

test("what one has given does not count for another", async () => {
  const clock = at(100 * PERIOD_MS, "alice", "bob");
  assert.equal(await clock.try("alice", codeAt(clock.now)), true);
  assert.equal(await clock.try("bob", codeAt(clock.now)), true);
});

test("what is no code is wrong: too short, too long, other digits, blanks", async () => {
  const now = 100 * PERIOD_MS;
  const code = codeAt(now);
  for (const wrong of [
    "",
    code.slice(1),
    `${code}0`,
    `0${code}`,
    ` ${code}`,
    `${code}\0`,
    "０１２３４５",
    "abcdef",
    "-12345",
    "000000".slice(0, 5),
  ])
    assert.equal(await at(now, "alice").try("alice", wrong), false, JSON.stringify(wrong));
  await fc.assert(
    fc.asyncProperty(fc.uint8Array({ maxLength: 1_024 }), async (answer) => {
      if (Buffer.from(answer).toString("latin1") === code) return;
      const factor = new SecondFactor({
        users: people("alice"),
        memory: new CodeMemory(),
        now: () => 1_000 * PERIOD_MS,
      });
      assert.equal(await factor.askSecondFactor(scripted([answer]), "alice"), false);
    }),
  );
});

test("A05 somebody without a second factor, or unknown, fails after the same question and the same work", async () => {
  const clock = at(100 * PERIOD_MS, "alice");
  await using work = await WorkCounter.start("/src/server/auth/");
  const costOf = async (user: string) =>
    [...(await work.during(() => clock.try(user, "000001")))].filter(([place]) => !place.includes(".test.ts")).sort();
  await costOf("alice");
  const wrong = await costOf("alice");
  assert.ok(wrong.length > 0, "work was counted");
  for (const user of ["bare", "nobody"]) assert.deepEqual(await costOf(user), wrong, user);
  // Not even the code of the secret that stands in for a missing one would be right: it is random, and there is no secret.
  for (let code = 0; code < 50; code++)
    assert.equal(await at(clock.now).try("bare", String(code).padStart(6, "0")), false);
});

test("A04 after ten wrong codes the right one is wrong, too, for a quarter of an hour, and only for that user", async () => {
  const clock = at(100 * PERIOD_MS, "alice", "bob");
  for (let guess = 0; guess < 10; guess++) assert.equal(await clock.try("alice", "no"), false);
  assert.equal(await clock.try("alice", codeAt(clock.now)), false);
  assert.equal(await clock.try("bob", codeAt(clock.now)), true);
  clock.now += 15 * 60_000 - 1;
  assert.equal(await clock.try("alice", codeAt(clock.now)), false);
  clock.now += 1;
  assert.equal(await clock.try("alice", codeAt(clock.now)), true);
});

test("nine wrong codes and a right one begin anew", async () => {
  const clock = at(100 * PERIOD_MS, "alice");
  for (let round = 0; round < 3; round++) {
    for (let guess = 0; guess < 9; guess++) await clock.try("alice", "no");
    clock.now += PERIOD_MS;
    assert.equal(await clock.try("alice", codeAt(clock.now)), true);
  }
});

test("S06 a clock that was far ahead for a while locks nobody out", async () => {
  const clock = at(100 * PERIOD_MS, "alice");
  clock.now += 86_400_000;
  assert.equal(await clock.try("alice", codeAt(clock.now)), true);
  clock.now -= 86_400_000;
  assert.equal(await clock.try("alice", codeAt(clock.now)), true);
});

test("what is printed for authenticator programs is read by another program as the same secret", async () => {
  const { secret, url } = newSecondFactor("alice", "example.org");
  assert.equal(secret.length, 20);
  const read = URI.parse(url);
  assert.ok(read instanceof TOTP);
  assert.deepEqual([...read.secret.bytes], [...secret]);
  assert.deepEqual(
    [read.issuer, read.label, read.algorithm, read.digits, read.period],
    ["example.org", "alice", "SHA1", 6, 30],
  );
  assert.match(
    url,
    /^otpauth:\/\/totp\/example\.org:alice\?issuer=example\.org&secret=[A-Z2-7]{32}&algorithm=SHA1&digits=6&period=30$/,
  );
  assert.notDeepEqual(newSecondFactor("alice", "example.org").secret, secret);
});
