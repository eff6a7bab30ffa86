/**
 * Who somebody is later on: after the user store or the configuration has changed.
 * @module
 */
import assert from "node:assert/strict";
import { generateKeyPairSync } from "node:crypto";
import { rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import test, { type TestContext } from "node:test";
import { Secret, TOTP } from "otpauth";
import { scripted } from "../../../test/support/exchange.ts";
import { Lab } from "../../../test/support/lab.ts";
import { needs } from "../../../test/support/needs.ts";
import { keyFingerprint, publicKeyOf } from "../../identity/index.ts";
import { type Configuration, loadConfiguration } from "../config.ts";
import { silentLog } from "../log.ts";
import { type Authentication, buildAuthentication } from "./authentication.ts";
import type { Finding, Identity } from "./mechanism.ts";
import { CodeMemory } from "./second-factor.ts";
import { openUsers, type UserStore } from "./users.ts";

/** A server's state folder: its users, and its ways in as a configuration has them. */
class House {
  readonly #t: TestContext;
  readonly #lab: Lab;
  readonly users: UserStore;
  readonly #codes = new CodeMemory();

  private constructor(t: TestContext, lab: Lab, users: UserStore) {
    this.#t = t;
    this.#lab = lab;
    this.users = users;
  }

  static async open(t: TestContext): Promise<House> {
    const lab = await Lab.open(t);
    const users = await openUsers({ folder: await lab.makeFolder("state"), log: silentLog });
    t.after(() => users[Symbol.dispose]());
    return new House(t, lab, users);
  }

  /** As a start or a reload does. The store's other reader sees a change when it looks; `fresh` waits for that. */
  async build(yaml?: string): Promise<Authentication> {
    const authentication = await buildAuthentication(await this.configuration(yaml), {
      log: silentLog,
      codes: this.#codes,
    });
    this.#t.after(() => authentication[Symbol.dispose]());
    return authentication;
  }

  /** The configuration, and nothing made of it. */
  async configuration(yaml = "auth: { mechanisms: [pubkey, up, cert] }"): Promise<Configuration> {
    const file = join(this.#lab.folder, "server.yaml");
    await writeFile(file, `${yaml}\n`);
    return await loadConfiguration(file, { state: join(this.#lab.folder, "state") });
  }
}

async function changed(authentication: Authentication, change: () => Promise<void>): Promise<void> {
  const seen = new Promise<void>((resolve) => authentication.onChange(resolve));
  await change();
  await seen;
}

async function identified(authentication: Authentication, finding: Finding, answers: readonly string[] = []) {
  return await authentication.identify(finding, "up", scripted(answers));
}

async function known(authentication: Authentication, finding: Finding): Promise<Identity> {
  const identity = await identified(authentication, finding);
  assert.ok(identity);
  return identity;
}

const ALICE: Finding = { user: "alice", groups: [], roles: [], ofStore: true };

test("who stands in the store has the groups and roles of today, and what the key brought", async (t) => {
  const house = await House.open(t);
  await house.users.add({ name: "alice", groups: ["staff"], roles: ["ops"] });
  const authentication = await house.build();
  const identity = await known(authentication, { ...ALICE, roles: ["ops", "night"] });
  assert.deepEqual([identity.groups, identity.roles], [["staff"], ["ops", "night"]]);
  await changed(authentication, () => house.users.setRoles("alice", ["day"]));
  const current = authentication.current(identity);
  assert.deepEqual([current?.groups, current?.roles, current?.at], [["staff"], ["day", "night"], identity.at]);
});

test("who has left the store is nobody, also for ways in that a reload has made since", async (t) => {
  const house = await House.open(t);
  await house.users.add({ name: "alice" });
  const before = await house.build();
  const identity = await known(before, ALICE);
  const after = await house.build("auth: { mechanisms: [pubkey] }");
  const renewed = after.current(identity);
  assert.ok(renewed);
  await changed(after, () => house.users.remove("alice"));
  assert.equal(after.current(identity), undefined);
  assert.equal(after.current(renewed), undefined);
  assert.equal(await identified(after, ALICE), undefined, "found before, and gone since");
});

test("who never stood in the store is who he was", async (t) => {
  const house = await House.open(t);
  const authentication = await house.build();
  const identity = await known(authentication, { user: "carol", groups: ["wheel"], roles: [] });
  await changed(authentication, () => house.users.add({ name: "dave" }));
  assert.deepEqual(authentication.current(identity), identity);
});

test("who came in by the system and stands in the store too keeps the groups that the system has of him", async (t) => {
  const house = await House.open(t);
  await house.users.add({ name: "alice", groups: ["staff"] });
  const authentication = await house.build();
  const identity = await known(authentication, { user: "alice", groups: ["wheel"], roles: [] });
  assert.deepEqual(identity.groups, ["wheel", "staff"]);
  await changed(authentication, () => house.users.setGroups("alice", ["guests"]));
  assert.deepEqual(authentication.current(identity)?.groups, ["wheel", "guests"]);
});

test("PAM is asked by a server that is root, or by its helper, which may come later", {
  skip: needs("root"),
}, async (t) => {
  const house = await House.open(t);
  const service = `fived-test-${process.pid}`;
  await writeFile(`/etc/pam.d/${service}`, "auth required pam_deny.so\n");
  t.after(() => rm(`/etc/pam.d/${service}`));
  const [alone, helped] = [`{ pam: ${service} }`, `{ pam: ${service}, helper: pam.sock }`].map(
    (up) => `auth: { up: ${up} }`,
  );
  assert.equal((await house.build(alone)).mechanism("up")?.name, "up");
  await house.build(helped);
  const configuration = await house.configuration(alone);
  process.seteuid?.(65_534);
  try {
    const built = buildAuthentication(configuration, { log: silentLog, codes: new CodeMemory() });
    await assert.rejects(built, { code: "CONFIGURATION_BAD", message: /Cannot ask PAM: the server is not root; name/ });
  } finally {
    process.seteuid?.(0);
  }
});

test("who came in with a key of the store is nobody without it", async (t) => {
  const house = await House.open(t);
  const [one, other] = [0, 1].map(() => publicKeyOf(generateKeyPairSync("ed25519").privateKey));
  assert.ok(one && other);
  const line = ({ type, blob }: typeof one): string => `${type} ${Buffer.from(blob).toString("base64")}`;
  await house.users.add({ name: "alice", keys: [line(one), line(other)] });
  const authentication = await house.build();
  const identity = await known(authentication, { ...ALICE, key: keyFingerprint(one.blob) });
  await changed(authentication, () => house.users.setKeys("alice", [line(one)]));
  assert.ok(authentication.current(identity));
  await changed(authentication, () => house.users.setKeys("alice", [line(other)]));
  assert.equal(authentication.current(identity), undefined);
});

test("K05 nobody who signs in by himself is called as somebody whom another server vouches for", async (t) => {
  const house = await House.open(t);
  const trusts = 'trusts: [{ issuer: a.example, keys: "https://a.example/", as: [gate], through: [b.example] }]';
  const authentication = await house.build(`auth: { mechanisms: [pubkey, up, cert] }\n${trusts}`);
  const found = async (user: string) => await identified(authentication, { user, groups: [], roles: [] });
  for (const user of ["alice@a.example", "alice@A.Example", "alice@b.example", "x@y@a.example"])
    assert.equal(await found(user), undefined, user);
  for (const user of ["alice@c.example", "alice", "a.example", "alice@aa.example"])
    assert.equal((await found(user))?.user, user);
});

test("a code that was accepted is not accepted again after a reload", async (t) => {
  const house = await House.open(t);
  const secret = new Secret({ size: 20 });
  await house.users.add({ name: "alice" });
  await house.users.setTotp("alice", secret.bytes);
  const code = TOTP.generate({ secret, algorithm: "SHA1", digits: 6, period: 30 });
  assert.ok(await identified(await house.build(), ALICE, [code]));
  assert.equal(await identified(await house.build(), ALICE, [code]), undefined);
});

test("a role that needs a second factor lets nobody in who has none", async (t) => {
  const house = await House.open(t);
  await house.users.add({ name: "alice", groups: ["staff"] });
  await house.users.add({ name: "bob" });
  const authentication = await house.build(
    "auth: { mechanisms: [up], secondFactor: [careful] }\nroles: { careful: ['group:staff'] }",
  );
  assert.equal(await identified(authentication, ALICE, ["000000"]), undefined);
  assert.ok(await identified(authentication, { ...ALICE, user: "bob" }));
});
