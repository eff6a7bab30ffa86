/**
 * Public keys as SSH writes them (RFC 4253 §6.6, RFC 5656 §3.1, RFC 8709 §4, OpenSSH's PROTOCOL.u2f): from octets to a key that node can
 * use, and back. Weak and exotic keys are no keys here. What a key may do is not this file's business.
 * @module
 */
import { createHash, createPublicKey, type JsonWebKey, type KeyObject } from "node:crypto";
import { FieldReader, fromBase64, joined, mpint, string } from "./fields.ts";

/** Kinds of keys there are. `sk-…` are kept in a security key (FIDO), which wants to be touched. */
export const KEY_TYPES = [
  "ssh-ed25519",
  "ecdsa-sha2-nistp256",
  "ecdsa-sha2-nistp384",
  "ecdsa-sha2-nistp521",
  "ssh-rsa",
  "sk-ssh-ed25519@openssh.com",
  "sk-ecdsa-sha2-nistp256@openssh.com",
] as const;
/** One of {@link KEY_TYPES}. */
export type KeyType = (typeof KEY_TYPES)[number];

/** A public key. */
export interface PublicKey {
  readonly type: KeyType;
  /** The key in SSH's form; begins with the type. */
  readonly blob: Uint8Array;
  readonly key: KeyObject;
  /** Of a security key: what it signs for, `ssh:` or a longer name; empty for others. */
  readonly application: Uint8Array;
}

/** Octets of a public key: an RSA key of 4,096 bits has 535, a security key's application is a short name. */
export const PUBLIC_KEY_BYTES_MAX = 2_048;
/** Less is breakable (NIST SP 800-131A), more only costs the one who verifies. */
export const RSA_BITS = { min: 2_048, max: 4_096 } as const;

/** Reads a public key; undefined for octets that are none, and for keys too weak or of no kind we know. */
export function parsePublicKey(blob: Uint8Array): PublicKey | undefined {
  if (blob.length > PUBLIC_KEY_BYTES_MAX) return undefined;
  const reader = new FieldReader(blob);
  const type = keyTypeOf(reader.name());
  if (type === undefined) return undefined;
  const read = readKey(type, reader);
  return read !== undefined && reader.done ? { type, blob: new Uint8Array(blob), ...read } : undefined;
}

/** Reads a line `type base64 comment`, as `.pub` files have it. */
export function parsePublicKeyLine(line: string): { readonly key: PublicKey; readonly comment: string } | undefined {
  const [, type = "", base64 = "", comment = ""] = /^(\S+)[ \t]+(\S+)(?:[ \t]+(.*))?$/s.exec(line.trim()) ?? [];
  if (keyTypeOf(type) === undefined || base64.length > 2 * PUBLIC_KEY_BYTES_MAX) return undefined;
  const blob = fromBase64(base64);
  const key = blob === undefined ? undefined : parsePublicKey(blob);
  // A line that says one thing and holds another was not written by a tool.
  return key?.type === type ? { key, comment } : undefined;
}

/** The public key of a pair of node's; undefined for kinds SSH has no name for, and for weak ones. */
export function publicKeyOf(key: KeyObject): PublicKey | undefined {
  const fields = fieldsOf(key.type === "private" ? createPublicKey(key) : key);
  return fields === undefined ? undefined : parsePublicKey(joined(fields));
}

/** SHA-256 of the key in SSH's form, as base64url: 43 characters. `ssh-keygen -l` shows the same in base64. */
export function keyFingerprint(blob: Uint8Array): string {
  return createHash("sha256").update(blob).digest("base64url");
}

/** The type of that name; undefined if there is none. */
export function keyTypeOf(name: string): KeyType | undefined {
  return KEY_TYPES.find((type) => type === name);
}

