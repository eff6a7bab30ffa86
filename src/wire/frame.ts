/**
 * Frames: the 24-octet header and what each type carries (PROTOCOL §6). Bytes to values and back, nothing else: positions, credit and
 * order get their meaning in `session/`.
 *
 * ```
 *  0                   1                   2                   3
 * +---------------+---------------+-------------------------------+
 * |     type      |     flags     |        payload length         |
 * +---------------+---------------+-------------------------------+
 * |                            stream                             |
 * +---------------------------------------------------------------+
 * |  seq: position in the sender's log, or what it has received   |
 * |                           (64 bits)                           |
 * +---------------------------------------------------------------+
 * |  arg: offset, credit, code … by type                (64 bits) |
 * +---------------------------------------------------------------+
 * ```
 * @module
 */

/** Octets of a frame's header. */
export const HEADER_BYTES = 24;
/** Largest payload our ends accept and advertise: header and payload fill four whole TLS records (PROTOCOL §6.4). */
export const PAYLOAD_BYTES_MAX = 65_512;
/** Largest payload anybody must accept, used until the peer's SETTINGS were heard: header and payload fill one TLS record. */
export const PAYLOAD_BYTES_MIN = 16_360;
/** A request line travels whole in its OPEN, so that no request can be spread over frames (CONTINUATION floods). */
export const REQUEST_BYTES_MAX = 1_024;
/** Human-readable reasons are for logs: longer ones are an attack on them. */
const REASON_BYTES_MAX = 255;
/** SETTINGS entries in one frame; six are defined. */
const SETTINGS_MAX = 16;
/** Ranges in one ACK. */
export const HELD_RANGES_MAX = 16;

/** Type octets, PROTOCOL §6.2; add, never reuse. Bit 7: an unknown one ends the connection. Bit 6: has a place in the log. */
export const FrameType = {
  ack: 0x81,
  ping: 0x82,
  closeConnection: 0x83,
  ticketStored: 0x84,
  pad: 0x05,
  pin: 0x06,
  carry: 0x07,
  alone: 0x08,
  data: 0xc0,
  open: 0xc1,
  reset: 0xc2,
  credit: 0xc3,
  goaway: 0xc4,
  settings: 0xc5,
  end: 0xc6,
} as const;

const CRITICAL = 0x80;
const SEQUENCED = 0x40;
const FLAG_FIN = 1;
const FLAG_REPLY = 1;
const FLAG_HERE = 1;
const FLAG_ALL = 1;

/** Codes of RESET, CLOSE_CONN, GOAWAY and END, PROTOCOL §6.5; add, never reuse. */
export const Code = {
  NO_ERROR: 0,
  PROTOCOL: 1,
  INTERNAL: 2,
  FLOW_CONTROL: 3,
  STREAM_STATE: 4,
  FRAME_SIZE: 5,
  REFUSED: 6,
  CANCEL: 7,
  CALM: 8,
  UNSUPPORTED: 9,
  SUPERSEDED: 10,
  TIMEOUT: 11,
  SEQ: 12,
  UNAVAILABLE: 13,
  DENIED: 14,
} as const;
/** The name of a {@link Code}, as messages and docs/errors.md spell it. */
export type CodeName = keyof typeof Code;

/** The name of a code's number; unknown numbers read as INTERNAL, as PROTOCOL §6.5 asks. */
export function codeName(code: number): CodeName {
  for (const [name, value] of Object.entries(Code)) if (value === code && isCodeName(name)) return name;
  return "INTERNAL";
}

function isCodeName(name: string): name is CodeName {
  return name in Code;
}

/** SETTINGS identifiers, PROTOCOL §6.4; unknown ones are ignored. */
export const Setting = {
  payloadBytesMax: 1,
  streamsMax: 2,
  initialCredit: 3,
  logWindow: 4,
  connectionsMax: 5,
  idleSeconds: 6,
} as const;

/** A frame as a value. `size` is header and payload: the room a sequenced frame takes in the log. */
export type Frame = UnsequencedFrame | SequencedFrame;

/** A part of a log: from `start` to before `end`. */
export interface Range {
  readonly start: number;
  readonly end: number;
}

