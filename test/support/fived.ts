/**
 * The command `fived` as users run it: the built program on the pinned runtime, with a home in the test's own folder.
 * @module
 */
import path from "node:path";
import type { Lab } from "./lab.ts";
import { unshare } from "./needs.ts";
import type { Ended, Program } from "./program.ts";

const repository = path.join(import.meta.dirname, "..", "..");

/** Nobody is there to ask whether a key is right. */
const TRUST = ["-o", "StrictHostKeyChecking=accept-new"];

/** The command line of `fived` with these arguments. */
export function fived(...args: readonly string[]): readonly string[] {
  return [path.join(repository, "node_modules", ".bin", "node"), path.join(repository, "bin", "fived.js"), ...args];
}

/** The command line of a client verb that takes whatever key it sees first. */
export function client(verb: "list" | "connect" | "forward", ...args: readonly string[]): readonly string[] {
  return fived(verb, ...TRUST, ...args);
}

/** A running session server. */
export interface Server {
  readonly program: Program;
  /** Where it listens, as clients write it: `127.0.0.1:40123`, or `unix:/path`. */
  readonly address: string;
  /** The port of the address; 0 for a Unix socket. */
  readonly port: number;
  /** Writes another configuration and has it read. */
  reload(configuration: Configuration): Promise<void>;
}

/** What may stand in a configuration file, as far as these tests use it. */
export interface Configuration {
  readonly listen?: readonly string[];
  readonly roles?: Readonly<Record<string, readonly string[]>>;
  readonly announce?: Readonly<Record<string, string>>;
  readonly services?: Readonly<Record<string, ServiceEntry>>;
  readonly hosts?: Readonly<Record<string, { readonly services: Readonly<Record<string, ServiceEntry>> }>>;
}

type ServiceEntry = {
  readonly to?: string | readonly string[];
  readonly exec?: readonly string[];
  readonly module?: string;
  readonly keys?: true;
  readonly announce?: "proxy-v2" | "http";
  readonly health?: { readonly interval: string };
  readonly allow?: readonly string[];
};

/** Runs `fived serve` until the test ends. Whoever asks may use the services unless `allow` says otherwise. */
export async function serve(lab: Lab, configuration: Configuration, env: NodeJS.ProcessEnv = {}): Promise<Server> {
  const file = await lab.write("fived.yaml", yaml(configuration));
  const program = lab.start(fived("serve", "-c", file, "--state", lab.path("server")), { env });
  const [, url = ""] = await program.hears(/listening on (\S+)/);
  const address = url.replace(/^tcp:\/\//, "");
  return {
    program,
    address,
    port: Number(/:(\d+)$/.exec(address)?.[1] ?? 0),
    async reload(next) {
      await lab.write("fived.yaml", yaml(next));
      program.signal("SIGHUP");
      await program.logs(/reloaded/);
    },
  };
}

/** Runs `fived list`; what it printed, a name each. */
export async function list(lab: Lab, address: string): Promise<readonly string[]> {
  const { status, stdout, stderr } = await lab.run(client("list", address));
  if (status !== 0) throw new Error(`fived list ended with ${status}: ${stderr}`);
  return stdout.toString().trimEnd().split("\n");
}

/** Runs `fived connect` to its end. */
export function connect(
  lab: Lab,
  address: string,
  service: string,
  input: string | Uint8Array = "",
): Promise<Ended & { readonly text: string }> {
  return lab
    .run(client("connect", address, service), { input })
    .then((ended) => ({ ...ended, text: ended.stdout.toString() }));
}

/** Runs `fived forward` to services of one server until the test ends; the local ports, in the order of the services. */
export async function forward(lab: Lab, server: Server, ...services: readonly string[]): Promise<readonly number[]> {
  const program = lab.start(client("forward", ...services.map((service) => `0=${server.address}/${service}`)));
  const ports: number[] = [];
  for (const service of services) {
    const [, port] = await program.hears(new RegExp(`127\\.0\\.0\\.1:(\\d+) -> \\S+/${service}\\n`));
    ports.push(Number(port));
  }
  return ports;
}

/** The command line that does the same where these host names mean these addresses, and no name server is asked. */
export async function withHosts(
  lab: Lab,
  hosts: Readonly<Record<string, string>>,
  command: readonly string[],
): Promise<readonly string[]> {
  const names = await lab.write(
    "hosts",
    Object.entries(hosts)
      .map(([name, address]) => `${address} ${name}\n`)
      .join(""),
  );
  const resolver = await lab.write("resolv.conf", "nameserver 127.0.0.1\noptions timeout:1 attempts:1\n");
  const mount = 'mount --bind "$1" /etc/hosts && mount --bind "$2" /etc/resolv.conf && shift 2 && exec "$@"';
  return [...unshare("--mount"), "sh", "-c", mount, "sh", names, resolver, ...command];
}

/** JSON is YAML. */
function yaml({ listen = ["tcp://127.0.0.1:0"], services = {}, hosts = {}, ...others }: Configuration): string {
  return JSON.stringify({
    ...others,
    listen,
    services: openToAnyone(services),
    hosts: Object.fromEntries(
      Object.entries(hosts).map(([name, host]) => [name, { services: openToAnyone(host.services) }]),
    ),
  });
}

function openToAnyone(services: Readonly<Record<string, ServiceEntry>>): Readonly<Record<string, ServiceEntry>> {
  return Object.fromEntries(Object.entries(services).map(([name, entry]) => [name, { allow: ["anyone"], ...entry }]));
}
