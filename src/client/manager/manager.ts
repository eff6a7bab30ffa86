/**
 * The session manager (paper section 3.2 and Figure 4): one process of a person's that holds sessions for all his programs. What it is asked is
 * `messages.ts`, where `place.ts`, and one session is `held.ts`; here it is done.
 *
 * A program that talks nonsense, or leaves in the middle, loses its connections and nothing else.
 * @module
 */
import { randomBytes } from "node:crypto";
import { existsSync } from "node:fs";
import { createServer, type Server, type Socket } from "node:net";
import { setTimeout as pause } from "node:timers/promises";
import { FivedError, lockFile, removeStale, type Splice, spliceOf } from "../../io/index.ts";
import { Code } from "../../wire/index.ts";
import { type Address, parseAddress, printAddress } from "../address.ts";
import type { ClientChoices, People } from "../choices.ts";
import type { Keeping, ServiceOpener } from "../session.ts";
import { type Computer, thisComputer, watcherOf } from "../watch.ts";
import { Held, type HeldStatus, type PassingChoices } from "./held.ts";
import {
  type Event,
  HELLO,
  MessageReader,
  overEvent,
  type Request,
  readSaid,
  type Said,
  writeLine,
} from "./messages.ts";
import { preparePlace } from "./place.ts";
import { Tickets } from "./tickets.ts";

/** Connections of programs at once; each costs a descriptor, and most are streams. */
const CONNECTIONS_MAX = 4_096;
/** Requests of one program that are not over. */
const REQUESTS_MAX = 2_048;
/** Time for a stream's request and its bytes' connection to find each other, and for a new connection to say what it is. */
const MEET_MS = 10_000;
/** Sessions held at once, in use or not: more organisations than a person has to do with. */
const HELD_MAX = 256;
/** Between two looks at what is held, and at this computer. */
const LOOK_MS = 2_000;
/** Time to tell programs that their streams are over. */
const TELL_MS = 1_000;
/** Names in one event, so that each is a line well within its bound. */
const NAMES_AT_ONCE = 500;

/** What is told of a manager. */
export interface ManagerStatus {
  readonly pid: number;
  readonly socket: string;
  readonly sessions: readonly HeldStatus[];
  /** Addresses that programs listen on for others that know nothing of it. */
  readonly forwards: readonly string[];
}

/** A running manager. */
export interface Manager extends AsyncDisposable {
  readonly socket: string;
  /** Resolves when it was told to stop, or when nobody has used it for as long as it was to wait. */
  readonly stopped: Promise<void>;
}

/** How it runs. */
export interface ManagerOptions {
  readonly socket: string;
  readonly log: (line: string) => void;
  /** Stop when nothing was held or asked for so long; never, if left out. In milliseconds. */
  readonly idleMs?: number;
  /** {@link thisComputer} if left out. */
  readonly computer?: Computer;
  /** Milliseconds between two looks at it. */
  readonly lookMs?: number;
}

/**
 * Starts one. Rejects with STATE_UNUSABLE where its folder is not ours alone, and with LISTEN_FAILED where a manager answers there already.
 * A socket that nobody answers was left behind by one that died, and is replaced.
 */
export async function startManager(options: ManagerOptions): Promise<Manager> {
  await preparePlace(options.socket);
  // Of two that start at once, one looks while the other waits.
  await using _lock = await lockFile(`${options.socket}.lock`);
  await removeStale(options.socket);
  const manager = new Daemon(options);
  await manager.listen();
  return manager;
}

/** A stream's request waits for the connection of its bytes, or the other way round. */
interface Meeting {
  readonly socket: PromiseWithResolvers<Socket>;
  readonly timer: NodeJS.Timeout;
}

class Daemon implements Manager {
  readonly socket: string;
  readonly stopped: Promise<void>;
  readonly log: (line: string) => void;
  readonly #server: Server;
  readonly #stop: () => void;
  readonly #idleMs: number;
  readonly #lookMs: number;
  #looking: NodeJS.Timeout | undefined;
  readonly #happened: () => "slept" | "moved" | undefined;
  #usedAt = performance.now();
  readonly #sockets = new Set<Socket>();
  readonly #held = new Map<string, Held>();
  /** What was asked for, and where that is held. */
  readonly #keys = new Map<string, string>();
  readonly #programs = new Map<string, Program>();
  /** Where programs listen. */
  readonly forwards = new Set<{ readonly address: string }>();
  /** Streams of programs: each ends when its program has been told how. */
  readonly carried = new Set<Promise<void>>();
  readonly #tickets: Tickets;

