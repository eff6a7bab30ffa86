/**
 * Sessions to one server for whoever in this process asks with the same options. One is enough, unless the server allows a session fewer
 * streams than are wanted: then another is opened, and said so.
 * @module
 */
import { type Address, printAddress } from "./address.ts";
import type { ConnectOptions } from "./dial.ts";
import { openSession, type ServiceOpener } from "./session.ts";

/** Opens sessions when they are needed; each ends with its last stream. */
export class SessionPool implements AsyncDisposable {
  readonly #address: Address;
  readonly #options: ConnectOptions;
  readonly #emptied: () => void;
  #sessions: ServiceOpener[] = [];
  #opening: Promise<void> | undefined;

  /** @param emptied is told when the last session is over */
  constructor(address: Address, options: ConnectOptions, emptied: () => void) {
    this.#address = address;
    this.#options = options;
    this.#emptied = emptied;
  }

  /** Calls `open` with a session that takes one more stream; rejects as `connect` does. */
  async use(open: (session: ServiceOpener) => void): Promise<void> {
    for (;;) {
      const ready = this.#sessions.find((session) => session.openable);
      if (ready !== undefined) return open(ready);
      const unheard = this.#sessions.find((session) => !session.isHeard);
      if (unheard !== undefined) await unheard.heard;
      else await this.#another();
    }
  }

  #another(): Promise<void> {
    this.#opening ??= this.#open().finally(() => {
      this.#opening = undefined;
    });
    return this.#opening;
  }

  async #open(): Promise<void> {
    if (this.#sessions.length > 0)
      this.#options.log?.(`the session at ${printAddress(this.#address)} takes no more streams: opening another`);
    const session = await openSession(this.#address, this.#options, "ends-when-idle");
    this.#sessions.push(session);
    const gone = (): void => {
      this.#sessions = this.#sessions.filter((each) => each !== session);
      if (this.#sessions.length === 0) this.#emptied();
    };
    session.closed.then(gone, gone);
  }

  /** Ends all sessions, whatever is open. */
  async [Symbol.asyncDispose](): Promise<void> {
    await Promise.all(this.#sessions.map((session) => session[Symbol.asyncDispose]()));
  }
}
