/**
 * The server of a test: real, on real sockets, with the services and hosts that test/vectors describe. Its services are modules in a
 * folder of their own, as an administrator would write them.
 * @module
 */
import fs from "node:fs/promises";
import os from "node:os";
import path from "node:path";
import type { TestContext } from "node:test";
import { loadConfiguration, type SessionServer, serve } from "../../src/index.ts";
import { openUsers } from "../../src/server/auth/users.ts";
import { ownCertificate } from "../../src/server/certificate.ts";
import { createLog } from "../../src/server/index.ts";
import { silentLog } from "../../src/server/log.ts";

/** A service of test/vectors: who may use it, and what it does with a stream. */
export interface ServiceSetUp {
  readonly name: string;
  readonly allow: string;
  /** `echo` gives back what it gets, and ends when its input ends; `say` says `text`. */
  readonly does: "echo" | "say";
  readonly text?: string;
}

/** A virtual host; with `apart` it has a certificate of its own, and is in no other host's group. */
export interface HostSetUp {
  readonly services: readonly ServiceSetUp[];
  readonly apart?: true;
}

/** Somebody who may sign in with a password. */
export interface UserSetUp {
  readonly name: string;
  readonly password: string;
  readonly roles?: readonly string[];
}

/** What a server serves. */
export interface SetUp {
  readonly services: readonly ServiceSetUp[];
  readonly hosts?: Readonly<Record<string, HostSetUp>>;
  readonly users?: readonly UserSetUp[];
}

/** As in the configuration. */
export interface Listen {
  readonly url: string;
  readonly plaintext: boolean;
}

/** How it is served, where that matters to a test. */
export interface Serving {
  /** As in the configuration; a free port of 127.0.0.1 if left out. */
  readonly listen?: string | Listen | readonly Listen[];
  /** As in the configuration, such as `firstLine: "200ms"`. */
  readonly limits?: Readonly<Record<string, unknown>>;
}

/** A running server. */
export interface Served {
  readonly server: SessionServer;
  /** For `net.connect`. */
  readonly at: { readonly host: string; readonly port: number } | { readonly path: string };
  /** Reads another configuration; what is not said stays as it was served first. */
  reload(setUp: SetUp, serving?: Serving): Promise<void>;
}

const ECHO =
  'import { service } from "fived";\nexport default service("echo", (stream) => void stream.pipe(stream));\n';

/** Serves until the test is over. */
export async function serveSetUp(t: TestContext, setUp: SetUp, serving: Serving = {}): Promise<Served> {
  const folder = await fs.mkdtemp(path.join(os.tmpdir(), "fived-conformance-"));
  let files = 0;
  const configuration = async (wanted: SetUp, other: Serving = {}) => {
    const file = path.join(folder, `fived-${++files}.yaml`); // two that are read at once are two
    await fs.writeFile(file, await yaml(folder, wanted, { ...serving, ...other })); // JSON is YAML
    return await loadConfiguration(file, { state: path.join(folder, "state") });
  };
  if (setUp.users !== undefined) await enrol(path.join(folder, "state"), setUp.users);
  const server = await serve(await configuration(setUp), { log: createLog({ level: "silent" }) });
  t.after(async () => {
    await server[Symbol.asyncDispose]();
    await fs.rm(folder, { recursive: true, force: true });
  });
  return {
    server,
    at: target(server.addresses[0] ?? ""),
    reload: async (wanted, other) => server.reload(await configuration(wanted, other)),
  };
}

/** Passwords are cheap here: what they cost a thief is not what is tested. */
const CHEAP = { memoryKiB: 8, passes: 1, lanes: 1 };

async function enrol(state: string, users: readonly UserSetUp[]): Promise<void> {
  await fs.mkdir(state, { mode: 0o700 });
  using store = await openUsers({ folder: state, log: silentLog, cost: CHEAP });
  for (const { name, password, roles = [] } of users) await store.add({ name, roles, password: Buffer.from(password) });
}

async function yaml(folder: string, setUp: SetUp, { listen = "tcp://127.0.0.1:0", limits = {} }: Serving) {
  const hosts = Object.entries(setUp.hosts ?? {}).map(async ([name, host]) => {
    const tls = host.apart === true ? { tls: await certificate(folder, name) } : {};
    return [name, { services: await services(folder, host.services), ...tls }] as const;
  });
  return JSON.stringify({
    listen: typeof listen === "string" ? listen : [listen].flat(),
    limits,
    // A role that comes with a user counts where the configuration has it.
    roles: Object.fromEntries((setUp.users ?? []).flatMap(({ roles = [] }) => roles.map((role) => [role, []]))),
    services: await services(folder, setUp.services),
    hosts: Object.fromEntries(await Promise.all(hosts)),
  });
}

async function services(folder: string, wanted: readonly ServiceSetUp[]) {
  const entries = wanted.map(async ({ name, allow, does, text = "" }) => {
    const file = path.join(folder, `${name}-${does}.ts`);
    const say = `import { service } from "fived";
export default service("say", (stream) => {
  stream.write(${JSON.stringify(text)});
  stream.resume().on("end", () => stream.end());
});
`;
    await fs.writeFile(file, does === "echo" ? ECHO : say);
    return [name, { module: file, allow: [allow] }] as const;
  });
  return Object.fromEntries(await Promise.all(entries));
}

/** A certificate for one name; the same each time in one folder. */
async function certificate(folder: string, name: string) {
  const state = path.join(folder, name);
  await ownCertificate(state, [name]);
  return { certificate: path.join(state, "host.pem"), key: path.join(state, "host.key") };
}

/** An address as the server prints it, for `net.connect`. */
function target(address: string): Served["at"] {
  const unix = /^unix:(.*)$/.exec(address)?.[1];
  if (unix !== undefined) return { path: unix };
  const { hostname, port } = new URL(address);
  return { host: hostname, port: Number(port) };
}
