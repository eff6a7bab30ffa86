/**
 * `connect`: a stream to a service by name, or a session to open streams on. Streams to one server share a session; where a server allows
 * a session too few streams, another session is opened, and said so.
 * @module
 */
import type { Duplex } from "node:stream";
import { ChannelDuplex } from "../io/index.ts";
import { type Address, printAddress } from "./address.ts";
import type { AuthOptions } from "./auth/options.ts";
import { addressOf, type ConnectOptions } from "./dial.ts";
import { SessionPool } from "./pool.ts";
import { openSession, type Session } from "./session.ts";

/**
 * Opens a session. Rejects with the step that failed: ADDRESS_BAD, RESOLVE_FAILED, CONNECT_FAILED, TLS_FAILED, HOST_KEY_UNKNOWN …
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
export function connect(address: string | Address, service: string, options?: ConnectOptions): Duplex;
export function connect(
  address: string | Address,
  second?: string | ConnectOptions,
  third?: ConnectOptions,
): Promise<Session> | Duplex {
  if (typeof second !== "string") return start(address, second ?? {});
  return openShared(address, second, third ?? {});
}

async function start(address: string | Address, options: ConnectOptions): Promise<Session> {
  return openSession(addressOf(address), options);
}

function openShared(address: string | Address, service: string, options: ConnectOptions): Duplex {
  const duplex = new ChannelDuplex();
  poolOf(addressOf(address), options)
    .use((session) => session.openOn(duplex, service, options))
    .catch((error: Error) => duplex.destroy(error));
  return duplex;
}

/** Who signs in is never told by looking at it: what was said with two objects is two people, and they share no session. */
const numbers = new WeakMap<AuthOptions, number>();
let lastNumber = 0;

function numberOf(auth: AuthOptions): number {
  const number = numbers.get(auth) ?? ++lastNumber;
  numbers.set(auth, number);
  return number;
}

/** Pools of this process, by address and by what was asked of the connection. */
const pools = new Map<string, SessionPool>();

function poolOf(address: Address, options: ConnectOptions): SessionPool {
  const { signal: _, log: __, ask, auth, ...asked } = options;
  const server = printAddress(address.type === "tcp" ? { ...address, service: undefined } : address);
  const key = JSON.stringify([server, asked, ask !== undefined, auth === undefined ? 0 : numberOf(auth)]);
  const known = pools.get(key);
  if (known !== undefined) return known;
  const { signal: ___, ...shared } = options; // one stream's signal is not the session's
  const pool = new SessionPool(address, shared, () => pools.delete(key));
  pools.set(key, pool);
  return pool;
}
