/**
 * inetutils-inetd with its tcpmux (RFC 1078). It takes the port from /etc/services, which is 1, so it lives in a network of its own.
 * @module
 */
import type { Lab } from "./lab.ts";
import { isRoot, unshare } from "./needs.ts";

/** A running inetd. */
export interface Inetd {
  /** Where its tcpmux listens, inside its network. */
  readonly address: string;
  /** The command that does the same inside its network. */
  inside(command: readonly string[]): readonly string[];
}

/** Starts inetd; `services` are lines of its configuration such as `tcpmux/+today stream tcp nowait root /bin/date date`. */
export async function startInetd(lab: Lab, services: readonly string[]): Promise<Inetd> {
  const lines = ["tcpmux stream tcp nowait root internal", ...services];
  const configuration = await lab.write("inetd.conf", lines.map((line) => `${line}\n`).join(""));
  const up = 'ip link set lo up && exec "$@"';
  const inetd = ["inetutils-inetd", "-d", `--pidfile=${lab.path("inetd.pid")}`, configuration];
  // In its debugging mode inetd stays in the foreground and says what it does.
  const daemon = lab.start([...unshare("--net"), "sh", "-c", up, "sh", ...inetd]);
  await daemon.logs(/registered internal on/);
  const enter = ["nsenter", "-t", `${daemon.pid}`, "--net", ...(isRoot() ? [] : ["--user", "--preserve-credentials"])];
  return { address: "127.0.0.1:1", inside: (command) => [...enter, ...command] };
}
