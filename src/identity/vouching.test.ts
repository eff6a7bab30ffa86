import assert from "node:assert/strict";
import { createHmac } from "node:crypto";
import test from "node:test";
import fc from "fast-check";
import { createLocalJWKSet } from "jose";
import { effort, seed } from "../../test/sim/seed.ts";
import { forgeVouching, otherKey, vouchingClaims, vouchingFor } from "../../test/support/vouchings.ts";
import { signAssertion } from "./assertion.ts";
import { claimedIssuer, judgeVouching, signVouching, VOUCHING_SECONDS } from "./vouching.ts";

fc.configureGlobal({ seed, numRuns: 200 * effort });

const NOW = 1_800_000_000_000;
const SECONDS = NOW / 1_000;
const KEY = otherKey("k1");
const FIND = createLocalJWKSet(KEY.set);
const { binding: BINDING } = vouchingFor();
const EXPECTED = { issuer: "a.example", binding: BINDING, now: NOW };

async function refusal(token: string, expected = EXPECTED): Promise<string> {
  const verdict = await judgeVouching(token, FIND, expected);
  assert.ok(verdict.type === "refused", `verified: ${token}`);
  assert.equal(verdict.code, "ASSERTION_BAD");
  return verdict.reason;
}

test("what was signed is verified and says the same, and no two are alike", async () => {
  const token = await signVouching(vouchingFor({ word: "Wiki" }), KEY, NOW);
  assert.equal(claimedIssuer(token), "a.example");
  const verdict = await judgeVouching(token, FIND, EXPECTED);
  assert.ok(verdict.type === "verified");
  const { id, expiresAt, ...said } = verdict.vouching;
  const { binding: _, ...statement } = vouchingFor();
  assert.deepEqual(said, statement);
  assert.equal(expiresAt, NOW + VOUCHING_SECONDS * 1_000);
  assert.match(id, /^[\w-]{22}$/);
  assert.notEqual(await signVouching(vouchingFor(), KEY, NOW), await signVouching(vouchingFor(), KEY, NOW));
});

test("K02 a token of another key, type, algorithm, connection or time is refused", async () => {
  const other = otherKey("k1");
  const claims = vouchingClaims(SECONDS);
  const [head = "", body = "", signature = ""] = (await forgeVouching(claims, KEY)).split(".");
  const encoded = (value: unknown) => Buffer.from(JSON.stringify(value)).toString("base64url");
  const hmacHead = encoded({ alg: "HS256", kid: "k1", typ: "fived-vouching+jwt" });
  const hmacKey = KEY.publicKey.export({ format: "der", type: "spki" });
  const hmac = createHmac("sha256", hmacKey).update(`${hmacHead}.${body}`).digest("base64url");
  const tokens: Readonly<Record<string, string>> = {
    "of another key": await forgeVouching(claims, other),
    "of a key nobody has": await forgeVouching(claims, KEY, { kid: "k2" }),
    "not signed": `${head}.${body}.`,
    "without an algorithm": `${encoded({ alg: "none", kid: "k1", typ: "fived-vouching+jwt" })}.${body}.`,
    "signed with the public key": `${hmacHead}.${body}.${hmac}`,
    "for a back end": await signAssertion({ ...vouchingFor(), host: undefined, service: "wiki" }, KEY, NOW),
    "of no type": await forgeVouching(claims, KEY, { typ: "JWT" }),
    "of another issuer": await forgeVouching({ ...claims, iss: "b.example" }, KEY),
    "of tomorrow": await forgeVouching(vouchingClaims(SECONDS + 86_400), KEY),
    "of yesterday": await forgeVouching(vouchingClaims(SECONDS - 86_400), KEY),
    "that has just ended": await forgeVouching(vouchingClaims(SECONDS - 41), KEY),
    "for another connection": await signVouching(vouchingFor({ binding: Buffer.alloc(32, 8) }), KEY, NOW),
    "for no connection": await forgeVouching({ ...claims, cb: undefined }, KEY),
    "for an empty connection": await forgeVouching({ ...claims, cb: "" }, KEY),
    "with padding": `${head}.${body}.${signature}==`,
    "with bits that mean nothing": `${head}.${body}.${signature.slice(0, -1)}${String.fromCharCode((signature.codePointAt(85) ?? 0) + 1)}`,
    "in two parts": `${head}.${body}`,
    empty: "",
    "of dots": "..",
    long: "a".repeat(20_000),
  };
  for (const [what, token] of Object.entries(tokens)) await assert.doesNotReject(refusal(token), what);
  await refusal(await signVouching(vouchingFor(), KEY, NOW), { ...EXPECTED, binding: new Uint8Array(0) });
  const noBinding = await signVouching(vouchingFor({ binding: new Uint8Array(0) }), KEY, NOW);
  await refusal(noBinding, { ...EXPECTED, binding: new Uint8Array(0) });
});

test("a token is believed to the second, with ten for the clocks", async () => {
  const token = await signVouching(vouchingFor(), KEY, NOW);
  for (const [seconds, good] of [
    [-11, false],
    [-10, true],
    [VOUCHING_SECONDS + 9, true],
    [VOUCHING_SECONDS + 10, false],
  ] as const) {
    const { type } = await judgeVouching(token, FIND, { ...EXPECTED, now: NOW + seconds * 1_000 });
    assert.equal(type === "verified", good, `${seconds} s`);
  }
});

test("a claim of the wrong kind is refused, however well it is signed", async () => {
  const wrong: Readonly<Record<string, unknown>> = {
    sub: ["", 1, null, ["alice"], "x".repeat(513)],
    aud: ["", "Wiki", 1, ["wiki", "db"], null, "x".repeat(513)],
    jti: ["", 1, null],
    roles: [null, "ops", [1], [""], Array.from({ length: 1_001 }, () => "r"), undefined],
    session: [undefined, 1],
    mechanism: [undefined, 1],
    secondFactor: [undefined, "true", 1],
    cb: [null, 7, ["x"]],
    exp: [SECONDS + 301, SECONDS, "x", SECONDS + 0.5],
    iat: [undefined, "x"],
    auth_time: [undefined, "x", -1, 1.5],
  };
  for (const [claim, values] of Object.entries(wrong))
    for (const value of values as readonly unknown[]) {
      const token = await forgeVouching(vouchingClaims(SECONDS, { [claim]: value }), KEY);
      await assert.doesNotReject(refusal(token), `${claim}: ${JSON.stringify(value)}`);
    }
});

test("no change of a token is believed", async () => {
  const token = await signVouching(vouchingFor(), KEY, NOW);
  await fc.assert(
    fc.asyncProperty(fc.nat(token.length - 1), fc.integer({ min: 1, max: 126 }), async (at, by) => {
      const changed = String.fromCharCode(((token.charCodeAt(at) + by - 1) % 126) + 1);
      const other = `${token.slice(0, at)}${changed}${token.slice(at + 1)}`;
      if (other !== token) await refusal(other);
    }),
  );
});

test("who says a token is asked of any octets, and nothing is thrown", () => {
  fc.assert(
    fc.property(fc.string(), (text) => {
      const issuer = claimedIssuer(text);
      assert.ok(issuer === undefined || typeof issuer === "string");
    }),
  );
});
