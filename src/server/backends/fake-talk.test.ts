/**
 * A conversation for the tests of back ends: what a service says to it is kept, and its bytes are a pair of streams in memory. No test of
 * its own: those of tcp.ts, exec.ts and module.ts are what it is for.
 * @module
 */
import { EventEmitter, once } from "node:events";
import { type Duplex, duplexPair } from "node:stream";
import type { Splice } from "../../io/index.ts";
import type { Identity } from "../auth/mechanism.ts";
import type { Log, LogFields } from "../log.ts";
import type { Caller, Detaching, Directory, Entrance, Passage, RefusalCode, Talk } from "../service.ts";

/** Somebody who has not signed in. */
export const STRANGER: Caller = {
  session: "s1",
  user: undefined,
  roles: [],
  identity: undefined,
  secure: true,
  peer: "192.0.2.1:4711",
};

/** Somebody who has signed in. */
export function identityOf(user: string, more: Partial<Identity> = {}): Identity {
  return { user, groups: [], roles: [], mechanism: "pubkey", secondFactor: false, at: Date.now(), ...more };
}

/** One conversation; `abort` is the caller's leaving. */
export class FakeTalk implements Talk {
  readonly caller: Caller;
  readonly host: string | undefined;
  readonly service: string;
  readonly args: readonly string[] = [];
  readonly unread = 0;
  readonly directory: Directory = {
    names: () => [],
    farNames: async () => [],
    find: () => undefined,
    enter: () => "unknown",
  };
  get entrance(): Entrance {
    throw new Error("a back end has nothing to do with AUTH");
  }
  get detaching(): Detaching {
    throw new Error("no back end detaches anything");
  }

  get passage(): Passage {
    throw new Error("a back end has nothing to do with VIA");
  }

  /** What was said to the caller, in order. */
  readonly said: string[] = [];
  /** What it was joined to. */
  spliced: Splice | undefined;
  /** The caller's end of what {@link FakeTalk.stream} gave. */
  readonly far: Duplex;
  readonly #near: Duplex;
  readonly #leaving = new AbortController();

  constructor(service = "wiki", caller: Partial<Caller> = {}, host?: string) {
    this.service = service;
    this.caller = { ...STRANGER, ...caller };
    this.host = host;
    [this.far, this.#near] = duplexPair();
  }

  get signal(): AbortSignal {
    return this.#leaving.signal;
  }

  /** The caller leaves. */
  abort(): void {
    this.#leaving.abort();
  }

  say(lines: string): boolean {
    this.said.push(lines);
    return true;
  }

  async taken(): Promise<void> {}

  accept(): void {
    this.said.push("+ SUCCESS");
  }

  refuse(code: RefusalCode, text: string): void {
    this.said.push(`- ${code} ${text}`);
  }

  splice(backEnd: Splice): void {
    this.spliced = backEnd;
  }

  stream(): Duplex {
    return this.#near;
  }

  /** What it was joined to; throws when it was not. */
  get backEnd(): Splice {
    if (this.spliced === undefined) throw new Error(`nothing was joined; said: ${this.said.join(", ")}`);
    return this.spliced;
  }
}

/** A log that keeps what it is told. */
export class RecordingLog implements Log {
  readonly events: { readonly message: string; readonly fields: LogFields }[] = [];
  readonly #told = new EventEmitter();

  /** Resolves when the message has been logged, or is. */
  async seen(message: string): Promise<LogFields> {
    for (;;) {
      const event = this.events.find((each) => each.message === message);
      if (event !== undefined) return event.fields;
      await once(this.#told, "event");
    }
  }

  debug = (fields: LogFields, message: string): void => this.#keep(fields, message);
  info = (fields: LogFields, message: string): void => this.#keep(fields, message);
  warn = (fields: LogFields, message: string): void => this.#keep(fields, message);
  error = (fields: LogFields, message: string): void => this.#keep(fields, message);

  #keep(fields: LogFields, message: string): void {
    this.events.push({ message, fields });
    this.#told.emit("event");
  }
}
