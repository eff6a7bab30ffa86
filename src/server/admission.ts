/**
 * Who may stand at the door: bounds on connections that have not yet shown what they are for (PROTOCOL §9, abuse case L02). Counts only
 * connections without an accepted request; the others are bounded by what they do.
 * @module
 */
import { isIPv6 } from "node:net";

/** Bounds at the door, after OpenSSH's MaxStartups and PerSourceMaxStartups. */
export interface AdmissionLimits {
  /** From so many waiting connections on, some are dropped at random … */
  readonly startups: number;
  /** … this share of them at first, in percent, rising steadily … */
  readonly startupsDropPercent: number;
  /** … to all of them at so many. */
  readonly startupsMax: number;
  /** Waiting connections one source (an IPv4 address, an IPv6 /56) may have. */
  readonly perSource: number;
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
    const source = sourceOf(address);
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
    const { startups, startupsDropPercent, startupsMax } = this.#limits;
    if (this.#waiting < startups) return false;
    if (this.#waiting >= startupsMax) return true;
    const rise = ((100 - startupsDropPercent) * (this.#waiting - startups)) / (startupsMax - startups);
    return this.#random() * 100 < startupsDropPercent + rise;
  }
}

/** One customer's addresses count as one source: an IPv4 address, or an IPv6 /56. */
function sourceOf(address: string | undefined): string {
  if (address === undefined) return "unix";
  const mapped = /^::ffff:(\d+\.\d+\.\d+\.\d+)$/i.exec(address);
  if (mapped?.[1] !== undefined) return mapped[1];
  if (!isIPv6(address)) return address;
  return prefix56(address);
}

function prefix56(address: string): string {
  const [plain = ""] = address.split("%");
  const [head = "", tail] = plain.split("::");
  const front = head === "" ? [] : head.split(":");
  const back = tail === undefined || tail === "" ? [] : tail.split(":");
  const zeros = tail === undefined ? 0 : 8 - front.length - back.length;
  const groups = [...front, ...Array.from({ length: zeros }, () => "0"), ...back].map((group) =>
    Number.parseInt(group, 16),
  );
  const [a = 0, b = 0, c = 0, d = 0] = groups;
  return [a, b, c, d & 0xff00].map((group) => group.toString(16)).join(":");
}
