/**
 * The session server: listens, tells TLS from lines by the first octet, and gives each connection its conversation (PROTOCOL §2.1).
 *
 * ```
 *   accept --> 0x16? --> TLS 1.3, ALPN fived/1 --> conversation "secure" --+--> MULTIPLEX --> ServerSession
 *      |         no                                     ^                  +--> a service's bytes
 *      |          +--> conversation "plain" / "restricted" -- TLS ---------+
 *   Admission
 * ```
 * @module
 */
import { randomUUID } from "node:crypto";
import { createServer, isIPv6, type Server, type Socket } from "node:net";
import { TLSSocket } from "node:tls";
import { type AttachRequest, attachedLine, serverProof } from "../identity/index.ts";
import { BareChannel, FivedError, FrameBudget, removeStale } from "../io/index.ts";
import { RECALLED_STREAMS_MAX, recalledLines, SESSION_LIMITS, type SessionLimits } from "../session/index.ts";
import { Code, encodeLine } from "../wire/index.ts";
import { Admission } from "./admission.ts";
import { KeysWhenNeeded } from "./announce/keys.ts";
import { type Audit, openAudit } from "./audit.ts";
import { type Authentication, type AuthenticationOptions, buildAuthentication } from "./auth/authentication.ts";
import type { Identity } from "./auth/mechanism.ts";
import { CodeMemory } from "./auth/second-factor.ts";
import type { Configuration, ListenSettings } from "./config.ts";
import { Conversation, type FailedAttempt, type Use } from "./conversation.ts";
import { type Detachable, DetachableSessions } from "./detachable.ts";
import { EmptyRecords } from "./empty-records.ts";
import { type Endpoint, endpointText } from "./endpoint.ts";
import { Hops } from "./hops.ts";
import type { Log } from "./log.ts";
import { createLog } from "./log.ts";
import { Penalties } from "./penalties.ts";
import { buildRegistry, type Registry, type RegistryOptions } from "./registry.ts";
import { ServerSession } from "./server-session.ts";
import type { Caller, Refusal } from "./service.ts";
import { isLoopback } from "./source.ts";

import { Standing } from "./standing.ts";
import { SeenVouchings } from "./trusts.ts";
import type { Upstream } from "./upstream.ts";
import type { Ground } from "./words.ts";

/** The ALPN name of this protocol: without it on both sides another protocol's octets could be reflected at us (ALPACA, abuse case T11). */
const ALPN = "fived/1";
/** First octet of a TLS record that carries a handshake. */
const TLS_HANDSHAKE = 0x16;
/** Octets of the certificates a client may show: a chain is three or four of 2 KiB (abuse case T18). */
const CHAIN_BYTES_MAX = 16 * 1_024;
/** Connections the kernel may queue before we accept them: Linux lets a program have so many. What does not fit is lost in silence. */
const BACKLOG = 4_096;

/** A running session server. */
export interface SessionServer extends AsyncDisposable {
  /** Where it listens, as URLs with the ports that were really taken. */
  readonly addresses: readonly string[];
  /** Fingerprint of its key, as `known_hosts` tools print it. */
  readonly fingerprint: string;
  /**
   * Other services, hosts, roles, certificates and addresses from now on. A stream that its caller could not open any more is cut; all
   * others go on untouched.
   */
  reload(configuration: Configuration): Promise<void>;
  /** Takes no more connections and streams; idle sessions end at once, streams have `graceMs` to end. Resolves when all is over. */
  drain(graceMs?: number): Promise<void>;
}

/** What a server is started with. */
export interface ServeOptions {
  readonly log?: Log;
  /** The way to other session servers; without one no service may lie behind another. */
  readonly upstream?: Upstream;
}

/** Starts a session server; rejects with LISTEN_FAILED, CONFIGURATION_BAD or STATE_UNUSABLE. */
export async function serve(configuration: Configuration, options: ServeOptions = {}): Promise<SessionServer> {
  const log = options.log ?? createLog({ level: "info" });
  const hops = new Hops(options.upstream, log);
  const seenVouchings = new SeenVouchings();
  const lasting = { log, codes: new CodeMemory(), announceKeys: new KeysWhenNeeded(), hops, seenVouchings };
  const server = new Daemon(configuration, await setUp(configuration, lasting), lasting);
  try {
    await server.listen(configuration.listen);
  } catch (error) {
    await server[Symbol.asyncDispose]();
    throw error;
  }
  return server;
}

