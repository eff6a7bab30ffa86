/**
 * What counts as one source of connections: usually one customer's addresses, an IPv4 address or an IPv6 /56 (PROTOCOL §9.5).
 * @module
 */
import { BlockList, isIPv4, isIPv6 } from "node:net";

/** Bits of an address that make a source. */
export interface SourcePrefixes {
  readonly ipv4Prefix: number;
  readonly ipv6Prefix: number;
}

/** True for peers on this computer: loopback addresses and Unix sockets. */
export function isLoopback(address: string | undefined): boolean {
  return address === undefined || LOOPBACK.check(address, isIPv6(address) ? "ipv6" : "ipv4");
}

const LOOPBACK = new BlockList();
LOOPBACK.addSubnet("127.0.0.0", 8, "ipv4");
LOOPBACK.addAddress("::1", "ipv6");

/** A name for the source an address belongs to; Unix sockets are one source together. */
export function sourceOf(address: string | undefined, prefixes: SourcePrefixes): string {
  if (address === undefined) return "unix";
  const ipv4 = address.replace(/^::ffff:(?=\d+\.)/i, "");
  if (isIPv4(ipv4)) return network(ipv4.split(".").map(Number), 8, prefixes.ipv4Prefix);
  return network(groupsOf(address), 16, prefixes.ipv6Prefix);
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
