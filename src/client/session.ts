/**
 * A session from the client's end: opened once, then any number of streams to services by name.
 * @module
 */
import type { Socket } from "node:net";
import { networkInterfaces } from "node:os";
import type { Duplex } from "node:stream";
import { setTimeout as pause } from "node:timers/promises";
import { parseDetachable, type Ticket } from "../identity/index.ts";
import { BareChannel, type Channel, ChannelDuplex, FivedError, SessionPump, type Splice } from "../io/index.ts";
import { SESSION_LIMITS } from "../session/index.ts";
import { Code, type CodeName, codeName, encodeLine, isServiceName, parseReply } from "../wire/index.ts";
import { type Address, hostLine, parseAddress, printAddress } from "./address.ts";
import { attachOver } from "./attach.ts";
import { authOf, type SignedIn, signIn } from "./auth/authenticate.ts";
import {
  type DetachedSession,
  type DetachedStream,
  detachedStreams,
  parseDetached,
  printDetached,
} from "./detached.ts";
import { type ConnectOptions, dial } from "./dial.ts";
import type { PathRule } from "./path-rules.ts";
import { type Answer, type Asked, expectReplies, refusal } from "./replies.ts";
import { type Reached, type Resumable, Resumption, reachedBy } from "./resume.ts";
import { openTcp } from "./transports/tcp.ts";
import type { Transport } from "./transports/transport.ts";
import { watchNetwork } from "./watch.ts";

/** Another connection of a session (paper section 3.1.8). */
export interface PathOptions {
  /** What streams call it by. */
  readonly name: string;
  /** Address of this computer that it starts from. */
  readonly localAddress?: string | undefined;
  /** How octets get there, as in {@link ConnectOptions}; as the session was opened, if left out. */
  readonly transport?: string | Transport | undefined;
  /** Only streams that are moved to it go over it; false, and left out: others too, wherever they come soonest. */
  readonly reserved?: boolean | undefined;
  readonly signal?: AbortSignal;
}

/** The connection with which a session was opened, or the last one that it was attached over. */
export const MAIN_PATH = "main";

/** What may be said of a stream when it is opened. */
export interface OpenOptions {
  /** Virtual host for this stream alone, of the same certificate as the session's. */
  readonly host?: string;
  readonly signal?: AbortSignal;
  /** Name of the connection that it goes over, as long as that one lasts; whichever is good, if left out. */
  readonly path?: string;
}

/** A session with a server. */
export interface Session extends AsyncDisposable {
  /**
   * Opens a stream to a service. It can be written at once; "connect" is emitted when the service has accepted, "error" with
   * SERVICE_REFUSED when it has not.
   */
  open(service: string, options?: OpenOptions): Duplex;
  /** Names of what may be used, built-in words first; with a name, that name if it may be used. */
  list(service?: string): Promise<string[]>;
  /**
   * Another connection beside those that the session has: streams share them all, or keep to one. Rejects with DETACH_IMPOSSIBLE where the server keeps no session of
   * ours, with SESSION_LOST and status 507 where it has enough connections, and as dialling does.
   */
  addPath(options: PathOptions): Promise<void>;
  /**
   * Takes the session from this process and gives the token with which another goes on with it, see {@link attach}: a secret, good once. Its streams end here with SUPERSEDED,
   * behind all that has come for them. Rejects with DETACH_IMPOSSIBLE where that is not to be had; it goes on here then.
   */
  detach(): Promise<string>;
  /** Leaves a connection; what it carried goes over the others. False where there is none of that name. */
  removePath(name: string): boolean;
  /** Moves a stream to a connection, or with undefined to whichever is good. False where there is no such connection, or no such stream. */
  move(stream: Duplex, path: string | undefined): boolean;
  /** Opens no more streams, and ends when the last one is over. */
  close(): Promise<void>;
  /** Resolves when the session is over, rejects with SESSION_LOST when it was lost, and with AUTH_REFUSED when signing in failed. */
  readonly closed: Promise<void>;
  /** Resolves with who the server says we are, or with undefined where nobody signed in; rejects as {@link Session.closed} does. */
  readonly identity: Promise<string | undefined>;
}

/** A stream that is opened for a caller of ours. */
export interface Through {
  /** The line VIA (PROTOCOL §4.12), said before all others; a refusal of it is one of the whole. */
  readonly via?: string;
}

/** A {@link Session} as the rest of this room, and a session server that opens streams for its callers, see it. */
export interface ServiceOpener extends Session {
  /** As {@link Session.open}, on a Duplex that was handed out before there was a session. */
  openOn(duplex: ChannelDuplex, service: string, options: OpenOptions & Through): void;
  /** As {@link Session.list}. */
  list(service?: string, through?: Through): Promise<string[]>;
  /** The exporter of the connection (PROTOCOL §2.2); undefined without TLS. */
  readonly binding: Uint8Array | undefined;
  /** Joins a stream to something connected. `answered` hears of a refusal, or of undefined when the service has accepted. */
  join(service: string, to: Splice, answered: (error: FivedError | undefined) => void, host?: string): void;
  /** How it is now. */
  readonly status: SessionStatus;
  /** One more stream may be opened now. */
  readonly openable: boolean;
  /** The server has left a question unanswered for seconds; streams that are open may still come back. */
  readonly isSilent: boolean;
  /** Asks the server for a sign of life. */
  probe(): void;
  /** Resolves when the server has told how many streams it allows. */
  readonly heard: Promise<void>;
  /** It has. */
  readonly isHeard: boolean;
}

