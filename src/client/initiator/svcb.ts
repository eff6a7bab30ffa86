/**
 * SVCB records (RFC 9460) of the names `_fived.HOST` and `_PORT._fived.HOST`: their octets, and what they mean to a client of ours. The library
 * that reads DNS messages leaves this type as octets. Asks nobody.
 * @module
 */
import { ALPN } from "../alpn.ts";

/** A record. */
export interface Svcb {
  /** 0 says that `target` is another name for the whole. */
  readonly priority: number;
  /** Canonical, without the final dot; empty for the name that was asked for. */
  readonly target: string;
  /** Undefined where the record says nothing of it. */
  readonly port: number | undefined;
  /** Addresses of the target, as far as the record knows them. */
  readonly hints: readonly string[];
  /** It is for us: it offers our protocol and demands nothing that we do not know. */
  readonly usable: boolean;
}

/** Parameters (RFC 9460, section 14.3.2). */
const Key = { mandatory: 0, alpn: 1, noDefaultAlpn: 2, port: 3, ipv4hint: 4, ech: 5, ipv6hint: 6 } as const;
/** Those that we obey wherever they are demanded. */
const OBEYED: ReadonlySet<number> = new Set([Key.alpn, Key.noDefaultAlpn, Key.port, Key.ipv4hint, Key.ipv6hint]);

/** Reads the data of a record; undefined for octets that are none. */
export function readSvcb(octets: Uint8Array): Svcb | undefined {
  const data = Buffer.from(octets.buffer, octets.byteOffset, octets.length);
  if (data.length < 3) return undefined;
  const name = readName(data, 2);
  if (name === undefined) return undefined;
  const parameters = readParameters(data, name.end);
  if (parameters === undefined) return undefined;
  const port = parameters.get(Key.port);
  if (port !== undefined && port.length !== 2) return undefined;
  const protocols = readProtocols(parameters.get(Key.alpn));
  const hints = readHints(parameters);
  const demanded = parameters.get(Key.mandatory);
  if (protocols === undefined || hints === undefined || (demanded?.length ?? 0) % 2 !== 0) return undefined;
  // A scheme's own protocol is on offer unless the record says that it is not.
  const isOffered = protocols.includes(ALPN) || !parameters.has(Key.noDefaultAlpn);
  return {
    priority: data.readUInt16BE(0),
    target: name.text,
    port: port?.readUInt16BE(0),
    hints,
    usable: isOffered && numbersIn(demanded).every((key) => OBEYED.has(key)),
  };
}

/** A name without compression, which is not allowed here (section 2.2). */
function readName(data: Buffer, start: number): { readonly text: string; readonly end: number } | undefined {
  const labels: string[] = [];
  for (let at = start; at < data.length; ) {
    const length = data[at] ?? 0;
    if (length === 0) return { text: labels.join(".").toLowerCase(), end: at + 1 };
    const label = data.toString("latin1", at + 1, at + 1 + length);
    if (length > 63 || !/^[A-Za-z0-9_-]+$/.test(label) || label.length !== length) return undefined;
    labels.push(label);
    at += 1 + length;
  }
  return undefined;
}

/** Keys in ascending order, each once (section 2.2). */
function readParameters(data: Buffer, start: number): ReadonlyMap<number, Buffer> | undefined {
  const parameters = new Map<number, Buffer>();
  let last = -1;
  for (let at = start; at < data.length; ) {
    if (at + 4 > data.length) return undefined;
    const key = data.readUInt16BE(at);
    const end = at + 4 + data.readUInt16BE(at + 2);
    if (key <= last || end > data.length) return undefined;
    parameters.set(key, data.subarray(at + 4, end));
    last = key;
    at = end;
  }
  return parameters;
}

function readProtocols(value: Buffer | undefined): readonly string[] | undefined {
  const protocols: string[] = [];
  if (value === undefined) return protocols;
  for (let at = 0; at < value.length; ) {
    const end = at + 1 + (value[at] ?? 0);
    if (end === at + 1 || end > value.length) return undefined;
    protocols.push(value.toString("latin1", at + 1, end));
    at = end;
  }
  return protocols;
}

function readHints(parameters: ReadonlyMap<number, Buffer>): readonly string[] | undefined {
  const four = parameters.get(Key.ipv4hint) ?? Buffer.alloc(0);
  const six = parameters.get(Key.ipv6hint) ?? Buffer.alloc(0);
  if (four.length % 4 !== 0 || six.length % 16 !== 0) return undefined;
  const hints: string[] = [];
  for (let at = 0; at < six.length; at += 16) {
    const groups = numbersIn(six.subarray(at, at + 16)).map((group) => group.toString(16));
    hints.push(groups.join(":"));
  }
  for (let at = 0; at < four.length; at += 4) hints.push([...four.subarray(at, at + 4)].join("."));
  return hints;
}

function numbersIn(value: Buffer | undefined): readonly number[] {
  if (value === undefined) return [];
  return Array.from({ length: value.length >> 1 }, (_, index) => value.readUInt16BE(2 * index));
}
