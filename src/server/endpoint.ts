/**
 * Addresses in a configuration, as people write them: a port, `host:port`, `tcp://host:port` or `unix:/path`. Where a service's bytes go
 * and where the server listens are written alike. Resolves no names and opens nothing.
 * @module
 */
import { isIP, isIPv6 } from "node:net";
import { resolve } from "node:path";
import { canonicalHost, canonicalName } from "../io/index.ts";
import { isServiceName } from "../wire/index.ts";

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

/** A service behind another session server. */
export interface FarTarget {
  readonly type: "far";
  /** The server and who we are there, as {@link parseFarServer} writes it. */
  readonly server: string;
  /** Undefined for the one that is asked for here. */
  readonly service: string | undefined;
}

/** How services behind other session servers are written. */
export const FAR_FORM = "fived://[user@]host[:port]/service";

/** The port of a session server where none is written. */
const FAR_PORT = 1078;
/** As in PROTOCOL §1.3; who knows what stands behind the other server. */
const FAR_USER = /^[\x21-\x2e\x30-\x39\x3b-\x3f\x41-\x7e]{1,255}$/;

/** Reads {@link FAR_FORM}; `*` is the service of the same name. Undefined when it is none. */
export function parseFarTarget(text: string): FarTarget | undefined {
  const [, authority = "", service = ""] = /^fived:\/\/([^/]+)\/([^/]+)$/.exec(text) ?? [];
  const server = parseFarServer(authority);
  if (server === undefined || !(service === "*" || isServiceName(service))) return undefined;
  return { type: "far", server, service: service === "*" ? undefined : service };
}

/** A session server and who we are there, `user@host:port`, in its one form; undefined when it is none. */
export function parseFarServer(text: string): string | undefined {
  const [, user, hostText = "", digits] = /^(?:([^@]+)@)?(\[[^\]]+\]|[^:@[\]]+)(?::(\d{1,5}))?$/.exec(text) ?? [];
  const host = canonicalHost(hostText);
  const port = digits === undefined ? FAR_PORT : Number(digits);
  if (host === undefined || !(port >= 1 && port <= PORT_MAX)) return undefined;
  if (user !== undefined && !FAR_USER.test(user)) return undefined;
  const name = host.type === "ipv6" ? `[${host.text}]` : host.text;
  return `${user === undefined ? "" : `${user}@`}${name}${port === FAR_PORT ? "" : `:${port}`}`;
}

/** Who we are at a server, as {@link parseFarServer} writes it; undefined for nobody. */
export function farUser(server: string): string | undefined {
  const at = server.indexOf("@");
  return at < 0 ? undefined : server.slice(0, at);
}

const TCP = /^(?:tcp:\/\/)?(?:(?:\[([^\s[\]]+)\]|([^\s:/@?#[\]]+)):)?(\d{1,5})$/;
