/**
 * Lines as in OpenSSH's `authorized_keys` (sshd(8)): which keys are somebody's, and what each is good for. Whose the lines are, and where
 * they come from, is not this file's business.
 *
 * Whoever writes an option means to narrow the key. Options that narrow what only ssh offers are passed over; one that we can neither
 * honour nor pass over makes its line grant nothing, with a reason for the log.
 * @module
 */
import { keyFingerprint, type PublicKey, parsePublicKeyLine } from "../../identity/index.ts";
import { FivedError } from "../../io/index.ts";
import { isServiceName } from "../../wire/index.ts";
import { type AddressList, readAddressList } from "./address-list.ts";

/** A line that grants something. */
export interface KeyLine {
  /** From 1, for the log. */
  readonly line: number;
  readonly key: PublicKey;
  /** `cert-authority`: the key is no login, but signs certificates that are. */
  readonly isAuthority: boolean;
  /** Names of which a certificate has to have one; undefined for the user's own. Only for authorities. */
  readonly principals: readonly string[] | undefined;
  readonly from: AddressList | undefined;
  /** `expiry-time`, in milliseconds since 1970. */
  readonly expires: number | undefined;
  /** False for `no-touch-required`. */
  readonly touch: boolean;
  /** `verify-required`. */
  readonly verification: boolean;
  /** `fived-roles`. */
  readonly roles: readonly string[];
}

/** A line that grants nothing though it was meant to; the reason is the end of a sentence. */
export interface UselessLine {
  readonly line: number;
  readonly reason: string;
}

/** What lines of keys come to: by fingerprint, as several may have the same key with other options. */
export interface AuthorizedKeys {
  /** Keys that are logins. */
  readonly logins: ReadonlyMap<string, readonly KeyLine[]>;
  /** Keys whose certificates are. */
  readonly authorities: ReadonlyMap<string, readonly KeyLine[]>;
  readonly useless: readonly UselessLine[];
}

/** Octets of a file of keys. More is not a file of one user, and all of it is kept in memory. */
export const KEYS_BYTES_MAX = 1_048_576;
/** Octets of a line: RSA with 4,096 bits takes 800, options the rest. */
export const KEY_LINE_BYTES_MAX = 16_384;
/** Keys of one user. */
export const KEYS_MAX = 1_000;

/** A line without anything, or with a comment. */
const BLANK = /^[ \t\r]*(#|$)/;

/** Nobody's keys. */
export const NO_KEYS: AuthorizedKeys = { logins: new Map(), authorities: new Map(), useless: [] };

/**
 * Reads lines; never fails, grants less.
 * @param writtenBy who could write them: a user who keeps his own keys gives himself no roles
 */
export function readAuthorizedKeys(
  texts: Iterable<string>,
  writtenBy: "administrator" | "user" = "administrator",
): AuthorizedKeys {
  const logins = new Map<string, KeyLine[]>();
  const authorities = new Map<string, KeyLine[]>();
  const useless: UselessLine[] = [];
  let line = 0;
  let keys = 0;
  for (const text of texts) {
    line += 1;
    if (BLANK.test(text)) continue;
    if (keys === KEYS_MAX) {
      useless.push({ line, reason: `there are more than ${KEYS_MAX} keys; this line and those below grant nothing` });
      break;
    }
    keys += 1;
    const read = readKeyLine(text, line);
    if ("reason" in read) useless.push(read);
    else if (read.roles.length > 0 && writtenBy === "user")
      useless.push({ line, reason: "fived-roles= counts only in a file of the administrator's" });
    else {
      const fingerprint = keyFingerprint(read.key.blob);
      const lines = read.isAuthority ? authorities : logins;
      lines.set(fingerprint, [...(lines.get(fingerprint) ?? []), read]);
    }
  }
  return { logins, authorities, useless };
}

/** The lines of a file's octets, one character an octet. A file that is too large has none: half a file could lack what narrows. */
export function keyLines(file: Uint8Array): readonly string[] {
  return file.length > KEYS_BYTES_MAX ? [] : Buffer.from(file).toString("latin1").split("\n");
}

/**
 * The keys of a file of authorities (`auth.pubkey.userCa`), a line each, as in `.pub` files.
 * @throws `CONFIGURATION_BAD` for a line that is none: an authority that silently does not count would look like a fault of its certificates
 */
export function readAuthorities(text: string, file: string): readonly PublicKey[] {
  return text.split("\n").flatMap((line, at) => {
    if (BLANK.test(line)) return [];
    const read = parsePublicKeyLine(line);
    if (read !== undefined) return [read.key];
    throw new FivedError(
      "CONFIGURATION_BAD",
      `Cannot use line ${at + 1} of ${file}: it is no public key that is known here, and strong enough; expected "type base64 comment"`,
    );
  });
}

/** Reads one line. */
export function readKeyLine(text: string, line: number): KeyLine | UselessLine {
  const useless = (reason: string): UselessLine => ({ line, reason });
  if (text.length > KEY_LINE_BYTES_MAX) return useless(`it is longer than ${KEY_LINE_BYTES_MAX} bytes`);
  const trimmed = text.trim();
  const plain = parsePublicKeyLine(trimmed);
  const cut = plain === undefined ? cutOptions(trimmed) : { options: [], rest: "" };
  const found = plain ?? (cut === undefined ? undefined : parsePublicKeyLine(cut.rest));
  if (cut === undefined || found === undefined)
    return useless("it has no key behind its options that is known here, and strong enough");
  const read = readOptions(cut.options);
  if ("reason" in read) return useless(read.reason);
  const { isAuthority, principals } = read;
  if (principals !== undefined && !isAuthority) return useless("principals= is only for a cert-authority");
  return { line, key: found.key, ...read };
}

interface Option {
  /** In lower case. */
  readonly name: string;
  readonly value: string | undefined;
}

type Options = Omit<KeyLine, "line" | "key">;

/**
 * Options, comma-separated, and what stands behind the blank that ends them. A value stands in quotes, in which `\"` is a quote. Undefined
 * where the line does not keep to that.
 */
function cutOptions(text: string): { readonly options: readonly Option[]; readonly rest: string } | undefined {
  const pattern = /([A-Za-z0-9-]+)(?:="((?:\\"|[^"\\]|\\(?!"))*)")?(,|[ \t]+)/y;
  const options: Option[] = [];
  for (;;) {
    const [, name = "", quoted, end = ""] = pattern.exec(text) ?? [];
    if (name === "" || options.length === OPTIONS_MAX) return undefined;
    const value = quoted?.replaceAll('\\"', '"');
    options.push({ name: name.toLowerCase(), value });
    if (end !== ",") return { options, rest: text.slice(pattern.lastIndex) };
  }
}

