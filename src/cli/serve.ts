/**
 * `fived serve`: the session server, from a configuration file or from targets on the command line. SIGHUP reads the file again,
 * SIGTERM and SIGINT drain and end, a second one ends at once.
 * @module
 */
import { Command } from "commander";
import type { Configuration, Log, SessionServer } from "../server/index.ts";
import { SYSTEM_CONFIGURATION, stateFolder } from "./folders.ts";
import { serverOption } from "./server-flags.ts";
import { toldToStop } from "./stop.ts";
import type { Verb } from "./verb.ts";

type ServiceSettings = Configuration["services"][number];

interface Flags {
  readonly config?: string;
  readonly listen?: readonly string[];
  readonly state?: string;
  readonly plaintext?: boolean;
  readonly json?: boolean;
  readonly verbose?: boolean;
}

/** The verb `serve`. */
export const serve: Verb = (ended) =>
  new Command("serve")
    .description("run a session server")
    .argument("[target...]", "NAME=TARGET; TARGET is 3000, host:port, unix:/path, ./service.ts or exec:COMMAND")
    .addOption(serverOption("config"))
    .addOption(serverOption("listen"))
    .addOption(serverOption("state"))
    .option("--plaintext", "serve those without TLS too, wherever they come from")
    .option("--json", "print JSON, one object a line")
    .option("-v, --verbose", "log what happens to every session and stream")
    .action(async (targets: readonly string[], flags: Flags, command: Command) => {
      if (targets.length > 0 && command.getOptionValueSource("config") === "cli") {
        command.error("fived: Cannot serve a file and targets at once: name the services in the file");
      }
      ended(await run(targets, flags));
    });

async function run(targets: readonly string[], flags: Flags): Promise<number> {
  const server = await import("../server/index.ts");
  const chain = await import("../chain/index.ts");
  const log = server.createLog({
    level: flags.verbose === true ? "debug" : "info",
    ...(flags.json === true ? { json: true } : {}),
  });
  const state = flags.state ?? stateFolder();

  /** What the command line asks for, a flag before the file; read anew at every SIGHUP. */
  async function configuration(): Promise<Configuration> {
    const { listen, plaintext = false } = flags;
    const read =
      targets.length > 0
        ? server.configurationFromTargets({ targets, state, ...(listen === undefined ? {} : { listen }) })
        : await server.loadConfiguration(flags.config ?? SYSTEM_CONFIGURATION, { state });
    const listeners =
      listen === undefined ? read.listen : server.configurationFromTargets({ targets: [], listen, state }).listen;
    return { ...read, listen: listeners.map((each) => ({ ...each, plaintext: plaintext || each.plaintext })) };
  }

  const first = await configuration();
  const stop = toldToStop();
  await using running = await chain.serve(first, { log });
  process.on("SIGHUP", () => void reload(running, configuration, log));
  process.stdout.write(flags.json === true ? announcementJson(running, first) : announcement(running, first));
  for (const { message, path } of first.warnings)
    log.warn({ reason: message }, `doubtful in the configuration: ${path}`);
  const signal = await stop;
  log.info({ reason: signal }, "draining");
  await running.drain();
  return 0;
}

/** A configuration with a mistake changes nothing: the server that runs is better than one that does not. */
async function reload(running: SessionServer, read: () => Promise<Configuration>, log: Log): Promise<void> {
  try {
    await running.reload(await read());
    log.info({}, "reloaded the configuration");
  } catch (error) {
    log.error({ error }, "cannot reload the configuration, the old one stays");
  }
}

function announcement(running: SessionServer, configuration: Configuration): string {
  const lines = running.addresses.map((address) => `fived: listening on ${address}  key ${running.fingerprint}`);
  for (const { host, service, to, allow } of offered(configuration)) {
    const name = host === undefined ? service : `${service} (at ${host})`;
    lines.push(`fived: service ${name} -> ${to}  allow: ${allow.length > 0 ? allow.join(", ") : "nobody"}`);
  }
  return lines.map((line) => `${line}\n`).join("");
}

function announcementJson(running: SessionServer, configuration: Configuration): string {
  const events = [
    ...running.addresses.map((address) => ({ event: "listening", address, fingerprint: running.fingerprint })),
    ...offered(configuration).map((service) => ({ event: "service", ...service })),
  ];
  return events.map((event) => `${JSON.stringify(event)}\n`).join("");
}

interface Offer {
  readonly service: string;
  readonly host?: string;
  readonly to: string;
  readonly allow: readonly string[];
}

function offered({ services, hosts }: Configuration): readonly Offer[] {
  const offer = ({ name, backEnd, allow }: ServiceSettings): Offer => ({
    service: name,
    to: destination(backEnd),
    allow,
  });
  return [
    ...services.map(offer),
    ...hosts.flatMap((host) => host.services.map((each) => ({ ...offer(each), host: host.name }))),
  ];
}

function destination(backEnd: ServiceSettings["backEnd"]): string {
  switch (backEnd.type) {
    case "tcp":
      return backEnd.targets
        .map((target) => (target.type === "unix" ? `unix:${target.path}` : hostPort(target)))
        .join(", ");
    case "exec":
      return `exec:${[backEnd.program, ...backEnd.args].join(" ")}`;
    case "module":
      return backEnd.file;
    case "keys":
      return "public keys";
    case "far":
      return `fived://${backEnd.server}/${backEnd.service ?? "*"}`;
  }
}

function hostPort({ host, port }: { readonly host: string; readonly port: number }): string {
  return host.includes(":") ? `[${host}]:${port}` : `${host}:${port}`;
}
