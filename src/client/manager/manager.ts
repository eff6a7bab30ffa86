/**
 * The session manager (paper section 3.2 and Figure 4): one process of a person's that holds sessions for all his programs. Where it is says `place.ts`.
 *
 * ```
 *   program.ts ──► messages.ts ──► requests.ts ──► held.ts ──► sessions ── tickets.ts
 *   who asks       what is said    what is done    one server, for one user
 * ```
 *
 * A program that talks nonsense, or leaves in the middle, loses its connections and nothing else.
 * @module
 */
import { existsSync } from "node:fs";
import { createServer, type Server, type Socket } from "node:net";
import { setTimeout as pause } from "node:timers/promises";
import { FivedError, lockFile, removeStale } from "../../io/index.ts";
import { type Address, parseAddress, printAddress } from "../address.ts";
import type { ClientChoices } from "../choices.ts";
import { type Computer, thisComputer, watcherOf } from "../watch.ts";
import { Held, type HeldStatus, parted } from "./held.ts";
import type { Request } from "./messages.ts";
import { preparePlace } from "./place.ts";
import { Caller, type Program, type ProgramOwner, type Task } from "./program.ts";
import { type Holder, perform } from "./requests.ts";
import { Tickets } from "./tickets.ts";

/** Connections of programs at once; each costs a descriptor, and most are streams. */
const CONNECTIONS_MAX = 4_096;
/** Sessions held at once, in use or not: more organisations than a person has to do with. */
const HELD_MAX = 256;
/** Between two looks at what is held, and at this computer. */
const LOOK_MS = 2_000;
/** Time to tell programs that their streams are over. */
const TELL_MS = 1_000;

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

class Daemon implements Manager, ProgramOwner, Holder {
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
  readonly forwards = new Set<{ readonly address: string }>();
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

  perform(program: Program, task: Task, request: Request): Promise<void> {
    return perform(this, program, task, request);
  }

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

/** An address without user and service, as held sessions are found by. */
function pinless(text: string): string {
  const parsed = parseAddress(text);
  return printAddress(
    parsed.type === "tcp" ? { ...parsed, service: undefined, user: undefined } : { ...parsed, user: undefined },
  );
}
