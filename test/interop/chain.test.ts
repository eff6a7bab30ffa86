/**
 * Session servers behind one another, two and three of them, with real TLS, pins, keys and passwords, and a back end at the end of the chain
 * (docs/chaining.md; PROTOCOL §4.12).
 * @module
 */
import assert from "node:assert/strict";
import { once } from "node:events";
import fs from "node:fs/promises";
import { createServer } from "node:http";
import type { AddressInfo, Socket } from "node:net";
import type { Duplex } from "node:stream";
import { buffer } from "node:stream/consumers";
import test, { type TestContext } from "node:test";
import { connect, type FivedCaller, FivedError, fivedIdentity, loadConfiguration, serve } from "../../src/index.ts";
import { ownCertificate } from "../../src/server/certificate.ts";
import { hopTo, type Link, startLink } from "../support/chain.ts";
import { eventually, within } from "../support/deadline.ts";
import { client, fived, withHosts } from "../support/fived.ts";
import { freePort, Lab } from "../support/lab.ts";
import { needs } from "../support/needs.ts";
import { makeKey } from "../support/ssh-keys.ts";
import { backEnd } from "../support/victim.ts";

const GATEWAY = [{ name: "gateway" }];

const echo = (t: TestContext): Promise<string> => backEnd(t, (socket) => socket.pipe(socket));

/** Why a service was refused. */
async function refusal(link: Link, service: string, user?: string): Promise<FivedError> {
  const stream = link.opens(service, user);
  const [error] = await within(once(stream, "error"), "a refusal");
  assert.ok(error instanceof FivedError);
  return error;
}

/** Says who is calling, as the environment of a program does. */
const WHO = ["/bin/sh", "-c", 'echo "$FIVED_USER|$FIVED_MECHANISM"'];

/** `outer` in front of `inner`, which has these services and believes what `outer` says of callers. */
async function pair(
  lab: Lab,
  inside: Readonly<Record<string, unknown>>,
  outside: (to: (service: string) => string) => Readonly<Record<string, unknown>>,
  more: { readonly inner?: Readonly<Record<string, unknown>>; readonly trusting?: boolean } = {},
): Promise<{ readonly inner: Link; readonly outer: Link; readonly settings: Readonly<Record<string, unknown>> }> {
  const keys = await lab.write("outer.jwks", '{ "keys": [] }');
  const trusts = [{ issuer: "outer.example", keys, as: ["gateway"] }];
  const settings = { services: inside, ...(more.trusting === false ? {} : { trusts }), ...more.inner };
  const inner = await startLink(lab, "inner", settings, GATEWAY);
  const outer = await startLink(
    lab,
    "outer",
    {
      announce: { issuer: "outer.example", keys },
      hops: await hopTo(lab, inner, "gateway"),
      services: outside((service) => `fived://gateway@${inner.address}/${service}`),
    },
    [{ name: "alice", roles: ["ops"] }, { name: "bob" }],
  );
  return { inner, outer, settings };
}

test("a service behind another server is served over one session, which is kept", async (t) => {
  const lab = await Lab.open(t);
  const { inner, outer } = await pair(lab, { wiki: { to: await echo(t), allow: ["gateway"] } }, (to) => ({
    wiki: { to: to("wiki"), allow: ["anyone"] },
    other: { to: to("wiki"), allow: ["anyone"] },
  }));
  for (let round = 0; round < 3; round++) assert.equal(await outer.asks("wiki", `round ${round}`), `round ${round}`);
  assert.equal(await outer.asks("other", "another"), "another");
  const signIns = (await inner.audit()).filter(({ event }) => event === "sign-in");
  assert.equal(signIns.length, 1, "one session for all");
  const opened = await inner.event({ event: "open", service: "wiki" });
  assert.equal(opened["user"], "gateway", "without announce it is the outer server's own stream");
  assert.deepEqual(opened["via"], { hops: 1 });
  assert.deepEqual((await outer.event({ event: "open", service: "wiki" }))["via"], undefined);
});

