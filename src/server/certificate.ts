/**
 * The certificate a server shows and the key behind it: loaded from PEM files, or self-signed and kept in the state folder. Who believes
 * it is for the client's trust store to say (PROTOCOL §2.2, known_hosts). Invariant: what is kept is the key, as clients pin that; the
 * certificate around it is made anew whenever it does not fit.
 * @module
 */
import { createPrivateKey, createPublicKey, generateKeyPairSync, type KeyObject, X509Certificate } from "node:crypto";
import { link, unlink } from "node:fs/promises";
import { isIP } from "node:net";
import { join } from "node:path";
import type { SecureContextOptions } from "node:tls";
import { FivedError, fingerprintOf, type HostKey, hostKeyOf } from "../io/index.ts";
import {
  type FileKind,
  fileUnusable,
  placeFile,
  prepareStateFolder,
  readFileIfThere,
  readFileOf,
} from "./state-file.ts";

/** A certificate with its key, checked to belong together. */
export interface Certificate {
  /** For `tls.createSecureContext`: TLS 1.3 only, AES-128-GCM first. */
  readonly context: SecureContextOptions;
  /** The public key as clients pin it. */
  readonly hostKey: HostKey;
  /** `SHA256:…` of the host key, as `ssh-keygen -l` prints it. */
  readonly fingerprint: string;
  /** Equal for hosts that show the same certificate; `HOST` may move only between those (abuse case H01). */
  readonly group: string;
  /** When clients that check dates stop to accept it. */
  readonly validTo: Date;
}

/** Where a certificate lies. */
export interface CertificateFiles {
  /** PEM: the server's certificate, then any intermediates. */
  readonly certificate: string;
  /** PEM: its private key, not encrypted. */
  readonly key: string;
  /** PEM: authorities whose client certificates are believed. */
  readonly clientCa?: string | undefined;
}

/** AES-128-GCM first: with hardware AES it costs the least CPU per byte, and no attack on it is closer than on the others. */
const CIPHERS = "TLS_AES_128_GCM_SHA256:TLS_AES_256_GCM_SHA384:TLS_CHACHA20_POLY1305_SHA256";
const DAY_MS = 24 * 60 * 60 * 1_000;
/** Trust rests on the pinned key, so the date only has to stay out of the way: ten years. */
const SELF_SIGNED_MS = 3_652 * DAY_MS;
/** A self-signed certificate is made anew this long before it ends. */
const RENEW_MS = 30 * DAY_MS;
/** Clocks of clients may be behind ours. */
const BACKDATE_MS = DAY_MS;
/** RFC 5280 appendix A.1, ub-common-name. */
const COMMON_NAME_MAX = 64;

/** Loads a certificate and its key; throws `CONFIGURATION_BAD` saying which file is wrong, and how to put it right. */
export async function loadCertificate(files: CertificateFiles): Promise<Certificate> {
  const chain = await readFileOf(files.certificate, CONFIGURED);
  const leaf = parseCertificate(chain, files.certificate);
  const keyPem = await readFileOf(files.key, CONFIGURED_KEY);
  const key = parseKey(keyPem, files.key, CONFIGURED_KEY);
  if (!leaf.checkPrivateKey(key)) {
    const why = `it does not belong to the key ${files.key}`;
    throw new FivedError("CONFIGURATION_BAD", `Cannot use the certificate ${files.certificate}: ${why}`);
  }
  if (files.clientCa === undefined) return certificate(leaf, chain, keyPem);
  const clientCa = await readFileOf(files.clientCa, CONFIGURED);
  parseCertificate(clientCa, files.clientCa);
  return certificate(leaf, chain, keyPem, clientCa);
}

/**
 * The server's own certificate for `names`: made on first use and kept as `host.key` and `host.pem` in the state folder. Throws
 * `STATE_UNUSABLE` rather than trust a key that others could have read or placed there, or silently replace one that clients have pinned.
 */
export async function ownCertificate(state: string, names: readonly string[]): Promise<Certificate> {
  await prepareStateFolder(state);
  const keyFile = join(state, "host.key");
  const keyPem = (await readFileIfThere(keyFile, OWN_KEY)) ?? (await makeKey(keyFile));
  const key = parseKey(keyPem, keyFile, OWN_KEY);
  const certificateFile = join(state, "host.pem");
  const kept = await readFileIfThere(certificateFile, OWN);
  if (kept !== undefined) {
    const leaf = attempt(() => new X509Certificate(kept));
    if (leaf !== undefined && fits(leaf, key, names)) return certificate(leaf, kept, keyPem);
  }
  if (key.asymmetricKeyType !== "ed25519") {
    throw fileUnusable(
      OWN_KEY,
      keyFile,
      "it is not an Ed25519 key; name your own certificate under tls in the configuration",
    );
  }
  const made = await selfSigned(key, names);
  await placeFile(certificateFile, made, 0o644);
  return certificate(new X509Certificate(made), made, keyPem);
}

