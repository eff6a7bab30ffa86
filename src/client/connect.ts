/**
 * `connect`: a stream to a service by name, or a session to open streams on. Streams to one server share a session; where a server allows
 * a session too few streams, another session is opened, and said so.
 * @module
 */
import type { Duplex } from "node:stream";
import { ChannelDuplex } from "../io/index.ts";
import { type Address, printAddress } from "./address.ts";
import type { AuthOptions } from "./auth/options.ts";
import { type ClientChoices, optionsOf } from "./choices.ts";
import { addressOf, type ConnectOptions } from "./dial.ts";
import type { Asked, ManagerClient } from "./manager/client.ts";
import { managerHere } from "./manager/ours.ts";
import { ManagedSession } from "./manager/session.ts";
import { openSession } from "./open-session.ts";
import { personalChoices } from "./personal.ts";
import { SessionPool } from "./pool.ts";
import type { OpenOptions, Session } from "./session.ts";
import { abortWith } from "./session-lines.ts";
import type { Transport } from "./transports/transport.ts";

/**
 * Opens a session. A program that says nothing of how to connect does it as its person does on the command line: with his pins and his logins,
 * through his session manager where one runs. Rejects with the step that failed: ADDRESS_BAD, RESOLVE_FAILED, CONNECT_FAILED, TLS_FAILED, HOST_KEY_UNKNOWN …
 * @example
 * await using session = await connect("example.org", { signal });
 * session.open("research-service").pipe(process.stdout);
 */
export function connect(address: string | Address, options?: ConnectOptions): Promise<Session>;
/**
 * Opens a stream to a service, as `net.connect` opens a socket: it can be written at once, "connect" says that the service has accepted,
 * "error" why not (a {@link FivedError}). Streams to one server share a session, which ends with the last of them.
 * @example
 * const stream = connect("example.org", "research-service");
 * const mine = connect("example.org", "wiki", { auth: { user: "alice", password: async () => await readPassword() } });
 */
export function connect(address: string | Address, service: string, options?: ConnectOptions & OpenOptions): Duplex;
export function connect(
  address: string | Address,
  second?: string | ConnectOptions,
  third?: ConnectOptions & OpenOptions,
): Promise<Session> | Duplex {
  if (typeof second !== "string") return start(address, second ?? {});
  return openShared(address, second, third ?? {});
}

async function start(address: string | Address, options: ConnectOptions): Promise<Session> {
  const server = addressOf(address);
  if (!saysNothing(options)) return openSession(server, options);
  const { manager, choices, asked } = await asPerson(server, options);
  if (manager !== undefined) return ManagedSession.open(manager, printAddress(server), choices, asked);
  return openSession(server, { ...optionsOf(choices, asked), ...options });
}

function openShared(address: string | Address, service: string, options: ConnectOptions & OpenOptions): Duplex {
  const duplex = new ChannelDuplex();
  openOn(duplex, addressOf(address), service, options).catch((error: Error) => duplex.destroy(error));
  return duplex;
}

async function openOn(
  duplex: ChannelDuplex,
  server: Address,
  service: string,
  options: ConnectOptions & OpenOptions,
): Promise<void> {
  if (!saysNothing(options))
    return await poolOf(server, options).use((session) => session.openOn(duplex, service, options));
  const { host, signal } = options;
  const { manager, choices, asked } = await asPerson(server, options);
  if (manager === undefined) {
    const { signal: _, ...shared } = options;
    const pool = poolFor(JSON.stringify([printAddress(server), choices]), server, {
      ...optionsOf(choices, asked),
      ...shared,
    });
    return await pool.use((session) => session.openOn(duplex, service, options));
  }
  const address = printAddress(server);
  manager.openOn(duplex, { address, service, choices, ...(host === undefined ? {} : { host }) }, asked);
  abortWith(duplex, signal);
}

/** What a program may say without saying how to connect. */
const NO_CHOICE: ReadonlySet<string> = new Set(["signal", "log", "host"]);

/** A program that says nothing of how to connect does it as its person does: with his pins and logins, and through his session manager. */
function saysNothing(options: ConnectOptions): boolean {
  return Object.entries(options).every(([name, value]) => value === undefined || NO_CHOICE.has(name));
}

async function asPerson(
  server: Address,
  { log }: ConnectOptions,
): Promise<{ readonly manager: ManagerClient | undefined; readonly choices: ClientChoices; readonly asked: Asked }> {
  const asked: Asked = { tries: 1, log: (line) => log?.(line) };
  const [manager, choices] = await Promise.all([managerHere(), personalChoices(server)]);
  return { manager, choices, asked };
}

/** Who signs in, and how octets get there, is never told by looking at it: what was said with two objects shares no session. */
const numbers = new WeakMap<AuthOptions | Transport, number>();
let lastNumber = 0;

function numberOf(said: AuthOptions | Transport): number {
  const number = numbers.get(said) ?? ++lastNumber;
  numbers.set(said, number);
  return number;
}

/** Pools of this process, by address and by what was asked of the connection. */
const pools = new Map<string, SessionPool>();

function poolOf(address: Address, options: ConnectOptions): SessionPool {
  const { signal: _, log: __, ask, auth, transport, ...asked } = options;
  const way = typeof transport === "object" ? numberOf(transport) : transport;
  const server = printAddress(address.type === "tcp" ? { ...address, service: undefined } : address);
  const key = JSON.stringify([server, asked, way, ask !== undefined, auth === undefined ? 0 : numberOf(auth)]);
  const { signal: ___, ...shared } = options; // one stream's signal is not the session's
  return poolFor(key, address, shared);
}

function poolFor(key: string, address: Address, options: ConnectOptions): SessionPool {
  const known = pools.get(key);
  if (known !== undefined) return known;
  const pool = new SessionPool(address, options, () => pools.delete(key));
  pools.set(key, pool);
  return pool;
}
