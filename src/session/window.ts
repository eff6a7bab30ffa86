/**
 * The log window: how much the peer may have under way (PROTOCOL §7.2, decision 25). Too little leaves the path empty; too much stands in
 * a queue somewhere, and everybody's small streams wait behind it.
 *
 * It begins by doubling as long as it is what holds the peer back. When a queue has been seen under load it is fitted from then on: to
 * what keeps the path full, and a short queue. Knows no clock; times come in, in milliseconds, and positions in octets.
 * @module
 */
import { PAYLOAD_BYTES_MAX } from "../wire/index.ts";
import { LOG_WINDOW_BYTES, NARROW_WINDOW_BYTES, QUEUE_MS, QUEUE_QUESTION_MS } from "./limits.ts";

/** A round trip under load, and what came meanwhile: so much was under way. */
interface Sample {
  readonly roundTripMs: number;
  readonly underWay: number;
}

/** The window doubles when half of it comes within this part of the shortest round trip. */
const GROWTH_PART = 0.8;
/** Of so many round trips under load the middle one counts: a loss makes one long, and the first may be from before the load was full. */
const SAMPLES = 3;
/** A window of which less than this part is under way is not what bounds it. */
const USED_PART = 1 / 3;
/** A queue may be longer by this than what a window is fitted to, or it would be fitted for ever. */
const TOLERANCE = 1.15;
/** A fitted window grows by this, while there is less than half of the queue that may be. */
const FITTED_GROWTH = 1.25;

/** One end's window for the log of the other. */
export class LogWindow {
  readonly #bytesMax: number;
  #bytes = LOG_WINDOW_BYTES;
  /** Position and time from which its use is measured. */
  #from = 0;
  #since: number;
  /** What the path takes when nothing waits on it. */
  #leastRoundTripMs = Number.POSITIVE_INFINITY;
  #fitted = false;
  #askAt: number;
  #samples: Sample[] = [];
  /** Window and round trip before it came down, until it is known whether that has helped. */
  #before: { readonly bytes: number; readonly roundTripMs: number } | undefined;

  /** @param bytesMax how far it may grow */
  constructor(bytesMax: number, now: number) {
    this.#bytesMax = bytesMax;
    this.#since = now;
    this.#askAt = now;
  }

  /** What the peer may have under way, octets. */
  get bytes(): number {
    return this.#bytes;
  }

  /** So much is acknowledged at once: a peer that is held back by a narrow window is let on frame by frame. */
  get acknowledgeBytes(): number {
    return this.#fitted ? Math.min(this.#bytes / 4, PAYLOAD_BYTES_MAX) : this.#bytes / 4;
  }

  /** Connections have changed, and with them the path. */
  newPath(): void {
    this.#leastRoundTripMs = Number.POSITIVE_INFINITY;
    this.#fitted = false;
    this.#before = undefined;
    this.#samples = [];
  }

  /** There are several paths, and none of them is all of it: their queues are the sender's to keep short. */
  several(): void {
    this.newPath();
    this.#bytes = Math.max(this.#bytes, LOG_WINDOW_BYTES);
  }

  /**
   * What has come is acknowledged. Half a window within one round trip: it is the window that holds the peer back. The shortest round trip
   * counts: what the window itself makes wait lengthens all others, and a window that grows for that reason only makes others wait.
   *
   * @param roundTripMs the last one that was measured
   */
  acknowledging(received: number, roundTripMs: number, now: number): void {
    const used = received - this.#from >= this.#bytes / 2;
    const inTime = now - this.#since < GROWTH_PART * Math.min(this.#leastRoundTripMs, roundTripMs);
    if (!used && inTime) return;
    if (used && inTime && !this.#fitted) this.#bytes = Math.min(this.#bytes * 2, this.#bytesMax);
    this.#from = received;
    this.#since = now;
  }

  /** Under load, it wants to know the round trip; told so, it takes that as asked for. */
  wantsRoundTrip(now: number): boolean {
    if (now < this.#askAt || this.#leastRoundTripMs === Number.POSITIVE_INFINITY) return false;
    this.#askAt = now + QUEUE_QUESTION_MS;
    return true;
  }

  /** A round trip was measured; `underWay` octets came meanwhile, or undefined if it was not asked for under load. */
  measured(roundTripMs: number, underWay: number | undefined): void {
    this.#leastRoundTripMs = Math.min(this.#leastRoundTripMs, roundTripMs);
    if (underWay === undefined) return;
    this.#samples.push({ roundTripMs, underWay });
    if (this.#samples.length < SAMPLES) return;
    const middle = this.#samples.sort((a, b) => a.roundTripMs - b.roundTripMs)[(SAMPLES - 1) / 2];
    this.#samples = [];
    if (middle !== undefined && middle.underWay >= this.#bytes * USED_PART) this.#fit(middle.roundTripMs);
  }

  #fit(roundTripMs: number): void {
    const queueMs = Math.max(this.#leastRoundTripMs / 2, QUEUE_MS);
    const wantedMs = this.#leastRoundTripMs + queueMs;
    const before = this.#before;
    this.#before = undefined;
    if (before !== undefined && isAnothers(roundTripMs, before, this.#bytes)) {
      this.#bytes = Math.max(this.#bytes, before.bytes);
      this.#leastRoundTripMs = Math.min(roundTripMs, before.roundTripMs);
      this.#fitted = false;
    } else if (roundTripMs > wantedMs * TOLERANCE) {
      this.#before = { bytes: this.#bytes, roundTripMs };
      this.#bytes = Math.max(Math.min(this.#bytes, NARROW_WINDOW_BYTES), this.#bytes * (wantedMs / roundTripMs));
      this.#fitted = true;
    } else if (this.#fitted && roundTripMs < wantedMs - queueMs / 2) {
      this.#bytes = Math.min(this.#bytes * FITTED_GROWTH, this.#bytesMax);
    }
    this.#bytes = Math.ceil(this.#bytes);
  }
}

/**
 * A queue that did not get shorter with the window is made by others, or it is none and the path has become longer. Yielding would only
 * lose our share of it: what is seen then counts for the path itself.
 */
function isAnothers(roundTripMs: number, before: { bytes: number; roundTripMs: number }, bytes: number): boolean {
  const expectedMs = before.roundTripMs * (bytes / before.bytes);
  return roundTripMs > (before.roundTripMs + expectedMs) / 2;
}