const CONFIGURED: FileKind = { code: "CONFIGURATION_BAD", noun: "certificate", forbidden: 0 };
/** A group such as `ssl-cert` may read a key that the administrator keeps, nobody else. */
const CONFIGURED_KEY: FileKind = { code: "CONFIGURATION_BAD", noun: "key", forbidden: 0o027 };
const OWN: FileKind = { code: "STATE_UNUSABLE", noun: "certificate", forbidden: 0o022 };
const OWN_KEY: FileKind = { code: "STATE_UNUSABLE", noun: "key", forbidden: 0o077 };

function certificate(leaf: X509Certificate, chain: Buffer, key: Buffer, clientCa?: Buffer): Certificate {
  const hostKey = hostKeyOf(leaf.publicKey);
  return {
    context: {
      cert: chain,
      key,
      ...(clientCa === undefined ? {} : { ca: clientCa }),
      minVersion: "TLSv1.3",
      maxVersion: "TLSv1.3",
      ciphers: CIPHERS,
    },
    hostKey,
    fingerprint: fingerprintOf(hostKey),
    group: leaf.fingerprint256,
    validTo: leaf.validToDate,
  };
}

function fits(leaf: X509Certificate, key: KeyObject, names: readonly string[]): boolean {
  return (
    leaf.checkPrivateKey(key) &&
    leaf.validToDate.getTime() - Date.now() > RENEW_MS &&
    names.every((name) => (isIP(name) > 0 ? leaf.checkIP(name) : leaf.checkHost(name)) !== undefined)
  );
}

async function selfSigned(key: KeyObject, names: readonly string[]): Promise<Buffer> {
  const x509 = await importX509();
  const [first = ""] = names;
  const alternatives = names.map((name) => ({
    type: isIP(name) > 0 ? ("ip" as const) : ("dns" as const),
    value: name,
  }));
  const made = await x509.X509CertificateGenerator.createSelfSigned({
    name: [{ CN: [first.length > 0 && first.length <= COMMON_NAME_MAX ? first : "fived"] }],
    notBefore: new Date(Date.now() - BACKDATE_MS),
    notAfter: new Date(Date.now() + SELF_SIGNED_MS),
    keys: {
      privateKey: key.toCryptoKey("Ed25519", true, ["sign"]),
      publicKey: createPublicKey(key).toCryptoKey("Ed25519", true, ["verify"]),
    },
    signingAlgorithm: "Ed25519",
    extensions: [
      new x509.BasicConstraintsExtension(false, undefined, true),
      new x509.KeyUsagesExtension(x509.KeyUsageFlags.digitalSignature, true),
      new x509.ExtendedKeyUsageExtension([x509.ExtendedKeyUsage.serverAuth]),
      ...(names.length === 0 ? [] : [new x509.SubjectAlternativeNameExtension(alternatives)]),
    ],
  });
  return Buffer.from(`${made.toString("pem")}\n`);
}

/**
 * Loads the X.509 library, only where a certificate has to be made: it takes 100 ms. Its dependency tsyringe refuses to load without a
 * Reflect metadata polyfill but finds nothing in it, as no class of the library has constructor parameters to inject: so it gets one that
 * is empty, for as long as it loads.
 */
async function importX509(): Promise<typeof import("@peculiar/x509")> {
  const polyfill = { getMetadata: () => undefined, getOwnMetadata: () => undefined };
  const missing = Object.keys(polyfill).filter((name) => !Reflect.has(Reflect, name));
  for (const name of missing) Reflect.set(Reflect, name, polyfill.getMetadata);
  try {
    return await import("@peculiar/x509");
  } finally {
    for (const name of missing) Reflect.deleteProperty(Reflect, name);
  }
}

/** Makes the key, unless another process of ours is quicker: whichever is placed first is the key of both. */
async function makeKey(file: string): Promise<Buffer> {
  const { privateKey } = generateKeyPairSync("ed25519");
  await placeFile(file, Buffer.from(privateKey.export({ type: "pkcs8", format: "pem" })), 0o600, async (from, to) => {
    await link(from, to).catch((error: NodeJS.ErrnoException) => {
      if (error.code !== "EEXIST") throw error;
    });
    await unlink(from);
  });
  return await readFileOf(file, OWN_KEY);
}

function parseCertificate(pem: Buffer, file: string): X509Certificate {
  const parsed = attempt(() => new X509Certificate(pem));
  if (parsed === undefined) throw fileUnusable(CONFIGURED, file, "it is not a PEM certificate");
  return parsed;
}

function parseKey(pem: Buffer, file: string, kind: FileKind): KeyObject {
  const parsed = attempt(() => createPrivateKey(pem));
  if (parsed !== undefined) return parsed;
  const encrypted = pem.includes("ENCRYPTED");
  throw fileUnusable(
    kind,
    file,
    encrypted ? "it is encrypted; keep it unencrypted, readable by the server alone" : "it is not a PEM private key",
  );
}

function attempt<T>(parse: () => T): T | undefined {
  try {
    return parse();
  } catch {
    return undefined;
  }
}
