/**
 * Files of keys by user, as sshd's `AuthorizedKeysFile`: where the administrator leaves it to users, or to his own tools, which keys count.
 * What their lines mean is in `authorized-keys.ts`.
 *
 * A file counts only where nobody else could have written it (sshd's StrictModes). Finding that out costs the same for a user who has no
 * file, so that time does not tell who is here (abuse case A05).
 * @module
 */
import type { Stats } from "node:fs";
import { constants } from "node:fs";
import { open, realpath, stat } from "node:fs/promises";
import path from "node:path";
import { FivedError } from "../../io/index.ts";
import { type AuthorizedKeys, KEYS_BYTES_MAX, keyLines, NO_KEYS, readAuthorizedKeys } from "./authorized-keys.ts";

/** Somebody's keys, by his name; never fails, finds none. */
export type KeysOf = (name: string) => Promise<AuthorizedKeys>;

/** Files kept in memory; beyond that the one that was read first goes. */
export const FILES_KEPT_MAX = 10_000;

/** How the files are read. */
export interface KeyFileOptions {
  /** Told why a file, or a line in it, grants nothing: once for each version of the file. */
  readonly log: (line: string) => void;
}

/**
 * Keys in files.
 * @param pattern an absolute path in which `%u` stands for the user's name and `%%` for a percent sign
 * @throws `CONFIGURATION_BAD` when the pattern would be one file for everybody, or is no absolute path
 */
export function keyFiles(pattern: string, { log }: KeyFileOptions): KeysOf {
  if (!path.isAbsolute(pattern) || !isPattern(pattern))
    throw new FivedError(
      "CONFIGURATION_BAD",
      `Cannot use "${pattern}" for files of keys: it is no absolute path in which %u stands for the user's name, and %% for a percent sign`,
    );
  const kept = new Map<string, Kept>();
  return async (name) => {
    const file = pattern.replace(/%[u%]/g, (sign) => (sign === "%u" ? name : "%"));
    const look = await lookAt(file);
    const why = unsafe(file, look);
    const version = versionOf(look.stats, why);
    const before = kept.get(file);
    if (before?.version === version) return before.keys;
    kept.delete(file);
    if (look.stats === undefined) return NO_KEYS;
    if (why !== undefined) log(`The keys in ${file} count for nothing: ${why}`);
    const keys = why === undefined ? await read(file, look.stats, log) : NO_KEYS;
    if (keys === undefined) return NO_KEYS;
    const [oldest] = kept.keys();
    if (kept.size >= FILES_KEPT_MAX && oldest !== undefined) kept.delete(oldest);
    kept.set(file, { version, keys });
    return keys;
  };
}

/** What is known of a file. */
interface Kept {
  /** Changes when the file does, or what is thought of it. */
  readonly version: string;
  readonly keys: AuthorizedKeys;
}

/** A file and the folders above it. */
interface Look {
  /** Undefined where there is no such file. */
  readonly stats: Stats | undefined;
  readonly folders: readonly { readonly folder: string; readonly stats: Stats | undefined }[];
}

function isPattern(pattern: string): boolean {
  const bare = pattern.replaceAll("%%", "");
  return bare.includes("%u") && !/%(?!u)/.test(bare);
}

async function lookAt(file: string): Promise<Look> {
  const [resolved] = await Promise.allSettled([realpath(file)]);
  const real = resolved.status === "fulfilled" ? resolved.value : file;
  const folders: string[] = [];
  for (let above = path.dirname(real); folders.at(-1) !== above; above = path.dirname(above)) folders.push(above);
  const [own, ...others] = await Promise.allSettled([real, ...folders].map((each) => stat(each)));
  return {
    stats: own?.status === "fulfilled" ? own.value : undefined,
    folders: folders.map((folder, at) => {
      const found = others[at];
      return { folder, stats: found?.status === "fulfilled" ? found.value : undefined };
    }),
  };
}

/**
 * Why somebody else could have written the file; undefined if nobody could. It and every folder above it belong to root, to us, or to
 * whoever owns the file, and nobody else may write there. In a folder with the sticky bit others may write, but not replace what is there.
 */
function unsafe(file: string, { stats, folders }: Look): string | undefined {
  if (stats === undefined) return undefined;
  if (process.platform === "win32") return undefined; // Owners and modes say nothing there.
  if (!stats.isFile()) return "it is not a regular file";
  if ((stats.mode & WRITABLE_BY_OTHERS) !== 0) return `others may write it (chmod go-w ${file})`;
  const owners = [0, process.getuid?.(), stats.uid];
  for (const { folder, stats: above } of folders) {
    if (above === undefined) return `${folder} cannot be looked at`;
    if (!owners.includes(above.uid)) return `${folder} belongs to somebody else`;
    if ((above.mode & WRITABLE_BY_OTHERS) !== 0 && (above.mode & STICKY) === 0)
      return `others may write in ${folder} (chmod go-w ${folder})`;
  }
  return undefined;
}

const WRITABLE_BY_OTHERS = 0o022;
const STICKY = 0o1000;

function versionOf(stats: Stats | undefined, why = ""): string {
  return [stats?.dev, stats?.ino, stats?.size, stats?.mtimeMs, stats?.ctimeMs, why].join(" ");
}

/** Reads the file that was looked at, and no other that came into its place since; undefined when that fails, so that it is tried again. */
async function read(file: string, looked: Stats, log: (line: string) => void): Promise<AuthorizedKeys | undefined> {
  try {
    // Non-blocking, so that a FIFO in the file's place cannot hold us.
    await using handle = await open(file, constants.O_RDONLY | constants.O_NONBLOCK);
    const found = await handle.stat();
    if (found.dev !== looked.dev || found.ino !== looked.ino) throw new Error("it was replaced just now");
    if (found.size > KEYS_BYTES_MAX) throw new Error(`it is larger than ${KEYS_BYTES_MAX} bytes`);
    const octets = Buffer.alloc(found.size);
    const { bytesRead } = await handle.read(octets, 0, octets.length, 0);
    if (bytesRead !== octets.length) throw new Error("it changed while it was read");
    const isOurs = found.uid === 0 || found.uid === process.getuid?.();
    const keys = readAuthorizedKeys(keyLines(octets), isOurs ? "administrator" : "user");
    for (const { line, reason } of keys.useless) log(`Line ${line} of ${file} grants nothing: ${reason}`);
    return keys;
  } catch (cause) {
    log(`The keys in ${file} count for nothing: ${cause instanceof Error ? cause.message : String(cause)}`);
    return undefined;
  }
}