test("with announce: fived the inner server knows the caller, by a name that is none of its own", async (t) => {
  const lab = await Lab.open(t);
  const { inner, outer } = await pair(
    lab,
    {
      who: { exec: WHO, allow: ["anyone"] },
      hers: { exec: WHO, allow: ["alice@outer.example"] },
      ops: { exec: WHO, allow: ["operators"] },
      theirs: { exec: WHO, allow: ["alice", "ops", "gateway"] },
    },
    (to) =>
      Object.fromEntries(
        ["who", "hers", "ops", "theirs"].map((name) => [name, { to: to(name), allow: ["anyone"], announce: "fived" }]),
      ),
    { inner: { roles: { operators: ["group:ops@outer.example"], ops: [] } } },
  );
  // Roles of the outer server are told where its configuration has them.
  assert.equal(await outer.asks("who", "", "alice"), "alice@outer.example|via\n");
  assert.equal(await outer.asks("who", ""), "|\n", "nobody there is nobody here, and not the gateway");
  assert.equal(await outer.asks("hers", "", "alice"), "alice@outer.example|via\n");
  assert.equal((await refusal(outer, "hers", "bob")).status, 404);
  assert.equal((await refusal(outer, "theirs", "alice")).status, 404, "our alice, and our ops, are not theirs");
  assert.equal((await refusal(outer, "theirs")).status, 404);
  const opened = await inner.event({ event: "open", service: "hers" });
  const outside = await outer.event({ event: "open", service: "hers", user: "alice" });
  assert.deepEqual(
    [opened["user"], opened["via"]],
    ["alice@outer.example", { hops: 1, user: "gateway", issuer: "outer.example", session: outside["session"] }],
  );
});

test("roles of the outer server are groups of the inner one", async (t) => {
  const lab = await Lab.open(t);
  const { outer } = await pair(
    lab,
    { ops: { exec: WHO, allow: ["operators"] } },
    (to) => ({ ops: { to: to("ops"), allow: ["anyone"], announce: "fived" } }),
    { inner: { roles: { operators: ["group:ops@outer.example"] } } },
  );
  assert.equal(await outer.asks("ops", "", "alice"), "alice@outer.example|via\n");
  assert.equal((await refusal(outer, "ops", "bob")).status, 404);
});

test("three servers: the caller is passed on twice, and the back end verifies who it is", async (t) => {
  const lab = await Lab.open(t);
  const keys = { a: await lab.write("a.jwks", '{ "keys": [] }'), b: await lab.write("b.jwks", '{ "keys": [] }') };
  const state = lab.path("c");
  const answers: string[] = [];
  const identify = fivedIdentity({ keys: `${state}/jwks.json`, audience: "wiki", issuer: "c.example", optional: true });
  const app = createServer((request, response) =>
    identify(request, response, () => {
      const { fived } = request as { fived?: FivedCaller };
      answers.push(fived?.user ?? "nobody");
      response.end(`${fived?.user ?? "nobody"}\n`);
    }),
  ).listen(0, "127.0.0.1");
  await once(app, "listening");
  t.after(() => app.close());
  const { port } = app.address() as AddressInfo;
  const c = await startLink(
    lab,
    "c",
    {
      trusts: [{ issuer: "b.example", keys: keys.b, as: ["b"], through: ["a.example"] }],
      services: {
        wiki: { to: `tcp://127.0.0.1:${port}`, announce: "http", allow: ["alice@a.example", "bob@b.example"] },
      },
    },
    [{ name: "b" }],
  );
  const b = await startLink(
    lab,
    "b",
    {
      announce: { issuer: "b.example", keys: keys.b },
      trusts: [{ issuer: "a.example", keys: keys.a, as: ["a"] }],
      hops: await hopTo(lab, c, "b"),
      services: { wiki: { to: `fived://b@${c.address}/wiki`, announce: "fived", allow: ["everyone-signed-in"] } },
    },
    [{ name: "a" }, { name: "bob" }],
  );
  const a = await startLink(
    lab,
    "a",
    {
      announce: { issuer: "a.example", keys: keys.a },
      hops: await hopTo(lab, b, "a"),
      services: { wiki: { to: `fived://a@${b.address}/wiki`, announce: "fived", allow: ["everyone-signed-in"] } },
    },
    [{ name: "alice" }, { name: "bob" }],
  );
  const request = "GET / HTTP/1.1\r\nhost: wiki\r\nconnection: close\r\n\r\n";
  assert.match(await a.asks("wiki", request, "alice"), /^HTTP\/1\.1 200 [\s\S]*alice@a\.example\n/);
  assert.match(await b.asks("wiki", request, "bob"), /^HTTP\/1\.1 200 [\s\S]*bob@b\.example\n/);
  assert.equal((await refusal(a, "wiki", "bob")).status, 404, "the bob of a is not the bob of b");
  assert.deepEqual(answers, ["alice@a.example", "bob@b.example"]);
  const opened = await c.event({ event: "open", user: "alice@a.example" });
  const { session, ...via } = opened["via"] as Readonly<Record<string, unknown>>;
  assert.deepEqual(via, { hops: 2, user: "b", issuer: "b.example" });
  assert.equal(session, (await b.event({ event: "open", user: "alice@a.example" }))["session"]);
});

