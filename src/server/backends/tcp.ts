/**
 * Services whose bytes go to a TCP or Unix socket, or to one of several. A stream is accepted when its back end is connected, so that the
 * caller hears `-` and not a hang-up when there is none (abuse cases R04, R05). Whom to try is pool.ts's business; what happens to the
 * bytes afterwards is the channel's.
 * @module
 */
import { connect, isIP, type NetConnectOpts, type Socket } from "node:net";
import type { Splice } from "../../io/index.ts";
import type { Announcement, Announcer } from "../announce/announcer.ts";
import { type Endpoint, endpointText } from "../endpoint.ts";
import type { Log } from "../log.ts";
import type { BackEndSettings } from "../schema.ts";
import type { Next, RefusalCode, Service, Talk } from "../service.ts";
import { Pool, type Target } from "./pool.ts";

/** What a back end needs besides its settings. */
export interface TcpOptions {
  /** Time for a back end to accept a connection, all its addresses together. */
  readonly connectMs: number;
  readonly log: Log;
  /** Tells the back end who is calling; without one the bytes are joined as they are. */
  readonly announcer?: Announcer | undefined;
}

/** A service behind sockets. Disposing ends the checks of its addresses; streams go on. */
export class TcpService implements Service, Disposable {
  readonly word: string;
  readonly pool: Pool;
  readonly connectMs: number;
  readonly announcer: Announcer | undefined;
  readonly #log: Log;
  readonly #checks: readonly Check[];

  constructor(word: string, settings: Extract<BackEndSettings, { type: "tcp" }>, options: TcpOptions) {
    const { connectMs, log, announcer } = options;
    this.word = word;
    this.announcer = announcer;
    this.pool = new Pool(settings.targets, settings.balance);
    this.connectMs = connectMs;
    this.#log = log;
    const { checkIntervalMs } = settings;
    this.#checks =
      checkIntervalMs === undefined ? [] : this.pool.targets.map((target) => new Check(this, target, checkIntervalMs));
  }

  serve(talk: Talk): Promise<Next> {
    return new Promise((resolve) => new Opening(this, talk, resolve).start());
  }

  /** An address was reached. */
  reached(target: Target): void {
    if (target.succeeded()) this.#log.info(this.#about(target), "back end is up again");
  }

  /** An address could not be reached by an attempt of that era. */
  missed(target: Target, era: number, reason: string): void {
    if (target.failed(era, performance.now())) this.#log.warn({ ...this.#about(target), reason }, "back end is down");
  }

  /** We ourselves lack something, and the back end has nothing to do with it. */
  starved(target: Target, reason: string): void {
    this.#log.error({ ...this.#about(target), reason }, "cannot open a socket");
  }

  /** The back end cannot be told who is calling, and must not take him for nobody. */
  untold(talk: Talk, error: unknown): void {
    this.#log.error({ service: this.word, session: talk.caller.session, error }, "cannot announce a caller");
  }

  [Symbol.dispose](): void {
    for (const check of this.#checks) check[Symbol.dispose]();
  }

  #about(target: Target) {
    return { service: this.word, target: endpointText(target.endpoint) };
  }
}

interface Refusal {
  readonly code: RefusalCode;
  /** Never an address: who may use a service need not know where it is. */
  readonly text: string;
}

const ALL_DOWN: Refusal = { code: 502, text: "no back end is up" };
const REFUSED: Refusal = { code: 502, text: "back end refused the connection" };
const UNREACHABLE: Refusal = { code: 502, text: "back end cannot be reached" };
const STARVED: Refusal = { code: 502, text: "server is out of sockets" };
const UNTOLD: Refusal = { code: 502, text: "back end cannot be told who is calling" };
const TIMED_OUT: Refusal = { code: 504, text: "back end did not answer in time" };

/** What an error of connecting means to the caller; of all others, that it did not work. */
const REFUSALS: Readonly<Record<string, Refusal>> = {
  ECONNREFUSED: REFUSED,
  ECONNRESET: REFUSED,
  ETIMEDOUT: TIMED_OUT,
  EAGAIN: TIMED_OUT,
};

/** What our own kernel has run out of. */
const OURS: ReadonlySet<string> = new Set(["EMFILE", "ENFILE", "ENOBUFS", "ENOMEM", "EADDRNOTAVAIL"]);

