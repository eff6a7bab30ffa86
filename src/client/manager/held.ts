/**
 * A session that is held for all programs of a person: opened when the first one needs it, kept while none does, and opened again when it was
 * lost. What it is to one server, for one user, with one set of choices.
 *
 * ```
 *            use                    opened                     lost
 *   idle ──────────▶ connecting ──────────▶ ready ──────────────────────▶ waiting
 *    ▲                    │ failed                                           │ after 0.5 s, 1 s, 2 s … a minute, more or less
 *    └────────────────────┘◀─────────────────────────────────────────────────┘ connecting, with nobody to ask
 * ```
 * @module
 */
import { FivedError } from "../../io/index.ts";
import { type Address, printAddress } from "../address.ts";
import { type ClientChoices, optionsOf, type People } from "../choices.ts";
import type { ConnectOptions } from "../dial.ts";
import type { MultiplexedSession } from "../multiplexed-session.ts";
import { SessionPool } from "../pool.ts";
import { recallSession } from "../recall.ts";
import type { ServiceOpener } from "../session.ts";
import type { Tickets } from "./tickets.ts";

/** First wait before a lost session is opened again; each failure doubles it. */
const BACK_OFF_MS = 500;
const BACK_OFF_MS_MAX = 60_000;
/** A session that nobody has used for so long is not opened again, and is closed. */
const WARM_MS = 60 * 60_000;
/** For how long a server is asked to keep a session that has no connection: long enough to go home with it. */
const KEPT_SECONDS = 900;

/** Failures of the way, after which another try may do better. All others are told to whoever asks next. */
const PASSING: ReadonlySet<string> = new Set(["RESOLVE_FAILED", "CONNECT_FAILED", "TIMEOUT", "SESSION_LOST"]);

/** A held session, for people to look at. */
export interface HeldStatus {
  readonly address: string;
  readonly user: string | undefined;
  /** Who the server says we are. */
  readonly identity: string | undefined;
  readonly state: "idle" | "connecting" | "ready" | "attaching" | "silent" | "waiting";
  readonly sessions: number;
  readonly connections: number;
  readonly streams: number;
  readonly queuedBytes: number;
  readonly roundTripMs: number | undefined;
  /** Why it was lost, or could not be opened, last. */
  readonly trouble: string | undefined;
}

/** Nobody sits at a terminal. */
function nobody(log: (line: string) => void): People {
  return { tries: 1, log };
}

/** Choices that differ from one use of the same session to the next. */
export type PassingChoices = Pick<ClientChoices, "agent" | "careful">;

/** The agent changes with each terminal, and `careful` with each verb: they make no other session. */
export function parted(choices: ClientChoices): { readonly passing: PassingChoices; readonly lasting: ClientChoices } {
  const { agent, careful, ...lasting } = choices;
  const passing = {
    ...(agent === undefined ? {} : { agent }),
    ...(careful === undefined ? {} : { careful }),
  };
  return { passing, lasting };
}

/** Holds one. */
export class Held implements AsyncDisposable {
  readonly address: Address;
  readonly #choices: ClientChoices;
  readonly #log: (line: string) => void;
  readonly #pool: SessionPool;
  readonly #tickets: Tickets | undefined;
  /** Sessions of a manager that was killed, by their names. */
  readonly #recalled = new Map<string, Promise<MultiplexedSession>>();
  #usedAt = performance.now();
  #failures = 0;
  #waiting: NodeJS.Timeout | undefined;
  #identity: string | undefined;
  #trouble: string | undefined;
  #closed = false;

  /**
   * @param log what is said where nobody asks
   * @param tickets where those of its sessions are kept
   */
  constructor(address: Address, choices: ClientChoices, log: (line: string) => void, tickets?: Tickets) {
    this.address = address;
    this.#choices = choices;
    this.#log = log;
    this.#tickets = tickets;
    const options = this.#options(choices, nobody(log));
    this.#pool = new SessionPool(address, options, (error) => this.#lost(error), "ends-when-closed");
  }