/** Options of one line: sshd knows two dozen. */
const OPTIONS_MAX = 64;

/** What they forbid or allow is ssh's, and not offered here in any case. */
const SSH_ONLY = new Set([
  ...["restrict", "pty", "no-pty", "port-forwarding", "no-port-forwarding", "agent-forwarding", "no-agent-forwarding"],
  ...["x11-forwarding", "no-x11-forwarding", "user-rc", "no-user-rc"],
]);

function readOptions(options: readonly Option[]): Options | { readonly reason: string } {
  let read: Options = {
    isAuthority: false,
    principals: undefined,
    from: undefined,
    expires: undefined,
    touch: true,
    verification: false,
    roles: [],
  };
  const seen = new Set<string>();
  for (const { name, value } of options) {
    // Which of two would count? For expiry-time sshd takes the earlier one; so do we.
    if (seen.has(name) && value !== undefined && name !== "expiry-time")
      return { reason: `${name}= stands there twice` };
    seen.add(name);
    const part = value === undefined ? readFlag(name) : readValue(name, value);
    if ("reason" in part) return part;
    const expires = Math.min(part.expires ?? Number.POSITIVE_INFINITY, read.expires ?? Number.POSITIVE_INFINITY);
    read = { ...read, ...part, expires: Number.isFinite(expires) ? expires : undefined };
  }
  return read;
}

function readFlag(name: string): Partial<Options> | { readonly reason: string } {
  switch (name) {
    case "cert-authority":
      return { isAuthority: true };
    case "no-touch-required":
      return { touch: false };
    case "verify-required":
      return { verification: true };
    default:
      return SSH_ONLY.has(name) ? {} : { reason: `its option ${name} is not known here` };
  }
}

function readValue(name: string, value: string): Partial<Options> | { readonly reason: string } {
  switch (name) {
    case "from": {
      const read = readAddressList(value);
      return read.type === "list" ? { from: read.includes } : { reason: `from= has ${read.why}` };
    }
    case "expiry-time": {
      const expires = timeOf(value);
      return expires === undefined ? { reason: "expiry-time= is no time YYYYMMDD[HHMM[SS]][Z]" } : { expires };
    }
    case "principals":
      return { principals: value.split(",").filter((principal) => principal !== "") };
    case "fived-roles": {
      const roles = value.split(",").map((role) => role.trim());
      return roles.every(isServiceName)
        ? { roles }
        : { reason: "fived-roles= has a name that is not 1 to 64 of A-Z a-z 0-9 . _ + -" };
    }
    default:
      return { reason: `its option ${name}= is of no effect here, and would narrow what the key may do` };
  }
}

/** `YYYYMMDD`, `YYYYMMDDHHMM` or `YYYYMMDDHHMMSS`, in local time or, with `Z`, in UTC. */
function timeOf(text: string): number | undefined {
  const [, ...digits] = /^(\d{4})(\d\d)(\d\d)(?:(\d\d)(\d\d)(\d\d)?)?Z?$/.exec(text) ?? [];
  if (digits.length === 0) return undefined;
  const [year = 0, month = 0, day = 0, hour = 0, minute = 0, second = 0] = digits.map((part) => Number(part ?? 0));
  const inUtc = Date.UTC(year, month - 1, day, hour, minute, second);
  // A thirteenth month would be the next year's first: only what comes out as it went in is a time.
  const parts = [year, month, day, hour, minute, second].map((part) => String(part).padStart(2, "0"));
  const written = new Date(inUtc).toISOString().replace(/\D/g, "").slice(0, 14);
  if (written !== `${parts[0]?.padStart(4, "0")}${parts.slice(1).join("")}`) return undefined;
  return text.endsWith("Z") ? inUtc : new Date(year, month - 1, day, hour, minute, second).getTime();
}