test("a server may not speak for people of others unless it was told so", async (t) => {
  const lab = await Lab.open(t);
  const keys = { a: await lab.write("a.jwks", '{ "keys": [] }'), b: await lab.write("b.jwks", '{ "keys": [] }') };
  const c = await startLink(
    lab,
    "c",
    { trusts: [{ issuer: "b.example", keys: keys.b, as: ["b"] }], services: { who: { exec: WHO, allow: ["anyone"] } } },
    [{ name: "b" }],
  );
  const b = await startLink(
    lab,
    "b",
    {
      announce: { issuer: "b.example", keys: keys.b },
      trusts: [{ issuer: "a.example", keys: keys.a, as: ["a"] }],
      hops: await hopTo(lab, c, "b"),
      services: { who: { to: `fived://b@${c.address}/who`, announce: "fived", allow: ["anyone"] } },
    },
    [{ name: "a" }, { name: "bob" }],
  );
  const a = await startLink(
    lab,
    "a",
    {
      announce: { issuer: "a.example", keys: keys.a },
      hops: await hopTo(lab, b, "a"),
      services: { who: { to: `fived://a@${b.address}/who`, announce: "fived", allow: ["anyone"] } },
    },
    [{ name: "alice" }],
  );
  assert.equal(await b.asks("who", "", "bob"), "bob@b.example|via\n");
  assert.equal(await a.asks("who", ""), "|\n", "nobody is nobody all the way");
  const error = await refusal(a, "who", "alice");
  assert.equal(error.status, 502);
  const refused = await c.event({ event: "vouching-refused" });
  assert.match(String(refused["reason"]), /not its own/);
});

test("what is not believed is refused, and never done as the outer server", async (t) => {
  const lab = await Lab.open(t);
  const { inner, outer } = await pair(
    lab,
    { who: { exec: WHO, allow: ["anyone", "gateway"] } },
    (to) => ({ who: { to: to("who"), allow: ["anyone"], announce: "fived" } }),
    { trusting: false },
  );
  const error = await refusal(outer, "who", "alice");
  assert.equal(error.status, 502);
  assert.match(error.message, /who: other server cannot be told who is calling/);
  await inner.event({ event: "vouching-refused", user: "gateway", issuer: "outer.example" });
  assert.equal(
    (await inner.audit()).some(({ event }) => event === "open"),
    false,
  );
  assert.equal(await outer.asks("who", ""), "|\n", "to be nobody needs no trust");
});

test("what is unknown there, and what is forbidden there, is as unknown as what is unknown here", async (t) => {
  const lab = await Lab.open(t);
  const { outer } = await pair(lab, { secret: { to: await echo(t), allow: ["root"] } }, (to) => ({
    secret: { to: to("secret"), allow: ["anyone"] },
    gone: { to: to("gone"), allow: ["anyone"] },
  }));
  const heard = new Set<string>();
  for (const name of ["secret", "gone", "none-here"]) {
    const { code, status, message } = await refusal(outer, name);
    heard.add(`${code} ${status} ${message.replace(name, "NAME")}`);
  }
  assert.equal(heard.size, 1, [...heard].join("\n"));
});

