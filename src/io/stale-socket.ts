/**
 * Unix sockets that whoever made them has left behind.
 * @module
 */
import { lstat, rm } from "node:fs/promises";
import { connect } from "node:net";

/**
 * Removes a Unix socket that nobody answers: a server that died left it behind. One that somebody answers stays, and so does whatever is no
 * socket, though connecting to it fails in the same way; listening then fails.
 */
export async function removeStale(path: string): Promise<void> {
  const found = await lstat(path).catch(() => undefined);
  if (found?.isSocket() !== true) return;
  const answered = await new Promise<boolean>((resolve) => {
    const probe = connect({ path });
    probe.once("connect", () => {
      probe.destroy();
      resolve(true);
    });
    probe.once("error", (error: NodeJS.ErrnoException) => resolve(error.code !== "ECONNREFUSED"));
  });
  if (!answered) await rm(path, { force: true });
}
