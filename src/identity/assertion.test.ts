import assert from "node:assert/strict";
import { createHmac, createPublicKey, generateKeyPairSync, type KeyObject } from "node:crypto";
import test from "node:test";
import fc from "fast-check";
import { createLocalJWKSet, type JSONWebKeySet, SignJWT } from "jose";
import { effort, seed } from "../../test/sim/seed.ts";
import {
  ASSERTION_SECONDS,
  type AssertionKey,
  audienceOf,
  CLOCK_TOLERANCE_SECONDS,
  judgeAssertion,
  type Statement,
  signAssertion,
  TOKEN_LENGTH_MAX,
} from "./assertion.ts";

fc.configureGlobal({ seed, numRuns: 200 * effort });

const NOW = 1_800_000_000_000;

function makeKey(kid: string): AssertionKey & { readonly publicKey: KeyObject } {
  const { privateKey, publicKey } = generateKeyPairSync("ed25519");
  return { kid, privateKey: privateKey.toCryptoKey("Ed25519", false, ["sign"]), publicKey };
}

function published(...keys: readonly { readonly kid: string; readonly publicKey: KeyObject }[]): JSONWebKeySet {
  const list = keys.map(({ kid, publicKey }) => {
    const { x = "" } = publicKey.export({ format: "jwk" });
    return { kty: "OKP" as const, crv: "Ed25519" as const, x, kid, alg: "EdDSA", use: "sig" };
  });
  return { keys: list };
}

const KEY = makeKey("k1");
const FIND = createLocalJWKSet(published(KEY));
const EXPECTED = { audience: "git.example.org/wiki", issuer: "example.org", now: NOW };

const STATEMENT: Statement = {
  issuer: "example.org",
  user: "alice@p.example",
  roles: ["ops", "staff"],
  host: "git.example.org",
  service: "Wiki",
  session: "f9e1",
  mechanism: "pubkey",
  secondFactor: true,
};

/** A token that is well signed, whatever it says. */
function forge(claims: Record<string, unknown>, header: Record<string, unknown> = {}, key = KEY): Promise<string> {
  return new SignJWT(claims)
    .setProtectedHeader({ alg: "EdDSA", kid: key.kid, typ: "fived-assertion+jwt", ...header })
    .sign(key.privateKey);
}

const SECONDS = NOW / 1_000;
const CLAIMS = {
  iss: "example.org",
  sub: "alice",
  aud: "git.example.org/wiki",
  iat: SECONDS,
  exp: SECONDS + 60,
  jti: "1",
  roles: ["ops"],
  host: "git.example.org",
  service: "wiki",
  session: "f9e1",
  mechanism: "up",
  secondFactor: false,
};

async function refusal(token: string, expected = EXPECTED, find = FIND): Promise<string> {
  const verdict = await judgeAssertion(token, find, expected);
  assert.ok(verdict.type === "refused", `verified: ${token}`);
  assert.equal(verdict.code, "ASSERTION_BAD");
  return verdict.reason;
}

test("a statement that was signed is verified, and says the same", async () => {
  const token = await signAssertion(STATEMENT, KEY, NOW);
  const verdict = await judgeAssertion(token, FIND, EXPECTED);
  assert.ok(verdict.type === "verified");
  const { id, issuedAt, expiresAt, ...statement } = verdict.assertion;
  assert.deepEqual(statement, STATEMENT);
  assert.equal(issuedAt, NOW);
  assert.equal(expiresAt, NOW + ASSERTION_SECONDS * 1_000);
  assert.match(id, /^[0-9a-f-]{36}$/);
  const again = await signAssertion(STATEMENT, KEY, NOW);
  assert.notEqual(again, token);
});

test("at the default host the audience is the service alone, and names know no case", async () => {
  assert.equal(audienceOf(undefined, "Wiki"), "wiki");
  const token = await signAssertion({ ...STATEMENT, host: undefined }, KEY, NOW);
  const verdict = await judgeAssertion(token, FIND, { ...EXPECTED, audience: "WIKI" });
  assert.ok(verdict.type === "verified");
  assert.equal(verdict.assertion.host, undefined);
});

test("an assertion for one service, host or server is none for another", async () => {
  const token = await signAssertion(STATEMENT, KEY, NOW);
  for (const audience of ["wiki", "git.example.org/db", "example.org/wiki", "git.example.org", ""])
    assert.match(await refusal(token, { ...EXPECTED, audience }), /aud|another service/);
  assert.match(await refusal(token, { ...EXPECTED, issuer: "example.net" }), /iss/);
  const verdict = await judgeAssertion(token, FIND, { audience: EXPECTED.audience, issuer: undefined, now: NOW });
  assert.equal(verdict.type, "verified");
});

test("an assertion is good for its minute, and clocks may differ a little", async () => {
  const token = await signAssertion(STATEMENT, KEY, NOW);
  const at = (seconds: number) => judgeAssertion(token, FIND, { ...EXPECTED, now: NOW + seconds * 1_000 });
  for (const seconds of [-CLOCK_TOLERANCE_SECONDS, 0, 59, 59 + CLOCK_TOLERANCE_SECONDS])
    assert.equal((await at(seconds)).type, "verified", `${seconds} s`);
  for (const seconds of [-CLOCK_TOLERANCE_SECONDS - 1, 60 + CLOCK_TOLERANCE_SECONDS, 86_400])
    assert.equal((await at(seconds)).type, "refused", `${seconds} s`);
});

