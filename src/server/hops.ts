/**
 * The ways to other session servers that are in use: one for each server and user there, shared by all services behind it, and kept while
 * the configuration is read again, so that a reload costs no session.
 * @module
 */
import { FivedError } from "../io/index.ts";
import type { Log } from "./log.ts";
import type { FarServer, Hop, Upstream } from "./upstream.ts";

interface Kept {
  readonly far: FarServer;
  users: number;
}

/** Keeps them. */
export class Hops implements AsyncDisposable {
  readonly #upstream: Upstream | undefined;
  readonly #log: Log;
  readonly #kept = new Map<string, Kept>();

  constructor(upstream: Upstream | undefined, log: Log) {
    this.#upstream = upstream;
    this.#log = log;
  }

  /**
   * The way to a server, until it is given back: the last to do so has its sessions end with their streams. Throws CONFIGURATION_BAD where
   * there are no ways.
   */
  take(hop: Hop): { readonly far: FarServer } & Disposable {
    if (this.#upstream === undefined)
      throw new FivedError(
        "CONFIGURATION_BAD",
        `Cannot reach ${hop.server}: this server was started without a way there`,
      );
    const key = JSON.stringify(hop);
    const kept = this.#kept.get(key) ?? { far: this.#upstream.to(hop, this.#log), users: 0 };
    this.#kept.set(key, kept);
    kept.users++;
    let given = true;
    return {
      far: kept.far,
      [Symbol.dispose]: () => {
        if (!given) return;
        given = false;
        kept.users--;
        if (kept.users > 0) return;
        this.#kept.delete(key);
        kept.far.retire();
      },
    };
  }

  /** Ends all sessions, whatever is open. */
  async [Symbol.asyncDispose](): Promise<void> {
    await Promise.all([...this.#kept.values()].map(({ far }) => far[Symbol.asyncDispose]()));
  }
}
