/**
 * Session servers that lie behind one another: each real, on a port of its own, with people, a log and an audit, in a test's lab.
 * @module
 */
import fs from "node:fs/promises";
import type { Duplex } from "node:stream";
import { buffer } from "node:stream/consumers";
import {
  type ConnectOptions,
  connect,
  loadConfiguration,
  type Session,
  type SessionServer,
  serve,
} from "../../src/index.ts";
import { openUsers } from "../../src/server/auth/users.ts";
import { RecordingLog } from "../../src/server/backends/fake-talk.test.ts";
import { silentLog } from "../../src/server/log.ts";
import { eventually } from "./deadline.ts";
import type { Lab } from "./lab.ts";

/** Passwords are cheap here: what they cost a thief is not what is tested. */
const CHEAP = { memoryKiB: 8, passes: 1, lanes: 1 };

/** A configuration, as in a file. */
export type LinkSettings = Readonly<Record<string, unknown>>;

/** One server. */
export interface Link {
  readonly server: SessionServer;
  /** `127.0.0.1:40123`. */
  readonly address: string;
  readonly log: RecordingLog;
  /** The file of its public keys. */
  readonly keys: string;
  /** Reads another configuration. */
  reload(settings: LinkSettings): Promise<void>;
  /** What its audit says so far. */
  audit(): Promise<readonly Readonly<Record<string, unknown>>[]>;
  /** The first event of the audit that is like this. */
  event(like: Readonly<Record<string, unknown>>): Promise<Readonly<Record<string, unknown>>>;
  /** How to connect to it as one of its people, or as nobody. */
  as(user?: string): ConnectOptions;
  /** A session with it. */
  session(user?: string): Promise<Session>;
  /** A stream to a service of it. */
  opens(service: string, user?: string): Duplex;
  /** What a service answers to these octets. */
  asks(service: string, octets: string, user?: string): Promise<string>;
}

/** Starts a server until the test ends. `users` have their names for passwords. */
export async function startLink(
  lab: Lab,
  name: string,
  settings: LinkSettings,
  users: readonly {
    readonly name: string;
    readonly roles?: readonly string[];
    readonly keys?: readonly string[];
  }[] = [],
): Promise<Link> {
  const state = await lab.makeFolder(name);
  await fs.chmod(state, 0o700);
  using store = await openUsers({ folder: state, log: silentLog, cost: CHEAP });
  for (const user of users) await store.add({ ...user, password: Buffer.from(user.name) });
  const auditFile = lab.path(`${name}.audit`);
  const load = async (more: LinkSettings) => {
    const all = { listen: "tcp://127.0.0.1:0", announce: { issuer: `${name}.example` }, audit: auditFile, ...more };
    return await loadConfiguration(await lab.write(`${name}.yaml`, JSON.stringify(all)), { state }); // JSON is YAML
  };
  const log = new RecordingLog();
  const server = await serve(await load(settings), { log });
  lab.defer(async () => await server[Symbol.asyncDispose]());
  const address = (server.addresses[0] ?? "").replace("tcp://", "");
  const as = (user?: string): ConnectOptions => ({
    knownHosts: lab.path("known_hosts"),
    expectedKey: server.fingerprint,
    ...(user === undefined ? {} : { auth: { user, password: async () => user } }),
  });
  const opens = (service: string, user?: string): Duplex => connect(address, service, as(user));
  const audit = async () =>
    (await fs.readFile(auditFile, "utf8"))
      .trim()
      .split("\n")
      .filter((line) => line !== "")
      .map((line): Readonly<Record<string, unknown>> => JSON.parse(line));
  return {
    ...{ server, address, log, audit, as, opens },
    keys: `${state}/jwks.json`,
    reload: async (more) => server.reload(await load(more)),
    event: (like) =>
      eventually(async () => {
        const found = (await audit()).find((each) => Object.entries(like).every(([key, value]) => each[key] === value));
        if (found === undefined) throw new Error(`the audit of ${name} has no ${JSON.stringify(like)}`);
        return found;
      }, "an event in the audit"),
    session: (user) => connect(address, as(user)),
    async asks(service, octets, user) {
      const stream = opens(service, user);
      stream.end(octets);
      return (await buffer(stream)).toString();
    },
  };
}

/** The entry of `hops` for a server where this user signs in by his password. */
export async function hopTo(lab: Lab, link: Link, user: string): Promise<Readonly<Record<string, unknown>>> {
  const password = await lab.write(`${user}.password`, `${user}\n`);
  await fs.chmod(password, 0o600);
  return { [`${user}@${link.address}`]: { key: link.server.fingerprint, password } };
}
