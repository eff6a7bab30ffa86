/**
 * OpenSSH's certificates of users (its PROTOCOL.certkeys): an authority's word for which names a key stands for, and until when. Whether
 * the authority is one of ours, and who the certificate is shown by, are questions for whoever asks.
 *
 * A certificate that demands what we do not know (`force-command`, or anything critical that is new) is none: its authority meant to
 * narrow it, and we could not. Extensions only permit things of ssh, and are passed over.
 * @module
 */
import { FieldReader, joined, string } from "./fields.ts";
import { type KeyType, keyFingerprint, keyTypeOf, type PublicKey, parsePublicKey, readKey } from "./public-key.ts";
import { NO_DEMANDS, parseSignature, verifySignature } from "./signature.ts";

/** A certificate that its authority signed. What it says counts where the authority does, and after {@link checkCertificate}. */
export interface Certificate {
  /** The certificate in SSH's form, signature included. */
  readonly blob: Uint8Array;
  /** The key it speaks of. */
  readonly key: PublicKey;
  /** 1 is a user's, 2 a host's. */
  readonly kind: number;
  /** What its authority calls it in logs; printable ASCII. */
  readonly keyId: string;
  readonly serial: bigint;
  /** Names the key may have. Empty meant "any" once; here it means nobody. */
  readonly principals: readonly string[];
  /** Seconds since 1970: valid from the first on, and before the second. */
  readonly validAfter: bigint;
  readonly validBefore: bigint;
  /** Addresses and CIDR ranges it may be used from, comma-separated; undefined for anywhere. */
  readonly sourceAddress: string | undefined;
  /** The security key must know who touches it. */
  readonly verifyRequired: boolean;
  /** Critical options that we cannot honour. */
  readonly unknown: readonly string[];
  readonly authority: PublicKey;
}

/** Octets of a certificate: two RSA keys, a signature and dozens of names. It has to fit the lines of PROTOCOL §4.6.2. */
export const CERTIFICATE_BYTES_MAX = 9_216;
/** Names in one certificate, as OpenSSH has it. */
export const PRINCIPALS_MAX = 256;

/** Reads a certificate; undefined for octets that are none, and for one that its authority did not sign. */
export function parseCertificate(blob: Uint8Array): Certificate | undefined {
  if (blob.length > CERTIFICATE_BYTES_MAX) return undefined;
  const reader = new FieldReader(blob);
  const type = certifiedTypeOf(reader.name());
  if (type === undefined) return undefined;
  reader.string(); // A nonce, against collisions of the authority's hash.
  const keyAt = reader.at;
  if (readKey(type, reader) === undefined) return undefined;
  const key = parsePublicKey(joined([string(type), blob.subarray(keyAt, reader.at)]));
  const serial = reader.u64();
  const kind = reader.u32();
  const keyId = Buffer.from(reader.string()).toString("latin1");
  const principals = readNames(reader.string());
  const validAfter = reader.u64();
  const validBefore = reader.u64();
  const critical = readOptions(reader.string());
  const extensions = readOptions(reader.string());
  reader.string(); // Reserved.
  const authority = parsePublicKey(reader.string());
  const signed = blob.subarray(0, reader.at);
  const signature = parseSignature(reader.string());
  if (!reader.done || key === undefined || authority === undefined || signature === undefined) return undefined;
  if (!verifySignature(authority, signed, signature, NO_DEMANDS)) return undefined;
  if (principals === undefined || critical === undefined || extensions === undefined) return undefined;
  const sourceAddress = optionText(critical.get(SOURCE_ADDRESS));
  if (sourceAddress === undefined && critical.has(SOURCE_ADDRESS)) return undefined;
  return {
    blob: new Uint8Array(blob),
    key,
    kind,
    keyId: keyId.replace(/[^\x20-\x7e]/g, "?"),
    serial,
    principals,
    validAfter,
    validBefore,
    sourceAddress,
    verifyRequired: critical.has(VERIFY_REQUIRED),
    unknown: [...critical.keys()].filter((name) => name !== SOURCE_ADDRESS && name !== VERIFY_REQUIRED),
    authority,
  };
}

/** What a certificate has to be good for. */
export interface CertificateUse {
  /** Now, in milliseconds since 1970. */
  readonly at: number;
  /** It has to have one of these names. */
  readonly principals: readonly string[];
}

/**
 * Why a certificate does not stand for any of these names now, for the log; undefined when it does. The caller knows that its authority
 * counts here, and looks at {@link Certificate.sourceAddress} and {@link Certificate.verifyRequired} itself.
 */
export function checkCertificate(certificate: Certificate, { at, principals }: CertificateUse): string | undefined {
  const { kind, validAfter, validBefore, unknown } = certificate;
  const seconds = BigInt(Math.floor(at / 1000));
  if (kind !== USER) return "it is no user's certificate";
  if (seconds < validAfter) return "it is not valid yet";
  if (seconds >= validBefore) return "it has expired";
  if (unknown.length > 0) return `it demands ${unknown.join(", ")}, which is not understood here`;
  if (!certificate.principals.some((name) => principals.includes(name))) return "it is for other names";
  return undefined;
}

/** Fingerprint of the authority's key. */
export function authorityFingerprint({ authority }: Certificate): string {
  return keyFingerprint(authority.blob);
}

/** The type of the key in a certificate of that type: `ssh-ed25519` for `ssh-ed25519-cert-v01@openssh.com`. */
export function certifiedTypeOf(name: string): KeyType | undefined {
  const [, plain = ""] = /^(.*)-cert-v01@openssh\.com$/.exec(name) ?? [];
  return keyTypeOf(plain) ?? keyTypeOf(`${plain}@openssh.com`);
}

const USER = 1;
const SOURCE_ADDRESS = "source-address";
const VERIFY_REQUIRED = "verify-required";
/** Options of one kind in a certificate: there are half a dozen that anybody uses. */
const OPTIONS_MAX = 64;

function readNames(octets: Uint8Array): readonly string[] | undefined {
  const reader = new FieldReader(octets);
  const names: string[] = [];
  while (reader.left > 0 && names.length < PRINCIPALS_MAX) names.push(reader.name());
  return reader.done ? names : undefined;
}

/** Names and what stands behind them; a name that comes twice would leave open which one counts. */
function readOptions(octets: Uint8Array): ReadonlyMap<string, Uint8Array> | undefined {
  const reader = new FieldReader(octets);
  const options = new Map<string, Uint8Array>();
  while (reader.left > 0) {
    const name = reader.name();
    if (options.has(name) || options.size === OPTIONS_MAX) return undefined;
    options.set(name, reader.string());
  }
  return reader.done ? options : undefined;
}

/** The one string that an option holds; undefined where there is none, or more. */
function optionText(option: Uint8Array | undefined): string | undefined {
  if (option === undefined) return undefined;
  const reader = new FieldReader(option);
  const text = reader.name();
  return reader.done ? text : undefined;
}
