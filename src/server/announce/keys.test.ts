import assert from "node:assert/strict";
import { once } from "node:events";
import { chmod, mkdtemp, readdir, readFile, rm, stat, writeFile } from "node:fs/promises";
import { request } from "node:http";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { json, text } from "node:stream/consumers";
import test, { type TestContext } from "node:test";
import { createLocalJWKSet } from "jose";
import { judgeAssertion, signAssertion } from "../../identity/index.ts";
import { FakeTalk, RecordingLog } from "../backends/fake-talk.test.ts";
import { silentLog } from "../log.ts";
import { AnnounceKeys, KEY_MS } from "./keys.ts";
import { KeysService } from "./keys-service.ts";

const STATEMENT = {
  ...{ issuer: "example.org", user: "alice", roles: [], host: undefined, service: "wiki", session: "s1" },
  ...{ mechanism: "up", secondFactor: false },
};
const EXPECTED = { audience: "wiki", issuer: "example.org" };

async function folder(t: TestContext): Promise<string> {
  const path = await mkdtemp(join(tmpdir(), "fived-keys-"));
  t.after(() => rm(path, { recursive: true, force: true }));
  return join(path, "state");
}

/** Keys in a folder of their own, and a clock that stands still until it is set. */
async function set(t: TestContext, state?: string) {
  const where = state ?? (await folder(t));
  const clock = { now: 1_800_000_000_000 };
  const log = new RecordingLog();
  const keys = await AnnounceKeys.open({ state: where, log, now: () => clock.now });
  t.after(() => keys[Symbol.dispose]());
  return { keys, clock, log, state: where, published: () => readFile(join(where, "jwks.json"), "utf8") };
}

const kids = (set: { readonly keys: readonly { readonly kid?: string }[] }) => set.keys.map(({ kid }) => kid);

/** Would a back end with these keys believe that assertion? */
async function believed(jwks: string, token: string, now: number): Promise<boolean> {
  const verdict = await judgeAssertion(token, createLocalJWKSet(JSON.parse(jwks)), { ...EXPECTED, now });
  return verdict.type === "verified";
}

test("keys are made on first use, kept, and only the public ones can be read by others", async (t) => {
  const { keys, state, published } = await set(t);
  const mode = async (name: string) => (await stat(join(state, name))).mode & 0o777;
  assert.equal(await mode("announce.keys"), 0o600);
  assert.equal(await mode("jwks.json"), 0o644);
  assert.equal(await mode("."), 0o700);
  assert.deepEqual((await readdir(state)).sort(), ["announce.keys", "jwks.json"], "no temporary file is left");
  const jwks = JSON.parse(await published());
  assert.equal(jwks.keys.length, 2);
  for (const key of jwks.keys) assert.deepEqual(Object.keys(key).sort(), ["alg", "crv", "kid", "kty", "use", "x"]);
  const again = await set(t, state);
  assert.equal(again.keys.current.kid, keys.current.kid);
  assert.equal(await published(), `${JSON.stringify(again.keys.jwks, undefined, 2)}\n`);
});

test("what is signed now is believed by whoever has the published keys", async (t) => {
  const { keys, clock, published } = await set(t);
  const token = await signAssertion(STATEMENT, keys.current, clock.now);
  assert.equal(await believed(await published(), token, clock.now), true);
  const other = await set(t);
  assert.equal(await believed(await other.published(), token, clock.now), false);
});

test("a key changes after ninety days, and whoever has kept the old set knows the new key already", async (t) => {
  const { keys, clock, state, published } = await set(t);
  const before = await published();
  const first = keys.current.kid;
  clock.now += KEY_MS - 1;
  await keys.refresh();
  assert.equal(keys.current.kid, first);
  const last = await signAssertion(STATEMENT, keys.current, clock.now);
  clock.now += 1;
  await keys.refresh();
  assert.notEqual(keys.current.kid, first);
  const token = await signAssertion(STATEMENT, keys.current, clock.now);
  assert.equal(await believed(before, token, clock.now), true, "the set from before");
  assert.equal(await believed(await published(), token, clock.now), true, "the set from now");
  assert.equal(await believed(await published(), last, clock.now), true, "the last assertion of the old key");
  clock.now += 30 * 60_000;
  await keys.refresh();
  assert.ok(!kids(JSON.parse(await published())).includes(first), "no assertion of the old key can be good any more");
  const again = await AnnounceKeys.open({ state, log: silentLog, now: () => clock.now });
  t.after(() => again[Symbol.dispose]());
  assert.equal(again.current.kid, keys.current.kid);
});