/** A session, for people to look at. */
export interface SessionStatus {
  /** Streams that are open. */
  readonly streams: number;
  /** Octets that were said and not acknowledged yet. */
  readonly queuedBytes: number;
  /** In milliseconds; undefined before the first measurement, and without MULTIPLEX. */
  readonly roundTripMs: number | undefined;
  readonly connections: number;
  /** It has lost its connection, or doubts it, and looks for another. */
  readonly isAttaching: boolean;
}

/** Opens a session; rejects as {@link dial} does. */
export async function openSession(
  address: Address,
  options: ConnectOptions,
  lifetime: "ends-when-closed" | "ends-when-idle" = "ends-when-closed",
): Promise<ServiceOpener> {
  const auth = authOf(address, options);
  const start =
    auth === undefined
      ? options.tls !== "off" && (await asNobody(address, options))
      : await signIn(address, options, auth);
  if (start === false) return new BareSession(address, options);
  return new MultiplexedSession(address, start, options, lifetime === "ends-when-idle");
}

/** A session that another process has left, and its streams that are open. */
export interface AttachedSession {
  readonly session: Session;
  readonly streams: readonly AttachedStream[];
}

/** One of them: what comes next on `stream` is the octet behind the last that had come, and what is written goes behind what was sent. */
export interface AttachedStream extends DetachedStream {
  readonly stream: Duplex;
}

/**
 * Goes on with a session that another process has left (paper section 3.1.7). Rejects with TOKEN_BAD for what is no token, or one whose time is over, with SESSION_LOST where
 * the server does not know the session any more, and as {@link connect} does.
 * @example
 * const { session, streams } = await attach(await readFile("token", "utf8"), {});
 * streams[0]?.stream.pipe(process.stdout);
 */
export async function attach(token: string, options: ConnectOptions = {}): Promise<AttachedSession> {
  const detached = parseDetached(token, Date.now());
  const { fingerprint, state } = detached;
  const address = parseAddress(detached.address);
  // A try, so that what is wrong with the way or with trust is told; the second one is the session's.
  const first = await dial(address, { ...options, expectedKey: fingerprint });
  first.socket.destroy();
  const session = new MultiplexedSession(address, detached, { ...options, expectedKey: fingerprint }, false);
  const streams = detachedStreams(state).map((each) => ({ ...each, stream: session.adopt(each.id) }));
  try {
    await session.attached;
  } catch (error) {
    for (const { stream } of streams) stream.on("error", () => {}).destroy();
    throw error;
  }
  return { session, streams };
}

/** A connection, and what is to be said in front of MULTIPLEX. */
type Start = Omit<SignedIn, "identity"> & { readonly identity: Promise<string | undefined> };

async function asNobody(address: Address, options: ConnectOptions): Promise<Start> {
  const dialled = await dial(address, options);
  const host = dialled.vouched ? hostLine(address) : undefined;
  const ahead = host === undefined ? [] : [{ text: `HOST ${host}`, mayBeUnknown: true as const }];
  return { dialled, ahead, identity: Promise.resolve(undefined) };
}

/**
 * The bounds a client sets itself: no peer opens streams here, and most bytes flow towards us. It asks a silent server for a sign of life often,
 * so as to know soon, but gives its streams up as late as a server does: the way may come back.
 */
const CLIENT_LIMITS = {
  ...SESSION_LIMITS,
  streams: 0,
  budgetBytes: 64 * 1_024 * 1_024,
  keepaliveMs: 5_000,
  keepaliveMisses: 17,
};

/** A server that leaves a question unanswered for so long is in doubt, and gets no new streams: five round trips of a slow link. */
const DOUBT_MS = 3_000;

/** How long the server is to keep a session that only this process can attach to: who does not come back in this time has ended. */
const IN_MEMORY_SECONDS = 180;
/** A question that is not answered for so long, and for so many round trips, is reason to look for another connection. */
const SUSPECT_MS = 1_000;
const SUSPECT_ROUND_TRIPS = 4;
/** After the network has changed, or the computer has slept, sooner: the way may be another one, though the address is the same. */
const MOVED_SUSPECT_MS = 150;
const MOVED_MS = 5_000;
/** Silence where there was none is reason to ask … */
const SILENCE_MS = 500;
/** … until nothing has moved for so long: then the session is idle, and is asked as often as any. */
const CURIOUS_MS = 10_000;
/** A session that another process has left has to be attached to in so long: the way was there a moment ago. */
const ATTACH_MS = 20_000;
/** The first connection that a pump carries has this number. */
const FIRST_CONNECTION = 1;
/** Another connection has to be there in so long; one that was lost is made again after so long. */
const ADD_MS = 10_000;
const ADD_AGAIN_MS = 2_000;
/** Streams that are gone are forgotten when there are so many of them. */
const WANTED_SPARE = 64;
/** What is to be detached has so long to come to rest; then a program or a service is not taking what is its own. */
const REST_MS = 10_000;
/** Between two looks whether it has. */
const REST_LOOK_MS = 5;

