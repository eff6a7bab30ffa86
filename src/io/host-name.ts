/**
 * The one spelling of a host, so that addresses, pins, SNI, `HOST` and the configuration mean the same host whatever case, final dot or
 * alphabet they use (PROTOCOL §1.3; abuse cases T16, O05). Nothing is looked up.
 * @module
 */
import { isIPv4, isIPv6, SocketAddress } from "node:net";
import { domainToASCII } from "node:url";

/** A canonical host: names in lower-case A-labels without a final dot, IP addresses as RFC 5952 prints them. */
export type Host =
  | { readonly type: "name"; readonly text: string }
  | { readonly type: "ipv4"; readonly text: string }
  | { readonly type: "ipv6"; readonly text: string };

/** The canonical form of a host, brackets around IPv6 optional; undefined when it is none. */
export function canonicalHost(text: string): Host | undefined {
  if (text.length > TEXT_CHARACTERS_MAX) return undefined;
  const bracketed = /^\[(.*)\]$/s.exec(text);
  if (bracketed !== null || text.includes(":")) return canonicalIPv6(bracketed?.[1] ?? text);
  // Only what a name may hold goes to domainToASCII: it reads a URL, and would stop at "/" or decode "%2e" without a word.
  if (!CHARACTERS.test(text)) return undefined;
  // It also turns the old spellings of IPv4 (127.1, 0x7f.1, 2130706433) into four numbers, as getaddrinfo would behind our back.
  const name = domainToASCII(text).replace(/\.$/, "");
  if (isIPv4(name)) return { type: "ipv4", text: name };
  if (name.length > NAME_CHARACTERS_MAX || !name.split(".").every((label) => LABEL.test(label))) return undefined;
  return { type: "name", text: name };
}

/** The canonical form of a host name; undefined for what is none, IP addresses in any spelling included. */
export function canonicalName(text: string): string | undefined {
  const host = canonicalHost(text);
  return host?.type === "name" ? host.text : undefined;
}

/** What an address may be long: what is longer is no name in any alphabet, and not worth the work of finding out. */
const TEXT_CHARACTERS_MAX = 1_024;

/** RFC 1035 §2.3.4, as text without the final dot. */
const NAME_CHARACTERS_MAX = 253;

/** Of names as people write them. */
const CHARACTERS = /^[A-Za-z0-9._\-\u0080-\u{10ffff}]+$/u;

/** A label of RFC 1123 §2.1, and the underscore that container networks use. A leading hyphen would be an option to some program. */
const LABEL = /^[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?$/;

/** An interface name (IFNAMSIZ) behind a link-local address. */
const ZONE = /^[A-Za-z0-9._-]{1,15}$/;

function canonicalIPv6(text: string): Host | undefined {
  const [address = "", zone, ...more] = text.split("%");
  if (!isIPv6(address) || more.length > 0 || (zone !== undefined && !ZONE.test(zone))) return undefined;
  const canonical = new SocketAddress({ address, family: "ipv6" }).address;
  const mapped = canonical.startsWith("::ffff:") ? canonical.slice("::ffff:".length) : "";
  // An IPv4-mapped address is dialled as IPv4, so it is that server, under that server's pin.
  if (isIPv4(mapped) && zone === undefined) return { type: "ipv4", text: mapped };
  return { type: "ipv6", text: zone === undefined ? canonical : `${canonical}%${zone}` };
}
