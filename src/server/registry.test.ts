import assert from "node:assert/strict";
import { once } from "node:events";
import { mkdir, mkdtemp, rm, writeFile } from "node:fs/promises";
import { createServer as createBackEnd } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { buffer } from "node:stream/consumers";
import test, { type TestContext } from "node:test";
import { connect, createServer } from "node:tls";
import fc from "fast-check";
import { KeysWhenNeeded } from "./announce/keys.ts";
import { FakeTalk, RecordingLog } from "./backends/fake-talk.test.ts";
import { ownCertificate } from "./certificate.ts";
import { loadConfiguration } from "./config.ts";
import { Hops } from "./hops.ts";
import { type Log, silentLog } from "./log.ts";
import { buildRegistry, type Published, type Registry, type RegistryOptions } from "./registry.ts";
import { SeenVouchings } from "./trusts.ts";

async function temporaryFolder(t: TestContext): Promise<string> {
  const folder = await mkdtemp(join(tmpdir(), "fived-registry-"));
  t.after(() => rm(folder, { recursive: true, force: true }));
  return folder;
}

/** The registry of a configuration; files beside it must be there already. */
function lasting(log: Log): RegistryOptions {
  return {
    log,
    announceKeys: new KeysWhenNeeded(),
    hops: new Hops(undefined, log),
    seenVouchings: new SeenVouchings(),
  };
}

async function registryOf(
  t: TestContext,
  yaml: string,
  options: { folder?: string; log?: Log } = {},
): Promise<Registry> {
  const { folder = await temporaryFolder(t), log = silentLog } = options;
  const file = join(folder, "fived.yaml");
  await writeFile(file, yaml);
  const registry = await buildRegistry(await loadConfiguration(file, { state: join(folder, "state") }), {
    ...lasting(log),
  });
  t.after(() => registry[Symbol.asyncDispose]());
  return registry;
}

/** Names of the services at a host. */
function namesAt(registry: Registry, host?: string): readonly string[] | undefined {
  const services = registry.host(host)?.services.values();
  return services === undefined ? undefined : [...services].map(({ name }) => name);
}

const TWO_HOSTS = `
services: { Web: { to: 1, allow: [anyone] }, ssh: { to: 2, allow: [anyone] } }
hosts:
  git.example.org: { services: { ssh: { to: 3, allow: [anyone] } } }
  bücher.example: {}
`;

test("a host is found under each spelling of its name, and the default host under none of them", async (t) => {
  const registry = await registryOf(t, TWO_HOSTS);
  for (const name of ["git.example.org", "GIT.Example.ORG.", "git.EXAMPLE.org"]) {
    assert.deepEqual(namesAt(registry, name), ["ssh"]);
    assert.equal(registry.host(name)?.name, "git.example.org");
  }
  for (const name of ["bücher.example", "xn--bcher-kva.example"]) assert.deepEqual(namesAt(registry, name), []);
  for (const name of [undefined, "127.0.0.1", "::1", "[::1]", "localhost", "LOCALHOST."]) {
    assert.deepEqual(namesAt(registry, name), ["Web", "ssh"]);
    assert.equal(registry.host(name)?.name, undefined);
  }
  for (const name of ["", "example.org", "git.example.org:80", "__proto__", "constructor", "a\0b", "x".repeat(300)]) {
    assert.equal(registry.host(name), undefined, name);
  }
});

test("services are found by their names in lower case, and keep their spelling", async (t) => {
  const services = (await registryOf(t, TWO_HOSTS)).host(undefined)?.services;
  assert.equal(services?.get("web")?.name, "Web");
  assert.equal(services?.get("web")?.service.word, "Web");
  for (const name of ["Web", "__proto__", "constructor", "toString"]) assert.equal(services?.get(name), undefined);
});

test("hosts that show the same certificate are one group, others are not", async (t) => {
  const folder = await temporaryFolder(t);
  for (const name of ["a", "b"]) await mkdir(join(folder, name), { mode: 0o700 });
  await ownCertificate(join(folder, "a"), ["a.example", "c.example"]);
  await ownCertificate(join(folder, "b"), ["b.example"]);
  const a = "tls: { certificate: a/host.pem, key: a/host.key }";
  const b = "tls: { certificate: b/host.pem, key: b/host.key }";
  const yaml = `hosts: { a.example: { ${a} }, c.example: { ${a} }, b.example: { ${b} }, d.example: {} }`;
  const registry = await registryOf(t, yaml, { folder });
  const group = (name?: string) => registry.host(name)?.group;
  assert.equal(group("a.example"), group("c.example"));
  assert.equal(group("d.example"), group());
  assert.equal(new Set([group("a.example"), group("b.example"), group()]).size, 3);
  assert.equal(registry.fingerprint, registry.host(undefined)?.certificate.fingerprint);
  assert.equal(registry.secureContextFor("A.example."), registry.secureContextFor("c.example"));
  assert.equal(registry.secureContextFor("nobody.example"), registry.secureContextFor(undefined));

  const one = await registryOf(t, `${a}\nhosts: { a.example: { ${a} }, b.example: { ${b} } }`, { folder });
  assert.equal(one.host("a.example")?.group, one.host(undefined)?.group);
});

