/**
 * DETACHABLE and ATTACH as octets (PROTOCOL §4.7, §4.8): the ticket of a session, the proof that one holds it, and the lines that carry them. The
 * secret crosses once, inside TLS, when it is given out; from then on only what it makes with the exporter of the connection at hand. Pure.
 * @module
 */
import { createHash, createHmac, timingSafeEqual } from "node:crypto";

/** Octets of a session's identifier. */
export const SID_BYTES = 16;
/** Octets of a ticket's secret. */
export const SECRET_BYTES = 32;
/** Octets of the client's nonce. */
export const NONCE_BYTES = 16;
/** Generations are 32 bits wide. */
export const GENERATION_MAX = 0xffff_ffff;

/** What lets one attach to a session: whoever has it has the session. */
export interface Ticket {
  readonly sid: Uint8Array;
  readonly generation: number;
  /** 32 octets; of no use once a newer one is stored. */
  readonly secret: Uint8Array;
}

/**
 * `replace` closes every other connection of the session, `add` joins them; `recall` replaces them for a client that has lost its memory, and is told of its streams.
 */
export type AttachMode = keyof typeof MODES;

/** Each mode with its octet in {@link proveAttach}. */
const MODES = { replace: 0, add: 1, recall: 2 } as const;

/** What is claimed on the line ATTACH. */
export interface AttachClaim {
  readonly sid: Uint8Array;
  readonly generation: number;
  readonly mode: AttachMode;
  /** Octets of the server's log that the client has received contiguously; 0 with `recall`, which has lost count. */
  readonly received: number;
  readonly nonce: Uint8Array;
}

/** A claim and what proves it. */
export interface AttachRequest extends AttachClaim {
  readonly proof: Uint8Array;
}

/** What the server says of the session that is attached to. */
export interface Attached {
  /** The next ticket: the client stores it before it says so. */
  readonly generation: number;
  readonly secret: Uint8Array;
  /** Octets of the client's log that the server has received contiguously. */
  readonly received: number;
  /** Where the server's log begins now. */
  readonly base: number;
  /** How far the client's log may go. */
  readonly limit: number;
}

/** What DETACHABLE was answered with. */
export interface DetachableGrant extends Ticket {
  /** How long the session is kept without a connection. */
  readonly ttlSeconds: number;
  /** Octets that the server holds for it meanwhile. */
  readonly queueBytes: number;
}

/** All that a server keeps of a secret: it can check a proof with it, and make none. */
export function storedForm({ sid, generation, secret }: Ticket): Uint8Array {
  return createHash("sha256").update(STORED).update(sid).update(u32(generation)).update(secret).digest();
}

/** The client's proof, for the connection with this exporter. */
export function proveAttach(ticket: Ticket, claim: AttachClaim, binding: Uint8Array): Uint8Array {
  return xor(ticket.secret, mask(storedForm(ticket), claim, binding));
}

/** True when the proof was made with the secret of which `stored` is kept. Takes the same time whether it is or not. */
export function isProved({ proof, ...claim }: AttachRequest, stored: Uint8Array, binding: Uint8Array): boolean {
  const secret = xor(proof, mask(stored, claim, binding));
  return timingSafeEqual(storedForm({ ...claim, secret }), stored);
}

/** The server's proof of what it answers: without it a client would give up its log, or its ticket, to whoever stands in between. */
export function serverProof(
  stored: Uint8Array,
  claim: AttachClaim,
  { received, base, generation }: Pick<Attached, "received" | "base" | "generation">,
  binding: Uint8Array,
): Uint8Array {
  return createHmac("sha256", stored)
    .update("server\0")
    .update(message(claim, binding))
    .update(u64(received))
    .update(u64(base))
    .update(u32(generation))
    .digest();
}

function mask(stored: Uint8Array, claim: AttachClaim, binding: Uint8Array): Uint8Array {
  return createHmac("sha256", stored).update("client\0").update(message(claim, binding)).digest();
}

/** `am` of PROTOCOL §4.8. */
function message({ sid, generation, mode, received, nonce }: AttachClaim, binding: Uint8Array): Uint8Array {
  return Buffer.concat([AUTH, binding, sid, u32(generation), Buffer.of(MODES[mode]), u64(received), nonce]);
}

const STORED = "fived-attach-stored-v1\0";
const AUTH = Buffer.from("fived-attach-auth-v1\0");

// ---- lines

/** The line with which a client attaches, without CRLF. */
export function attachLine({ sid, generation, mode, received, nonce, proof }: AttachRequest): string {
  return `ATTACH 1 ${text(sid)} ${generation} ${mode} ${received} ${text(nonce)} ${text(proof)}`;
}

