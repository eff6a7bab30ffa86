/**
 * Standard output as a stream that can be closed. `process.stdout` never closes its descriptor, so a reader behind a pipe would not learn
 * that a service has ended while we still have something to send to it.
 * @module
 */
import fs from "node:fs";
import net from "node:net";
import type { Writable } from "node:stream";
import tty from "node:tty";

const STANDARD_OUTPUT = 1;

/** Standard output; `end()` closes it. Do not mix with process.stdout. */
export function standardOutput(): Writable {
  // Closing a terminal tells nobody anything: it stays open for the shell.
  if (tty.isatty(STANDARD_OUTPUT)) return process.stdout;
  const kind = fs.fstatSync(STANDARD_OUTPUT);
  if (kind.isFIFO() || kind.isSocket()) return new net.Socket({ fd: STANDARD_OUTPUT, readable: false, writable: true });
  return fs.createWriteStream("", { fd: STANDARD_OUTPUT });
}
