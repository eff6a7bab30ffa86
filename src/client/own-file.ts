/**
 * Files of a person's own that several processes write: one at a time, and as a whole, so that a reader or a crash meets the old or the
 * new, never half. What stands in them is for others to know.
 * @module
 */
import { randomUUID } from "node:crypto";
import { constants } from "node:fs";
import { open, rename, rm, stat } from "node:fs/promises";
import { dirname } from "node:path";
import { setTimeout as pause } from "node:timers/promises";

/** Age at which a lock's holder must have died: the work under it takes milliseconds, on the slowest of disks a second or two. */
const LOCK_STALE_MS = 10_000;
/** Longest wait for a lock: more than {@link LOCK_STALE_MS}, so that a dead holder is outlived. */
const LOCK_WAIT_MS = 15_000;
const LOCK_RETRY_MS = 20;

/**
 * Excludes other writers of ours from a file, until it is disposed of. If two should break the same stale lock at once, both write a whole
 * file, and what one of them had to say is lost: a server will be unknown again, never silently another.
 */
export async function lockFile(file: string, signal?: AbortSignal): Promise<AsyncDisposable> {
  const path = `${file}.lock`;
  const until = performance.now() + LOCK_WAIT_MS;
  for (;;) {
    try {
      const handle = await open(path, "wx", 0o600);
      await handle.close();
      return { [Symbol.asyncDispose]: () => rm(path, { force: true }) };
    } catch (cause) {
      if (codeOf(cause) !== "EEXIST") throw cause;
      if (performance.now() > until)
        throw new Error(`another process holds ${path}; if none runs, remove it`, { cause });
    }
    const held = await stat(path).catch(() => undefined);
    if (held !== undefined && Date.now() - held.mtimeMs > LOCK_STALE_MS) await rm(path, { force: true });
    else await pause(LOCK_RETRY_MS, undefined, signal === undefined ? {} : { signal });
  }
}

/** Writes a new file beside the old one, with mode 0600, and renames it. Its folder has to be there. */
export async function replaceFile(file: string, octets: Uint8Array): Promise<void> {
  const temporary = `${file}.${randomUUID()}`;
  try {
    {
      await using handle = await open(temporary, "wx", 0o600);
      await handle.writeFile(octets);
      await handle.sync();
    }
    await rename(temporary, file);
  } catch (cause) {
    await rm(temporary, { force: true });
    throw cause;
  }
  await syncFolder(dirname(file));
}

/** Makes the rename itself last; Windows has no such call on folders, and needs none. */
async function syncFolder(folder: string): Promise<void> {
  if (process.platform === "win32") return;
  await using handle = await open(folder, constants.O_RDONLY);
  await handle.sync();
}

function codeOf(error: unknown): unknown {
  return error instanceof Error && "code" in error ? error.code : undefined;
}