test("claims that are not what they should be are refused, however well they are signed", async () => {
  assert.equal((await judgeAssertion(await forge(CLAIMS), FIND, EXPECTED)).type, "verified");
  const wrong: readonly Record<string, unknown>[] = [
    ...Object.keys(CLAIMS).map((name) => ({ [name]: undefined })),
    ...Object.keys(CLAIMS).flatMap((name) => [{ [name]: null }, { [name]: {} }]),
    ...["iss", "sub", "jti", "service", "session", "mechanism", "host"].flatMap((name) => [
      { [name]: "" },
      { [name]: 7 },
      { [name]: ["x"] },
      { [name]: "x".repeat(513) },
    ]),
    { aud: ["git.example.org/wiki", "db"] },
    { host: "example.org" },
    { service: "db" },
    { roles: "ops" },
    { roles: [1] },
    { roles: [""] },
    { roles: Array.from({ length: 1_001 }, (_, index) => `r${index}`) },
    { exp: SECONDS + 301 },
    { exp: SECONDS + 1e9 },
    { iat: SECONDS - 301 },
    { iat: SECONDS + 11 },
    { iat: SECONDS + 0.5 },
    { iat: -1 },
    { nbf: SECONDS + 60 },
    { secondFactor: "true" },
  ];
  for (const change of wrong) {
    const claims = Object.fromEntries(
      Object.entries({ ...CLAIMS, ...change }).filter(([, value]) => value !== undefined),
    );
    await refusal(await forge(claims));
  }
});

test("a token of another type, another algorithm or another key is no assertion", async () => {
  for (const typ of [undefined, "JWT", "at+jwt", "fived-assertion"]) await refusal(await forge(CLAIMS, { typ }));
  await refusal(await forge(CLAIMS, { kid: "k2" }));
  await refusal(await forge(CLAIMS, {}, makeKey("k1")));
  await refusal(await forge(CLAIMS, { crit: ["x"], x: 1 }).catch(() => "a.b.c"));
  const encode = (value: unknown) => Buffer.from(JSON.stringify(value)).toString("base64url");
  const unsigned = `${encode({ alg: "none", typ: "fived-assertion+jwt" })}.${encode(CLAIMS)}.`;
  await refusal(unsigned);
  // The public key taken for a secret: the old trick with HMAC.
  const spki = createPublicKey(KEY.publicKey.export({ type: "spki", format: "pem" })).export({
    type: "spki",
    format: "der",
  });
  const head = `${encode({ alg: "HS256", typ: "fived-assertion+jwt", kid: "k1" })}.${encode(CLAIMS)}`;
  await refusal(`${head}.${createHmac("sha256", spki).update(head).digest("base64url")}`);
});

test("keys are found by their name among several, and without one not guessed", async () => {
  const other = makeKey("k2");
  const find = createLocalJWKSet(published(other, KEY));
  assert.equal((await judgeAssertion(await signAssertion(STATEMENT, KEY, NOW), find, EXPECTED)).type, "verified");
  await refusal(await forge(CLAIMS, { kid: undefined }), EXPECTED, find);
});

test("an assertion has one spelling", async () => {
  const token = await signAssertion(STATEMENT, KEY, NOW);
  const [head = "", claims = "", signature = ""] = token.split(".");
  const others = [..."ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_=+/ \n"];
  for (const other of others) {
    const spelling = `${token.slice(0, -1)}${other}`;
    if (spelling !== token) await refusal(spelling);
    await refusal(`${head}${other}.${claims}.${signature}`);
    await refusal(`${token}${other}`);
  }
});

test("whoever has no keys learns that, instead of a verdict", async () => {
  const token = await signAssertion(STATEMENT, KEY, NOW);
  const find = () => Promise.reject(new Error("the network is down"));
  await assert.rejects(judgeAssertion(token, find, EXPECTED), /the network is down/);
});

test("no text makes the verifier throw, and none of them is an assertion", async () => {
  const good = await signAssertion(STATEMENT, KEY, NOW);
  const changed = fc
    .tuple(fc.nat(good.length - 1), fc.constantFrom("A", "_", ".", "=", " ", "\0", "é"))
    .map(([at, by]) => `${good.slice(0, at)}${by}${good.slice(at + 1)}`);
  const cut = fc.nat(good.length - 1).map((length) => good.slice(0, length));
  const parts = fc.array(fc.base64String(), { minLength: 3, maxLength: 3 }).map((list) => list.join("."));
  await fc.assert(
    fc.asyncProperty(fc.oneof(changed, cut, parts, fc.string()), async (token) => {
      if (token !== good) await refusal(token);
    }),
  );
  assert.equal(await refusal("x".repeat(TOKEN_LENGTH_MAX + 1)), "it is too long");
});
