/**
 * Going on with a session over another connection (PROTOCOL §4.8): when its own is lost, silent, or led through a network that is not there any
 * more. The other one is looked for while the old one still may come back, and whichever answers first carries the session (make before break).
 *
 * ```
 *   every 40 ms   dial ──► TLS, trust ──► HOST, ATTACH ──► proof, counts ──► the old ones are left, the session goes on
 *                 dial ──► …                 one at a time
 * ```
 *
 * A dial is a probe of the way: where octets vanish, TCP alone would try again after 1, 3, 7 seconds. So one is begun every 40 ms and given up when
 * it has had its time; the first that gets through after an outage does so as soon as the way is back, and not when some timer says.
 * @module
 */
import type { Socket } from "node:net";
import type { AttachMode, Ticket } from "../identity/index.ts";
import { FivedError } from "../io/index.ts";
import { Code } from "../wire/index.ts";
import type { Address } from "./address.ts";
import { type AttachAnswer, attachOver, isSane, type Positions } from "./attach.ts";
import { type ConnectOptions, type Dialled, dial } from "./dial.ts";
import { transportFor } from "./transports/index.ts";
import { openTcp } from "./transports/tcp.ts";
import type { Transport } from "./transports/transport.ts";

/** What goes on, as far as it is needed here. */
export interface Resumable {
  readonly positions: Positions;
  /** It has lost its memory, and has to be told what the server remembers; the positions say nothing then. */
  readonly isRecalled?: boolean;
  /** In milliseconds; undefined before the first measurement. */
  readonly roundTripMs: number | undefined;
  /** The ticket is the next one from now on; resolves when it is kept as safely as it can be. */
  store(ticket: Ticket): Promise<void> | void;
  /** The connection is the session's from now on. */
  resumed(socket: Socket, answer: AttachAnswer): void;
  /** There is no way to go on. */
  failed(code: number, reason: string): void;
}

/** Where the session was reached last. */
export interface Reached {
  readonly host: string;
  readonly port: number;
}

/** Time between two dials while it was lost only now; while it may take long; and at last. */
const PACES = [
  { untilMs: 60_000, everyMs: 40 },
  { untilMs: 300_000, everyMs: 250 },
  { untilMs: Number.POSITIVE_INFINITY, everyMs: 2_000 },
] as const;
/** A dial is given up after so long without a connection: before TCP would try again by itself; or after so many round trips. */
const DIAL_MS = 950;
const DIAL_ROUND_TRIPS = 4;
/** A transport of which that is not known gets its time, one dial after the other. */
const SLOW_DIAL_MS = 10_000;
/** Every so many dials the name is asked for again: the server may have moved. */
const DIALS_BY_NAME = 25;
/** Where the computer answers that nobody listens, for so long, the server has ended: it would be back by now, and without its sessions. */
const DESERTED_MS = 10_000;
/** TLS and the answer to ATTACH have to come in so many round trips, and in so long at least. */
const ANSWER_MS = 2_000;
const ANSWER_ROUND_TRIPS = 10;

/** Looks for another connection until it has one, is told that it is of no use, or is stopped. */
export class Resumption {
  readonly #address: Address;
  readonly #options: ConnectOptions;
  readonly #reached: Reached | undefined;
  readonly #session: Resumable;
  readonly #ticket: Ticket;
  readonly #stopped = new AbortController();
  readonly #began = performance.now();
  readonly #dials = new Set<AbortController>();
  #timer: NodeJS.Timeout | undefined;
  #count = 0;
  /** A connection that is there: TLS and ATTACH take their turn on one at a time. */
  #answering = false;
  /** Since when every connection was refused. */
  #refusedSince: number | undefined;
  /** What went wrong last, for messages. */
  trouble = "no connection yet";

  /**
   * @param options as the session was opened with; nobody is asked anything
   * @param reached where it was reached over TCP; by the transport that was chosen, if left out
   */
  constructor(
    session: Resumable,
    ticket: Ticket,
    { address, options, reached }: { address: Address; options: ConnectOptions; reached: Reached | undefined },
  ) {
    this.#session = session;
    this.#ticket = ticket;
    this.#address = address;
    const { signal: _, ask: __, ...quiet } = options;
    this.#options = quiet;
    this.#reached = reached;
    this.#next(0);
  }

  /** A connection is there, and is being attached. */
  get answering(): boolean {
    return this.#answering;
  }

