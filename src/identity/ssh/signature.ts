/**
 * Signatures as SSH writes them (RFC 4253 §6.6, RFC 5656 §3.1.2, RFC 8332, RFC 8709 §6, OpenSSH's PROTOCOL.u2f): making and checking them.
 * What is signed is not this file's business. SHA-1 (`ssh-rsa`, `ssh-dss`) is no signature here.
 * @module
 */
import { createHash, type KeyObject, sign, verify } from "node:crypto";
import { FieldReader, joined, mpint, padded, string, u32 } from "./fields.ts";
import { CURVES, type KeyType, type PublicKey, publicKeyOf } from "./public-key.ts";

/** Each algorithm of a signature, and the only type of key that it suits (abuse case A13). */
export const SIGNATURE_ALGORITHMS = {
  "ssh-ed25519": { keyType: "ssh-ed25519", hash: null },
  "ecdsa-sha2-nistp256": { keyType: "ecdsa-sha2-nistp256", hash: "sha256" },
  "ecdsa-sha2-nistp384": { keyType: "ecdsa-sha2-nistp384", hash: "sha384" },
  "ecdsa-sha2-nistp521": { keyType: "ecdsa-sha2-nistp521", hash: "sha512" },
  "rsa-sha2-512": { keyType: "ssh-rsa", hash: "sha512" },
  "rsa-sha2-256": { keyType: "ssh-rsa", hash: "sha256" },
  "sk-ssh-ed25519@openssh.com": { keyType: "sk-ssh-ed25519@openssh.com", hash: null },
  "sk-ecdsa-sha2-nistp256@openssh.com": { keyType: "sk-ecdsa-sha2-nistp256@openssh.com", hash: "sha256" },
} as const satisfies Record<string, { readonly keyType: KeyType; readonly hash: string | null }>;
/** One of {@link SIGNATURE_ALGORITHMS}. */
export type SignatureAlgorithm = keyof typeof SIGNATURE_ALGORITHMS;

/** A signature that was read. */
export interface Signature {
  readonly algorithm: SignatureAlgorithm;
  /** As node takes it: 64 octets for Ed25519, r and s of equal length for ECDSA, as long as the modulus for RSA. */
  readonly octets: Uint8Array;
  /** Of a security key: what it says happened, signed with the rest. Undefined for others. */
  readonly token: { readonly flags: number; readonly counter: number } | undefined;
}

/** What a security key has to assert for its signature to count. Others assert nothing, and need not. */
export interface Demands {
  /** Somebody touched it. */
  readonly touch: boolean;
  /** It knows by PIN or finger who touched it. */
  readonly verification: boolean;
}

/** What counts unless somebody says otherwise, as in ssh. */
export const TOUCH: Demands = { touch: true, verification: false };
/** Any signature counts: for who looks at {@link meets} later. */
export const NO_DEMANDS: Demands = { touch: false, verification: false };

/** Octets of a signature: 4,096 bits and names around them. */
export const SIGNATURE_BYTES_MAX = 1_024;

/** Reads a signature; undefined for octets that are none, and for algorithms we do not know or trust. */
export function parseSignature(blob: Uint8Array): Signature | undefined {
  if (blob.length > SIGNATURE_BYTES_MAX) return undefined;
  const reader = new FieldReader(blob);
  const algorithm = algorithmOf(reader.name());
  if (algorithm === undefined) return undefined;
  const inner = reader.string();
  const isToken = algorithm.startsWith("sk-");
  const token = isToken ? { flags: reader.u8(), counter: reader.u32() } : undefined;
  const octets = reader.done ? forNode(SIGNATURE_ALGORITHMS[algorithm].keyType, inner) : undefined;
  return octets === undefined ? undefined : { algorithm, octets, token };
}

/** Whether it is this key's signature of these octets, made by an algorithm that suits the key, and asserts what is demanded. */
export function verifySignature(
  key: PublicKey,
  octets: Uint8Array,
  signature: Signature,
  demands: Demands = TOUCH,
): boolean {
  if (!suits(key, signature)) return false;
  const { hash } = SIGNATURE_ALGORITHMS[signature.algorithm];
  const options = { key: key.key, dsaEncoding: "ieee-p1363" } as const;
  return verify(hash, signedOctets(key, octets, signature), options, signature.octets) && meets(signature, demands);
}

/** Whether a signature can be of this key: by its algorithm, and for RSA by its length. */
export function suits({ type, key }: PublicKey, { algorithm, octets }: Signature): boolean {
  if (type !== SIGNATURE_ALGORITHMS[algorithm].keyType) return false;
  // Fewer octets than the modulus has would be padded by OpenSSL: one number must not have two spellings.
  const bits = key.asymmetricKeyDetails?.modulusLength;
  return bits === undefined || octets.length === Math.ceil(bits / 8);
}

/** Whether a signature asserts what is demanded. Says nothing about whether it is right. */
export function meets({ token }: Signature, { touch, verification }: Demands): boolean {
  if (token === undefined) return true;
  return (!touch || (token.flags & TOUCHED) !== 0) && (!verification || (token.flags & VERIFIED) !== 0);
}

/** Signs; undefined for a key of no kind we know. RSA signs with SHA-512. */
export function signOctets(key: KeyObject, octets: Uint8Array): Uint8Array | undefined {
  const type = publicKeyOf(key)?.type;
  const algorithm = type === "ssh-rsa" ? "rsa-sha2-512" : algorithmOf(type ?? "");
  if (algorithm === undefined) return undefined;
  const made = sign(SIGNATURE_ALGORITHMS[algorithm].hash, octets, { key, dsaEncoding: "ieee-p1363" });
  const inner = key.asymmetricKeyType === "ec" ? twoNumbers(made) : made;
  return joined([string(algorithm), string(inner)]);
}

/** Flags of a security key (CTAP2 §6.1). */
const TOUCHED = 0x01;
const VERIFIED = 0x04;

const ED25519_SIGNATURE_BYTES = 64;

function algorithmOf(name: string): SignatureAlgorithm | undefined {
  return isAlgorithm(name) ? name : undefined;
}

function isAlgorithm(name: string): name is SignatureAlgorithm {
  return Object.hasOwn(SIGNATURE_ALGORITHMS, name);
}

function forNode(type: KeyType, inner: Uint8Array): Uint8Array | undefined {
  if (type === "ssh-rsa") return inner.slice();
  const curve = CURVES.get(type);
  if (curve === undefined) return inner.length === ED25519_SIGNATURE_BYTES ? inner.slice() : undefined;
  const reader = new FieldReader(inner);
  const r = padded(reader.positive(), curve.bytes);
  const s = padded(reader.positive(), curve.bytes);
  return r === undefined || s === undefined || !reader.done ? undefined : joined([r, s]);
}

/** What a signature is made over: the octets, or what a security key makes of them (PROTOCOL.u2f, "SSH U2F signatures"). */
function signedOctets({ application }: PublicKey, octets: Uint8Array, { token }: Signature): Uint8Array {
  if (token === undefined) return octets;
  const hashed = (content: Uint8Array) => createHash("sha256").update(content).digest();
  return joined([hashed(application), Uint8Array.of(token.flags), u32(token.counter), hashed(octets)]);
}

function twoNumbers(made: Uint8Array): Uint8Array {
  const half = made.length / 2;
  return joined([mpint(made.subarray(0, half)), mpint(made.subarray(half))]);
}
