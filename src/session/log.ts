/**
 * Our log: every sequenced frame we have said has its place here, from position 0 on, until the peer has acknowledged it (PROTOCOL §7).
 * What was on a lost connection is said again on another, octet for octet. Knows nothing of sockets: it counts octets.
 *
 * Invariant: `acknowledged <= end <= limit` of the peer at the time of appending; entries cover acknowledged..end without a hole while
 * the log retains, and none are kept while it does not (one connection, no DETACHABLE: a loss ends the session anyway).
 * @module
 */
import type { Range } from "../wire/index.ts";

/** A frame in the log. */
export interface Entry {
  readonly seq: number;
  readonly frame: Uint8Array;
  /** Memory that was lent to us, in which the frame lies; it is released when the entry goes. */
  readonly lent: Uint8Array | undefined;
  /** The connection it last went out on; undefined while it waits to go (again). */
  connection: number | undefined;
  /** The peer has it, out of order: it need not go again. */
  held: boolean;
}

/** What we have said and the peer has not yet confirmed. */
export class Log {
  /** From here on everything is kept; infinite while nothing is. */
  #retainFrom: number;
  #end = 0;
  #acknowledged = 0;
  #entries: Entry[] = [];
  /** Index of the oldest entry: trimming moves it, and the array is cut now and then. */
  #first = 0;
  /** Entries that wait to go out again, in log order, from `#againAt` on. */
  #again: Entry[] = [];
  #againAt = 0;

  /** @param from position where it begins: another process has said what is before, and the peer has it */
  constructor(retain: boolean, from = 0) {
    this.#retainFrom = retain ? from : Number.POSITIVE_INFINITY;
    this.#end = from;
    this.#acknowledged = from;
  }

  /** What is said from now on is kept until it is confirmed. */
  retain(): void {
    this.#retainFrom = Math.min(this.#retainFrom, this.#end);
  }

  /** Nothing that the peer has not confirmed is missing: another connection could go on where this one stops. */
  get whole(): boolean {
    return this.#acknowledged >= this.#retainFrom;
  }

  /** True when a frame ends at this position, or would: what a peer may say it has received. Old news are taken for true (D09). */
  isBoundary(position: number): boolean {
    if (position <= this.#acknowledged || position === this.#end) return true;
    let low = this.#first;
    let high = this.#entries.length;
    while (low < high) {
      const middle = (low + high) >>> 1;
      if ((this.#entries[middle]?.seq ?? 0) < position) low = middle + 1;
      else high = middle;
    }
    return this.#entries[low]?.seq === position;
  }

  /** Position behind the last frame said. */
  get end(): number {
    return this.#end;
  }

  /** What the peer has confirmed. */
  get acknowledged(): number {
    return this.#acknowledged;
  }

  /** Octets said and not confirmed. */
  get unacknowledged(): number {
    return this.#end - this.#acknowledged;
  }

  /** Gives a frame its place. Its header already says `seq` = {@link Log.end}. */
  append(frame: Uint8Array, lent: Uint8Array | undefined, connection: number): Entry {
    const entry: Entry = { seq: this.#end, frame, lent, connection, held: false };
    this.#end += frame.length;
    if (entry.seq >= this.#retainFrom) this.#entries.push(entry);
    return entry;
  }

  /**
   * Forgets what the peer has confirmed.
   * @param release is told of each entry that goes
   * @returns false when the peer confirms what was never said
   */
  acknowledge(position: number, release: (entry: Entry) => void): boolean {
    if (position > this.#end) return false;
    if (position <= this.#acknowledged) return true; // an older acknowledgement overtaken on another connection (D09)
    this.#acknowledged = position;
    for (let entry = this.#entries[this.#first]; entry !== undefined; entry = this.#entries[this.#first]) {
      if (entry.seq + entry.frame.length > position) break;
      release(entry);
      this.#first++;
    }
    // What is forgotten must not be kept alive: at most half of the array is, so each entry moves once.
    if (this.#first > 0 && this.#first * 2 >= this.#entries.length) {
      this.#entries = this.#entries.slice(this.#first);
      this.#first = 0;
    }
    return true;
  }

  /**
   * The peer names what it holds out of order, in ascending ranges.
   * @param arrived is told of each entry that is named for the first time
   */
  hold(ranges: readonly Range[], arrived: (entry: Entry) => void = () => {}): void {
    let at = this.#first;
    for (const { start, end } of ranges) {
      for (let entry = this.#entries[at]; entry !== undefined && entry.seq < end; entry = this.#entries[++at]) {
        if (entry.held || entry.seq < start || entry.seq + entry.frame.length > end) continue;
        entry.held = true;
        arrived(entry);
      }
    }
  }

  /** Frames kept. */
  get frames(): number {
    return this.#entries.length - this.#first;
  }

  /** The connection that carries the oldest frame not yet confirmed: it is the one to suspect when nothing is confirmed. */
  get oldestOn(): number | undefined {
    return this.#entries[this.#first]?.connection;
  }

  /** What went out on this connection and is not confirmed has to go again. */
  lost(connection: number): void {
    for (let at = this.#first; at < this.#entries.length; at++) {
      const entry = this.#entries[at];
      if (entry?.connection === connection) entry.connection = undefined;
    }
    this.#again = this.#entries.slice(this.#first).filter((entry) => entry.connection === undefined && !entry.held);
    this.#againAt = 0;
  }

  /**
   * The peer has lost all that it had not confirmed, also what it held out of order: all of it goes again.
   * @returns the frames, in log order
   */
  recall(): readonly Uint8Array[] {
    this.#again = this.#entries.slice(this.#first);
    this.#againAt = 0;
    for (const entry of this.#again) {
      entry.connection = undefined;
      entry.held = false;
    }
    return this.#again.map(({ frame }) => frame);
  }

  /** The oldest frame that has to go again, if any; it counts as sent on that connection. */
  resend(connection: number): Entry | undefined {
    while (this.#againAt < this.#again.length) {
      const entry = this.#again[this.#againAt++];
      // One that was confirmed meanwhile was released: its memory may hold something else by now.
      if (entry === undefined || entry.held || entry.seq + entry.frame.length <= this.#acknowledged) continue;
      entry.connection = connection;
      return entry;
    }
    this.#again = [];
    this.#againAt = 0;
    return undefined;
  }

  /** True while something waits to go again. */
  get replaying(): boolean {
    return this.#againAt < this.#again.length;
  }

  /** Forgets everything, releasing what was lent: the session is over. */
  clear(release: (entry: Entry) => void): void {
    for (let at = this.#first; at < this.#entries.length; at++) {
      const entry = this.#entries[at];
      if (entry !== undefined) release(entry);
    }
    this.#entries = [];
    this.#first = 0;
    this.#again = [];
    this.#againAt = 0;
  }
}
