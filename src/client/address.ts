/**
 * Session addresses as people write them, and their one canonical form (PROTOCOL §1.3; abuse case O05): whatever spelling was typed, the
 * same server has the same address, so that a pin made under one spelling is found under every other. Resolves and dials nothing.
 *
 *     [user@]host[:port][/service]        [user@]unix:/path
 *     fived://[user@]host[:port][/service][?host=virtual-host]
 * @module
 */
import { canonicalHost, FivedError, type Host } from "../io/index.ts";
import { isServiceName } from "../wire/index.ts";

/** The port where no other is written, after RFC 1078. */
export const DEFAULT_PORT = 1078;

/** Octets of an address as typed: a user, a name and a service of greatest length fit; what is longer is a mistake, and is not echoed whole. */
export const ADDRESS_LENGTH_MAX = 1_024;

/** Where a session server is, who wants a session there, and with which service; every field canonical. */
export type Address = TcpAddress | UnixAddress;

/** A session server behind a host and a port. */
export interface TcpAddress {
  readonly type: "tcp";
  readonly user: string | undefined;
  readonly host: Host;
  readonly port: number;
  readonly service: string | undefined;
  /** The name to ask and to trust the server for instead of `host`. */
  readonly virtualHost: string | undefined;
}

/** A session server behind a Unix socket. */
export interface UnixAddress {
  readonly type: "unix";
  readonly user: string | undefined;
  readonly path: string;
}

/**
 * Reads an address; throws `ADDRESS_BAD` with the value and the way out.
 * @example
 * parseAddress("alice@Example.ORG./wiki"); // { user: "alice", host: { type: "name", text: "example.org" }, port: 1078, service: "wiki", … }
 */
export function parseAddress(text: string): Address {
  if (text.length > ADDRESS_LENGTH_MAX) {
    throw bad(text, `it is ${text.length} characters long, the limit is ${ADDRESS_LENGTH_MAX}`);
  }
  const unix = /^(?:([^/]*?)@)?unix:(.*)$/s.exec(text);
  if (unix !== null) return unixAddress(text, unix[1], unix[2] ?? "");
  const scheme = /^([A-Za-z][A-Za-z0-9+.-]*):\/\//.exec(text);
  if (scheme === null) return shortAddress(text);
  if (scheme[1]?.toLowerCase() !== "fived") throw bad(text, `"${scheme[1]}:" is not a scheme of ours, write fived://`);
  return urlAddress(text, text.slice(scheme[0].length));
}

/** Prints an address so that {@link parseAddress} reads the same again: the short form, or a URL where only that can say it. */
export function printAddress(address: Address): string {
  if (address.type === "unix") return `${address.user === undefined ? "" : `${address.user}@`}unix:${address.path}`;
  const { user, service, virtualHost } = address;
  const tail = `${hostPort(address)}${service === undefined ? "" : `/${service}`}`;
  if (virtualHost === undefined) return user === undefined ? tail : `${user}@${tail}`;
  return `fived://${user === undefined ? "" : `${encodeURIComponent(user)}@`}${tail}?host=${virtualHost}`;
}

/** The name for HOST and SNI; undefined means the default host: IP literals, `localhost` and Unix sockets name none. */
export function hostLine(address: Address): string | undefined {
  if (address.type === "unix") return undefined;
  if (address.virtualHost !== undefined) return address.virtualHost;
  return isVirtualHost(address.host) ? address.host.text : undefined;
}

/** Printable and blank-free, since it becomes a word of a request line; a colon before "@" is a password, and no place for one. */
const USER = /^[^\s\p{C}/:]{1,255}$/u;

/** What sun_path holds on Linux without its final zero; the other systems hold less. */
const UNIX_PATH_BYTES_MAX = 107;

const WAY_OUT = "write [user@]host[:port][/service], fived://host/service?host=name or unix:/path";

function unixAddress(text: string, user: string | undefined, path: string): UnixAddress {
  if (!path.startsWith("/")) throw bad(text, "the path of a Unix socket begins with /, as in unix:/run/fived.sock");
  if (/\p{Cc}/u.test(path)) throw bad(text, "the path holds a control character");
  if (Buffer.byteLength(path) > UNIX_PATH_BYTES_MAX) {
    throw bad(text, `the path of a Unix socket is at most ${UNIX_PATH_BYTES_MAX} octets long`);
  }
  return { type: "unix", user: userIn(text, user), path };
}

