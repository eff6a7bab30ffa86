/**
 * The header of the PROXY protocol, version 2: who is at the other end of a connection that somebody else made for him
 * (https://www.haproxy.org/download/3.2/doc/proxy-protocol.txt). Written to back ends, read by theirs and by tests. Two of its types are
 * ours, from the range 0xE0 to 0xEF that the protocol leaves to applications: see {@link ProxyTlv}.
 *
 * Reading never believes a length, and gives up at the first octet that cannot be right. Whether the sender may say such things at all
 * is for the reader's firewall, and for the assertion's signature, to decide: the header itself proves nothing.
 * @module
 */

/** Types of the fields behind the addresses. 0xE0 and 0xE1 are fived's own. */
export const ProxyTlv = {
  alpn: 0x01,
  /** Virtual host that was asked, as UTF-8; absent for the default host. */
  authority: 0x02,
  crc32c: 0x03,
  noop: 0x04,
  /** Session and stream, the same as in the server's log. */
  uniqueId: 0x05,
  ssl: 0x20,
  netns: 0x30,
  /** A signed assertion (assertion.ts): who is calling, to be verified. */
  assertion: 0xe0,
  /** Name of the user, as UTF-8, not signed: for logs, and for back ends that nobody else can reach. */
  user: 0xe1,
} as const;

/** Types within the field `ssl`. */
const SslTlv = { version: 0x21, commonName: 0x22 } as const;

/** Bits of the field `ssl`. */
const SslFlag = { ssl: 0x01, certificateConnection: 0x02, certificateSession: 0x04 } as const;

/** An end of a connection. */
export interface ProxyAddress {
  /** IPv4 in dotted decimal, or IPv6 in its shortest form. */
  readonly address: string;
  readonly port: number;
}

/** What is known of the encryption between the caller and the proxy. */
export interface ProxySsl {
  /** As OpenSSL calls it: `TLSv1.3`. */
  readonly version: string | undefined;
  /** The caller has shown a certificate. */
  readonly certificate: boolean;
  /** That certificate was verified. */
  readonly verified: boolean;
  /** The common name in it. */
  readonly commonName: string | undefined;
}

/** Field of a type that this file has no name for. */
export interface ProxyField {
  readonly type: number;
  readonly value: Uint8Array;
}

/** What a header says. */
export type ProxyHeader =
  /** The proxy speaks for itself, as in a health check: there is no caller. */
  | { readonly type: "local" }
  | {
      readonly type: "proxy";
      /** The caller; undefined where he has no address, as over a Unix socket. */
      readonly source: ProxyAddress | undefined;
      /** Where he has connected to. */
      readonly destination: ProxyAddress | undefined;
      readonly authority: string | undefined;
      readonly uniqueId: Uint8Array | undefined;
      /** Undefined where the caller did not use TLS, or nothing is known of it. */
      readonly ssl: ProxySsl | undefined;
      /** A signed assertion; it says nothing before it is verified. */
      readonly assertion: string | undefined;
      /** Not signed. */
      readonly user: string | undefined;
      readonly others: readonly ProxyField[];
    };

/** What the first octets of a connection are. */
export type ProxyReading =
  /** `bytes` octets were the header; what is behind them is the caller's. */
  | { readonly type: "header"; readonly header: ProxyHeader; readonly bytes: number }
  /** So far it may be one; at least `bytes` octets are needed in all. */
  | { readonly type: "more"; readonly bytes: number }
  | { readonly type: "error"; readonly code: "PROXY_HEADER_BAD"; readonly reason: string };

/** Octets of the longest header: a length of 16 bits behind 16 octets. */
export const PROXY_HEADER_BYTES_MAX = 16 + 0xffff;
/** Octets of a unique identifier, as the protocol has it. */
const UNIQUE_ID_BYTES_MAX = 128;

const SIGNATURE = Uint8Array.of(0x0d, 0x0a, 0x0d, 0x0a, 0x00, 0x0d, 0x0a, 0x51, 0x55, 0x49, 0x54, 0x0a);
const FIXED_BYTES = 16;
const Command = { local: 0x20, proxy: 0x21 } as const;
const Family = { unspecified: 0x00, tcp4: 0x11, tcp6: 0x21 } as const;

/** Octets of the addresses of each family, transport aside. */
const ADDRESS_BYTES: ReadonlyMap<number, number> = new Map([
  [0x0, 0],
  [0x1, 12],
  [0x2, 36],
  [0x3, 216],
]);

