/**
 * A conversation: lines come in, services answer, until the bytes belong to one of them (PROTOCOL §3). The same for a bare connection and
 * for each stream of a session: one parser, and one point where it is decided who may do what.
 *
 * Once it has become "bytes", "tls" or "frames" a conversation never parses again.
 * @module
 */
import type { Duplex, Readable, Writable } from "node:stream";
import type { AttachRequest } from "../identity/index.ts";
import { type Channel, FivedError, type Receiver, type Splice, type Traffic, type Urgency } from "../io/index.ts";
import { Code, encodeLine, type Line, LineReader, parseRequest } from "../wire/index.ts";
import type { Audit } from "./audit.ts";
import type { Authentication } from "./auth/authentication.ts";
import type { Identity, MechanismName } from "./auth/mechanism.ts";
import type { Log } from "./log.ts";
import type { Published, Registry, VirtualHost } from "./registry.ts";
import type {
  Caller,
  Detaching,
  Directory,
  Entrance,
  Next,
  Passage,
  RefusalCode,
  Service,
  Talk,
  Through,
} from "./service.ts";
import { attach } from "./services/attach.ts";
import { auth } from "./services/auth.ts";
import { detachable } from "./services/detachable.ts";
import { host } from "./services/host.ts";
import { help, list } from "./services/list.ts";
import { multiplex } from "./services/multiplex.ts";
import { tls } from "./services/tls.ts";
import { via } from "./services/via.ts";
import type { Standing } from "./standing.ts";
import {
  type BuiltInWord,
  builtInWord,
  type Ground,
  OUTCOMES,
  type Outcome,
  STAYS_OPEN,
  stateOn,
  TAKES_ARGUMENT,
} from "./words.ts";

const BUILT_IN: Readonly<Record<BuiltInWord, Service>> = {
  LIST: list,
  HELP: help,
  TLS: tls,
  MULTIPLEX: multiplex,
  HOST: host,
  AUTH: auth,
  DETACHABLE: detachable,
  ATTACH: attach,
  VIA: via,
};

const NOT_FOUND = "no such service";

/** How long a conversation waits. */
export interface Deadlines {
  /** For each line but the first: a person may be typing. */
  readonly betweenLinesMs: number;
  /** For a request that is granted, all refused ones together: else a line now and then would hold a place at the door for ever. */
  readonly unauthenticated: { readonly timeMs: number };
  /** For the peer to take what was said: else answers that nobody reads would be kept as long as the peer likes (abuse case L10). */
  readonly stallMs: number;
}

/** A service in use: a right that is withdrawn cuts what was opened with it (PROTOCOL §4.11). */
export interface Use {
  /** In the spelling of the configuration. */
  readonly service: string;
  readonly host: string | undefined;
  readonly caller: Caller;
  /** Ends it at once. */
  withdraw(): void;
}

/** Streams that know how much went through them, as sockets do. */
interface Counted {
  readonly bytesRead?: number;
  readonly bytesWritten?: number;
}

/** An attempt at AUTH that was in vain. */
export interface FailedAttempt {
  readonly mechanism: MechanismName;
  /** Whom it was about, as far as was said: not judged, and at most a line long. */
  readonly user: string | undefined;
}

/** What a conversation needs from where it takes place. */
export interface Place {
  readonly ground: Ground;
  /** Shared by all conversations of a session. */
  readonly standing: Standing;
  readonly log: Log;
  /** Host in force at the start: the one that SNI named, or the one of the session. */
  readonly host: string | undefined;
  readonly deadlines: Deadlines;
  /** When its first line has to be there: whoever says nothing is not asked to hurry, but to leave (abuse case L01). By performance.now(). */
  readonly firstLineBy: number;
  /** The services of the server that are in use. */
  readonly uses: Set<Use>;
  /** Services as they are configured now. */
  registry(): Registry;
  /** Where it is written down what happened. */
  audit(): Audit;
  /** The ways in as they are configured now. */
  authentication(): Authentication;
  /** AUTH has found out who it is: the standing is to be his. False if it is somebody's already. */
  recognised(identity: Identity): boolean;
  /** AUTH has failed. */
  failed(attempt: FailedAttempt): void;
  /** What DETACHABLE works with. */
  detachable: Detaching["detachable"];
  /** What ATTACH works with, in a conversation that stands at this host. */
  attach(request: AttachRequest, host: string | undefined): ReturnType<Detaching["attach"]>;
  /** The first request was accepted: the connection has shown what it is for. */
  accepted(): void;
  /** A back end is to be asked: calls `go`, now or when few enough others are being asked. */
  reach(go: () => void): void;
  /** It has answered. Told once for each `go`. */
  reached(): void;
  /** The conversation has become "tls" or "frames"; `host` is where it stands. `rest` was received behind the last line. */
  become(next: "tls" | "frames", rest: Uint8Array, host: string | undefined): void;
  /** The conversation is over, or its bytes belong to a service: it needs no deadline any more. */
  settled(): void;
}

