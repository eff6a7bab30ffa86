/**
 * Who may stand at the door: bounds on connections that have not yet shown what they are for (PROTOCOL §9.5, abuse case L02). Counts only
 * connections without an accepted request; the others are bounded by what they do.
 * @module
 */
import { isLoopback, type SourcePrefixes, sourceOf } from "./source.ts";

/** Bounds at the door, after OpenSSH's MaxStartups and PerSourceMaxStartups. */
export interface AdmissionLimits extends SourcePrefixes {
  /** From so many waiting connections on, some are dropped at random … */
  readonly start: number;
  /** … this share of them at first, in per cent, rising steadily … */
  readonly rate: number;
  /** … to all of them at so many. */
  readonly full: number;
  /** Waiting connections one source may have. */
  readonly perSource: number;
  /** Connections from this computer are not counted. */
  readonly spareLoopback: boolean;
}

/** Counts the connections at the door. */
export class Admission {
  #limits: AdmissionLimits;
  readonly #random: () => number;
  #waiting = 0;
  readonly #bySource = new Map<string, number>();

  constructor(limits: AdmissionLimits, random: () => number = Math.random) {
    this.#limits = limits;
    this.#random = random;
  }

  /** Other bounds from now on. */
  set limits(limits: AdmissionLimits) {
    this.#limits = limits;
  }

  /**
   * Lets a connection in.
   * @param address the peer's IP address; undefined for a Unix socket, whose peers are bounded together
   * @returns undefined when it is one too many; otherwise to be called once, when the connection has shown what it is for or is gone
   */
  admit(address: string | undefined): (() => void) | undefined {
    if (this.#limits.spareLoopback && isLoopback(address)) return () => {};
    const source = sourceOf(address, this.#limits);
    const ofSource = this.#bySource.get(source) ?? 0;
    if (ofSource >= this.#limits.perSource || this.#unlucky()) return undefined;
    this.#waiting++;
    this.#bySource.set(source, ofSource + 1);
    let left = false;
    return () => {
      if (left) return;
      left = true;
      this.#waiting--;
      const remaining = (this.#bySource.get(source) ?? 1) - 1;
      if (remaining > 0) this.#bySource.set(source, remaining);
      else this.#bySource.delete(source);
    };
  }

  #unlucky(): boolean {
    const { start, rate, full } = this.#limits;
    if (this.#waiting < start) return false;
    if (this.#waiting >= full) return true;
    const rise = ((100 - rate) * (this.#waiting - start)) / (full - start);
    return this.#random() * 100 < rate + rise;
  }
}
