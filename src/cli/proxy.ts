/**
 * `fived proxy`: SOCKS and HTTP on one port of this computer, for programs that can be told of a proxy and know nothing of sessions.
 * @module
 */
import fs from "node:fs/promises";
import path from "node:path";
import type { Duplex } from "node:stream";
import { Command, InvalidArgumentError } from "commander";
import { parse } from "yaml";
import type { Address, Bind, ManagerClient } from "../client/index.ts";
import type { Policies } from "../compat/index.ts";
import { configurationFolder, FivedError } from "../io/index.ts";
import { bindIn } from "./bind.ts";
import { type ClientFlags, choicesOf, connectOptions, peopleHere, withClientFlags } from "./client-flags.ts";
import { ourManager } from "./manager.ts";
import { toldToStop } from "./stop.ts";
import type { Verb } from "./verb.ts";

/** Where proxies of this kind are. */
const BIND: Bind = { host: "127.0.0.1", port: 1080 };

type Otherwise = "session" | "session-or-direct" | "direct" | "refuse";

interface Flags extends ClientFlags {
  readonly listen?: Bind;
  readonly name?: ReadonlyMap<string, string>;
  readonly otherwise?: Otherwise;
}

/** The verb `proxy`. */
export const proxy: Verb = (ended) =>
  withClientFlags(new Command("proxy"))
    .description("a SOCKS and HTTP proxy that leads to services")
    .option("--listen <address>", "where: PORT, HOST:PORT or unix:/path; 127.0.0.1:1080 if left out", bindIn)
    .option("--name <name=addr>", "a short name for an address, as in wiki.NAME.localhost; may be repeated", nameIn)
    .option(
      "--otherwise <policy>",
      "for hosts that no rule names: session, session-or-direct, direct or refuse",
      otherwiseIn,
    )
    .addHelpText(
      "after",
      "\nRules and names are in config.yaml: policies and names. curl -x socks5h://127.0.0.1:1080 http://wiki.example.org.localhost/",
    )
    .action(async (flags: Flags) => {
      ended(await run(flags));
    });

async function run(flags: Flags): Promise<number> {
  const stop = toldToStop(["SIGINT", "SIGTERM", "SIGHUP"]);
  const { startProxy } = await import("../compat/index.ts");
  const policies = await policiesFor(flags);
  const opener = new Opener(flags);
  await using _opener = opener;
  await using running = await startProxy({
    bind: flags.listen ?? BIND,
    policies,
    open: (address, service) => opener.open(address, service),
    log: (line) => void process.stderr.write(`fived: ${line}\n`),
  });
  process.stdout.write(`fived: SOCKS and HTTP on ${running.address}\n`);
  await stop;
  return 0;
}

/** Opens streams through the manager, and through the next one when that has ended; or without one. */
class Opener implements AsyncDisposable {
  readonly #flags: Flags;
  #manager: Promise<ManagerClient | undefined> | undefined;

  constructor(flags: Flags) {
    this.#flags = flags;
  }

  async open(address: Address, service: string): Promise<Duplex> {
    const client = await import("../client/index.ts");
    const manager = await this.#current();
    if (manager === undefined) return client.connect(address, service, await connectOptions(this.#flags, address));
    const request = { address: client.printAddress(address), service, choices: await choicesOf(this.#flags, address) };
    return manager.open(request, peopleHere(this.#flags));
  }

  #current(): Promise<ManagerClient | undefined> {
    if (this.#manager !== undefined) return this.#manager;
    const forget = (): void => {
      this.#manager = undefined;
    };
    this.#manager = ourManager();
    this.#manager.then((manager) => manager?.closed.then(forget), forget);
    return this.#manager;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    const manager = await this.#manager?.catch(() => undefined);
    await manager?.[Symbol.asyncDispose]();
  }
}

/** Rules and names of `config.yaml`, and those of the command line before them. */
async function policiesFor({ name = new Map(), otherwise }: Flags): Promise<Policies> {
  const { readPolicies } = await import("../compat/index.ts");
  const file = path.join(configurationFolder(), "config.yaml");
  const written = await configurationIn(file);
  const names = written["names"] ?? {};
  if (typeof names !== "object" || !Object.values(names).every((address) => typeof address === "string"))
    throw new FivedError("CONFIGURATION_BAD", `Cannot use ${file}: names: expected an address for each`);
  return readPolicies(written["policies"], new Map([...Object.entries(names), ...name]), otherwise);
}

async function configurationIn(file: string): Promise<Readonly<Record<string, unknown>>> {
  try {
    const value: unknown = parse(await fs.readFile(file, "utf8"));
    if (typeof value === "object" && value !== null && !Array.isArray(value)) return value as Record<string, unknown>;
    if (value === null) return {};
    throw new Error("expected a mapping such as policies: []");
  } catch (cause) {
    if (cause instanceof Error && "code" in cause && cause.code === "ENOENT") return {};
    const why = cause instanceof Error ? cause.message : String(cause);
    throw new FivedError("CONFIGURATION_BAD", `Cannot use ${file}: ${why}`, { cause });
  }
}

function nameIn(text: string, before: ReadonlyMap<string, string> = new Map()): ReadonlyMap<string, string> {
  const [, name, address] = /^([a-z0-9][a-z0-9.-]*)=(.+)$/s.exec(text) ?? [];
  if (name === undefined || address === undefined)
    throw new InvalidArgumentError("Write NAME=ADDRESS, as in lab=192.0.2.1:1078.");
  return new Map([...before, [name, address]]);
}

function otherwiseIn(text: string): Otherwise {
  if (text === "session" || text === "session-or-direct" || text === "direct" || text === "refuse") return text;
  throw new InvalidArgumentError("Write session, session-or-direct, direct or refuse.");
}
