/**
 * Small frames cost as much to handle as large ones and carry little: a peer that sends ten million octets one by one is within its
 * rights, but not at the expense of others. While several sessions are active, each may have so many small frames a second; one that is
 * alone may have what the processor gives (PROTOCOL §9.5; abuse case F07).
 * @module
 */

/** Others count as active this long after their last octets. */
const ACTIVE_MS = 100;
/** Nobody is held up longer than this at a time: by then the others may be gone. */
const PAUSE_MS_MAX = 100;

/** What one session has used. */
export interface Account {
  /** Frames it may still have; negative for what it has had too many. */
  left: number;
  /** When it was last charged. */
  at: number;
}

/** Shares small frames among the sessions of one server. */
export class FrameBudget {
  readonly #perSecond: number;
  #latest: Account | undefined;
  /** The account that was charged last before the latest one. */
  #other: Account | undefined;

  constructor(perSecond: number) {
    this.#perSecond = perSecond;
  }

  /** An account with a second's worth of frames. */
  open(now: number): Account {
    return { left: this.#perSecond, at: now };
  }

  /**
   * Charges what has just been handled, also when it was no small frame at all: that too is a sign of activity.
   * @returns milliseconds for which this session should not be read, 0 as a rule
   */
  charge(account: Account, smallFrames: number, now: number): number {
    account.left =
      Math.min(this.#perSecond, account.left + ((now - account.at) * this.#perSecond) / 1_000) - smallFrames;
    account.at = now;
    if (this.#latest !== account) this.#other = this.#latest;
    this.#latest = account;
    if (account.left >= 0) return 0;
    const alone = this.#other === undefined || now - this.#other.at > ACTIVE_MS;
    if (alone) account.left = 0; // nobody was hurt: nothing is owed
    return alone ? 0 : Math.min(PAUSE_MS_MAX, (-account.left / this.#perSecond) * 1_000);
  }
}
