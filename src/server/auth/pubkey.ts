/**
 * AUTH with an SSH key (PROTOCOL §4.6.2): the signature covers the connection, the host and the name, so it is of no use elsewhere (abuse
 * cases A13, T19), and there is nothing to ask for. Keys are those of the user store, those of files as sshd's `authorized_keys`, and those
 * that an authority of ours has certified.
 *
 * Whether somebody is here, and which keys he has, shows only to who holds one of them: until a signature is verified, everything is done
 * for everybody, with a key that nobody has where there is none (abuse case A05).
 * @module
 */
import {
  authorityFingerprint,
  type Certificate,
  checkCertificate,
  fromBase64url,
  keyFingerprint,
  meets,
  NO_DEMANDS,
  nobodysKey,
  type PublicKey,
  parseCertificate,
  parseSignature,
  pubkeyMessage,
  type Signature,
  sshsigOctets,
  suits,
  verifySignature,
} from "../../identity/index.ts";
import { readAddressList } from "./address-list.ts";
import { type AuthorizedKeys, type KeyLine, NO_KEYS, readAuthorizedKeys } from "./authorized-keys.ts";
import type { KeysOf } from "./key-files.ts";
import type { Exchange, Finding, Mechanism, User, Users } from "./mechanism.ts";

/** Where keys come from; without any of them nobody has one. */
export interface PubkeyOptions {
  /** The user store. */
  readonly users?: Users;
  /** Files of keys (`keyFiles`). */
  readonly keysOf?: KeysOf;
  /** Authorities that may certify a key for any name. */
  readonly userCa?: readonly PublicKey[];
  /**
   * Whether a name that the user store has not is somebody of ours: files are forgotten, and an authority certifies names for longer than
   * people stay. Without it a certificate of {@link PubkeyOptions.userCa} needs a user in the store, if there is a store.
   */
  readonly stillKnown?: (name: string) => boolean;
  /** Told why a key that was proved was not enough, and which lines grant nothing. */
  readonly log?: (line: string) => void;
  /** The wall clock, in milliseconds. */
  readonly now?: () => number;
}

/** Lines of a certificate, each an answer: enough for the longest one, and questions are left for what comes behind. */
export const CERTIFICATE_LINES_MAX = 12;

/** The mechanism `pubkey`. */
export class PubkeyMechanism implements Mechanism {
  readonly name = "pubkey";
  readonly #options: PubkeyOptions;
  readonly #userCa: ReadonlySet<string>;
  /** What the lines of each user come to, until the store has new ones. */
  readonly #read = new WeakMap<readonly string[], AuthorizedKeys>();

  constructor(options: PubkeyOptions) {
    this.#options = options;
    this.#userCa = new Set(options.userCa?.map(({ blob }) => keyFingerprint(blob)));
  }