test("a server that cannot be reached, or is another one, is a 502, and hears nothing of the caller", async (t) => {
  const lab = await Lab.open(t);
  const inner = await startLink(lab, "inner", { services: { wiki: { to: await echo(t), allow: ["anyone"] } } });
  const said: Buffer[] = [];
  const silent = (await backEnd(t, (socket) => socket.on("data", (octets) => said.push(octets)))).replace("tcp://", "");
  const nowhere = `127.0.0.1:${await freePort()}`;
  const key = `SHA256:${"A".repeat(43)}`;
  const outer = await startLink(lab, "outer", {
    limits: { connect: "500ms" },
    hops: {
      [inner.address]: { key },
      [nowhere]: { key },
      [silent]: { key },
    },
    services: Object.fromEntries(
      Object.entries({ another: inner.address, nowhere, silent }).map(([name, address]) => [
        name,
        { to: `fived://${address}/wiki`, allow: ["anyone"] },
      ]),
    ),
  });
  for (const name of ["another", "nowhere"]) {
    const { status, message } = await refusal(outer, name);
    assert.equal(status, 502, name);
    assert.match(message, new RegExp(`502 ${name}: other server cannot be reached"`));
    assert.doesNotMatch(message, /127\.0\.0\.1:\d|SHA256|pin|key/, "why, and where, is not the caller's business");
  }
  assert.equal((await refusal(outer, "silent")).status, 504);
  assert.equal((await inner.audit()).length, 0);
  assert.equal(Buffer.concat(said)[0], 0x16, "nothing but TLS was said");
  const { reason } = await outer.log.seen("another server is of no use");
  assert.match(String(reason), /its key is SHA256:\S+ .*the one to expect is SHA256:A+/);
});

test("K06 servers that lie behind each other in a circle: the stream ends after eight of them", async (t) => {
  const lab = await Lab.open(t);
  const [first, second] = [await freePort(), await freePort()];
  const circle = async (name: string, port: number, other: number) => {
    const pem = { certificate: lab.path("cert", "host.pem"), key: lab.path("cert", "host.key") };
    return await startLink(lab, name, {
      listen: `tcp://127.0.0.1:${port}`,
      tls: pem,
      hops: { [`127.0.0.1:${other}`]: { key: fingerprint } },
      services: { round: { to: `fived://127.0.0.1:${other}/round`, allow: ["anyone"] } },
    });
  };
  const { fingerprint } = await ownCertificate(lab.path("cert"), ["localhost"]);
  const a = await circle("a", first, second);
  const b = await circle("b", second, first);
  const error = await refusal(a, "round");
  assert.equal(error.status, 508);
  assert.match(error.message, /508 round: the way to it goes through too many servers/);
  const refused = (await Promise.all([a, b].map((link) => link.audit()))).flat();
  assert.equal(refused.filter(({ event, code }) => event === "refused" && code === 508).length, 9);
});

test("ends, cuts and back pressure pass through both servers", async (t) => {
  const lab = await Lab.open(t);
  const sockets: Socket[] = [];
  const arrived = async (at: number): Promise<Socket> =>
    await eventually(async () => {
      const socket = sockets[at];
      assert.ok(socket);
      return socket;
    }, "a connection of the back end");
  const to = await backEnd(t, (socket) => sockets.push(socket.pause()));
  const { inner, outer } = await pair(lab, { raw: { to, allow: ["gateway"] } }, (there) => ({
    raw: { to: there("raw"), allow: ["anyone"] },
  }));

  await t.test("half-close goes one way, and the other stays open", async () => {
    const stream = outer.opens("raw");
    stream.end("question");
    const socket = await arrived(0);
    assert.equal((await buffer(socket)).toString(), "question");
    socket.end("answer");
    assert.equal((await buffer(stream)).toString(), "answer");
    const closed = await inner.event({ event: "close" });
    assert.deepEqual([closed["why"], closed["received"], closed["sent"]], ["ended", 8, 6]);
    const outside = await outer.event({ event: "close" });
    assert.deepEqual([outside["why"], outside["received"], outside["sent"]], ["ended", 8, 6]);
  });

  await t.test("the other way round", async () => {
    const stream = outer.opens("raw");
    await once(stream, "connect");
    const socket = await arrived(1);
    socket.end("first");
    assert.equal((await buffer(stream)).toString(), "first");
    stream.end("then");
    assert.equal((await buffer(socket)).toString(), "then");
  });

  await t.test("the caller's cut reaches the back end as one", async () => {
    const stream = outer.opens("raw");
    await once(stream, "connect");
    const socket = await arrived(2);
    const broken = once(socket.resume(), "error");
    stream.destroy();
    const [error] = await within(broken, "a reset");
    assert.equal(error.code, "ECONNRESET");
  });

  await t.test("the back end's cut reaches the caller as one", async () => {
    const stream = outer.opens("raw");
    await once(stream, "connect");
    (await arrived(3)).resetAndDestroy();
    const [error] = await within(once(stream, "error"), "a reset");
    assert.equal(error.code, "STREAM_RESET");
  });

  await t.test("a back end that does not read stops the caller, and the servers hold little", async () => {
    const stream = outer.opens("raw");
    await once(stream, "connect");
    const socket = await arrived(4);
    const bytes = 64 * 1024 * 1024;
    const sent = { bytes: 0 };
    const pumping = pump(stream, bytes, sent);
    let before = -1;
    await eventually(async () => {
      const now = sent.bytes;
      const still = now === before;
      before = now;
      assert.ok(still && now > 0);
    }, "the caller to be stopped");
    assert.ok(sent.bytes < bytes / 2, `${sent.bytes} octets were taken`);
    let got = 0;
    socket.on("data", (chunk: Buffer) => {
      got += chunk.length;
    });
    await once(socket.resume(), "end");
    socket.end();
    await pumping;
    await buffer(stream);
    assert.equal(got, bytes);
  });
});