test("keys that others may have are withdrawn at once, the next one too", async (t) => {
  const { keys, clock, log, published } = await set(t);
  const before = kids(keys.jwks);
  const token = await signAssertion(STATEMENT, keys.current, clock.now);
  await keys.rotate({ withdraw: true });
  assert.equal(await believed(await published(), token, clock.now), false);
  assert.deepEqual(
    kids(keys.jwks).filter((kid) => before.includes(kid)),
    [],
  );
  assert.equal((await log.seen("the key of assertions was changed")).reason, "withdrawn");
});

test("however often keys are changed, few are published, and the current one always", async (t) => {
  const { keys, published } = await set(t);
  await Promise.all(Array.from({ length: 40 }, () => keys.rotate()));
  const names = kids(JSON.parse(await published()));
  assert.equal(names.length, 18);
  assert.equal(new Set(names).size, 18);
  assert.equal(names[0], keys.current.kid);
});

test("a change made by another process is found", async (t) => {
  const { keys, state } = await set(t);
  const other = await set(t, state);
  await other.keys.rotate();
  assert.notEqual(keys.current.kid, other.keys.current.kid);
  await keys.refresh();
  assert.equal(keys.current.kid, other.keys.current.kid);
});

test("two that start at the same time in an empty folder have the same keys", async (t) => {
  const state = await folder(t);
  const all = await Promise.all(Array.from({ length: 8 }, () => set(t, state)));
  assert.equal(new Set(all.map(({ keys }) => keys.current.kid)).size, 1);
});

test("keys that others could read, or that are no keys, are not used", async (t) => {
  const { keys, state } = await set(t);
  const file = join(state, "announce.keys");
  const open = () => AnnounceKeys.open({ state, log: silentLog });
  await chmod(file, 0o640);
  await assert.rejects(open(), { code: "STATE_UNUSABLE", message: /chmod 0600/ });
  await assert.rejects(keys.refresh(), { code: "STATE_UNUSABLE" });
  await chmod(file, 0o600);
  const good = await readFile(file, "utf8");
  for (const bad of [
    "",
    "{}",
    good.slice(0, -20),
    good.replace('"version": 1', '"version": 2'),
    "x".repeat(1e6 + 1e5),
  ]) {
    await writeFile(file, bad);
    await assert.rejects(open(), { code: "STATE_UNUSABLE" });
  }
  const { kid } = keys.current;
  await assert.rejects(keys.rotate(), { code: "STATE_UNUSABLE" });
  assert.equal(keys.current.kid, kid, "what fails changes nothing");
});

test("the public keys are put where back ends may read them, too", async (t) => {
  const state = await folder(t);
  const publishAt = join(state, "..", "public.json");
  const keys = await AnnounceKeys.open({ state, publishAt, log: silentLog });
  t.after(() => keys[Symbol.dispose]());
  assert.deepEqual(JSON.parse(await readFile(publishAt, "utf8")), keys.jwks);
});

test("a service answers HTTP with the keys, and with nothing else", async (t) => {
  const { keys } = await set(t);
  const service = new KeysService("keys", keys);
  const ask = async (method: string, path: string) => {
    const talk = new FakeTalk("keys");
    assert.equal(service.serve(talk), "bytes");
    assert.deepEqual(talk.said, ["+ SUCCESS"]);
    const asked = request({ createConnection: () => talk.far, method, path, host: "keys" });
    asked.end();
    const [response] = await once(asked, "response");
    return response;
  };
  for (const path of ["/", "/.well-known/jwks.json", "/.well-known/jwks.json?x"]) {
    const response = await ask("GET", path);
    assert.equal(response.statusCode, 200);
    assert.equal(response.headers["content-type"], "application/jwk-set+json");
    assert.equal(response.headers.connection, "close");
    assert.deepEqual(await json(response), keys.jwks);
  }
  const head = await ask("HEAD", "/");
  assert.equal(await text(head), "");
  assert.equal((await ask("GET", "/../announce.keys")).statusCode, 404);
  assert.equal((await ask("POST", "/")).statusCode, 405);
});

test("a caller of the keys who says nothing, or something else than HTTP, does not stay", async (t) => {
  const { keys } = await set(t);
  t.mock.timers.enable({ apis: ["setTimeout"] });
  const silent = new FakeTalk("keys");
  new KeysService("keys", keys).serve(silent);
  const closed = once(silent.stream(), "close");
  t.mock.timers.tick(10_000);
  await closed;
  const odd = new FakeTalk("keys");
  new KeysService("keys", keys).serve(odd);
  const answered = once(odd.far, "data");
  odd.far.end("\0\0\0\0\r\n\r\n");
  assert.match(String(await answered), /^HTTP\/1\.1 400 /);
});
