/**
 * An invite (PROTOCOL §4.6): one text that lets one person become a user of a server, once and for a time. It carries the fingerprint of
 * the server's key, so that the first contact is not blind, and a secret, which never crosses: its proof is bound to the connection, the
 * host and the name. Pure; where invites are kept and marked as used is the server's business (`server/auth/invites.ts`).
 *
 * The text is `fived-invite:` and the base64url of
 *
 * ```
 * u8(1) || u64(expiry, in seconds of the wall clock) || fingerprint:32 || secret:32 || lp(user) || lp2(address)
 * ```
 * @module
 */
import { createHash, createHmac } from "node:crypto";

/** What an invite says. */
export interface Invite {
  /** Where the server is, as people write it: `example.org`, `[2001:db8::1]:1079`. */
  readonly address: string;
  /** `SHA256:…` of the server's key, as `ssh-keygen -l` prints it: the key to pin, and no other. */
  readonly fingerprint: string;
  /** 32 octets; wipe them when they are no longer needed. */
  readonly secret: Uint8Array;
  /** Who whoever redeems it becomes. */
  readonly user: string;
  /** When it ends, by the wall clock, in milliseconds; whole seconds. */
  readonly expires: number;
}

/** Text that is no invite: cut off when it was copied, or something else. */
export interface InviteError {
  readonly code: "INVITE_BAD";
}

/** What every invite begins with. */
export const INVITE_PREFIX = "fived-invite:";
/** Octets of an invite's secret. */
export const INVITE_SECRET_BYTES = 32;
/** Characters of an invite at most: what is longer is none, and is not decoded. */
export const INVITE_CHARACTERS_MAX = 1_024;

const VERSION = 1;
const HASH_BYTES = 32;
/** Octets in front of the two texts. */
const FIXED_BYTES = 1 + 8 + HASH_BYTES + INVITE_SECRET_BYTES;
/** A name of 253 characters, brackets and a port; or the path of a Unix socket. */
const ADDRESS_BYTES_MAX = 270;
const ADDRESS = /^[\x21-\x7e]+$/;
const FINGERPRINT_PREFIX = "SHA256:";

/** True for what may be the name of a user: 1 to 64 of `a-z0-9._-`, starting with a letter or digit (PROTOCOL §1.3). */
export function isUserName(text: string): boolean {
  return /^[a-z0-9][a-z0-9._-]{0,63}$/.test(text);
}

/** The text of an invite; throws when its parts are none. */
export function printInvite({ address, fingerprint, secret, user, expires }: Invite): string {
  const hash = readFingerprint(fingerprint);
  const seconds = expires / 1_000;
  if (hash === undefined) throw new RangeError(`Cannot invite: "${fingerprint}" is no SHA256 fingerprint`);
  if (secret.length !== INVITE_SECRET_BYTES) throw new RangeError(`Cannot invite: a secret has 32 octets`);
  if (!isUserName(user)) throw new RangeError(`Cannot invite "${user}": that is no name of a user`);
  if (!isAddress(address)) throw new RangeError(`Cannot invite: "${address}" is no address`);
  if (!Number.isSafeInteger(seconds) || seconds < 0) throw new RangeError("Cannot invite: no whole second of expiry");
  const octets = Buffer.alloc(FIXED_BYTES + 1 + user.length + 2 + address.length);
  octets.writeUInt8(VERSION, 0);
  octets.writeBigUInt64BE(BigInt(seconds), 1);
  octets.set(hash, 9);
  octets.set(secret, 9 + HASH_BYTES);
  octets.writeUInt8(user.length, FIXED_BYTES);
  octets.write(user, FIXED_BYTES + 1, "latin1");
  octets.writeUInt16BE(address.length, FIXED_BYTES + 1 + user.length);
  octets.write(address, FIXED_BYTES + 1 + user.length + 2, "latin1");
  const text = INVITE_PREFIX + octets.toString("base64url");
  octets.fill(0);
  return text;
}

