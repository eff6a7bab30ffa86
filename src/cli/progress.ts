/**
 * How far a long transfer is, on standard error, for a person who watches: `12.3 MiB received, 4.1 MiB/s`. Nothing is shown where nobody looks at
 * standard error, where a terminal is in use for the conversation itself, or, unless asked for, where both ends are pipes: `ssh` and others
 * that run `fived connect` have the terminal for themselves.
 * @module
 */
import fs from "node:fs";
import type { Duplex } from "node:stream";

/** Shorter transfers show nothing. */
const QUIET_MS = 2_000;
const EVERY_MS = 500;
const ERASE_LINE = "\r\u001b[K";
const UNITS = ["B", "KiB", "MiB", "GiB", "TiB"] as const;

/** A person at standard error watches a file go or come. */
export function isWatched(): boolean {
  if (!process.stderr.isTTY || process.stdin.isTTY || process.stdout.isTTY) return false;
  return [0, 1].some((descriptor) => fs.fstatSync(descriptor).isFile());
}

/** Shows on standard error what passes until the stream closes. */
export function showProgress(stream: Duplex): void {
  const counts = { received: 0, sent: 0 };
  stream.on("data", ({ length }: Uint8Array) => {
    counts.received += length;
  });
  process.stdin.on("data", ({ length }: Uint8Array) => {
    counts.sent += length;
  });
  const startedAt = performance.now();
  let isShown = false;
  const timer = setInterval(() => {
    const elapsed = performance.now() - startedAt;
    if (elapsed < QUIET_MS) return;
    isShown = true;
    process.stderr.write(`${process.stderr.isTTY ? ERASE_LINE : ""}fived: ${progressLine(counts, elapsed)}`);
    if (!process.stderr.isTTY) process.stderr.write("\n");
  }, EVERY_MS).unref();
  stream.once("close", () => {
    clearInterval(timer);
    if (isShown && process.stderr.isTTY) process.stderr.write(ERASE_LINE);
  });
}

/** What has passed in so many milliseconds, in words. */
export function progressLine(
  { received, sent }: { readonly received: number; readonly sent: number },
  ms: number,
): string {
  const parts = [
    ...(received > 0 || sent === 0 ? [`${size(received)} received`] : []),
    ...(sent > 0 ? [`${size(sent)} sent`] : []),
    `${size((1_000 * (received + sent)) / ms)}/s`,
  ];
  return parts.join(", ");
}

/** A number of octets in the unit that people read. */
export function size(octets: number): string {
  const step = octets < 1 ? 0 : Math.min(Math.floor(Math.log2(octets) / 10), UNITS.length - 1);
  return `${(octets / 1_024 ** step).toFixed(step === 0 ? 0 : 1)} ${UNITS[step]}`;
}
