/**
 * Which SSH keys somebody has, and which to try first: as ssh does it (ssh_config(5), IdentityFile and IdentitiesOnly). Files are opened
 * here, passphrases asked for when a key is used, and agents spoken to by `agent.ts`. What is signed, and for whom, is PROTOCOL §4.6.2's.
 * @module
 */
import type { KeyObject } from "node:crypto";
import { constants } from "node:fs";
import { open } from "node:fs/promises";
import path from "node:path";
import {
  type Certificate,
  certifiedTypeOf,
  fromBase64,
  KEY_FILE_BYTES_MAX,
  keyFingerprint,
  NO_DEMANDS,
  type PubkeyClaim,
  type PublicKey,
  parseCertificate,
  parsePublicKey,
  parsePublicKeyLine,
  parseSignature,
  pubkeyMessage,
  readPrivateKey,
  signOctets,
  sshsigOctets,
  verifySignature,
} from "../../identity/index.ts";
import { FivedError } from "../../io/index.ts";
import { type AgentKey, agentKeys, agentSign } from "./agent.ts";
import type { Signer } from "./signer.ts";

/** A key that can sign. */
export interface SshKey {
  readonly key: PublicKey;
  /** What an authority says of the key; undefined where the key speaks for itself. */
  readonly certificate: Certificate | undefined;
  /** Where it comes from, for messages: a file's path, or the agent's comment. */
  readonly comment: string;
  /** A signature of these octets in SSH's form; rejects with `KEY_UNUSABLE`, or as the agent does. */
  sign(octets: Uint8Array, signal?: AbortSignal): Promise<Uint8Array>;
}

/** Where to look for keys. */
export interface SshKeysOptions {
  /** Files that were named, `-i`: their keys come first, and those of {@link SshKeysOptions.folder} are left alone. */
  readonly identityFiles?: readonly string[];
  /** `-o IdentitiesOnly=yes`: no keys of the agent but those whose files are named or in the folder. */
  readonly identitiesOnly?: boolean;
  /** The agent's socket (`agentSocket`); undefined for none. */
  readonly agent?: string | undefined;
  /** Where keys lie that nobody named: `~/.ssh`. */
  readonly folder: string;
  /** Asks for a file's passphrase; undefined from it, or where it is missing, for a key that stays shut. The octets are wiped. */
  readonly passphrase?: (file: string) => Promise<Uint8Array | undefined>;
  /** Told why a key is passed over. */
  readonly log?: (line: string) => void;
  readonly signal?: AbortSignal;
}

/** Names of keys in the folder, best first. */
export const DEFAULT_NAMES = ["id_ed25519", "id_ecdsa", "id_rsa"] as const;

/**
 * Keys in the order in which to try them: files that were named, then the agent's others, then files of the folder; each behind its
 * certificates. A key that both a file and the agent have is used through the agent, which asks for no passphrase. Rejects with
 * `KEY_UNUSABLE` when a file that was named cannot be used; everything else that fails is passed over, and logged.
 */
export async function sshKeys(options: SshKeysOptions): Promise<readonly SshKey[]> {
  const { identityFiles = [], identitiesOnly = false, folder, log } = options;
  const held = await agentKeysOf(options);
  const named = identityFiles.length > 0;
  const files = named ? identityFiles : DEFAULT_NAMES.map((name) => path.join(folder, name));
  const found: SshKey[] = [];
  for (const file of files) {
    try {
      found.push(...(await keysOfFile(file, held, options)));
    } catch (cause) {
      if (named || !(cause instanceof FivedError)) throw cause;
      if (!isMissing(cause.cause)) log?.(cause.message);
    }
  }
  const others = identitiesOnly ? [] : held.flatMap((each) => keyOfAgent(each, options) ?? []);
  return unique(named ? [...found, ...others] : [...others, ...found]);
}

/** The key as what signs for a person who signs in: its words, and the lines of its certificate where the server asks for them. */
export function signerOf(key: SshKey, { identityFiles = [] }: Pick<SshKeysOptions, "identityFiles"> = {}): Signer {
  const lines = certificateLines(key);
  const fingerprint = keyFingerprint(key.key.blob);
  return {
    // Without a digest of the certificate, which is a new one every day in some places.
    fingerprint: lines.length === 0 ? fingerprint : `${fingerprint}-cert`,
    comment: key.comment,
    ...(identityFiles.includes(key.comment) ? { file: key.comment } : {}),
    authWords: async (claim) => (await authWords(key, claim)).join(" "),
    answer(question) {
      const [, line, of] = /^certificate ([0-9]{1,2})\/([0-9]{1,2})$/.exec(question) ?? [];
      return Number(of) === lines.length ? lines[Number(line) - 1] : undefined;
    },
  };
}

