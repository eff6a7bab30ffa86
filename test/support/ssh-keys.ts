/**
 * SSH keys to test with: made by ssh-keygen, and those of a security key that is a few lines of software.
 * @module
 */
import assert from "node:assert/strict";
import { createHash, generateKeyPairSync, type KeyObject } from "node:crypto";
import fs from "node:fs/promises";
import {
  type PublicKey,
  parsePublicKey,
  parsePublicKeyLine,
  publicKeyOf,
  signOctets,
  sshString,
  sshU32,
} from "../../src/identity/index.ts";
import type { Lab } from "./lab.ts";

/** A key pair that ssh-keygen made. */
export interface KeyPair {
  /** The private key's file; `.pub` is beside it. */
  readonly file: string;
  /** The line of the public key's file. */
  readonly line: string;
  readonly publicKey: PublicKey;
}

/** What ssh-keygen can make that we know, as its arguments. */
export const KINDS: Readonly<Record<string, readonly string[]>> = {
  "ssh-ed25519": ["-t", "ed25519"],
  "ecdsa-sha2-nistp256": ["-t", "ecdsa", "-b", "256"],
  "ecdsa-sha2-nistp384": ["-t", "ecdsa", "-b", "384"],
  "ecdsa-sha2-nistp521": ["-t", "ecdsa", "-b", "521"],
  "ssh-rsa": ["-t", "rsa", "-b", "2048"],
};

/** Makes a key pair. */
export async function makeKey(
  lab: Lab,
  name: string,
  kind: readonly string[] = ["-t", "ed25519"],
  passphrase = "",
): Promise<KeyPair> {
  const file = lab.path(name);
  await keygen(lab, "-q", ...kind, "-N", passphrase, "-C", name, "-f", file);
  const line = (await fs.readFile(`${file}.pub`, "latin1")).trim();
  const publicKey = parsePublicKeyLine(line)?.key;
  assert.ok(publicKey, `we read what ssh-keygen writes: ${line}`);
  return { file, line, publicKey };
}

/** Runs ssh-keygen, which must succeed, and says what it printed. */
export async function keygen(lab: Lab, ...args: readonly string[]): Promise<string> {
  const { status, stdout, stderr } = await lab.run(["ssh-keygen", ...args]);
  assert.equal(status, 0, stderr);
  return stdout.toString();
}

/** Certifies a key with ssh-keygen, and says where the certificate is. */
export async function certify(lab: Lab, ca: KeyPair, key: KeyPair, ...args: readonly string[]): Promise<Uint8Array> {
  await keygen(lab, "-q", "-s", ca.file, "-I", "test", ...args, `${key.file}.pub`);
  const line = await fs.readFile(`${key.file}-cert.pub`, "latin1");
  return Buffer.from(line.split(" ")[1] ?? "", "base64");
}

/** A security key without a chip. */
export class SecurityKey {
  readonly publicKey: PublicKey;
  readonly #key: KeyObject;
  readonly #type: string;
  readonly #application: Uint8Array;
  #counter = 0;

  constructor(kind: "ed25519" | "ecdsa", application = "ssh:") {
    const { privateKey } =
      kind === "ed25519" ? generateKeyPairSync("ed25519") : generateKeyPairSync("ec", { namedCurve: "P-256" });
    this.#key = privateKey;
    this.#type = kind === "ed25519" ? "sk-ssh-ed25519@openssh.com" : "sk-ecdsa-sha2-nistp256@openssh.com";
    this.#application = Buffer.from(application);
    const plain = publicKeyOf(privateKey);
    assert.ok(plain);
    const fields = plain.blob.subarray(sshString(plain.type).length);
    const key = parsePublicKey(Buffer.concat([sshString(this.#type), fields, sshString(this.#application)]));
    assert.ok(key, "we read what a security key shows");
    this.publicKey = key;
  }

  /** Signs; flags 1 is touched, 4 is verified. */
  sign(octets: Uint8Array, flags = 1): Uint8Array {
    this.#counter += 1;
    const asserted = Buffer.concat([Uint8Array.of(flags), sshU32(this.#counter)]);
    const hash = (content: Uint8Array) => createHash("sha256").update(content).digest();
    const made = signOctets(this.#key, Buffer.concat([hash(this.#application), asserted, hash(octets)]));
    assert.ok(made);
    // The inner signature is the one an ordinary key makes: only the name before it and what stands behind it differ.
    const inner = made.subarray(sshString(publicKeyOf(this.#key)?.type ?? "").length);
    return Buffer.concat([sshString(this.#type), inner, asserted]);
  }
}