/**
 * One conversation, from its first line to its end. To its channel it is the receiver, to the service that answers it is the talk: there
 * are as many of them as there are streams, and one object is all each needs.
 */
export class Conversation implements Receiver, Talk, Directory, Entrance, Passage, Detaching, Use {
  /** Who it is done for: whoever stood here when it began, or was recognised in it. AUTH elsewhere in the session adds nothing (A11). */
  caller: Caller;
  readonly #channel: Channel;
  readonly #place: Place;
  readonly #lines = new LineReader();
  #host: string | undefined;
  /** A service is answering, or waits to be asked: what arrives meanwhile waits. */
  #answering = false;
  /** It is one of those behind which others may wait. */
  #reaching = false;
  /** The peer takes no more for now; what else is to be said waits here, and no further request is read. */
  #unsaid: Uint8Array[] | undefined;
  #onDrained: (() => void) | undefined;
  /** When its service took it on, by performance.now(). */
  #openedAt: number | undefined;
  #withdrawn = false;
  /** AUTH has begun to ask. */
  #dialogue = false;
  /** The only word that somebody who was vouched for may ask for here, in lower case: he was for that one. */
  #vouchedWord: string | undefined;
  /** AUTH waits for a line. */
  #asked: PromiseWithResolvers<Uint8Array> | undefined;
  #ended = false;
  #spoken = false;
  /** When a request has to have been granted; a stream's connection has had one, MULTIPLEX. */
  #grantedBy: number;
  #hasBegunDialogue = false;
  #settled = false;
  #over = false;
  #deadline: NodeJS.Timeout | undefined;
  #stall: NodeJS.Timeout | undefined;
  #service = "";
  #args: readonly string[] = NO_ARGS;
  #abort: AbortController | undefined;

  constructor(channel: Channel, place: Place) {
    this.#channel = channel;
    this.#place = place;
    this.caller = place.standing.caller;
    this.#host = place.host;
    const { timeMs } = place.deadlines.unauthenticated;
    this.#grantedBy = place.ground === "stream" ? Number.POSITIVE_INFINITY : performance.now() + timeMs;
    channel.receiver = this;
  }

  /** Starts with octets that have arrived already. */
  start(first: Uint8Array): void {
    this.#lines.push(first);
    this.#read();
  }

  /** Starts with the request that came with the stream's OPEN. */
  startWith(request: Uint8Array): void {
    this.#lines.push(request);
    this.start(CRLF);
  }

  // ---- the channel speaks

