/**
 * Where a verb listens, as people write it: PORT, HOST:PORT, [IPv6]:PORT or unix:/path; this computer alone where no host is said.
 * @module
 */
import { InvalidArgumentError } from "commander";
import type { Bind } from "../client/index.ts";

/** Reads it; throws InvalidArgumentError. */
export function bindIn(text: string): Bind {
  if (text.startsWith("unix:/")) return { path: text.slice("unix:".length) };
  const [, host = "127.0.0.1", port = ""] = /^(?:(\[[^\]]+\]|[^:]+):)?([0-9]{1,5})$/.exec(text) ?? [];
  if (port === "" || Number(port) > 65_535) {
    throw new InvalidArgumentError(
      `"${text}" is no place to listen on: write PORT, HOST:PORT, [IPv6]:PORT or unix:/path.`,
    );
  }
  return { host: host.replace(/^\[(.*)\]$/, "$1"), port: Number(port) };
}