/** The queue of a Unix socket is full: unlike TCP the kernel does not wait for room, so we do, this long at a time. */
const BUSY_MS = 5;

/** One conversation on its way to a back end: attempts, one after the other, until an address accepts or none is left. */
class Opening {
  readonly #service: TcpService;
  readonly #talk: Talk;
  readonly #signal: AbortSignal;
  readonly #answer: (next: Next) => void;
  readonly #deadline: number;
  readonly #tried: Target[] = [];
  /** The attempt under way. */
  #socket: Socket | undefined;
  #timer: NodeJS.Timeout | undefined;
  #refusal = ALL_DOWN;
  /** What the back end is told, if anything; made while it is being connected. */
  #announcement: Promise<Announcement> | undefined;

  constructor(service: TcpService, talk: Talk, answer: (next: Next) => void) {
    this.#service = service;
    this.#talk = talk;
    this.#signal = talk.signal;
    this.#answer = answer;
    this.#deadline = performance.now() + service.connectMs;
  }

  start(): void {
    if (this.#signal.aborted) return this.#answer("closed");
    this.#signal.addEventListener("abort", this);
    this.#announcement = this.#service.announcer?.announce(this.#talk);
    this.#announcement?.catch(() => {}); // whoever waits for it is told
    this.#next();
  }

  /** The caller is gone. The slot is free when the attempt is torn down, not before (abuse case R01). */
  handleEvent(): void {
    clearTimeout(this.#timer);
    const socket = this.#socket;
    this.#socket = undefined;
    if (socket === undefined) return this.#answer("closed");
    socket.once("close", () => this.#answer("closed"));
    socket.destroy();
  }

  #next(): void {
    const { pool } = this.#service;
    const now = performance.now();
    const target = pool.next(now, this.#tried);
    if (target === undefined) return this.#refuse();
    this.#tried.push(target);
    // What time is left is shared with the addresses behind this one, so that one that swallows packets does not use it up.
    const share = pool.targets.length === 1 ? 1 : 1 + pool.left(now, this.#tried);
    this.#attempt(target, Math.max(1, (this.#deadline - now) / share));
  }

  #attempt(target: Target, ms: number): void {
    const { era } = target;
    const socket = connect(connectOptions(target.endpoint));
    this.#socket = socket;
    target.streams++;
    socket.once("connect", () => this.#connected(socket, target));
    // Stays for good: what breaks later says so with "close" too, and an error that nobody hears would end the process.
    socket.on("error", (error) => {
      if (this.#socket === socket) this.#failed(target, era, error);
    });
    socket.once("close", () => {
      target.streams--;
    });
    this.#timer = setTimeout(() => {
      this.#service.missed(target, era, "no answer in time");
      this.#refusal = TIMED_OUT;
      socket.destroy();
      this.#next();
    }, ms);
  }

  #connected(socket: Socket, target: Target): void {
    if (this.#announcement === undefined) return this.#join(socket, target, undefined);
    clearTimeout(this.#timer);
    const stillWanted = (): boolean => this.#socket === socket;
    this.#announcement.then(
      (announcement) => {
        if (stillWanted()) this.#join(socket, target, announcement);
      },
      (error: unknown) => {
        if (!stillWanted()) return;
        this.#service.untold(this.#talk, error);
        socket.destroy();
        this.#refusal = UNTOLD;
        this.#refuse();
      },
    );
  }

  #join(socket: Socket, target: Target, announcement: Announcement | undefined): void {
    this.#leave();
    this.#service.reached(target);
    // Before anything of the caller's: what he says must not be taken for it.
    if (announcement?.preamble !== undefined) socket.write(announcement.preamble);
    this.#talk.accept();
    const splice = new SocketSplice(socket, target.endpoint.type);
    this.#talk.splice(announcement === undefined ? splice : announcement.wrap(splice));
    this.#answer("bytes");
  }

  #failed(target: Target, era: number, error: Error): void {
    clearTimeout(this.#timer);
    const code = codeOf(error);
    if (code === "EAGAIN" && performance.now() < this.#deadline) {
      this.#socket = undefined;
      this.#tried.pop();
      this.#timer = setTimeout(() => this.#next(), BUSY_MS);
      return;
    }
    if (OURS.has(code)) {
      this.#service.starved(target, code);
      this.#refusal = STARVED;
      return this.#refuse();
    }
    this.#service.missed(target, era, error.message);
    this.#refusal = REFUSALS[code] ?? UNREACHABLE;
    this.#next();
  }

  #refuse(): void {
    this.#leave();
    this.#talk.refuse(this.#refusal.code, `${this.#talk.service}: ${this.#refusal.text}`);
    this.#answer("closed");
  }

  #leave(): void {
    clearTimeout(this.#timer);
    this.#signal.removeEventListener("abort", this);
    this.#socket = undefined;
  }
}

/** A connected socket as the channel wants it. */
class SocketSplice implements Splice {
  readonly input: Socket;
  readonly output: Socket;
  readonly endsWithOutput = false;
  readonly #type: Endpoint["type"];