  async authenticate(exchange: Exchange): Promise<Finding | undefined> {
    const { binding, host } = exchange;
    if (binding === undefined) return undefined;
    const claim = await readClaim(exchange);
    if (claim === undefined) return undefined;
    const { name, fingerprint, signature, certificate } = claim;
    const message = pubkeyMessage({ binding, host, user: name });
    const nobodys = nobodysKey(signature);
    if (message === undefined || nobodys === undefined) return undefined;

    const user = this.#options.users?.find(name);
    const sources = [this.#keysOf(user), (await this.#options.keysOf?.(name)) ?? NO_KEYS];
    const lines = sources.flatMap(({ logins }) => logins.get(fingerprint) ?? []);
    const known = certificate?.key ?? lines[0]?.key;
    const likely = known ?? nobodys;
    const key = suits(likely, signature) ? likely : nobodys;
    const isProved = verifySignature(key, sshsigOctets(message), signature, NO_DEMANDS);
    if (!isProved || known === undefined) return undefined;

    const proof: Proof = { name, signature, address: exchange.address, at: this.#options.now?.() ?? Date.now() };
    const granted =
      certificate === undefined
        ? firstGrant(lines.map((line) => grantOf(line, proof)))
        : this.#byCertificate(certificate, proof, sources, user !== undefined);
    const isGone = user === undefined && this.#options.stillKnown?.(name) === false;
    if (granted.type === "granted" && !isGone)
      return {
        user: name,
        groups: user?.groups ?? [],
        roles: [...new Set([...(user?.roles ?? []), ...granted.roles])],
        ...(user === undefined ? {} : { ofStore: true }),
        ...(user !== undefined && certificate === undefined && this.holds(user, fingerprint) && { key: fingerprint }),
      };
    const why = granted.type === "refused" ? granted.why : GONE;
    this.#options.log?.(`The key ${fingerprint} of ${name} was proved, and refused: ${why}`);
    return undefined;
  }

  /** Whether that is a key of the user's own. */
  holds(user: User, fingerprint: string): boolean {
    return this.#keysOf(user).logins.has(fingerprint);
  }

  #byCertificate(certificate: Certificate, proof: Proof, sources: readonly AuthorizedKeys[], isUser: boolean): Grant {
    const narrowed = narrowedBy(certificate, proof);
    if (narrowed !== undefined) return refused(narrowed);
    const authority = authorityFingerprint(certificate);
    const checked = (principals: readonly string[], grant: Grant): Grant => {
      const why = checkCertificate(certificate, { at: proof.at, principals });
      return why === undefined ? grant : refused(`its certificate does not count: ${why}`);
    };
    const lines = sources.flatMap(({ authorities }) => authorities.get(authority) ?? []);
    const grants = lines.map((line) => checked(line.principals ?? [proof.name], grantOf(line, proof)));
    if (this.#userCa.has(authority)) {
      const isOurs = isUser || (this.#options.stillKnown?.(proof.name) ?? this.#options.users === undefined);
      grants.push(checked([proof.name], isOurs ? { type: "granted", roles: [] } : refused(GONE)));
    }
    return grants.length === 0 ? refused("its certificate is of no authority that counts here") : firstGrant(grants);
  }

  #keysOf(user: User | undefined): AuthorizedKeys {
    const texts = user?.keys ?? NO_LINES;
    const read = this.#read.get(texts);
    if (read !== undefined) return read;
    const keys = readAuthorizedKeys(texts);
    this.#read.set(texts, keys);
    for (const { line, reason } of keys.useless)
      this.#options.log?.(`Line ${line} of the keys of ${user?.name} grants nothing: ${reason}`);
    return keys;
  }
}

const NO_LINES: readonly string[] = [];
const GONE = "nobody here has that name";
const UNTOUCHED = "its security key does not say that it was touched, or by whom";

/** Somebody who has shown that he holds a key. */
interface Proof {
  readonly name: string;
  readonly signature: Signature;
  readonly address: string | undefined;
  readonly at: number;
}

/** What a proved key is good for: a login with roles beyond the user's own, or nothing. */
type Grant =
  | { readonly type: "granted"; readonly roles: readonly string[] }
  | { readonly type: "refused"; readonly why: string };

function refused(why: string): Grant {
  return { type: "refused", why };
}

/** The first line that grants counts, as for sshd; where none does, what the first one has against it. */
function firstGrant(grants: readonly Grant[]): Grant {
  return grants.find(({ type }) => type === "granted") ?? grants[0] ?? refused("no line has it");
}

function grantOf({ line, from, expires, touch, verification, roles }: KeyLine, proof: Proof): Grant {
  if (expires !== undefined && proof.at >= expires) return refused(`line ${line} has expired`);
  if (from?.(proof.address) === false) return refused(`line ${line} is not for its address`);
  if (!meets(proof.signature, { touch, verification })) return refused(UNTOUCHED);
  return { type: "granted", roles };
}

/** What a certificate demands of who shows it, and is not given. */
function narrowedBy({ sourceAddress, verifyRequired }: Certificate, { signature, address }: Proof): string | undefined {
  if (!meets(signature, { touch: true, verification: verifyRequired })) return UNTOUCHED;
  if (sourceAddress === undefined) return undefined;
  const list = readAddressList(sourceAddress, "ranges");
  if (list.type === "unusable") return `its certificate is for ${list.why}`;
  return list.includes(address) ? undefined : "its certificate is not for its address";
}

/** What the client says. */
interface Claim {
  readonly name: string;
  readonly fingerprint: string;
  readonly signature: Signature;
  /** Signed by an authority, which need not be one of ours. */
  readonly certificate: Certificate | undefined;
}

const NAME = /^[a-z0-9][a-z0-9._-]{0,63}$/;
const FINGERPRINT = /^[A-Za-z0-9_-]{43}$/;

/** `NAME fingerprint signature [cert:LINES]`, and the certificate that is asked for. */
async function readClaim(exchange: Exchange): Promise<Claim | undefined> {
  const [name = "", fingerprint = "", signed = "", announced, ...more] = exchange.initial;
  const octets = fromBase64url(signed);
  const signature = octets && parseSignature(octets);
  if (!NAME.test(name) || !FINGERPRINT.test(fingerprint) || signature === undefined || more.length > 0)
    return undefined;
  if (announced === undefined) return { name, fingerprint, signature, certificate: undefined };
  const lines = Number(/^cert:([1-9][0-9]?)$/.exec(announced)?.[1] ?? 0);
  const certificate = lines > CERTIFICATE_LINES_MAX ? undefined : await askCertificate(exchange, lines);
  if (certificate === undefined || keyFingerprint(certificate.key.blob) !== fingerprint) return undefined;
  return { name, fingerprint, signature, certificate };
}

async function askCertificate(exchange: Exchange, lines: number): Promise<Certificate | undefined> {
  let text = "";
  for (let line = 1; line <= lines; line++) {
    const answer = await exchange.ask(`certificate ${line}/${lines}`, "shown");
    text += Buffer.from(answer).toString("latin1");
  }
  const octets = fromBase64url(text);
  return octets && parseCertificate(octets);
}
