import assert from "node:assert/strict";
import test, { type TestContext } from "node:test";
import { Lab } from "../../test/support/lab.ts";
import { forgeVouching, otherKey, vouchingClaims, vouchingFor } from "../../test/support/vouchings.ts";
import { signVouching, type VouchingStatement } from "../identity/index.ts";
import { identityOf, STRANGER } from "./backends/fake-talk.test.ts";
import type { Caller } from "./service.ts";
import { SeenVouchings, Trusts, vouchedProviders } from "./trusts.ts";

const NOW = 1_800_000_000_000;
const KEY = otherKey("k1");
const GATEWAY: Caller = { ...STRANGER, user: "gateway", identity: identityOf("gateway") };

/** What is believed of `a.example`, and how a vouching of it is judged. */
async function believing(t: TestContext, { through = [] as readonly string[] } = {}) {
  const lab = await Lab.open(t);
  const keys = await lab.write("keys", JSON.stringify(KEY.set));
  const seen = new SeenVouchings();
  const settings = [{ issuer: "a.example", keys, as: ["gateway"], through: [...through] }];
  const clock = { now: NOW };
  const isOneOf = ({ user }: Caller, names: readonly string[]): boolean => user !== undefined && names.includes(user);
  const trusts = new Trusts(settings, { seen, isOneOf, now: () => clock.now });
  const judge = async (token: string, hop = GATEWAY) => await trusts.judge(token, hop, vouchingFor().binding);
  return {
    ...{ lab, keys, seen, trusts, clock, judge },
    says: async (more: Partial<VouchingStatement> = {}, hop?: Caller) =>
      await judge(await signVouching(vouchingFor(more), KEY, clock.now), hop),
  };
}

test("somebody is called as of his organisation, and his roles are groups of it", async (t) => {
  const { says } = await believing(t);
  const verdict = await says();
  assert.ok(verdict.type === "believed");
  const { identity, ...rest } = verdict.vouched;
  assert.deepEqual(rest, { issuer: "a.example", word: "wiki", session: "s1" });
  assert.deepEqual(identity, {
    at: vouchingFor().recognisedAt,
    ...{ user: "alice@a.example", groups: ["ops@a.example"], roles: [], mechanism: "via", secondFactor: true },
  });
});

test("nobody is known since a time that is yet to come", async (t) => {
  const { says } = await believing(t);
  const verdict = await says({ recognisedAt: NOW + 86_400_000 });
  assert.ok(verdict.type === "believed");
  assert.equal(verdict.vouched.identity.at, NOW);
});

test("K04 only who has signed in as one that is trusted is believed, and only of that issuer", async (t) => {
  const { says } = await believing(t);
  const strangers: readonly Caller[] = [
    STRANGER,
    { ...STRANGER, user: "bob", identity: identityOf("bob") },
    { ...GATEWAY, identity: undefined },
    { ...STRANGER, user: "gateway@a.example", identity: identityOf("gateway@a.example") },
  ];
  for (const hop of strangers) assert.equal((await says({}, hop)).type, "refused", hop.user);
  for (const issuer of ["b.example", "A.example", "a.example.", "__proto__", ""])
    assert.equal((await says({ issuer })).type, "refused", issuer);
});

test("K04 in the clear nobody is believed", async (t) => {
  const { trusts } = await believing(t);
  const verdict = await trusts.judge(await signVouching(vouchingFor(), KEY, NOW), GATEWAY, undefined);
  assert.deepEqual(verdict, { type: "refused", issuer: "a.example", reason: "the connection is not inside TLS" });
});

test("K05 a name that is none, or of somebody else's people, is refused", async (t) => {
  const { says } = await believing(t, { through: ["b.example"] });
  const wrong = [
    ...["Alice", "alice ", "", "a/b", "../root", "-", ".x", "álice", "alice\u0000", "a".repeat(65), "group:ops"],
    ...["alice@", "@b.example", "alice@c.example", "alice@a.example", "alice@B.example", "alice@b.example."],
    ...["alice@b.example@a.example", "alice@b.example@b.example", "alice@", "@"],
  ];
  for (const user of wrong) assert.equal((await says({ user })).type, "refused", JSON.stringify(user));
  const verdict = await says({ user: "alice@b.example", roles: ["x"] });
  assert.ok(verdict.type === "believed");
  assert.equal(verdict.vouched.identity.user, "alice@b.example");
  assert.deepEqual(verdict.vouched.identity.groups, ["x@a.example"], "it is still a.example that says so");
});

test("K01 a vouching is believed once, also when the configuration is read again", async (t) => {
  const { judge, trusts, keys, seen, clock } = await believing(t);
  const token = await signVouching(vouchingFor(), KEY, NOW);
  assert.equal((await judge(token)).type, "believed");
  assert.deepEqual(await judge(token), { type: "refused", issuer: "a.example", reason: "it has been used" });
  const settings = [{ issuer: "a.example", keys, as: ["gateway"], through: [] }];
  const reread = new Trusts(settings, { seen, isOneOf: () => true, now: () => clock.now });
  assert.equal((await reread.judge(token, GATEWAY, vouchingFor().binding)).type, "refused");
  assert.ok(trusts.trusts("a.example", GATEWAY));
  // Nor is one whose end is in the past, once it has been forgotten.
  clock.now = NOW + 120_000;
  assert.equal((await judge(token)).type, "refused");
});

test("K01 of two at once with one token one is believed", async (t) => {
  const { judge } = await believing(t);
  const token = await signVouching(vouchingFor(), KEY, NOW);
  const types = (await Promise.all(Array.from({ length: 8 }, () => judge(token)))).map(({ type }) => type);
  assert.equal(types.filter((type) => type === "believed").length, 1);
});

test("K08 what is remembered is bounded, and of one server's flood others notice nothing", () => {
  const seen = new SeenVouchings();
  const vouching = { ...vouchingFor(), expiresAt: NOW + 30_000 };
  let taken = 0;
  while (seen.isNew({ ...vouching, id: `${taken}` }, NOW)) taken++;
  assert.equal(taken, 65_536);
  assert.equal(seen.isNew({ ...vouching, id: "another" }, NOW), false, "refused rather than forgotten");
  assert.ok(seen.isNew({ ...vouching, issuer: "b.example", id: "1" }, NOW));
  const later = NOW + 30_000 + 60_000;
  assert.equal(seen.isNew({ ...vouching, id: "0" }, later - 1), false);
  assert.ok(seen.isNew({ ...vouching, id: "0", expiresAt: later + 30_000 }, later + 1));
});

test("K02 a token of another key, or for a back end, is refused; keys that cannot be had are an error", async (t) => {
  const { judge, lab, keys } = await believing(t);
  const claims = vouchingClaims(NOW / 1_000);
  assert.equal((await judge(await forgeVouching(claims, otherKey("k1")))).type, "refused");
  assert.equal((await judge(await forgeVouching(claims, KEY, { typ: "fived-assertion+jwt" }))).type, "refused");
  const token = await forgeVouching(claims, KEY);
  await lab.write("keys", "no JSON");
  assert.ok(keys.endsWith("keys"));
  await assert.rejects(judge(token));
});

test("an issuer and those it may speak for are nobody else's", () => {
  const settings = [
    { issuer: "a.example", keys: "/k", as: ["a"], through: ["c.example"] },
    { issuer: "b.example", keys: "/k", as: ["b"], through: [] },
  ];
  assert.deepEqual([...vouchedProviders(settings)], ["a.example", "c.example", "b.example"]);
});
