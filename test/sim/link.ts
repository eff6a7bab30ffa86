/**
 * A simulated connection: two directions, each with latency, bandwidth, a buffer at its sender and segments of random size. It can be cut
 * at a moment or at an octet; each end notices in its own time.
 * @module
 */
import type { Clock } from "./clock.ts";
import type { Random } from "./seed.ts";

/** What a connection is like. */
export interface LinkOptions {
  readonly latencyMs: number;
  readonly bytesPerMs: number;
  /** Octets that may wait at the sender: the room it reports. */
  readonly queueBytes: number;
  /** Segments are of random size up to this. */
  readonly segmentBytes: number;
}

/** A quick connection that is in nobody's way. */
export const QUICK: LinkOptions = { latencyMs: 1, bytesPerMs: 12_500, queueBytes: 262_144, segmentBytes: 65_536 };

/** Who sits at the ends of a direction. */
export interface Ends {
  /** The sender's buffer has so much room now. */
  room(bytes: number): void;
  arrived(segment: Uint8Array): void;
  /** Everything that was sent has arrived, and the sender has closed. */
  closed(): void;
}

/** One direction of a connection. */
export class Direction {
  /** Octets that have arrived. */
  arrived = 0;
  /** Octets that still may arrive: the connection is cut behind them. */
  cutAfter = Number.POSITIVE_INFINITY;
  /** What the way has become longer by; it must not become shorter, or octets overtake each other. */
  detourMs = 0;
  /** Called when {@link Direction.cutAfter} was reached. */
  onCut: () => void = () => {};
  /** Octets are sent into the void. */
  #severed = false;
  /** Octets under way are lost as well. */
  #lossy = false;
  readonly #clock: Clock;
  readonly #random: Random;
  readonly #options: LinkOptions;
  readonly #ends: Ends;
  #queue: Uint8Array[] = [];
  #backlog = 0;
  #sending = false;
  #closing = false;

  constructor(clock: Clock, random: Random, options: LinkOptions, ends: Ends) {
    this.#clock = clock;
    this.#random = random;
    this.#options = options;
    this.#ends = ends;
  }

  get #latencyMs(): number {
    return this.#options.latencyMs + this.detourMs;
  }

  /** Octets that wait at the sender. */
  get backlog(): number {
    return this.#backlog;
  }

  /** Takes a copy of octets, as a kernel does. */
  send(bytes: Uint8Array): void {
    this.#queue.push(new Uint8Array(bytes));
    this.#backlog += bytes.length;
    this.#drain();
  }

  /** Closes behind what was sent. */
  close(): void {
    this.#closing = true;
    this.#drain();
  }

  /** From now on nothing more goes in, and unless `late` what is under way is lost too. */
  sever(late: boolean): void {
    this.#severed = true;
    this.#lossy ||= !late;
  }

  #drain(): void {
    if (this.#sending) return;
    const segment = this.#segment();
    if (segment === undefined) {
      if (this.#closing && !this.#severed) this.#clock.after(this.#latencyMs, () => this.#end());
      this.#closing = false;
      return;
    }
    this.#sending = true;
    this.#clock.after(segment.length / this.#options.bytesPerMs, () => {
      this.#sending = false;
      this.#backlog -= segment.length;
      if (!this.#severed) this.#clock.after(this.#latencyMs, () => this.#arrive(segment));
      this.#ends.room(this.#options.queueBytes - this.#backlog);
      this.#drain();
    });
  }

  #arrive(segment: Uint8Array): void {
    if (this.#lossy) return;
    const left = this.cutAfter - this.arrived;
    const whole = segment.length < left;
    const part = whole ? segment : segment.subarray(0, left);
    this.arrived += part.length;
    if (part.length > 0) this.#ends.arrived(part);
    if (!whole) this.onCut();
  }

  #end(): void {
    if (!this.#lossy) this.#ends.closed();
  }

  #segment(): Uint8Array | undefined {
    const first = this.#queue[0];
    if (first === undefined) return undefined;
    const most = this.#options.segmentBytes;
    const size = Math.min(most, this.#random.chance(0.5) ? most : this.#random.between(1, most), this.#backlog);
    if (first.length === size) return this.#queue.shift();
    if (first.length > size) {
      this.#queue[0] = first.subarray(size);
      return first.subarray(0, size);
    }
    const segment = new Uint8Array(size);
    let at = 0;
    while (at < size) {
      const next = this.#queue[0];
      if (next === undefined) break;
      const part = next.subarray(0, size - at);
      segment.set(part, at);
      at += part.length;
      if (part.length === next.length) this.#queue.shift();
      else this.#queue[0] = next.subarray(part.length);
    }
    return segment;
  }
}
