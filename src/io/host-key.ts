/**
 * A server's public key as OpenSSH writes it (RFC 4253 §6.6, RFC 5656 §3.1, RFC 8709 §4), so that `known_hosts` files, fingerprints and
 * `ssh-keygen` mean the same thing here as they do for ssh. Certificates, chains and trust are not this file's business: only the key
 * inside the certificate is.
 * @module
 */
import { createHash, type KeyObject } from "node:crypto";
import { FivedError } from "./errors.ts";

/** A public key in OpenSSH's wire form. */
export interface HostKey {
  /** `ssh-ed25519`, `ecdsa-sha2-nistp256`, `ecdsa-sha2-nistp384`, `ecdsa-sha2-nistp521` or `ssh-rsa`. */
  readonly type: string;
  /** What stands base64-encoded behind the type in `known_hosts`; begins with the type again. */
  readonly blob: Uint8Array;
}

/** The OpenSSH form of a key from a TLS certificate; throws `HOST_KEY_UNSUPPORTED` for kinds OpenSSH has no name for. */
export function hostKeyOf(key: KeyObject): HostKey {
  switch (key.asymmetricKeyType) {
    case "ed25519": {
      const { x } = key.export({ format: "jwk" });
      return hostKey("ssh-ed25519", [octets(x)]);
    }
    case "ec": {
      const curve = CURVES.get(key.asymmetricKeyDetails?.namedCurve ?? "");
      if (curve === undefined) throw unsupported(`ec ${key.asymmetricKeyDetails?.namedCurve}`);
      const { x, y } = key.export({ format: "jwk" });
      const point = Buffer.concat([UNCOMPRESSED, octets(x), octets(y)]); // JWK pads both to the field's size (RFC 7518 §6.2.1.2)
      return hostKey(`ecdsa-sha2-${curve}`, [Buffer.from(curve), point]);
    }
    case "rsa": {
      const { e, n } = key.export({ format: "jwk" });
      return hostKey("ssh-rsa", [positive(octets(e)), positive(octets(n))]);
    }
    default:
      throw unsupported(key.asymmetricKeyType ?? key.type);
  }
}

/** `SHA256:` and unpadded base64, exactly as `ssh-keygen -l` prints it. */
export function fingerprintOf(key: HostKey): string {
  return `SHA256:${createHash("sha256").update(key.blob).digest("base64").replace(/=+$/, "")}`;
}

/** OpenSSL's names of the curves of RFC 5656 §10.1. */
const CURVES: ReadonlyMap<string, string> = new Map([
  ["prime256v1", "nistp256"],
  ["secp384r1", "nistp384"],
  ["secp521r1", "nistp521"],
]);

/** Leads an uncompressed point (SEC 1 §2.3.3). */
const UNCOMPRESSED = Uint8Array.of(4);

function hostKey(type: string, fields: readonly Uint8Array[]): HostKey {
  const parts = [Buffer.from(type), ...fields].flatMap((field) => {
    const length = Buffer.alloc(4);
    length.writeUInt32BE(field.length);
    return [length, field];
  });
  return { type, blob: new Uint8Array(Buffer.concat(parts)) };
}

/** An SSH mpint (RFC 4251 §5): a set top bit would make it negative, so a zero octet goes before it. */
function positive(number: Uint8Array): Uint8Array {
  return (number[0] ?? 0) >= 0x80 ? Buffer.concat([Uint8Array.of(0), number]) : number;
}

function octets(field: string | undefined): Uint8Array {
  if (field === undefined) throw new Error("Invariant: a JWK of a known kind lacks a field of that kind");
  return Buffer.from(field, "base64url");
}

function unsupported(kind: string): FivedError {
  return new FivedError(
    "HOST_KEY_UNSUPPORTED",
    `Cannot use a host key of kind "${kind}": give the server a certificate with an ed25519, ECDSA P-256/P-384/P-521 or RSA key`,
  );
}
