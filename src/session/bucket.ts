/**
 * A leaky bucket: so much at once, so much a second. Knows no clock; the time comes in.
 * @module
 */
import type { Rate } from "./limits.ts";

/** A capacity that refills steadily. */
export class Bucket {
  readonly #capacity: number;
  readonly #perMs: number;
  #level: number;
  #at: number;

  /** @param rate tokens at once and tokens per second; it starts full */
  constructor(rate: Rate, now: number) {
    this.#capacity = rate.capacity;
    this.#perMs = rate.perSecond / 1_000;
    this.#level = rate.capacity;
    this.#at = now;
  }

  /** Takes tokens if there are so many; false, and nothing taken, if not. */
  take(tokens: number, now: number): boolean {
    const level = this.level(now);
    if (level < tokens) return false;
    this.#level = level - tokens;
    this.#at = now;
    return true;
  }

  /** Tokens that are there now. */
  level(now: number): number {
    return Math.min(this.#capacity, this.#level + (now - this.#at) * this.#perMs);
  }
}
