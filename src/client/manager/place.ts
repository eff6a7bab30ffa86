/**
 * Where a person's session manager is: a socket in a folder that nobody else may enter, since that is what says who may ask it.
 * @module
 */
import { lstat, mkdir } from "node:fs/promises";
import { tmpdir } from "node:os";
import { dirname, isAbsolute, join } from "node:path";
import { FivedError } from "../../io/index.ts";

/** `FIVED_MANAGER` may name another socket, or say `off`: then there is no manager. Throws STATE_UNUSABLE for anything else. */
export function managerSocket(environment: NodeJS.ProcessEnv): string | undefined {
  const chosen = environment["FIVED_MANAGER"];
  if (chosen === "off") return undefined;
  if (chosen !== undefined && chosen !== "") {
    if (isAbsolute(chosen)) return chosen;
    throw new FivedError("STATE_UNUSABLE", `Cannot use FIVED_MANAGER="${chosen}": say off, or the path of a socket`);
  }
  const { XDG_RUNTIME_DIR: runtime } = environment;
  // The specification says to ignore a relative path, and to find another place where there is none.
  const folder =
    runtime !== undefined && isAbsolute(runtime)
      ? join(runtime, "fived")
      : join(tmpdir(), `fived-${process.getuid?.() ?? "me"}`);
  return join(folder, "manager.sock");
}

/** Makes the folder where it is missing. Rejects with STATE_UNUSABLE for one that is another's, or that others may enter. */
export async function preparePlace(socket: string): Promise<void> {
  const folder = dirname(socket);
  try {
    await mkdir(folder, { recursive: true, mode: 0o700 });
  } catch (cause) {
    throw unusable(folder, cause instanceof Error ? cause.message : String(cause), cause);
  }
  await checkPlace(socket);
}

/** Rejects with STATE_UNUSABLE where somebody else could have put the socket there. */
export async function checkPlace(socket: string): Promise<void> {
  const folder = dirname(socket);
  const found = await lstat(folder).catch((cause: Error) => {
    throw unusable(folder, cause.message, cause);
  });
  const us = process.geteuid?.();
  if (!found.isDirectory()) throw unusable(folder, "it is no folder");
  if (us !== undefined && found.uid !== us) throw unusable(folder, `it belongs to user ${found.uid}`);
  if (us !== undefined && (found.mode & 0o077) !== 0)
    throw unusable(folder, "others may enter it; run: chmod 0700 on it");
}

function unusable(folder: string, why: string, cause?: unknown): FivedError {
  const text = `Cannot use the session manager's folder ${folder}: ${why}; or say FIVED_MANAGER=off`;
  return new FivedError("STATE_UNUSABLE", text, cause === undefined ? {} : { cause });
}
