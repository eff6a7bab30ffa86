/**
 * A session over MULTIPLEX: its beginning in one flight, its streams, and its life while connections come and go.
 *
 * ```
 *   streams ──► SessionPump ──► connections ── main, and others (session-paths.ts)
 *                   │ disconnected, silent, moved
 *                   ▼
 *               Resumption (resume.ts) finds another one; or detach() gives the session away
 * ```
 * @module
 */
import type { Socket } from "node:net";
import type { Duplex } from "node:stream";
import { setTimeout as pause } from "node:timers/promises";
import { type Attached, parseDetachable, type Ticket } from "../identity/index.ts";
import {
  BareChannel,
  type Channel,
  ChannelDuplex,
  FivedError,
  SessionPump,
  type SessionStream,
  type Splice,
} from "../io/index.ts";
import { type Recollection, recalledState, SESSION_LIMITS } from "../session/index.ts";
import { Code, codeName, encodeLine, parseReply } from "../wire/index.ts";
import { type Address, printAddress } from "./address.ts";
import type { SignedIn } from "./auth/authenticate.ts";
import { Credit, kept } from "./credit.ts";
import { type DetachedSession, printDetached } from "./detached.ts";
import type { ConnectOptions } from "./dial.ts";
import { type KeptSession, nameOf } from "./kept.ts";
import { type Claim, type Claimed, RecalledStreams } from "./recalled.ts";
import { type Answer, type Asked, expectReplies, refusal } from "./replies.ts";
import { type Reached, type Resumable, Resumption, reachedBy } from "./resume.ts";
import type { Joined, Keeping, OpenOptions, PathOptions, ServiceOpener, SessionStatus, Through } from "./session.ts";
import { abortWith, asked, checkName, listing, lost, readList } from "./session-lines.ts";
import { SessionPaths } from "./session-paths.ts";
import { watchNetwork } from "./watch.ts";

/** A connection, and what is to be said in front of MULTIPLEX. */
export type Start = Omit<SignedIn, "identity"> & { readonly identity: Promise<string | undefined> };

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
/** What is to be detached has so long to come to rest; then a program or a service is not taking what is its own. */
const REST_MS = 10_000;
/** Between two looks whether it has. */
const REST_LOOK_MS = 5;

/** A session of which nothing was left but its ticket, as its server remembers it, and its first connection here. */
export interface RecalledSession extends KeptSession {
  readonly recalled: Recollection;
  readonly attached: Attached;
  readonly socket: Socket;
  readonly rest: Uint8Array;
}

export class MultiplexedSession implements ServiceOpener {
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
  readonly #paths: SessionPaths;
  readonly #streamsOf = new WeakMap<Duplex, number>();
  /** Questions on streams that wait for their answer: what comes next is no data yet. */
  #unanswered = 0;
  #isHeard = false;
  #closing = false;
  readonly #endsWhenIdle: boolean;
  readonly #options: ConnectOptions;
  #reached: Reached | undefined;
  readonly #heard: () => void;
  #recalled: RecalledStreams | undefined;
  /** Its name, once its ticket is kept where it outlives this process; undefined where it is not. */
  readonly #kept = Promise.withResolvers<string | undefined>();
  #name: string | undefined;
  /** Who the server says we are, as far as it has. */
  #identity: string | undefined;
  /** Since the server has granted one. */
  #ticket: { readonly current: Ticket; readonly ttlMs: number } | undefined;
  #resumption: Resumption | undefined;
  /** Ends it when it could not be attached in time. */
  #late: NodeJS.Timeout | undefined;
  #unwatch: (() => void) | undefined;
  #superseding = false;
  /** It has no connection any more, and is to have none here: {@link MultiplexedSession.detach} only waits for those who read. */
  #isBeingLeft = false;
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

  /** @param begin a connection on which it begins, or what another process has left, on purpose or killed */
  constructor(
    address: Address,
    begin: Start | DetachedSession | RecalledSession,
    options: ConnectOptions,
    endsWhenIdle: boolean,
  ) {
    const left = "dialled" in begin ? undefined : begin;
    const state =
      left === undefined ? undefined : "state" in left ? left.state : recalledState(left.recalled, left.attached);
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
    this.#heard = heard.resolve;
    closed.promise.catch(() => {}); // who wants to know asks; streams are told anyway
    this.#pump = new SessionPump(
      {
        role: "client",
        retain: options.retain ?? left !== undefined,
        limits: CLIENT_LIMITS,
        ...(state === undefined ? {} : { state }),
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
          this.#paths.gone(connection, connections);
          if (connections === 0 && !this.#superseding && !this.#isBeingLeft) this.#detached(reason);
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
    this.#paths = new SessionPaths(this.#pump, address, options, {
      ticket: () => (this.#resumption === undefined && !this.#isBeingLeft ? this.#ticket?.current : undefined),
      isDetachable: () => this.#ticket !== undefined,
      store: (ticket) => this.#store(ticket),
      reached: () => this.#reached,
    });
    const over = closed.promise.then(() => {
      throw lost(address, "it was closed before the server had answered");
    });
    const identity = "dialled" in begin ? begin.identity : "recalled" in begin ? begin.identity : undefined;
    this.identity = Promise.race([identity, over]);
    this.identity.catch(() => {});
    if ("dialled" in begin) this.#start(begin);
    else this.#goOnWith(begin);
  }

  /** Another process has begun it. */
  #goOnWith(begin: DetachedSession | RecalledSession): void {
    this.#isHeard = true;
    this.#heard();
    this.#pending = undefined;
    this.#ticket = { current: begin.ticket, ttlMs: begin.ttlMs };
    if ("recalled" in begin) {
      this.#recalled = new RecalledStreams(this.#pump, begin.recalled);
      this.#recalledOver(begin);
    } else {
      this.#isTakenOver = true;
      this.#findConnection(ATTACH_MS, "nobody answers");
    }
  }