/** A header as octets, with its checksum. Throws where a part does not fit: no header is better than a wrong one. */
export function encodeProxyV2(header: ProxyHeader): Uint8Array {
  if (header.type === "local") return assemble(Command.local, Family.unspecified, new Uint8Array(0), []);
  const { source, destination, authority, uniqueId, ssl, assertion, user, others } = header;
  const fields: ProxyField[] = [];
  const add = (type: number, value: Uint8Array | undefined): void => {
    if (value !== undefined) fields.push({ type, value });
  };
  if (uniqueId !== undefined && uniqueId.length > UNIQUE_ID_BYTES_MAX) throw tooLong("unique identifier");
  add(ProxyTlv.authority, utf8(authority));
  add(ProxyTlv.uniqueId, uniqueId);
  add(ProxyTlv.ssl, ssl && encodeSsl(ssl));
  add(ProxyTlv.assertion, utf8(assertion));
  add(ProxyTlv.user, utf8(user));
  fields.push(...others);
  const { family, addresses } = encodeAddresses(source, destination);
  return assemble(Command.proxy, family, addresses, fields);
}

/**
 * Reads a header from the first octets of a connection, however many there are.
 * @example
 * const reading = parseProxyV2(received);
 * if (reading.type === "header") serve(received.subarray(reading.bytes), reading.header);
 */
export function parseProxyV2(octets: Uint8Array): ProxyReading {
  for (const [at, octet] of SIGNATURE.entries()) {
    if (at === octets.length) return { type: "more", bytes: FIXED_BYTES };
    if (octets[at] !== octet) return bad("it does not begin with the signature");
  }
  const command = octets[12];
  if (command === undefined) return { type: "more", bytes: FIXED_BYTES };
  if (command !== Command.local && command !== Command.proxy)
    return bad(`the version and command 0x${hex(command)} are unknown`);
  const family = octets[13];
  if (family === undefined) return { type: "more", bytes: FIXED_BYTES };
  const addressBytes = ADDRESS_BYTES.get(family >> 4);
  if (addressBytes === undefined || (family & 0x0f) > 2)
    return bad(`the family and transport 0x${hex(family)} are unknown`);
  if (octets.length < FIXED_BYTES) return { type: "more", bytes: FIXED_BYTES };
  const view = new DataView(octets.buffer, octets.byteOffset, octets.byteLength);
  const bytes = FIXED_BYTES + view.getUint16(14);
  // Of a LOCAL header everything else is to be skipped, whatever it is.
  if (command === Command.proxy && bytes < FIXED_BYTES + addressBytes) return bad("it is too short for its addresses");
  if (octets.length < bytes) return { type: "more", bytes };
  const whole = octets.subarray(0, bytes);
  if (command === Command.local) return { type: "header", header: { type: "local" }, bytes };
  const fields = parseFields(whole, FIXED_BYTES + addressBytes);
  if (typeof fields === "string") return bad(fields);
  const header = headerOf(whole, family, fields);
  return typeof header === "string" ? bad(header) : { type: "header", header, bytes };
}

// ---- writing

function assemble(command: number, family: number, addresses: Uint8Array, fields: readonly ProxyField[]): Uint8Array {
  const checksummed = [{ type: ProxyTlv.crc32c, value: new Uint8Array(4) }, ...fields];
  const length = checksummed.reduce((bytes, { value }) => bytes + 3 + value.length, addresses.length);
  if (length > 0xffff) throw tooLong("header");
  const octets = new Uint8Array(FIXED_BYTES + length);
  const view = new DataView(octets.buffer);
  octets.set(SIGNATURE);
  octets[12] = command;
  octets[13] = family;
  view.setUint16(14, length);
  octets.set(addresses, FIXED_BYTES);
  const checksumAt = FIXED_BYTES + addresses.length + 3;
  writeFields(octets, FIXED_BYTES + addresses.length, checksummed);
  view.setUint32(checksumAt, crc32c(octets));
  return octets;
}

function writeFields(into: Uint8Array, from: number, fields: readonly ProxyField[]): void {
  let at = from;
  for (const { type, value } of fields) {
    into[at] = type;
    into[at + 1] = value.length >> 8;
    into[at + 2] = value.length & 0xff;
    into.set(value, at + 3);
    at += 3 + value.length;
  }
}

/** A family fits both addresses: where only one of them is IPv6 the other becomes an IPv4-mapped one. */
function encodeAddresses(source: ProxyAddress | undefined, destination: ProxyAddress | undefined) {
  const from = source && { octets: ipOctets(source.address), port: source.port };
  if (from === undefined) return { family: Family.unspecified, addresses: new Uint8Array(0) };
  // Where the caller connected to may be unknown: the unspecified address of the family says so.
  const to = destination
    ? { octets: ipOctets(destination.address), port: destination.port }
    : { octets: new Uint8Array(from.octets.length), port: 0 };
  const six = from.octets.length === 16 || to.octets.length === 16;
  const size = six ? 16 : 4;
  const addresses = new Uint8Array(2 * size + 4);
  addresses.set(six ? mapped(from.octets) : from.octets);
  addresses.set(six ? mapped(to.octets) : to.octets, size);
  const view = new DataView(addresses.buffer);
  view.setUint16(2 * size, from.port);
  view.setUint16(2 * size + 2, to.port);
  return { family: six ? Family.tcp6 : Family.tcp4, addresses };
}

