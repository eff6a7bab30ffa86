/**
 * HTTP/1.1 requests as octets (RFC 9112), as far as somebody between a client and a back end has to understand them: where each ends, and
 * what its head says. Knows no sockets.
 *
 * Whoever adds a field that the back end trusts has to agree with the back end about where a request begins, or a client hides a request
 * of his own making in what we take for a body (request smuggling). So nothing here is forgiven: what two readers could read in two ways
 * is refused, and what is handed on is written anew, in the one form that everybody reads alike. What is left over is a back end that does
 * not read bodies at all; methods that have none by custom are therefore the last on their connection when they have one.
 * @module
 */

/** Octets of the head of a request, or of the trailers of one. */
export const HEAD_BYTES_MAX = 64 * 1_024;
/** Fields in it. */
export const FIELDS_MAX = 200;
/** Octets of the line before a chunk. */
const CHUNK_LINE_BYTES_MAX = 256;
/** Empty lines that may stand before a request: some clients send one behind a body (RFC 9112 §2.2). */
const BLANK_LINES_MAX = 1;

const CR = 0x0d;
const LF = 0x0a;

/** Answers that we give by ourselves. */
export type HttpStatus = 400 | 417 | 431 | 501 | 502 | 505;

/** Why a request is not handed on. The text is for whoever wrote the client, and repeats nothing of what was sent. */
export interface HttpRefusal {
  readonly type: "refused";
  readonly status: HttpStatus;
  readonly text: string;
}

/** How the end of a body is found. */
export type HttpBody =
  | { readonly type: "none" }
  | { readonly type: "length"; readonly bytes: number }
  | { readonly type: "chunked" };

/** The head of a request that may be handed on. */
export interface HttpRequest {
  readonly type: "request";
  /** What is handed on, up to where our own fields go: the request line and the fields that are left, CRLF behind each. */
  readonly head: string;
  readonly method: string;
  readonly body: HttpBody;
  /** The client waits for a `100 Continue` before it sends the body. */
  readonly expectsContinue: boolean;
  /** What the connection becomes if the back end agrees: octets that are no HTTP any more. */
  readonly tunnel: "none" | "upgrade" | "connect";
  /** No other request follows on this connection. */
  readonly last: boolean;
}

// ---- lines

/** What was read of lines: so many octets of the chunk, and the lines once they are complete. */
export type Lines =
  | { readonly type: "more" }
  | { readonly type: "lines"; readonly end: number; readonly lines: readonly string[] }
  | HttpRefusal;

const NO_OCTETS = new Uint8Array(0);
/** Room for lines at first; it grows with them. */
const LINES_BYTES_FIRST = 1_024;

/** Reads lines up to an empty one: a head, or trailers. In any segmentation; one for each. */
export class LinesReader {
  #kept = NO_OCTETS;
  #bytes = 0;
  /** Octets of the line under way. */
  #lineBytes = 0;
  #lastOctet = 0;
  #blanksLeft: number;

  /** @param what trailers may be none at all; before a head there may be an empty line */
  constructor(what: "head" | "trailers") {
    this.#blanksLeft = what === "head" ? BLANK_LINES_MAX : 0;
  }

  /** Nothing that matters has been read. */
  get isFresh(): boolean {
    return this.#bytes === 0;
  }

