/**
 * Which names mean the default host (PROTOCOL §4.5). How names are spelt is `io/`'s business.
 * @module
 */
import { isIP } from "node:net";
import { canonicalName } from "../io/index.ts";

/** True for what names this computer rather than a host on it: an IP address, with or without brackets, and localhost. */
export function isDefaultHost(name: string): boolean {
  const bare = name.startsWith("[") && name.endsWith("]") ? name.slice(1, -1) : name;
  return isIP(bare) > 0 || canonicalName(name) === "localhost";
}