/** Reads the text of an invite; blanks around it, as copying adds them, are no mistake. Whether its time is over is for the caller to see. */
export function parseInvite(text: string): Invite | InviteError {
  if (text.length > INVITE_CHARACTERS_MAX) return BAD;
  const trimmed = text.trim();
  if (!trimmed.startsWith(INVITE_PREFIX)) return BAD;
  const octets = decodeBase64url(trimmed.slice(INVITE_PREFIX.length));
  if (octets === undefined) return BAD;
  try {
    return read(octets) ?? BAD;
  } finally {
    octets.fill(0); // it holds the secret, of which the invite has a copy
  }
}

/**
 * The key with which an invite is proved, and what a server keeps of it: SHA-256 over a prefix and the secret. Whoever reads it could
 * redeem the invite, but not print it again.
 */
export function inviteKey(secret: Uint8Array): Uint8Array {
  return createHash("sha256").update("fived-invite-v1\0").update(secret).digest();
}

/** What a proof is bound to. */
export interface InviteClaim {
  /** The TLS exporter of the connection, 32 octets (PROTOCOL §2.2). */
  readonly binding: Uint8Array;
  /** Host in force, canonical; empty for the default host. */
  readonly host: string;
  readonly user: string;
}

/** The proof's octets: `HMAC-SHA-256(key, "fived-invite-v1\0" || cb || lp(host) || lp(NAME))`. */
export function proveInvite(key: Uint8Array, { binding, host, user }: InviteClaim): Uint8Array {
  const proof = createHmac("sha256", key).update("fived-invite-v1\0").update(binding);
  return proof.update(lengthPrefixed(host)).update(lengthPrefixed(user)).digest();
}

/** The proof as it stands in `AUTH invite NAME proof`, 43 characters of base64url. */
export function inviteProof(secret: Uint8Array, claim: InviteClaim): string {
  const key = inviteKey(secret);
  const proof = Buffer.from(proveInvite(key, claim)).toString("base64url");
  key.fill(0);
  return proof;
}

const BAD: InviteError = { code: "INVITE_BAD" };

function read(octets: Buffer): Invite | undefined {
  if (octets.length < FIXED_BYTES + 1 || octets[0] !== VERSION) return undefined;
  const seconds = octets.readBigUInt64BE(1);
  if (seconds > BigInt(Math.floor(Number.MAX_SAFE_INTEGER / 1_000))) return undefined;
  const userEnd = FIXED_BYTES + 1 + octets.readUInt8(FIXED_BYTES);
  if (octets.length < userEnd + 2 || octets.length !== userEnd + 2 + octets.readUInt16BE(userEnd)) return undefined;
  const user = octets.toString("latin1", FIXED_BYTES + 1, userEnd);
  const address = octets.toString("latin1", userEnd + 2);
  if (!isUserName(user) || !isAddress(address)) return undefined;
  const fingerprint = octets.toString("base64", 9, 9 + HASH_BYTES).replace(/=+$/, "");
  return {
    address,
    fingerprint: FINGERPRINT_PREFIX + fingerprint,
    secret: Uint8Array.from(octets.subarray(9 + HASH_BYTES, FIXED_BYTES)),
    user,
    expires: Number(seconds) * 1_000,
  };
}

function isAddress(text: string): boolean {
  return text.length <= ADDRESS_BYTES_MAX && ADDRESS.test(text);
}

/** The hash in `SHA256:` and unpadded base64; undefined for anything else. */
function readFingerprint(text: string): Buffer | undefined {
  if (!text.startsWith(FINGERPRINT_PREFIX)) return undefined;
  const base64 = text.slice(FINGERPRINT_PREFIX.length);
  const hash = Buffer.from(base64, "base64");
  return hash.length === HASH_BYTES && hash.toString("base64").replace(/=+$/, "") === base64 ? hash : undefined;
}

/** Base64url as PROTOCOL §1.4 wants it: no padding, nothing else, no set bits behind the last octet. */
function decodeBase64url(text: string): Buffer | undefined {
  const octets = Buffer.from(text, "base64url");
  if (octets.toString("base64url") === text) return octets;
  octets.fill(0);
  return undefined;
}

function lengthPrefixed(text: string): Buffer {
  const octets = Buffer.from(text, "utf8");
  if (octets.length > 255) throw new RangeError(`Cannot prove: "${text.slice(0, 32)}…" has more than 255 octets`);
  return Buffer.concat([Buffer.of(octets.length), octets]);
}