/** What a configuration is made into. */
interface SetUp {
  readonly registry: Registry;
  readonly authentication: Authentication;
  readonly audit: Audit;
}

/** What outlasts a configuration. */
type Lasting = AuthenticationOptions & RegistryOptions;

async function setUp(configuration: Configuration, lasting: Lasting): Promise<SetUp> {
  using made = new DisposableStack();
  const authentication = made.use(await buildAuthentication(configuration, lasting));
  const audit = made.use(openAudit(configuration.audit, lasting.log));
  const registry = await buildRegistry(configuration, lasting);
  made.move(); // nothing has gone wrong: they are the server's to end
  return { registry, authentication, audit };
}

interface Listener {
  /** Another configuration may have others for the same address. */
  settings: ListenSettings;
  readonly server: Server;
  readonly address: string;
}

class Daemon implements SessionServer {
  readonly #log: Log;
  readonly #lasting: Lasting;
  readonly #admission: Admission;
  readonly #penalties: Penalties;
  #budget: FrameBudget;
  readonly #sessions = new Set<ServerSession>();
  /** Connections that carry no session: still talking, or a service's own. */
  readonly #bare = new Set<Socket>();
  readonly #idle = new Set<() => void>();
  readonly #emptyRecords = new EmptyRecords();
  readonly #uses = new Set<Use>();
  readonly #detachables: DetachableSessions;
  /** Connections and sessions that belong to somebody, and how to end each. */
  readonly #known = new Map<Standing, () => void>();
  #draining = false;
  #configuration: Configuration;
  #registry: Registry;
  #authentication: Authentication;
  #audit: Audit;
  #listeners: Listener[] = [];
  #reloaded: Promise<void> = Promise.resolve();

