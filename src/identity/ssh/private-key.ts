/**
 * Private key files: OpenSSH's own form (its PROTOCOL.key), with or without a passphrase, and the PEM forms that OpenSSL reads (PKCS #8,
 * PKCS #1, SEC 1). Octets in, key out; where files lie, who may read them and who is asked for passphrases is the client's business.
 *
 * What is secret stays in octets, which are wiped, as far as node's interfaces allow.
 * @module
 */
import { createDecipheriv, createPrivateKey, type KeyObject } from "node:crypto";
import { bcryptPbkdf } from "./bcrypt-pbkdf.ts";
import { FieldReader } from "./fields.ts";
import { CURVES, type KeyType, type PublicKey, parsePublicKey, publicKeyOf } from "./public-key.ts";

/** What a file was found to hold. */
export type PrivateKeyFile =
  | { readonly type: "key"; readonly key: KeyObject; readonly publicKey: PublicKey; readonly comment: string }
  /** A passphrase is needed; of what is encrypted by OpenSSH, the public half can be seen without. */
  | { readonly type: "encrypted"; readonly publicKey: PublicKey | undefined }
  | { readonly type: "wrong-passphrase" }
  /** Why it cannot be used, as the end of a sentence. */
  | { readonly type: "unusable"; readonly why: string };

/** Octets of a key file: RSA with 4,096 bits takes 3,400. */
export const KEY_FILE_BYTES_MAX = 65_536;

/** Reads a key file. The octets are the caller's to wipe, and so is the passphrase. */
export function readPrivateKey(file: Uint8Array, passphrase?: Uint8Array): PrivateKeyFile {
  if (file.length > KEY_FILE_BYTES_MAX) return unusable("it is too large for a key");
  const armour = armoured(file);
  if (armour === undefined) return readPem(file, passphrase);
  try {
    return readOpenSsh(armour, passphrase);
  } finally {
    armour.fill(0);
  }
}

const BEGIN = "-----BEGIN OPENSSH PRIVATE KEY-----";
const END = "-----END OPENSSH PRIVATE KEY-----";
const MAGIC = Buffer.from("openssh-key-v1\0", "latin1");
/** Rounds of bcrypt_pbkdf we sit through: a minute or so. ssh-keygen's default is 24. */
const ROUNDS_MAX = 4_096;
const SALT_BYTES_MAX = 64;

/** Ciphers of key files: what ssh-keygen writes today, and what it wrote until 2013. */
const CIPHERS: ReadonlyMap<string, { readonly key: number; readonly block: number }> = new Map([
  ["aes256-ctr", { key: 32, block: 16 }],
  ["aes256-cbc", { key: 32, block: 16 }],
]);

/** How to get at a key that we cannot read but OpenSSH can. */
const AGENT = "add it to an ssh-agent with ssh-add";

function readOpenSsh(octets: Uint8Array, passphrase: Uint8Array | undefined): PrivateKeyFile {
  const reader = new FieldReader(octets);
  if (Buffer.compare(reader.take(MAGIC.length), MAGIC) !== 0) return unusable(DAMAGED);
  const cipher = reader.name();
  const kdf = reader.name();
  const options = reader.string();
  const count = reader.u32();
  const publicBlob = reader.string();
  const secret = reader.string();
  // Before anything else: some ciphers put a tag behind the rest.
  const isOpen = cipher === "none" && kdf === "none";
  if (!isOpen && /^[a-z]/.test(cipher) && !CIPHERS.has(cipher)) return unusable(`its cipher is ${cipher}: ${AGENT}`);
  if (!reader.done) return unusable(DAMAGED);
  if (count !== 1) return unusable("it holds more than one key");
  const publicKey = parsePublicKey(publicBlob);
  if (publicKey === undefined) return unusable("its kind of key is not known here, or too weak");
  if (publicKey.application.length > 0) return unusable(`its secret is in a security key: ${AGENT}`);
  if (isOpen) return readSecret(publicKey, secret);
  if (kdf !== "bcrypt" || !CIPHERS.has(cipher)) return unusable(DAMAGED);
  if (passphrase === undefined) return { type: "encrypted", publicKey };
  const plain = decrypted(cipher, options, secret, passphrase);
  if (plain === undefined) return unusable(DAMAGED);
  try {
    const found = readSecret(publicKey, plain);
    // Two equal numbers lead the secret part: that they differ is how a wrong passphrase shows.
    return found.type === "unusable" ? { type: "wrong-passphrase" } : found;
  } finally {
    plain.fill(0);
  }
}