function encodeSsl({ version, certificate, verified, commonName }: ProxySsl): Uint8Array {
  const fields: ProxyField[] = [];
  const versionOctets = utf8(version);
  const nameOctets = utf8(commonName);
  if (versionOctets !== undefined) fields.push({ type: SslTlv.version, value: versionOctets });
  if (nameOctets !== undefined) fields.push({ type: SslTlv.commonName, value: nameOctets });
  const octets = new Uint8Array(fields.reduce((bytes, { value }) => bytes + 3 + value.length, 5));
  if (octets.length > 0xffff) throw tooLong("ssl field");
  octets[0] = SslFlag.ssl | (certificate ? SslFlag.certificateConnection | SslFlag.certificateSession : 0);
  new DataView(octets.buffer).setUint32(1, certificate && verified ? 0 : 1);
  writeFields(octets, 5, fields);
  return octets;
}

function tooLong(what: string): Error {
  return new Error(`Cannot write a PROXY header: the ${what} is too long`);
}

// ---- reading

/** The fields, or what is wrong with them. */
function parseFields(octets: Uint8Array, from: number): readonly ProxyField[] | string {
  const fields: ProxyField[] = [];
  const seen = new Set<number>();
  for (let at = from; at < octets.length; ) {
    const type = octets[at];
    const high = octets[at + 1];
    const low = octets[at + 2];
    if (type === undefined || high === undefined || low === undefined) return "a field is cut off";
    const end = at + 3 + ((high << 8) | low);
    if (end > octets.length) return `the field 0x${hex(type)} is longer than the header`;
    // Of two that differ, one reader would believe the first and another the last.
    if (seen.has(type) && type !== ProxyTlv.noop) return `the field 0x${hex(type)} stands there twice`;
    seen.add(type);
    fields.push({ type, value: octets.subarray(at + 3, end) });
    at = end;
  }
  return fields;
}

function headerOf(whole: Uint8Array, family: number, fields: readonly ProxyField[]): ProxyHeader | string {
  let authority: string | undefined;
  let uniqueId: Uint8Array | undefined;
  let ssl: ProxySsl | undefined;
  let assertion: string | undefined;
  let user: string | undefined;
  const others: ProxyField[] = [];
  for (const { type, value } of fields) {
    switch (type) {
      case ProxyTlv.noop:
        break;
      case ProxyTlv.crc32c:
        if (!checksumFits(whole, value)) return "its checksum is wrong";
        break;
      case ProxyTlv.authority:
        authority = textOf(value);
        if (authority === undefined) return "the authority is no UTF-8";
        break;
      case ProxyTlv.uniqueId:
        if (value.length > UNIQUE_ID_BYTES_MAX) return "the unique identifier is too long";
        uniqueId = value.slice();
        break;
      case ProxyTlv.ssl: {
        const read = sslOf(value);
        if (typeof read === "string") return read;
        ssl = read.used ? read.ssl : undefined;
        break;
      }
      case ProxyTlv.assertion:
        assertion = textOf(value);
        if (assertion === undefined) return "the assertion is no UTF-8";
        break;
      case ProxyTlv.user:
        user = textOf(value);
        if (user === undefined) return "the user is no UTF-8";
        break;
      default:
        others.push({ type, value: value.slice() });
    }
  }
  const [source, destination] = addressesOf(whole, family);
  return { type: "proxy", source, destination, authority, uniqueId, ssl, assertion, user, others };
}

/** Only addresses of TCP: what else the protocol can say is nothing that has a name here. */
function addressesOf(whole: Uint8Array, family: number): readonly [ProxyAddress | undefined, ProxyAddress | undefined] {
  if (family !== Family.tcp4 && family !== Family.tcp6) return [undefined, undefined];
  const size = family === Family.tcp4 ? 4 : 16;
  const view = new DataView(whole.buffer, whole.byteOffset + FIXED_BYTES, 2 * size + 4);
  const at = (index: number): ProxyAddress => ({
    address: ipText(whole.subarray(FIXED_BYTES + index * size, FIXED_BYTES + (index + 1) * size)),
    port: view.getUint16(2 * size + 2 * index),
  });
  return [at(0), at(1)];
}