class MultiplexedSession implements ServiceOpener {
  readonly closed: Promise<void>;
  readonly identity: Promise<string | undefined>;
  readonly heard: Promise<void>;
  readonly binding: Uint8Array | undefined;
  /** Resolves when it has had a connection. */
  readonly attached: Promise<void>;
  readonly #address: Address;
  readonly #pump: SessionPump;
  readonly #fingerprint: string | undefined;
  readonly #isAttached: () => void;
  /** Connections by name, and by their numbers; of the added ones, with what they are made again. */
  readonly #paths = new Map<
    string,
    { readonly connection: number; readonly socket: Socket; readonly made?: PathOptions }
  >();
  /** Names of those that are to be made again. */
  readonly #missing = new Set<string>();
  /** Streams that are wanted on one of them, by their numbers. */
  readonly #wanted = new Map<number, string>();
  readonly #streamsOf = new WeakMap<Duplex, number>();
  /** Questions on streams that wait for their answer: what comes next is no data yet. */
  #unanswered = 0;
  #isHeard = false;
  #closing = false;
  readonly #endsWhenIdle: boolean;
  readonly #options: ConnectOptions;
  #reached: Reached | undefined;
  /** Since the server has granted one. */
  #ticket: { readonly current: Ticket; readonly ttlMs: number } | undefined;
  #resumption: Resumption | undefined;
  /** Ends it when it could not be attached in time. */
  #late: NodeJS.Timeout | undefined;
  #unwatch: (() => void) | undefined;
  #superseding = false;
  #movedAt = Number.NEGATIVE_INFINITY;
  /** What had been said and heard, and when that was last more than before. */
  #seen = { sent: 0, received: 0, at: Number.NEGATIVE_INFINITY };
  /** Another process has left it, and it has had no connection here yet. */
  #isTakenOver = false;
  /** Since when it has no connection; undefined while it has one. */
  #lostAt: number | undefined;
  /** Why the server did not begin the session, which says more than that it is over. */
  #refused: FivedError | undefined;
  /** While the server has not begun the session: what its streams do when it refuses. */
  #pending: ((error: FivedError) => void)[] | undefined = [];

