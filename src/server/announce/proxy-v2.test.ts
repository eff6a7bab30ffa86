import assert from "node:assert/strict";
import { generateKeyPairSync } from "node:crypto";
import test from "node:test";
import { createLocalJWKSet } from "jose";
import { type AssertionKey, judgeAssertion, type ProxyHeader, parseProxyV2 } from "../../identity/index.ts";
import type { Identity } from "../auth/mechanism.ts";
import { FakeTalk, STRANGER } from "../backends/fake-talk.test.ts";
import type { Caller } from "../service.ts";
import { Assertions } from "./assertions.ts";
import { ProxyV2Announcer } from "./proxy-v2.ts";

const IDENTITY: Identity = {
  ...{ user: "alice", groups: [], roles: [], mechanism: "pubkey" },
  ...{ secondFactor: true, at: 0 },
};
const ALICE: Caller = { ...STRANGER, user: "alice", roles: ["ops", "staff"], identity: IDENTITY };

function makeKey(kid: string) {
  const { privateKey, publicKey } = generateKeyPairSync("ed25519");
  const { x = "" } = publicKey.export({ format: "jwk" });
  const key: AssertionKey = { kid, privateKey: privateKey.toCryptoKey("Ed25519", false, ["sign"]) };
  return { key, jwk: { kty: "OKP" as const, crv: "Ed25519" as const, x, kid, alg: "EdDSA" } };
}

/** An announcer, with a clock that stands still and a key that can be changed. */
function set() {
  const made = makeKey("k1");
  const state = { current: made.key, now: 1_800_000_000_000 };
  const assertions = new Assertions({ keys: state, issuer: "example.org", now: () => state.now });
  const find = createLocalJWKSet({ keys: [made.jwk] });
  return { state, assertions, find, announcer: new ProxyV2Announcer(assertions) };
}

async function headerFor(talk: FakeTalk, { announcer } = set()): Promise<Extract<ProxyHeader, { type: "proxy" }>> {
  const { preamble } = await announcer.announce(talk);
  assert.ok(preamble !== undefined);
  const reading = parseProxyV2(preamble);
  assert.ok(reading.type === "header" && reading.header.type === "proxy");
  assert.equal(reading.bytes, preamble.length);
  return reading.header;
}

test("the header says where the caller is, which host he asked, in which session, and who he is", async () => {
  const all = set();
  const caller: Caller = { ...ALICE, session: "f9e1", local: "198.51.100.2:1078" };
  const talk = Object.assign(new FakeTalk("wiki", caller, "git.example.org"), { streamNumber: 7 });
  const { assertion = "", uniqueId, ...rest } = await headerFor(talk, all);
  assert.deepEqual(rest, {
    type: "proxy",
    source: { address: "192.0.2.1", port: 4711 },
    destination: { address: "198.51.100.2", port: 1078 },
    authority: "git.example.org",
    ssl: { version: "TLSv1.3", certificate: false, verified: false, commonName: undefined },
    user: "alice",
    others: [],
  });
  assert.equal(String(uniqueId && Buffer.from(uniqueId)), "f9e1/7");
  const expected = { audience: "git.example.org/wiki", issuer: "example.org", now: all.state.now };
  const verdict = await judgeAssertion(assertion, all.find, expected);
  assert.ok(verdict.type === "verified");
  const { user, roles, session, mechanism, secondFactor } = verdict.assertion;
  assert.deepEqual(
    [user, roles, session, mechanism, secondFactor],
    ["alice", ["ops", "staff"], "f9e1", "pubkey", true],
  );
});

test("nobody is announced as nobody: no user, no assertion, whatever roles there are", async () => {
  for (const caller of [STRANGER, { ...STRANGER, roles: ["ops"] }, { ...STRANGER, user: "alice" }]) {
    const { user, assertion, source } = await headerFor(new FakeTalk("wiki", caller));
    assert.deepEqual([user, assertion, source?.address], [undefined, undefined, "192.0.2.1"]);
  }
});

test("addresses of every kind are told, and a Unix socket has none", async () => {
  const from = async (peer: string) => (await headerFor(new FakeTalk("wiki", { ...ALICE, peer }))).source;
  assert.deepEqual(await from("[2001:db8::1]:4711"), { address: "2001:db8::1", port: 4711 });
  assert.deepEqual(await from("[::ffff:192.0.2.9]:1"), { address: "192.0.2.9", port: 1 });
  assert.equal(await from("unix:"), undefined);
  assert.equal((await headerFor(new FakeTalk("wiki", { ...ALICE, peer: "unix:" }))).user, "alice");
});

test("of TLS it is told that there is some, and whose certificate was shown", async () => {
  const withName = await headerFor(new FakeTalk("wiki", { ...ALICE, certificateName: "Alice" }));
  assert.deepEqual(withName.ssl, { version: "TLSv1.3", certificate: true, verified: true, commonName: "Alice" });
  const plain = await headerFor(new FakeTalk("wiki", { ...ALICE, secure: false }));
  assert.equal(plain.ssl, undefined);
});

test("a user whose name does not fit is not announced as another, and roles that do not fit are kept back", async () => {
  const { announcer, assertions, find, state } = set();
  for (const user of ["al ice", "alice\r\nFived-User: root", "alice,bob", "ålice", ""])
    await assert.rejects(announcer.announce(new FakeTalk("wiki", { ...ALICE, user })), /Cannot announce a user/);
  const token = await assertions.of(new FakeTalk("wiki", { ...ALICE, roles: ["ops", "a,b", "c\n", "", "d e"] }));
  const verdict = await judgeAssertion(token ?? "", find, { audience: "wiki", issuer: undefined, now: state.now });
  assert.ok(verdict.type === "verified");
  assert.deepEqual(verdict.assertion.roles, ["ops"]);
});

test("one assertion does for all streams of half a minute, and never for another caller, service or key", async () => {
  const { assertions, state } = set();
  const wiki = new FakeTalk("wiki", ALICE);
  const caller = wiki.caller;
  const at = (talk: { service?: string; host?: string; roles?: readonly string[] } = {}) => {
    const { service = "wiki", host, roles } = talk;
    return assertions.of({ caller: roles === undefined ? caller : { ...caller, roles }, service, host });
  };
  const first = await at();
  assert.equal(await at(), first);
  state.now += 30_000;
  assert.equal(await at(), first);
  state.now += 1;
  const second = await at();
  assert.notEqual(second, first);
  state.now -= 60_000;
  const third = await at();
  assert.notEqual(third, second, "the clock was set back");
  for (const other of [{ service: "db" }, { host: "git.example.org" }, { roles: [] }])
    assert.notEqual(await at(other), await at());
  const before = await at();
  state.current = makeKey("k2").key;
  assert.notEqual(await at(), before);
});

test("a check is announced as our own", () => {
  assert.deepEqual(parseProxyV2(set().announcer.greeting), { type: "header", header: { type: "local" }, bytes: 23 });
});
