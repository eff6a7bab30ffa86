/**
 * How much one of several connections may have under way (PROTOCOL §7.6): what it delivers in its round trip, and a short queue. What a connection is given beyond that
 * only waits in it, while the other one is idle and the peer waits for what is in between.
 *
 * The rate comes from what the peer acknowledges, by position and by naming what it holds. Knows no clock; times come in, in milliseconds.
 * @module
 */
import { ROUND_TRIP_MS_ASSUMED } from "./limits.ts";

/** Under way at first, and at least: two full frames. */
const UNDER_WAY_BYTES_MIN = 128 * 1_024;
/** The queue that a connection may have. */
const QUEUE_MS = 75;
/** What is delivered is measured over so long. */
const SPAN_MS = 50;
/** Part of a new measurement in the rate. */
const NEW_PART = 0.3;

/** One connection's share of the log. */
export class Carrier {
  /** Octets of the log that went out on it and are not known to have come. */
  underWay = 0;
  /** Octets a millisecond; undefined until it was busy for a while. */
  #rate: number | undefined;
  #delivered = 0;
  #since = Number.NEGATIVE_INFINITY;
  #leastRoundTripMs = Number.POSITIVE_INFINITY;

  /** Frames went out on it. */
  sent(octets: number, now: number): void {
    if (this.underWay === 0) this.#begin(now);
    this.underWay += octets;
  }

  /** They are known to have come. */
  arrived(octets: number, now: number): void {
    this.underWay = Math.max(0, this.underWay - octets);
    this.#delivered += octets;
    const ms = now - this.#since;
    if (ms < SPAN_MS) return;
    const rate = this.#delivered / ms;
    this.#rate = this.#rate === undefined ? rate : this.#rate + NEW_PART * (rate - this.#rate);
    this.#begin(now);
  }

  measured(roundTripMs: number): void {
    this.#leastRoundTripMs = Math.min(this.#leastRoundTripMs, roundTripMs);
  }

  /** It may take more. */
  get open(): boolean {
    return this.underWay < this.#underWayMax;
  }

  /** For how long what is under way keeps it busy, in milliseconds; of one that is not known, as if it were slow. */
  get busyMs(): number {
    return this.underWay / (this.#rate ?? UNDER_WAY_BYTES_MIN / ROUND_TRIP_MS_ASSUMED);
  }

  get #underWayMax(): number {
    if (this.#rate === undefined) return UNDER_WAY_BYTES_MIN;
    const roundTripMs = Number.isFinite(this.#leastRoundTripMs) ? this.#leastRoundTripMs : ROUND_TRIP_MS_ASSUMED;
    return Math.max(UNDER_WAY_BYTES_MIN, this.#rate * (roundTripMs + QUEUE_MS));
  }

  #begin(now: number): void {
    this.#delivered = 0;
    this.#since = now;
  }
}
