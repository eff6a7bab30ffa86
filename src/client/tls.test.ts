import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { randomBytes } from "node:crypto";
import { once } from "node:events";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { mkdtemp, rm } from "node:fs/promises";
import { connect, createServer, type Server, Socket } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import test, { after, type TestContext } from "node:test";
import { createServer as createTlsServer, TLSSocket, type TlsOptions } from "node:tls";
import { type ErrorCode, FivedError, fingerprintOf } from "../io/index.ts";
import { parseAddress } from "./address.ts";
import { knownHosts, type PinStore, pinName } from "./known-hosts.ts";
import { type Secured, type SecureOptions, secure, secureInBand, type Target } from "./tls.ts";
import { connected } from "./transports/tcp.ts";
import { type HostKeyChecking, trustWith } from "./trust.ts";

const folder = mkdtempSync(join(tmpdir(), "fived-tls-"));
after(() => rmSync(folder, { recursive: true }));
const ca = join(folder, "authority.cert");
const openssl = hasOpenssl();
const skip = !openssl && "needs openssl";

interface Identity {
  readonly key: Buffer;
  readonly cert: Buffer;
}

/** Made once: the certificates of servers that are themselves, somebody else, or vouched for by an authority. */
const certificates = openssl
  ? {
      ed25519: selfSigned("ed25519", ["-newkey", "ed25519"], "DNS:example.org"),
      other: selfSigned("other", ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"], "DNS:example.org"),
      rsa: selfSigned("rsa", ["-newkey", "rsa:2048"], "DNS:example.org"),
      ed448: selfSigned("ed448", ["-newkey", "ed448"], "DNS:example.org"),
      authority: selfSigned("authority", ["-newkey", "ed25519"], "DNS:authority.test"),
      vouched: signed("vouched", [
        "-addext",
        "subjectAltName=DNS:example.org,DNS:*.wild.test,DNS:localhost,IP:127.0.0.1",
      ]),
      nameless: signed("nameless", ["-subj", "/CN=example.org"]),
      client: signed("client", ["-addext", "subjectAltName=DNS:example.org", "-addext", "extendedKeyUsage=clientAuth"]),
    }
  : undefined;

test("bytes go both ways with a server that was pinned, over TCP and over a Unix socket", { skip }, async (t) => {
  const path = join(await temporaryFolder(t), "socket");
  for (const [where, address] of [
    [undefined, "example.org"],
    [path, `unix:${path}`],
  ] as const) {
    const server = await tlsServer(t, {}, where);
    const pins = await store(t);
    const first = await meet(t, server, { address, pins, checking: "accept-new" });
    assert.equal(first.grounds, "accepted-new");
    const second = await meet(t, server, { address, pins, checking: "yes" });
    assert.equal(second.grounds, "pinned");
    assert.equal(fingerprintOf(second.hostKey), fingerprintOf(first.hostKey));
    assert.deepEqual([second.socket.alpnProtocol, second.socket.getProtocol()], ["fived/1", "TLSv1.3"]);
    second.socket.end("ping");
    assert.equal(await text(second.socket), "ping");
  }
});

test("keys of every kind become host keys, and a kind OpenSSH does not know is refused", { skip }, async (t) => {
  for (const [kind, type] of [
    ["ed25519", "ssh-ed25519"],
    ["other", "ecdsa-sha2-nistp256"],
    ["rsa", "ssh-rsa"],
  ] as const) {
    const { hostKey } = await meet(t, await tlsServer(t, identity(kind)), { checking: "accept-new" });
    assert.equal(hostKey.type, type);
  }
  await refused(t, await tlsServer(t, identity("ed448")), "HOST_KEY_UNSUPPORTED", { checking: "off" });
});

test("the server learns names as SNI, and nothing of IP addresses, localhost and Unix sockets", { skip }, async (t) => {
  const seen: unknown[] = [];
  const server = await tlsServer(t);
  server.server.on("secureConnection", (socket: TLSSocket) => seen.push(socket.servername));
  for (const address of [
    "Example.ORG.",
    "127.0.0.1",
    "[::1]",
    "localhost",
    "unix:/x",
    "fived://127.0.0.1?host=git.example.org",
  ]) {
    const { socket } = await meet(t, server, { address, checking: "off" });
    socket.end();
    await text(socket); // the server has seen us by now
  }
  assert.deepEqual(seen, ["example.org", false, false, false, false, "git.example.org"]);
});

test("O01 an unknown server is refused, and hears nothing but the handshake", { skip }, async (t) => {
  for (const checking of ["yes", "ask"] as const) {
    const server = await tlsServer(t);
    const error = await refused(t, server, "HOST_KEY_UNKNOWN", { checking });
    assert.match(error.message, /DEPTH_ZERO_SELF_SIGNED_CERT|SELF_SIGNED/);
    assert.equal(await server.heard(), "");
  }
});

test("O02 a changed key ends the connection before anything is said", { skip }, async (t) => {
  const pins = await store(t);
  await meet(t, await tlsServer(t), { pins, checking: "accept-new" });
  for (const checking of ["yes", "accept-new", "ask"] as const) {
    const impostor = await tlsServer(t, identity("other"));
    await refused(t, impostor, "HOST_KEY_CHANGED", { pins, checking });
    assert.equal(await impostor.heard(), "");
  }
});

test("a certificate from an authority is enough for its name, leaves no pin, and nothing less is", {
  skip,
}, async (t) => {
  const server = await tlsServer(t, identity("vouched"));
  const pins = await store(t);
  for (const address of ["example.org", "a.wild.test", "fived://127.0.0.1?host=example.org"]) {
    const { grounds, hostKey } = await meet(t, server, { address, pins, ca, checking: "yes" });
    assert.equal(grounds, "pki");
    assert.equal((await pins.find(pinName(parseAddress(address)), hostKey)).type, "unknown");
  }
  // Another name, the wildcard one label too deep, and addresses: authorities vouch for names only.
  for (const address of ["example.com", "a.b.wild.test", "127.0.0.1", "localhost"]) {
    await refused(t, server, "HOST_KEY_UNKNOWN", { address, pins, ca, checking: "yes" });
  }
  await refused(t, server, "HOST_KEY_UNKNOWN", { pins, checking: "yes" }); // without the authority
  for (const kind of ["nameless", "client", "ed25519"] as const) {
    await refused(t, await tlsServer(t, identity(kind)), "HOST_KEY_UNKNOWN", { pins, ca, checking: "yes" });
  }
});

test("O02 a pin beats an authority: a valid certificate with another key is a changed key", { skip }, async (t) => {
  const pins = await store(t);
  await meet(t, await tlsServer(t), { pins, checking: "accept-new" });
  await refused(t, await tlsServer(t, identity("vouched")), "HOST_KEY_CHANGED", { pins, ca, checking: "accept-new" });
});

test("a CA file that is none is told with its name", { skip }, async (t) => {
  const server = await tlsServer(t);
  const garbage = join(await temporaryFolder(t), "ca.pem");
  writeFileSync(garbage, "-----BEGIN CERTIFICATE-----\nnone\n-----END CERTIFICATE-----\n");
  for (const file of [garbage, `${garbage}.absent`]) {
    const socket = await target(t, server, { given: true });
    assert.ok(socket instanceof Socket);
    const error = await failing(secure(socket, await optionsOf(t, { ca: file })), "CONFIGURATION_BAD");
    assert.ok(error.message.includes(file));
    assert.ok(socket.destroyed);
  }
});

test("T11 a server without ALPN, or with another protocol, is refused though its key is pinned", {
  skip,
}, async (t) => {
  const pins = await store(t);
  await meet(t, await tlsServer(t), { pins, checking: "accept-new" });
  for (const options of [
    { ALPNProtocols: [] },
    { ALPNProtocols: ["h2", "http/1.1"] },
    { ALPNProtocols: ["fived/2"] },
  ]) {
    const server = await tlsServer(t, options);
    await refused(t, server, "ALPN_MISSING", { pins });
  }
});

test("a server of an older TLS is refused", { skip }, async (t) => {
  await refused(t, await tlsServer(t, { maxVersion: "TLSv1.2" }), "TLS_FAILED", { checking: "off" });
});

test("T17 no session is resumed, so that a key that changed between two connections is seen", { skip }, async (t) => {
  const pins = await store(t);
  const ticketKeys = randomBytes(48);
  const genuine = await tlsServer(t, { ticketKeys });
  const resumed: boolean[] = [];
  genuine.server.on("secureConnection", (socket: TLSSocket) => resumed.push(socket.isSessionReused()));
  for (let i = 0; i < 3; i++) {
    const { socket } = await meet(t, genuine, { pins, checking: "accept-new" });
    socket.end("x");
    assert.equal(await text(socket), "x"); // tickets have arrived by now
  }
  assert.deepEqual(resumed, [false, false, false]);
  await refused(t, await tlsServer(t, { ticketKeys, ...identity("other") }), "HOST_KEY_CHANGED", { pins });
});

test("a server that is silent, closes or talks plaintext instead of TLS is told apart", { skip }, async (t) => {
  const silent = await plainServer(t, () => {});
  await refused(t, silent, "TIMEOUT", { timeoutMs: 50 });
  await refused(t, silent, "TIMEOUT", { signal: AbortSignal.timeout(50) });
  await refused(t, await plainServer(t, (socket) => socket.end()), "TLS_FAILED");
  const resetting = await plainServer(t, (socket) => socket.once("data", () => socket.resetAndDestroy()));
  await refused(t, resetting, "TLS_FAILED");
  const error = await refused(t, await plainServer(t, (socket) => socket.end("220 ready\r\n")), "TLS_FAILED");
  assert.match(error.message, /example\.org/);
});

test("who is called off is told so, before, while connecting and while waiting for a decision", { skip }, async (t) => {
  const silent = await plainServer(t, () => {});
  await refused(t, silent, "ABORTED", { signal: AbortSignal.abort() });
  const caller = new AbortController();
  silent.server.once("connection", () => caller.abort());
  await refused(t, silent, "ABORTED", { signal: caller.signal });
  const asked = new AbortController();
  const ask = () => {
    asked.abort();
    return new Promise<boolean>(() => {});
  };
  await refused(t, await tlsServer(t), "ABORTED", { signal: asked.signal, ask });
});

test("a server that hung up while the user read the fingerprint is dialled again, with the pin by then", {
  skip,
}, async (t) => {
  const server = await tlsServer(t);
  const pins = await store(t);
  let questions = 0;
  const ask = async () => {
    questions += 1;
    await hangUp(server, "- 408 too slow\r\n");
    return true;
  };
  const { socket, grounds } = await meet(t, server, { pins, ask });
  socket.end("ping");
  assert.equal(await text(socket), "ping");
  assert.deepEqual([questions, grounds, server.met.length], [1, "pinned", 2]);
});

test("a given socket that was closed during the question cannot be dialled again, and the user is told to", {
  skip,
}, async (t) => {
  const server = await tlsServer(t);
  const pins = await store(t);
  const ask = async () => {
    await hangUp(server, "");
    return true;
  };
  const error = await refused(t, server, "CONNECT_FAILED", { pins, ask, given: true });
  assert.match(error.message, /connect again/);
  assert.equal((await meet(t, server, { pins, given: true })).grounds, "pinned");
});

test("a server that speaks first without any question is left to the caller", { skip }, async (t) => {
  const server = await tlsServer(t);
  server.server.on("secureConnection", (socket: TLSSocket) => socket.end("- 429 too many\r\n"));
  const { socket } = await meet(t, server, { checking: "accept-new" });
  socket.end();
  assert.equal(await text(socket), "- 429 too many\r\n");
  assert.equal(server.met.length, 1);
});

test("in-band: TLS is asked for, and bytes go both ways after it", { skip }, async (t) => {
  const server = await inBandServer(t, (socket) => {
    for (const octet of "+ SUCCESS\r\n") socket.write(octet);
    return true;
  });
  for (const given of [true, false]) {
    const { socket } = await meetInBand(t, server, { given });
    assert.equal(socket.alpnProtocol, "fived/1");
    socket.end("ping");
    assert.equal(await text(socket), "ping");
  }
});

test("T03 an octet behind the answer to TLS ends the connection before a ClientHello", { skip }, async (t) => {
  for (const injected of ["+ injected\r\n", "\0", "-", "\r\n", "\u0016\u0003\u0001"]) {
    const server = await inBandServer(t, (socket) => {
      socket.write(`+ SUCCESS\r\n${injected}`, "latin1");
      return false;
    });
    await refusedInBand(t, server, "PROTOCOL_ERROR");
    assert.equal(await server.heard(), "TLS\r\n");
  }
});

test("T03 an octet that arrives after the answer goes to TLS, which ends, and never becomes a reply", {
  skip,
}, async (t) => {
  const server = await inBandServer(t, (socket) => {
    socket.write("+ SUCCESS\r\n");
    socket.once("data", () => socket.write("+ injected\r\n+ injected\r\n"));
    return false;
  });
  await refusedInBand(t, server, "TLS_FAILED");
  assert.ok((await server.heard()).startsWith("TLS\r\n\u0016\u0003"));
});

test("T04 whatever is not one plain yes to TLS ends the connection, and nothing but TLS was said", {
  skip,
}, async (t) => {
  const cases: readonly (readonly [string, ErrorCode])[] = [
    ["- 503 no\r\n", "TLS_FAILED"],
    ["- no\r\n", "TLS_FAILED"],
    ["-\r\n", "TLS_FAILED"],
    ["already authenticated\r\n", "PROTOCOL_ERROR"],
    ["\r\n", "PROTOCOL_ERROR"],
    [" + SUCCESS\r\n", "PROTOCOL_ERROR"],
    ["x".repeat(5_000), "PROTOCOL_ERROR"],
    ["", "TIMEOUT"],
    ["+ SUCCESS\n", "TIMEOUT"],
  ];
  for (const [answer, code] of cases) {
    const server = await inBandServer(t, (socket) => {
      socket.write(answer);
      return false;
    });
    const error = await refusedInBand(t, server, code, { timeoutMs: code === "TIMEOUT" ? 50 : 5_000 });
    assert.doesNotMatch(error.message, /\p{Cc}/u);
    assert.equal(await server.heard(), "TLS\r\n", answer);
  }
  for (const leave of [(socket: Socket) => socket.end(), (socket: Socket) => socket.resetAndDestroy()]) {
    const server = await inBandServer(t, (socket) => {
      leave(socket);
      return false;
    });
    await refusedInBand(t, server, "TLS_FAILED");
  }
});

test("T04 a server that says yes and stays in plaintext gets a ClientHello and nothing else", { skip }, async (t) => {
  const server = await inBandServer(t, (socket) => {
    socket.write("+ SUCCESS\r\n");
    return false;
  });
  await refusedInBand(t, server, "TIMEOUT", { timeoutMs: 50 });
  assert.ok((await server.heard()).startsWith("TLS\r\n\u0016\u0003"));
});

test("T04 a server that says yes before it was asked is not believed", { skip }, async (t) => {
  const server = await plainServer(t, (socket) => socket.write("+ already authenticated\r\n"));
  const socket = connect(server.where);
  t.after(() => socket.destroy());
  await once(socket, "readable");
  await failing(secureInBand(socket, await optionsOf(t, {})), "PROTOCOL_ERROR");
  assert.equal(await server.heard(), "");
  assert.ok(socket.destroyed);
});

test("T11 ALPN is demanded in-band as well, and O02 so is the pinned key", { skip }, async (t) => {
  const pins = await store(t);
  const yes = (socket: Socket) => socket.write("+ SUCCESS\r\n");
  await meetInBand(t, await inBandServer(t, yes), { pins });
  await refusedInBand(t, await inBandServer(t, yes, { ALPNProtocols: [] }), "ALPN_MISSING", { pins });
  await refusedInBand(t, await inBandServer(t, yes, identity("other")), "HOST_KEY_CHANGED", { pins });
});

interface Settings extends Partial<Omit<SecureOptions, "address" | "trust">> {
  readonly address?: string;
  readonly pins?: PinStore;
  readonly checking?: HostKeyChecking;
  readonly ask?: () => Promise<boolean>;
  /** Hand over a connected socket rather than where to connect to. */
  readonly given?: boolean;
}

async function meet(t: TestContext, peer: Peer, settings: Settings): Promise<Secured> {
  return await secured(t, await target(t, peer, settings), await optionsOf(t, settings), secure);
}

async function meetInBand(t: TestContext, peer: Peer, settings: Settings): Promise<Secured> {
  return await secured(
    t,
    await target(t, peer, settings),
    await optionsOf(t, { checking: "accept-new", ...settings }),
    secureInBand,
  );
}

async function secured(t: TestContext, to: Target, options: SecureOptions, by: typeof secure): Promise<Secured> {
  const result = await by(to, options);
  t.after(() => result.socket.destroy());
  return result;
}

async function refused(t: TestContext, peer: Peer, code: ErrorCode, settings: Settings = {}): Promise<FivedError> {
  return await failing(secure(await target(t, peer, settings), await optionsOf(t, settings)), code);
}

async function refusedInBand(
  t: TestContext,
  peer: Peer,
  code: ErrorCode,
  settings: Settings = {},
): Promise<FivedError> {
  return await failing(secureInBand(await target(t, peer, settings), await optionsOf(t, settings)), code);
}

async function failing(attempt: Promise<unknown>, code: ErrorCode): Promise<FivedError> {
  const error = await attempt.then(
    () => assert.fail(`went on, expected ${code}`),
    (reason: unknown) => reason,
  );
  assert.ok(error instanceof FivedError, String(error));
  assert.equal(error.code, code, error.message);
  return error;
}

async function target(t: TestContext, peer: Peer, { given = false }: Settings): Promise<Target> {
  if (!given) return (limit) => connected(connect({ ...peer.where, allowHalfOpen: true }), limit);
  const socket = connect({ ...peer.where, allowHalfOpen: true });
  t.after(() => socket.destroy());
  await once(socket, "connect");
  return socket;
}

async function optionsOf(t: TestContext, settings: Settings): Promise<SecureOptions> {
  const { address = "example.org", pins = await store(t), checking, ask, given: _, ...rest } = settings;
  const trust = trustWith({
    pins,
    ...(checking === undefined ? {} : { checking }),
    ...(ask === undefined ? {} : { ask }),
  });
  return { address: parseAddress(address), trust, ...rest };
}

/** A server of a test. */
interface Peer {
  readonly where: { readonly host: string; readonly port: number } | { readonly path: string };
  readonly server: Server;
  /** Whom it met, after the handshake if there is one. */
  readonly met: Socket[];
  /** Everything clients said, inside TLS if there is one, when all have left. */
  heard(): Promise<string>;
}

/** A TLS server that returns what it hears. */
function tlsServer(t: TestContext, options: TlsOptions = {}, path?: string): Promise<Peer> {
  const server = createTlsServer({
    ...identity("ed25519"),
    ALPNProtocols: ["fived/1"],
    allowHalfOpen: true,
    ...options,
  });
  server.on("tlsClientError", () => {});
  return listening(t, server, "secureConnection", (socket) => socket.pipe(socket), path);
}

/** A server that does with a connection as it is told. */
function plainServer(t: TestContext, serve: (socket: Socket) => void): Promise<Peer> {
  return listening(t, createServer(), "connection", serve);
}

/** A server that answers a line as it is told, and goes on in TLS where the answer is true. */
function inBandServer(t: TestContext, answer: (socket: Socket) => boolean, options: TlsOptions = {}): Promise<Peer> {
  return plainServer(t, (socket) => {
    let line = "";
    const read = (chunk: Buffer) => {
      line += chunk.toString("latin1");
      if (!line.endsWith("\r\n")) return;
      socket.off("data", read);
      if (!answer(socket)) return;
      socket.removeAllListeners("data");
      const tls = new TLSSocket(socket, {
        isServer: true,
        ...identity("ed25519"),
        ALPNProtocols: ["fived/1"],
        ...options,
      });
      tls.on("error", () => {}).pipe(tls);
    };
    socket.on("data", read);
  });
}

async function listening(
  t: TestContext,
  server: Server,
  event: string,
  serve: (socket: Socket) => void,
  path?: string,
): Promise<Peer> {
  const met: Socket[] = [];
  const sockets = new Set<Socket>();
  let said = "";
  server.on("connection", (socket: Socket) => sockets.add(socket));
  server.on(event, (socket: Socket) => {
    met.push(socket);
    socket.on("error", () => {});
    socket.on("data", (chunk: Buffer) => {
      said += chunk.toString("latin1");
    });
    serve(socket);
  });
  server.listen(path === undefined ? { host: "127.0.0.1", port: 0 } : { path });
  await once(server, "listening");
  t.after(async () => {
    for (const socket of sockets) socket.destroy();
    server.close();
  });
  const address = server.address();
  assert.ok(address !== null);
  return {
    where: typeof address === "string" ? { path: address } : { host: "127.0.0.1", port: address.port },
    server,
    met,
    async heard() {
      for (const socket of sockets) if (!socket.closed) await once(socket, "close");
      return said;
    },
  };
}

/** Says goodbye to the first client, and waits until its octets must have reached it. */
async function hangUp(peer: Peer, goodbye: string): Promise<void> {
  if (peer.met.length === 0) await once(peer.server, "secureConnection");
  const [socket] = peer.met;
  socket?.end(goodbye);
  if (socket?.writableFinished === false) await once(socket, "finish");
  const probe = connect(peer.where); // Loopback delivers in order: what came before a later connection is there when that is.
  await once(probe, "connect");
  probe.destroy();
}

async function text(socket: Socket): Promise<string> {
  let said = "";
  for await (const chunk of socket) said += String(chunk);
  return said;
}

async function store(t: TestContext): Promise<PinStore> {
  return knownHosts(join(await temporaryFolder(t), "known_hosts"));
}

async function temporaryFolder(t: TestContext): Promise<string> {
  const path = await mkdtemp(join(tmpdir(), "fived-tls-"));
  t.after(() => rm(path, { recursive: true }));
  return path;
}

type Kind = keyof NonNullable<typeof certificates>;

function identity(kind: Kind): Identity {
  return certificates?.[kind] ?? assert.fail("needs openssl");
}

function selfSigned(name: string, key: readonly string[], subjectAltName: string): Identity {
  return made(name, [...key, "-addext", `subjectAltName=${subjectAltName}`]);
}

/** Signed by the authority of {@link certificates}. */
function signed(name: string, more: readonly string[]): Identity {
  return made(name, ["-newkey", "ed25519", "-CA", ca, "-CAkey", join(folder, "authority.key"), ...more]);
}

function made(name: string, more: readonly string[]): Identity {
  const [key, cert] = [join(folder, `${name}.key`), join(folder, `${name}.cert`)];
  const args = ["req", "-x509", "-nodes", "-days", "2", "-subj", "/CN=test", ...more, "-keyout", key, "-out", cert];
  execFileSync("openssl", args, { stdio: "ignore" });
  return { key: readFileSync(key), cert: readFileSync(cert) };
}

function hasOpenssl(): boolean {
  const { FIVED_TEST_STRICT } = process.env;
  try {
    execFileSync("openssl", ["version"], { stdio: "ignore" });
    return true;
  } catch (cause) {
    if (FIVED_TEST_STRICT === "1") throw new Error("openssl is missing: install openssl", { cause });
    return false;
  }
}
