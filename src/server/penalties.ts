/**
 * What sources get for sign-ins that failed, after OpenSSH's PerSourcePenalties (sshd_config(5); abuse case A04): each failure adds to a
 * source's penalty, penalties run off with time, and a source whose penalty has grown large enough is refused at the door until it has.
 * @module
 */
import { BlockList, isIP } from "node:net";
import { isLoopback, type SourcePrefixes, sourceOf } from "./source.ts";

/** How hard. */
export interface PenaltyLimits {
  /** For each failed sign-in. */
  readonly authFailureMs: number;
  /** A source is refused from so much on … */
  readonly minMs: number;
  /** … and never has more. */
  readonly maxMs: number;
  /** Sources that are remembered. */
  readonly sources: number;
  /** Networks, such as `10.0.0.0/8`, whose sources get none. */
  readonly exempt: readonly string[];
  readonly spareLoopback: boolean;
}

/** A source's penalty: it runs off at `until`; once large enough it refuses, until it has run off. */
interface Penalty {
  until: number;
  refuses: boolean;
}

/** The penalties of a server's sources. Times are by performance.now(), so that a clock that is set frees nobody. */
export class Penalties {
  #limits: PenaltyLimits & SourcePrefixes;
  #exempt: BlockList;
  /** In the order of the last failure. */
  readonly #bySource = new Map<string, Penalty>();

  constructor(limits: PenaltyLimits & SourcePrefixes) {
    this.#limits = limits;
    this.#exempt = blockListOf(limits.exempt);
  }

  /** Other limits from now on; penalties stay. */
  set limits(limits: PenaltyLimits & SourcePrefixes) {
    this.#limits = limits;
    this.#exempt = blockListOf(limits.exempt);
  }

  /** A sign-in from that address has failed. */
  failed(address: string | undefined, now = performance.now()): void {
    if (this.#isSpared(address)) return;
    const { authFailureMs, minMs, maxMs, sources } = this.#limits;
    const source = sourceOf(address, this.#limits);
    const before = this.#bySource.get(source);
    const until = Math.min(Math.max(before?.until ?? now, now) + authFailureMs, now + maxMs);
    const refused = before !== undefined && before.until > now && before.refuses;
    this.#bySource.delete(source);
    this.#bySource.set(source, { until, refuses: refused || until - now >= minMs });
    if (this.#bySource.size > sources) this.#forget(now);
  }

  /** Is the source of that address to be refused? */
  refuses(address: string | undefined, now = performance.now()): boolean {
    if (this.#isSpared(address)) return false;
    const source = sourceOf(address, this.#limits);
    const penalty = this.#bySource.get(source);
    if (penalty === undefined) return false;
    if (penalty.until <= now) this.#bySource.delete(source);
    return penalty.until > now && penalty.refuses;
  }

  /** Makes room: those that have run off, or else one whose penalty ends first of the longest unheard of. */
  #forget(now: number): void {
    let first: string | undefined;
    let looked = 0;
    for (const [source, { until }] of this.#bySource) {
      if (until <= now) this.#bySource.delete(source);
      else if (first === undefined || until < (this.#bySource.get(first)?.until ?? 0)) first = source;
      if (++looked >= LOOKED_AT_MAX) break;
    }
    if (this.#bySource.size > this.#limits.sources && first !== undefined) this.#bySource.delete(first);
  }

  #isSpared(address: string | undefined): boolean {
    if (this.#limits.spareLoopback && isLoopback(address)) return true;
    if (address === undefined || this.#limits.exempt.length === 0) return false;
    return this.#exempt.check(address, isIP(address) === 6 ? "ipv6" : "ipv4");
  }
}

/** Sources that are looked at to make room for one: a failure costs the same however many there are. */
const LOOKED_AT_MAX = 64;

function blockListOf(networks: readonly string[]): BlockList {
  const list = new BlockList();
  for (const network of networks) {
    const [address = "", prefix] = network.split("/");
    const family = isIP(address) === 6 ? "ipv6" : "ipv4";
    list.addSubnet(address, Number(prefix ?? (family === "ipv6" ? 128 : 32)), family);
  }
  return list;
}
