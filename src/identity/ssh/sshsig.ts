/**
 * What `AUTH pubkey` signs (PROTOCOL §4.6.2): OpenSSH's SSHSIG (its PROTOCOL.sshsig) over a message that names the connection, the host
 * and the user, so that a signature is of no use anywhere else (abuse cases A13, T19). The namespace keeps it from being any other
 * signature of the same key, a login by ssh included.
 * @module
 */
import { createHash } from "node:crypto";
import { joined, string } from "./fields.ts";

/** The namespace of our signatures: what `ssh-keygen -Y verify -n` is given. */
export const SSHSIG_NAMESPACE = "fived-auth";

/** What a signature is bound to. */
export interface PubkeyClaim {
  /** The TLS exporter of the connection, 32 octets (RFC 9266). */
  readonly binding: Uint8Array;
  /** Host in force, canonical; empty for the default host. */
  readonly host: string;
  /** Who it is said to be. */
  readonly user: string;
}

/** The message that the user signs, before SSHSIG hashes it; undefined for a claim that has no right form. */
export function pubkeyMessage({ binding, host, user }: PubkeyClaim): Uint8Array | undefined {
  if (binding.length !== BINDING_BYTES || !SHORT_ASCII.test(host) || !SHORT_ASCII.test(user)) return undefined;
  return joined([Buffer.from("fived-auth-pubkey-v1\0", "latin1"), binding, lp(host), lp(user)]);
}

/** The octets that a key signs for a message. */
export function sshsigOctets(message: Uint8Array, namespace = SSHSIG_NAMESPACE): Uint8Array {
  const hash = createHash(HASH).update(message).digest();
  return joined([Buffer.from("SSHSIG", "latin1"), string(namespace), string(""), string(HASH), string(hash)]);
}

const HASH = "sha512";
const BINDING_BYTES = 32;
/** Names of hosts and users, which a length of one octet has room for. */
const SHORT_ASCII = /^[\x21-\x7e]{0,255}$/;

function lp(text: string): Uint8Array {
  return joined([Uint8Array.of(text.length), Buffer.from(text, "latin1")]);
}
