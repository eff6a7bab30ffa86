/**
 * Files that hold secrets and are changed by several processes: read only if nobody else could have written or read them, replaced as a
 * whole, and changed by one process at a time. What stands in them is for their owners to know.
 * @module
 */
import { randomUUID } from "node:crypto";
import { constants } from "node:fs";
import { type FileHandle, lstat, open, rename, rm, stat } from "node:fs/promises";
import { dirname } from "node:path";
import { setTimeout as pause } from "node:timers/promises";

/** What was read of a file, and a text that differs whenever the file does. */
export interface PrivateFile {
  readonly content: Buffer;
  readonly version: string;
}

/** Permission bits that nobody but the owner may have on a file. */
const OTHERS_ON_FILE = 0o077;
/** The same for its folder: whoever can write there can put another file in its place. */
const OTHERS_ON_FOLDER = 0o022;

/**
 * Reads a file; undefined if there is none. Throws when it is no plain file, is larger than `bytesMax`, belongs to somebody else, or could
 * be read or replaced by others. For root somebody else is who owns neither the file's folder nor is root: the server need not be root, and
 * its administrator is.
 */
export async function readPrivateFile(file: string, bytesMax: number): Promise<PrivateFile | undefined> {
  const handle = await opened(file);
  if (handle === undefined) return undefined;
  try {
    // Asked of the open file, not of the name: what is judged is what is read.
    const found = await handle.stat({ bigint: true });
    if (!found.isFile()) throw new Error("it is no plain file");
    if (found.size > bytesMax) throw new Error(`it is ${found.size} bytes long, the limit is ${bytesMax}`);
    await mustBePrivate(file, Number(found.uid), Number(found.mode));
    return { content: await handle.readFile(), version: versionOf(found) };
  } finally {
    await handle.close();
  }
}

async function mustBePrivate(file: string, uid: number, mode: number): Promise<void> {
  const us = process.geteuid?.();
  if (us === undefined) return; // Windows: access lists are not looked at
  const folder = await stat(dirname(file));
  if (uid !== us && uid !== 0 && (us !== 0 || uid !== folder.uid))
    throw new Error(`it belongs to user ${uid}, expected a file of user ${us === 0 ? folder.uid : us}`);
  const octal = (bits: number) => (bits & 0o7777).toString(8).padStart(4, "0");
  if ((mode & OTHERS_ON_FILE) !== 0)
    throw new Error(`others may read or change it (mode ${octal(mode)}); run: chmod 0600 ${file}`);
  if ((folder.mode & OTHERS_ON_FOLDER) !== 0) {
    const mended = octal(folder.mode & ~OTHERS_ON_FOLDER);
    throw new Error(
      `others may replace it (its folder has mode ${octal(folder.mode)}); run: chmod ${mended} ${dirname(file)}`,
    );
  }
}

/** The version a file has now, as {@link readPrivateFile} would give it; undefined if there is none. Reads nothing. */
export async function privateFileVersion(file: string): Promise<string | undefined> {
  try {
    return versionOf(await lstat(file, { bigint: true }));
  } catch (error) {
    if (codeOf(error) === "ENOENT") return undefined;
    throw error;
  }
}

/**
 * Writes a new file beside the old one and renames it, so that a reader or a crash meets the old or the new, never a part. Only its owner
 * may read it; where root writes it, that is whoever owned the old file, or else the folder: the server need not be root to read it.
 */
export async function replacePrivateFile(file: string, content: string | Uint8Array): Promise<void> {
  const temporary = `${file}.${randomUUID()}`;
  try {
    const handle = await open(temporary, "wx", 0o600);
    try {
      if (process.geteuid?.() === 0) {
        const { uid, gid } = await lstat(file).catch(() => stat(dirname(file)));
        await handle.chown(uid, gid);
      }
      await handle.writeFile(content);
      await handle.sync();
    } finally {
      await handle.close();
    }
    await rename(temporary, file);
  } catch (error) {
    await rm(temporary, { force: true });
    throw error;
  }
  if (process.platform === "win32") return; // has no such call on folders, and needs none
  const folder = await open(dirname(file), "r");
  await folder.sync().finally(() => folder.close());
}

