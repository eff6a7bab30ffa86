import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { appendFile, chmod, chown, mkdtemp, readdir, readFile, rename, rm, stat, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import test, { type TestContext } from "node:test";
import { WorkCounter } from "../../../test/abuse/counted-work.ts";
import { within } from "../../../test/support/deadline.ts";
import { needs } from "../../../test/support/needs.ts";
import { type Log, silentLog } from "../log.ts";
import type { InviteRecord } from "./user-records.ts";
import { openUsers, USERS_FILE, type UserStore } from "./users.ts";

const COST = { memoryKiB: 64, passes: 1, lanes: 1 };
const KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIOMqqnkVzrm0SdG6UOoqKLsabgH5C9okWi0dh2l9GKJl laptop";
const octets = (text: string) => new Uint8Array(Buffer.from(text));

async function folder(t: TestContext): Promise<string> {
  const made = await mkdtemp(join(tmpdir(), "fived-users-"));
  t.after(() => rm(made, { recursive: true, force: true }));
  return made;
}

async function opened(t: TestContext, at: string, log: Log = silentLog): Promise<UserStore> {
  const store = await openUsers({ folder: at, log, cost: COST });
  t.after(() => store[Symbol.dispose]());
  return store;
}

/** Resolves at the next change. */
function changed(store: UserStore): Promise<void> {
  const change = Promise.withResolvers<void>();
  const stop = store.onChange(() => {
    stop();
    change.resolve();
  });
  return within(change.promise, "a change of the users");
}

/** A log that can be waited for. */
function heard(): { readonly log: Log; readonly said: string[]; next(pattern: RegExp): Promise<void> } {
  const said: string[] = [];
  let wake = Promise.withResolvers<void>();
  const hear = (fields: { readonly error?: unknown }, message: string) => {
    said.push(`${message} ${fields.error === undefined ? "" : String(fields.error)}`);
    wake.resolve();
    wake = Promise.withResolvers();
  };
  return {
    log: { debug: hear, info: hear, warn: hear, error: hear },
    said,
    async next(pattern) {
      while (!said.some((line) => pattern.test(line))) await within(wake.promise, `${pattern} in the log`);
    },
  };
}

/** What another process of ours does to the store. */
async function elsewhere(at: string, act: string): Promise<void> {
  const program = `
    const { openUsers } = await import(${JSON.stringify(new URL("./users.ts", import.meta.url).href)});
    const { silentLog: log } = await import(${JSON.stringify(new URL("../log.ts", import.meta.url).href)});
    using store = await openUsers({ folder: ${JSON.stringify(at)}, log, cost: ${JSON.stringify(COST)} });
    ${act}`;
  const child = spawn(process.execPath, ["--input-type=module", "--eval", program], {
    stdio: ["ignore", "inherit", "inherit"],
  });
  assert.deepEqual(await once(child, "exit"), [0, null]);
}

const invite = (user: string, of: Partial<InviteRecord> = {}): InviteRecord => ({
  user,
  groups: [],
  roles: [],
  key: new Uint8Array(32).fill(7),
  expires: 2_000_000_000_000,
  ...of,
});

test("a user is added, found, changed and removed, and what is on the disk is the same after each", async (t) => {
  const at = await folder(t);
  const store = await opened(t, at);
  assert.deepEqual(store.list(), []);
  await store.add({ name: "alice", groups: ["staff"], roles: ["ops"], keys: [KEY], password: octets("secret") });
  await store.add({ name: "bob" });
  await store.setGroups("bob", ["guests"]);
  await store.setRoles("bob", ["reader"]);
  await store.setKeys("bob", [KEY]);
  await store.setPassword("bob", octets("other"));
  await store.setTotp("bob", new Uint8Array(20).fill(3));
  for (const each of [store, await opened(t, at)]) {
    assert.deepEqual(each.list(), [
      { name: "alice", groups: ["staff"], roles: ["ops"], keys: [KEY], totp: undefined, hasPassword: true },
      {
        name: "bob",
        groups: ["guests"],
        roles: ["reader"],
        keys: [KEY],
        totp: new Uint8Array(20).fill(3),
        hasPassword: true,
      },
    ]);
    assert.equal((await each.verify("alice", octets("secret")))?.name, "alice");
    assert.equal((await each.verify("bob", octets("other")))?.name, "bob");
    assert.equal(await each.verify("alice", octets("other")), undefined);
  }
  await store.setPassword("bob", undefined);
  await store.setTotp("bob", undefined);
  assert.equal(await store.verify("bob", octets("other")), undefined);
  assert.equal(store.find("bob")?.totp, undefined);
  await store.remove("alice");
  assert.equal(store.find("alice"), undefined);
  assert.equal(await store.verify("alice", octets("secret")), undefined);
  assert.equal((await readFile(store.file, "utf8")).includes("alice"), false);
  assert.deepEqual(await readdir(at), [USERS_FILE]);
});

test("the file is its owner's alone, a line a user, and holds no password", async (t) => {
  const store = await opened(t, await folder(t));
  await store.add({ name: "zoe", password: octets("correct horse") });
  await store.add({ name: "alice" });
  const text = await readFile(store.file, "utf8");
  assert.match(text, /^\{"user":"alice"\}\n\{"user":"zoe","password":"\$argon2id\$v=19\$m=64,t=1,p=1\$[^"]+"\}\n$/);
  assert.equal((await stat(store.file)).mode & 0o777, 0o600);
  assert.doesNotMatch(text, /correct horse/);
});

test("what cannot be is refused with a code, and changes nothing", async (t) => {
  const store = await opened(t, await folder(t));
  await store.add({ name: "alice" });
  const before = await readFile(store.file, "utf8");
  const wrong: readonly (readonly [string, () => Promise<unknown>])[] = [
    ["USER_EXISTS", () => store.add({ name: "alice" })],
    ["USER_BAD", () => store.add({ name: "Alice" })],
    ["USER_BAD", () => store.add({ name: "" })],
    ["USER_BAD", () => store.add({ name: "../x" })],
    ["USER_BAD", () => store.add({ name: "bob", groups: ["a b"] })],
    ["USER_BAD", () => store.add({ name: "bob", roles: [""] })],
    ["USER_BAD", () => store.add({ name: "bob", keys: ["a\nb"] })],
    ["USER_BAD", () => store.add({ name: "bob", password: octets("") })],
    ["USER_BAD", () => store.add({ name: "bob", password: octets("a\nb") })],
    ["USER_BAD", () => store.add({ name: "bob", password: new Uint8Array(1_025).fill(97) })],
    ["USER_UNKNOWN", () => store.remove("bob")],
    ["USER_UNKNOWN", () => store.setPassword("bob", octets("x"))],
    ["USER_UNKNOWN", () => store.setGroups("bob", [])],
    ["USER_UNKNOWN", () => store.setRoles("bob", [])],
    ["USER_UNKNOWN", () => store.setKeys("bob", [])],
    ["USER_UNKNOWN", () => store.setTotp("bob", undefined)],
    ["USER_BAD", () => store.putInvite(invite("Bob"))],
    ["USER_EXISTS", () => store.putInvite(invite("alice", { roles: ["ops"] }))],
  ];
  for (const [code, act] of wrong) await assert.rejects(act, { code });
  await assert.rejects(store.setTotp("alice", new Uint8Array(8)), RangeError);
  assert.equal(await readFile(store.file, "utf8"), before);
});

test("a store that cannot be understood or trusted is not opened, and the message says where and why", async (t) => {
  const at = await folder(t);
  const file = join(at, USERS_FILE);
  await writeFile(file, '{"user":"alice"}\n{"user":"bob","pasword":""}\n', { mode: 0o600 });
  await assert.rejects(opened(t, at), {
    code: "USERS_UNREADABLE",
    message: `Cannot understand the users in ${file}, line 2: unknown field "pasword"`,
  });
  await writeFile(file, Buffer.from([0x7b, 0xff, 0x7d]));
  await assert.rejects(opened(t, at), { code: "USERS_UNREADABLE" });
  await writeFile(file, '{"user":"alice"}\n');
  await chmod(file, 0o644);
  await assert.rejects(opened(t, at), { code: "STATE_UNUSABLE", message: /chmod 0600/ });
});

test("a broken file is not overwritten", async (t) => {
  const at = await folder(t);
  const store = await opened(t, at);
  await store.add({ name: "alice" });
  await appendFile(store.file, "{half a line");
  const broken = await readFile(store.file, "utf8");
  await assert.rejects(store.add({ name: "bob" }), { code: "USERS_UNREADABLE" });
  assert.equal(await readFile(store.file, "utf8"), broken);
  assert.deepEqual(await readdir(at), [USERS_FILE]);
});

test("what another process changes is seen within half a second, and whoever listens is told", async (t) => {
  const at = await folder(t);
  const store = await opened(t, at);
  await elsewhere(at, 'await store.add({ name: "alice" }); await store.add({ name: "bob" });');
  while (store.list().length < 2) await changed(store);

  // Timed from the moment the file is another one; the best of some, as the machine may be busy with others.
  const delays: number[] = [];
  for (const name of ["carol", "dave", "erin"]) {
    const change = changed(store);
    const draft = `${store.file}.draft`;
    await writeFile(draft, `${await readFile(store.file, "utf8")}{"user":"${name}"}\n`, { mode: 0o600 });
    await rename(draft, store.file);
    const from = performance.now();
    await change;
    delays.push(performance.now() - from);
    assert.ok(store.find(name));
  }
  assert.ok(Math.min(...delays) < 500, `seen after ${delays.map(Math.round).join(", ")} ms`);

  const gone = changed(store);
  await elsewhere(at, 'await store.remove("alice");');
  await gone;
  assert.equal(store.find("alice"), undefined);
});

test("a file that breaks while the server runs changes nothing, is told once, and counts again when it is mended", async (t) => {
  const at = await folder(t);
  const { log, said, next } = heard();
  const store = await opened(t, at, log);
  await store.add({ name: "alice" });
  const good = await readFile(store.file, "utf8");
  await writeFile(store.file, `${good}{"user":`);
  await next(/cannot read the users again, those known before stay .*line 2/);
  assert.ok(store.find("alice"));
  const change = changed(store);
  await writeFile(store.file, '{"user":"bob"}\n');
  await change;
  assert.equal(store.find("alice"), undefined);
  assert.ok(store.find("bob"));
  assert.equal(said.filter((line) => /cannot read/.test(line)).length, 1);
});

test("a file that is made readable for others keeps the users known before, and says how to mend it", async (t) => {
  const at = await folder(t);
  const { log, next } = heard();
  const store = await opened(t, at, log);
  await store.add({ name: "alice" });
  await chmod(store.file, 0o644);
  await writeFile(store.file, '{"user":"mallory","roles":["ops"]}\n');
  await next(/cannot read the users again.*chmod 0600/);
  assert.ok(store.find("alice"));
  assert.equal(store.find("mallory"), undefined);
});

test("when the file is gone nobody is known any more", async (t) => {
  const { log, next } = heard();
  const store = await opened(t, await folder(t), log);
  await store.add({ name: "alice" });
  const change = changed(store);
  await rm(store.file);
  await change;
  await next(/the file of the users is gone/);
  assert.equal(store.find("alice"), undefined);
  await store.add({ name: "bob" });
  assert.deepEqual(
    store.list().map(({ name }) => name),
    ["bob"],
  );
});

test("a listener that throws stops neither the others nor the store", async (t) => {
  const { log, next } = heard();
  const store = await opened(t, await folder(t), log);
  let told = 0;
  store.onChange(() => {
    throw new Error("not my day");
  });
  const stop = store.onChange(() => told++);
  await store.add({ name: "alice" });
  await next(/cannot follow a change/);
  stop();
  await store.add({ name: "bob" });
  assert.equal(told, 1);
});

test("two processes that write at once lose nothing of each other", async (t) => {
  const at = await folder(t);
  const store = await opened(t, at);
  const writes = (prefix: string) =>
    `await Promise.all(Array.from({ length: 8 }, (_, at) => store.add({ name: "${prefix}" + at })));`;
  await Promise.all([
    elsewhere(at, writes("a")),
    elsewhere(at, writes("b")),
    ...Array.from({ length: 8 }, (_, number) => store.add({ name: `c${number}` })),
  ]);
  const expected = ["a", "b", "c"].flatMap((prefix) => Array.from({ length: 8 }, (_, number) => `${prefix}${number}`));
  const reread = await opened(t, at);
  assert.deepEqual(
    reread.list().map(({ name }) => name),
    expected,
  );
  assert.deepEqual(await readdir(at), [USERS_FILE]);
});

test("of several that redeem one invite at the same time, in several processes, one succeeds", async (t) => {
  const at = await folder(t);
  const store = await opened(t, at);
  await store.putInvite(invite("bob", { groups: ["guests"], roles: ["reader"] }));
  const other = await opened(t, at);
  const line = (number: number) => KEY.replace("laptop", `laptop${number}`);
  const redeemed = await Promise.all(
    [store, other, store, other].map((each, number) =>
      each.redeemInvite("bob", invite("bob").key, line(number), 1_000),
    ),
  );
  const [winner, ...more] = redeemed.filter((user) => user !== undefined);
  assert.deepEqual(more, []);
  assert.deepEqual([winner?.name, winner?.groups, winner?.roles], ["bob", ["guests"], ["reader"]]);
  const reread = await opened(t, at);
  assert.deepEqual(reread.find("bob"), winner);
  assert.equal(reread.invite("bob"), undefined);
});

test("an invite is redeemed neither late, nor with another key, nor after it was replaced or its user removed", async (t) => {
  const store = await opened(t, await folder(t));
  const { key } = invite("bob");
  const other = new Uint8Array(32).fill(8);
  await store.putInvite(invite("bob", { expires: 2_000_000_000_000 }));
  assert.equal(await store.redeemInvite("bob", key, KEY, 2_000_000_000_000), undefined);
  assert.equal(await store.redeemInvite("bob", other, KEY, 0), undefined);
  assert.equal(await store.redeemInvite("carol", key, KEY, 0), undefined);
  await store.putInvite(invite("bob", { key: other }));
  assert.equal(await store.redeemInvite("bob", key, KEY, 0), undefined);
  await store.remove("bob");
  assert.equal(await store.redeemInvite("bob", other, KEY, 0), undefined);
  assert.deepEqual(store.list(), []);
});

test("an invite for somebody who is a user already adds a key, and nothing else changes", async (t) => {
  const store = await opened(t, await folder(t));
  await store.add({ name: "bob", groups: ["staff"], keys: [KEY], password: octets("secret") });
  await store.putInvite(invite("bob"));
  const second = KEY.replace("laptop", "phone");
  const user = await store.redeemInvite("bob", invite("bob").key, second, 0);
  assert.deepEqual(user, { name: "bob", groups: ["staff"], roles: [], keys: [KEY, second], totp: undefined });
  assert.ok(await store.verify("bob", octets("secret")));
});

test("invites whose time is over make room when the next one is kept", async (t) => {
  const store = await opened(t, await folder(t));
  await store.putInvite(invite("old", { expires: Date.now() - 1 }));
  assert.ok(store.invite("old"));
  await store.putInvite(invite("new"));
  assert.equal(store.invite("old"), undefined);
  assert.ok(store.invite("new"));
});

test("A05 an unknown user, one without a password and a wrong password cost the same work", async (t) => {
  const store = await opened(t, await folder(t));
  await store.add({ name: "alice", password: octets("secret") });
  await store.add({ name: "keys-only", keys: [KEY] });
  await using work = await WorkCounter.start("/src/server/auth/");
  const guess = octets("guess");
  const costOf = async (name: string) =>
    [...(await work.during(() => store.verify(name, guess)))].filter(([place]) => !place.includes(".test.ts")).sort();
  await costOf("alice"); // whatever happens once only has happened
  const wrong = await costOf("alice");
  assert.ok(
    wrong.some(([place]) => place.includes("password-hash.ts:verify")),
    "a password was verified",
  );
  for (const name of ["nobody", "keys-only", "", "__proto__", "x".repeat(1_000)])
    assert.deepEqual(await costOf(name), wrong, name);
});

test("A05 what is verified where there is no password costs what most of the store's passwords cost", async (t) => {
  const at = await folder(t);
  const costly = { memoryKiB: 1_024, passes: 3, lanes: 2 };
  {
    using store = await openUsers({ folder: at, log: silentLog, cost: costly });
    await store.add({ name: "alice", password: octets("secret") });
    await store.add({ name: "bob", password: octets("secret") });
  }
  const store = await opened(t, at); // whose new passwords are cheap
  await store.add({ name: "carol", password: octets("secret") });
  const seconds = async (name: string) => {
    const all: number[] = [];
    for (let round = 0; round < 20; round++) {
      const from = process.cpuUsage();
      await store.verify(name, octets("guess"));
      const { user, system } = process.cpuUsage(from);
      all.push(user + system);
    }
    return Math.min(...all);
  };
  const [known, unknown, cheap] = [await seconds("alice"), await seconds("nobody"), await seconds("carol")];
  assert.ok(unknown > (known + cheap) / 2, `unknown costs ${unknown} us, known ${known} us, the cheap one ${cheap} us`);
});

test("a password that was changed, or whose user was removed, while it was being verified is none", async (t) => {
  const store = await openUsers({
    folder: await folder(t),
    log: silentLog,
    cost: { memoryKiB: 8_192, passes: 2, lanes: 1 },
  });
  t.after(() => store[Symbol.dispose]());
  for (const name of ["alice", "bob", "carol"]) await store.add({ name, password: octets("old") });
  // A queue of others in front, so that the changes are there before the answers.
  const crowd = Array.from({ length: 60 }, () => store.verify("nobody", octets("guess")));
  let answered = false;
  const answers = Promise.all(["alice", "bob", "carol"].map((name) => store.verify(name, octets("old"))));
  void answers.then(() => {
    answered = true;
  });
  await store.setPassword("alice", undefined);
  await store.remove("bob");
  assert.equal(answered, false, "the queue was too short for this test");
  assert.deepEqual(
    (await answers).map((user) => user?.name),
    [undefined, undefined, "carol"],
  );
  await Promise.all(crowd);
});

test("10,000 users are there within 300 ms of work", async (t) => {
  const at = await folder(t);
  const hash = "$argon2id$v=19$m=65536,t=3,p=4$c29tZXNhbHQxMjM0$nf65EOgLrQMR/uIPnA4rEsF5h7TKyQwu9U1bMCHGi/4";
  const lines = Array.from({ length: 10_000 }, (_, number) =>
    JSON.stringify({
      user: `user${number}`,
      groups: ["staff"],
      roles: [`role${number % 100}`],
      password: hash,
      keys: [`${KEY}${number}`],
    }),
  );
  await writeFile(join(at, USERS_FILE), `${lines.join("\n")}\n`, { mode: 0o600 });
  const from = process.cpuUsage();
  const store = await opened(t, at);
  const { user, system } = process.cpuUsage(from);
  assert.equal(store.list().length, 10_000);
  assert.ok((user + system) / 1_000 < 300, `took ${(user + system) / 1_000} ms of processor`);
});

test("root keeps the store for a server that is not root", { skip: needs("root") }, async (t) => {
  const at = await folder(t);
  await chown(at, 61_234, 61_234);
  const store = await opened(t, at);
  await store.add({ name: "alice" });
  await store.add({ name: "bob" });
  assert.equal((await stat(store.file)).uid, 61_234);
  assert.equal((await opened(t, at)).list().length, 2);
});

test("who asks sees at once what another process has changed, and a file that is away for a moment is no change", async (t) => {
  const at = await folder(t);
  const ours = await opened(t, at);
  const theirs = await opened(t, at);
  await theirs.add({ name: "alice" });
  await Promise.all([ours.refresh(), ours.refresh()]);
  assert.ok(ours.find("alice"));
  const file = join(at, USERS_FILE);
  await rename(file, `${file}.away`);
  for (let round = 0; round < 3; round++) await ours.refresh();
  assert.ok(ours.find("alice"));
  await rename(`${file}.away`, file);
});
