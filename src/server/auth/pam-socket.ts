/**
 * The socket of `fived pam-helper`, seen from the server: who may have made it, and connecting to it. Whoever answers there decides who
 * somebody is, so neither the socket nor its folder may be anybody's but root's or our own.
 * @module
 */
import { once } from "node:events";
import { stat } from "node:fs/promises";
import { connect } from "node:net";
import { dirname } from "node:path";
import { PamLink } from "./pam-link.ts";
import { type PamMessage, PamMessageReader } from "./pam-protocol.ts";

/** Bits that others must not have on the folder: who can write there can put another socket in its place. */
const OTHERS_ON_FOLDER = 0o022;

/** A link to the helper; rejects with an `Error` that says why there is none. */
export async function connectHelper(path: string): Promise<PamLink<PamMessage>> {
  const why = await socketProblem(path);
  if (why !== undefined) throw new Error(why);
  const socket = connect({ path });
  await once(socket, "connect");
  return new PamLink(socket, new PamMessageReader());
}

/** Why a socket is not to be trusted, or not there; undefined if it can be used. */
export async function socketProblem(path: string): Promise<string | undefined> {
  const folder = await folderProblem(dirname(path));
  if (folder !== undefined) return folder;
  const found = await stat(path).catch((error: Error) => error);
  if (found instanceof Error) return found.message;
  if (!found.isSocket()) return `${path} is no socket`;
  return isTrusted(found.uid) ? undefined : `${path} belongs to user ${found.uid}, expected root`;
}

/** Why nobody can rely on a socket in that folder; undefined if it is safe. */
export async function folderProblem(folder: string): Promise<string | undefined> {
  const found = await stat(folder).catch((error: Error) => error);
  if (found instanceof Error) return found.message;
  if (!isTrusted(found.uid)) return `the folder ${folder} belongs to user ${found.uid}, expected root`;
  if ((found.mode & OTHERS_ON_FOLDER) === 0) return undefined;
  return `others may write to the folder ${folder}; run: chmod go-w ${folder}`;
}

function isTrusted(uid: number): boolean {
  return uid === 0 || uid === process.geteuid?.();
}
