/**
 * The connections of one session by name (paper section 3.1.8): the one that it has begun with, or was attached over last, and those that were added. Streams share them, or are wanted on
 * one of them; a connection that is lost is made again.
 * @module
 */
import type { Socket } from "node:net";
import { networkInterfaces } from "node:os";
import type { Ticket } from "../identity/index.ts";
import { FivedError, type SessionPump } from "../io/index.ts";
import { type Address, printAddress } from "./address.ts";
import { attachOver } from "./attach.ts";
import { type ConnectOptions, dial } from "./dial.ts";
import type { PathRule } from "./path-rules.ts";
import type { Reached } from "./resume.ts";
import { MAIN_PATH, type PathOptions } from "./session.ts";
import { openTcp } from "./transports/tcp.ts";

/** What a session tells of itself, and is told. */
export interface PathOwner {
  /** What lets a connection be added now; undefined while another one is being looked for instead. */
  ticket(): Ticket | undefined;
  /** The server keeps the session: only such a one has connections beside the first. */
  isDetachable(): boolean;
  /** The ticket is this one from now on. */
  store(ticket: Ticket): Promise<void>;
  /** Where the server was reached last. */
  reached(): Reached | undefined;
}

/** A connection, and of an added one what it is made again with. */
interface Path {
  readonly connection: number;
  readonly socket: Socket;
  readonly made?: PathOptions;
}

/** A connection has to be there in so long; one that was lost is made again after so long. */
const ADD_MS = 10_000;
const ADD_AGAIN_MS = 2_000;
/** Streams that are gone are forgotten when there are so many of them. */
const WANTED_SPARE = 64;

/** Those of one session. */
export class SessionPaths {
  readonly #pump: SessionPump;
  readonly #address: Address;
  readonly #options: ConnectOptions;
  readonly #owner: PathOwner;
  readonly #paths = new Map<string, Path>();
  /** Names of those that are to be made again. */
  readonly #missing = new Set<string>();
  /** Names of paths that streams are wanted on, by the streams' numbers. */
  readonly #wanted = new Map<number, string>();
  /** One is added at a time: each has a ticket of its own. */
  #adding: Promise<void> = Promise.resolve();

  constructor(pump: SessionPump, address: Address, options: ConnectOptions, owner: PathOwner) {
    const { signal: _, ...quiet } = options;
    this.#pump = pump;
    this.#address = address;
    this.#options = quiet;
    this.#owner = owner;
  }

  has(name: string): boolean {
    return this.#paths.has(name);
  }

  /** The session begins, or goes on, with this connection. */
  main(connection: number, socket: Socket): void {
    this.#arrived(MAIN_PATH, { connection, socket });
  }

  /** Adds a connection; see `Session.addPath`. */
  add(options: PathOptions): Promise<void> {
    const added = this.#adding.then(() => this.#add(options));
    this.#adding = added.catch(() => {});
    return added;
  }

  /** Adds what the rules say, now or as soon as it can be. */
  addRuled(rules: readonly PathRule[]): void {
    for (const { services: _, ...rule } of rules) {
      if (rule.name === MAIN_PATH) continue;
      this.add(rule).catch((error: Error) => {
        this.#options.log?.(error.message);
        this.#addAgain(rule);
      });
    }
  }

  /** Leaves one, which is not made again; false where there is none of that name. */
  remove(name: string): boolean {
    const path = this.#paths.get(name);
    if (path === undefined) return false;
    this.#paths.delete(name);
    this.#pump.leave(path.connection);
    return true;
  }

