/**
 * What a server and the process that asks PAM say to each other, over a socket of their own: one attempt to sign in each. Pure.
 *
 * ```
 *   server  ─►  u16 length, octets: who wants to sign in (JSON), then answers, one for each question
 *   process ─►  lines of JSON: that it is ready, questions, things to tell, at last a result or why there is none
 * ```
 *
 * Answers are octets and no JSON, so that no password ever is a string. Neither end believes the other beyond these bounds (abuse case A08).
 * @module
 */

/** Who wants to sign in, and from where. */
export interface PamRequest {
  readonly user: string;
  readonly address?: string;
}

/** What PAM wants to have said, or what it has found. */
export type PamMessage =
  /** PAM is at hand; always the first. */
  | { readonly type: "ready" }
  | { readonly type: "ask"; readonly text: string; readonly shown: boolean }
  | { readonly type: "tell"; readonly text: string }
  /** Somebody, with the groups that the system knows of him. */
  | { readonly type: "found"; readonly user: string; readonly groups: readonly string[] }
  /** Nobody; PAM's reason is for the log. */
  | { readonly type: "refused"; readonly why: string }
  /** PAM could not be asked. */
  | { readonly type: "broken"; readonly why: string };

/** Octets of a text (PROTOCOL §4.6.1): PAM's own limit is 512, which nobody enforces. */
export const PAM_TEXT_BYTES_MAX = 4_000;
/** Octets of an answer, as many as fit in a line of the protocol; PAM takes 512. */
export const PAM_ANSWER_BYTES_MAX = 1_024;
/** Groups of one person; more are not told. */
export const PAM_GROUPS_MAX = 256;
/** Octets of a line: groups with long names, or a text of which every octet is escaped. */
const LINE_BYTES_MAX = 65_536;
/** Octets of a name, of a user or a group. */
const NAME_BYTES_MAX = 255;

const LF = 0x0a;

/** A message as a line. */
export function printMessage(message: PamMessage): Uint8Array {
  return Buffer.from(`${JSON.stringify(message)}\n`);
}

/** A request or an answer as it travels; the copy is the caller's to wipe. Throws a `RangeError` above {@link PAM_ANSWER_BYTES_MAX}. */
export function printFrame(octets: Uint8Array): Uint8Array {
  if (octets.length > PAM_ANSWER_BYTES_MAX) throw new RangeError(`Cannot say ${octets.length} octets to PAM`);
  const framed = Buffer.alloc(2 + octets.length);
  framed.writeUInt16BE(octets.length);
  framed.set(octets, 2);
  return framed;
}

/** A request as it travels. */
export function printRequest(request: PamRequest): Uint8Array {
  return printFrame(Buffer.from(JSON.stringify(request)));
}

/** Reads a request; undefined for what is none. */
export function parseRequest(octets: Uint8Array): PamRequest | undefined {
  const value = parsed(Buffer.from(octets).toString("utf8"));
  if (value === undefined) return undefined;
  const { user, address } = value;
  if (
    !isName(user) ||
    !(address === undefined || (typeof address === "string" && /^[0-9A-Fa-f:.]{1,45}$/.test(address)))
  )
    return undefined;
  return address === undefined ? { user } : { user, address };
}

/** Cuts what a server says into requests and answers, in any segmentation. */
export class PamFrameReader {
  #held: Buffer = Buffer.alloc(0);
  #failed = false;

  /** Adds octets, which are copied; wipes what it held before. */
  push(chunk: Uint8Array): void {
    if (this.#failed) return;
    const held = Buffer.concat([this.#held, chunk]);
    this.#held.fill(0);
    this.#held = held;
  }

  /** The next frame, which is the caller's to wipe; undefined when it has not come whole, "garbage" for one too long, and for ever after. */
  next(): Uint8Array | "garbage" | undefined {
    if (!this.#failed && this.#held.length < 2) return undefined;
    const length = this.#failed ? 0 : this.#held.readUInt16BE();
    if (this.#failed || length > PAM_ANSWER_BYTES_MAX) {
      this.#held.fill(0);
      this.#failed = true;
      return "garbage";
    }
    if (this.#held.length < 2 + length) return undefined;
    const octets = Uint8Array.from(this.#held.subarray(2, 2 + length));
    const rest = Buffer.from(this.#held.subarray(2 + length));
    this.#held.fill(0);
    this.#held = rest;
    return octets;
  }
}

/** Cuts what a process says into messages, in any segmentation. */
export class PamMessageReader {
  #held: Buffer = Buffer.alloc(0);
  #failed = false;

  /** Adds octets. */
  push(chunk: Uint8Array): void {
    if (!this.#failed) this.#held = Buffer.concat([this.#held, chunk]);
  }

  /** The next message; undefined when it has not come whole, "garbage" for what is none, and nothing more can be read after that. */
  next(): PamMessage | "garbage" | undefined {
    if (this.#failed) return "garbage";
    const end = this.#held.indexOf(LF);
    if (end < 0 && this.#held.length <= LINE_BYTES_MAX) return undefined;
    const message = end < 0 || end > LINE_BYTES_MAX ? undefined : messageOf(this.#held.toString("utf8", 0, end));
    this.#failed = message === undefined;
    this.#held = this.#failed ? Buffer.alloc(0) : this.#held.subarray(end + 1);
    return message ?? "garbage";
  }
}

function messageOf(line: string): PamMessage | undefined {
  const value = parsed(line);
  if (value === undefined) return undefined;
  const { type, text, shown, user, groups, why } = value;
  switch (type) {
    case "ready":
      return { type };
    case "ask":
      return isText(text) && typeof shown === "boolean" ? { type, text, shown } : undefined;
    case "tell":
      return isText(text) ? { type, text } : undefined;
    case "found":
      if (!isName(user) || !Array.isArray(groups) || groups.length > PAM_GROUPS_MAX) return undefined;
      return groups.every(isGroup) ? { type, user, groups } : undefined;
    case "refused":
    case "broken":
      return isText(why) ? { type, why } : undefined;
    default:
      return undefined;
  }
}

function parsed(text: string): Readonly<Record<string, unknown>> | undefined {
  try {
    const value: unknown = JSON.parse(text);
    return typeof value === "object" && value !== null && !Array.isArray(value) ? { ...value } : undefined;
  } catch {
    return undefined;
  }
}

function isText(value: unknown): value is string {
  return typeof value === "string" && Buffer.byteLength(value) <= PAM_TEXT_BYTES_MAX;
}

/** Names as they stand in lines and are told to back ends. */
function isName(value: unknown): value is string {
  return typeof value === "string" && /^[\x21-\x7e]{1,255}$/.test(value);
}

/** Groups of directories may have blanks. */
function isGroup(value: unknown): value is string {
  return typeof value === "string" && Buffer.byteLength(value) <= NAME_BYTES_MAX && /^[^\p{C}]+$/u.test(value);
}