test("a TLS client is shown the certificate of the host it names, whatever the case", async (t) => {
  const folder = await temporaryFolder(t);
  await mkdir(join(folder, "a"), { mode: 0o700 });
  await ownCertificate(join(folder, "a"), ["a.example"]);
  const yaml = "hosts: { a.example: { tls: { certificate: a/host.pem, key: a/host.key } }, b.example: {} }";
  const registry = await registryOf(t, yaml, { folder });
  const server = createServer({
    ...registry.host(undefined)?.certificate.context,
    SNICallback: (name, done) => done(null, registry.secureContextFor(name)),
  });
  server.on("tlsClientError", () => {}).on("secureConnection", (socket) => socket.on("error", () => {}));
  t.after(() => server.close());
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  const address = server.address();
  assert.ok(typeof address === "object" && address !== null);
  const shown = async (servername: string | undefined) => {
    const host = { host: "127.0.0.1", port: address.port, rejectUnauthorized: false };
    const socket = connect(servername === undefined ? host : { ...host, servername });
    await once(socket, "secureConnect");
    const { fingerprint256 } = socket.getPeerCertificate();
    socket.destroy();
    return fingerprint256;
  };
  const own = registry.host("a.example")?.group;
  const standard = registry.host(undefined)?.group;
  assert.notEqual(own, standard);
  assert.deepEqual(await Promise.all(["a.example", "A.EXAMPLE"].map(shown)), [own, own]);
  const others = ["b.example", "nobody.example", "__proto__", "x".repeat(255), undefined];
  assert.deepEqual(
    await Promise.all(others.map(shown)),
    others.map(() => standard),
  );
});

test("no name makes the look-up of a certificate throw", async (t) => {
  const registry = await registryOf(t, TWO_HOSTS);
  fc.assert(
    fc.property(fc.oneof(fc.string(), fc.string({ unit: "binary" }), fc.domain(), fc.ipV6()), (name) => {
      registry.secureContextFor(name);
      registry.host(name);
    }),
  );
});

test("ten thousand services are there well within a second, in the order of the configuration", async (t) => {
  const folder = await temporaryFolder(t);
  const names = Array.from({ length: 10_000 }, (_, n) => `s${(n * 7_919) % 10_000}`);
  const file = join(folder, "fived.yaml");
  await writeFile(file, `services:\n${names.map((name) => `  ${name}: { to: 1, allow: [anyone] }\n`).join("")}`);
  const configuration = await loadConfiguration(file, { state: join(folder, "state") });
  const started = performance.now();
  const registry = await buildRegistry(configuration, lasting(silentLog));
  const tookMs = performance.now() - started;
  t.after(() => registry[Symbol.asyncDispose]());
  assert.deepEqual(namesAt(registry), names);
  assert.ok(tookMs < 1_000, `took ${tookMs} ms`);
});

test("a registry that is disposed ends its checks and leaves streams alone", async (t) => {
  const backEnd = createBackEnd({ allowHalfOpen: true }, (socket) => socket.on("error", () => {}).pipe(socket));
  t.after(() => backEnd.close());
  backEnd.listen(0, "127.0.0.1");
  await once(backEnd, "listening");
  const address = backEnd.address();
  assert.ok(typeof address === "object" && address !== null);
  const yaml = `services: { web: { to: ${address.port}, health: { interval: 5ms }, allow: [anyone] } }`;
  const registry = await registryOf(t, yaml);
  await once(backEnd, "connection"); // a check
  const talk = new FakeTalk();
  assert.equal(await registry.host(undefined)?.services.get("web")?.service.serve(talk), "bytes");
  await registry[Symbol.asyncDispose]();
  talk.backEnd.input.end("still here");
  assert.equal(String(await buffer(talk.backEnd.output)), "still here");
});

test("a module that cannot be loaded is told with its place, and nothing is left running", async (t) => {
  const folder = await temporaryFolder(t);
  await writeFile(join(folder, "broken.ts"), "export const nothing = 1;\n");
  const log = new RecordingLog();
  const yaml = `services:
  checked: { to: 1, health: { interval: 1ms }, allow: [anyone] }
  broken: { module: broken.ts, allow: [anyone] }
`;
  await assert.rejects(registryOf(t, yaml, { folder, log }), {
    code: "CONFIGURATION_BAD",
    message: /fived\.yaml:3:3 services\.broken: Cannot load .*broken\.ts: its default export is no service/,
  });
});

test("each kind of back end is served", async (t) => {
  const folder = await temporaryFolder(t);
  await writeFile(
    join(folder, "hi.js"),
    'import { service } from "fived";\nexport default service("x", (s) => { s.end("hi"); });\n',
  );
  const yaml = `services:
  clock: { exec: [echo, tick], allow: [anyone] }
  hi: { module: hi.js, allow: [anyone] }
  gone: { to: "unix:none", allow: [anyone] }
`;
  const services = (await registryOf(t, yaml, { folder })).host(undefined)?.services;
  const serve = async (published: Published | undefined) => {
    const talk = new FakeTalk(published?.name);
    return [await published?.service.serve(talk), talk] as const;
  };
  const [clock, ticking] = await serve(services?.get("clock"));
  assert.equal(clock, "bytes");
  assert.equal(String(await buffer(ticking.backEnd.output)), "tick\n");
  const [hi, greeting] = await serve(services?.get("hi"));
  assert.equal(hi, "bytes");
  assert.equal(String(await buffer(greeting.far)), "hi");
  const [gone, refused] = await serve(services?.get("gone"));
  assert.equal(gone, "closed");
  assert.deepEqual(refused.said, ["- 502 gone: back end cannot be reached"]);
});

test("a certificate that ends soon, or has ended, is worth a warning", async (t) => {
  const folder = await temporaryFolder(t);
  await mkdir(join(folder, "a"), { mode: 0o700 });
  await ownCertificate(join(folder, "a"), ["a.example"]);
  t.mock.timers.enable({ apis: ["Date"], now: Date.now() + 11 * 366 * 24 * 3_600_000 });
  const log = new RecordingLog();
  await registryOf(t, "tls: { certificate: a/host.pem, key: a/host.key }", { folder, log });
  assert.match(String((await log.seen("the certificate needs to be renewed")).reason), /^it ended on \d{4}-\d\d-\d\d$/);
});