  /** A stream is wanted on a path: now, and whenever there is one of that name again; with undefined on whichever is good. */
  keep(stream: number, name: string | undefined): void {
    if (name === undefined) this.#wanted.delete(stream);
    else this.#wanted.set(stream, name);
    if (this.#wanted.size > 2 * this.#pump.streams + WANTED_SPARE)
      for (const each of [...this.#wanted.keys()]) if (this.#pump.stream(each) === undefined) this.#wanted.delete(each);
    this.#pump.pin(stream, name === undefined ? undefined : this.#paths.get(name)?.connection);
  }

  /** A connection is gone. It is made again, as long as there is another one meanwhile; of the last one, resuming makes the next. */
  gone(connection: number, connections: number): void {
    for (const [name, path] of this.#paths) {
      if (path.connection !== connection) continue;
      this.#paths.delete(name);
      const made = path.made ?? (connections > 0 ? { name } : undefined);
      if (made !== undefined && !this.#missing.has(name)) this.#addAgain(made);
    }
  }

  /**
   * Leaves connections that start from an address which this computer has no more: they are gone, though nothing says so, and the server is told. False when that is all of
   * them.
   */
  leaveDeserted(): boolean {
    const interfaces = Object.values(networkInterfaces()).flatMap((all) => all ?? []);
    const addresses = new Set(interfaces.map(({ address }) => address));
    const isHere = ({ socket: { localAddress } }: Path): boolean =>
      localAddress === undefined || addresses.has(localAddress.replace(/^::ffff:/, ""));
    const all = [...this.#paths.values()];
    const left = all.filter(isHere);
    const [first] = left;
    if (first === undefined) return false;
    if (left.length === 1 && all.length > 1) this.#pump.alone(first.connection);
    else for (const path of all) if (!left.includes(path)) this.#pump.leave(path.connection);
    return true;
  }

  async #add(options: PathOptions): Promise<void> {
    const { name, reserved = false, signal } = options;
    const late = AbortSignal.timeout(ADD_MS); // others wait for their turn, whatever the caller's patience is
    const limit = signal === undefined ? late : AbortSignal.any([signal, late]);
    const cannot = `Cannot add a connection to the session at ${printAddress(this.#address)}`;
    if (!this.#owner.isDetachable())
      throw new FivedError("DETACH_IMPOSSIBLE", `${cannot}: the server keeps no session that could have another one`);
    if (this.#paths.has(name)) throw new FivedError("ABORTED", `${cannot}: there is one called "${name}"`);
    const dialled = await dial(this.#address, { ...this.#options, signal: limit, ...this.#way(options) });
    const { socket } = dialled;
    try {
      const ticket = this.#owner.ticket();
      if (ticket === undefined) throw new FivedError("SESSION_LOST", `${cannot}: it has none at the moment`);
      const { session } = this.#pump;
      const wish = { address: this.#address, ticket, mode: "add", received: session.positions.received } as const;
      const { attached, rest } = await attachOver(dialled, wish, limit);
      const { generation, secret, ...peer } = attached;
      // What the server has may be less by now than it has said elsewhere; what it has forgotten is what we have had.
      const { sent, received } = session.positions;
      const fits = attached.received <= sent && attached.base <= received;
      const isOver = session.ended !== undefined || session.connections === 0 || this.#owner.ticket() !== ticket;
      if (isOver || !fits) throw new FivedError("SESSION_LOST", `${cannot}: it has changed meanwhile`);
      await this.#owner.store({ sid: ticket.sid, generation, secret });
      if (session.ended !== undefined || session.connections === 0)
        throw new FivedError("SESSION_LOST", `${cannot}: it was lost meanwhile`);
      const connection = this.#pump.attach(socket, rest, { ...peer, stored: generation });
      this.#arrived(name, { connection, socket, made: options });
      if (reserved) this.#pump.carryAll(connection, false);
    } catch (error) {
      socket.destroy();
      throw error;
    }
  }

  /** How to get there: to the same server, as a name may stand for several, and only this one has the session. */
  #way({ transport = this.#options.transport, localAddress }: PathOptions): Pick<ConnectOptions, "transport"> {
    const reached = transport === undefined || transport === "tcp" ? this.#owner.reached() : undefined;
    if (reached === undefined) return transport === undefined ? {} : { transport };
    const endpoint = { ...reached, ...(localAddress === undefined ? {} : { localAddress }) };
    return { transport: { name: "tcp", open: (_, limit) => openTcp(endpoint, limit) } };
  }

  #arrived(name: string, path: Path): void {
    this.#paths.set(name, path);
    for (const [stream, wanted] of this.#wanted) {
      if (this.#pump.stream(stream) === undefined) this.#wanted.delete(stream);
      else if (wanted === name) this.#pump.pin(stream, path.connection);
    }
  }

  #addAgain(options: PathOptions): void {
    const { name, signal: _, ...again } = options;
    this.#missing.add(name);
    setTimeout(() => {
      this.#missing.delete(name);
      const { session } = this.#pump;
      if (session.ended !== undefined || this.#paths.has(name)) return;
      if (this.#owner.ticket() === undefined || session.connections === 0) this.#addAgain(options);
      else this.add({ name, ...again }).catch(() => this.#addAgain(options));
    }, ADD_AGAIN_MS).unref();
  }
}
