/**
 * The one spelling of a host name, so that SNI, `HOST` and the configuration mean the same host whatever case, final dot or alphabet they
 * use (abuse cases T16, O05). Nothing is looked up.
 * @module
 */
import { isIP } from "node:net";
import { domainToASCII } from "node:url";

/** RFC 1035 §2.3.4, as text without the final dot. */
const NAME_CHARACTERS_MAX = 253;
// Underscores are no host names to RFC 952, but DNS has them and people use them. The last label is never a number: that is an address.
const LABEL = "[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?";
const NAME = new RegExp(`^(?:${LABEL}\\.)*(?!(?:\\d+|0x[0-9a-f]*)$)${LABEL}$`);

/** Lower case, A-labels, no final dot; undefined for what is no host name, IP addresses included. */
export function canonicalHost(name: string): string | undefined {
  // Only what a name may hold goes to domainToASCII: it reads a URL, and would stop at "/" or decode "%2e" without a word.
  if (name.length > NAME_CHARACTERS_MAX + 1 || !CHARACTERS.test(name)) return undefined;
  const withoutDot = name.endsWith(".") ? name.slice(0, -1) : name;
  // It would also turn 127.1 and 0x7f.1 into 127.0.0.1: to plain ASCII there is nothing to convert but the case.
  const ascii = ASCII.test(withoutDot) ? withoutDot.toLowerCase() : domainToASCII(withoutDot);
  return ascii.length <= NAME_CHARACTERS_MAX && NAME.test(ascii) ? ascii : undefined;
}

/** True for what names this computer rather than a host on it: an IP address, with or without brackets, and localhost. */
export function isDefaultHost(name: string): boolean {
  const bare = name.startsWith("[") && name.endsWith("]") ? name.slice(1, -1) : name;
  return isIP(bare) > 0 || canonicalHost(name) === "localhost";
}

const CHARACTERS = /^[A-Za-z0-9._\-\u0080-\u{10ffff}]*$/u;
const ASCII = /^[\x21-\x7e]*$/;