/** What stands behind `AUTH pubkey` (PROTOCOL §4.6.2), with a signature made now. */
export async function authWords(key: SshKey, claim: PubkeyClaim, signal?: AbortSignal): Promise<readonly string[]> {
  const message = pubkeyMessage(claim);
  if (message === undefined) throw new Error(`Invariant: "${claim.user}" at "${claim.host}" cannot be signed for`);
  const signature = Buffer.from(await key.sign(sshsigOctets(message), signal)).toString("base64url");
  const words = [claim.user, keyFingerprint(key.key.blob), signature];
  const lines = certificateLines(key).length;
  return lines === 0 ? words : [...words, `cert:${lines}`];
}

/** A certificate as answers, none where there is no certificate. */
function certificateLines({ certificate }: SshKey): readonly string[] {
  const text = certificate === undefined ? "" : Buffer.from(certificate.blob).toString("base64url");
  return text.match(LINE) ?? [];
}

/** As much as a line holds (PROTOCOL §3.1). */
const LINE = /.{1,1024}/g;

async function agentKeysOf({ agent, log, signal }: SshKeysOptions): Promise<readonly AgentKey[]> {
  if (agent === undefined) return [];
  try {
    return await agentKeys(agent, { signal });
  } catch (cause) {
    if (!(cause instanceof FivedError) || cause.code === "ABORTED") throw cause;
    log?.(cause.message);
    return [];
  }
}

/** A key of the agent; undefined for kinds that are not known here. */
function keyOfAgent({ blob, comment }: AgentKey, { agent = "", log }: SshKeysOptions): SshKey | undefined {
  const certificate = certificateOf(blob, comment, log);
  const key = certificate?.key ?? parsePublicKey(blob);
  if (key === undefined) return undefined;
  return {
    key,
    certificate,
    comment,
    sign: async (octets, signal) => checked(key, octets, await agentSign(agent, blob, octets, { signal }), comment),
  };
}

/** The keys of one file: with the certificate beside it first, then the bare one. */
async function keysOfFile(
  file: string,
  held: readonly AgentKey[],
  options: SshKeysOptions,
): Promise<readonly SshKey[]> {
  const bare: SshKey = { certificate: undefined, comment: file, ...(await opened(file, held, options)) };
  const name = `${file.replace(/\.pub$/, "")}-cert.pub`;
  const [type = "", base64 = ""] = (await readPublic(name)).trim().split(/[ \t]+/);
  const blob = certifiedTypeOf(type) === undefined ? undefined : fromBase64(base64);
  const certificate = blob && certificateOf(blob, name, options.log);
  if (certificate === undefined || !same(certificate.key.blob, bare.key.blob)) return [bare];
  return [{ ...bare, certificate }, bare];
}

/** The public half of a key file, and what signs with it: the agent where it has the key, else the file, opened when it is needed. */
async function opened(file: string, held: readonly AgentKey[], options: SshKeysOptions): Promise<KeyAndSign> {
  const beside = parsePublicKeyLine(await readPublic(`${file}.pub`))?.key;
  const ofAgent = beside && heldBy(beside, held, options);
  if (ofAgent !== undefined) return ofAgent;

  const octets = await readKeyFile(file);
  try {
    const named = parsePublicKeyLine(Buffer.from(octets).toString("latin1"))?.key;
    if (named !== undefined) {
      const found = heldBy(named, held, options);
      if (found === undefined) throw unusable(file, "it is a public key, and no ssh-agent has the private one");
      return found;
    }
    const found = readPrivateKey(octets);
    if (found.type === "unusable") throw unusable(file, found.why);
    if (found.type === "key")
      return heldBy(found.publicKey, held, options) ?? openKey(file, found.publicKey, found.key);
    // Encrypted. Which key it is stands beside it, or outside of what is encrypted; only an old form without either asks now.
    const key = (found.type === "encrypted" ? found.publicKey : undefined) ?? beside;
    if (key !== undefined) return heldBy(key, held, options) ?? lockedKey(file, key, options);
    if (!options.identityFiles?.includes(file)) throw unusable(file, ENCRYPTED);
    const unlocked = await unlock(file, options);
    return openKey(file, unlocked.publicKey, unlocked.key);
  } finally {
    octets.fill(0);
  }
}

type KeyAndSign = Pick<SshKey, "key" | "sign">;

/** The agent's half of that key; undefined where it does not have it. */
function heldBy(key: PublicKey, held: readonly AgentKey[], options: SshKeysOptions): KeyAndSign | undefined {
  const found = held.find(({ blob }) => same(blob, key.blob));
  const ofAgent = found && keyOfAgent(found, options);
  return ofAgent && { key: ofAgent.key, sign: ofAgent.sign };
}

function openKey(file: string, key: PublicKey, secret: KeyObject): KeyAndSign {
  return { key, sign: async (octets) => checked(key, octets, signOctets(secret, octets), file) };
}