/** Reads what stands behind ATTACH; undefined when it is ill-formed. */
export function parseAttach(args: readonly string[]): AttachRequest | undefined {
  const [version, sidText, generationText, mode, receivedText, nonceText, proofText, ...more] = args;
  const sid = octets(sidText, SID_BYTES);
  const generation = number(generationText, GENERATION_MAX);
  const received = number(receivedText, Number.MAX_SAFE_INTEGER);
  const nonce = octets(nonceText, NONCE_BYTES);
  const proof = octets(proofText, SECRET_BYTES);
  if (version !== "1" || more.length > 0 || mode === undefined || !isMode(mode)) return undefined;
  if (sid === undefined || generation === undefined || received === undefined) return undefined;
  if (nonce === undefined || proof === undefined) return undefined;
  if (mode === "recall" && received !== 0) return undefined;
  return { sid, generation, mode, received, nonce, proof };
}

function isMode(word: string): word is AttachMode {
  return Object.hasOwn(MODES, word);
}

/** The line with which a server answers ATTACH, without CRLF. */
export function attachedLine({ generation, secret, received, base, limit }: Attached, proof: Uint8Array): string {
  return `+ ATTACHED ${generation} ${text(secret)} ${received} ${base} ${limit} ${text(proof)}`;
}

/** Reads it; undefined when it is none. What it says is to be believed once its proof is {@link serverProof}. */
export function parseAttached(line: string): (Attached & { readonly proof: Uint8Array }) | undefined {
  const [plus, word, generationText, secretText, receivedText, baseText, limitText, proofText, ...more] =
    line.split(" ");
  const generation = number(generationText, GENERATION_MAX);
  const secret = octets(secretText, SECRET_BYTES);
  const received = number(receivedText, Number.MAX_SAFE_INTEGER);
  const base = number(baseText, Number.MAX_SAFE_INTEGER);
  const limit = number(limitText, Number.MAX_SAFE_INTEGER);
  const proof = octets(proofText, SECRET_BYTES);
  if (plus !== "+" || word !== "ATTACHED" || more.length > 0 || generation === undefined) return undefined;
  if (secret === undefined || proof === undefined) return undefined;
  if (received === undefined || base === undefined || limit === undefined) return undefined;
  return { generation, secret, received, base, limit, proof };
}

/** The line with which a server answers DETACHABLE, without CRLF. */
export function detachableLine({ sid, generation, secret, ttlSeconds, queueBytes }: DetachableGrant): string {
  return `+ DETACHABLE ${text(sid)} ${generation} ${text(secret)} ${ttlSeconds} ${queueBytes}`;
}

/** Reads it; undefined when it is none. */
export function parseDetachable(line: string): DetachableGrant | undefined {
  const [plus, word, sidText, generationText, secretText, ttlText, queueText, ...more] = line.split(" ");
  const sid = octets(sidText, SID_BYTES);
  const generation = number(generationText, GENERATION_MAX);
  const secret = octets(secretText, SECRET_BYTES);
  const ttlSeconds = number(ttlText, GENERATION_MAX);
  const queueBytes = number(queueText, Number.MAX_SAFE_INTEGER);
  if (plus !== "+" || word !== "DETACHABLE" || more.length > 0) return undefined;
  if (sid === undefined || generation === undefined || secret === undefined) return undefined;
  if (ttlSeconds === undefined || queueBytes === undefined) return undefined;
  return { sid, generation, secret, ttlSeconds, queueBytes };
}

function text(bytes: Uint8Array): string {
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength).toString("base64url");
}

/** Exactly so many octets, in their one form of base64url. */
function octets(written: string | undefined, bytes: number): Uint8Array | undefined {
  if (written === undefined || written.length !== Math.ceil((bytes * 4) / 3)) return undefined;
  const read = Buffer.from(written, "base64url");
  return read.length === bytes && read.toString("base64url") === written ? read : undefined;
}

/** A decimal number in its one form: no sign, no leading zero, nothing but digits. */
function number(written: string | undefined, max: number): number | undefined {
  if (written === undefined || !/^(?:0|[1-9]\d{0,15})$/.test(written)) return undefined;
  const value = Number(written);
  return value <= max ? value : undefined;
}

function xor(one: Uint8Array, other: Uint8Array): Uint8Array {
  return one.map((octet, at) => octet ^ (other[at] ?? 0));
}

function u32(value: number): Uint8Array {
  const bytes = Buffer.alloc(4);
  bytes.writeUInt32BE(value);
  return bytes;
}

function u64(value: number): Uint8Array {
  const bytes = Buffer.alloc(8);
  bytes.writeBigUInt64BE(BigInt(value));
  return bytes;
}