/** Reads what stands behind the type of a key, here and in certificates. */
export function readKey(type: KeyType, reader: FieldReader): Pick<PublicKey, "key" | "application"> | undefined {
  const curve = CURVES.get(type);
  if (type === "ssh-rsa") {
    const e = reader.positive();
    const n = reader.positive();
    return isStrong(n, e) ? imported({ kty: "RSA", n: text(n), e: text(e) }, NONE) : undefined;
  }
  if (curve !== undefined) {
    if (reader.name() !== curve.name) return undefined;
    const point = reader.string();
    // Only the uncompressed form (SEC 1 §2.3.3), as RFC 5656 says; that it lies on the curve is checked by the import.
    if (point[0] !== UNCOMPRESSED || point.length !== 1 + 2 * curve.bytes) return undefined;
    const x = point.subarray(1, 1 + curve.bytes);
    const y = point.subarray(1 + curve.bytes);
    return imported({ kty: "EC", crv: curve.jwk, x: text(x), y: text(y) }, applicationOf(type, reader));
  }
  const point = reader.string();
  if (point.length !== ED25519_BYTES) return undefined;
  return imported({ kty: "OKP", crv: "Ed25519", x: text(point) }, applicationOf(type, reader));
}

/** What a curve is called: in SSH, in JWK and in OpenSSL; and the octets of a coordinate. */
interface Curve {
  readonly name: string;
  readonly jwk: string;
  readonly openssl: string;
  readonly bytes: number;
}

const P256: Curve = { name: "nistp256", jwk: "P-256", openssl: "prime256v1", bytes: 32 };

/** The curve of each type of key that has one. */
export const CURVES: ReadonlyMap<KeyType, Curve> = new Map<KeyType, Curve>([
  ["ecdsa-sha2-nistp256", P256],
  ["ecdsa-sha2-nistp384", { name: "nistp384", jwk: "P-384", openssl: "secp384r1", bytes: 48 }],
  ["ecdsa-sha2-nistp521", { name: "nistp521", jwk: "P-521", openssl: "secp521r1", bytes: 66 }],
  ["sk-ecdsa-sha2-nistp256@openssh.com", P256],
]);

const UNCOMPRESSED = 4;
const ED25519_BYTES = 32;
const NONE = new Uint8Array(0);
/** Octets of a public exponent: 65537 has three, the 35 and 37 of old generators one. A long one is an attack on our time. */
const EXPONENT_BYTES_MAX = 4;

function applicationOf(type: KeyType, reader: FieldReader): Uint8Array {
  return type.startsWith("sk-") ? reader.string().slice() : NONE;
}

function isStrong(n: Uint8Array, e: Uint8Array): boolean {
  const bits = n.length * 8 - (Math.clz32(n[0] ?? 0) - 24);
  const isOdd = (number: Uint8Array) => ((number.at(-1) ?? 0) & 1) === 1;
  if (bits < RSA_BITS.min || bits > RSA_BITS.max || !isOdd(n)) return false;
  return e.length <= EXPONENT_BYTES_MAX && isOdd(e) && !(e.length === 1 && e[0] === 1);
}

function imported(key: JsonWebKey, application: Uint8Array): Pick<PublicKey, "key" | "application"> | undefined {
  try {
    return { key: createPublicKey({ key, format: "jwk" }), application };
  } catch {
    return undefined; // No such point on the curve.
  }
}

function fieldsOf(key: KeyObject): readonly Uint8Array[] | undefined {
  switch (key.asymmetricKeyType) {
    case "ed25519":
      return [string("ssh-ed25519"), string(octets(key.export({ format: "jwk" }).x))];
    case "ec": {
      const named = key.asymmetricKeyDetails?.namedCurve;
      const [type, curve] = [...CURVES].find(([, { openssl }]) => openssl === named) ?? [];
      if (type === undefined || curve === undefined) return undefined;
      const { x, y } = key.export({ format: "jwk" });
      const point = joined([Uint8Array.of(UNCOMPRESSED), octets(x), octets(y)]); // JWK pads both (RFC 7518 §6.2.1.2)
      return [string(type), string(curve.name), string(point)];
    }
    case "rsa": {
      const { e, n } = key.export({ format: "jwk" });
      return [string("ssh-rsa"), mpint(octets(e)), mpint(octets(n))];
    }
    default:
      return undefined;
  }
}

function text(octets: Uint8Array): string {
  return Buffer.from(octets).toString("base64url");
}

function octets(field: string | undefined): Uint8Array {
  if (field === undefined) throw new Error("Invariant: a JWK of a known kind lacks a field of that kind");
  return Buffer.from(field, "base64url");
}
