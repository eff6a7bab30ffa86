/**
 * `fived invite NAME`: one text that lets one person become a user, once and for a time, with `fived join`. It says where the server is and
 * which key it has, so that the first contact is not blind.
 * @module
 */
import os from "node:os";
import { Command, InvalidArgumentError } from "commander";
import { FivedError } from "../io/index.ts";
import type { Configuration } from "../server/index.ts";
import { serverOption } from "./server-flags.ts";
import { collected, configurationOf, openStore, type ServerFlags } from "./user-store.ts";
import type { Verb } from "./verb.ts";

interface Flags extends ServerFlags {
  readonly host?: string;
  readonly expires: number;
  readonly group?: readonly string[];
  readonly role?: readonly string[];
}

const DAY_MS = 24 * 3_600_000;

/** The verb `invite`. */
export const invite: Verb = (ended) =>
  new Command("invite")
    .description("print an invite, with which one person becomes a user")
    .argument("<name>", "name of the user to be, or of one who needs another key")
    .option("--host <address>", "where the server is for that person: host[:port]")
    .option("--expires <duration>", "how long it is good for: 30m, 24h, 7d", durationMs, DAY_MS)
    .option("-g, --group <name>", "a group to be in; may be repeated", collected)
    .option("-r, --role <name>", "a role to have; may be repeated", collected)
    .addOption(serverOption("config"))
    .addOption(serverOption("state"))
    .action(async (name: string, flags: Flags) => {
      ended(await run(name, flags));
    });

async function run(name: string, flags: Flags): Promise<number> {
  const { createInvite, fingerprintAt } = await import("../server/index.ts");
  const { parseAddress, printAddress } = await import("../client/index.ts");
  const configuration = await configurationOf(flags);
  const address = parseAddress(flags.host ?? addressOf(configuration));
  if (address.type !== "tcp" || address.user !== undefined || address.service !== undefined)
    throw new FivedError("ADDRESS_BAD", `Cannot invite to "${flags.host}": write host[:port] and nothing else`);
  const { host, virtualHost } = address;
  const fingerprint = await fingerprintAt(configuration, virtualHost ?? (host.type === "name" ? host.text : undefined));
  using store = await openStore(configuration);
  const text = await createInvite(store, {
    user: name,
    address: printAddress(address),
    fingerprint,
    lifeMs: flags.expires,
    groups: flags.group ?? [],
    roles: flags.role ?? [],
  });
  process.stdout.write(`${text}\n`);
  if (process.stdout.isTTY) {
    const until = new Date(Date.now() + flags.expires).toISOString();
    process.stderr.write(
      `fived: give this to ${name} and to nobody else; it is for fived join, once, until ${until}\n`,
    );
  }
  return 0;
}

/** Where others reach a server with that configuration, as far as it says. */
function addressOf({ listen }: Configuration): string {
  const endpoint = listen.map((each) => each.endpoint).find((each) => each.type === "tcp" && each.port !== 0);
  if (endpoint?.type !== "tcp")
    throw new FivedError("ADDRESS_BAD", "Cannot say where the server is: --host says where others reach it");
  const { host, port } = endpoint;
  const name = host === "0.0.0.0" || host === "::" ? os.hostname() : host.includes(":") ? `[${host}]` : host;
  return `${name}:${port}`;
}

const UNITS: ReadonlyMap<string, number> = new Map([
  ["m", 60_000],
  ["h", 3_600_000],
  ["d", DAY_MS],
]);

/** Longest life of an invite, in days; the server's library, which would say so too, is not loaded to read flags. */
const DAYS_MAX = 30;

function durationMs(text: string): number {
  const [, number, unit = ""] = /^(\d{1,6})([mhd])$/.exec(text) ?? [];
  const ms = Number(number) * (UNITS.get(unit) ?? Number.NaN);
  if (ms >= 60_000 && ms <= DAYS_MAX * DAY_MS) return ms;
  throw new InvalidArgumentError(`Write a duration from 1m to ${DAYS_MAX}d, such as 30m, 24h or 7d.`);
}