  /**
   * Calls `act` with a session that takes one more stream; rejects as connecting does.
   * @param people who is asked, where something has to be
   * @param passing choices of this use alone: the agent of a terminal, and how to sign in
   */
  async use(act: (session: ServiceOpener) => void, people: People, passing: PassingChoices = {}): Promise<void> {
    if (this.#closed)
      throw new FivedError("ABORTED", `Cannot use the session at ${printAddress(this.address)}: it is being closed`);
    this.#usedAt = performance.now();
    clearTimeout(this.#waiting); // no need to wait: somebody wants it now
    this.#waiting = undefined;
    const choices = { ...this.#choices, ...passing };
    for (;;) {
      const others = this.#pool.isOpening;
      try {
        const options = this.#options(choices, people);
        await this.#pool.use((session) => act(this.#met(session)), options);
        this.#usedAt = performance.now();
        return;
      } catch (error) {
        // Somebody else was asked, and has left: then we are.
        if (others && error instanceof FivedError && error.code === "ABORTED") continue;
        this.#trouble = error instanceof Error ? error.message : String(error);
        throw error;
      }
    }
  }

  #options(choices: ClientChoices, people: People): ConnectOptions {
    const tickets = this.#tickets === undefined ? {} : { tickets: this.#tickets };
    return { ...optionsOf(choices, people), detachable: KEPT_SECONDS, ...tickets };
  }

  /**
   * The session of that name, which a manager that was killed has left: gone on with when the first program asks for it. Rejects with SESSION_LOST
   * where its ticket is not there, or of no use any more.
   */
  async recalled(name: string): Promise<MultiplexedSession> {
    this.#usedAt = performance.now();
    const before = this.#recalled.get(name);
    if (before !== undefined) return await before;
    const recalling = this.#recall(name);
    this.#recalled.set(name, recalling);
    const forget = (): void => void this.#recalled.delete(name);
    recalling.then(({ closed }) => closed.then(forget, forget), forget); // what programs ask for does not pile up
    return await recalling;
  }

  async #recall(name: string): Promise<MultiplexedSession> {
    const kept = await this.#tickets?.take(name);
    if (kept === undefined) throw new FivedError("SESSION_LOST", "Lost the session manager, and the session with it");
    this.#log(`going on with the session at ${kept.address}, which another manager has left`);
    const session = await recallSession(kept, this.#options(this.#choices, nobody(this.#log)));
    if (this.#closed) {
      await session[Symbol.asyncDispose]();
      throw new FivedError("ABORTED", `Cannot use the session at ${kept.address}: it is being closed`);
    }
    this.#pool.add(this.#met(session));
    return session;
  }

  /** Takes the sessions that have streams from here; rejects with DETACH_IMPOSSIBLE. */
  async detach(): Promise<readonly string[]> {
    const tokens: string[] = [];
    for (const session of this.#pool.sessions) if (session.status.streams > 0) tokens.push(await session.detach());
    return tokens;
  }

  /** Who the server says we are; undefined for nobody. Rejects as connecting does. */
  identity(people: People, passing?: PassingChoices): Promise<string | undefined> {
    return new Promise((resolve, reject) => {
      this.use((session) => session.identity.then(resolve, reject), people, passing).catch(reject);
    });
  }

  get status(): HeldStatus {
    const all = this.#pool.sessions.map((session) => session.status);
    const sum = (part: (status: (typeof all)[number]) => number): number =>
      all.reduce((total, each) => total + part(each), 0);
    return {
      address: printAddress({ ...this.address, user: undefined }),
      user: this.#choices.user,
      identity: all.length > 0 ? this.#identity : undefined,
      state: this.#state,
      sessions: all.length,
      connections: sum(({ connections }) => connections),
      streams: sum(({ streams }) => streams),
      queuedBytes: sum(({ queuedBytes }) => queuedBytes),
      roundTripMs: all.find(({ roundTripMs }) => roundTripMs !== undefined)?.roundTripMs,
      trouble: this.#trouble,
    };
  }

  get #state(): HeldStatus["state"] {
    if (this.#pool.sessions.some(({ isSilent, status }) => !isSilent && status.connections > 0)) return "ready";
    if (this.#pool.sessions.some(({ status }) => status.connections === 0)) return "attaching";
    if (this.#pool.sessions.length > 0) return "silent";
    if (this.#pool.isOpening) return "connecting";
    return this.#waiting === undefined ? "idle" : "waiting";
  }

  /** Nobody has used it for long, and nobody is. */
  get isForgotten(): boolean {
    return this.#state === "idle" && performance.now() - this.#usedAt > WARM_MS;
  }

  /** There is reason to doubt the way to the server, or to hope for it: asks whether it is there, or tries again at once. */
  doubt(): void {
    for (const session of this.#pool.sessions) session.probe();
    if (this.#waiting === undefined) return;
    clearTimeout(this.#waiting);
    this.#failures = 0;
    void this.#reopen();
  }

  /** Looks after it: to be called every few seconds. */
  look(): void {
    const { sessions } = this.#pool;
    const isOfUse = performance.now() - this.#usedAt < WARM_MS;
    for (const session of sessions) {
      if (session.status.streams > 0) this.#usedAt = performance.now();
      else if (!isOfUse) void session[Symbol.asyncDispose]();
    }
    // What the next program would have to wait for is done now.
    const isNoUse = sessions.length > 0 && sessions.every((session) => session.isSilent);
    if (isNoUse && isOfUse && this.#waiting === undefined && !this.#pool.isOpening) void this.#reopen();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#closed = true;
    clearTimeout(this.#waiting);
    await this.#pool[Symbol.asyncDispose]();
  }

  /** A session as it is used: what it tells of itself is known afterwards. */
  #met(session: ServiceOpener): ServiceOpener {
    this.#failures = 0;
    this.#trouble = undefined;
    session.identity.then(
      (identity) => {
        this.#identity = identity;
      },
      () => {}, // whoever uses the session is told
    );
    return session;
  }

  #lost(error: unknown): void {
    if (this.#closed || error === undefined) return;
    this.#trouble = error instanceof Error ? error.message : String(error);
    this.#log(this.#trouble);
    if (isPassing(error)) this.#reopenLater();
  }

  #reopenLater(): void {
    if (this.#closed || this.#waiting !== undefined || performance.now() - this.#usedAt > WARM_MS) return;
    const longest = Math.min(BACK_OFF_MS * 2 ** this.#failures, BACK_OFF_MS_MAX);
    this.#failures++;
    // Not all managers of an organisation at once when its server is back.
    this.#waiting = setTimeout(() => void this.#reopen(), longest * (0.5 + Math.random() / 2));
  }

  async #reopen(): Promise<void> {
    this.#waiting = undefined;
    try {
      await this.#pool.use((session) => void this.#met(session));
    } catch (error) {
      this.#trouble = error instanceof Error ? error.message : String(error);
      if (isPassing(error)) this.#reopenLater();
    }
  }
}

function isPassing(error: unknown): boolean {
  return error instanceof FivedError && PASSING.has(error.code);
}
