/**
 * Addresses in a configuration, as people write them: a port, `host:port`, `tcp://host:port` or `unix:/path`. Where a service's bytes go
 * and where the server listens are written alike. Resolves no names and opens nothing.
 * @module
 */
import { isIP, isIPv6 } from "node:net";
import { resolve } from "node:path";
import { canonicalName } from "../io/index.ts";

/** A transport address. Host names are canonical; IPv6 addresses have no brackets; paths are absolute. */
export type Endpoint =
  | { readonly type: "tcp"; readonly host: string; readonly port: number }
  | { readonly type: "unix"; readonly path: string };

/** sun_path holds 108 octets with the NUL on Linux; longer paths would be cut off without a word. */
const UNIX_PATH_BYTES_MAX = 107;
const PORT_MAX = 65_535;

/** How addresses are written, for messages. */
export const ENDPOINT_FORMS = "a port, host:port, tcp://host:port or unix:/path";

/**
 * Reads an address; undefined when it is none. A port alone is one of this computer (127.0.0.1), and a relative path starts at `folder`.
 * Port 0 is well-formed here: it means "any" where one listens, and nothing where one connects.
 */
export function parseEndpoint(text: string, folder: string): Endpoint | undefined {
  if (text.startsWith("unix:")) {
    const path = text.slice("unix:".length);
    if (path === "" || path.includes("\0")) return undefined;
    const absolute = resolve(folder, path);
    return Buffer.byteLength(absolute) > UNIX_PATH_BYTES_MAX ? undefined : { type: "unix", path: absolute };
  }
  const [, bracketed, plain = "127.0.0.1", digits] = TCP.exec(text) ?? [];
  const port = Number(digits ?? Number.NaN);
  if (!(port <= PORT_MAX)) return undefined;
  if (bracketed !== undefined)
    return isIPv6(bracketed) ? { type: "tcp", host: bracketed.toLowerCase(), port } : undefined;
  const host = isIP(plain) === 4 ? plain : canonicalName(plain);
  return host === undefined ? undefined : { type: "tcp", host, port };
}

/** The address as a URL, for logs and for people. */
export function endpointText(endpoint: Endpoint): string {
  if (endpoint.type === "unix") return `unix:${endpoint.path}`;
  const host = isIPv6(endpoint.host) ? `[${endpoint.host}]` : endpoint.host;
  return `tcp://${host}:${endpoint.port}`;
}

const TCP = /^(?:tcp:\/\/)?(?:(?:\[([^\s[\]]+)\]|([^\s:/@?#[\]]+)):)?(\d{1,5})$/;