  constructor(socket: Socket, type: Endpoint["type"]) {
    this.input = socket;
    this.output = socket;
    this.#type = type;
  }

  destroy(): void {
    const { writableEnded, writableFinished, writableLength } = this.input;
    // While our FIN is on its way libuv refuses to reset (EINVAL), and Node would never close. All that was said is with the kernel then.
    const ending = writableEnded && !writableFinished && writableLength === 0;
    // A back end must not take a stream that broke off for one that ended; Unix sockets have no reset.
    if (this.#type === "tcp" && !ending) this.input.resetAndDestroy();
    else this.input.destroy();
  }
}

/** Tries an address now and then, so that a back end that is down is known before a caller finds it so, and one that is up again soon. */
class Check {
  readonly #service: TcpService;
  readonly #target: Target;
  readonly #intervalMs: number;
  #timer: NodeJS.Timeout | undefined;
  #socket: Socket | undefined;
  #over = false;

  constructor(service: TcpService, target: Target, intervalMs: number) {
    this.#service = service;
    this.#target = target;
    this.#intervalMs = intervalMs;
    // Thousands of services are not to be tried in the same instant.
    this.#wait(Math.random() * intervalMs);
  }

  [Symbol.dispose](): void {
    this.#over = true;
    clearTimeout(this.#timer);
    this.#socket?.destroy();
  }

  #wait(ms: number): void {
    this.#timer = setTimeout(() => this.#try(), ms).unref();
  }

  #try(): void {
    const { era } = this.#target;
    const socket = connect(connectOptions(this.#target.endpoint));
    this.#socket = socket.unref();
    socket.setTimeout(Math.min(this.#service.connectMs, this.#intervalMs));
    socket.once("timeout", () => socket.destroy(new Error("no answer in time")));
    socket.once("connect", () => {
      this.#service.reached(this.#target);
      const greeting = this.#service.announcer?.greeting;
      // A back end that waits for a header would call a connection without one an attack, in its log if not by other means.
      if (greeting === undefined) socket.destroy();
      else socket.end(greeting, () => socket.destroy());
    });
    socket.on("error", (error) => {
      const code = codeOf(error);
      if (!OURS.has(code) && code !== "EAGAIN") this.#service.missed(this.#target, era, error.message);
    });
    socket.once("close", () => {
      this.#socket = undefined;
      if (!this.#over)
        this.#wait(this.#target.up ? this.#intervalMs : Math.min(this.#target.backoffMs, this.#intervalMs));
    });
  }
}

/** Kept with the endpoint: the same for every stream. */
const OPTIONS = new WeakMap<Endpoint, NetConnectOpts>();

function connectOptions(endpoint: Endpoint): NetConnectOpts {
  const kept = OPTIONS.get(endpoint);
  if (kept !== undefined) return kept;
  const common = { allowHalfOpen: true, noDelay: true };
  const options: NetConnectOpts =
    endpoint.type === "unix"
      ? { ...common, path: endpoint.path }
      : // An address needs no race between families, and Node looks nothing up for it.
        { ...common, host: endpoint.host, port: endpoint.port, autoSelectFamily: isIP(endpoint.host) === 0 };
  OPTIONS.set(endpoint, options);
  return options;
}

function codeOf(error: Error): string {
  return "code" in error ? String(error.code) : "";
}