async function pump(stream: Duplex, bytes: number, sent: { bytes: number }): Promise<void> {
  const chunk = Buffer.alloc(64 * 1024, 7);
  while (sent.bytes < bytes) {
    sent.bytes += chunk.length;
    if (!stream.write(chunk)) await once(stream, "drain");
  }
  stream.end();
}

test("a server that was restarted is found again, and its session is opened before somebody asks", async (t) => {
  const lab = await Lab.open(t);
  const state = lab.path("inner");
  await fs.mkdir(state, { mode: 0o700 });
  const port = await freePort();
  const to = await echo(t);
  const file = await lab.write(
    "inner.yaml",
    JSON.stringify({ listen: `tcp://127.0.0.1:${port}`, services: { wiki: { to, allow: ["anyone"] } } }),
  );
  const start = async () => await serve(await loadConfiguration(file, { state }));
  const first = await start();
  const outer = await startLink(lab, "outer", {
    hops: { [`127.0.0.1:${port}`]: { key: first.fingerprint } },
    services: { wiki: { to: `fived://127.0.0.1:${port}/wiki`, allow: ["anyone"] } },
  });
  assert.equal(await outer.asks("wiki", "before"), "before");
  await first[Symbol.asyncDispose]();
  await outer.log.seen("the session with another server is lost");
  assert.equal((await refusal(outer, "wiki")).status, 502);
  await using second = await start();
  assert.equal(second.fingerprint, first.fingerprint);
  assert.equal(await outer.asks("wiki", "after"), "after");
});

test("more streams than a session there takes are carried by several", async (t) => {
  const lab = await Lab.open(t);
  const { inner, outer } = await pair(
    lab,
    { wiki: { to: await echo(t), allow: ["gateway"] } },
    (to) => ({ wiki: { to: to("wiki"), allow: ["anyone"] } }),
    { inner: { limits: { streams: 10 } } },
  );
  const open = await Promise.all(
    Array.from({ length: 8 * 3 }, async (_, at) => {
      // Nobody has eight streams in a session here.
      const stream = connect(outer.address, "wiki", { ...outer.as(), knownHosts: lab.path(`known_hosts_${at % 4}`) });
      stream.write(`${at}`);
      assert.equal(String((await within(once(stream, "data"), "an echo"))[0]), `${at}`);
      return stream;
    }),
  );
  await Promise.all(open.map((stream) => buffer(stream.end())));
  const signIns = (await inner.audit()).filter(({ event }) => event === "sign-in");
  assert.ok(signIns.length >= 3, `${signIns.length} sessions`);
});

