/**
 * Programs that want to know who is calling, with assertions signed by a key of the test's own; test/interop/announce.test.ts has a real
 * server in front.
 * @module
 */
import assert from "node:assert/strict";
import { generateKeyPairSync } from "node:crypto";
import { once } from "node:events";
import { rename, writeFile } from "node:fs/promises";
import { createServer, get, type RequestListener } from "node:http";
import type { AddressInfo } from "node:net";
import { text } from "node:stream/consumers";
import test, { type TestContext } from "node:test";
import express from "express";
import fastify from "fastify";
import type { JSONWebKeySet } from "jose";
import { Lab } from "../../test/support/lab.ts";
import { type AssertionKey, type Statement, signAssertion } from "../identity/index.ts";
import { FivedError } from "../io/index.ts";
import { verifier, verifyAssertion } from "./assertions.ts";
import { type FivedCaller, fivedFastify, fivedIdentity } from "./middleware.ts";

const STATEMENT: Statement = {
  ...{ issuer: "gate.example.org", user: "alice", roles: ["ops", "staff"], host: "git.example.org", service: "Wiki" },
  ...{ session: "s1", mechanism: "pubkey", secondFactor: true },
};
const AUDIENCE = "git.example.org/wiki";
const CALLER: FivedCaller = {
  ...{ user: "alice", roles: ["ops", "staff"], session: "s1", mechanism: "pubkey", secondFactor: true },
  host: "git.example.org",
};

/** A server's key, and the set that it publishes. */
function newKey(kid: string): { readonly key: AssertionKey; readonly keys: JSONWebKeySet } {
  const { privateKey, publicKey } = generateKeyPairSync("ed25519");
  const { x = "" } = publicKey.export({ format: "jwk" });
  return {
    key: { kid, privateKey: privateKey.toCryptoKey("Ed25519", false, ["sign"]) },
    keys: { keys: [{ kty: "OKP", crv: "Ed25519", x, kid, alg: "EdDSA", use: "sig" }] },
  };
}

const ours = newKey("ours");
const signed = (more: Partial<Statement> = {}, key = ours.key, now = Date.now()) =>
  signAssertion({ ...STATEMENT, ...more }, key, now);

async function listening(t: TestContext, handler: RequestListener): Promise<number> {
  const server = createServer(handler).listen(0, "127.0.0.1");
  await once(server, "listening");
  t.after(() => {
    server.close();
    server.closeAllConnections();
  });
  return (server.address() as AddressInfo).port;
}

async function asked(port: number, headers: Readonly<Record<string, string | readonly string[]>> = {}) {
  const request = get({ port, host: "127.0.0.1", headers: { ...headers } as Record<string, string>, agent: false });
  const [response] = await once(request, "response");
  return { status: response.statusCode, said: await text(response) };
}

/** Programs that answer with what `request.fived` says; `optional` as in the options. */
const programs: Readonly<Record<string, (t: TestContext, optional: boolean) => Promise<number>>> = {
  async express(t, optional) {
    const app = express();
    app.use(fivedIdentity({ keys: ours.keys, audience: AUDIENCE, issuer: "gate.example.org", optional }));
    app.get("/", (request, response) => void response.json((request as { fived?: FivedCaller }).fived ?? "nobody"));
    return await listening(t, app);
  },
  async fastify(t, optional) {
    const app = fastify();
    // biome-ignore lint/nursery/noMisusedPromises: Fastify takes plugins that are promises, and waits for them.
    await app.register(fivedFastify, { keys: ours.keys, audience: AUDIENCE, issuer: "gate.example.org", optional });
    app.get("/", async (request) => (request as { fived?: FivedCaller }).fived ?? JSON.stringify("nobody"));
    await app.listen({ port: 0, host: "127.0.0.1" });
    t.after(() => app.close());
    return (app.server.address() as AddressInfo).port;
  },
};

for (const [name, start] of Object.entries(programs)) {
  test(`${name}: the program learns who is calling, and hears nobody who cannot prove it`, async (t) => {
    const port = await start(t, false);
    const good = await asked(port, { "fived-assertion": await signed() });
    assert.deepEqual([good.status, JSON.parse(good.said)], [200, CALLER]);
    const hour = 3_600_000;
    const tokens: Readonly<Record<string, string>> = {
      "of another key": await signed({}, newKey("ours").key),
      "of an unknown key": await signed({}, newKey("other").key),
      "for another service": await signed({ service: "db" }),
      "for the default host": await signed({ host: undefined }),
      "of another server": await signed({ issuer: "evil.example" }),
      "that has ended": await signed({}, ours.key, Date.now() - hour),
      "of tomorrow": await signed({}, ours.key, Date.now() + 24 * hour),
      "that is none": "x.y.z",
      "that is empty": "",
      "that is long": "a".repeat(12_000),
    };
    for (const [what, token] of Object.entries(tokens)) {
      const { status, said } = await asked(port, { "fived-assertion": token, "fived-user": "alice" });
      assert.equal(status, 401, `${what}: ${said}`);
    }
    assert.equal((await asked(port)).status, 401);
    const twice = await asked(port, { "fived-assertion": [await signed(), await signed()] });
    assert.equal(twice.status, 401, "of two nobody knows which is meant");
  });

  test(`${name}: where signing in is optional, nobody is nobody, and a bad proof is none`, async (t) => {
    const port = await start(t, true);
    assert.deepEqual(await asked(port, { "fived-user": "root" }), { status: 200, said: '"nobody"' });
    assert.equal((await asked(port, { "fived-assertion": await signed({ service: "db" }) })).status, 401);
    assert.equal((await asked(port, { "fived-assertion": await signed() })).status, 200);
  });
}

test("keys in a file are read again when the server has written others", async (t) => {
  const lab = await Lab.open(t);
  const file = await lab.write("jwks.json", JSON.stringify(newKey("old").keys));
  const verify = verifier({ keys: file, audience: AUDIENCE });
  const token = await signed();
  await assert.rejects(verify(token), { code: "ASSERTION_BAD" });
  await writeFile(`${file}.new`, JSON.stringify(ours.keys));
  await rename(`${file}.new`, file);
  assert.equal((await verify(token)).user, "alice");
  await writeFile(file, "{}");
  await assert.rejects(verify(token), { code: "KEYS_UNAVAILABLE" });
  await rename(file, `${file}.gone`);
  await assert.rejects(verify(token), (error) => error instanceof FivedError && error.code === "KEYS_UNAVAILABLE");
});

test("keys behind an address are fetched once, however many tokens come that none of them has signed", async (t) => {
  let fetched = 0;
  const port = await listening(t, (_request, response) => {
    fetched++;
    response.setHeader("content-type", "application/json").end(JSON.stringify(ours.keys));
  });
  const keys = new URL(`http://127.0.0.1:${port}/.well-known/jwks.json`);
  const verify = verifier({ keys, audience: AUDIENCE });
  assert.equal((await verify(await signed())).session, "s1");
  const other = newKey("unknown");
  for (let token = 0; token < 20; token++)
    await assert.rejects(verify(await signed({}, other.key)), { code: "ASSERTION_BAD" });
  assert.equal(fetched, 1);
  await assert.rejects(verifyAssertion(await signed(), { keys: new URL("http://127.0.0.1:9/"), audience: AUDIENCE }), {
    code: "KEYS_UNAVAILABLE",
  });
  assert.throws(() => verifier({ keys: new URL("http://example.org/jwks.json"), audience: AUDIENCE }), TypeError);
});
