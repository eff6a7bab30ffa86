/**
 * Group K of the abuse cases: a server that takes other servers' word (PROTOCOL §4.12), with real sessions of somebody who has a gateway's
 * password, or its key, or neither; and a server in front of another one that means no good.
 * @module
 */
import assert from "node:assert/strict";
import { once } from "node:events";
import fs from "node:fs/promises";
import { text } from "node:stream/consumers";
import test, { type TestContext } from "node:test";
import { parseAddress } from "../../src/client/index.ts";
import { openSession } from "../../src/client/open-session.ts";
import type { ServiceOpener } from "../../src/client/session.ts";
import { signAssertion, signVouching, type VouchingStatement } from "../../src/identity/index.ts";
import { ChannelDuplex, FivedError } from "../../src/io/index.ts";
import { encodeLine } from "../../src/wire/index.ts";
import { within } from "../support/deadline.ts";
import { scripted } from "../support/scripted-server.ts";
import { backEnd, Victim } from "../support/victim.ts";
import { forgeVouching, otherKey, vouchingClaims, vouchingFor } from "../support/vouchings.ts";

const KEY = otherKey("a1");
const OTHER = otherKey("b1");
/** Programs that would say that somebody got in. */
const SERVICE = { exec: ["/bin/sh", "-c", 'echo "in as $FIVED_USER"'] };

/** A server that takes the word of a.example, which signs in as `gateway`, and of b.example, which signs in as `other`. */
function trusting(t: TestContext): Promise<Victim> {
  const trust = (issuer: string, as: string) => ({ issuer, as: [as], keys: `${issuer}.jwks` });
  return Victim.start(t, {
    users: ["gateway", "other", "root", "alice"].map((name) => ({ name, password: name })),
    files: { "a.example.jwks": JSON.stringify(KEY.set), "b.example.jwks": JSON.stringify(OTHER.set) },
    trusts: [trust("a.example", "gateway"), trust("b.example", "other")],
    roles: { ops: ["root"] },
    services: {
      wiki: { ...SERVICE, allow: ["alice@a.example", "gateway"] },
      db: { ...SERVICE, allow: ["anyone"] },
      secret: { ...SERVICE, allow: ["root", "ops", "alice", "gateway", "group:ops"] },
    },
  });
}

/** A session with it, as one of its people or as nobody. */
async function session(victim: Victim, user?: string): Promise<ServiceOpener> {
  const { host, port } = victim.at;
  return await openSession(parseAddress(`${host}:${port}`), {
    knownHosts: victim.lab.path("known_hosts"),
    strictHostKeyChecking: "yes",
    ...(user === undefined ? {} : { auth: { user, password: async () => user } }),
  });
}

/** What comes of a VIA line and a request behind it: the code of a refusal, or what the service says. */
async function says(on: ServiceOpener, via: string, service = "wiki"): Promise<number | string> {
  const stream = new ChannelDuplex();
  on.openOn(stream, service, { via });
  try {
    return (await within(text(stream), "an answer")).trim();
  } catch (error) {
    assert.ok(error instanceof FivedError && error.status !== undefined, String(error));
    return error.status;
  }
}

/** A vouching that is as it should be in that session, but for what is said otherwise. */
function vouching(on: ServiceOpener, more: Partial<VouchingStatement> = {}, key = KEY): Promise<string> {
  assert.ok(on.binding);
  return signVouching(vouchingFor({ binding: on.binding, ...more }), key, Date.now());
}