  data(bytes: Uint8Array): void {
    this.#lines.push(new Uint8Array(bytes)); // a copy: `slice` of a Buffer is none
    if (this.#dialogue) bytes.fill(0); // what was typed may be a password, and lies here no longer than it has to
    this.#hearAnswer();
    this.#read();
  }

  end(): void {
    this.#ended = true;
    this.#hearAnswer();
    this.#read(); // lines that stand complete are still answered; an incomplete one never will be
  }

  drained(): void {
    clearTimeout(this.#stall);
    const unsaid = this.#unsaid ?? [];
    this.#unsaid = undefined;
    for (const piece of unsaid) this.#write(piece);
    if (this.#unsaid !== undefined) return;
    const onDrained = this.#onDrained;
    this.#onDrained = undefined;
    onDrained?.();
    this.#read();
  }

  closed(): void {
    this.#over = true;
    this.#abort?.abort();
    this.#onDrained?.();
    this.#hearAnswer();
    this.#useIsOver();
    this.#settle();
    // While a service is still connecting, its slot is taken: a slot is free only when the back end is gone (abuse case R01).
    if (!this.#answering) this.#channel.forget();
  }

  // ---- requests

  #read(): void {
    while (!this.#answering && !this.#settled && this.#unsaid === undefined) {
      const before = this.#lines.buffered;
      const line = this.#lines.next();
      this.#channel.consumed(before - this.#lines.buffered);
      if (line === undefined) return this.#ended ? this.#leave() : this.#await();
      clearTimeout(this.#deadline);
      this.#deadline = undefined;
      this.#hear(line);
    }
  }

  /** The next line has to come in time, however many octets of it trickle in. */
  #await(): void {
    if (this.#deadline !== undefined) return;
    const now = performance.now();
    const lineBy = this.#spoken ? now + this.#place.deadlines.betweenLinesMs : this.#place.firstLineBy;
    const ms = Math.min(lineBy, this.#grantedBy) - now;
    this.#deadline = setTimeout(() => this.#refuseAndLeave(408, "no request came in time"), ms);
    this.#deadline.unref();
  }

  #hear(line: Line): void {
    if (line.type === "error") return this.#refuseAndLeave(500, "line too long");
    this.#spoken = true;
    const request = parseRequest(line.text);
    if (request.type === "error") return this.#refuseAndLeave(501, "not a service name");
    if (!this.#isVouchedFor(request.word)) return this.#refuseAndLeave(403, "that is not what was said of a caller");
    const builtIn = builtInWord(request.word);
    if (builtIn !== undefined && (request.args.length === 0 || TAKES_ARGUMENT.has(builtIn)))
      return this.#serveBuiltIn(builtIn, request.args);
    if (request.args.length > 0) return this.#refuseAndLeave(500, "not a fived request");
    this.#serveService(request.word);
  }

  #isVouchedFor(word: string): boolean {
    return this.#vouchedWord === undefined || this.#vouchedWord === word.toLowerCase();
  }

  #serveBuiltIn(word: BuiltInWord, args: readonly string[]): void {
    const outcome = this.#outcome(word);
    if (outcome === "acts") return this.#serve(BUILT_IN[word], word, args);
    const text = outcome === 530 ? "TLS first" : "bad sequence of words";
    if (!STAYS_OPEN.has(word)) return this.#refuseAndLeave(outcome, text);
    this.#say(`- ${outcome} ${text}`);
  }

  #outcome(word: BuiltInWord | "service"): Outcome {
    const { ground, standing } = this.#place;
    const known = standing.caller.user !== undefined;
    const outcome = OUTCOMES[word][stateOn(ground, known)];
    // Who is calling was said for all of this stream, and the session is the other server's.
    if (this.caller.through !== undefined && (word === "VIA" || word === "AUTH")) return 503;
    if (word === "DETACHABLE" && !standing.caller.secure) return 530;
    if (word !== "AUTH" || standing.caller.secure) return outcome;
    if (!this.#place.authentication().plaintext) return 530;
    return known ? 503 : "acts";
  }

  #serveService(word: string): void {
    const outcome = this.#outcome("service");
    // Before anything is looked up, so that plaintext learns nothing of what exists.
    if (outcome !== "acts") return this.#refuseService(word, outcome, "TLS first");
    const published = this.#visible(word);
    if (published === undefined) return this.#refuseService(word, 404, NOT_FOUND);
    if (this.#place.audit().refuses) return this.#refuseService(word, 507, "the audit cannot be written");
    this.#answering = true;
    this.#service = published.name;
    this.#place.uses.add(this); // from here on: a right may be withdrawn while it waits, too
    this.#place.reach(() => this.#reach(published));
  }

  #reach({ service, name }: Published): void {
    this.#reaching = true;
    if (this.#over) return this.#become("closed"); // left while it waited
    this.#serve(service, name, NO_ARGS);
  }

  #refuseService(service: string, code: RefusalCode, text: string): void {
    this.#place.audit().record(this.caller, { event: "refused", service, host: this.#host, code });
    this.#refuseAndLeave(code, text);
  }

  /** Its service is not in use any more. */
  #useIsOver(why: "ended" | "broken off" = "broken off", traffic: Traffic = NO_TRAFFIC): void {
    if (!this.#place.uses.delete(this) || this.#openedAt === undefined) return;
    this.#place.audit().record(this.caller, {
      event: "close",
      service: this.#service,
      host: this.#host,
      ...{ received: traffic.received, sent: traffic.sent },
      ms: Math.round(performance.now() - this.#openedAt),
      why: this.#withdrawn ? "access withdrawn" : why,
    });
  }

  /** A service the caller may use; a forbidden one is like none at all. */
  #visible(word: string): Published | undefined {
    if (this.#outcome("service") !== "acts") return undefined;
    const registry = this.#place.registry();
    return registry.find(this.#virtualHost(registry), word, this.caller);
  }

  #virtualHost(registry: Registry): VirtualHost | undefined {
    return registry.host(this.#host);
  }

  #serve(service: Service, word: string, args: readonly string[]): void {
    this.#answering = true;
    this.#service = word;
    this.#args = args;
    let answer: Next | Promise<Next>;
    try {
      answer = service.serve(this);
    } catch (error) {
      return this.#failed(word, error);
    }
    if (typeof answer === "string") return this.#become(answer);
    answer.then(
      (next) => this.#become(next),
      (error: unknown) => this.#failed(word, error),
    );
  }

  /** Our own mistake, or a module's: this conversation ends, nothing else does. */
  #failed(service: string, error: unknown): void {
    if (!this.#over) this.#place.log.error({ service, error }, "a service failed");
    this.#become("closed");
  }

  #become(next: Next): void {
    this.#answering = false;
    this.#dialogue = false;
    if (this.#reaching) this.#place.reached();
    this.#reaching = false;
    if (next !== "bytes") this.#useIsOver();
    if (this.#over && next !== "bytes") return this.#channel.forget();
    switch (next) {
      case "lines":
        return this.#read();
      case "bytes":
        return this.#settle();
      case "closed":
        return this.#leave();
      case "tls":
      case "frames":
        this.#settle();
        return this.#place.become(next, this.#lines.rest(), this.#host);
    }
  }

  #refuseAndLeave(code: RefusalCode, text: string): void {
    this.#say(`- ${code} ${text}`);
    this.#leave();
  }

  #leave(): void {
    if (this.#settled) return;
    this.#settle();
    this.#channel.close();
  }

  #settle(): void {
    if (this.#settled) return;
    this.#settled = true;
    clearTimeout(this.#deadline);
    clearTimeout(this.#stall); // how long the rest may take is the channel's business, or the service's
    this.#place.settled();
  }

  // ---- what is said

  #say(lines: string, urgency?: Urgency): boolean {
    return this.#write(encodeLine(lines), urgency);
  }

  #write(bytes: Uint8Array, urgency?: Urgency): boolean {
    if (this.#over) return true;
    if (this.#unsaid !== undefined) this.#unsaid.push(bytes);
    else if (!this.#channel.write(bytes, urgency)) this.#wait();
    return this.#unsaid === undefined;
  }

  /** The peer has to take what was said before it is told more. */
  #wait(): void {
    this.#unsaid = [];
    this.#stall = setTimeout(() => this.#channel.reset(Code.TIMEOUT), this.#place.deadlines.stallMs);
    this.#stall.unref();
  }

  // ---- what a service sees

  get host(): string | undefined {
    return this.#host;
  }

  get service(): string {
    return this.#service;
  }

  get args(): readonly string[] {
    return this.#args;
  }

  get directory(): Directory {
    return this;
  }

  get unread(): number {
    return this.#lines.buffered;
  }

  get signal(): AbortSignal {
    this.#abort ??= new AbortController();
    if (this.#over) this.#abort.abort();
    return this.#abort.signal;
  }

  say(lines: string): boolean {
    this.#granted();
    return this.#say(lines);
  }

  accept(): void {
    this.#granted();
    this.#place.accepted();
    if (this.#reaching) {
      this.#openedAt = performance.now();
      this.#place.audit().record(this.caller, { event: "open", service: this.#service, host: this.#host });
    }
    // Our clients do not wait for it: it travels with the service's first octets, if those come at once. Another server does wait.
    this.#say("+ SUCCESS", this.#reaching && this.caller.through !== undefined ? "now" : "soon");
  }

  refuse(code: RefusalCode, text: string): void {
    if (this.#reaching)
      this.#place.audit().record(this.caller, { event: "refused", service: this.#service, host: this.#host, code });
    this.#say(`- ${code} ${text}`);
  }

  splice(to: Splice): void {
    const { input, output }: { input: Writable & Counted; output: Readable & Counted } = to;
    output.once("close", () => {
      const counted = { received: input.bytesWritten ?? 0, sent: output.bytesRead ?? 0 };
      this.#useIsOver(output.readableEnded ? "ended" : "broken off", to.traffic ?? counted);
    });
    this.#channel.splice(to, this.#lines.rest());
  }

  stream(): Duplex {
    const stream: Duplex & Counted = this.#channel.duplex(this.#lines.rest());
    stream.once("close", () => {
      this.#over = true;
      const { bytesRead = 0, bytesWritten = 0 }: Counted = stream;
      const traffic = { received: bytesRead, sent: bytesWritten };
      this.#useIsOver(stream.errored === null ? "ended" : "broken off", traffic);
      this.#abort?.abort();
    });
    return stream;
  }

  /** A list was given, or a `+`: whoever asks for something real may take his time from now on. */
  #granted(): void {
    this.#grantedBy = Number.POSITIVE_INFINITY;
  }

  withdraw(): void {
    this.#withdrawn = true;
    this.#channel.reset(Code.DENIED);
  }

  find(name: string): string | undefined {
    const published = this.#visible(name);
    return builtInWord(name) ?? (published?.isFar === true ? undefined : published?.name);
  }

  *names(): Iterable<string> {
    if (this.#outcome("service") !== "acts") return; // what may not be used is not shown
    const registry = this.#place.registry();
    for (const { name } of registry.usable(this.#virtualHost(registry), this.caller)) yield name;
  }

  enter(name: string): "entered" | "unknown" | "misdirected" {
    const registry = this.#place.registry();
    const target = registry.host(name);
    if (target === undefined) return "unknown";
    // Rights belong to a host and its certificate: whoever verified one certificate is not brought to another's services (H01).
    const inStream = this.#place.ground === "stream";
    if (!inStream && this.caller.user !== undefined) return target.name === this.#host ? "entered" : "misdirected"; // AUTH fixed it (H02)
    const bound = inStream || this.#place.host !== undefined;
    if (bound && registry.host(this.#place.host)?.group !== target.group) return "misdirected";
    this.#host = target.name;
    return "entered";
  }

  farNames(name?: string): Promise<readonly string[]> {
    if (this.#outcome("service") !== "acts") return NO_NAMES;
    const registry = this.#place.registry();
    const host = this.#virtualHost(registry);
    if (host === undefined || host.wildcards.length === 0) return NO_NAMES;
    return registry.farNames(host, this.caller, this.signal, name);
  }

  get streamNumber(): number | undefined {
    return this.#channel.id;
  }

  // ---- what VIA sees

  get passage(): Passage {
    return this;
  }

  came(hops: number): void {
    this.caller = { ...this.#place.standing.caller, through: { hops } };
  }

  cameAsNobody(hops: number): void {
    const { caller } = this.#place.standing;
    this.caller = { ...nobodyOf(caller), through: { hops, hop: caller } };
  }

  async cameAs(hops: number, token: string): Promise<boolean> {
    const { standing, log } = this.#place;
    const { caller } = standing;
    const registry = this.#place.registry();
    const verdict = await registry.trusts.judge(token, caller, standing.binding).catch((error: unknown) => {
      log.error({ session: caller.session, error }, "cannot find out whether to believe another server");
      return undefined;
    });
    if (verdict?.type !== "believed") {
      const reason = verdict?.reason ?? "its keys cannot be had";
      const through: Through = { hops, hop: caller };
      this.#place
        .audit()
        .record({ ...caller, through }, { event: "vouching-refused", issuer: verdict?.issuer, reason });
      log.info({ session: caller.session, peer: caller.peer, user: caller.user, reason }, "a vouching is refused");
      return false;
    }
    const { identity, issuer, session, word } = verdict.vouched;
    const through: Through = { hops, hop: caller, issuer, session };
    this.caller = { ...nobodyOf(caller), user: identity.user, identity, roles: registry.rolesOf(identity), through };
    this.#vouchedWord = word;
    return true;
  }

  // ---- what DETACHABLE and ATTACH see

  get detaching(): Detaching {
    return this;
  }

  detachable(ttlSeconds: number | undefined): ReturnType<Detaching["detachable"]> {
    return this.#place.detachable(ttlSeconds);
  }

  attach(request: AttachRequest): ReturnType<Detaching["attach"]> {
    const answer = this.#place.attach(request, this.#host);
    if (!("code" in answer)) this.#place.accepted();
    return answer;
  }

  // ---- what AUTH sees

  get entrance(): Entrance {
    return this;
  }

  get authentication(): Authentication {
    return this.#place.authentication();
  }

  get binding(): Uint8Array | undefined {
    return this.#place.standing.binding;
  }

  get certificate(): Entrance["certificate"] {
    return this.#place.standing.certificate;
  }

  get address(): string | undefined {
    return this.#place.standing.address;
  }

  get elsewhere(): boolean {
    return this.#place.ground === "stream" && this.#host !== this.#place.host;
  }

  beginDialogue(): number {
    const inTime = performance.now() + this.#place.deadlines.betweenLinesMs;
    // Somebody who has to look for his password gets the time, once: only so long may a connection wait for its first grant.
    if (!this.#hasBegunDialogue) this.#grantedBy = Math.max(this.#grantedBy, inTime);
    this.#hasBegunDialogue = true;
    return Math.min(inTime, this.#grantedBy);
  }

  attempt(): number {
    return this.#place.standing.attempt();
  }

  tell(text: string): void {
    this.#write(Buffer.from(text));
  }

  answer(): Promise<Uint8Array> {
    const asked = Promise.withResolvers<Uint8Array>();
    this.#asked = asked;
    this.#dialogue = true;
    this.#hearAnswer();
    return asked.promise;
  }

  /** Gives AUTH the line it waits for, as octets: it may be a password, which must not become a string (abuse case A09). */
  #hearAnswer(): void {
    const asked = this.#asked;
    if (asked === undefined) return;
    const before = this.#lines.buffered;
    const line = this.#over ? undefined : this.#lines.nextOctets();
    if (line === undefined && !this.#ended && !this.#over) return;
    this.#asked = undefined;
    if (line instanceof Uint8Array) {
      this.#channel.consumed(before - this.#lines.buffered);
      return asked.resolve(line);
    }
    if (line === undefined) asked.reject(new FivedError("ABORTED", "Cannot go on: there is no answer"));
    else asked.reject(new FivedError("PROTOCOL_ERROR", "Cannot take an answer that is no line"));
  }

  recognised(identity: Identity): boolean {
    if (this.#over || !this.#place.recognised(identity)) return false;
    this.caller = this.#place.standing.caller;
    this.#place.accepted();
    return true;
  }

  failed(attempt: FailedAttempt): void {
    this.#place.failed(attempt);
  }

  taken(): Promise<void> {
    return new Promise((resolve, reject) => {
      this.#onDrained = () => {
        if (this.#over) reject(new FivedError("ABORTED", "Cannot go on: the peer is gone"));
        else resolve();
      };
      if (this.#unsaid === undefined || this.#over) this.#onDrained();
    });
  }
}

const CRLF = encodeLine("");

const NO_TRAFFIC: Traffic = { received: 0, sent: 0 };

const NO_ARGS: readonly string[] = [];

const NO_NAMES: Promise<readonly string[]> = Promise.resolve([]);

/** The same stream, for somebody of whom nothing is known: what the other server has shown of itself is not his. */
function nobodyOf({ session, secure, peer, local }: Caller): Caller {
  const at = local === undefined ? {} : { local };
  return { session, user: undefined, roles: [], identity: undefined, secure, peer, ...at };
}
