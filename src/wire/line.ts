/**
 * Lines: what a conversation says before its bytes belong to a service (PROTOCOL §3, after RFC 1078). Knows what a well-formed request is,
 * not which words exist.
 * @module
 */

/** Octets of a line without its CRLF: longer is not a request but an attack on our memory (abuse case L03). */
export const LINE_BYTES_MAX = 1_024;
/** Octets of a line of the server without its CRLF (PROTOCOL §3.1): questions of AUTH may be long. */
export const REPLY_BYTES_MAX = 4_096;
/** Octets of a service name (PROTOCOL §1.3). */
export const NAME_BYTES_MAX = 64;

const CR = 0x0d;
const LF = 0x0a;
const NAME = /^[A-Za-z0-9_][A-Za-z0-9._+-]{0,63}$/;

/** True for a well-formed service name: 1 to 64 of `A-Za-z0-9._+-` and `_`, not starting with `.`, `+` or `-`. */
export function isServiceName(text: string): boolean {
  return NAME.test(text);
}

/** A line that was read. `bytes` in an error is what had been read when it was given up. */
export type Line =
  | { readonly type: "line"; readonly text: string }
  | { readonly type: "error"; readonly code: "LINE_TOO_LONG"; readonly bytes: number };

/**
 * Cuts a stream of octets into lines ended by CRLF, in any segmentation. Octets are kept one to one as Latin-1, so that nothing is
 * decoded before it is judged.
 */
export class LineReader {
  readonly #bytesMax: number;
  #pending: Uint8Array[] = [];
  #pendingBytes = 0;
  /** The line under way, one character an octet. */
  #text = "";

  /** @param bytesMax octets of a line without its CRLF */
  constructor(bytesMax: number = LINE_BYTES_MAX) {
    this.#bytesMax = bytesMax;
  }

  /** Octets pushed and not yet read as a line. */
  get buffered(): number {
    return this.#text.length + this.#pendingBytes;
  }

  /** Adds octets; the chunk is kept until it is read or taken. */
  push(chunk: Uint8Array): void {
    if (chunk.length === 0) return;
    this.#pending.push(chunk);
    this.#pendingBytes += chunk.length;
  }

  /** The next line, or undefined when its CRLF has not arrived. After an error nothing more can be read. */
  next(): Line | undefined {
    for (;;) {
      const chunk = this.#pending.shift();
      if (chunk === undefined) return undefined;
      this.#pendingBytes -= chunk.length;
      const room = this.#bytesMax + 2 - this.#text.length;
      const end = chunk.indexOf(LF);
      const taken = end < 0 ? Math.min(chunk.length, room) : Math.min(end + 1, room);
      for (let at = 0; at < taken; at++) this.#text += String.fromCharCode(chunk[at] ?? 0);
      if (taken < chunk.length) {
        this.#pending.unshift(chunk.subarray(taken));
        this.#pendingBytes += chunk.length - taken;
      }
      if (this.#text.endsWith("\r\n")) {
        const text = this.#text.slice(0, -2);
        this.#text = "";
        return { type: "line", text };
      }
      const length = this.#text.charCodeAt(this.#text.length - 1) === CR ? this.#text.length - 1 : this.#text.length;
      if (length > this.#bytesMax) return { type: "error", code: "LINE_TOO_LONG", bytes: length };
    }
  }

  /**
   * The next line as octets, for answers that must not become a string (a password): they are wiped where they lay. Undefined when its CRLF
   * has not arrived.
   */
  nextOctets(): Uint8Array | Extract<Line, { type: "error" }> | undefined {
    const octets = new Uint8Array(this.#bytesMax + 2);
    let length = 0;
    for (; length < this.#text.length; length++) octets[length] = this.#text.charCodeAt(length);
    this.#text = ""; // what had been read of it as text
    for (const [index, chunk] of this.#pending.entries()) {
      for (let at = 0; at < chunk.length; at++) {
        if (length === octets.length) return { type: "error", code: "LINE_TOO_LONG", bytes: length - 1 };
        octets[length++] = chunk[at] ?? 0;
        if (octets[length - 1] !== LF || octets[length - 2] !== CR) continue;
        for (const read of this.#pending.splice(0, index)) read.fill(0);
        chunk.fill(0, 0, at + 1);
        const rest = chunk.subarray(at + 1);
        if (rest.length === 0) this.#pending.shift();
        else this.#pending[0] = rest;
        this.#pendingBytes = this.#pending.reduce((bytes, each) => bytes + each.length, 0);
        const line = octets.slice(0, length - 2);
        octets.fill(0);
        return line;
      }
    }
    // Not complete: what was text goes back in front, as octets.
    const before = length - this.#pendingBytes;
    if (before > 0) this.#pending.unshift(octets.slice(0, before));
    this.#pendingBytes += before;
    octets.fill(0);
    return undefined;
  }

  /** Hands over everything that was not read as a line: the conversation's bytes belong to somebody else now. */
  rest(): Uint8Array {
    const rest = new Uint8Array(this.buffered);
    for (let at = 0; at < this.#text.length; at++) rest[at] = this.#text.charCodeAt(at);
    let at = this.#text.length;
    for (const chunk of this.#pending) {
      rest.set(chunk, at);
      at += chunk.length;
    }
    this.#text = "";
    this.#pending = [];
    this.#pendingBytes = 0;
    return rest;
  }
}

/** A request: a word and what stands behind it; or a line whose word is no service name. */
export type Request =
  | { readonly type: "request"; readonly word: string; readonly args: readonly string[] }
  | { readonly type: "error"; readonly code: "NAME_BAD" };

/** Reads a line as a request (PROTOCOL §3.2): a name, then printable words, each behind one or more blanks. */
export function parseRequest(text: string): Request {
  if (!/^[\x21-\x7e][\x20-\x7e]*$/.test(text)) return { type: "error", code: "NAME_BAD" };
  const [word = "", ...args] = text.trimEnd().split(/ +/);
  if (!isServiceName(word)) return { type: "error", code: "NAME_BAD" };
  return { type: "request", word, args };
}

/** The octets of a line; CRLF is added. The text must be printable ASCII, as everything we say is. */
export function encodeLine(text: string): Uint8Array {
  const octets = new Uint8Array(text.length + 2);
  for (let at = 0; at < text.length; at++) octets[at] = text.charCodeAt(at);
  octets[text.length] = CR;
  octets[text.length + 1] = LF;
  return octets;
}

/** An answer to a request: `+ text`, or `- NNN text` (a plain RFC 1078 peer gives no number). */
export type Reply =
  | { readonly type: "accepted"; readonly text: string }
  | { readonly type: "refused"; readonly code: number | undefined; readonly text: string }
  | { readonly type: "error"; readonly code: "REPLY_BAD" };

/** Reads the line with which a peer answers a request (RFC 1078; PROTOCOL §3.4). */
export function parseReply(text: string): Reply {
  if (text.startsWith("+")) return { type: "accepted", text: text.slice(1).trim() };
  if (!text.startsWith("-")) return { type: "error", code: "REPLY_BAD" };
  const numbered = /^- ?([1-9][0-9]{2})(?: (.*))?$/.exec(text);
  if (numbered === null) return { type: "refused", code: undefined, text: text.slice(1).trim() };
  return { type: "refused", code: Number(numbered[1]), text: numbered[2] ?? "" };
}