  /** @param begin a connection on which it begins, or what another process has left */
  constructor(address: Address, begin: Start | DetachedSession, options: ConnectOptions, endsWhenIdle: boolean) {
    const dialled = "dialled" in begin ? begin.dialled : undefined;
    this.#endsWhenIdle = endsWhenIdle;
    this.#address = address;
    this.#options = options;
    this.#reached = dialled === undefined ? undefined : reachedBy(dialled.socket, options);
    this.#fingerprint = "dialled" in begin ? begin.dialled.fingerprint : begin.fingerprint;
    this.binding = dialled?.binding;
    const attached = Promise.withResolvers<void>();
    this.attached = attached.promise;
    this.#isAttached = attached.resolve;
    attached.promise.catch(() => {});
    const closed = Promise.withResolvers<void>();
    const heard = Promise.withResolvers<void>();
    this.closed = closed.promise;
    this.heard = heard.promise;
    closed.promise.catch(() => {}); // who wants to know asks; streams are told anyway
    this.#pump = new SessionPump(
      {
        role: "client",
        retain: options.retain ?? "state" in begin,
        limits: CLIENT_LIMITS,
        ...("state" in begin ? { state: begin.state } : {}),
      },
      {
        opened: (channel) => channel.reset(Code.REFUSED),
        ready: () => {
          this.#isHeard = true;
          heard.resolve();
        },
        idle: () => this.#endIfIdle(),
        goingAway: () => {},
        disconnected: (reason, connections, connection) => {
          this.#forgetPath(connection, connections);
          if (connections === 0 && !this.#superseding) this.#detached(reason);
        },
        ended: (code, reason) => {
          this.#over();
          this.#isHeard = true;
          heard.resolve();
          const error = this.#refused ?? lost(address, reason, codeName(code));
          attached.reject(error);
          if (this.#refused === undefined && code === Code.NO_ERROR) closed.resolve();
          else closed.reject(error);
        },
      },
    );
    const over = closed.promise.then(() => {
      throw lost(address, "it was closed before the server had answered");
    });
    this.identity = Promise.race(["dialled" in begin ? begin.identity : undefined, over]);
    this.identity.catch(() => {});
    if ("dialled" in begin) this.#start(begin);
    else {
      this.#isHeard = true;
      heard.resolve();
      this.#pending = undefined;
      this.#ticket = { current: begin.ticket, ttlMs: begin.ttlMs };
      this.#isTakenOver = true;
      this.#findConnection(ATTACH_MS, "nobody answers");
    }
  }

  /** What is ahead, MULTIPLEX and the first frames travel in one flight; the answers are read when they come. */
  #start({ dialled: { socket }, ahead }: Start): void {
    const requests: Asked[] = [...ahead, ...this.#detachable(), { text: "MULTIPLEX" }];
    const channel = new BareChannel(socket);
    if (socket.isPaused()) socket.resume(); // whoever said lines on it before left it so
    this.#paths.set(MAIN_PATH, { connection: FIRST_CONNECTION, socket });
    const read = this.#pump.carry(socket, Buffer.concat(requests.map(({ text }) => encodeLine(text))));
    expectReplies(
      channel,
      requests,
      (answer) => {
        if (answer.type === "refused") return this.#refuse(answer.error);
        this.#pending = undefined;
      },
      (rest) => {
        channel.release();
        read(rest);
      },
    );
  }

  /** Asks for a ticket, where one is wanted. A server that gives none is as good as ever while its connection lasts. */
  #detachable(): Asked[] {
    const { detachable = IN_MEMORY_SECONDS } = this.#options;
    if (detachable === false) return [];
    const hear = (line: string): Answer => {
      const granted = parseDetachable(line);
      if (granted !== undefined) {
        this.#ticket = { current: granted, ttlMs: granted.ttlSeconds * 1_000 };
        this.#pump.retain();
        for (const rule of this.#options.paths ?? []) if (rule.name !== MAIN_PATH) this.#addRuled(rule);
        if (this.#pump.streams > 0) this.#watch();
        return { type: "accepted" };
      }
      const reply = parseReply(line);
      return reply.type === "refused" ? { type: "accepted" } : { type: "refused", error: refusal("DETACHABLE", reply) };
    };
    return [{ text: `DETACHABLE ${detachable}`, hear }];
  }

  /** While anybody waits for something, whether the way is good is looked at. */
  #watch(): void {
    if (this.#ticket !== undefined) this.#unwatch ??= watchNetwork((moved) => this.#look(moved));
  }

  #rest(): void {
    this.#unwatch?.();
    this.#unwatch = undefined;
  }

  /** The last connection is gone. */
  #detached(reason: string): void {
    if (this.#ticket === undefined || this.#pump.session.ended !== undefined) return;
    this.#options.log?.(
      `lost the connection to ${printAddress(this.#address)} (${reason}): trying to go on over another`,
    );
    this.#findConnection(this.#ticket.ttlMs, reason);
  }