test("what other servers say of callers", async (t) => {
  const victim = await trusting(t);
  await using gateway = await session(victim, "gateway");

  await victim.survives(t, "K01 a vouching is good for one stream of one connection", async () => {
    const token = await vouching(gateway);
    assert.equal(await says(gateway, `VIA 1 ${token}`), "in as alice@a.example");
    assert.equal(await says(gateway, `VIA 1 ${token}`), 403);
    await using again = await session(victim, "gateway");
    assert.equal(await says(again, `VIA 1 ${await vouching(gateway)}`), 403);
    assert.equal(await says(again, `VIA 1 ${await vouching(again)}`), "in as alice@a.example");
    const one = await vouching(gateway);
    const all = await Promise.all(Array.from({ length: 16 }, () => says(gateway, `VIA 1 ${one}`)));
    assert.deepEqual(
      all.filter((each) => each !== 403),
      ["in as alice@a.example"],
    );
  });

  await victim.survives(t, "K02 a vouching that was forged", async () => {
    const { binding = new Uint8Array(0) } = gateway;
    const cb = Buffer.from(binding).toString("base64url");
    const now = Math.floor(Date.now() / 1_000);
    const claims = vouchingClaims(now, { cb, jti: "forged" });
    const [head, body] = (await forgeVouching(claims, KEY)).split(".");
    const none = Buffer.from(JSON.stringify({ alg: "none", typ: "fived-vouching+jwt" })).toString("base64url");
    const forged = [
      await forgeVouching(claims, OTHER),
      await forgeVouching(claims, otherKey("a1")),
      await forgeVouching(claims, KEY, { typ: "fived-assertion+jwt" }),
      await forgeVouching({ ...claims, exp: now + 3_600 }, KEY),
      await forgeVouching({ ...claims, iat: now - 900, exp: now - 600 }, KEY),
      await forgeVouching({ ...claims, iss: "b.example" }, KEY),
      await signAssertion({ ...vouchingFor(), host: undefined, service: "wiki" }, KEY, Date.now()),
      ...[`${head}.${body}.`, `${none}.${body}.`, `${none}.${body}`, "x", "..", "a.b.c", "__proto__", "-.-.-", "--"],
    ];
    for (const token of forged) assert.equal(await says(gateway, `VIA 1 ${token}`), 403, token);
    assert.equal(await says(gateway, `VIA 1 ${await forgeVouching(claims, KEY)}`), "in as alice@a.example");
  });

  await victim.survives(t, "K03 a vouching for another word, and two of them", async () => {
    assert.equal(await says(gateway, `VIA 1 ${await vouching(gateway)}`, "db"), 403);
    assert.equal(await says(gateway, `VIA 1 ${await vouching(gateway)}`, "secret"), 403);
    assert.equal(await says(gateway, `VIA 1 ${await vouching(gateway, { word: "list" })}`), 403);
    const seen = async (word: string) =>
      await gateway.list(undefined, { via: `VIA 1 ${await vouching(gateway, { word })}` });
    assert.ok((await seen("list")).includes("wiki"));
    await assert.rejects(seen("wiki"), { status: 403 });
    for (const line of [`VIA 1 ${await vouching(gateway)}`, "VIA 1", "VIA 1 -"]) {
      for (const request of ["VIA 1", "VIA 1 -", "AUTH up root", "MULTIPLEX", "TLS"]) {
        const stream = new ChannelDuplex();
        gateway.openOn(stream, "wiki", { via: `${line}\r\n${request}` });
        const [error] = await within(once(stream, "error"), "a refusal");
        const word = line.length > "VIA 1 -".length ? 403 : 503;
        assert.equal(error.status, word, `${line} ${request}`);
      }
    }
  });

  await victim.survives(t, "K04 somebody vouches who is not to be trusted", async () => {
    for (const user of ["other", "root", "alice", undefined]) {
      await using stranger = await session(victim, user);
      assert.equal(await says(stranger, `VIA 1 ${await vouching(stranger)}`), 403, user);
    }
    await using other = await session(victim, "other");
    assert.equal(await says(other, `VIA 1 ${await vouching(other, { issuer: "b.example" }, OTHER)}`, "wiki"), 404);
    assert.equal(await says(gateway, `VIA 1 ${await vouching(gateway, { issuer: "b.example" }, OTHER)}`), 403);
  });

  await victim.survives(t, "K05 nobody who is vouched for becomes somebody of this server", async () => {
    for (const user of ["root", "alice", "gateway", "ops"]) {
      const roles = ["ops", "root", "gateway", "group:ops"];
      const via = async () => `VIA 1 ${await vouching(gateway, { user, roles, word: "secret" })}`;
      assert.equal(await says(gateway, await via(), "secret"), 404, user);
    }
    for (const user of ["alice@b.example", "alice@a.example", "root@", "@a.example", "Alice", "a/../b"])
      assert.equal(await says(gateway, `VIA 1 ${await vouching(gateway, { user })}`), 403, user);
    assert.equal(await says(gateway, "VIA 1 -"), 404, "nobody is nobody");
    assert.equal(await says(gateway, "VIA 1 -", "db"), "in as");
    assert.equal(await says(gateway, "VIA 1"), "in as gateway");
  });

  await victim.survives(t, "K06 numbers of servers that are none, or too many", async () => {
    for (const count of ["0", "-1", "01", "1e1", "1.5", "x", "", "99999", "1 - -", `${"9".repeat(400)}`])
      assert.equal(await says(gateway, `VIA ${count}`), 501, count);
    for (const count of ["9", "10", "9999"]) assert.equal(await says(gateway, `VIA ${count}`), 508, count);
    assert.equal(await says(gateway, "VIA 8"), "in as gateway");
  });

  await victim.survives(t, "K07 what stands behind a VIA that is refused is not done", async () => {
    const before = victim.log().length;
    for (const line of ["VIA 9", "VIA 1 x", "VIA 0", `VIA 1 ${await vouching(gateway, { issuer: "b.example" })}`]) {
      const stream = new ChannelDuplex();
      gateway.openOn(stream, "wiki", { via: `${line}\r\nwiki\r\nsecret\r\nLIST` });
      assert.ok([403, 501, 508].includes((await within(once(stream, "error"), "a refusal"))[0].status));
    }
    assert.equal(
      victim
        .log()
        .slice(before)
        .some(({ message }) => message === "a service failed"),
      false,
    );
  });

  await victim.survives(t, "K08 floods of vouchings, and lines too long for one", async () => {
    const garbage = `${"a".repeat(300)}.${"b".repeat(300)}.${"c".repeat(86)}`;
    for (let round = 0; round < 40; round++) {
      const token = await vouching(gateway, { user: `u${round}` });
      const flood = [...Array.from({ length: 20 }, () => garbage), ...Array.from({ length: 20 }, () => token)];
      const answers = await Promise.all(flood.map((each) => says(gateway, `VIA 1 ${each}`)));
      assert.deepEqual(new Set(answers), new Set([403, 404]));
    }
    for (const bytes of [1_025, 4_096, 60_000]) {
      const stream = new ChannelDuplex();
      gateway.openOn(stream, "wiki", { via: "VIA 1", host: `localhost\r\nVIA ${"1".repeat(bytes)}` });
      assert.equal((await within(once(stream, "error"), "a refusal"))[0].status, 500);
    }
  });
});