function shortAddress(text: string): TcpAddress {
  const at = text.lastIndexOf("@");
  const slash = text.indexOf("/", at + 1);
  const authority = slash < 0 ? text.slice(at + 1) : text.slice(at + 1, slash);
  const service = slash < 0 ? "" : text.slice(slash + 1);
  const user = at < 0 ? undefined : text.slice(0, at);
  return tcpAddress(text, { user, authority, service, virtualHost: undefined });
}

function urlAddress(text: string, rest: string): TcpAddress {
  if (rest.includes("#")) throw bad(text, "what follows # belongs to an invitation: use fived join");
  const question = rest.indexOf("?");
  const location = question < 0 ? rest : rest.slice(0, question);
  const query = question < 0 ? [] : [...new URLSearchParams(rest.slice(question + 1))];
  const [first, ...others] = query;
  if (first !== undefined && (first[0] !== "host" || others.length > 0)) {
    throw bad(text, "the only parameter is ?host=name, once");
  }
  const slash = location.indexOf("/");
  const beforePath = slash < 0 ? location : location.slice(0, slash);
  const at = beforePath.lastIndexOf("@");
  if (at >= 0 && beforePath.slice(0, at).includes(":"))
    throw bad(text, "a password has no place in an address: leave it out");
  return tcpAddress(text, {
    user: at < 0 ? undefined : decoded(text, beforePath.slice(0, at)),
    authority: decoded(text, beforePath.slice(at + 1)),
    service: slash < 0 ? "" : decoded(text, location.slice(slash + 1)),
    virtualHost: first?.[1],
  });
}

interface Parts {
  readonly user: string | undefined;
  readonly authority: string;
  readonly service: string;
  readonly virtualHost: string | undefined;
}

function tcpAddress(text: string, parts: Parts): TcpAddress {
  const split = /^(\[[^\]]*\]|[^:]*)(?::(.*))?$/s.exec(parts.authority);
  if (split === null) throw bad(text, "it cannot be split into host and port");
  const [, hostText = "", portText] = split;
  if (portText?.includes(":")) throw bad(text, `an IPv6 address goes in brackets, as in [${parts.authority}]`);
  const host = canonicalHost(hostText);
  if (host === undefined) throw bad(text, `${quoted(hostText)} is neither a host name nor an IP address`);
  const port = portText === undefined ? DEFAULT_PORT : Number(/^[0-9]{1,5}$/.exec(portText)?.[0]);
  if (!(port >= 1 && port <= 65_535))
    throw bad(text, `the port ${quoted(portText ?? "")} is not a number from 1 to 65535`);
  if (parts.service !== "" && !isServiceName(parts.service)) {
    throw bad(text, `${quoted(parts.service)} is not a service name: 1 to 64 of A-Z a-z 0-9 . _ + -`);
  }
  return {
    type: "tcp",
    user: userIn(text, parts.user),
    host,
    port,
    service: parts.service === "" ? undefined : parts.service,
    virtualHost: parts.virtualHost === undefined ? undefined : virtualHostIn(text, parts.virtualHost),
  };
}

function virtualHostIn(text: string, written: string): string {
  const host = canonicalHost(written);
  if (host === undefined || !isVirtualHost(host))
    throw bad(text, `${quoted(written)} cannot be a virtual host: give a host name`);
  return host.text;
}

function isVirtualHost(host: Host): boolean {
  return host.type === "name" && host.text !== "localhost";
}

function userIn(text: string, user: string | undefined): string | undefined {
  if (user === undefined || USER.test(user)) return user;
  if (user.includes(":")) throw bad(text, "a password has no place in an address: leave it out");
  throw bad(text, `${quoted(user)} is not a user name`);
}

function hostPort({ host, port }: TcpAddress): string {
  const text = host.type === "ipv6" ? `[${host.text}]` : host.text;
  return port === DEFAULT_PORT ? text : `${text}:${port}`;
}

function decoded(text: string, part: string): string {
  try {
    return decodeURIComponent(part);
  } catch (cause) {
    throw bad(text, `${quoted(part)} holds a broken %-escape`, { cause });
  }
}

function bad(text: string, why: string, options?: ErrorOptions): FivedError {
  return new FivedError("ADDRESS_BAD", `Cannot use the address ${quoted(text)}: ${why}; ${WAY_OUT}`, options);
}

/** In quotes, control characters escaped, so that an address from a link cannot write on the terminal. */
function quoted(text: string): string {
  const shown = text.length > 200 ? `${text.slice(0, 200)}…` : text;
  return JSON.stringify(shown).replace(/[\p{C}]/gu, (character) => `\\u{${character.codePointAt(0)?.toString(16)}}`);
}
