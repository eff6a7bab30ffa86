import assert from "node:assert/strict";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { text } from "node:stream/consumers";
import test, { type TestContext } from "node:test";
import { getHeapSnapshot } from "node:v8";
import { WorkCounter } from "../../../test/abuse/counted-work.ts";
import { scripted } from "../../../test/support/exchange.ts";
import { createLog, silentLog } from "../log.ts";
import type { Exchange, Finding } from "./mechanism.ts";
import type { PasswordSource } from "./password-source.ts";
import { StorePasswords } from "./store-passwords.ts";
import { PasswordMechanism } from "./up.ts";
import { openUsers, type UserStore } from "./users.ts";

const COST = { memoryKiB: 64, passes: 1, lanes: 1 };
const ASK_NAME = { question: "Enter Username: ", answer: "shown" };
const ASK_PASSWORD = { question: "Enter Password: ", answer: "hidden" };
const ILL_FORMED = ["", "Alice", "a b", "-a", "a".repeat(65), "../etc/passwd", "\u00e4", "__proto__", "%n", "a\tb"];

async function store(t: TestContext): Promise<UserStore> {
  const folder = await mkdtemp(join(tmpdir(), "fived-up-"));
  const users = await openUsers({ folder, log: silentLog, cost: COST });
  t.after(async () => {
    users[Symbol.dispose]();
    await rm(folder, { recursive: true, force: true });
  });
  await users.add({ name: "alice", groups: ["staff"], roles: ["ops"], password: Buffer.from("secret") });
  return users;
}

async function mechanism(t: TestContext): Promise<PasswordMechanism> {
  return new PasswordMechanism(new StorePasswords(await store(t)));
}

test("somebody who gave no name is asked for it and for the password, as in the paper's transcript", async (t) => {
  const up = await mechanism(t);
  const exchange = scripted(["alice", "secret"]);
  assert.deepEqual(await up.authenticate(exchange), {
    user: "alice",
    groups: ["staff"],
    roles: ["ops"],
    ofStore: true,
  });
  assert.deepEqual(exchange.asked, [ASK_NAME, ASK_PASSWORD]);
});

test("a program that gave the name is asked for the password only", async (t) => {
  const up = await mechanism(t);
  const exchange = scripted(["secret"], { initial: ["alice"] });
  assert.equal((await up.authenticate(exchange))?.user, "alice");
  assert.deepEqual(exchange.asked, [ASK_PASSWORD]);
});

test("A05 whatever is wrong, the same is asked and nobody is found", async (t) => {
  const up = await mechanism(t);
  const wrong: readonly (readonly [name: string, password: string])[] = [
    ["alice", "guess"],
    ["alice", ""],
    ["alice", "secret\0"],
    ["bob", "secret"],
    ...ILL_FORMED.map((name) => [name, "secret"] as const),
  ];
  for (const [name, password] of wrong) {
    const exchange = scripted([name, password]);
    assert.equal(await up.authenticate(exchange), undefined, name);
    assert.deepEqual(exchange.asked, [ASK_NAME, ASK_PASSWORD], name);
    const program = scripted([password], { initial: [name] });
    assert.equal(await up.authenticate(program), undefined, name);
    assert.deepEqual(program.asked, [ASK_PASSWORD], name);
  }
  const more = scripted(["secret"], { initial: ["alice", "bob"] });
  assert.equal(await up.authenticate(more), undefined);
  assert.deepEqual(more.asked, [ASK_PASSWORD]);
});

test("A05 an unknown and an ill-formed name cost the work of a wrong password", async (t) => {
  const up = await mechanism(t);
  await using work = await WorkCounter.start("/src/");
  const costOf = async (name: string) => {
    const exchange = scripted(["guess"], { initial: [name] });
    const calls = await work.during(() => up.authenticate(exchange));
    return [...calls].filter(([place]) => !place.includes(".test.ts")).sort();
  };
  await costOf("alice"); // whatever happens once only has happened
  const wrong = await costOf("alice");
  assert.ok(wrong.length > 3, "work was counted");
  for (const name of ["bob", ...ILL_FORMED]) assert.deepEqual(await costOf(name), wrong, name);
});

test("A05 a source hears a name that is well-formed, whatever was given for one", async () => {
  const heard: string[] = [];
  const source: PasswordSource = {
    async authenticate(name: string, _dialogue: Exchange): Promise<Finding | undefined> {
      heard.push(name);
      return undefined;
    },
  };
  const up = new PasswordMechanism(source);
  for (const name of [...ILL_FORMED, ...ILL_FORMED]) await up.authenticate(scripted([], { initial: [name] }));
  for (const name of heard) assert.match(name, /^x[0-9a-f]{30}$/);
  assert.equal(new Set(heard).size, heard.length, "nobody can take such a name for his own");
});

test("A09 the octets of a password are wiped, whatever becomes of the attempt, and a mistyped name too", async (t) => {
  const users = await store(t);
  const up = new PasswordMechanism(new StorePasswords(users));
  for (const answers of [
    ["alice", "secret"],
    ["alice", "guess"],
    ["bob", "secret"],
    ["my password", "secret"],
  ]) {
    const exchange = scripted(answers);
    await up.authenticate(exchange);
    assert.equal(exchange.given.length, 2);
    for (const octets of exchange.given) assert.ok(octets.every((octet) => octet === 0));
  }
  const failing = new StorePasswords({ ...users, verify: async () => Promise.reject(new Error("the disk is gone")) });
  const exchange = scripted(["secret"]);
  await assert.rejects(failing.authenticate("alice", exchange), /the disk is gone/);
  assert.ok(exchange.given[0]?.every((octet) => octet === 0));
});

test("A09 after a login neither heap nor log nor file hold the password", async (t) => {
  const lines: string[] = [];
  const log = createLog({ level: "debug", json: true, write: (line) => void lines.push(line) });
  const folder = await mkdtemp(join(tmpdir(), "fived-up-"));
  t.after(() => rm(folder, { recursive: true, force: true }));
  using users = await openUsers({ folder, log, cost: COST });
  // Never a literal: the source itself is in the heap. Neither is it made into a string, here or anywhere.
  const password = () => Uint8Array.from({ length: 24 }, (_, at) => 0x41 + ((at * 7) % 26));
  await users.add({ name: "alice", password: password() });
  const up = new PasswordMechanism(new StorePasswords(users));
  assert.ok(await up.authenticate(scripted([password()], { initial: ["alice"] })));
  assert.equal(await up.authenticate(scripted([password()], { initial: ["bob"] })), undefined);
  const heap = await text(getHeapSnapshot());
  const needle = Buffer.from(password()).toString("latin1");
  assert.ok(heap.includes("StorePasswords"), "the snapshot holds what is there");
  assert.equal(heap.includes(needle), false);
  assert.equal(lines.join("").includes(needle), false);
});

test("a dialogue that breaks off is passed on, and finds nobody", async (t) => {
  const up = await mechanism(t);
  await assert.rejects(up.authenticate(scripted([])), /asked once too often/);
  await assert.rejects(up.authenticate(scripted(["alice"])), /asked once too often/);
});
