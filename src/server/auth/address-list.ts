/**
 * Lists of addresses as OpenSSH writes them behind `from=` and in the `source-address` of a certificate (ssh_config(5), PATTERNS): CIDR
 * ranges, addresses with `*` and `?`, and a `!` that rules out. Names of hosts never match: what reverse DNS says is the peer's word.
 * @module
 */
import { BlockList, type IPVersion, isIP, isIPv4, SocketAddress } from "node:net";

/** Says whether an address is on a list. */
export type AddressList = (address: string | undefined) => boolean;

/** Entries of one list: more is not a line a person keeps, and each is compared with each attempt. */
export const ENTRIES_MAX = 256;

/** What a list can be: usable, or not, and why, as the end of a sentence. */
export type ReadAddressList =
  | { readonly type: "list"; readonly includes: AddressList }
  | { readonly type: "unusable"; readonly why: string };

/**
 * Reads a list; `ranges` allows nothing but CIDR ranges and addresses, as in certificates. An entry that cannot be understood spoils the
 * list: it may have been the one that rules out.
 */
export function readAddressList(text: string, kinds: "ranges" | "patterns" = "patterns"): ReadAddressList {
  const entries = text.split(",");
  if (entries.length > ENTRIES_MAX) return { type: "unusable", why: `more than ${ENTRIES_MAX} addresses` };
  const tests: { readonly negated: boolean; readonly includes: (address: Address) => boolean }[] = [];
  for (const entry of entries) {
    const negated = kinds === "patterns" && entry.startsWith("!");
    const pattern = negated ? entry.slice(1) : entry;
    const includes = rangeOf(pattern) ?? (kinds === "patterns" ? wildcardOf(pattern, negated) : undefined);
    if (includes === undefined)
      return { type: "unusable", why: `${JSON.stringify(entry.slice(0, 64))} is no address, range or pattern` };
    tests.push({ negated, includes });
  }
  return {
    type: "list",
    includes(text) {
      const address = text === undefined ? undefined : addressOf(text);
      if (address === undefined) return false;
      const matching = tests.filter((each) => each.includes(address));
      return matching.length > 0 && !matching.some(({ negated }) => negated);
    },
  };
}

interface Address {
  readonly text: string;
  readonly family: IPVersion;
}

/** The one form of an address: without a zone, and IPv4 also where it came as IPv6. */
function addressOf(text: string): Address | undefined {
  const [bare = ""] = text.split("%");
  if (isIP(bare) === 0) return undefined;
  const family = isIPv4(bare) ? "ipv4" : "ipv6";
  const canonical = new SocketAddress({ address: bare, family }).address;
  const mapped = canonical.replace(/^::ffff:/, "");
  return isIPv4(mapped) ? { text: mapped, family: "ipv4" } : { text: canonical, family };
}

/** An address or a range; undefined for what is none, a range with bits set behind its prefix included: it says two things. */
function rangeOf(entry: string): ((address: Address) => boolean) | undefined {
  const [, text = "", prefix] = /^([0-9a-fA-F:.]{2,45})(?:\/(0|[1-9][0-9]{0,2}))?$/.exec(entry) ?? [];
  if (isIP(text) === 0) return undefined;
  const family = isIPv4(text) ? "ipv4" : "ipv6";
  const bits = family === "ipv4" ? 32 : 128;
  const length = prefix === undefined ? bits : Number(prefix);
  if (length > bits || !isPrefix(text, family, length)) return undefined;
  const mapped = family === "ipv6" && length >= MAPPED_BITS ? addressOf(text) : undefined;
  const range: Address & { readonly length: number } =
    mapped?.family === "ipv4" ? { ...mapped, length: length - MAPPED_BITS } : { text, family, length };
  const list = new BlockList();
  list.addSubnet(range.text, range.length, range.family);
  // A BlockList takes IPv4 addresses for mapped ones: ::/0 would include them, which says "IPv6" to whoever writes it.
  return (address) => address.family === range.family && list.check(address.text, address.family);
}

/** Bits before the IPv4 address in an IPv4-mapped one. */
const MAPPED_BITS = 96;

/** Whether an address is the first of its range. */
function isPrefix(text: string, family: IPVersion, length: number): boolean {
  const whole = groupsOf(text, family);
  const width = family === "ipv4" ? 8 : 16;
  return whole.every((group, at) => {
    const kept = Math.min(Math.max(length - at * width, 0), width);
    return (group & ((1 << (width - kept)) - 1)) === 0;
  });
}

/** The four numbers of an IPv4 address, the eight of an IPv6 one. */
function groupsOf(text: string, family: IPVersion): readonly number[] {
  if (family === "ipv4") return text.split(".").map(Number);
  // An embedded IPv4 address at the end stands for two groups.
  const plain = text.replace(/(\d+)\.(\d+)\.(\d+)\.(\d+)$/, (_, a, b, c, d) =>
    [Number(a) * 256 + Number(b), Number(c) * 256 + Number(d)].map((group) => group.toString(16)).join(":"),
  );
  const [head = "", tail] = plain.split("::");
  const numbers = (part: string) => (part === "" ? [] : part.split(":").map((group) => Number.parseInt(group, 16)));
  const before = numbers(head);
  const after = numbers(tail ?? "");
  return [...before, ...new Array<number>(8 - before.length - after.length).fill(0), ...after];
}

/** An address with `*` or `?`. A pattern for names never matches, and cannot be used to rule out: we know no names. */
function wildcardOf(pattern: string, negated: boolean): ((address: Address) => boolean) | undefined {
  const isForAddresses = /^[0-9.*?]+$/.test(pattern) || /^[0-9a-fA-F.*?]*:[0-9a-fA-F:.*?]*$/.test(pattern);
  if (isForAddresses && /[*?]/.test(pattern)) return ({ text }) => matches(pattern.toLowerCase(), text);
  const isName = /^[A-Za-z0-9._*?-]*[A-Za-z][A-Za-z0-9._*?-]*$/.test(pattern);
  return isName && !negated ? () => false : undefined;
}

/** Shell-like matching; goes back to the last star only, so that no pattern takes exponential time. */
function matches(pattern: string, text: string): boolean {
  let p = 0;
  let n = 0;
  let star = -1;
  let retry = 0;
  while (n < text.length) {
    if (pattern[p] === "*") {
      star = p++;
      retry = n;
    } else if (p < pattern.length && (pattern[p] === "?" || pattern[p] === text[n])) {
      p++;
      n++;
    } else if (star >= 0) {
      p = star + 1;
      n = ++retry;
    } else return false;
  }
  while (pattern[p] === "*") p++;
  return p === pattern.length;
}
