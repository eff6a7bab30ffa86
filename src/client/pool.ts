/**
 * Sessions to one server for whoever in this process asks with the same options. One is enough, unless the server allows a session fewer
 * streams than are wanted, or does not answer on it any more: then another is opened, and said so.
 * @module
 */
import { FivedError } from "../io/index.ts";
import { type Address, printAddress } from "./address.ts";
import type { ConnectOptions } from "./dial.ts";
import { openSession } from "./open-session.ts";
import type { ServiceOpener } from "./session.ts";

/** Opens sessions when they are needed; each ends with its last stream, unless the pool is one that keeps them. */
export class SessionPool implements AsyncDisposable {
  readonly #address: Address;
  readonly #options: ConnectOptions;
  readonly #emptied: (error: unknown) => void;
  readonly #lifetime: "ends-when-closed" | "ends-when-idle";
  #sessions: ServiceOpener[] = [];
  #opening: Promise<void> | undefined;
  #closed = false;

  /** @param emptied is told when the last session is over, and with what error */
  constructor(
    address: Address,
    options: ConnectOptions,
    emptied: (error: unknown) => void,
    lifetime: "ends-when-closed" | "ends-when-idle" = "ends-when-idle",
  ) {
    this.#address = address;
    this.#options = options;
    this.#emptied = emptied;
    this.#lifetime = lifetime;
  }

  /** Those that are open. */
  get sessions(): readonly ServiceOpener[] {
    return this.#sessions;
  }

  /** A session is being opened. */
  get isOpening(): boolean {
    return this.#opening !== undefined;
  }

  /**
   * Calls `open` with a session that takes one more stream; rejects as `connect` does.
   * @param options with which another session is opened, where one has to be: who asks may be another person at another terminal
   */
  async use(open: (session: ServiceOpener) => void, options: ConnectOptions = this.#options): Promise<void> {
    for (;;) {
      const ready = this.#sessions.find((session) => session.openable);
      if (ready !== undefined) return open(ready);
      const unheard = this.#sessions.find((session) => !session.isHeard && !session.isSilent);
      if (unheard !== undefined) await unheard.heard;
      else await this.#another(options);
    }
  }

  #another(options: ConnectOptions): Promise<void> {
    this.#opening ??= this.#open(options).finally(() => {
      this.#opening = undefined;
    });
    return this.#opening;
  }

  async #open(options: ConnectOptions): Promise<void> {
    const silent = this.#sessions.filter((session) => session.isSilent);
    if (this.#sessions.length > 0) {
      const why = silent.length === this.#sessions.length ? "is silent" : "takes no more streams";
      options.log?.(`the session at ${printAddress(this.#address)} ${why}: opening another`);
    }
    const session = await openSession(this.#address, options, this.#lifetime);
    if (this.#closed) {
      await session[Symbol.asyncDispose]();
      throw new FivedError("ABORTED", `Cannot use the session at ${printAddress(this.#address)}: it was closed`);
    }
    this.add(session);
    // Those with streams may come back, and are kept as long as the protocol lets them be.
    for (const old of silent) if (old.status.streams === 0) void old[Symbol.asyncDispose]();
  }

  /** One more is open. */
  add(session: ServiceOpener): void {
    this.#sessions.push(session);
    const gone = (error?: unknown): void => {
      this.#sessions = this.#sessions.filter((each) => each !== session);
      if (this.#sessions.length === 0) this.#emptied(error);
    };
    session.closed.then(() => gone(), gone);
  }

  /** Ends all sessions, whatever is open. */
  async [Symbol.asyncDispose](): Promise<void> {
    this.#closed = true;
    await Promise.all(this.#sessions.map((session) => session[Symbol.asyncDispose]()));
  }
}