test("another server that means no good", async (t) => {
  const evil = await scripted(t, (line) => (line === "MULTIPLEX" ? undefined : ["+ SUCCESS"]), {
    serve(channel, request) {
      const service = request.startsWith("VIA") ? next++ % ACTS.length : -1;
      ACTS[service]?.(channel);
    },
  });
  let next = 0;
  const mute = await backEnd(t, () => {});
  const hangsUp = await backEnd(t, (socket) => socket.end());
  const floods = await backEnd(t, (socket) => {
    const flood = (): void => {
      while (socket.write(Buffer.alloc(65_536, 0x2b)));
      socket.once("drain", flood);
    };
    flood();
  });
  const key = `SHA256:${"A".repeat(43)}`;
  const addresses = [mute, hangsUp, floods].map((each) => each.replace("tcp://", ""));
  const victim = await Victim.start(t, {
    limits: { connect: "300ms" },
    hops: {
      ...Object.fromEntries(addresses.map((address) => [address, { key }])),
      [evil.address]: { key: evil.fingerprint },
    },
    services: Object.fromEntries(
      [...addresses, evil.address].map((address, at) => [
        `far${at}`,
        { to: `fived://${address}/x`, allow: ["anyone"] },
      ]),
    ),
  });
  await using caller = await session(victim);

  const refused = async (service: string): Promise<FivedError> => {
    const stream = caller.open(service);
    const [error] = await within(once(stream, "error"), "a refusal", { ms: 5_000 });
    assert.ok(error instanceof FivedError);
    return error;
  };

  await victim.survives(t, "K09 it says nothing, hangs up, or floods before it has shown who it is", async () => {
    for (let round = 0; round < 8; round++)
      for (const service of ["far0", "far1", "far2"]) {
        const { status, message } = await refused(service);
        assert.ok(status === 502 || status === 504, message);
      }
  });

  await victim.survives(t, "K09 it answers streams with garbage, escapes, too much, or nothing", async () => {
    for (let round = 0; round < 4 * ACTS.length; round++) {
      const { code, status, message } = await refused("far3");
      assert.ok(code === "SERVICE_REFUSED" && (status === 502 || status === 504), message);
      // biome-ignore lint/suspicious/noControlCharactersInRegex: that is what must not come through
      assert.doesNotMatch(message, /SECRET|\x1b|evil/);
    }
  });

  await victim.survives(t, "K09 it takes a stream and never reads, and the caller leaves", async () => {
    for (let round = 0; round < 20; round++) {
      const stream = caller.open("far0");
      stream.on("error", () => {});
      stream.write(Buffer.alloc(1024 * 1024));
      stream.destroy();
    }
  });
  assert.equal(
    await fs.readFile(victim.lab.path("known_hosts"), "utf8").then((pins) => pins.includes("A".repeat(43))),
    false,
  );
});

/** What the evil server does with a stream. */
const ACTS: readonly ((channel: import("../../src/io/index.ts").Channel) => void)[] = [
  (channel) => channel.reset(8),
  (channel) => channel.close(),
  () => {},
  (channel) => void channel.write(encodeLine("SECRET")),
  (channel) => void channel.write(encodeLine("- 599 SECRET")),
  (channel) => void channel.write(encodeLine("-")),
  (channel) => void channel.write(Buffer.from("- 502 \x1b[2J evil SECRET\r\n", "latin1")),
  (channel) => void channel.write(Buffer.alloc(60_000, 0x2b)),
  (channel) => {
    channel.write(encodeLine("+ SUCCESS"));
    channel.write(encodeLine("- 403 SECRET"));
    channel.close();
  },
];