/** A frame about one connection: `received` is what its sender has received contiguously of our log, so each of them acknowledges. */
export type UnsequencedFrame =
  | { readonly type: "ack"; readonly received: number; readonly limit: number; readonly held: readonly Range[] }
  | { readonly type: "ping"; readonly received: number; readonly opaque: number; readonly reply: boolean }
  | { readonly type: "closeConnection"; readonly received: number; readonly code: number; readonly reason: string }
  | { readonly type: "ticketStored"; readonly received: number; readonly generation: number }
  /** What is said on that stream is wanted on this connection, or is not any more. */
  | { readonly type: "pin"; readonly received: number; readonly stream: number; readonly here: boolean }
  /** This connection is for everything, or for what is pinned to it alone. */
  | { readonly type: "carry"; readonly received: number; readonly all: boolean }
  /** The client has lost all other connections. */
  | { readonly type: "alone"; readonly received: number }
  | { readonly type: "skipped"; readonly received: number };

/** A frame with a place in the sender's log: it starts at `seq` and takes `size` octets of it. */
export type SequencedFrame = { readonly seq: number; readonly size: number } & SequencedContent;

/** What a sequenced frame says. A payload is a view into the bytes that were pushed: copy it to keep it. */
export type SequencedContent =
  | {
      readonly type: "data";
      readonly stream: number;
      readonly offset: number;
      readonly fin: boolean;
      readonly payload: Uint8Array;
    }
  | { readonly type: "open"; readonly stream: number; readonly credit: number; readonly request: Uint8Array }
  | { readonly type: "reset"; readonly stream: number; readonly code: number }
  | { readonly type: "credit"; readonly stream: number; readonly limit: number }
  | { readonly type: "goaway"; readonly lastStream: number; readonly code: number; readonly reason: string }
  | { readonly type: "settings"; readonly entries: ReadonlyMap<number, number> }
  | { readonly type: "end"; readonly code: number }
  | { readonly type: "skippedInLog" };

/** Why bytes are not a frame. `sequenced` tells whether the log, and so the session, is hurt, or only the connection. */
export interface FrameError {
  readonly type: "error";
  readonly code: "FRAME_SIZE" | "PROTOCOL" | "UNSUPPORTED";
  readonly detail: string;
  readonly sequenced: boolean;
}

const TWO_32 = 0x1_0000_0000;
/** 2^53 / 2^32: a larger high word would not fit a JavaScript number. */
const HIGH_WORD_MAX = 0x1f_ffff;

/**
 * Cuts a stream of octets into frames, in any segmentation, without copying what arrives whole.
 * The bytes of a chunk may be reused once {@link FrameReader.next} has returned undefined and {@link FrameReader.detach} was called.
 */
export class FrameReader {
  #bytes: Uint8Array = EMPTY;
  #view: DataView = new DataView(EMPTY.buffer);
  #at = 0;
  /** A frame that arrives in pieces, once it cannot be read in place: first its header's 24 octets, then all of it. */
  #assembly: Uint8Array | undefined;
  #assembled = 0;

  /**
   * Adds octets. Where they lie right behind the ones before, in the same memory, a frame across both is still read in place. Read with
   * {@link FrameReader.next} until undefined before adding more: what was not read then is copied.
   */
  push(chunk: Uint8Array): void {
    const left = this.#bytes.length - this.#at;
    if (left > 0) {
      const start = this.#bytes.byteOffset + this.#at;
      if (chunk.buffer === this.#bytes.buffer && chunk.byteOffset === start + left) {
        this.#read(new Uint8Array(chunk.buffer, start, left + chunk.length));
        return;
      }
      if (this.#assembly !== undefined || this.#holdsFrame(left)) {
        this.#read(joined(this.#unread(), chunk));
        return;
      }
      this.detach();
    }
    this.#read(chunk);
  }

  /** Octets at the end of what was pushed that are not a whole frame yet, and are read where they lie. */
  get incomplete(): number {
    return this.#bytes.length - this.#at;
  }

  /** The incomplete octets have been copied to another place, and what comes next will lie behind them there. */
  move(to: Uint8Array): void {
    this.#read(to);
  }