const DAMAGED = "it is damaged";

function decrypted(
  cipher: string,
  options: Uint8Array,
  secret: Uint8Array,
  passphrase: Uint8Array,
): Uint8Array | undefined {
  const { key: keyBytes, block } = CIPHERS.get(cipher) ?? { key: 0, block: 1 };
  const reader = new FieldReader(options);
  const salt = reader.string();
  const rounds = reader.u32();
  if (!reader.done || salt.length === 0 || salt.length > SALT_BYTES_MAX) return undefined;
  if (rounds < 1 || rounds > ROUNDS_MAX || secret.length === 0 || secret.length % block !== 0) return undefined;
  const made = bcryptPbkdf(passphrase, salt, rounds, keyBytes + block);
  try {
    const decipher = createDecipheriv(
      cipher.replace("aes256", "aes-256"),
      made.subarray(0, keyBytes),
      made.subarray(keyBytes),
    );
    decipher.setAutoPadding(false);
    return Buffer.concat([decipher.update(secret), decipher.final()]);
  } finally {
    made.fill(0);
  }
}

/** The secret part: two equal numbers, the key, its comment, and 1, 2, 3 … as padding. */
function readSecret(publicKey: PublicKey, octets: Uint8Array): PrivateKeyFile {
  const reader = new FieldReader(octets);
  const [once, again] = [reader.u32(), reader.u32()];
  if (once !== again || reader.name() !== publicKey.type) return unusable(DAMAGED);
  const der = privateDer(publicKey.type, reader);
  const comment = Buffer.from(reader.string()).toString("utf8");
  const padding = reader.take(reader.left);
  const isPadding = padding.every((octet, at) => octet === ((at + 1) & 0xff));
  if (der === undefined || !reader.done || !isPadding) return unusable(DAMAGED);
  try {
    const key = createPrivateKey({ key: der.octets, format: "der", type: der.type });
    // The public half stands in the file twice: if it were another key's, we would sign what nobody could verify.
    return Buffer.compare(publicKeyOf(key)?.blob ?? NOTHING, publicKey.blob) === 0
      ? { type: "key", key, publicKey, comment }
      : unusable(DAMAGED);
  } catch {
    return unusable(DAMAGED);
  } finally {
    der.octets.fill(0);
  }
}

const NOTHING = new Uint8Array(0);

interface Der {
  readonly type: "pkcs8" | "pkcs1" | "sec1";
  readonly octets: Buffer;
}

/** The key as DER: node reads it from octets, where a JWK would be strings. */
function privateDer(type: KeyType, reader: FieldReader): Der | undefined {
  const curve = CURVES.get(type);
  if (type === "ssh-rsa") {
    const [n, e, d, inverse, p, q] = [0, 1, 2, 3, 4, 5].map(() => reader.positive());
    if (n === undefined || e === undefined || d === undefined) return undefined;
    if (inverse === undefined || p === undefined || q === undefined || p.length === 0 || q.length === 0)
      return undefined;
    const remainder = (prime: Uint8Array) => octetsOf(number(d) % (number(prime) - 1n || 1n));
    const numbers = [Uint8Array.of(0), n, e, d, p, q, remainder(p), remainder(q), inverse];
    return { type: "pkcs1", octets: der(0x30, ...numbers.map(integer)) };
  }
  if (curve !== undefined) {
    reader.name();
    reader.string(); // The point, which the import computes.
    const d = reader.positive();
    if (d.length === 0 || d.length > curve.bytes) return undefined;
    const scalar = Buffer.concat([Buffer.alloc(curve.bytes - d.length), d]);
    const parts = [integer(Uint8Array.of(1)), der(0x04, scalar), der(0xa0, OBJECT_IDENTIFIERS[curve.name] ?? NOTHING)];
    return { type: "sec1", octets: der(0x30, ...parts) };
  }
  reader.string(); // The public half, which stands behind the seed again.
  const seed = reader.string().subarray(0, 32);
  if (seed.length !== 32) return undefined;
  const algorithm = der(0x30, Buffer.from("06032b6570", "hex"));
  return { type: "pkcs8", octets: der(0x30, integer(Uint8Array.of(0)), algorithm, der(0x04, der(0x04, seed))) };
}