  /** Its ticket was kept before: whoever has recalled it has seen to that. */
  #recalledOver({ socket, rest, attached, ticket, identity }: RecalledSession): void {
    const { received, limit, generation } = attached;
    this.#identity = identity;
    this.#isKeptAs(nameOf(ticket.sid));
    this.#reached = reachedBy(socket, this.#options);
    this.#isAttached();
    this.#paths.main(this.#pump.attach(socket, rest, { received, limit, stored: generation }), socket);
    this.#paths.addRuled(this.#options.paths ?? []);
    this.#watch();
  }

  /** The ticket is the next one from now on; resolves when it is kept as safely as it can be. */
  async #store(next: Ticket): Promise<void> {
    if (this.#ticket === undefined) return;
    this.#ticket = { ...this.#ticket, current: next };
    await this.#keep();
  }

  async #keep(): Promise<void> {
    const { tickets } = this.#options;
    if (tickets === undefined || this.#ticket === undefined || this.#fingerprint === undefined) return;
    const { current: ticket, ttlMs } = this.#ticket;
    const [address, fingerprint] = [printAddress(this.#address), this.#fingerprint];
    await tickets.keep({ address, fingerprint, ticket, ttlMs, reached: this.#reached, identity: this.#identity });
  }

  #isKeptAs(name: string | undefined): void {
    this.#name = name;
    this.#kept.resolve(name);
  }

  /** The server has granted a ticket: it is kept, with who we are there. */
  async #granted({ sid }: Ticket): Promise<void> {
    try {
      this.#identity = await this.identity;
      await this.#keep();
      this.#isKeptAs(this.#options.tickets === undefined ? undefined : nameOf(sid));
    } catch (error) {
      // As good as ever, but for a crash of this process.
      this.#options.log?.(`cannot keep the ticket of the session: ${error instanceof Error ? error.message : error}`);
      this.#kept.resolve(undefined);
    }
  }

  /** What is ahead, MULTIPLEX and the first frames travel in one flight; the answers are read when they come. */
  #start({ dialled: { socket }, ahead }: Start): void {
    const requests: Asked[] = [...ahead, ...this.#detachable(), { text: "MULTIPLEX" }];
    const channel = new BareChannel(socket);
    if (socket.isPaused()) socket.resume(); // whoever said lines on it before left it so
    this.#paths.main(FIRST_CONNECTION, socket);
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
    if (detachable === false) {
      this.#kept.resolve(undefined);
      return [];
    }
    const hear = (line: string): Answer => {
      const granted = parseDetachable(line);
      if (granted !== undefined) {
        this.#ticket = { current: granted, ttlMs: granted.ttlSeconds * 1_000 };
        this.#pump.retain();
        void this.#granted(granted);
        this.#paths.addRuled(this.#options.paths ?? []);
        if (this.#pump.streams > 0) this.#watch();
        return { type: "accepted" };
      }
      const reply = parseReply(line);
      this.#kept.resolve(undefined); // whoever waits for it need not wait for the session's end
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
    if (moved && !this.#paths.leaveDeserted()) return this.#resume();
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
    if (this.#isBeingLeft) return;
    const { session } = this.#pump;
    const began = performance.now();
    const resumable: Resumable = {
      get positions() {
        return session.positions;
      },
      get roundTripMs() {
        return session.roundTripMs;
      },
      store: (next) => this.#store(next),
      resumed: (socket, { rest, attached: { received, limit, generation } }) => {
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
        this.#paths.main(connection, socket);
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

  addPath(options: PathOptions): Promise<void> {
    return this.#paths.add(options);
  }

  removePath(name: string): boolean {
    return this.#paths.remove(name);
  }

  move(stream: Duplex, path: string | undefined): boolean {
    const id = this.#streamsOf.get(stream);
    if (id === undefined || this.#pump.stream(id) === undefined) return false;
    if (path !== undefined && !this.#paths.has(path)) return false;
    this.#paths.keep(id, path);
    return true;
  }

  async detach(): Promise<string> {
    const cannot = `Cannot detach the session at ${printAddress(this.#address)}`;
    const ticket = this.#ticket;
    if (ticket === undefined || this.#fingerprint === undefined)
      throw new FivedError(
        "DETACH_IMPOSSIBLE",
        `${cannot}: the server keeps no session without a connection for you; sign in, or see sessions.detach there`,
      );
    this.#pump.freeze();
    const rests = (): boolean => this.#pump.said && this.#unanswered === 0;
    if (!(await within(rests)) || this.#pump.session.ended !== undefined) {
      this.#pump.thaw();
      throw new FivedError(
        "DETACH_IMPOSSIBLE",
        `${cannot}: a service has not taken or not answered what was said to it; try again when it has`,
      );
    }
    // From here on the server keeps it: what it still says comes again, where the session goes on.
    this.#stopResuming();
    this.#isBeingLeft = true;
    this.#pump.supersede();
    if (!(await within(() => this.#pump.session.state !== undefined))) {
      this.#isBeingLeft = false;
      this.#pump.thaw();
      this.#detached("it could not be detached");
      throw new FivedError(
        "DETACH_IMPOSSIBLE",
        `${cannot}: a program here has not taken what has come for it; have it read, and try again`,
      );
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
    this.#recalled?.stop();
    this.#kept.resolve(undefined);
    if (this.#ticket !== undefined) this.#options.tickets?.forget(this.#ticket.current.sid);
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
    if (channel.id !== undefined && path !== undefined) this.#paths.keep(channel.id, path);
    duplex.attach(channel);
    this.#pending?.push((error) => duplex.destroy(error));
    this.#expect(channel, asked(service, host, via), (answer) => {
      if (answer.type === "refused") duplex.destroy(answer.error);
      else duplex.emit("connect");
    });
    abortWith(duplex, signal);
  }

  #expect(channel: Channel, lines: readonly Asked[], answered: (answer: Answer, octets: number) => void): void {
    this.#unanswered++;
    expectReplies(channel, lines, (answer, octets) => {
      this.#unanswered--;
      answered(answer, octets);
    });
  }

  get isHeard(): boolean {
    return this.#isHeard;
  }

  join(
    service: string,
    to: Splice,
    answered: (error: FivedError | undefined, octets: number) => void,
    { host, keeping }: { readonly host?: string | undefined; readonly keeping?: Keeping } = {},
  ): Joined {
    const channel = this.#channel(service, host);
    const credit = new Credit(channel);
    channel.splice(keeping === undefined ? to : kept(to, keeping, credit, preface(service, host)), NOTHING);
    this.#expect(channel, asked(service, host), (answer, octets) =>
      answered(answer.type === "refused" ? (this.#refused ?? answer.error) : undefined, octets),
    );
    return {
      stream: channel.id,
      name: this.#name,
      kept: this.#kept.promise,
      took: (octets) => credit.took(octets),
    };
  }

  /** Gives a stream of the process that was killed to who has it, see {@link RecalledStreams.claim}. */
  claim(
    service: string,
    claim: Omit<Claim, "preface" | "answers">,
    to: Splice,
    answered: (error: FivedError | undefined, octets: number) => void,
    host?: string,
  ): Claimed {
    if (this.#recalled === undefined) return { type: "over" };
    const full = { ...claim, preface: preface(service, host), answers: asked(service, host) };
    return this.#recalled.claim(full, to, (answer, octets) =>
      answered(answer.type === "refused" ? answer.error : undefined, octets),
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

  #channel(service: string, host: string | undefined, via?: string): SessionStream {
    if (this.#pump.frozen)
      throw new FivedError("SESSION_LOST", `Cannot open "${service}": the session is being detached`);
    checkName(service);
    const [first = "", ...more] = lines(service, host, via);
    const channel = this.#opened(first);
    for (const line of more) channel.write(encodeLine(line));
    const rule = this.#options.paths?.find(({ services }) => services?.includes(service));
    if (rule !== undefined && channel.id !== undefined) this.#paths.keep(channel.id, rule.name);
    return channel;
  }

  #opened(request: string): SessionStream {
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

/** What is said on a stream that is to be a service's: the first line opens it. */
function lines(service: string, host: string | undefined, via?: string): string[] {
  return [...(via === undefined ? [] : [via]), ...(host === undefined ? [] : [`HOST ${host}`]), service];
}

/** What is said on it behind the first line, in front of the octets of whoever it is for. */
function preface(service: string, host: string | undefined): Uint8Array {
  const [, ...more] = lines(service, host);
  return Buffer.concat(more.map(encodeLine));
}

/** Looks until that is so, or time is over. */
async function within(isSo: () => boolean): Promise<boolean> {
  for (const until = performance.now() + REST_MS; performance.now() < until; await pause(REST_LOOK_MS))
    if (isSo()) return true;
  return isSo();
}

const NOTHING = new Uint8Array(0);
