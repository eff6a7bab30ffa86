/**
 * Keys that nobody has: what a signature is verified against where there is no key to verify it with, so that the work does not tell
 * (abuse case A05).
 * @module
 */
import { generateKeyPairSync, randomBytes } from "node:crypto";
import { joined, mpint, string } from "./fields.ts";
import { type KeyType, type PublicKey, parsePublicKey, publicKeyOf, RSA_BITS } from "./public-key.ts";
import { SIGNATURE_ALGORITHMS, type Signature } from "./signature.ts";

/** A key that a signature could be of by its algorithm and length, and is not; undefined for a length that no key has. */
export function nobodysKey({ algorithm, octets }: Signature): PublicKey | undefined {
  const type = SIGNATURE_ALGORITHMS[algorithm].keyType;
  const bytes = type === "ssh-rsa" ? octets.length : 0;
  if (type === "ssh-rsa" && (bytes < RSA_BITS.min / 8 || bytes > RSA_BITS.max / 8)) return undefined;
  const name = `${type} ${bytes}`;
  const key = keys.get(name) ?? made(type, bytes);
  keys.set(name, key);
  return key;
}

/** As many as there are types, and lengths of RSA keys. */
const keys = new Map<string, PublicKey>();

function made(type: KeyType, bytes: number): PublicKey {
  const key = parsePublicKey(joined(fieldsOf(type, bytes)));
  if (key === undefined) throw new Error(`Invariant: a new key of type ${type} is none`);
  return key;
}

function fieldsOf(type: KeyType, bytes: number): readonly Uint8Array[] {
  switch (type) {
    case "ssh-rsa": {
      // Odd and long is all that the arithmetic asks for: nobody needs its factors.
      const modulus = randomBytes(bytes);
      modulus[0] = (modulus[0] ?? 0) | 0x80;
      modulus[bytes - 1] = (modulus[bytes - 1] ?? 0) | 1;
      return [string(type), mpint(Uint8Array.of(1, 0, 1)), mpint(modulus)];
    }
    case "ecdsa-sha2-nistp256":
      return [elliptic("prime256v1")];
    case "ecdsa-sha2-nistp384":
      return [elliptic("secp384r1")];
    case "ecdsa-sha2-nistp521":
      return [elliptic("secp521r1")];
    case "ssh-ed25519":
      return [edwards()];
    case "sk-ecdsa-sha2-nistp256@openssh.com":
      return [string(type), elliptic("prime256v1").subarray(string("ecdsa-sha2-nistp256").length), string("ssh:")];
    case "sk-ssh-ed25519@openssh.com":
      return [string(type), edwards().subarray(string("ssh-ed25519").length), string("ssh:")];
  }
}

function elliptic(namedCurve: string): Uint8Array {
  return publicKeyOf(generateKeyPairSync("ec", { namedCurve }).publicKey)?.blob ?? NOTHING;
}

function edwards(): Uint8Array {
  return publicKeyOf(generateKeyPairSync("ed25519").publicKey)?.blob ?? NOTHING;
}

const NOTHING = new Uint8Array(0);
