import assert from "node:assert/strict";
import { mkdtemp, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import test, { type TestContext } from "node:test";
import fc from "fast-check";
import { WorkCounter } from "../../../test/abuse/counted-work.ts";
import { scripted } from "../../../test/support/exchange.ts";
import { type Invite, inviteProof, parseInvite } from "../../identity/index.ts";
import { silentLog } from "../log.ts";
import { createInvite, INVITE_LIFE_MS_MAX, type Invitation, InviteMechanism } from "./invites.ts";
import { openUsers, type UserStore } from "./users.ts";

const KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIOMqqnkVzrm0SdG6UOoqKLsabgH5C9okWi0dh2l9GKJl laptop";
const FINGERPRINT = `SHA256:${Buffer.alloc(32, 7).toString("base64").replace(/=+$/, "")}`;
const BINDING = new Uint8Array(32).fill(1);
const NOW = Date.UTC(2026, 0, 1);
const HOUR_MS = 3_600_000;

async function storeOf(t: TestContext): Promise<UserStore> {
  const folder = await mkdtemp(join(tmpdir(), "fived-invites-"));
  const store = await openUsers({ folder, log: silentLog });
  t.after(async () => {
    store[Symbol.dispose]();
    await rm(folder, { recursive: true, force: true });
  });
  return store;
}

function mechanismOf(
  store: UserStore,
  { now = NOW, isKey = () => true }: { now?: number; isKey?: (line: string) => boolean } = {},
) {
  return new InviteMechanism({ store, log: silentLog, isKey, now: () => now });
}

async function invited(store: UserStore, of: Partial<Invitation> = {}): Promise<Invite> {
  const invitation = { user: "bob", address: "example.org", fingerprint: FINGERPRINT, lifeMs: HOUR_MS, ...of };
  const read = parseInvite(await createInvite(store, invitation, NOW));
  assert.ok(!("code" in read));
  return read;
}

function proofOf({ secret, user }: Invite, host = ""): string {
  return inviteProof(secret, { binding: BINDING, host, user });
}

test("an invite makes whoever proves it a user, with the key that he gives", async (t) => {
  const store = await storeOf(t);
  const invite = await invited(store, { groups: ["guests"], roles: ["reader"] });
  assert.deepEqual(
    { ...invite, secret: invite.secret.length },
    { address: "example.org", fingerprint: FINGERPRINT, secret: 32, user: "bob", expires: NOW + HOUR_MS },
  );
  const exchange = scripted([KEY], { initial: ["bob", proofOf(invite)] });
  assert.deepEqual(await mechanismOf(store).authenticate(exchange), {
    user: "bob",
    groups: ["guests"],
    roles: ["reader"],
    ofStore: true,
  });
  assert.deepEqual(exchange.asked, [{ question: "Enter Public Key: ", answer: "shown" }]);
  assert.deepEqual(store.find("bob"), {
    name: "bob",
    groups: ["guests"],
    roles: ["reader"],
    keys: [KEY],
    totp: undefined,
  });
});

test("the store keeps no secret of an invite", async (t) => {
  const store = await storeOf(t);
  const { secret } = await invited(store);
  const kept = await readFile(store.file, "latin1");
  for (const encoding of ["base64", "base64url", "hex", "latin1"] as const)
    assert.equal(kept.includes(Buffer.from(secret).toString(encoding)), false, encoding);
});

test("A05 an invite that is used, over, unknown, or proved for something else is refused alike, before any question", async (t) => {
  const store = await storeOf(t);
  const used = await invited(store, { user: "used" });
  await mechanismOf(store).authenticate(scripted([KEY], { initial: ["used", proofOf(used)] }));
  const over = await invited(store, { user: "over" });
  const replaced = await invited(store);
  const invite = await invited(store);
  const cases: readonly (readonly [
    string,
    readonly string[],
    { now?: number; host?: string; binding?: Uint8Array | "none" },
  ])[] = [
    ["used", ["used", proofOf(used)], {}],
    ["over", ["over", proofOf(over)], { now: NOW + HOUR_MS }],
    ["unknown", ["nobody", proofOf(invite)], {}],
    ["replaced by a newer one", ["bob", proofOf(replaced)], {}],
    ["for another user", ["over", proofOf(invite)], {}],
    ["for another host", ["bob", proofOf(invite)], { host: "git.example.org" }],
    ["for another connection", ["bob", proofOf(invite)], { binding: new Uint8Array(32).fill(2) }],
    ["in plaintext", ["bob", proofOf(invite)], { binding: "none" }],
    ["no proof", ["bob"], {}],
    ["nothing", [], {}],
    ["an ill-formed name", ["Bob", proofOf(invite)], {}],
    ["one word too many", ["bob", proofOf(invite), "x"], {}],
    ["a proof with padding", ["bob", `${proofOf(invite)}=`], {}],
    ["the secret itself", ["bob", Buffer.from(invite.secret).toString("base64url")], {}],
    ["zeros", ["bob", "A".repeat(43)], {}],
  ];
  for (const [what, initial, { now = NOW, ...place }] of cases) {
    const exchange = scripted([], { initial, ...place });
    assert.equal(await mechanismOf(store, { now }).authenticate(exchange), undefined, what);
    assert.deepEqual(exchange.asked, [], what);
  }
  assert.deepEqual(
    store.list().map(({ name }) => name),
    ["used"],
  );
  const there = scripted([KEY], { initial: ["bob", proofOf(invite)] });
  assert.ok(await mechanismOf(store).authenticate(there), "what was tried in vain is still good");
});

test("A05 an unknown, an expired and a wrongly proved invite cost the same work", async (t) => {
  const store = await storeOf(t);
  const invite = await invited(store);
  const over = await invited(store, { user: "over", lifeMs: 1_000 });
  const mechanism = mechanismOf(store, { now: NOW + 60_000 });
  await using work = await WorkCounter.start("/src/");
  const costOf = async (...initial: readonly string[]) => {
    const exchange = scripted([], { initial });
    const calls = await work.during(() => mechanism.authenticate(exchange));
    return [...calls].filter(([place]) => !place.includes(".test.ts")).sort();
  };
  await costOf("bob", proofOf(over));
  const wrong = await costOf("bob", proofOf(over));
  assert.ok(
    wrong.some(([place]) => place.includes("proveInvite")),
    "a proof was computed",
  );
  assert.deepEqual(await costOf("nobody", proofOf(invite)), wrong);
  assert.deepEqual(await costOf("over", proofOf(over)), wrong);
  assert.deepEqual(await costOf("bob", "A".repeat(43)), wrong);
});

test("of many who prove one invite at the same time one becomes the user, and the others nothing", async (t) => {
  const store = await storeOf(t);
  const invite = await invited(store);
  const mechanism = mechanismOf(store);
  const findings = await Promise.all(
    Array.from({ length: 10 }, (_, number) =>
      mechanism.authenticate(scripted([`${KEY}${number}`], { initial: ["bob", proofOf(invite)] })),
    ),
  );
  assert.equal(findings.filter((finding) => finding !== undefined).length, 1);
  assert.equal(store.find("bob")?.keys.length, 1);
});

test("what is no bare public key is not enrolled, and the invite stays good", async (t) => {
  const store = await storeOf(t);
  const invite = await invited(store);
  const initial = ["bob", proofOf(invite)];
  const [type = "", base64 = ""] = KEY.split(" ");
  for (const line of [
    "",
    type,
    base64,
    `${type} `,
    `${type} ${base64}\u0000`,
    `${type} ${base64} a\u202eb`,
    `${type} ${base64} a\tb`,
    `${type} ${base64}=== x`,
    `no-pty ${KEY}`,
    `fived-roles="ops" ${KEY}`,
    `cert-authority ${KEY}`,
    `fived-roles="ops",ssh-ed25519 ${base64}`,
    `# ${KEY}`,
    "password",
    "a".repeat(1_024),
  ])
    assert.equal(await mechanismOf(store).authenticate(scripted([line], { initial })), undefined, line);
  assert.equal(await mechanismOf(store, { isKey: () => false }).authenticate(scripted([KEY], { initial })), undefined);
  assert.deepEqual(store.list(), []);
  await fc.assert(
    fc.asyncProperty(fc.uint8Array({ maxLength: 200 }), async (line) => {
      assert.equal(await mechanismOf(store).authenticate(scripted([line], { initial })), undefined);
    }),
    { numRuns: 50 },
  );
  assert.ok(await mechanismOf(store).authenticate(scripted([KEY], { initial })));
});

test("an invite that cannot be redeemed, as the store cannot be written, finds nobody", async (t) => {
  const store = await storeOf(t);
  const invite = await invited(store);
  const said: string[] = [];
  const log = { ...silentLog, error: (_fields: object, message: string) => void said.push(message) };
  const broken = new Proxy(store, {
    get(target, name) {
      if (name === "redeemInvite") return async () => Promise.reject(new Error("no room"));
      const value = Reflect.get(target, name, target);
      return typeof value === "function" ? value.bind(target) : value;
    },
  });
  const mechanism = new InviteMechanism({ store: broken, log, isKey: () => true, now: () => NOW });
  assert.equal(await mechanism.authenticate(scripted([KEY], { initial: ["bob", proofOf(invite)] })), undefined);
  assert.deepEqual(said, ["cannot redeem an invite"]);
});

test("an invite lives between a second and thirty days, for a name that can be", async (t) => {
  const store = await storeOf(t);
  for (const lifeMs of [0, -1, 999, INVITE_LIFE_MS_MAX + 1, Number.NaN, Number.POSITIVE_INFINITY])
    await assert.rejects(invited(store, { lifeMs }), RangeError);
  await assert.rejects(invited(store, { user: "Bob" }), { code: "USER_BAD" });
  await assert.rejects(invited(store, { roles: ["a b"] }), { code: "USER_BAD" });
  assert.equal(store.invite("bob"), undefined);
});