function sslOf(value: Uint8Array): { readonly used: boolean; readonly ssl: ProxySsl } | string {
  const flags = value[0];
  if (flags === undefined || value.length < 5) return "the ssl field is too short";
  const verify = new DataView(value.buffer, value.byteOffset, value.byteLength).getUint32(1);
  const fields = parseFields(value, 5);
  if (typeof fields === "string") return `in the ssl field ${fields}`;
  let version: string | undefined;
  let commonName: string | undefined;
  for (const field of fields) {
    if (field.type !== SslTlv.version && field.type !== SslTlv.commonName) continue;
    const text = textOf(field.value);
    if (text === undefined) return "a text of the ssl field is no UTF-8";
    if (field.type === SslTlv.version) version = text;
    else commonName = text;
  }
  const certificate = (flags & (SslFlag.certificateConnection | SslFlag.certificateSession)) !== 0;
  return {
    used: (flags & SslFlag.ssl) !== 0,
    ssl: { version, certificate, verified: certificate && verify === 0, commonName },
  };
}

function checksumFits(whole: Uint8Array, value: Uint8Array): boolean {
  if (value.length !== 4) return false;
  const said = new DataView(value.buffer, value.byteOffset, 4).getUint32(0);
  const blank = whole.slice();
  blank.fill(0, value.byteOffset - whole.byteOffset, value.byteOffset - whole.byteOffset + 4);
  return crc32c(blank) === said;
}

function bad(reason: string): ProxyReading {
  return { type: "error", code: "PROXY_HEADER_BAD", reason };
}

function hex(octet: number): string {
  return octet.toString(16).padStart(2, "0");
}

// ---- addresses, text, checksum

function ipOctets(address: string): Uint8Array {
  const [plain = ""] = address.split("%"); // the zone of a link-local address means nothing elsewhere
  const v4 = /^(?:::ffff:)?(\d{1,3})\.(\d{1,3})\.(\d{1,3})\.(\d{1,3})$/i.exec(plain);
  if (v4 !== null) {
    const octets = v4.slice(1).map(Number);
    if (octets.every((octet) => octet <= 255)) return Uint8Array.from(octets);
  }
  const canonical = URL.parse(`http://[${plain}]/`)?.hostname.slice(1, -1);
  if (canonical === undefined) throw new Error(`Invariant: "${address}" is no IP address`);
  const [before = "", after] = canonical.split("::");
  const left = groups(before);
  const right = after === undefined ? [] : groups(after);
  const octets = new Uint8Array(16);
  const view = new DataView(octets.buffer);
  for (const [index, group] of left.entries()) view.setUint16(2 * index, group);
  for (const [index, group] of right.entries()) view.setUint16(16 - 2 * (right.length - index), group);
  return octets;
}

function groups(text: string): readonly number[] {
  return text === "" ? [] : text.split(":").map((group) => Number.parseInt(group, 16));
}

function ipText(octets: Uint8Array): string {
  if (octets.length === 4) return octets.join(".");
  const view = new DataView(octets.buffer, octets.byteOffset, 16);
  const text = Array.from({ length: 8 }, (_, index) => view.getUint16(2 * index).toString(16)).join(":");
  return new URL(`http://[${text}]/`).hostname.slice(1, -1);
}

function mapped(octets: Uint8Array): Uint8Array {
  if (octets.length === 16) return octets;
  const six = new Uint8Array(16);
  // The unspecified address of one family is that of the other.
  if (octets.some((octet) => octet !== 0)) six.set([0xff, 0xff], 10);
  six.set(octets, 12);
  return six;
}

function utf8(text: string | undefined): Uint8Array | undefined {
  if (text === undefined) return undefined;
  const octets = new TextEncoder().encode(text);
  if (octets.length > 0xffff) throw tooLong("text");
  return octets;
}

function textOf(octets: Uint8Array): string | undefined {
  try {
    return new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(octets);
  } catch {
    return undefined;
  }
}

/** By octet: the checksum of RFC 3720 §12.1, polynomial 0x1EDC6F41, bits reversed. */
const CRC32C = Uint32Array.from({ length: 256 }, (_, octet) => {
  let crc = octet;
  for (let bit = 0; bit < 8; bit++) crc = (crc >>> 1) ^ ((crc & 1) === 0 ? 0 : 0x82f63b78);
  return crc >>> 0;
});

function crc32c(octets: Uint8Array): number {
  let crc = 0xffff_ffff;
  for (const octet of octets) crc = (crc >>> 8) ^ (CRC32C[(crc ^ octet) & 0xff] ?? 0);
  return ~crc >>> 0;
}