  constructor(options: ManagerOptions) {
    const { socket, log, idleMs = Number.POSITIVE_INFINITY, computer = thisComputer, lookMs = LOOK_MS } = options;
    this.socket = socket;
    this.log = log;
    this.#idleMs = idleMs;
    this.#tickets = new Tickets(socket, log);
    const stopped = Promise.withResolvers<void>();
    this.stopped = stopped.promise;
    this.#stop = stopped.resolve;
    this.#server = createServer({ allowHalfOpen: true }, (connection) => this.#accept(connection));
    this.#happened = watcherOf(computer);
    this.#lookMs = lookMs;
  }

  async listen(): Promise<void> {
    await this.#tickets.open();
    await new Promise<void>((resolve, reject) => {
      this.#server.once("error", (error: NodeJS.ErrnoException) => {
        const why = error.code === "EADDRINUSE" ? "one runs already" : error.message;
        const message = `Cannot start a session manager at ${this.socket}: ${why}`;
        reject(new FivedError("LISTEN_FAILED", message, { cause: error }));
      });
      this.#server.listen(this.socket, resolve);
    });
    this.#looking = setInterval(() => this.#look(), this.#lookMs);
    this.#server.on("error", (error) => this.log(`cannot accept a connection: ${error.message}`));
  }

  get status(): ManagerStatus {
    return {
      pid: process.pid,
      socket: this.socket,
      sessions: [...this.#held.values()].map(({ status }) => status),
      forwards: [...this.forwards].map(({ address }) => address),
    };
  }

  /** The session for these choices; one is enough for all that ask with the same. */
  held(text: string, choices: ClientChoices): Held {
    const { passing: _, lasting } = parted(choices);
    const asked = JSON.stringify([text, lasting]);
    const before = this.#held.get(this.#keys.get(asked) ?? "");
    if (before !== undefined) return before; // what one program asks for again and again is read once
    const parsed = parseAddress(text);
    const address: Address =
      parsed.type === "tcp" ? { ...parsed, service: undefined, user: undefined } : { ...parsed, user: undefined };
    const key = JSON.stringify([
      printAddress(address),
      Object.entries(lasting).sort(([one], [other]) => (one < other ? -1 : 1)),
    ]);
    if (this.#keys.size >= HELD_MAX) this.#keys.clear();
    this.#keys.set(asked, key);
    const known = this.#held.get(key);
    if (known !== undefined) return known;
    if (this.#held.size >= HELD_MAX) this.#forgetOne();
    const held = new Held(address, lasting, this.log, this.#tickets);
    this.#held.set(key, held);
    return held;
  }

  /** Makes room: what has no session is not missed. Throws STATE_UNUSABLE where all have one. */
  #forgetOne(): void {
    for (const [key, held] of this.#held) {
      if (held.status.state !== "idle") continue;
      this.#held.delete(key);
      void held[Symbol.asyncDispose]();
      return;
    }
    const text = `Cannot hold another session: there are ${HELD_MAX}; end one with fived down ADDRESS`;
    throw new FivedError("STATE_UNUSABLE", text);
  }

  /** Closes the sessions at an address; how many there were. */
  async end(text: string): Promise<number> {
    const wanted = pinless(text);
    let ended = 0;
    for (const [key, held] of [...this.#held]) {
      if (printAddress(held.address) !== wanted) continue;
      this.#held.delete(key);
      ended++;
      await held[Symbol.asyncDispose]();
    }
    return ended;
  }

  /** Takes the sessions with streams at an address from here: their tokens. Rejects with DETACH_IMPOSSIBLE. */
  async detach(text: string): Promise<readonly string[]> {
    const wanted = pinless(text);
    const tokens: string[] = [];
    for (const held of this.#held.values())
      if (printAddress(held.address) === wanted) tokens.push(...(await held.detach()));
    if (tokens.length === 0)
      throw new FivedError(
        "DETACH_IMPOSSIBLE",
        `Cannot detach ${text}: nothing is open there by way of the session manager`,
      );
    return tokens;
  }

  stop(): void {
    this.#stop();
  }

  /** The program with that token. */
  program(token: string): Program | undefined {
    return this.#programs.get(token);
  }

  greeted(program: Program): void {
    this.#programs.set(program.token, program);
  }

  left(program: Program): void {
    this.#programs.delete(program.token);
  }

  #accept(connection: Socket): void {
    this.#usedAt = performance.now();
    connection.on("error", () => {}); // "close" follows
    if (this.#sockets.size >= CONNECTIONS_MAX) return void connection.destroy();
    this.#sockets.add(connection);
    connection.once("close", () => this.#sockets.delete(connection));
    new Caller(this, connection);
  }

  #look(): void {
    const happened = this.#happened();
    if (happened !== undefined) this.log(`this computer has ${happened}: asking the servers whether they are there`);
    for (const [key, held] of this.#held) {
      if (happened !== undefined) held.doubt();
      held.look();
      if (!held.isForgotten) continue;
      this.#held.delete(key);
      void held[Symbol.asyncDispose]();
    }
    const isUsed = this.#sockets.size > 0 || [...this.#held.values()].some(({ status }) => status.streams > 0);
    if (isUsed) this.#usedAt = performance.now();
    else if (performance.now() - this.#usedAt > this.#idleMs || !existsSync(this.socket)) this.#stop(); // without its socket nobody finds it
  }

  async [Symbol.asyncDispose](): Promise<void> {
    clearInterval(this.#looking);
    this.#tickets[Symbol.dispose]();
    const closed = new Promise((resolve) => this.#server.close(resolve));
    await Promise.all([...this.#held.values()].map((held) => held[Symbol.asyncDispose]()));
    // Else a program would take it for a crash, and look for another manager.
    await Promise.race([Promise.all(this.carried), pause(TELL_MS, undefined, { ref: false })]);
    for (const connection of this.#sockets) connection.destroySoon();
    await Promise.race([closed, pause(TELL_MS, undefined, { ref: false })]);
    for (const connection of this.#sockets) connection.destroy(); // it does not read what it was told
    await closed;
  }
}

/** The agent changes with each terminal, and `careful` with each verb: they make no other session. */
function parted(choices: ClientChoices): { readonly passing: PassingChoices; readonly lasting: ClientChoices } {
  const { agent, careful, ...lasting } = choices;
  const passing = {
    ...(agent === undefined ? {} : { agent }),
    ...(careful === undefined ? {} : { careful }),
  };
  return { passing, lasting };
}

/** An address without user and service, as held sessions are found by. */
function pinless(text: string): string {
  const parsed = parseAddress(text);
  return printAddress(
    parsed.type === "tcp" ? { ...parsed, service: undefined, user: undefined } : { ...parsed, user: undefined },
  );
}

/** A new connection: what it says first tells whether it is a program's requests or a stream's bytes. */
class Caller {
  constructor(daemon: Daemon, socket: Socket) {
    const reader = new MessageReader();
    const late = setTimeout(() => socket.destroy(), MEET_MS);
    const left = (): void => void socket.destroy();
    const hear = (octets: Buffer): void => {
      reader.push(octets);
      const line = reader.line();
      if (line === undefined) return;
      clearTimeout(late);
      socket.off("data", hear).off("end", left).pause();
      const said = line === null ? undefined : readSaid(line);
      if (said?.type === "hello") return new Program(daemon, socket, reader).start();
      const program = said?.type === "data" ? daemon.program(said.token) : undefined;
      if (program === undefined || said?.type !== "data") return void socket.destroy();
      const rest = reader.rest();
      if (rest.length > 0) socket.unshift(rest);
      program.bytes(said.id, socket);
    };
    socket.on("data", hear).once("end", left);
    socket.once("close", () => clearTimeout(late));
  }
}

/** A program's requests. */
class Program {
  /** What the connections of its streams' bytes show, so that no other program's are taken for them. */
  readonly token = randomBytes(16).toString("base64url");
  readonly #daemon: Daemon;
  readonly #socket: Socket;
  readonly #reader: MessageReader;
  readonly #running = new Map<number, Task>();
  readonly #meetings = new Map<number, Meeting>();
  /** Octets of an answer are coming. */
  #octets: { readonly id: number; readonly bytes: number } | undefined;

  constructor(daemon: Daemon, socket: Socket, reader: MessageReader) {
    this.#daemon = daemon;
    this.#socket = socket;
    this.#reader = reader;
  }

  start(): void {
    this.#daemon.greeted(this);
    this.#socket.once("close", () => {
      this.#daemon.left(this);
      for (const task of this.#running.values()) task.leave();
      for (const [id] of this.#meetings) this.#forget(id);
    });
    this.#socket.once("end", () => this.#socket.end());
    this.#write({ hello: HELLO, token: this.token, pid: process.pid });
    this.#socket.on("data", (octets) => {
      this.#reader.push(octets);
      this.#hear();
    });
    this.#socket.resume();
    this.#hear();
  }

  /** Tells something of a request. */
  tell(id: number, event: Event): void {
    this.#write({ id, ...event });
  }

  /** The bytes of a stream have come. */
  bytes(id: number, socket: Socket): void {
    this.#meeting(id).socket.resolve(socket);
  }

  /** Where the bytes of a stream come. */
  async connectionOf(id: number): Promise<Socket> {
    const { socket, timer } = this.#meeting(id);
    const connection = await socket.promise;
    clearTimeout(timer);
    this.#meetings.delete(id);
    return connection;
  }

  #meeting(id: number): Meeting {
    const known = this.#meetings.get(id);
    if (known !== undefined) return known;
    const socket = Promise.withResolvers<Socket>();
    socket.promise.catch(() => {}); // whoever waits hears of it
    const timer = setTimeout(() => this.#forget(id), MEET_MS);
    const meeting = { socket, timer };
    this.#meetings.set(id, meeting);
    if (this.#meetings.size > REQUESTS_MAX) this.#socket.destroy();
    return meeting;
  }

  #forget(id: number): void {
    const meeting = this.#meetings.get(id);
    if (meeting === undefined) return;
    this.#meetings.delete(id);
    clearTimeout(meeting.timer);
    meeting.socket.reject(new FivedError("ABORTED", "Cannot open a stream: its bytes did not come"));
    meeting.socket.promise.then(
      (socket) => {
        if (!this.#running.has(id)) socket.destroy();
      },
      () => {},
    );
  }

  #write(line: object): void {
    writeLine(this.#socket, line);
  }

  #hear(): void {
    for (;;) {
      if (this.#octets !== undefined) {
        const { id, bytes } = this.#octets;
        const octets = this.#reader.octets(bytes);
        if (octets === undefined) return;
        this.#octets = undefined;
        this.#running.get(id)?.answered(octets);
        continue;
      }
      const line = this.#reader.line();
      if (line === undefined) return;
      const said = line === null ? undefined : readSaid(line);
      if (said === undefined || !this.#obey(said)) return void this.#socket.destroy();
    }
  }

  /** False for what makes no sense here. */
  #obey(said: Said): boolean {
    switch (said.type) {
      case "request":
        if (this.#running.has(said.id) || this.#running.size >= REQUESTS_MAX) return false;
        this.#run(new Task(this, said.id, said.asks), said.request);
        return true;
      case "answer":
        this.#running.get(said.id)?.answered(said.yes);
        return true;
      case "octets":
        this.#octets = said;
        return true;
      case "took":
        this.#running.get(said.id)?.took?.(said.octets);
        return true;
      case "leave":
        this.#running.get(said.id)?.leave();
        return true;
      default:
        return false;
    }
  }

  #run(task: Task, request: Request): void {
    this.#running.set(task.id, task);
    const done = perform(this.#daemon, this, task, request)
      .catch((error: unknown) => task.tell({ event: "error", error: sentOf(error) }))
      .finally(() => {
        this.#running.delete(task.id);
        this.#daemon.carried.delete(done);
      });
    if (request.do === "open" || request.do === "goOn") this.#daemon.carried.add(done);
  }
}

function sentOf(error: unknown): Extract<Event, { readonly event: "error" }>["error"] {
  if (!(error instanceof FivedError))
    return { code: "INTERNAL", message: error instanceof Error ? error.message : String(error) };
  const { code, message, status, reason } = error;
  return { code, message, status, reason };
}

/** One request that is being done. */
class Task {
  readonly id: number;
  readonly people: People;
  /** Hears how much of a stream the application has taken. */
  took: ((octets: number) => void) | undefined;
  readonly #program: Program;
  readonly #leaving = new AbortController();
  #asked: { resolve(answer: boolean | Uint8Array): void; reject(error: Error): void } | undefined;

  constructor(program: Program, id: number, asks: Extract<Said, { readonly type: "request" }>["asks"]) {
    this.#program = program;
    this.id = id;
    this.people = {
      tries: asks.tries,
      log: (text) => this.tell({ event: "log", text }),
      ...(asks.confirm
        ? { confirm: (text: string) => this.#ask({ event: "confirm", text }).then((answer) => answer === true) }
        : {}),
      ...(asks.ask
        ? {
            ask: (text: string, shown: boolean) =>
              this.#ask({ event: "ask", text, shown }).then((answer) =>
                answer instanceof Uint8Array ? answer : new Uint8Array(0),
              ),
          }
        : {}),
    };
  }

  get left(): AbortSignal {
    return this.#leaving.signal;
  }

  tell(event: Event): void {
    this.#program.tell(this.id, event);
  }

  answered(answer: boolean | Uint8Array): void {
    if (this.#asked === undefined && answer instanceof Uint8Array) answer.fill(0); // nobody has asked
    this.#asked?.resolve(answer);
    this.#asked = undefined;
  }

  /** The program wants it no more, or is gone. */
  leave(): void {
    this.#leaving.abort();
    this.#asked?.reject(new FivedError("ABORTED", "Cannot go on: whoever was asked has left"));
    this.#asked = undefined;
  }

  #ask(event: Event): Promise<boolean | Uint8Array> {
    if (this.left.aborted) return Promise.reject(new FivedError("ABORTED", "Cannot ask: nobody is there any more"));
    return new Promise((resolve, reject) => {
      this.#asked = { resolve, reject };
      this.tell(event);
    });
  }
}

async function perform(daemon: Daemon, program: Program, task: Task, request: Request): Promise<void> {
  switch (request.do) {
    case "open":
      return await open(daemon, program, task, request);
    case "goOn":
      return await goOn(daemon, program, task, request);
    case "list": {
      const names = await listed(daemon.held(request.address, request.choices), task, request);
      for (let at = 0; at < names.length; at += NAMES_AT_ONCE)
        task.tell({ event: "names", names: names.slice(at, at + NAMES_AT_ONCE) });
      return task.tell({ event: "done", result: null });
    }
    case "login": {
      const held = daemon.held(request.address, request.choices);
      const identity = await held.identity(task.people, parted(request.choices).passing);
      return task.tell({ event: "done", result: identity ?? null });
    }
    case "listening":
      return await listening(daemon, task, request.address);
    case "status":
      return task.tell({ event: "done", result: daemon.status });
    case "end":
      return task.tell({ event: "done", result: await daemon.end(request.address) });
    case "detach":
      return task.tell({ event: "done", result: await daemon.detach(request.address) });
    case "stop":
      task.tell({ event: "done", result: null });
      return daemon.stop();
  }
}

function listed(
  held: Held,
  { people }: Task,
  { service, choices }: Extract<Request, { readonly do: "list" }>,
): Promise<readonly string[]> {
  return new Promise((resolve, reject) => {
    held.use((session) => session.list(service).then(resolve, reject), people, parted(choices).passing).catch(reject);
  });
}

/** The bytes of a program's stream, as something to be joined to one of a session's. */
class Bytes {
  readonly to: Splice;
  readonly keeping: Keeping;
  readonly #socket: Socket;
  readonly #task: Task;
  readonly #closed: Promise<void>;
  readonly #gone = Promise.withResolvers<void>();
  #cut: { readonly code: number; readonly why?: string | undefined } = { code: Code.NO_ERROR };
  #refused: FivedError | undefined;

  constructor(task: Task, socket: Socket) {
    this.#task = task;
    this.#socket = socket;
    this.#closed = new Promise<void>((resolve) => socket.once("close", () => resolve()));
    socket.once("finish", () => task.tell({ event: "ended" }));
    this.to = {
      ...spliceOf(socket),
      destroy: () => socket.destroy(),
      cut: (code, why) => {
        this.#cut = { code, why };
      },
    };
    this.keeping = {
      confirmed: (octets) => task.tell({ event: "confirmed", octets }),
      gone: () => this.#gone.resolve(),
    };
    task.left.addEventListener("abort", () => socket.destroy(), { once: true });
  }

  get isGone(): boolean {
    return this.#socket.destroyed;
  }

  /** The service has answered. */
  readonly answered = (error: FivedError | undefined, octets: number): void => {
    if (error === undefined) return this.#task.tell({ event: "ready", octets });
    this.#refused = error;
    this.#socket.destroy();
  };

  destroy(): void {
    this.#socket.destroy();
  }

  /** It was joined to what keeps nothing. */
  unkept(): void {
    this.#gone.resolve();
  }

  /** Waits for the end, and tells of it; rejects where the service has refused. */
  async end(): Promise<void> {
    await this.#closed;
    await this.#gone.promise;
    if (this.#refused !== undefined) throw this.#refused;
    this.#task.tell(overEvent(this.#cut.code, this.#cut.why));
  }
}

async function open(
  daemon: Daemon,
  program: Program,
  task: Task,
  { address, service, host, choices }: Extract<Request, { readonly do: "open" }>,
): Promise<void> {
  const held = daemon.held(address, choices);
  const bytes = new Bytes(task, await program.connectionOf(task.id));
  const joinTo = (session: ServiceOpener): void => {
    if (bytes.isGone) return bytes.unkept();
    const joined = session.join(service, bytes.to, bytes.answered, { host, keeping: bytes.keeping });
    // Either is told before the stream can have been asked for: control has not returned.
    if (joined?.name === undefined) task.tell({ event: "opened" });
    if (joined === undefined) return bytes.unkept();
    const { stream, kept } = joined;
    task.took = joined.took;
    if (joined.name !== undefined) task.tell({ event: "kept", session: joined.name, stream });
    else void kept.then((name) => name !== undefined && task.tell({ event: "kept", session: name, stream }));
  };
  try {
    await held.use(joinTo, task.people, parted(choices).passing);
  } catch (error) {
    bytes.destroy();
    throw error;
  }
  await bytes.end();
}

async function goOn(
  daemon: Daemon,
  program: Program,
  task: Task,
  { address, service, host, choices, session: name, stream, had, took }: Extract<Request, { readonly do: "goOn" }>,
): Promise<void> {
  const held = daemon.held(address, choices);
  const bytes = new Bytes(task, await program.connectionOf(task.id));
  try {
    const session = await held.recalled(name);
    if (bytes.isGone) return;
    const claim = { id: stream, had, took, keeping: bytes.keeping };
    const claimed = session.claim(service, claim, bytes.to, bytes.answered, host);
    switch (claimed.type) {
      case "goes on":
        task.took = claimed.took;
        task.tell(claimed.from === undefined ? { event: "goesOn" } : { event: "goesOn", from: claimed.from });
        return await bytes.end();
      case "unheard":
        return task.tell({ event: "unheard" });
      case "over":
        return task.tell({ event: "gone" });
      case "torn": {
        const why = "some of what had come for it was with the session manager that has ended";
        throw new FivedError("SESSION_LOST", `Cannot go on with "${service}": ${why}`);
      }
    }
  } finally {
    bytes.destroy();
  }
}

async function listening(daemon: Daemon, { left }: Task, address: string): Promise<void> {
  const shown = { address };
  daemon.forwards.add(shown);
  if (!left.aborted) await new Promise((resolve) => left.addEventListener("abort", resolve, { once: true }));
  daemon.forwards.delete(shown);
}