  /** Reads on from `from`; what was read is copied. */
  read(chunk: Uint8Array, from: number): Lines {
    let start = from;
    let at = from;
    for (let found = chunk.indexOf(LF, at); found >= 0; found = chunk.indexOf(LF, at)) {
      // One reader would end the line there, and another would not.
      if ((found > from ? chunk[found - 1] : this.#lastOctet) !== CR)
        return refused(400, "a line ends in LF without CR");
      const lineBytes = this.#lineBytes + found + 1 - at;
      this.#lineBytes = 0;
      at = found + 1;
      if (lineBytes > 2) continue;
      if (this.#bytes + at - start === 2 && this.#blanksLeft > 0) {
        this.#blanksLeft--;
        this.#bytes = 0;
        start = at;
        continue;
      }
      if (!this.#keep(chunk.subarray(start, at))) return TOO_LONG;
      const text = Buffer.from(this.#kept.buffer, 0, this.#bytes).toString("latin1");
      return { type: "lines", end: at, lines: text.length === 2 ? [] : text.slice(0, -4).split("\r\n") };
    }
    this.#lineBytes += chunk.length - at;
    this.#lastOctet = chunk.at(-1) ?? 0;
    return this.#keep(chunk.subarray(start)) ? { type: "more" } : TOO_LONG;
  }

  /** Copied, as its memory is used again as soon as we return; into one piece, as there may come an octet at a time. */
  #keep(octets: Uint8Array): boolean {
    const bytes = this.#bytes + octets.length;
    if (bytes > HEAD_BYTES_MAX) return false;
    if (bytes > this.#kept.length) {
      const larger = new Uint8Array(Math.max(bytes, 2 * this.#kept.length, LINES_BYTES_FIRST));
      larger.set(this.#kept.subarray(0, this.#bytes));
      this.#kept = larger;
    }
    this.#kept.set(octets, this.#bytes);
    this.#bytes = bytes;
    return true;
  }
}

const TOO_LONG: HttpRefusal = refused(431, `the head of a request has more than ${HEAD_BYTES_MAX} octets`);

// ---- heads

const TOKEN = /^[!#$%&'*+\-.^_`|~0-9A-Za-z]+$/;
/** RFC 9110 §5.5; a NUL, CR, LF or other control is no part of a value. */
const VALUE = /^[\t\x20-\x7e\x80-\xff]*$/;
/** Visible ASCII only: some readers take other octets (0x85, 0xA0) for blanks. */
const REQUEST_LINE = /^(?<method>[^ ]{1,64}) (?<target>[\x21-\x7e]+) HTTP\/(?<version>\d\.\d)$/;

/** Fields on whose reading it depends where a request ends, and what becomes of the connection: nothing may look like one and be none. */
const DECISIVE: ReadonlySet<string> = new Set([
  "content-length",
  "transfer-encoding",
  "connection",
  "upgrade",
  "expect",
  "host",
]);
/** Methods that mean something to us, or to whoever frames the response. */
const METHODS: ReadonlySet<string> = new Set([
  "CONNECT",
  "DELETE",
  "GET",
  "HEAD",
  "OPTIONS",
  "PATCH",
  "POST",
  "PUT",
  "TRACE",
]);
/** Methods whose bodies mean nothing by custom, and which some back ends leave unread, to take them for the next request. */
const BODILESS: ReadonlySet<string> = new Set(["DELETE", "GET", "HEAD", "OPTIONS"]);
/** What may stand in Connection: any other name there would have the next proxy drop that field, ours for one. */
const CONNECTION_OPTIONS: ReadonlySet<string> = new Set(["close", "keep-alive", "te"]);
/** What we do not hand on: trailers are dropped, and HTTP/2 is not spoken. */
const DROPPED: ReadonlySet<string> = new Set(["connection", "upgrade", "trailer", "http2-settings"]);
/**
 * The one protocol that may be changed to: its octets are no requests. With h2c or TLS they would be, with fields that nobody has looked at.
 */
const UPGRADE = "websocket";

/** What the fields say that matters to us. */
interface Findings {
  length: number | undefined;
  chunked: boolean;
  expectsContinue: boolean;
  readonly connection: Set<string>;
  readonly upgrade: string[];
  readonly seen: Set<string>;
}

/** Judges the lines of a head, and writes it anew without what only we may say. */
export function judgeHead([first = "", ...fields]: readonly string[]): HttpRequest | HttpRefusal {
  const line = REQUEST_LINE.exec(first)?.groups;
  if (line === undefined) return refused(400, "the first line is no request of HTTP/1.1");
  const { method = "", target = "", version = "" } = line;
  if (version !== "1.0" && version !== "1.1")
    return refused(505, "this service is spoken to in HTTP/1.1; HTTP/2 without asking first cannot be understood here");
  if (!TOKEN.test(method)) return refused(400, "the method is no token");
  if (!METHODS.has(method) && METHODS.has(method.toUpperCase())) return refused(400, "methods are in capitals");
  // It would show the assertion to whoever can see the answer.
  if (method === "TRACE") return refused(501, "TRACE is not handed on");
  if (fields.length > FIELDS_MAX) return refused(431, `a request has more than ${FIELDS_MAX} fields`);
  const findings: Findings = {
    ...{ length: undefined, chunked: false, expectsContinue: false },
    ...{ connection: new Set<string>(), upgrade: [], seen: new Set<string>() },
  };
  const kept: string[] = [`${method} ${target} HTTP/${version}`];
  for (const field of fields) {
    const read = readField(field);
    if (read.type === "refused") return read;
    const { name, value } = read;
    const key = name.toLowerCase();
    const wrong = find(findings, key, value, version);
    if (wrong !== undefined) return wrong;
    if (isOurs(key) || DROPPED.has(key)) continue;
    kept.push(`${name}: ${plainValue(key, value)}`);
  }
  return compose(kept, method, version, findings);
}

/** Judges the lines of trailers. They are not handed on, and yet not everything may stand there. */
export function judgeTrailers(lines: readonly string[]): HttpRefusal | undefined {
  if (lines.length > FIELDS_MAX) return refused(431, `a request has more than ${FIELDS_MAX} trailers`);
  for (const line of lines) {
    const read = readField(line);
    if (read.type === "refused") return read;
  }
  return undefined;
}

/** Of fields that decide, the one spelling of what they say. */
function plainValue(key: string, value: string): string {
  switch (key) {
    case "content-length":
      return String(Number(value));
    case "transfer-encoding":
    case "expect":
      return value.toLowerCase();
    default:
      return value;
  }
}

function readField(
  line: string,
): { readonly type: "field"; readonly name: string; readonly value: string } | HttpRefusal {
  const colon = line.indexOf(":");
  const name = line.slice(0, Math.max(colon, 0));
  // A line that begins with a blank goes on with the one before it, or does not (obs-fold); a blank before the colon belongs to the name, or not.
  if (!TOKEN.test(name)) return refused(400, "the name of a field is no token");
  const value = trimmed(line, colon + 1);
  return VALUE.test(value)
    ? { type: "field", name, value }
    : refused(400, "the value of a field has a control character");
}

/** The text from `from` on without blanks and tabs around it. Unlike trim() it takes nothing else for a blank. */
function trimmed(text: string, from: number): string {
  let start = from;
  let end = text.length;
  const isBlank = (at: number): boolean => text.charCodeAt(at) === 0x20 || text.charCodeAt(at) === 0x09;
  while (start < end && isBlank(start)) start++;
  while (end > start && isBlank(end - 1)) end--;
  return text.slice(start, end);
}

/**
 * A name as gateways hand it to programs: everything but letters and digits is one and the same there, so `Fived_User` and `Fived-User` are
 * one variable.
 */
function folded(key: string): string {
  return key.replaceAll(/[^a-z0-9]/g, "-");
}

/** May only we say this? */
function isOurs(key: string): boolean {
  return /^fived(?:-|$)/.test(folded(key));
}

/** Takes note of what a field says; what is wrong with it, if anything is. */
function find(findings: Findings, key: string, value: string, version: string): HttpRefusal | undefined {
  if (key !== folded(key) && DECISIVE.has(folded(key))) return refused(400, "a field looks like another one");
  if (!DECISIVE.has(key)) return undefined;
  const isList = key === "connection" || key === "upgrade";
  if (findings.seen.has(key) && !isList) return refused(400, `${key} stands there twice`);
  findings.seen.add(key);
  switch (key) {
    case "content-length":
      if (!/^\d{1,15}$/.test(value)) return refused(400, "content-length is no number");
      findings.length = Number(value);
      break;
    case "transfer-encoding":
      if (version !== "1.1") return refused(400, "transfer-encoding is unknown to HTTP/1.0");
      if (value.toLowerCase() !== "chunked") return refused(501, "transfer-encoding can only be chunked");
      findings.chunked = true;
      break;
    case "expect":
      if (value.toLowerCase() !== "100-continue") return refused(417, "only 100-continue can be expected");
      findings.expectsContinue = version === "1.1"; // to HTTP/1.0 it means nothing (RFC 9110 §10.1.1)
      break;
    case "connection":
    case "upgrade": {
      const items = listOf(value);
      if (items === undefined) return refused(400, `${key} is no list of tokens`);
      for (const item of items) {
        if (key === "connection") findings.connection.add(item);
        else findings.upgrade.push(item);
      }
      break;
    }
  }
  return undefined;
}

function listOf(value: string): readonly string[] | undefined {
  const items = value
    .split(",")
    .map((item) => trimmed(item, 0).toLowerCase())
    .filter((item) => item !== "");
  return items.every((item) => TOKEN.test(item.replace("/", ""))) ? items : undefined;
}

function compose(kept: string[], method: string, version: string, findings: Findings): HttpRequest | HttpRefusal {
  const { length, chunked, connection, expectsContinue } = findings;
  if (length !== undefined && chunked)
    return refused(400, "content-length and transfer-encoding contradict each other");
  const body: HttpBody = chunked
    ? { type: "chunked" }
    : length !== undefined && length > 0
      ? { type: "length", bytes: length }
      : { type: "none" };
  const upgrading =
    version === "1.1" && connection.has("upgrade") && findings.upgrade.length === 1 && findings.upgrade[0] === UPGRADE;
  const tunnel = method === "CONNECT" ? "connect" : upgrading ? "upgrade" : "none";
  if (tunnel !== "none" && (body.type !== "none" || chunked))
    return refused(400, "a request that changes the protocol has a body");
  const odd = body.type !== "none" && BODILESS.has(method);
  const options = [...connection].filter(
    (option) => CONNECTION_OPTIONS.has(option) && !(odd && option === "keep-alive"),
  );
  if (odd && !options.includes("close")) options.push("close");
  if (tunnel === "upgrade") {
    options.push("upgrade");
    kept.push(`Upgrade: ${UPGRADE}`);
  }
  if (options.length > 0) kept.push(`Connection: ${options.join(", ")}`);
  const last = options.includes("close") || (version === "1.0" && !options.includes("keep-alive"));
  return { type: "request", head: `${kept.join("\r\n")}\r\n`, method, body, expectsContinue, tunnel, last };
}

/** A refusal with a status of HTTP. */
export function refused(status: HttpStatus, text: string): HttpRefusal {
  return { type: "refused", status, text };
}

// ---- chunks

/** What a part of a chunked body is. */
export type ChunkPart =
  /** Octets of the chunk, as they are: from where reading began to `end`. */
  | { readonly type: "data"; readonly end: number }
  /** A line that is to be handed on: the size of a chunk in our own writing, or the end of one. */
  | { readonly type: "line"; readonly end: number; readonly line: string }
  /** Nothing to be handed on. */
  | { readonly type: "nothing"; readonly end: number }
  /** The body is over, and its trailers are dropped. */
  | { readonly type: "over"; readonly end: number }
  | HttpRefusal;

/** Reads a chunked body (RFC 9112 §7.1), part by part. Extensions of chunks are dropped. */
export class ChunksReader {
  #state: "size" | "data" | "end" | "trailers" = "size";
  #left = 0;
  #line = "";
  readonly #trailers = new LinesReader("trailers");

  /** The next part, from `from` on; there is at least one octet. */
  read(chunk: Uint8Array, from: number): ChunkPart {
    switch (this.#state) {
      case "size":
        return this.#readSize(chunk, from);
      case "data": {
        const end = Math.min(chunk.length, from + this.#left);
        this.#left -= end - from;
        if (this.#left === 0) this.#state = "end";
        return { type: "data", end };
      }
      case "end": {
        this.#line += String.fromCharCode(chunk[from] ?? 0);
        if (!"\r\n".startsWith(this.#line)) return refused(400, "a chunk is longer than its size");
        if (this.#line.length < 2) return { type: "nothing", end: from + 1 };
        this.#line = "";
        this.#state = "size";
        return { type: "line", end: from + 1, line: "\r\n" };
      }
      case "trailers":
        return this.#readTrailers(chunk, from);
    }
  }

  #readSize(chunk: Uint8Array, from: number): ChunkPart {
    const found = chunk.indexOf(LF, from);
    const end = found < 0 ? chunk.length : found + 1;
    if (this.#line.length + end - from > CHUNK_LINE_BYTES_MAX)
      return refused(400, "the line before a chunk is too long");
    this.#line += Buffer.from(chunk.buffer, chunk.byteOffset + from, end - from).toString("latin1");
    if (found < 0) return { type: "nothing", end };
    // Size and, dropped, extensions; nothing stands between the two but blanks, and there is no other end of a line in it.
    const [, digits] = /^([0-9A-Fa-f]{1,13})(?:[ \t]*;[\t\x20-\x7e\x80-\xff]*)?\r\n$/.exec(this.#line) ?? [];
    if (digits === undefined) return refused(400, "the size of a chunk is no number");
    this.#line = "";
    this.#left = Number.parseInt(digits, 16);
    this.#state = this.#left === 0 ? "trailers" : "data";
    if (this.#left === 0) return { type: "nothing", end };
    return { type: "line", end, line: `${this.#left.toString(16)}\r\n` };
  }

  #readTrailers(chunk: Uint8Array, from: number): ChunkPart {
    const read = this.#trailers.read(chunk, from);
    if (read.type === "refused") return read;
    if (read.type === "more") return { type: "nothing", end: chunk.length };
    return judgeTrailers(read.lines) ?? { type: "over", end: read.end };
  }
}

/** The end of a chunked body, as we hand it on. */
export const LAST_CHUNK = "0\r\n\r\n";
