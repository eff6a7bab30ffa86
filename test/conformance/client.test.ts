/**
 * Rules of PROTOCOL.md for clients, kept by our client towards servers by hand: what it makes of GOAWAY, of refusals, and of codes that it
 * does not know.
 * @module
 */
import assert from "node:assert/strict";
import { once } from "node:events";
import fs from "node:fs/promises";
import { createServer, type Socket } from "node:net";
import os from "node:os";
import path from "node:path";
import type { Duplex } from "node:stream";
import test, { type TestContext } from "node:test";
import { TLSSocket } from "node:tls";
import { type ConnectOptions, connect, type Session } from "../../src/client/index.ts";
import { BareChannel, type Channel, SessionPump } from "../../src/io/index.ts";
import { ownCertificate } from "../../src/server/certificate.ts";
import { SESSION_LIMITS } from "../../src/session/index.ts";
import { Code, encodeLine, LineReader } from "../../src/wire/index.ts";
import { within } from "../support/deadline.ts";
import { portOf } from "../support/lab.ts";
import { serveSetUp } from "./set-up.ts";

/** A server by hand: the address, and the sessions that clients have begun. */
interface ByHand {
  readonly address: string;
  readonly options: ConnectOptions;
  readonly sessions: readonly SessionPump[];
}

/** Serves sessions, and each stream as `serve` wants it. */
async function byHand(t: TestContext, serve: (channel: Channel, request: string) => void): Promise<ByHand> {
  const folder = await fs.mkdtemp(path.join(os.tmpdir(), "fived-conformance-"));
  const { context } = await ownCertificate(folder, ["localhost"]);
  const sessions: SessionPump[] = [];
  const sockets = new Set<Socket>();
  const server = createServer({ allowHalfOpen: true }, (socket) => {
    sockets.add(socket);
    socket.on("error", () => {});
    const tls = new TLSSocket(socket, { isServer: true, ...context, ALPNProtocols: ["fived/1"] });
    begin(tls, sessions, serve);
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  t.after(async () => {
    for (const socket of sockets) socket.destroy();
    server.close();
    await fs.rm(folder, { recursive: true, force: true });
  });
  const options = { strictHostKeyChecking: "off", knownHosts: path.join(folder, "known_hosts") } as const;
  return { address: `127.0.0.1:${portOf(server)}`, options, sessions };
}

/** Answers the lines of a client up to MULTIPLEX, and carries its session from there on. */
function begin(socket: TLSSocket, sessions: SessionPump[], serve: (channel: Channel, request: string) => void): void {
  const lines = new LineReader();
  const channel = new BareChannel(socket);
  channel.receiver = {
    ...channel.receiver,
    data(octets) {
      lines.push(octets.slice());
      for (let line = lines.next(); line?.type === "line"; line = lines.next()) {
        if (line.text === "MULTIPLEX") return carry();
        channel.write(encodeLine(line.text.startsWith("DETACHABLE") ? "- 507 not here" : "+ SUCCESS"));
      }
    },
  };
  function carry(): void {
    const pump = new SessionPump(
      { role: "server", retain: false, limits: SESSION_LIMITS },
      {
        opened: (stream, request) => serve(stream, Buffer.from(request).toString("latin1")),
        ready() {},
        idle() {},
        goingAway() {},
        ended() {},
        disconnected() {},
      },
    );
    sessions.push(pump);
    channel.release();
    pump.carry(socket, encodeLine("+ SUCCESS"))(lines.rest());
  }
}

/** Accepts a stream, and gives back what comes. */
function echo(channel: Channel): void {
  channel.write(encodeLine("+ SUCCESS"));
  const duplex = channel.duplex(new Uint8Array(0));
  duplex.on("error", () => {}).pipe(duplex);
}

/** Writes, and reads as much again. */
async function echoed(stream: Duplex, text: string): Promise<string> {
  stream.write(text);
  const heard: Buffer[] = [];
  for (let bytes = 0; bytes < text.length; bytes += heard.at(-1)?.length ?? 0) {
    const [chunk]: unknown[] = await within(once(stream, "data"), "the echo");
    assert.ok(Buffer.isBuffer(chunk));
    heard.push(chunk);
  }
  return Buffer.concat(heard).toString();
}

test("§9.3: behind GOAWAY streams go on, and new ones are opened in another session", async (t) => {
  const { address, options, sessions } = await byHand(t, echo);
  const first = connect(address, "echo", options);
  assert.equal(await echoed(first, "one"), "one");
  assert.equal(sessions.length, 1);
  sessions[0]?.goAway(Code.NO_ERROR, "going");
  assert.equal(await echoed(first, "two"), "two");
  const second = connect(address, "echo", options);
  assert.equal(await echoed(second, "three"), "three");
  assert.equal(sessions.length, 2, "in a session of its own");
  assert.equal(await echoed(first, "four"), "four");
  first.end();
  second.end();
  await within(Promise.all([once(first.resume(), "close"), once(second.resume(), "close")]), "both ends");
});

test("§9.3: a stream that GOAWAY leaves out was not taken up: REFUSED, so that it may be asked for again", async (t) => {
  const { address, options, sessions } = await byHand(t, echo);
  await using session = await connect(address, options);
  const open = session.open("echo").on("error", () => {}); // it ends with its session
  assert.equal(await echoed(open, "one"), "one");
  sessions[0]?.goAway(Code.NO_ERROR, "going");
  const late = session.open("echo"); // the GOAWAY is still on its way
  const [error]: unknown[] = await within(once(late, "error"), "the refusal");
  assert.deepEqual(fieldsOf(error), { code: "STREAM_RESET", status: undefined, reason: "REFUSED" });
  assert.throws(() => session.open("echo"), { code: "SESSION_LOST" });
});

test("§8.1: a client that serves nothing lets the server open no streams", async (t) => {
  const { address, options, sessions } = await byHand(t, echo);
  await using session = await connect(address, options);
  const open = session.open("echo").on("error", () => {});
  assert.equal(await echoed(open, "one"), "one");
  assert.equal(sessions[0]?.session.openable, false);
});

test("§6.4: more streams than the server allows wait for another session, and not for one another", async (t) => {
  const { at, server } = await serveSetUp(
    t,
    { services: [{ name: "echo", allow: "anyone", does: "echo" }] },
    { limits: { anonymous: { streams: 3 } } },
  );
  assert.ok("port" in at && server.addresses.length === 1);
  const folder = await fs.mkdtemp(path.join(os.tmpdir(), "fived-conformance-"));
  t.after(() => fs.rm(folder, { recursive: true, force: true }));
  const options = { strictHostKeyChecking: "off", knownHosts: path.join(folder, "known_hosts") } as const;
  const streams = Array.from({ length: 3 }, () => connect(`127.0.0.1:${at.port}`, "echo", options));
  for (const [index, stream] of streams.entries()) assert.equal(await echoed(stream, `${index}`), `${index}`);
  const another = connect(`127.0.0.1:${at.port}`, "echo", options);
  assert.equal(await echoed(another, "another"), "another");
  for (const stream of [...streams, another]) stream.end();
  await within(Promise.all([...streams, another].map((stream) => once(stream.resume(), "close"))), "all ends");
});

function fieldsOf(error: unknown): object {
  assert.ok(error instanceof Error && "code" in error && "status" in error && "reason" in error);
  const { code, status, reason } = error;
  return { code, status, reason };
}

/** How a service was refused. */
async function refused(session: Session, service: string): Promise<object> {
  const [error]: unknown[] = await within(once(session.open(service), "error"), "the refusal");
  return fieldsOf(error);
}

test("§3.5: a refusal has its code, and one that is not known counts as 500 or 404", async (t) => {
  const answers: Readonly<Record<string, string>> = {
    known: "- 502 Back end refused",
    low: "- 444 Whatever this is",
    high: "- 599 Whatever this is",
    none: "-No service today",
    neither: "220 ESMTP",
  };
  const { address, options } = await byHand(t, (channel, request) => {
    channel.write(encodeLine(answers[request] ?? "- 404 No such service"));
    channel.close();
    channel.forget();
  });
  await using session = await connect(address, options);
  const as = (status: number | undefined) => ({ code: "SERVICE_REFUSED", status, reason: undefined });
  assert.deepEqual(await refused(session, "known"), as(502));
  assert.deepEqual(await refused(session, "unknown"), as(404));
  assert.deepEqual(await refused(session, "low"), as(404));
  assert.deepEqual(await refused(session, "high"), as(500));
  assert.deepEqual(await refused(session, "none"), as(undefined));
  assert.deepEqual(await refused(session, "neither"), { ...as(undefined), code: "PROTOCOL_ERROR" });
});

test("§6.5: a reset has its code, and so has the end of a session", async (t) => {
  const { address, options, sessions } = await byHand(t, echo);
  const session = await connect(address, options);
  const stream = session.open("echo");
  assert.equal(await echoed(stream, "one"), "one");
  const lost = once(stream, "error");
  sessions[0]?.end(Code.CALM, "enough");
  const [error]: unknown[] = await within(lost, "the end");
  assert.deepEqual(fieldsOf(error), { code: "STREAM_RESET", status: undefined, reason: "CALM" });
  await assert.rejects(session.closed, { code: "SESSION_LOST", reason: "CALM" });
});

test("§4.1: a LIST that is refused is over at once, though the conversation is not", async (t) => {
  const { address, options } = await byHand(t, (channel) => {
    channel.write(encodeLine("- 501 Ill-formed"));
  });
  await using session = await connect(address, options);
  const start = performance.now();
  await assert.rejects(session.list("/etc"), { code: "SERVICE_REFUSED", status: 501 });
  assert.ok(performance.now() - start < 5_000);
});