  /** No more of it: the session goes on otherwise, or is over. */
  stop(): void {
    clearTimeout(this.#timer);
    this.#stopped.abort();
    for (const dialling of this.#dials) dialling.abort();
  }

  #next(ms: number): void {
    if (this.#stopped.signal.aborted) return;
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => this.#dial(), ms); // keeps the process alive, as the connection did that it looks for
  }

  #dial(): void {
    const { everyMs } = PACES.find(({ untilMs }) => performance.now() - this.#began < untilMs) ?? PACES[2];
    if (this.#answering) return this.#next(everyMs);
    const isDirect = this.#reached !== undefined && this.#count++ % DIALS_BY_NAME !== DIALS_BY_NAME - 1;
    if (isDirect) {
      this.#attempt(true).catch(() => {});
      this.#next(everyMs);
    } else {
      const slow = this.#attempt(false).catch(() => {});
      if (this.#reached === undefined) void slow.then(() => this.#next(everyMs));
      else this.#next(everyMs);
    }
  }

  async #attempt(isDirect: boolean): Promise<void> {
    const dialling = new AbortController();
    this.#dials.add(dialling);
    const roundTripMs = this.#session.roundTripMs ?? 0;
    const timer = setTimeout(
      () => dialling.abort(),
      isDirect ? Math.max(DIAL_MS, DIAL_ROUND_TRIPS * roundTripMs) : SLOW_DIAL_MS,
    );
    let isOurs = false;
    /** The first that gets through has the way to itself, for as long as an answer may take. */
    const through = (): boolean => {
      clearTimeout(timer);
      if (this.#answering || this.#stopped.signal.aborted) return false;
      this.#answering = true;
      isOurs = true;
      return true;
    };
    const late = (): NodeJS.Timeout =>
      setTimeout(() => dialling.abort(), Math.max(ANSWER_MS, ANSWER_ROUND_TRIPS * roundTripMs));
    let answer: NodeJS.Timeout | undefined;
    try {
      const transport = await this.#transport(isDirect);
      const dialled = await dial(this.#address, {
        ...this.#options,
        signal: dialling.signal,
        transport: {
          name: transport.name,
          open: async (address, signal) => {
            const socket = await transport.open(address, signal);
            if (!through()) {
              socket.destroy();
              throw new FivedError("ABORTED", "Cannot use this connection: another is being attached");
            }
            answer = late();
            return socket;
          },
        },
      });
      await this.#attach(dialled, dialling.signal);
    } catch (error) {
      this.trouble = error instanceof Error ? error.message : String(error);
      if (isDirect && !dialling.signal.aborted) this.#failed(isRefused(error));
    } finally {
      clearTimeout(timer);
      clearTimeout(answer);
      this.#dials.delete(dialling);
      if (isOurs) this.#answering = false;
    }
  }

  /** A connection did not come about, and nobody called it off. */
  #failed(isRefused: boolean): void {
    if (!isRefused) this.#refusedSince = undefined;
    else if (this.#refusedSince === undefined) this.#refusedSince = performance.now();
    else if (performance.now() - this.#refusedSince >= DESERTED_MS) {
      this.stop();
      this.#session.failed(Code.UNAVAILABLE, `the server has ended: ${this.trouble}`);
    }
  }

  async #transport(isDirect: boolean): Promise<Transport> {
    const to = this.#reached;
    if (isDirect && to !== undefined) return { name: "tcp", open: (_, signal) => openTcp(to, signal) };
    return await transportFor(this.#address, this.#options.transport);
  }

  /** Says ATTACH, and hears the answer: resolves when the session has the connection, or can do without it. */
  async #attach(dialled: Dialled, signal: AbortSignal): Promise<void> {
    const { socket } = dialled;
    try {
      const { received } = this.#session.positions;
      const mode: AttachMode = this.#session.isRecalled === true ? "recall" : "replace";
      const wish = { address: this.#address, ticket: this.#ticket, mode, received };
      const answer = await attachOver(dialled, wish, signal);
      if (this.#stopped.signal.aborted) throw new FivedError("ABORTED", "Cannot attach: it is over");
      await this.#goOn(socket, answer);
    } catch (error) {
      socket.destroy();
      if (isFinal(error) && !this.#stopped.signal.aborted) {
        this.stop();
        const why =
          error.status === 410 ? "the server says that it is over" : "the server knows no such session of ours";
        this.#session.failed(Code.UNAVAILABLE, `${why} (${error.status})`);
      }
      throw error;
    }
  }

  async #goOn(socket: Socket, answer: AttachAnswer): Promise<void> {
    const { attached } = answer;
    if (this.#session.isRecalled !== true && !isSane(this.#session.positions, attached)) {
      // One of the two has lost its memory: going on would lose or double octets (abuse case D16).
      this.stop();
      this.#session.failed(Code.SEQ, "the server and this end do not remember the same session");
      throw new FivedError("PROTOCOL_ERROR", "Cannot attach: the counts do not fit");
    }
    const { sid } = this.#ticket;
    await this.#session.store({ sid, generation: attached.generation, secret: attached.secret });
    if (this.#stopped.signal.aborted || socket.destroyed)
      throw new FivedError("SESSION_LOST", "Cannot attach: it was lost again");
    this.stop();
    this.#session.resumed(socket, answer);
  }
}

/** Where a connection led to, if that was TCP that we made ourselves. */
export function reachedBy(socket: Socket, options: ConnectOptions): Reached | undefined {
  const isOurs = options.transport === undefined || options.transport === "tcp";
  const { remoteAddress: host, remotePort: port } = socket;
  return isOurs && host !== undefined && port !== undefined ? { host, port } : undefined;
}

function isRefused(error: unknown): boolean {
  for (let cause = error; cause instanceof Error; cause = cause.cause)
    if ("code" in cause && cause.code === "ECONNREFUSED") return true;
  return false;
}

/** No other try will do better: the session is over, or not ours. */
function isFinal(error: unknown): error is FivedError {
  return error instanceof FivedError && error.code === "SESSION_LOST" && (error.status === 403 || error.status === 410);
}
