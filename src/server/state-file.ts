/**
 * Files that only the server may have written, or read: opened, judged by owner and mode, and put in place whole. What is in them is the
 * business of whoever keeps them.
 * @module
 */
import { randomUUID } from "node:crypto";
import { mkdir, open, rename, stat, unlink } from "node:fs/promises";
import { dirname } from "node:path";
import { type ErrorCode, FivedError } from "../io/index.ts";

/** What kind of file is read: who answers for it, and which permission bits others must not have. */
export interface FileKind {
  readonly code: ErrorCode;
  readonly noun: string;
  readonly forbidden: number;
}

/** Keys and certificates are a few KiB; anything far larger is another file. */
const FILE_BYTES_MAX = 1024 * 1024;
/** Bits nobody else may have on the folder of our keys: who can write there can put another key in its place. */
const OTHERS_ON_FOLDER = 0o022;

/** Makes the state folder, or throws `STATE_UNUSABLE` for one that others may write to. */
export async function prepareStateFolder(state: string): Promise<void> {
  try {
    await mkdir(state, { recursive: true, mode: 0o700 });
    const { uid, mode } = await stat(state);
    const why = ownership("folder", state, uid, mode, OTHERS_ON_FOLDER);
    if (why !== undefined) throw new Error(why);
  } catch (cause) {
    throw new FivedError("STATE_UNUSABLE", `Cannot use the state folder ${state}: ${reasonOf(cause)}`, { cause });
  }
}

/** What is in a file; throws the code of its kind for one that is not there, too large, another's, or open to others. */
export async function readFileOf(file: string, kind: FileKind): Promise<Buffer> {
  const content = await readFileIfThere(file, kind);
  if (content === undefined) throw fileUnusable(kind, file, "there is no such file");
  return content;
}

/** The same, with undefined for a file that is not there. */
export async function readFileIfThere(file: string, kind: FileKind): Promise<Buffer | undefined> {
  try {
    const handle = await open(file, "r");
    try {
      // Asked of the open file, not of the name: what is judged is what is read.
      const { uid, mode, size } = await handle.stat();
      const why = size > FILE_BYTES_MAX ? "it is far too large" : ownership(kind.noun, file, uid, mode, kind.forbidden);
      if (why !== undefined) throw new Error(why);
      return await handle.readFile();
    } finally {
      await handle.close();
    }
  } catch (cause) {
    if (cause instanceof Error && "code" in cause && cause.code === "ENOENT") return undefined;
    throw fileUnusable(kind, file, reasonOf(cause), cause);
  }
}

/**
 * Writes beside the file and then moves into place, so that a crash leaves the old file or the new one, never a part. Throws
 * `STATE_UNUSABLE`.
 */
export async function placeFile(
  file: string,
  content: Buffer,
  mode: number,
  move: (from: string, to: string) => Promise<void> = rename,
): Promise<void> {
  const temporary = `${file}.${randomUUID()}`;
  try {
    const handle = await open(temporary, "wx", mode);
    try {
      await handle.writeFile(content);
      await handle.sync();
    } finally {
      await handle.close();
    }
    await move(temporary, file);
    const folder = await open(dirname(file), "r");
    await folder.sync().finally(() => folder.close());
  } catch (cause) {
    await unlink(temporary).catch(() => {}); // it may never have been made
    throw new FivedError("STATE_UNUSABLE", `Cannot write ${file}: ${reasonOf(cause)}`, { cause });
  }
}

/** What to throw for a file that cannot be used. */
export function fileUnusable(kind: FileKind, file: string, why: string, cause?: unknown): FivedError {
  return new FivedError(kind.code, `Cannot use the ${kind.noun} ${file}: ${why}`, { cause });
}

/** Why a file cannot be trusted, from who owns it and what others may do with it. Root may do anything anyway. */
function ownership(noun: string, file: string, uid: number, mode: number, forbidden: number): string | undefined {
  if (process.geteuid === undefined || forbidden === 0) return undefined; // Windows: access lists are not looked at
  const us = process.geteuid();
  if (uid !== us && uid !== 0) return `it belongs to user ${uid}, expected a ${noun} of user ${us}`;
  if ((mode & forbidden) === 0) return undefined;
  const octal = (bits: number) => (bits & 0o777).toString(8).padStart(4, "0");
  return `others may read or change it (mode ${octal(mode)}); run: chmod ${octal(mode & ~forbidden)} ${file}`;
}

function reasonOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}