  /** Copies what is incomplete, so that the memory pushed so far may be used again. */
  detach(): void {
    const left = this.#bytes.length - this.#at;
    if (left > 0) {
      if (this.#assembly !== undefined || this.#holdsFrame(left)) {
        this.#read(joined(this.#unread(), EMPTY));
        return;
      }
      this.#assembly = new Uint8Array(
        left < HEADER_BYTES ? HEADER_BYTES : HEADER_BYTES + this.#view.getUint16(this.#at + 2),
      );
      this.#assembly.set(this.#bytes.subarray(this.#at));
      this.#assembled = left;
    }
    this.#bytes = EMPTY;
    this.#at = 0;
  }

  /** True when a whole frame lies there unread: the caller has not called {@link FrameReader.next} until undefined. */
  #holdsFrame(left: number): boolean {
    return left >= HEADER_BYTES && left >= HEADER_BYTES + this.#view.getUint16(this.#at + 2);
  }

  /** Takes everything that was pushed and not read. */
  #unread(): Uint8Array {
    const rest = this.#bytes.subarray(this.#at);
    const assembly = this.#assembly;
    if (assembly === undefined) return rest;
    this.#assembly = undefined;
    return joined(assembly.subarray(0, this.#assembled), rest);
  }

  /** The next frame, what is wrong with it, or undefined when more octets are needed. After an error nothing more can be read. */
  next(): Frame | FrameError | undefined {
    if (this.#assembly !== undefined) return this.#assemble(this.#assembly);
    const left = this.#bytes.length - this.#at;
    if (left < HEADER_BYTES) return undefined;
    const error = checkHeader(this.#view, this.#at);
    if (error !== undefined) return error;
    const size = HEADER_BYTES + this.#view.getUint16(this.#at + 2);
    if (left < size) return undefined;
    const at = this.#at;
    this.#at += size;
    return decode(this.#view, this.#bytes, at, size);
  }

  #read(bytes: Uint8Array): void {
    this.#bytes = bytes;
    this.#view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
    this.#at = 0;
  }

  #assemble(assembly: Uint8Array): Frame | FrameError | undefined {
    const take = Math.min(assembly.length - this.#assembled, this.#bytes.length - this.#at);
    assembly.set(this.#bytes.subarray(this.#at, this.#at + take), this.#assembled);
    this.#at += take;
    this.#assembled += take;
    if (this.#assembled < HEADER_BYTES) return undefined;
    const view = new DataView(assembly.buffer);
    const error = checkHeader(view, 0); // on the header alone, before any room is made for the payload
    if (error !== undefined) return error;
    const size = HEADER_BYTES + view.getUint16(2);
    if (assembly.length < size) {
      this.#assembly = new Uint8Array(size);
      this.#assembly.set(assembly);
      return this.#assemble(this.#assembly);
    }
    if (this.#assembled < size) return undefined;
    this.#assembly = undefined;
    this.#assembled = 0;
    return decode(view, assembly, 0, size);
  }
}

const EMPTY = new Uint8Array(0);

function joined(first: Uint8Array, second: Uint8Array): Uint8Array {
  const both = new Uint8Array(first.length + second.length);
  both.set(first);
  both.set(second, first.length);
  return both;
}

/** What a type's header must look like: its flags, whether it names a stream, and the bounds of its payload. */
interface Shape {
  readonly flags: number;
  readonly ofStream: boolean;
  readonly min: number;
  readonly max: number;
  /** Payload comes in units of so many octets. */
  readonly unit: number;
}

const header = { flags: 0, min: 0, max: 0, unit: 1 };
const SHAPES: ReadonlyMap<number, Shape> = new Map([
  [FrameType.ack, { ...header, ofStream: false, max: HELD_RANGES_MAX * 16, unit: 16 }],
  [FrameType.ping, { ...header, ofStream: false, flags: FLAG_REPLY }],
  [FrameType.closeConnection, { ...header, ofStream: false, max: REASON_BYTES_MAX }],
  [FrameType.ticketStored, { ...header, ofStream: false }],
  [FrameType.pad, { ...header, ofStream: false, max: PAYLOAD_BYTES_MAX }],
  [FrameType.data, { ...header, ofStream: true, flags: FLAG_FIN, max: PAYLOAD_BYTES_MAX }],
  [FrameType.open, { ...header, ofStream: true, min: 1, max: REQUEST_BYTES_MAX }],
  [FrameType.reset, { ...header, ofStream: true }],
  [FrameType.credit, { ...header, ofStream: true }],
  [FrameType.goaway, { ...header, ofStream: false, min: 4, max: 4 + REASON_BYTES_MAX }],
  [FrameType.settings, { ...header, ofStream: false, max: SETTINGS_MAX * 8, unit: 8 }],
  [FrameType.end, { ...header, ofStream: false }],
]);

/** Frames that whoever does not know them skips; and so does who knows them, where they do not look like this: they are wishes. */
const WISHES: ReadonlyMap<number, Shape> = new Map([
  [FrameType.pin, { ...header, ofStream: true, flags: FLAG_HERE }],
  [FrameType.carry, { ...header, ofStream: false, flags: FLAG_ALL }],
  [FrameType.alone, { ...header, ofStream: false }],
]);

function isWish(type: number, flags: number, stream: number, length: number): boolean {
  const shape = WISHES.get(type);
  if (shape === undefined) return false;
  return (flags & ~shape.flags) === 0 && shape.ofStream === stream > 0 && length === 0;
}

function checkHeader(view: DataView, at: number): FrameError | undefined {
  const type = view.getUint8(at);
  const flags = view.getUint8(at + 1);
  const length = view.getUint16(at + 2);
  const stream = view.getUint32(at + 4);
  const wrong = (code: FrameError["code"], detail: string): FrameError => ({
    type: "error",
    code,
    detail,
    sequenced: (type & SEQUENCED) !== 0,
  });
  if (length > PAYLOAD_BYTES_MAX)
    return wrong("FRAME_SIZE", `payload of ${length} octets, the limit is ${PAYLOAD_BYTES_MAX}`);
  if (view.getUint32(at + 8) > HIGH_WORD_MAX || view.getUint32(at + 16) > HIGH_WORD_MAX)
    return wrong("PROTOCOL", "a position above 2^53");
  const shape = SHAPES.get(type);
  if (shape === undefined)
    return (type & CRITICAL) === 0 ? undefined : wrong("UNSUPPORTED", `type 0x${type.toString(16)}`);
  if ((flags & ~shape.flags) !== 0) return wrong("PROTOCOL", `undefined flags 0x${flags.toString(16)}`);
  if (shape.ofStream !== stream > 0) return wrong("PROTOCOL", `type 0x${type.toString(16)} on stream ${stream}`);
  if (length < shape.min || length > shape.max || length % shape.unit !== 0)
    return wrong("PROTOCOL", `type 0x${type.toString(16)} with ${length} octets of payload`);
  return undefined;
}

function decode(view: DataView, bytes: Uint8Array, at: number, size: number): Frame {
  const stream = view.getUint32(at + 4);
  const seq = view.getUint32(at + 8) * TWO_32 + view.getUint32(at + 12);
  const arg = view.getUint32(at + 16) * TWO_32 + view.getUint32(at + 20);
  const body = at + HEADER_BYTES;
  const end = at + size;
  const type = view.getUint8(at);
  switch (type) {
    case FrameType.data: {
      const fin = (view.getUint8(at + 1) & FLAG_FIN) !== 0;
      return { type: "data", seq, size, stream, offset: arg, fin, payload: bytes.subarray(body, end) };
    }
    case FrameType.open:
      // Copied, as it is kept; not with slice(): of a Buffer that is no copy.
      return { type: "open", seq, size, stream, credit: arg, request: new Uint8Array(bytes.subarray(body, end)) };
    case FrameType.reset:
      return { type: "reset", seq, size, stream, code: arg };
    case FrameType.credit:
      return { type: "credit", seq, size, stream, limit: arg };
    case FrameType.goaway: {
      const reason = ascii(bytes.subarray(body + 4, end));
      return { type: "goaway", seq, size, lastStream: arg, code: view.getUint32(body), reason };
    }
    case FrameType.settings: {
      const entries = new Map<number, number>();
      for (let entry = body; entry < end; entry += 8) entries.set(view.getUint16(entry), view.getUint32(entry + 4));
      return { type: "settings", seq, size, entries };
    }
    case FrameType.end:
      return { type: "end", seq, size, code: arg };
    case FrameType.ack:
      return { type: "ack", received: seq, limit: arg, held: heldRanges(view, body, end, seq) };
    case FrameType.ping: {
      const reply = (view.getUint8(at + 1) & FLAG_REPLY) !== 0;
      return { type: "ping", received: seq, opaque: arg, reply };
    }
    case FrameType.closeConnection:
      return { type: "closeConnection", received: seq, code: arg, reason: ascii(bytes.subarray(body, end)) };
    case FrameType.ticketStored:
      return { type: "ticketStored", received: seq, generation: arg };
    case FrameType.pin:
    case FrameType.carry:
    case FrameType.alone: {
      const flags = view.getUint8(at + 1);
      if (!isWish(type, flags, stream, size - HEADER_BYTES)) return { type: "skipped", received: seq };
      if (type === FrameType.alone) return { type: "alone", received: seq };
      return type === FrameType.pin
        ? { type: "pin", received: seq, stream, here: (flags & FLAG_HERE) !== 0 }
        : { type: "carry", received: seq, all: (flags & FLAG_ALL) !== 0 };
    }
    default:
      return (type & SEQUENCED) !== 0 ? { type: "skippedInLog", seq, size } : { type: "skipped", received: seq };
  }
}

const NONE: readonly Range[] = [];

/** Ranges above what was received, ascending and not touching; others are ignored (PROTOCOL §6.3). */
function heldRanges(view: DataView, from: number, to: number, received: number): readonly Range[] {
  if (from === to) return NONE;
  const ranges: Range[] = [];
  let last = received;
  for (let at = from; at < to; at += 16) {
    const start = view.getUint32(at) * TWO_32 + view.getUint32(at + 4);
    const end = view.getUint32(at + 8) * TWO_32 + view.getUint32(at + 12);
    if (start <= last || end <= start || end > Number.MAX_SAFE_INTEGER) continue;
    ranges.push({ start, end });
    last = end;
  }
  return ranges;
}

/** Reasons are for people: whatever is not printable ASCII reads as `?`, so that none can forge a log line or move a cursor. */
function ascii(bytes: Uint8Array): string {
  let text = "";
  for (const octet of bytes) text += octet >= 0x20 && octet < 0x7f ? String.fromCharCode(octet) : "?";
  return text;
}

/** The octets of an unsequenced frame. */
export function encodeUnsequenced(frame: UnsequencedFrame): Uint8Array {
  switch (frame.type) {
    case "ack":
      return encode(FrameType.ack, 0, 0, frame.received, frame.limit, rangeOctets(frame.held));
    case "ping":
      return encode(FrameType.ping, frame.reply ? FLAG_REPLY : 0, 0, frame.received, frame.opaque);
    case "closeConnection":
      return encode(FrameType.closeConnection, 0, 0, frame.received, frame.code, reasonOctets(frame.reason));
    case "ticketStored":
      return encode(FrameType.ticketStored, 0, 0, frame.received, frame.generation);
    case "pin":
      return encode(FrameType.pin, frame.here ? FLAG_HERE : 0, frame.stream, frame.received, 0);
    case "carry":
      return encode(FrameType.carry, frame.all ? FLAG_ALL : 0, 0, frame.received, 0);
    case "alone":
      return encode(FrameType.alone, 0, 0, frame.received, 0);
    case "skipped":
      return encode(FrameType.pad, 0, 0, frame.received, 0);
    default:
      return assertNever(frame);
  }
}

/** The octets of a sequenced frame at its place in the log. */
export function encodeSequenced(seq: number, content: SequencedContent): Uint8Array {
  switch (content.type) {
    case "data":
      return encode(FrameType.data, content.fin ? FLAG_FIN : 0, content.stream, seq, content.offset, content.payload);
    case "open":
      return encode(FrameType.open, 0, content.stream, seq, content.credit, content.request);
    case "reset":
      return encode(FrameType.reset, 0, content.stream, seq, content.code);
    case "credit":
      return encode(FrameType.credit, 0, content.stream, seq, content.limit);
    case "goaway": {
      const reason = reasonOctets(content.reason);
      const payload = new Uint8Array(4 + reason.length);
      new DataView(payload.buffer).setUint32(0, content.code);
      payload.set(reason, 4);
      return encode(FrameType.goaway, 0, 0, seq, content.lastStream, payload);
    }
    case "settings": {
      const payload = new Uint8Array(content.entries.size * 8);
      const view = new DataView(payload.buffer);
      let at = 0;
      for (const [id, value] of content.entries) {
        view.setUint16(at, id);
        view.setUint32(at + 4, value);
        at += 8;
      }
      return encode(FrameType.settings, 0, 0, seq, 0, payload);
    }
    case "end":
      return encode(FrameType.end, 0, 0, seq, content.code);
    case "skippedInLog":
      return encode(SEQUENCED, 0, 0, seq, 0);
    default:
      return assertNever(content);
  }
}

/**
 * Writes the header of a DATA frame in place, into the 24 octets in front of its payload, so that bulk data is never copied.
 * @param frame header and payload, the payload already there
 */
export function writeDataHeader(frame: Uint8Array, stream: number, seq: number, offset: number, fin: boolean): void {
  const view = new DataView(frame.buffer, frame.byteOffset, HEADER_BYTES);
  writeHeader(view, FrameType.data, fin ? FLAG_FIN : 0, frame.length - HEADER_BYTES, stream, seq, offset);
}

/** What the header of a DATA frame of our own says; undefined for any other frame. Its payload is not looked at. */
export function readDataHeader(
  frame: Uint8Array,
): { readonly stream: number; readonly offset: number; readonly octets: number; readonly fin: boolean } | undefined {
  if (frame[0] !== FrameType.data) return undefined;
  const view = new DataView(frame.buffer, frame.byteOffset, HEADER_BYTES);
  const offset = view.getUint32(16) * TWO_32 + view.getUint32(20);
  const fin = (view.getUint8(1) & FLAG_FIN) !== 0;
  return { stream: view.getUint32(4), offset, octets: view.getUint16(2), fin };
}

function encode(
  type: number,
  flags: number,
  stream: number,
  seq: number,
  arg: number,
  payload?: Uint8Array,
): Uint8Array {
  const length = payload === undefined ? 0 : payload.length;
  const frame = new Uint8Array(HEADER_BYTES + length);
  writeHeader(new DataView(frame.buffer), type, flags, length, stream, seq, arg);
  if (payload !== undefined) frame.set(payload, HEADER_BYTES);
  return frame;
}

function writeHeader(
  view: DataView,
  type: number,
  flags: number,
  length: number,
  stream: number,
  seq: number,
  arg: number,
): void {
  view.setUint8(0, type);
  view.setUint8(1, flags);
  view.setUint16(2, length);
  view.setUint32(4, stream);
  view.setUint32(8, Math.floor(seq / TWO_32));
  view.setUint32(12, seq); // modulo 2^32, as ToUint32 does
  view.setUint32(16, Math.floor(arg / TWO_32));
  view.setUint32(20, arg);
}

function rangeOctets(ranges: readonly Range[]): Uint8Array | undefined {
  if (ranges.length === 0) return undefined;
  const octets = new Uint8Array(ranges.length * 16);
  const view = new DataView(octets.buffer);
  let at = 0;
  for (const { start, end } of ranges) {
    view.setUint32(at, Math.floor(start / TWO_32));
    view.setUint32(at + 4, start);
    view.setUint32(at + 8, Math.floor(end / TWO_32));
    view.setUint32(at + 12, end);
    at += 16;
  }
  return octets;
}

function reasonOctets(reason: string): Uint8Array {
  const octets = new Uint8Array(Math.min(reason.length, REASON_BYTES_MAX));
  for (let at = 0; at < octets.length; at++) octets[at] = reason.charCodeAt(at) & 0x7f;
  return octets;
}

/** The compiler proves that every case of a union was handled; at run time a value from outside the union throws. */
export function assertNever(value: never): never {
  throw new TypeError(`Unexpected value ${JSON.stringify(value)}`);
}