  /** It has no connection, and ends when it has none in time. */
  #findConnection(ms: number, reason: string): void {
    this.#lostAt ??= performance.now();
    this.#late ??= setTimeout(
      () =>
        this.#pump.end(Code.UNAVAILABLE, `it could not be attached in time: ${this.#resumption?.trouble ?? reason}`),
      ms,
    ).unref();
    this.#watch();
    this.#resume();
  }

  /** Looks whether the way is still good: a few times a second, and when the network has changed. */
  #look(moved: boolean): void {
    const { session } = this.#pump;
    if (this.#pump.streams === 0 && session.connections > 0) return this.#rest(); // nobody waits for it
    const now = performance.now();
    if (moved) this.#movedAt = now;
    const suspectMs = now - this.#movedAt < MOVED_MS ? MOVED_SUSPECT_MS : SUSPECT_MS;
    const doubtMs = Math.max(suspectMs, SUSPECT_ROUND_TRIPS * (session.roundTripMs ?? 0));
    if (moved && !this.#leaveDeserted()) return this.#resume();
    if (moved) this.#pump.probe();
    const { unansweredMs, silenceMs } = this.#pump;
    if (unansweredMs >= doubtMs) return this.#resume();
    if (unansweredMs > 0) return;
    if (this.#resumption !== undefined && !this.#resumption.answering && session.connections > 0) this.#stopResuming(); // it came back
    const { sent, received } = session.positions;
    if (sent !== this.#seen.sent || received !== this.#seen.received) this.#seen = { sent, received, at: now };
    if (silenceMs > SILENCE_MS && now - this.#seen.at < CURIOUS_MS) this.#pump.probe();
  }

  #resume(): void {
    const ticket = this.#ticket;
    if (ticket === undefined || this.#resumption !== undefined || this.#pump.session.ended !== undefined) return;
    const { session } = this.#pump;
    const began = performance.now();
    const resumable: Resumable = {
      get positions() {
        return session.positions;
      },
      get roundTripMs() {
        return session.roundTripMs;
      },
      store: (next) => {
        this.#ticket = { ...ticket, current: next };
      },
      resumed: (socket, rest, { received, limit, generation }) => {
        this.#stopResuming();
        clearTimeout(this.#late);
        this.#late = undefined;
        this.#lostAt = undefined;
        this.#superseding = true;
        this.#pump.supersede();
        this.#superseding = false;
        this.#reached = reachedBy(socket, this.#options) ?? this.#reached;
        this.#isAttached();
        const connection = this.#pump.attach(socket, rest, { received, limit, stored: generation });
        this.#paths.set(MAIN_PATH, { connection, socket });
        this.#arrivedPath(MAIN_PATH, connection);
        const ms = Math.round(performance.now() - began);
        if (this.#isTakenOver) this.#isTakenOver = false;
        else
          this.#options.log?.(
            `went on with the session at ${printAddress(this.#address)} over a new connection after ${ms} ms`,
          );
      },
      failed: (code, reason) => this.#pump.end(code, reason),
    };
    const where = { address: this.#address, options: this.#options, reached: this.#reached };
    this.#resumption = new Resumption(resumable, ticket.current, where);
  }

  async addPath(options: PathOptions): Promise<void> {
    const { name, localAddress, transport = this.#options.transport, reserved = false, signal } = options;
    const cannot = `Cannot add a connection to the session at ${printAddress(this.#address)}`;
    if (this.#ticket === undefined)
      throw new FivedError("DETACH_IMPOSSIBLE", `${cannot}: the server keeps no session that could have another one`);
    if (this.#paths.has(name)) throw new FivedError("ABORTED", `${cannot}: there is one called "${name}"`);
    // The same server: a name may stand for several, and only this one has the session.
    const reached = transport === undefined || transport === "tcp" ? this.#reached : undefined;
    const own = localAddress === undefined ? {} : { localAddress };
    const way =
      reached === undefined
        ? transport
        : { name: "tcp", open: (_: Address, limit: AbortSignal) => openTcp({ ...reached, ...own }, limit) };
    const { signal: _, ...quiet } = this.#options;
    const limit = signal ?? AbortSignal.timeout(ADD_MS);
    const dialled = await dial(this.#address, {
      ...quiet,
      signal: limit,
      ...(way === undefined ? {} : { transport: way }),
    });
    const { socket } = dialled;
    try {
      if (this.#resumption !== undefined) throw new FivedError("SESSION_LOST", `${cannot}: it has none at the moment`);
      const { session } = this.#pump;
      const ticket = this.#ticket;
      const { received } = session.positions;
      const wish = { address: this.#address, ticket: ticket.current, mode: "add", received } as const;
      const { attached, rest } = await attachOver(dialled, wish, limit);
      const { sent, received: now } = session.positions;
      const isOver = session.ended !== undefined || session.connections === 0 || this.#ticket !== ticket;
      if (isOver || attached.received > sent || attached.base > now)
        throw new FivedError("SESSION_LOST", `${cannot}: it has changed meanwhile`);
      const { generation, secret, limit: most } = attached;
      this.#ticket = { ...ticket, current: { sid: ticket.current.sid, generation, secret } };
      const connection = this.#pump.attach(socket, rest, {
        received: attached.received,
        limit: most,
        stored: generation,
      });
      this.#paths.set(name, { connection, socket, made: options });
      this.#arrivedPath(name, connection);
      if (reserved) this.#pump.carryAll(connection, false);
    } catch (error) {
      socket.destroy();
      throw error;
    }
  }

  removePath(name: string): boolean {
    const path = this.#paths.get(name);
    if (path === undefined) return false;
    this.#paths.delete(name); // it is not made again
    this.#pump.leave(path.connection);
    return true;
  }

  move(stream: Duplex, path: string | undefined): boolean {
    const id = this.#streamsOf.get(stream);
    if (id === undefined || this.#pump.stream(id) === undefined) return false;
    if (path !== undefined && !this.#paths.has(path)) return false;
    this.#keepTo(id, path);
    return true;
  }

  /** A stream is wanted on a connection: now, and when there is one of that name again. */
  #keepTo(id: number | undefined, path: string | undefined): void {
    if (id === undefined) return;
    if (path === undefined) this.#wanted.delete(id);
    else this.#wanted.set(id, path);
    if (this.#wanted.size > 2 * this.#pump.streams + WANTED_SPARE)
      for (const each of [...this.#wanted.keys()]) if (this.#pump.stream(each) === undefined) this.#wanted.delete(each);
    this.#pump.pin(id, path === undefined ? undefined : this.#paths.get(path)?.connection);
  }

  /** There is a connection of that name, again or for the first time. */
  #arrivedPath(name: string, connection: number): void {
    for (const [id, wanted] of this.#wanted) {
      if (this.#pump.stream(id) === undefined) this.#wanted.delete(id);
      else if (wanted === name) this.#pump.pin(id, connection);
    }
  }

  #addRuled({ services: _, ...rule }: PathRule): void {
    this.addPath(rule).catch((error: Error) => {
      this.#options.log?.(error.message);
      this.#addAgain(rule);
    });
  }

  /** A connection is gone. It is made again, as long as there is another one meanwhile; of the last one, resuming makes the next. */
  #forgetPath(connection: number, connections: number): void {
    for (const [name, path] of this.#paths) {
      if (path.connection !== connection) continue;
      this.#paths.delete(name);
      const made = path.made ?? (connections > 0 ? { name } : undefined);
      if (made !== undefined && !this.#missing.has(name)) this.#addAgain(made);
    }
  }

  #addAgain(options: PathOptions): void {
    const { name, signal: _, ...again } = options;
    this.#missing.add(name);
    setTimeout(() => {
      this.#missing.delete(name);
      if (this.#pump.session.ended !== undefined || this.#paths.has(name)) return;
      const isOver = this.#resumption !== undefined || this.#pump.session.connections === 0;
      if (isOver) this.#addAgain(options);
      else this.addPath({ name, ...again }).catch(() => this.#addAgain(options));
    }, ADD_AGAIN_MS).unref();
  }

  /**
   * Connections that start from an address which this computer has no more are gone, though nothing says so: the others are told. False when that is all of them.
   */
  #leaveDeserted(): boolean {
    const addresses = new Set(
      Object.values(networkInterfaces()).flatMap((all) => (all ?? []).map(({ address }) => address)),
    );
    const all = [...this.#paths.values()];
    const left = all.filter(
      ({ socket }) => socket.localAddress === undefined || addresses.has(plainAddress(socket.localAddress)),
    );
    const [alone] = left;
    if (alone === undefined) return false;
    if (left.length === all.length) return true;
    if (left.length === 1) this.#pump.alone(alone.connection);
    else for (const path of all) if (!left.includes(path)) this.#pump.leave(path.connection);
    return true;
  }

  async detach(): Promise<string> {
    const cannot = `Cannot detach the session at ${printAddress(this.#address)}`;
    const ticket = this.#ticket;
    if (ticket === undefined || this.#fingerprint === undefined)
      throw new FivedError("DETACH_IMPOSSIBLE", `${cannot}: the server keeps no session without a connection for you`);
    this.#pump.freeze();
    const rests = (): boolean => this.#pump.said && this.#unanswered === 0;
    if (!(await within(rests)) || this.#pump.session.ended !== undefined) {
      this.#pump.thaw();
      throw new FivedError(
        "DETACH_IMPOSSIBLE",
        `${cannot}: a service has not taken or not answered what was said to it`,
      );
    }
    // From here on the server keeps it: what it still says comes again, where the session goes on.
    this.#stopResuming();
    this.#superseding = true;
    this.#pump.supersede();
    if (!(await within(() => this.#pump.session.state !== undefined))) {
      this.#superseding = false;
      this.#pump.thaw();
      this.#detached("it could not be detached");
      throw new FivedError("DETACH_IMPOSSIBLE", `${cannot}: a program here has not taken what has come for it`);
    }
    const { state } = this.#pump.session;
    const { current, ttlMs } = this.#ticket ?? ticket;
    if (state === undefined) throw new FivedError("SESSION_LOST", `${cannot}: it is over`);
    this.#pump.end(Code.SUPERSEDED, "the session was detached, and can be attached to elsewhere");
    return printDetached({
      address: printAddress(this.#address),
      fingerprint: this.#fingerprint,
      ticket: current,
      ttlMs,
      expires: Date.now() + ttlMs,
      state,
    });
  }

  /** A stream that another process has opened, as a Duplex. */
  adopt(id: number): Duplex {
    const duplex = new ChannelDuplex(0); // it may be detached again, and what nobody has read must not be gone then
    const channel = this.#pump.stream(id);
    if (channel === undefined) throw new RangeError(`Cannot go on with stream ${id}: it is not open`);
    const { state } = this.#pump.session;
    duplex.attach(channel);
    if (state?.streams.find((stream) => stream.id === id)?.finished === true) channel.ended();
    return duplex;
  }

  #stopResuming(): void {
    this.#resumption?.stop();
    this.#resumption = undefined;
  }

  #over(): void {
    this.#stopResuming();
    clearTimeout(this.#late);
    this.#rest();
  }

  /** Nothing of what the server says on this connection is for us, or for who we are not: not an octet of it was read as frames. */
  #refuse(error: FivedError): void {
    this.#refused = error;
    const pending = this.#pending ?? [];
    this.#pending = undefined;
    for (const fail of pending) fail(error);
    this.#pump.end(error.code === "AUTH_REFUSED" ? Code.CANCEL : Code.PROTOCOL, error.message);
  }

  get openable(): boolean {
    return !this.#closing && !this.#pump.frozen && !this.isSilent && this.#pump.session.openable;
  }

  get isSilent(): boolean {
    // What is said to one that has just lost its connection waits for the next one.
    const ms = this.#lostAt === undefined ? this.#pump.unansweredMs : performance.now() - this.#lostAt;
    return ms >= DOUBT_MS;
  }

  probe(): void {
    this.#pump.probe();
    if (this.#pump.session.connections === 0) this.#look(true);
  }

  open(service: string, options: OpenOptions = {}): Duplex {
    const duplex = new ChannelDuplex();
    this.openOn(duplex, service, options);
    return duplex;
  }

  openOn(duplex: ChannelDuplex, service: string, { host, via, signal, path }: OpenOptions & Through): void {
    const channel = this.#channel(service, host, via);
    if (channel.id !== undefined) this.#streamsOf.set(duplex, channel.id);
    if (path !== undefined) this.#keepTo(channel.id, path);
    duplex.attach(channel);
    this.#pending?.push((error) => duplex.destroy(error));
    this.#expect(channel, asked(service, host, via), (answer) => {
      if (answer.type === "refused") duplex.destroy(answer.error);
      else duplex.emit("connect");
    });
    abortWith(duplex, signal);
  }

  #expect(channel: Channel, lines: readonly Asked[], answered: (answer: Answer) => void): void {
    this.#unanswered++;
    expectReplies(channel, lines, (answer) => {
      this.#unanswered--;
      answered(answer);
    });
  }

  get isHeard(): boolean {
    return this.#isHeard;
  }

  join(service: string, to: Splice, answered: (error: FivedError | undefined) => void, host?: string): void {
    const channel = this.#channel(service, host);
    channel.splice(to, NOTHING);
    this.#expect(channel, asked(service, host), (answer) =>
      answered(answer.type === "refused" ? (this.#refused ?? answer.error) : undefined),
    );
  }

  get status(): SessionStatus {
    const { session } = this.#pump;
    const { sent, acknowledged } = session.positions;
    return {
      streams: session.streams,
      queuedBytes: sent - acknowledged,
      roundTripMs: session.roundTripMs,
      connections: session.connections,
      isAttaching: this.#resumption !== undefined,
    };
  }

  async list(service?: string, { via }: Through = {}): Promise<string[]> {
    const duplex = new ChannelDuplex();
    const [first = "", ...more] = [...(via === undefined ? [] : [via]), listing(service)];
    const channel = this.#opened(first);
    for (const line of more) channel.write(encodeLine(line));
    duplex.attach(channel);
    this.#pending?.push((error) => duplex.destroy(error));
    if (via !== undefined)
      expectReplies(channel, [{ text: "VIA" }], (answer) => {
        if (answer.type === "refused") duplex.destroy(answer.error);
      });
    this.#unanswered++;
    try {
      return await readList(duplex);
    } finally {
      this.#unanswered--;
    }
  }

  async close(): Promise<void> {
    this.#closing = true;
    this.#endIfIdle();
    await this.closed;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#pump.end(Code.NO_ERROR, "closed");
    await this.closed.catch(() => {});
  }

  #endIfIdle(): void {
    if ((this.#closing || this.#endsWhenIdle) && this.#pump.streams === 0) this.#pump.end(Code.NO_ERROR, "closed");
  }

  #channel(service: string, host: string | undefined, via?: string): Channel {
    if (this.#pump.frozen)
      throw new FivedError("SESSION_LOST", `Cannot open "${service}": the session is being detached`);
    checkName(service);
    const lines = [...(via === undefined ? [] : [via]), ...(host === undefined ? [] : [`HOST ${host}`]), service];
    const [first = "", ...more] = lines;
    const channel = this.#opened(first);
    for (const line of more) channel.write(encodeLine(line));
    const rule = this.#options.paths?.find(({ services }) => services?.includes(service));
    if (rule !== undefined) this.#keepTo(channel.id, rule.name);
    return channel;
  }

  #opened(request: string): Channel {
    const channel =
      !this.#closing && this.#pump.session.openable ? this.#pump.open(encodeLine(request).subarray(0, -2)) : undefined;
    if (channel !== undefined) {
      this.#watch();
      return channel;
    }
    if (this.#refused !== undefined) throw this.#refused;
    const ended = this.#pump.session.ended;
    if (ended !== undefined) throw lost(this.#address, ended.reason, codeName(ended.code));
    throw new FivedError("SESSION_LOST", `Cannot open "${request.split(" ")[0]}": the session takes no more streams`);
  }
}

/** Without TLS and MULTIPLEX a "session" is only an address: each stream has a connection of its own (RFC 1078). */
class BareSession implements ServiceOpener {
  readonly closed: Promise<void>;
  readonly identity = Promise.resolve(undefined);
  readonly heard: Promise<void> = Promise.resolve();
  readonly openable = true;
  readonly isSilent = false;
  readonly isHeard = true;
  readonly binding = undefined;
  readonly #address: Address;
  readonly #options: ConnectOptions;
  readonly #close: () => void;

  constructor(address: Address, options: ConnectOptions) {
    this.#address = address;
    this.#options = options;
    const closed = Promise.withResolvers<void>();
    this.closed = closed.promise;
    this.#close = closed.resolve;
  }

  open(service: string, options: OpenOptions = {}): Duplex {
    const duplex = new ChannelDuplex();
    this.openOn(duplex, service, options);
    return duplex;
  }

  openOn(duplex: ChannelDuplex, service: string, options: OpenOptions): void {
    checkName(service);
    this.#start(duplex, service, options.host).catch((error: Error) => duplex.destroy(error));
    abortWith(duplex, options.signal);
  }

  async #start(duplex: ChannelDuplex, service: string, host: string | undefined): Promise<void> {
    const { socket } = await dial(this.#address, this.#options);
    const channel = new BareChannel(socket);
    const requests = asked(service, host);
    const wait = this.#options.pipeline === false;
    for (const { text } of requests) channel.write(encodeLine(text));
    if (!wait) duplex.attach(channel);
    expectReplies(
      channel,
      requests,
      (answer) => {
        if (answer.type === "accepted") return void duplex.emit("connect");
        duplex.destroy(answer.error);
        channel.reset(Code.CANCEL);
      },
      wait ? (rest) => duplex.attach(channel, rest) : undefined,
    );
  }

  probe(): void {}

  async addPath(): Promise<void> {
    throw new FivedError(
      "DETACH_IMPOSSIBLE",
      `Cannot add a connection to ${printAddress(this.#address)}: without TLS there is no session`,
    );
  }

  removePath(): boolean {
    return false;
  }

  move(): boolean {
    return false;
  }

  async detach(): Promise<string> {
    throw new FivedError(
      "DETACH_IMPOSSIBLE",
      `Cannot detach ${printAddress(this.#address)}: without TLS there is no session`,
    );
  }

  readonly status: SessionStatus = {
    streams: 0,
    queuedBytes: 0,
    roundTripMs: undefined,
    connections: 0,
    isAttaching: false,
  };

  join(service: string, to: Splice, answered: (error: FivedError | undefined) => void, host?: string): void {
    const duplex = this.open(service, host === undefined ? {} : { host });
    duplex.once("connect", () => answered(undefined));
    duplex.once("error", (error) => {
      answered(error instanceof FivedError ? error : lost(this.#address, error.message));
      to.destroy();
    });
    to.output.pipe(duplex);
    duplex.pipe(to.input);
  }

  async list(service?: string): Promise<string[]> {
    const duplex = new ChannelDuplex();
    const { socket } = await dial(this.#address, this.#options);
    const channel = new BareChannel(socket);
    duplex.attach(channel);
    channel.write(encodeLine(listing(service)));
    return readList(duplex);
  }

  async close(): Promise<void> {
    this.#close();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#close();
  }
}

/** Looks until that is so, or time is over. */
async function within(isSo: () => boolean): Promise<boolean> {
  for (const until = performance.now() + REST_MS; performance.now() < until; await pause(REST_LOOK_MS))
    if (isSo()) return true;
  return isSo();
}

/** Without what says that it is an IPv4 address in an IPv6 socket. */
function plainAddress(address: string): string {
  return address.replace(/^::ffff:/, "");
}

const NOTHING = new Uint8Array(0);

/** A list is as long as an organisation has services, 100,000 of them at the most. */
const LIST_BYTES_MAX = 8 * 1_024 * 1_024;

/** Reads names until the empty line, or until a plain RFC 1078 peer closes. */
async function readList(duplex: Duplex): Promise<string[]> {
  let text = "";
  for await (const chunk of duplex) {
    text += String(chunk);
    if (text.endsWith("\r\n\r\n") || text === "\r\n" || /^-.*\r\n/.test(text)) break; // a refused LIST leaves the conversation open
    if (text.length > LIST_BYTES_MAX)
      throw new FivedError(
        "PROTOCOL_ERROR",
        `Cannot list: the server names more than ${LIST_BYTES_MAX} octets of services`,
      );
  }
  duplex.destroy();
  if (text.startsWith("-")) throw refusal("LIST", parseReply(text.split("\r\n")[0] ?? ""));
  return text.split("\r\n").filter((line) => line !== "");
}

/** What is said of VIA in messages is its word alone: what stands behind it is a proof. */
function asked(service: string, host: string | undefined, via?: string): Asked[] {
  const lines = [...(via === undefined ? [] : ["VIA"]), ...(host === undefined ? [] : [`HOST ${host}`]), service];
  return lines.map((text) => ({ text }));
}

function listing(service: string | undefined): string {
  return service === undefined ? "LIST" : `LIST ${service}`;
}

function checkName(service: string): void {
  if (isServiceName(service)) return;
  const charset = "1 to 64 letters, digits and . _ + -, starting with a letter, a digit or _";
  throw new FivedError("ADDRESS_BAD", `Cannot open "${service}": a service's name is ${charset}`);
}

function lost(address: Address, why: string, reason?: CodeName): FivedError {
  const message = `Cannot go on with the session at ${printAddress(address)}: ${why}`;
  return new FivedError("SESSION_LOST", message, reason === undefined ? {} : { reason });
}

/** Destroys a stream with ABORTED when the signal says so. */
export function abortWith(duplex: Duplex, signal: AbortSignal | undefined): void {
  if (signal === undefined) return;
  const abort = (): void => {
    duplex.destroy(
      new FivedError("ABORTED", "Cannot go on with the stream: it was called off", { cause: signal.reason }),
    );
  };
  if (signal.aborted) return abort();
  signal.addEventListener("abort", abort, { once: true });
  duplex.once("close", () => signal.removeEventListener("abort", abort));
}
