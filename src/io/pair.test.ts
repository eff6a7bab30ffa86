/**
 * Connections over loopback, and both ends of a session on one, for the tests of this room. No test of its own: those of the pump and of
 * what it joins are what it is for.
 * @module
 */
import assert from "node:assert/strict";
import { createHash, randomFillSync } from "node:crypto";
import { once } from "node:events";
import { mkdtemp, rm } from "node:fs/promises";
import { connect, createServer, type Socket } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { Duplex, Readable } from "node:stream";
import { setImmediate as pause } from "node:timers/promises";
import { connect as connectTls, TLSSocket } from "node:tls";
import { SESSION_LIMITS, type SessionLimits } from "../session/index.ts";
import {
  Code,
  encodeSequenced,
  encodeUnsequenced,
  type Frame,
  FrameReader,
  type SequencedContent,
  type UnsequencedFrame,
} from "../wire/index.ts";
import { spliceOf } from "./channel.ts";
import { slabsHeld } from "./memory.ts";
import { type PumpOwner, SessionPump } from "./pump.ts";
import type { SessionStream } from "./session-stream.ts";

export const NOTHING = new Uint8Array(0);

/** What carries a session, or a conversation of its own. A Unix socket holds 200 KiB, and TCP on loopback many times that. */
export type Transport = "tcp" | "tls" | "unix";

/** Both ends of a connection. */
export interface Connected {
  readonly near: Socket;
  readonly far: Socket;
}

/** Connects two sockets of this computer. Both ends may be half open; errors are listened to, as "close" says enough. */
export async function connected(transport: Transport = "tcp"): Promise<Connected> {
  const folder = transport === "unix" ? await mkdtemp(join(tmpdir(), "fived-pair-")) : undefined;
  const server = createServer({ allowHalfOpen: true, noDelay: true });
  server.listen(folder === undefined ? { port: 0, host: "127.0.0.1" } : { path: join(folder, "socket") });
  await once(server, "listening");
  const address = server.address();
  assert.ok(address !== null);
  const where = typeof address === "string" ? { path: address } : { port: address.port, host: "127.0.0.1" };
  const accepted: Promise<Socket> = new Promise((resolve) => server.once("connection", resolve));
  const near = connect({ ...where, allowHalfOpen: true, noDelay: true });
  const [far] = await Promise.all([accepted, once(near, "connect")]);
  server.close();
  if (folder !== undefined) await rm(folder, { recursive: true });
  near.on("error", () => {});
  far.on("error", () => {});
  return transport === "tls" ? await secured(near, far) : { near, far };
}

/** TLS 1.3 over sockets that exist, as client and server do it; a key that both know stands for certificates. */
async function secured(plainNear: Socket, plainFar: Socket): Promise<Connected> {
  const psk = Buffer.alloc(32, 7);
  const common = { minVersion: "TLSv1.3", ciphers: "TLS_AES_128_GCM_SHA256" } as const;
  const server = { ...common, isServer: true, pskCallback: () => psk }; // a variable, as Node's types do not know it here
  const far = new TLSSocket(plainFar, server);
  const near = connectTls({
    ...common,
    socket: plainNear,
    pskCallback: () => ({ psk, identity: "test" }),
    checkServerIdentity: () => undefined,
  });
  near.on("error", () => {});
  far.on("error", () => {});
  await Promise.all([once(near, "secureConnect"), once(far, "secure")]);
  return { near, far };
}

/** Why a session was over. */
export interface Ending {
  readonly code: number;
  readonly reason: string;
  readonly byPeer: boolean;
}

/** One end of a session, and what it has told its owner. */
export class End {
  readonly pump: SessionPump;
  /** Who serves what the peer opens, by request. */
  readonly services = new Map<string, (channel: SessionStream) => void>();
  /** Resolves when the peer has told its limits. */
  readonly ready: Promise<void>;
  readonly ended: Promise<Ending>;
  readonly disconnects: string[] = [];
  readonly #idle: (() => void)[] = [];