test("a gateway: all services of another server under a suffix, each for those who may use it there", async (t) => {
  const lab = await Lab.open(t);
  const { outer } = await pair(
    lab,
    {
      Wiki: { to: await echo(t), allow: ["anyone"] },
      hers: { exec: WHO, allow: ["alice@outer.example"] },
      gateways: { exec: WHO, allow: ["gateway"] },
      ["n".repeat(64)]: { exec: WHO, allow: ["anyone"] },
    },
    (to) => ({
      local: { to: to("hers"), allow: ["alice"], announce: "fived" },
      "*.inner": { to: to("*"), allow: ["anyone"], announce: "fived" },
    }),
  );
  const listed = async (user?: string, name?: string) => {
    await using session = await outer.session(user);
    return (await session.list(name)).filter((each) => each !== each.toUpperCase());
  };
  assert.deepEqual(await listed(), ["Wiki.inner"]);
  assert.deepEqual(await listed("alice"), ["local", "Wiki.inner", "hers.inner"]);
  assert.deepEqual(await listed("bob", "hers.inner"), []);
  assert.deepEqual(await listed("alice", "HERS.inner"), ["hers.inner"]);
  assert.deepEqual(await listed("alice", "wiki.INNER"), ["Wiki.inner"]);
  assert.equal(await outer.asks("wiki.inner", "hello"), "hello");
  assert.equal(await outer.asks("hers.inner", "", "alice"), "alice@outer.example|via\n");
  // Words of the protocol are no services there, and would be obeyed.
  for (const name of ["hers.inner", "gateways.inner", "none.inner", "list.inner", "auth.inner", "via.inner", ".inner"])
    assert.ok([404, undefined].includes((await refusalOrBad(outer, name, "bob"))?.status), name);
  const opened = await outer.event({ event: "open", service: "wiki.inner" });
  assert.equal(opened["host"], undefined);
});

async function refusalOrBad(link: Link, service: string, user: string): Promise<FivedError | undefined> {
  try {
    return await refusal(link, service, user);
  } catch (error) {
    assert.ok(error instanceof FivedError && error.code === "ADDRESS_BAD", String(error));
    return undefined;
  }
}

test("a right that ends at either server cuts the streams that had it", async (t) => {
  const lab = await Lab.open(t);
  const to = await echo(t);
  const { inner, outer, settings } = await pair(
    lab,
    { wiki: { to, allow: ["alice@outer.example", "gateway"] } },
    (there) => ({
      wiki: { to: there("wiki"), allow: ["anyone"], announce: "fived" },
      own: { to: there("wiki"), allow: ["anyone"] },
    }),
  );
  const opened = async (service: string, user?: string) => {
    const stream = outer.opens(service, user);
    stream.write("x");
    await within(once(stream, "data"), "an echo");
    return { stream, cut: once(stream, "error") };
  };
  const [hers, own] = [await opened("wiki", "alice"), await opened("own")];
  await inner.reload({ ...settings, trusts: [] });
  const [error] = await within(hers.cut, "a cut");
  assert.equal(error.code, "STREAM_RESET");
  assert.equal((await inner.event({ event: "close" }))["why"], "access withdrawn");
  own.stream.write("still here");
  assert.equal(String((await once(own.stream, "data"))[0]), "still here");
  assert.equal((await refusal(outer, "wiki", "alice")).status, 502);
  await inner.reload(settings);
  assert.equal(await outer.asks("wiki", "again", "alice"), "again");
  await inner.reload({ ...settings, services: { wiki: { to, allow: ["alice@outer.example"] } } });
  assert.equal((await within(own.cut, "a cut"))[0].code, "STREAM_RESET");
});

test("a reload that changes nothing of it keeps the session; one that takes it away lets its streams finish", async (t) => {
  const lab = await Lab.open(t);
  const inner = await startLink(
    lab,
    "inner",
    { services: { wiki: { to: await echo(t), allow: ["anyone"] } } },
    GATEWAY,
  );
  const hops = await hopTo(lab, inner, "gateway");
  const services = { wiki: { to: `fived://gateway@${inner.address}/wiki`, allow: ["anyone"] } };
  const outer = await startLink(lab, "outer", { hops, services });
  const stream = outer.opens("wiki");
  stream.write("one");
  assert.equal(String((await once(stream, "data"))[0]), "one");
  await outer.reload({ hops, services: { ...services, more: services.wiki } });
  assert.equal(await outer.asks("more", "two"), "two");
  const signIns = async () => (await inner.audit()).filter(({ event }) => event === "sign-in").length;
  assert.equal(await signIns(), 1);
  await outer.reload({ services: {} });
  stream.end("three");
  assert.equal((await buffer(stream)).toString(), "three");
  await outer.reload({ hops, services });
  assert.equal(await outer.asks("wiki", "four"), "four");
  assert.equal(await signIns(), 2);
});