/** The curves in DER (RFC 5480 §2.1.1.1). */
const OBJECT_IDENTIFIERS: Readonly<Record<string, Buffer>> = {
  nistp256: Buffer.from("06082a8648ce3d030107", "hex"),
  nistp384: Buffer.from("06052b81040022", "hex"),
  nistp521: Buffer.from("06052b81040023", "hex"),
};

/** A value of DER (X.690): its tag, its length, and what it consists of. */
function der(tag: number, ...parts: readonly Uint8Array[]): Buffer {
  const length = parts.reduce((sum, part) => sum + part.length, 0);
  const short = length < 0x100 ? [0x81, length] : [0x82, length >>> 8, length];
  return Buffer.concat([Uint8Array.from([tag, ...(length < 0x80 ? [length] : short)]), ...parts]);
}

function integer(number: Uint8Array): Buffer {
  return der(0x02, (number[0] ?? 0) >= 0x80 ? Uint8Array.of(0) : NOTHING, number);
}

function number(octets: Uint8Array): bigint {
  return BigInt(`0x${Buffer.from(octets).toString("hex")}`);
}

function octetsOf(number: bigint): Uint8Array {
  const digits = number.toString(16);
  return Buffer.from(digits.padStart(digits.length + (digits.length % 2), "0"), "hex");
}

function readPem(file: Uint8Array, passphrase: Uint8Array | undefined): PrivateKeyFile {
  const octets = Buffer.from(file.buffer, file.byteOffset, file.byteLength);
  const isEncrypted = octets.includes("BEGIN ENCRYPTED PRIVATE KEY") || octets.includes("Proc-Type: 4,ENCRYPTED");
  if (!octets.includes("PRIVATE KEY-----")) return unusable("it is no private key");
  if (isEncrypted && passphrase === undefined) return { type: "encrypted", publicKey: undefined };
  try {
    const secret = passphrase === undefined ? {} : { passphrase: Buffer.from(passphrase) };
    const key = createPrivateKey({ key: octets, format: "pem", ...secret });
    const publicKey = publicKeyOf(key);
    if (publicKey === undefined) return unusable("its kind of key is not known here, or too weak");
    return { type: "key", key, publicKey, comment: "" };
  } catch {
    return isEncrypted ? { type: "wrong-passphrase" } : unusable(DAMAGED);
  }
}

/** What stands between OpenSSH's armour; undefined where there is none, empty where it is broken. */
function armoured(file: Uint8Array): Uint8Array | undefined {
  const octets = Buffer.from(file.buffer, file.byteOffset, file.byteLength);
  const begin = octets.indexOf(BEGIN);
  if (begin < 0) return undefined;
  const end = octets.indexOf(END, begin);
  const body = octets.subarray(begin + BEGIN.length, end < 0 ? begin + BEGIN.length : end);
  return fromBase64Octets(body) ?? new Uint8Array(0);
}

const ALPHABET = Buffer.from("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/", "latin1");

/** Base64 from octets to octets: a string of a secret could not be wiped. */
function fromBase64Octets(body: Uint8Array): Uint8Array | undefined {
  const octets = new Uint8Array(Math.ceil((body.length * 3) / 4));
  let length = 0;
  let bits = 0;
  let held = 0;
  for (const character of body) {
    if (character === 0x0a || character === 0x0d || character === 0x20 || character === 0x09) continue;
    if (character === 0x3d) break; // "=", behind which nothing follows
    const digit = ALPHABET.indexOf(character);
    if (digit < 0) return undefined;
    held = ((held << 6) | digit) & 0xffff;
    bits += 6;
    if (bits < 8) continue;
    bits -= 8;
    octets[length++] = held >>> bits;
  }
  const made = octets.slice(0, length);
  octets.fill(0);
  return made;
}

function unusable(why: string): PrivateKeyFile {
  return { type: "unusable", why };
}