  constructor(role: "client" | "server", retain: boolean, limits: SessionLimits) {
    const ready = Promise.withResolvers<void>();
    const ended = Promise.withResolvers<Ending>();
    this.ready = ready.promise;
    this.ended = ended.promise;
    let endings = 0;
    const owner: PumpOwner = {
      opened: (channel, request) => {
        const serve = this.services.get(Buffer.from(request).toString());
        assert.ok(serve !== undefined, "somebody serves what is asked for");
        serve(channel);
      },
      ready: () => ready.resolve(),
      idle: () => {
        for (const resolve of this.#idle.splice(0)) resolve();
      },
      goingAway: () => {},
      ended: (code, reason, byPeer) => {
        assert.equal(++endings, 1, "a session ends once");
        ended.resolve({ code, reason, byPeer });
      },
      disconnected: (reason) => this.disconnects.push(reason),
    };
    this.pump = new SessionPump({ role, retain, limits }, owner);
  }

  /** Opens a stream; there must be a slot for it. */
  open(request: string): SessionStream {
    const stream = this.pump.open(Buffer.from(request));
    assert.ok(stream !== undefined, "the session takes no more streams");
    return stream;
  }

  /** Carries the session over this socket. */
  carry(socket: Socket, first: Uint8Array = NOTHING): void {
    this.pump.carry(socket, NOTHING)(first);
  }

  /** Resolves when the last stream is gone. */
  async idle(): Promise<void> {
    if (this.pump.streams > 0) await new Promise<void>((resolve) => this.#idle.push(resolve));
  }
}

/** A session with both its ends, and a connection under it. */
export interface Pair extends AsyncDisposable {
  readonly client: End;
  readonly server: End;
  readonly wire: Connected;
}

/** What a pair may be told. */
export interface PairOptions {
  readonly transport?: Transport;
  readonly retain?: boolean;
  readonly limits?: Partial<SessionLimits>;
  /** Limits of the server alone. */
  readonly serverLimits?: Partial<SessionLimits>;
}

/** Starts a session over loopback. Disposing ends it and waits for its sockets. */
export async function pair({
  transport = "tcp",
  retain = false,
  limits,
  serverLimits,
}: PairOptions = {}): Promise<Pair> {
  const wire = await connected(transport);
  const client = new End("client", retain, { ...SESSION_LIMITS, ...limits });
  const server = new End("server", retain, { ...SESSION_LIMITS, ...limits, ...serverLimits });
  server.carry(wire.far);
  client.carry(wire.near);
  await Promise.all([client.ready, server.ready]);
  return {
    client,
    server,
    wire,
    async [Symbol.asyncDispose]() {
      client.pump.end(Code.NO_ERROR, "test over");
      server.pump.end(Code.NO_ERROR, "test over");
      await Promise.all([gone(wire.near), gone(wire.far)]);
    },
  };
}

/** Resolves when a socket has closed. */
export async function gone(socket: Duplex): Promise<void> {
  if (!socket.closed) await new Promise((resolve) => socket.once("close", resolve));
}

/** Resolves when no slab is in use: callbacks of writes may follow "close". */
export async function allReleased(): Promise<void> {
  for (const end = performance.now() + 2_000; slabsHeld() > 0 && performance.now() < end; ) await pause();
  assert.equal(slabsHeld(), 0, "slabs are held by nobody who is left");
}

/** A peer made of frames, that keeps to the rules or does not. */
export class HandmadePeer {
  /** Everything it was told. */
  readonly heard: Frame[] = [];
  /** Octets of its own log. */
  seq = 0;
  readonly #socket: Socket;
  #look: () => void = () => {};

  constructor(socket: Socket) {
    this.#socket = socket;
    const reader = new FrameReader();
    socket.on("data", (chunk: Buffer) => {
      reader.push(chunk);
      for (let frame = reader.next(); frame !== undefined; frame = reader.next()) {
        assert.ok(frame.type !== "error");
        this.heard.push(frame);
      }
      reader.detach();
      this.#look();
    });
  }

  /** Says frames of its log. */
  say(...contents: readonly SequencedContent[]): void {
    this.#socket.write(this.frames(...contents));
  }

  /** Frames of its log, for whoever says them. */
  frames(...contents: readonly SequencedContent[]): Buffer {
    const frames = contents.map((content) => {
      const frame = encodeSequenced(this.seq, content);
      this.seq += frame.length;
      return frame;
    });
    return Buffer.concat(frames);
  }

  /** Says frames that have no place in the log. */
  mention(frame: UnsequencedFrame): void {
    this.#socket.write(encodeUnsequenced(frame));
  }

  /** What it has heard on a stream. */
  data(stream: number): Buffer {
    return Buffer.concat(
      this.heard.map((frame) => (frame.type === "data" && frame.stream === stream ? frame.payload : NOTHING)),
    );
  }

  /** Looks again whenever something was heard. */
  async until(condition: () => boolean): Promise<void> {
    while (!condition()) {
      await new Promise<void>((resolve) => {
        this.#look = resolve;
      });
    }
  }
}

/** What is told of a stream that goes from a socket to a socket. */
export interface Path {
  /** The program at the client's end. */
  readonly program: Socket;
  /** The back end at the server's. */
  readonly backEnd: Socket;
  /** The session's own ends of both connections. */
  readonly inner: readonly [Socket, Socket];
}

/** Opens a stream and takes it up at the other end: the two channels. */
export async function stream({ client, server }: Pair): Promise<{ near: SessionStream; far: SessionStream }> {
  const request = `service-${++requests}`;
  const far = new Promise<SessionStream>((resolve) => server.services.set(request, resolve));
  const near = client.open(request);
  return { near, far: await far };
}

let requests = 0;

/** Opens a stream and joins it to a socket at either end, as a forward and a back end are. */
export async function path(session: Pair): Promise<Path> {
  const [local, remote] = await Promise.all([connected(), connected()]);
  const request = `service-${++requests}`;
  const opened = new Promise<void>((resolve) => {
    session.server.services.set(request, (channel) => {
      channel.splice(spliceOf(remote.near), NOTHING);
      resolve();
    });
  });
  session.client.open(request).splice(spliceOf(local.far), NOTHING);
  await opened;
  return { program: local.near, backEnd: remote.far, inner: [local.far, remote.near] };
}

/** Octets that no compression and no repetition can fake. */
export function noise(bytes: number): Buffer {
  return randomFillSync(Buffer.allocUnsafe(bytes));
}

/** What something hashes to. */
export function digest(bytes: Uint8Array): string {
  return createHash("sha256").update(bytes).digest("hex");
}

/** What everything a stream gives hashes to, up to its end; a stream that is cut rejects. */
export async function digestOf(stream: Readable): Promise<string> {
  const hash = createHash("sha256");
  for await (const chunk of stream.iterator({ destroyOnReturn: false })) hash.update(chunk);
  assert.ok(stream.readableEnded, "the stream was cut");
  return hash.digest("hex");
}
