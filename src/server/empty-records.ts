/**
 * Finds TLS connections that bring records and no octets: KeyUpdate and empty records cost us keys and nobody gets anything for it, and
 * TLS tells a program of none of them (abuse case T12). What can be seen is how much came in, and how little came out.
 * @module
 */
import type { Socket } from "node:net";

/** How often is looked: a flood may cost a second of processor time, and no more. */
const INTERVAL_MS = 1_000;
/** A record of one octet has 23: whoever brings data, however little at a time, stays below this many for each octet. */
const OVERHEAD_MAX = 32;
/** Octets without data that nobody minds in one interval: two and a half thousand KeyUpdates, or most of four records under way. */
const SPARE_BYTES = 64 * 1_024;

/** Watches the TLS connections of a server. */
export class EmptyRecords implements Disposable {
  readonly #watched = new Set<Watched>();
  #timer: NodeJS.Timeout | undefined;

  /**
   * Watches a connection until it closes.
   * @param secured what comes out of TLS
   * @param raw what went into it
   * @param found is called, at most once, when it has brought too much of nothing
   */
  watch(secured: Socket, raw: Socket, found: () => void): void {
    const watched = { secured, raw, found, came: raw.bytesRead, meant: secured.bytesRead };
    this.#watched.add(watched);
    secured.once("close", () => this.#forget(watched));
    this.#timer ??= setInterval(() => this.#look(), INTERVAL_MS).unref();
  }

  [Symbol.dispose](): void {
    clearInterval(this.#timer);
    this.#timer = undefined;
    this.#watched.clear();
  }

  #look(): void {
    for (const watched of this.#watched) {
      const came = watched.raw.bytesRead;
      const meant = watched.secured.bytesRead;
      const nothing = came - watched.came - (meant - watched.meant) * OVERHEAD_MAX;
      watched.came = came;
      watched.meant = meant;
      if (nothing <= SPARE_BYTES) continue;
      this.#forget(watched);
      watched.found();
    }
  }

  #forget(watched: Watched): void {
    this.#watched.delete(watched);
    if (this.#watched.size === 0) this[Symbol.dispose]();
  }
}

interface Watched {
  readonly secured: Socket;
  readonly raw: Socket;
  readonly found: () => void;
  /** Octets in, and octets out, when it was last looked at. */
  came: number;
  meant: number;
}
