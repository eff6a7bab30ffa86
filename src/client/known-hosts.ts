/**
 * The pin store: a `known_hosts` file in OpenSSH's format (sshd(8), "SSH_KNOWN_HOSTS FILE FORMAT"), so that `ssh-keygen -F`, `-R`, `-H`
 * and `-lf` work on it (PROTOCOL §2.2). Says what the file knows about a name and a key, and adds lines; what follows from that is
 * `trust.ts`'s business. A plain `host` here is the server on our default port, where ssh would mean port 22: the file is our own.
 *
 * A file that cannot be read is never an empty one: whoever could make it unreadable could otherwise make every server a new one.
 * @module
 */
import { createHmac, timingSafeEqual } from "node:crypto";
import { constants } from "node:fs";
import { lstat, mkdir, open, realpath } from "node:fs/promises";
import { isIP } from "node:net";
import { dirname } from "node:path";
import { FivedError, fingerprintOf, type HostKey } from "../io/index.ts";
import { type Address, DEFAULT_PORT, hostLine } from "./address.ts";
import { lockFile, replaceFile } from "./own-file.ts";

/** A line that names the server. */
export interface Pin {
  readonly file: string;
  readonly line: number;
  readonly keyType: string;
  readonly fingerprint: string;
}

/** What the file knows about a name and a key. */
export type Lookup =
  | { readonly type: "pinned"; readonly pin: Pin }
  | { readonly type: "revoked"; readonly pin: Pin }
  /** Other keys are known for the name. */
  | { readonly type: "changed"; readonly pins: readonly [Pin, ...Pin[]] }
  /** A line names the server, and its key cannot be read: it may have been the pin. */
  | { readonly type: "damaged"; readonly file: string; readonly line: number }
  | { readonly type: "unknown" };

/** Where pins are looked up and kept. */
export interface PinStore {
  readonly file: string;
  /** Says what is known; rejects with `KNOWN_HOSTS_UNREADABLE` when that cannot be found out. */
  find(name: string, key: HostKey): Promise<Lookup>;
  /** Adds a pin if the name is still unknown, and says what is known then; rejects with `STATE_UNUSABLE` when it cannot be written. */
  pin(name: string, key: HostKey, signal?: AbortSignal): Promise<Lookup>;
}

/** Octets of a known_hosts file: some 100,000 servers. More is not a file a person keeps, and it is read anew for each connection. */
export const KNOWN_HOSTS_BYTES_MAX = 16_777_216;

/** The pin store in a file, which need not exist yet. */
export function knownHosts(file: string): PinStore {
  return {
    file,
    async find(name, key) {
      return search((await read(file)).toString("latin1"), file, name, key);
    },
    async pin(name, key, signal) {
      try {
        await mkdir(dirname(file), { recursive: true, mode: 0o700 });
        // Where the file is a symbolic link, what it points to is replaced, and the link stays.
        const target = await realpath(file).catch(() => file);
        await using _lock = await lockFile(target, signal);
        return await append(file, target, name, key);
      } catch (cause) {
        if (cause instanceof FivedError) throw cause;
        if (signal?.aborted)
          throw new FivedError("ABORTED", `Gave up keeping the key of "${name}"`, { cause: signal.reason });
        const why = cause instanceof Error ? cause.message : String(cause);
        throw new FivedError(
          "STATE_UNUSABLE",
          `Cannot keep the key of "${name}" in ${file}: ${why}; make the file writable, or name another`,
          { cause },
        );
      }
    },
  };
}

/** The name an address has in the file: `host`, `[host]:port` off the default port, or `unix:/path`. */
export function pinName(address: Address): string {
  if (address.type === "unix") {
    // What the file's syntax gives a meaning (blanks, commas, wildcards) or ssh-keygen would fold goes as %XX.
    const octets = [...Buffer.from(address.path)].map((octet) => {
      const character = String.fromCharCode(octet);
      return /[a-z0-9/._~-]/.test(character) ? character : `%${octet.toString(16).padStart(2, "0")}`;
    });
    return `unix:${octets.join("")}`;
  }
  const name = hostLine(address) ?? address.host.text;
  return address.port === DEFAULT_PORT ? name : `[${name}]:${address.port}`;
}

/** What the text of a known_hosts file knows about a name and a key; `file` only goes into the answer. */
export function search(text: string, file: string, name: string, key: HostKey): Lookup {
  let pinned: Pin | undefined;
  let damaged: number | undefined;
  const others: Pin[] = [];
  let line = 0;
  for (const written of text.split("\n")) {
    line += 1;
    const entry = parseEntry(written);
    if (entry === undefined || entry.marker === "@cert-authority" || !names(entry.hosts, name)) continue;
    if (entry.key === undefined) {
      // A revocation that cannot be read may have been of this very key, whatever else is pinned.
      if (entry.marker === "@revoked") return { type: "damaged", file, line };
      damaged ??= line;
      continue;
    }
    const pin = { file, line, keyType: entry.key.type, fingerprint: fingerprintOf(entry.key) };
    const same = equal(entry.key.blob, key.blob);
    if (entry.marker === "@revoked") {
      if (same) return { type: "revoked", pin };
    } else if (same) pinned ??= pin;
    else others.push(pin);
  }
  if (pinned !== undefined) return { type: "pinned", pin: pinned };
  if (damaged !== undefined) return { type: "damaged", file, line: damaged };
  const [first, ...rest] = others;
  return first === undefined ? { type: "unknown" } : { type: "changed", pins: [first, ...rest] };
}

type Marker = "" | "@revoked" | "@cert-authority";

interface Entry {
  readonly marker: Marker;
  readonly hosts: string;
  /** Undefined where something stands that is no key. */
  readonly key: HostKey | undefined;
}