test("a server signs in with an SSH key, and knows the other one by pins", {
  skip: needs("ssh-keygen"),
}, async (t) => {
  const lab = await Lab.open(t);
  const key = await makeKey(lab, "id_gateway");
  const inner = await startLink(lab, "inner", { services: { who: { exec: WHO, allow: ["gateway"] } } }, [
    { name: "gateway", keys: [key.line] },
  ]);
  const { port } = new URL(inner.server.addresses[0] ?? "");
  // Pins, as a client keeps them.
  const pins = lab.path("pins");
  await using session = await connect(`127.0.0.1:${port}`, { knownHosts: pins, strictHostKeyChecking: "accept-new" });
  assert.ok((await session.list()).length > 0);
  const outer = await startLink(lab, "outer", {
    hops: {
      [`gateway@127.0.0.1:${port}`]: { knownHosts: pins, identity: key.file },
      [`stranger@127.0.0.1:${port}`]: { knownHosts: pins, identity: key.file },
      [`localhost:${port}`]: { knownHosts: pins },
    },
    services: {
      pinned: { to: `fived://gateway@127.0.0.1:${port}/who`, allow: ["anyone"] },
      stranger: { to: `fived://stranger@127.0.0.1:${port}/who`, allow: ["anyone"] },
      unknown: { to: `fived://localhost:${port}/who`, allow: ["anyone"] },
    },
  });
  assert.equal(await outer.asks("pinned", ""), "gateway|pubkey\n");
  assert.equal((await refusal(outer, "stranger")).status, 502);
  const before = await fs.readFile(pins, "utf8");
  assert.equal((await refusal(outer, "unknown")).status, 502);
  assert.equal(await fs.readFile(pins, "utf8"), before, "nothing is pinned without being asked for");
});

test("a server knows the other one by an authority, for the name that is configured", {
  skip: needs("openssl", "namespaces"),
}, async (t) => {
  const lab = await Lab.open(t);
  const pem = (name: string) => lab.path(name);
  const openssl = async (...args: readonly string[]) => {
    const { status, stderr } = await lab.run(["openssl", ...args]);
    assert.equal(status, 0, stderr);
  };
  const subject = ["-newkey", "ed25519", "-nodes", "-days", "2"];
  await openssl("req", "-x509", ...subject, "-keyout", pem("ca.key"), "-out", pem("ca.pem"), "-subj", "/CN=authority");
  const issued = ["-CA", pem("ca.pem"), "-CAkey", pem("ca.key"), "-addext", "subjectAltName=DNS:inner.test"];
  const leaf = [...issued, "-addext", "basicConstraints=critical,CA:FALSE"];
  await openssl(
    "req",
    "-x509",
    ...subject,
    ...leaf,
    "-keyout",
    pem("in.key"),
    "-out",
    pem("in.pem"),
    "-subj",
    "/CN=in",
  );
  await fs.chmod(pem("in.key"), 0o600);
  const inner = await startLink(lab, "inner", {
    tls: { certificate: pem("in.pem"), key: pem("in.key") },
    services: { who: { exec: WHO, allow: ["anyone"] } },
  });
  const { port } = new URL(inner.server.addresses[0] ?? "");
  const names = ["inner.test", "other.test"].map((name) => `${name}:${port}`);
  const file = await lab.write(
    "outer.yaml",
    JSON.stringify({
      listen: "tcp://127.0.0.1:0",
      hops: Object.fromEntries(names.map((name) => [name, { ca: pem("ca.pem") }])),
      services: Object.fromEntries(
        names.map((name) => [name.slice(0, 5), { to: `fived://${name}/who`, allow: ["anyone"] }]),
      ),
    }),
  );
  const command = fived("serve", "-c", file, "--state", lab.path("outer"));
  const hosts = { "inner.test": "127.0.0.1", "other.test": "127.0.0.1" };
  const outer = lab.start(await withHosts(lab, hosts, command));
  const [, address = ""] = await outer.hears(/listening on tcp:\/\/(\S+)/);
  assert.match(outer.said, new RegExp(`service inner -> fived://inner\\.test:${port}/who`));
  const answer = await lab.run(client("connect", address, "inner"));
  assert.equal(answer.stdout.toString(), "|\n", answer.stderr);
  assert.equal((await lab.run(client("connect", address, "other"))).status, 255);
  assert.match(outer.complained, /its certificate is not valid/);
});