/** Excludes other writers for as long as it is held. */
export interface FileLock extends AsyncDisposable {
  /** Throws if the lock was taken from us, as from a process that was stopped for so long that it seemed dead. */
  stillHeld(): Promise<void>;
}

/** Age at which a lock's holder must have died: the work under it takes milliseconds, on the slowest of disks a second or two. */
const LOCK_STALE_MS = 10_000;
/** Longest wait for a lock: more than {@link LOCK_STALE_MS}, so that a dead holder is outlived. */
const LOCK_WAIT_MS = 15_000;
const LOCK_RETRY_MS = 10;

/** Waits for the lock of that name, a file that is there while it is held. Breaks a lock whose holder must have died. */
export async function lockFile(path: string, signal?: AbortSignal): Promise<FileLock> {
  const until = performance.now() + LOCK_WAIT_MS;
  for (;;) {
    const mark = await marked(path);
    if (mark !== undefined) return held(path, mark);
    if (performance.now() > until) throw new Error(`another process holds ${path}; if none runs, remove it`);
    if (!(await brokenStale(path))) await pause(LOCK_RETRY_MS, undefined, signal === undefined ? {} : { signal });
  }
}

function held(path: string, mark: string): FileLock {
  const isOurs = async () => (await privateFileVersion(path)) === mark;
  return {
    async stillHeld() {
      if (!(await isOurs())) throw new Error(`another process took ${path} away, as we were too slow; try again`);
    },
    async [Symbol.asyncDispose]() {
      if (await isOurs()) await rm(path, { force: true });
    },
  };
}

/** Makes the file and answers its version; undefined if it is there already. */
async function marked(path: string): Promise<string | undefined> {
  try {
    const handle = await open(path, "wx", 0o600);
    try {
      return versionOf(await handle.stat({ bigint: true }));
    } finally {
      await handle.close();
    }
  } catch (error) {
    if (codeOf(error) === "EEXIST") return undefined;
    throw error;
  }
}

/**
 * Removes a lock whose holder must have died; true if it is gone. Only who holds a second lock may: of two that found the same lock stale,
 * the slower one would otherwise remove the one that the quicker one has made since. That second lock is never broken: who died in those
 * few microseconds left something for a person to look at.
 */
async function brokenStale(path: string): Promise<boolean> {
  if (!(await isStale(path))) return false;
  const breaker = `${path}.breaking`;
  if ((await marked(breaker)) === undefined) return false;
  try {
    if (await isStale(path)) await rm(path, { force: true });
    return true;
  } finally {
    await rm(breaker, { force: true });
  }
}

async function isStale(path: string): Promise<boolean> {
  const found = await stat(path).catch(() => undefined);
  return found !== undefined && Date.now() - found.mtimeMs > LOCK_STALE_MS;
}

async function opened(file: string): Promise<FileHandle | undefined> {
  try {
    // Non-blocking, so that a FIFO in the file's place cannot hold us. No link is followed: who owns the folder could otherwise have root
    // read, and then replace, a file of root's.
    return await open(file, constants.O_RDONLY | constants.O_NONBLOCK | (constants.O_NOFOLLOW ?? 0));
  } catch (cause) {
    if (codeOf(cause) === "ENOENT") return undefined;
    if (codeOf(cause) === "ELOOP") throw new Error("it is a symbolic link; name the file that it leads to", { cause });
    throw cause;
  }
}

/** Every write changes one of these, and every rename brings another file. */
function versionOf(found: {
  readonly dev: bigint;
  readonly ino: bigint;
  readonly size: bigint;
  readonly mtimeNs: bigint;
  readonly ctimeNs: bigint;
}): string {
  return [found.dev, found.ino, found.size, found.mtimeNs, found.ctimeNs].join(":");
}

function codeOf(error: unknown): unknown {
  return error instanceof Error && "code" in error ? error.code : undefined;
}
