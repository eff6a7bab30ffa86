/**
 * Closing in order: what waits is written, then FIN, and only then the socket goes (PROTOCOL §3.7). A reset in place of this could destroy
 * our last octets before the peer has read them; waiting for ever would let a peer that does not read keep what it holds.
 * @module
 */
import type { Writable } from "node:stream";

/** A peer has so long to take what waits, if nothing is wrong with it. */
export const TAKE_MS = 60_000;
/** When our FIN is on its way, the peer's has so long to follow. */
export const FOLLOW_MS = 1_000;

/**
 * Ends what is written to. Who calls this goes on reading, and drops what comes.
 * @param takeMs how long the peer has to take what waits
 * @param cut is called when it has had its time
 * @returns calls it off, for when all has closed by itself
 */
export function endInTime(to: Writable, takeMs: number, cut: () => void): () => void {
  let timer = setTimeout(cut, takeMs);
  timer.unref();
  const taken = (): void => {
    clearTimeout(timer);
    timer = setTimeout(cut, FOLLOW_MS);
    timer.unref();
  };
  if (to.writableFinished) taken();
  else to.once("finish", taken);
  to.end();
  return () => {
    to.off("finish", taken);
    clearTimeout(timer);
  };
}