/** Asks for the passphrase with the first signature, and not again. */
function lockedKey(file: string, key: PublicKey, options: SshKeysOptions): KeyAndSign {
  let secret: KeyObject | undefined;
  return {
    key,
    async sign(octets) {
      if (secret === undefined) {
        const unlocked = await unlock(file, options);
        if (!same(unlocked.publicKey.blob, key.blob)) throw unusable(file, "it was replaced just now");
        secret = unlocked.key;
      }
      return checked(key, octets, signOctets(secret, octets), file);
    },
  };
}

/** How often a passphrase is asked for, as ssh does. */
const PASSPHRASE_TRIES = 3;

const ENCRYPTED = "it is encrypted; add it to an ssh-agent with ssh-add, or give its passphrase";

async function unlock(
  file: string,
  { passphrase: ask }: SshKeysOptions,
): Promise<{ readonly key: KeyObject; readonly publicKey: PublicKey }> {
  for (let tries = 0; tries < PASSPHRASE_TRIES; tries++) {
    const passphrase = await ask?.(file);
    if (passphrase === undefined) throw unusable(file, ENCRYPTED);
    const octets = await readKeyFile(file);
    try {
      const found = readPrivateKey(octets, passphrase);
      if (found.type === "key") return found;
      if (found.type !== "wrong-passphrase")
        throw unusable(file, found.type === "unusable" ? found.why : "it is damaged");
    } finally {
      octets.fill(0);
      passphrase.fill(0);
    }
  }
  throw unusable(file, `its passphrase was wrong ${PASSPHRASE_TRIES} times`);
}

/** The signature, if it is one that a server could accept: an agent may know only SHA-1, or answer with another key. */
function checked(key: PublicKey, octets: Uint8Array, made: Uint8Array | undefined, where: string): Uint8Array {
  const signature = made && parseSignature(made);
  if (made === undefined || signature === undefined || !verifySignature(key, octets, signature, NO_DEMANDS))
    throw unusable(where, "what it signs cannot be verified; a newer ssh-agent may help");
  return made;
}

/** A user's certificate that is valid today; another would only cost an attempt. */
function certificateOf(blob: Uint8Array, where: string, log: SshKeysOptions["log"]): Certificate | undefined {
  const certificate = parseCertificate(blob);
  if (certificate === undefined) return undefined;
  const now = BigInt(Math.floor(Date.now() / 1000));
  if (certificate.kind === 1 && now >= certificate.validAfter && now < certificate.validBefore) return certificate;
  log?.(`The certificate in ${where} is passed over: it is no user's, or not valid today`);
  return undefined;
}

/** Each key and certificate once, where it comes first. */
function unique(all: readonly SshKey[]): readonly SshKey[] {
  const seen = new Set<string>();
  return all.filter(({ key, certificate }) => {
    const fingerprint = keyFingerprint(certificate?.blob ?? key.blob);
    return !seen.has(fingerprint) && seen.add(fingerprint);
  });
}

/** The octets of a key file; rejects with `KEY_UNUSABLE` where it cannot be read, or others can read it too. */
async function readKeyFile(file: string): Promise<Uint8Array> {
  try {
    // Non-blocking, so that a FIFO in the file's place cannot hold us.
    await using handle = await open(file, constants.O_RDONLY | constants.O_NONBLOCK);
    const { size, mode, uid } = await handle.stat();
    if (size > KEY_FILE_BYTES_MAX) throw new Error("it is too large for a key");
    const octets = Buffer.alloc(size);
    const { bytesRead } = await handle.read(octets, 0, size, 0);
    const isPublic = parsePublicKeyLine(octets.toString("latin1", 0, bytesRead)) !== undefined;
    if (!isPublic && uid === process.getuid?.() && (mode & 0o077) !== 0) {
      octets.fill(0);
      throw new Error(`others may read it, and may have; chmod 600 ${file}, or make a new key`);
    }
    return octets.subarray(0, bytesRead);
  } catch (cause) {
    throw unusable(file, cause instanceof Error ? cause.message : String(cause), cause);
  }
}

/** The text of a file with something public; empty where there is none to be read. */
async function readPublic(file: string): Promise<string> {
  try {
    await using handle = await open(file, constants.O_RDONLY | constants.O_NONBLOCK);
    const octets = Buffer.alloc(KEY_FILE_BYTES_MAX);
    const { bytesRead } = await handle.read(octets, 0, octets.length, 0);
    return octets.toString("latin1", 0, bytesRead);
  } catch {
    return "";
  }
}

function isMissing(cause: unknown): boolean {
  return cause instanceof Error && "code" in cause && cause.code === "ENOENT";
}

function same(one: Uint8Array, other: Uint8Array): boolean {
  return Buffer.compare(one, other) === 0;
}

function unusable(file: string, why: string, cause?: unknown): FivedError {
  return new FivedError("KEY_UNUSABLE", `Cannot use the key ${file}: ${why}`, { cause });
}
