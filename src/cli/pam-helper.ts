/**
 * `fived pam-helper`: what asks PAM for a server that is not root. Runs as root until SIGTERM or SIGINT, and needs nothing but its socket:
 * docs/pam.md has a systemd unit.
 * @module
 */
import path from "node:path";
import { Command } from "commander";
import { toldToStop } from "./stop.ts";
import type { Verb } from "./verb.ts";

interface Flags {
  readonly socket: string;
  readonly service: string;
  readonly json?: boolean;
}

/** The verb `pam-helper`. */
export const pamHelper: Verb = (ended) =>
  new Command("pam-helper")
    .description("ask PAM, as root, for a server that is not root")
    .requiredOption("--socket <path>", "where to listen: auth.up.helper of the server")
    .option("--service <name>", "the file in /etc/pam.d: auth.up.pam of the server", "fived")
    .option("--json", "print JSON, one object a line")
    .action(async (flags: Flags) => ended(await run(flags)));

async function run({ socket: given, service, json = false }: Flags): Promise<number> {
  const { createLog, servePam } = await import("../server/index.ts");
  const log = createLog({ level: "info", ...(json ? { json } : {}) });
  const socket = path.resolve(given);
  const stop = toldToStop();
  await using _helper = await servePam({ socket, service, log });
  const event = { event: "listening", address: `unix:${socket}`, service };
  process.stdout.write(
    json ? `${JSON.stringify(event)}\n` : `fived: asking PAM as "${service}" for whoever may write to ${socket}\n`,
  );
  const signal = await stop;
  log.info({ reason: signal }, "ending");
  return 0;
}
