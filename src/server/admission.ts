/**
 * Who may stand at the door: bounds on connections that have not yet shown what they are for (PROTOCOL §9.5, abuse case L02). Counts only
 * connections without an accepted request; the others are bounded by what they do.
 * @module
 */
import { BlockList, isIPv4, isIPv6 } from "node:net";

/** Bounds at the door, after OpenSSH's MaxStartups and PerSourceMaxStartups. */
export interface AdmissionLimits {
  /** From so many waiting connections on, some are dropped at random … */
  readonly start: number;
  /** … this share of them at first, in per cent, rising steadily … */
  readonly rate: number;
  /** … to all of them at so many. */
  readonly full: number;
  /** Waiting connections one source may have. */
  readonly perSource: number;
  /** Bits of an address that make a source. */
  readonly ipv4Prefix: number;
  readonly ipv6Prefix: number;
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

/** True for peers on this computer: loopback addresses and Unix sockets. */
export function isLoopback(address: string | undefined): boolean {
  return address === undefined || LOOPBACK.check(address, isIPv6(address) ? "ipv6" : "ipv4");
}

const LOOPBACK = new BlockList();
LOOPBACK.addSubnet("127.0.0.0", 8, "ipv4");
LOOPBACK.addAddress("::1", "ipv6");

/** One customer's addresses count as one source: usually an IPv4 address, or an IPv6 /56. */
function sourceOf(address: string | undefined, limits: AdmissionLimits): string {
  if (address === undefined) return "unix";
  const ipv4 = address.replace(/^::ffff:(?=\d+\.)/i, "");
  if (isIPv4(ipv4)) return network(ipv4.split(".").map(Number), 8, limits.ipv4Prefix);
  return network(groupsOf(address), 16, limits.ipv6Prefix);
}

/** The first `prefix` bits of an address given in groups of `width` bits. */
function network(groups: readonly number[], width: number, prefix: number): string {
  return groups
    .map((group, at) => {
      const bits = Math.min(Math.max(prefix - at * width, 0), width);
      return group & ~((1 << (width - bits)) - 1);
    })
    .join(".");
}

function groupsOf(address: string): number[] {
  const [plain = ""] = address.split("%");
  const [head = "", tail] = plain.split("::");
  const front = head === "" ? [] : head.split(":");
  const back = tail === undefined || tail === "" ? [] : tail.split(":");
  const zeros = tail === undefined ? 0 : 8 - front.length - back.length;
  return [...front, ...Array.from({ length: zeros }, () => "0"), ...back].map((group) => Number.parseInt(group, 16));
}
