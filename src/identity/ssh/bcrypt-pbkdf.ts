/**
 * bcrypt_pbkdf (OpenBSD): how OpenSSH makes the key of an encrypted key file from a passphrase. Nothing in node has it. Blowfish's tables
 * are the digits of pi, and are computed here rather than printed.
 * @module
 */
import { createHash } from "node:crypto";

/** Makes `length` octets of a passphrase. `rounds` is the work: 16 are some 100 ms. */
export function bcryptPbkdf(passphrase: Uint8Array, salt: Uint8Array, rounds: number, length: number): Uint8Array {
  const hashed = sha512(passphrase);
  const key = new Uint8Array(length);
  const stride = Math.ceil(length / HASH_BYTES);
  for (let block = 0; block < stride; block++) {
    const counter = Uint8Array.of(0, 0, 0, block + 1);
    let made = bcryptHash(hashed, sha512(Buffer.concat([salt, counter])));
    const sum = made.slice();
    for (let round = 1; round < rounds; round++) {
      made = bcryptHash(hashed, sha512(made));
      for (let at = 0; at < HASH_BYTES; at++) sum[at] = (sum[at] ?? 0) ^ (made[at] ?? 0);
    }
    // Not one block behind the other: octets of all blocks take turns, so that each part of the key costs all of the work.
    for (let at = 0; at * stride + block < length; at++) key[at * stride + block] = sum[at] ?? 0;
    sum.fill(0);
    made.fill(0);
  }
  hashed.fill(0);
  return key;
}

const HASH_BYTES = 32;
/** P-array and the four S-boxes behind one another. */
const P_WORDS = 18;
const TABLE_WORDS = P_WORDS + 4 * 256;
const TEXT = "OxychromaticBlowfishSwatDynamite";
const TIMES = 64;

let pi: Uint32Array | undefined;

function bcryptHash(passphrase: Uint8Array, salt: Uint8Array): Uint8Array {
  pi ??= digitsOfPi();
  const table = pi.slice();
  const passwords = words(passphrase);
  const salts = words(salt);
  expand(table, passwords, salts);
  for (let time = 0; time < TIMES; time++) {
    expand(table, salts, NOTHING);
    expand(table, passwords, NOTHING);
  }
  const text = words(Buffer.from(TEXT, "latin1"));
  for (let at = 0; at < text.length; at += 2) for (let time = 0; time < TIMES; time++) encipher(table, text, at);
  const made = new Uint8Array(HASH_BYTES);
  const view = new DataView(made.buffer);
  for (const [at, word] of text.entries()) view.setUint32(4 * at, word, true);
  table.fill(0);
  passwords.fill(0);
  return made;
}

const NOTHING = new Uint32Array(16);

/** Blowfish's key schedule: the key goes into the P-array, then everything is replaced by what it enciphers the salt to. */
function expand(table: Uint32Array, key: Uint32Array, salt: Uint32Array): void {
  for (let at = 0; at < P_WORDS; at++) table[at] = (table[at] ?? 0) ^ (key[at % key.length] ?? 0);
  const pair = new Uint32Array(2);
  for (let at = 0; at < TABLE_WORDS; at += 2) {
    pair[0] = (pair[0] ?? 0) ^ (salt[at % salt.length] ?? 0);
    pair[1] = (pair[1] ?? 0) ^ (salt[(at + 1) % salt.length] ?? 0);
    encipher(table, pair, 0);
    table.set(pair, at);
  }
}

/** Enciphers two words of `data`. */
function encipher(table: Uint32Array, data: Uint32Array, at: number): void {
  let left = (data[at] ?? 0) ^ (table[0] ?? 0);
  let right = data[at + 1] ?? 0;
  for (let round = 1; round <= 16; round++) {
    const sum = (table[P_WORDS + (left >>> 24)] ?? 0) + (table[P_WORDS + 256 + ((left >>> 16) & 255)] ?? 0);
    const mixed = sum ^ (table[P_WORDS + 512 + ((left >>> 8) & 255)] ?? 0);
    const next = right ^ (mixed + (table[P_WORDS + 768 + (left & 255)] ?? 0)) ^ (table[round] ?? 0);
    right = left;
    left = next;
  }
  data[at] = right ^ (table[17] ?? 0);
  data[at + 1] = left;
}

/** Octets as big-endian words. */
function words(octets: Uint8Array): Uint32Array {
  const view = new DataView(octets.buffer, octets.byteOffset, octets.byteLength);
  return Uint32Array.from({ length: octets.length / 4 }, (_, at) => view.getUint32(4 * at));
}

/** The binary digits of pi behind the point, by Machin's formula: pi = 16 arctan(1/5) - 4 arctan(1/239). */
function digitsOfPi(): Uint32Array {
  const guard = 64n;
  const one = 1n << (BigInt(32 * TABLE_WORDS) + guard);
  const arctan = (inverse: bigint): bigint => {
    let sum = 0n;
    let sign = 1n;
    for (let term = one / inverse, n = 1n; term > 0n; term /= inverse * inverse, n += 2n, sign = -sign)
      sum += (sign * term) / n;
    return sum;
  };
  const fraction = ((16n * arctan(5n) - 4n * arctan(239n)) % one) >> guard;
  return words(Buffer.from(fraction.toString(16).padStart(8 * TABLE_WORDS, "0"), "hex"));
}

function sha512(content: Uint8Array): Buffer {
  return createHash("sha512").update(content).digest();
}