  constructor(configuration: Configuration, { registry, authentication, audit }: SetUp, lasting: Lasting) {
    this.#configuration = configuration;
    this.#registry = registry;
    this.#authentication = authentication;
    this.#audit = audit;
    this.#log = lasting.log;
    this.#lasting = lasting;
    this.#budget = new FrameBudget(configuration.limits.framesPerSecond);
    this.#admission = new Admission(configuration.limits.unauthenticated);
    this.#penalties = new Penalties(penaltyLimits(configuration));
    this.#detachables = new DetachableSessions(configuration.sessions.detach);
    authentication.onChange(() => this.#recheck());
  }

  get addresses(): readonly string[] {
    return this.#listeners.map((listener) => listener.address);
  }

  get fingerprint(): string {
    return this.#registry.fingerprint;
  }

  async listen(settings: readonly ListenSettings[]): Promise<void> {
    for (const each of settings) this.#listeners.push(await this.#open(each));
  }

  /** One after the other: two that overlap would both open what is new, and the later one would fail. */
  reload(configuration: Configuration): Promise<void> {
    const reloaded = this.#reloaded.then(() => this.#reload(configuration));
    this.#reloaded = reloaded.catch(() => {});
    return reloaded;
  }

  async #reload(configuration: Configuration): Promise<void> {
    const made = await setUp(configuration, this.#lasting);
    const before = this.#made;
    const wanted = new Map(configuration.listen.map((settings) => [endpointText(settings.endpoint), settings]));
    const kept = this.#listeners.filter(({ settings }) => wanted.has(endpointText(settings.endpoint)));
    const have = new Set(kept.map(({ settings }) => endpointText(settings.endpoint)));
    const opened: Listener[] = [];
    try {
      for (const each of configuration.listen)
        if (!have.has(endpointText(each.endpoint))) opened.push(await this.#open(each));
      if (this.#draining) throw new FivedError("ABORTED", "Cannot reload: the server is shutting down");
    } catch (error) {
      for (const listener of opened) listener.server.close();
      await dispose(made);
      throw error;
    }
    for (const listener of this.#listeners) if (!kept.includes(listener)) listener.server.close();
    for (const listener of kept)
      listener.settings = wanted.get(endpointText(listener.settings.endpoint)) ?? listener.settings;
    this.#listeners = [...kept, ...opened];
    this.#configuration = configuration;
    this.#registry = made.registry;
    this.#authentication = made.authentication;
    this.#audit = made.audit;
    made.authentication.onChange(() => this.#recheck());
    this.#budget = new FrameBudget(configuration.limits.framesPerSecond);
    this.#admission.limits = configuration.limits.unauthenticated;
    this.#penalties.limits = penaltyLimits(configuration);
    this.#detachables.settings = configuration.sessions.detach;
    this.#recheck();
    await dispose(before);
  }

  /** Rights are read again: streams that have lost theirs are cut, and who is not known any more is gone (PROTOCOL §4.11). */
  #recheck(): void {
    const renewed = new Map<Caller, Caller | undefined>();
    const renew = (caller: Caller): Caller | undefined => {
      if (!renewed.has(caller)) renewed.set(caller, this.#renewed(caller));
      return renewed.get(caller);
    };
    for (const use of [...this.#uses]) {
      const caller = renew(use.caller);
      if (caller === undefined || !isAllowed(this.#registry, use, caller)) use.withdraw();
    }
    for (const [standing, end] of [...this.#known]) {
      const caller = renew(standing.caller);
      if (caller === undefined) end();
      else standing.caller = caller;
    }
  }

  /** The caller as he is known now; undefined when he is not. */
  #renewed(caller: Caller): Caller | undefined {
    const { hop, issuer } = caller.through ?? {};
    if (hop !== undefined) {
      // Who came through another server stands and falls with it, and with the trust in its word.
      const now = this.#renewed(hop);
      if (now === undefined || (issuer !== undefined && !this.#registry.trusts.trusts(issuer, now))) return undefined;
    }
    if (caller.identity === undefined) return caller;
    const identity = this.#authentication.current(caller.identity);
    return identity && { ...caller, identity, roles: this.#registry.rolesOf(identity) };
  }

  #recognised(standing: Standing, identity: Identity, end: () => void): boolean {
    const { caller } = standing;
    if (caller.user !== undefined) return false;
    standing.caller = { ...caller, user: identity.user, identity, roles: this.#registry.rolesOf(identity) };
    this.#known.set(standing, end);
    const { mechanism, secondFactor } = identity;
    this.#audit.record(standing.caller, { event: "sign-in", mechanism, secondFactor });
    const { session, peer } = caller;
    this.#log.info({ session, peer, user: identity.user, mechanism: identity.mechanism }, "signed in");
    return true;
  }

  #failed({ caller, address }: Standing, { mechanism, user }: FailedAttempt): void {
    this.#penalties.failed(address);
    this.#audit.record(caller, { event: "sign-in-refused", mechanism, claimed: user });
    const { session, peer } = caller;
    this.#log.info({ session, peer, user, mechanism }, "sign-in refused");
  }

  async drain(graceMs = this.#configuration.limits.shutdownMs): Promise<void> {
    this.#close();
    for (const session of [...this.#sessions]) session.drain();
    for (const stop of [...this.#idle]) stop();
    const deadline = performance.now() + graceMs; // a wall clock that is set meanwhile changes nothing (abuse case S06)
    while (this.#sessions.size + this.#bare.size > 0 && performance.now() < deadline)
      await this.#somethingEnds(deadline);
    await this[Symbol.asyncDispose]();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#close();
    for (const session of [...this.#sessions]) session.end(Code.UNAVAILABLE, "the server is shutting down");
    for (const socket of [...this.#bare]) socket.destroy();
    await dispose(this.#made);
    await this.#lasting.hops[Symbol.asyncDispose]();
    await this.#lasting.announceKeys[Symbol.asyncDispose]();
  }

  /** What the configuration in force was made into. */
  get #made(): SetUp {
    return { registry: this.#registry, authentication: this.#authentication, audit: this.#audit };
  }

  #close(): void {
    this.#draining = true;
    for (const listener of this.#listeners) listener.server.close();
    this.#listeners = [];
  }

  /** Told whenever a session or a connection ends. */
  #ended: () => void = () => {};

  #somethingEnds(deadline: number): Promise<void> {
    return new Promise((resolve) => {
      const timer = setTimeout(resolve, Math.max(0, deadline - performance.now()));
      this.#ended = () => {
        clearTimeout(timer);
        resolve();
      };
    });
  }

  // ---- connections

  async #open(settings: ListenSettings): Promise<Listener> {
    const { endpoint } = settings;
    const server = createServer({ allowHalfOpen: true, noDelay: true }, (socket) =>
      this.#accept(socket, listener.settings),
    );
    if (endpoint.type === "unix") await removeStale(endpoint.path);
    await new Promise<void>((resolve, reject) => {
      server.once("error", (error) => {
        const message = `Cannot listen on ${endpointText(endpoint)}: ${error.message}`;
        reject(new FivedError("LISTEN_FAILED", message, { cause: error }));
      });
      const where =
        endpoint.type === "unix"
          ? { path: endpoint.path }
          : { host: endpoint.host, port: endpoint.port, ipv6Only: false };
      server.listen({ ...where, backlog: BACKLOG }, resolve);
    });
    // Running out of descriptors is not the end: connections wait in the kernel until some are free (abuse case S01).
    server.on("error", (error) => this.#log.warn({ error }, "cannot accept a connection"));
    const listener: Listener = { settings, server, address: endpointText(boundTo(server, endpoint)) };
    return listener;
  }

  #accept(socket: Socket, settings: ListenSettings): void {
    socket.on("error", () => {}); // "close" follows, and is what counts
    const refusal = this.#penalties.refuses(socket.remoteAddress) ? "too many failed sign-ins" : undefined;
    const leave = refusal === undefined ? this.#admission.admit(socket.remoteAddress) : undefined;
    if (leave === undefined) {
      const reason = refusal ?? "too many connections at the door";
      this.#log.debug({ peer: peerOf(socket), reason }, "a connection is refused");
      socket.destroy();
      return;
    }
    this.#bare.add(socket);
    socket.once("close", () => {
      leave();
      this.#bare.delete(socket);
      this.#ended();
    });
    const open = isLoopback(socket.remoteAddress) || settings.plaintext;
    const reception: Reception = { socket, leave, session: randomUUID(), plain: open ? "plain" : "restricted" };
    this.#sniff(reception);
  }

  /** TLS or lines: the first octet tells. */
  #sniff(reception: Reception): void {
    const { socket } = reception;
    const { firstLineMs } = this.#configuration.limits;
    const firstLineBy = performance.now() + firstLineMs;
    const begin = (first: Buffer): void => {
      done();
      socket.pause();
      if (first[0] !== TLS_HANDSHAKE)
        return this.#converse(reception, new BareChannel(socket), { ground: reception.plain, firstLineBy, first });
      socket.unshift(first);
      this.#secure(reception);
    };
    const end = (): void => void socket.end();
    const stop = (): void => {
      done();
      const channel = new BareChannel(socket); // which hears nothing behind our last line
      channel.write(encodeLine("- 408 no request came in time"));
      channel.close();
    };
    const timer = setTimeout(stop, firstLineMs);
    const done = (): void => {
      clearTimeout(timer);
      this.#idle.delete(stop);
      socket.off("close", done).off("end", end).off("data", begin);
    };
    this.#idle.add(stop);
    socket.on("close", done).on("end", end).on("data", begin);
  }

  /** Starts TLS on the connection; afterwards a new conversation begins that knows nothing of what was said before (T06, T07). */
  #secure(reception: Reception): void {
    const { socket } = reception;
    const registry = this.#registry;
    const secured = new TLSSocket(socket, {
      isServer: true,
      secureContext: registry.secureContextFor(undefined),
      ALPNProtocols: [ALPN],
      // Whether a certificate counts is decided by AUTH; who has none, or a bad one, is a stranger as any other.
      requestCert: registry.believesCertificates,
      rejectUnauthorized: false,
      SNICallback: (name, done) => done(null, this.#registry.secureContextFor(name)),
    });
    // Node's own handshake timeout does not apply to a TLSSocket over a socket that exists.
    const stop = (): void => void socket.destroy();
    const timer = setTimeout(stop, this.#configuration.limits.handshakeMs);
    const done = (): void => {
      clearTimeout(timer);
      this.#idle.delete(stop);
    };
    this.#idle.add(stop);
    const failed = (error?: Error): void => {
      if (error !== undefined) this.#log.debug({ peer: peerOf(socket), reason: error.message }, "TLS failed");
      done();
      socket.destroy();
    };
    secured.on("error", failed);
    secured.on("_tlsError", failed); // what Node's own TLS server hears of errors; nobody else would end the connection
    secured.once("close", () => failed());
    secured.once("secure", () => {
      done();
      if (secured.alpnProtocol !== ALPN) return failed(new Error(`no ALPN ${ALPN}`));
      if (registry.believesCertificates && chainBytes(secured) > CHAIN_BYTES_MAX)
        return failed(new Error("the client's certificates are too large"));
      this.#emptyRecords.watch(secured, socket, () => failed(new Error("too many records without data")));
      const firstLineBy = performance.now() + this.#configuration.limits.firstLineMs;
      this.#converse(reception, new BareChannel(secured), { ground: "secure", firstLineBy, first: NOTHING });
    });
  }

  #converse(reception: Reception, channel: BareChannel, { ground, firstLineBy, first }: Beginning): void {
    if (this.#draining) return channel.close(); // it came through the door as that was shut
    const { socket } = channel;
    const caller = {
      session: reception.session,
      user: undefined,
      roles: [],
      identity: undefined,
      secure: ground === "secure",
      peer: peerOf(reception.socket),
      ...localOf(reception.socket),
    };
    const standing = new Standing(caller, { socket, address: reception.socket.remoteAddress });
    const shown = this.#authentication.automatic(standing.certificate);
    if (shown !== undefined) this.#recognised(standing, shown, () => socket.destroy());
    const servername =
      socket instanceof TLSSocket && typeof socket.servername === "string" ? socket.servername : undefined;
    const named = servername === undefined ? undefined : this.#registry.host(servername)?.name;
    const stop = (): void => channel.close();
    this.#idle.add(stop);
    let carried = false;
    let detachable: Detachable | undefined;
    let attached: Attachment | undefined;
    socket.once("close", () => {
      this.#idle.delete(stop);
      if (carried) return;
      this.#known.delete(standing);
      if (detachable !== undefined) this.#detachables.over(detachable);
    });
    const conversation = new Conversation(channel, {
      ground,
      standing,
      log: this.#log,
      audit: () => this.#audit,
      host: named,
      deadlines: this.#configuration.limits,
      firstLineBy,
      uses: this.#uses,
      registry: () => this.#registry,
      authentication: () => this.#authentication,
      recognised: (identity) => this.#recognised(standing, identity, () => socket.destroy()),
      failed: (attempt) => this.#failed(standing, attempt),
      detachable: (ttlSeconds) => {
        if (detachable !== undefined) return DETACHABLE_ALREADY;
        const made = this.#detachables.grant(standing.caller.user, ttlSeconds);
        detachable = made?.detachable;
        return made?.granted ?? NO_ROOM;
      },
      attach: (request, host) => {
        const answer = this.#attach(request, standing, host);
        if ("code" in answer) return answer;
        attached = answer;
        return answer.lines;
      },
      accepted: () => reception.leave(),
      reach: (go) => go(),
      reached: () => {},
      settled: () => this.#idle.delete(stop),
      become: (next, rest, host) => {
        channel.release();
        carried = next === "frames";
        if (next === "tls") return this.#secure(reception);
        this.#bare.delete(reception.socket);
        if (attached === undefined) return this.#carry(standing, detachable, host, socket, rest);
        this.#known.delete(standing); // whoever it was on this connection: it is the session's now
        if (detachable !== undefined) this.#detachables.over(detachable);
        attached.join(socket, rest);
      },
    });
    conversation.start(first);
    socket.resume();
  }

  #carry(
    standing: Standing,
    granted: Detachable | undefined,
    host: string | undefined,
    socket: Socket,
    rest: Uint8Array,
  ): void {
    let detachable = granted;
    const withdraw = (): void => session.end(Code.DENIED, "access was withdrawn");
    const session: ServerSession = new ServerSession({
      standing,
      host,
      log: this.#log,
      audit: () => this.#audit,
      limits: (known) => sessionLimits(this.#configuration, known),
      budget: this.#budget,
      pendingOpens: this.#configuration.limits.pendingOpens,
      deadlines: this.#configuration.limits,
      uses: this.#uses,
      retain: detachable !== undefined || process.env["FIVED_BENCH_RETAIN"] === "1",
      detachable: (ttlSeconds) => {
        if (detachable !== undefined) return DETACHABLE_ALREADY;
        const made = this.#detachables.grant(standing.caller.user, ttlSeconds);
        if (made === undefined) return NO_ROOM;
        detachable = made.detachable;
        detachable.session = session;
        session.retain();
        return made.granted;
      },
      detached: () => {
        if (detachable === undefined) return session.endDetached("the connection was lost");
        this.#log.debug({ session: standing.caller.session, user: standing.caller.user }, "session detached");
        standing.parked();
        this.#detachables.park(detachable, () => session.endDetached("nobody attached to it in time"));
      },
      ticketStored: (generation) => detachable?.confirmed(generation),
      registry: () => this.#registry,
      authentication: () => this.#authentication,
      recognised: (identity) => this.#recognised(standing, identity, withdraw),
      failed: (attempt) => this.#failed(standing, attempt),
      ended: () => {
        this.#known.delete(standing);
        this.#sessions.delete(session);
        if (detachable !== undefined) this.#detachables.over(detachable);
        this.#ended();
      },
    });
    this.#sessions.add(session);
    if (this.#known.has(standing)) this.#known.set(standing, withdraw);
    if (detachable !== undefined) detachable.session = session;
    session.carry(socket, rest);
  }

  /** ATTACH, in the order of PROTOCOL §4.8, and in one turn: what is answered holds when the connection is joined. */
  #attach(request: AttachRequest, standing: Standing, host: string | undefined): Attachment | Refusal {
    const { caller, binding, address } = standing;
    const refuse = (reason: string): Refusal => {
      this.#penalties.failed(address);
      this.#audit.record(caller, { event: "attach-refused", reason });
      this.#log.info({ session: caller.session, peer: caller.peer, reason }, "attach refused");
      return { code: 403, text: "ATTACH refused" };
    };
    if (binding === undefined) return { code: 530, text: "TLS first" };
    const detachable = this.#detachables.proved(request, binding);
    if (detachable === undefined) {
      const isSpent = this.#detachables.find(request.sid)?.isSpent(request.generation) ?? false;
      return refuse(isSpent ? "an old ticket was used again" : "not proved");
    }
    const { session } = detachable;
    if (detachable.isOver || session === undefined) return { code: 410, text: "that session is over" };
    if (!detachable.mayAttach(performance.now())) return { code: 429, text: "attached too often, try later" };
    const whose = session.standing;
    if (session.host !== host) return refuse("another host");
    if (caller.user !== undefined && caller.user !== whose.caller.user) return refuse("another user");
    if (whose.caller.identity?.mechanism === "cert" && !isSameCertificate(standing, whose))
      return refuse("without the certificate");
    if (this.#renewed(whose.caller) === undefined) return refuse("its user is not known any more");
    const { state } = session;
    const isRecall = request.mode === "recall";
    if (!state.resumable(isRecall ? state.positions.acknowledged : request.received))
      return refuse("it cannot go on from there");
    if (isRecall && state.streams > RECALLED_STREAMS_MAX) return { code: 507, text: "too many streams to tell of" };
    const isOneMore = request.mode === "add" && state.connections >= this.#configuration.sessions.connections;
    if (isOneMore) return { code: 507, text: "no room for another connection" };
    // Before the counts are taken: what still came on another connection behind them would be acknowledged twice.
    if (request.mode === "replace") session.supersede();
    const recalled = isRecall ? recalledLines(session.recall()) : [];
    const { received, acknowledged } = state.positions;
    const stored = detachable.stored(request.generation) ?? NOTHING;
    detachable.confirmed(request.generation);
    const attached = {
      ...detachable.next(),
      received,
      base: Math.max(request.received, acknowledged),
      limit: state.offer(),
    };
    this.#audit.record(whose.caller, { event: "attach", from: caller.peer, mode: request.mode });
    return {
      lines: [attachedLine(attached, serverProof(stored, request, attached, binding)), ...recalled],
      join: (socket, rest) => {
        this.#detachables.unpark(detachable);
        whose.movedTo(standing);
        session.attach(socket, rest, attached.base);
      },
    };
  }
}

/** A connection that may join a session: what it is answered, and how it joins. */
interface Attachment {
  readonly lines: readonly string[];
  join(socket: Socket, rest: Uint8Array): void;
}

const DETACHABLE_ALREADY: Refusal = { code: 503, text: "it is detachable already" };
const NO_ROOM: Refusal = { code: 507, text: "no room for another detachable session" };

/** Both connections have shown one and the same client certificate, a valid one. */
function isSameCertificate(one: Standing, other: Standing): boolean {
  const [a, b] = [one.certificate, other.certificate];
  return a?.valid === true && b !== undefined && a.leaf.fingerprint256 === b.leaf.fingerprint256;
}

/** A connection from accept on. */
interface Reception {
  readonly socket: Socket;
  /** It has shown what it is for: it no longer counts at the door. */
  readonly leave: () => void;
  /** Identifier of the conversation or session, for logs and back ends. */
  readonly session: string;
  /** What plaintext may do on this connection. */
  readonly plain: Ground;
}

/** How a conversation on a connection begins. */
interface Beginning {
  readonly ground: Ground;
  readonly firstLineBy: number;
  /** Octets that were read already. */
  readonly first: Uint8Array;
}

const NOTHING = new Uint8Array(0);

/** Octets of the certificates that the peer has shown. */
function chainBytes(socket: TLSSocket): number {
  let bytes = 0;
  let each = socket.getPeerCertificate(true);
  // The issuer of a root is the root itself. Where there is no certificate the object is empty.
  while (each?.raw !== undefined && bytes <= CHAIN_BYTES_MAX) {
    bytes += each.raw.length;
    if (each.issuerCertificate === each || each.issuerCertificate === undefined) break;
    each = each.issuerCertificate;
  }
  return bytes;
}

async function dispose({ registry, authentication, audit }: SetUp): Promise<void> {
  authentication[Symbol.dispose]();
  audit[Symbol.dispose]();
  await registry[Symbol.asyncDispose]();
}

/** A right that was withdrawn ends what was begun with it; a service that is no longer offered lets those finish who are there. */
function isAllowed(registry: Registry, { service, host }: Use, caller: Caller): boolean {
  const target = registry.host(host);
  return !registry.offers(target, service) || registry.find(target, service, caller) !== undefined;
}

function penaltyLimits({ limits: { penalties, unauthenticated } }: Configuration) {
  const { ipv4Prefix, ipv6Prefix } = unauthenticated;
  return { ...penalties, ipv4Prefix, ipv6Prefix };
}

function sessionLimits({ limits, sessions }: Configuration, known: boolean): SessionLimits {
  const { streams, budgetBytes } = known ? limits : limits.anonymous;
  return {
    ...SESSION_LIMITS,
    streams,
    budgetBytes,
    initialCreditBytes: limits.initialCreditBytes,
    windowBytesMax: limits.windowBytesMax,
    logWindowBytesMax: limits.logWindowBytesMax,
    connections: sessions.connections,
    detachedBytes: sessions.detach.queueBytes,
    sendQueueBytes: limits.sendQueueBytes,
    controls: limits.controlQueue.frames,
    stallMs: limits.stallMs,
    streamStallMs: limits.streamStallMs,
    keepaliveMs: limits.keepalive.intervalMs,
    keepaliveMisses: limits.keepalive.misses,
    glitches: limits.glitches,
    pings: limits.pings,
  };
}

function boundTo(server: Server, endpoint: Endpoint): Endpoint {
  const bound = server.address();
  if (endpoint.type === "unix" || bound === null || typeof bound === "string") return endpoint;
  return { type: "tcp", host: endpoint.host, port: bound.port };
}

function peerOf({ remoteAddress: address, remotePort: port }: Socket): string {
  return address === undefined ? "unix:" : addressText(address, port);
}

/** See {@link Caller.local}. */
function localOf({ localAddress: address, localPort: port }: Socket): { readonly local?: string } {
  return address === undefined ? {} : { local: addressText(address, port) };
}

function addressText(address: string, port: number | undefined): string {
  return isIPv6(address) ? `[${address}]:${port}` : `${address}:${port}`;
}
