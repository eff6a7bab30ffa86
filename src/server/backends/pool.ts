/**
 * The addresses of one service: which of them gets the next stream, and which are left alone because they failed. Opens nothing and knows
 * no clock: tcp.ts tells it what happened, and when.
 *
 * ```
 *            failed                    retry time reached, or a check is due
 *   up ----------------> down, retry at now + 100 ms .. 5 s ----> one attempt ---- succeeded ----> up
 *                         ^                                           |
 *                         +-------------- failed: twice as long ------+
 * ```
 * @module
 */
import type { Endpoint } from "../endpoint.ts";
import type { Balance } from "../schema.ts";

/** A failed address is left alone for this long … */
export const BACKOFF_MS_MIN = 100;
/** … and after each further failure twice as long, up to this: no storm on a back end that is starting, nor a long wait once it is up (R05). */
export const BACKOFF_MS_MAX = 5_000;

/** One address, as the streams to it have found it. */
export class Target {
  readonly endpoint: Endpoint;
  /** Streams that have it, and attempts to connect: until their sockets are closed. */
  streams = 0;
  /** Failures since it was last reached. */
  #failures = 0;
  #retryAt = 0;
  /** Attempts that began before the last failure say nothing new: a hundred at once that fail together are one failure. */
  #era = 0;

  constructor(endpoint: Endpoint) {
    this.endpoint = endpoint;
  }

  /** To be given back with {@link Target.failed}. */
  get era(): number {
    return this.#era;
  }

  /** Nobody knows better than that it can be reached. */
  get up(): boolean {
    return this.#failures === 0;
  }

  /** How long it is left alone after its last failure. */
  get backoffMs(): number {
    return Math.min(BACKOFF_MS_MIN * 2 ** Math.max(0, this.#failures - 1), BACKOFF_MS_MAX);
  }

  /** May an attempt be made? */
  mayBeUp(now: number): boolean {
    return this.#failures === 0 || now >= this.#retryAt;
  }

  /** An attempt is made. While it is down, that keeps others away as a failure would. */
  attempted(now: number): void {
    if (this.#failures > 0) this.#retryAt = now + this.backoffMs;
  }

  /** It was reached. True when it had been down. */
  succeeded(): boolean {
    const recovered = this.#failures > 0;
    this.#failures = 0;
    return recovered;
  }

  /** It could not be reached by an attempt that began in `era`. True when it had been up. */
  failed(era: number, now: number): boolean {
    if (era !== this.#era) return false;
    this.#era++;
    this.#failures++;
    this.#retryAt = now + this.backoffMs;
    return this.#failures === 1;
  }
}

/** The addresses of one service and how they share its streams. */
export class Pool {
  readonly targets: readonly Target[];
  readonly #balance: Balance;
  /** Where the search begins, so that equals take turns. */
  #turn = 0;

  constructor(endpoints: readonly Endpoint[], balance: Balance) {
    this.targets = endpoints.map((endpoint) => new Target(endpoint));
    this.#balance = balance;
  }

  /** The address for the next stream, or for its next attempt after those already tried; undefined when none is left that may be up. */
  next(now: number, tried: readonly Target[]): Target | undefined {
    const target = this.#choose(now, tried);
    target?.attempted(now);
    return target;
  }

  /** How many addresses may be up, of those not tried. */
  left(now: number, tried: readonly Target[]): number {
    return this.targets.filter((target) => target.mayBeUp(now) && !tried.includes(target)).length;
  }

  #choose(now: number, tried: readonly Target[]): Target | undefined {
    const { targets } = this;
    const start = this.#balance === "first" ? 0 : this.#turn++ % targets.length;
    let chosen: Target | undefined;
    for (let step = 0; step < targets.length; step++) {
      const target = targets[(start + step) % targets.length];
      if (target === undefined || !target.mayBeUp(now) || tried.includes(target)) continue;
      if (this.#balance !== "least-streams") return target;
      if (chosen === undefined || target.streams < chosen.streams) chosen = target;
    }
    return chosen;
  }
}