function parseEntry(line: string): Entry | undefined {
  const fields = line.replace(/^[ \t]+|[ \t\r]+$/g, "").split(/[ \t]+/);
  const [first = ""] = fields;
  if (first === "" || first.startsWith("#")) return undefined;
  if (!first.startsWith("@")) return entry("", fields);
  // A marker that OpenSSH does not know makes it skip the line; so do we.
  return first === "@revoked" || first === "@cert-authority" ? entry(first, fields.slice(1)) : undefined;
}

function entry(marker: Marker, fields: readonly string[]): Entry {
  const [hosts = "", type = "", base64 = ""] = fields;
  const blob = Buffer.from(base64, "base64");
  const sound = blob.toString("base64") === base64 && isBlob(blob, type);
  return { marker, hosts, key: sound ? { type, blob: new Uint8Array(blob) } : undefined };
}

/** A key blob is a row of strings, its type the first (RFC 4253 §6.6); a line cut short is none, even where the base64 still is. */
function isBlob(blob: Buffer, type: string): boolean {
  let at = 0;
  let fields = 0;
  while (at + 4 <= blob.length) {
    const end = at + 4 + blob.readUInt32BE(at);
    if (fields === 0 && blob.toString("latin1", at + 4, end) !== type) return false;
    at = end;
    fields += 1;
  }
  return at === blob.length && fields > 1;
}

/** Whether a hosts field is meant for a name: hashed, or a list of patterns where one that is negated and matches rules the line out. */
function names(hosts: string, name: string): boolean {
  if (hosts.startsWith("|")) return hashedName(hosts, name);
  let found = false;
  for (const written of hosts.split(",")) {
    const negated = written.startsWith("!");
    const pattern = (negated ? written.slice(1) : written).toLowerCase();
    if (!matches(pattern, name)) continue;
    if (negated) return false;
    found ||= isIP(bare(name)) !== 0 || !ADDRESS_PATTERN.test(bare(pattern));
  }
  return found;
}

/** A pattern for IPv4 addresses: as a pin, `10.*` must not stand for `10.example.org`, a name that anyone may own. */
const ADDRESS_PATTERN = /^[0-9.*?]*[0-9][0-9.*?]*$/;

/** The name or pattern itself, out of `[name]:port`. */
function bare(name: string): string {
  return /^\[(.*)\](?::[0-9*?]+)?$/.exec(name)?.[1] ?? name;
}

/** `|1|salt|hash`: HMAC-SHA-1 of the name, as `ssh-keygen -H` leaves it. */
function hashedName(hosts: string, name: string): boolean {
  const [, version, salt = "", hash = ""] = hosts.split("|");
  if (version !== "1" || salt === "" || hash === "") return false;
  const expected = createHmac("sha1", Buffer.from(salt, "base64")).update(name).digest();
  return equal(Buffer.from(hash, "base64"), expected);
}

/** Shell-like matching of `*` and `?`; goes back to the last star only, so that no pattern takes exponential time. */
function matches(pattern: string, name: string): boolean {
  let p = 0;
  let n = 0;
  let star = -1;
  let retry = 0;
  while (n < name.length) {
    if (pattern[p] === "*") {
      star = p++;
      retry = n;
    } else if (p < pattern.length && (pattern[p] === "?" || pattern[p] === name[n])) {
      p++;
      n++;
    } else if (star >= 0) {
      p = star + 1;
      n = ++retry;
    } else return false;
  }
  while (pattern[p] === "*") p++;
  return p === pattern.length;
}

function equal(a: Uint8Array, b: Uint8Array): boolean {
  return a.length === b.length && timingSafeEqual(a, b);
}

async function read(file: string): Promise<Buffer> {
  try {
    // Non-blocking, so that a FIFO in the file's place cannot hold us.
    await using handle = await open(file, constants.O_RDONLY | constants.O_NONBLOCK);
    const found = await handle.stat();
    if (!found.isFile()) throw new Error("it is not a regular file");
    if (found.size > KNOWN_HOSTS_BYTES_MAX) throw new Error(`it is larger than ${KNOWN_HOSTS_BYTES_MAX} bytes`);
    return await handle.readFile();
  } catch (cause) {
    if (codeOf(cause) === "ENOENT" && !(await isLink(file))) return Buffer.alloc(0);
    const why = cause instanceof Error ? cause.message : String(cause);
    throw new FivedError(
      "KNOWN_HOSTS_UNREADABLE",
      `Cannot read the known servers in ${file}: ${why}; repair the file, or move it away to start anew`,
      { cause },
    );
  }
}

/** True for a symbolic link, here one that leads nowhere: the file it means may be on a disk that is not there today. */
async function isLink(file: string): Promise<boolean> {
  return await lstat(file).then(
    () => true,
    () => false,
  );
}

async function append(file: string, target: string, name: string, key: HostKey): Promise<Lookup> {
  if (!/^[^\s,*?!#@|]+$/.test(name))
    throw new Error(`Invariant: "${name}" would mean something else in a known_hosts file`);
  // Read again under the lock: another process may have met the server since, and ssh-keygen asks nobody.
  const before = await read(file);
  const known = search(before.toString("latin1"), file, name, key);
  if (known.type !== "unknown") return known;
  const glue = before.length === 0 || before.at(-1) === 0x0a ? "" : "\n";
  const line = `${glue}${name} ${key.type} ${Buffer.from(key.blob).toString("base64")}\n`;
  const after = Buffer.concat([before, Buffer.from(line)]);
  await replaceFile(target, after);
  return search(after.toString("latin1"), file, name, key);
}

function codeOf(error: unknown): unknown {
  return error instanceof Error && "code" in error ? error.code : undefined;
}
