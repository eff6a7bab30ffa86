/**
 * TCP to whichever endpoint of the server's name answers first (`initiator/`).
 * @module
 */
import { connect, type Socket } from "node:net";
import { FivedError } from "../../io/index.ts";
import { type Address, DEFAULT_PORT, printAddress } from "../address.ts";
import { type Endpoint, endpointsOf, NotOffered, type Wanted } from "../initiator/endpoints.ts";
import { type Names, systemNames } from "../initiator/names.ts";
import { RaceLost, race } from "../initiator/race.ts";
import { noConnection, type Transport } from "./transport.ts";

/** Over the network, as everybody does. */
export const tcp: Transport = tcpWith(systemNames);

/** TCP, with the names of another name service. */
export function tcpWith(names: Names): Transport {
  return { name: "tcp", open: (address, signal) => reachServer(address, openTcp, signal, names) };
}

/** Opens something to the first endpoint of a session server that takes it. */
export async function reachServer<Result extends { destroy(): void }>(
  address: Address,
  open: (endpoint: Endpoint, signal: AbortSignal) => Promise<Result>,
  signal: AbortSignal,
  names: Names = systemNames,
): Promise<Result> {
  if (address.type === "unix")
    throw noConnection(address, "a Unix socket is on this computer, and no network leads there");
  const { host, port } = address;
  return await reach(address, { host: host.text, port, isDefaultPort: port === DEFAULT_PORT }, open, signal, names);
}

/** The same for a host that is only on the way to the server at `address`. */
export async function reach<Result extends { destroy(): void }>(
  address: Address,
  wanted: Wanted,
  open: (endpoint: Endpoint, signal: AbortSignal) => Promise<Result>,
  signal: AbortSignal,
  names: Names = systemNames,
): Promise<Result> {
  const over = new AbortController();
  const tried: Endpoint[] = [];
  const noted = (endpoint: Endpoint, each: AbortSignal): Promise<Result> => {
    tried.push(endpoint);
    return open(endpoint, each);
  };
  try {
    return await race(endpointsOf(wanted, names, over.signal), noted, signal);
  } catch (error) {
    if (signal.aborted) throw late(wanted, tried, signal.reason);
    throw failure(address, wanted, error);
  } finally {
    over.abort(); // nobody waits for an answer of DNS any more
  }
}

/** A connection to one endpoint. */
export function openTcp(endpoint: Endpoint, signal: AbortSignal): Promise<Socket> {
  return connected(connect({ ...endpoint, allowHalfOpen: true, noDelay: true }), signal);
}

/** A socket, once it is connected; destroyed where it is not in time. */
export function connected(socket: Socket, signal: AbortSignal): Promise<Socket> {
  return new Promise((resolve, reject) => {
    const abort = (): void => fail(signal.reason);
    const fail = (error: unknown): void => {
      signal.removeEventListener("abort", abort);
      socket.destroy();
      reject(error);
    };
    signal.addEventListener("abort", abort, { once: true });
    socket.on("error", fail); // stays: from here on "close" says what there is to say
    socket.once("connect", () => {
      signal.removeEventListener("abort", abort);
      resolve(socket);
    });
    if (signal.aborted) abort();
  });
}

/** What the time was spent on. */
function late({ host }: Wanted, tried: readonly Endpoint[], reason: unknown): unknown {
  if (!(reason instanceof FivedError) || reason.code !== "TIMEOUT") return reason;
  const why = tried.length === 0 ? `no answer to where ${host} is` : `no answer from ${tried.map(written).join(", ")}`;
  return new FivedError("TIMEOUT", `${reason.message}: ${why}`, { cause: reason });
}

function failure(address: Address, { host, port }: Wanted, error: unknown): FivedError {
  if (!(error instanceof RaceLost)) {
    const code = codeOf(error);
    const why =
      error instanceof NotOffered ? error.message : `the name ${host} has no address (${code}); is it spelled right?`;
    return new FivedError("RESOLVE_FAILED", `Cannot connect to ${printAddress(address)}: ${why}`, { cause: error });
  }
  const { attempts } = error;
  const [only] = attempts;
  const isPlain = attempts.length === 1 && only?.endpoint.host === host && only.endpoint.port === port;
  if (attempts.every((attempt) => codeOf(attempt.error) === "ECONNREFUSED")) {
    const where = isPlain ? "there" : `at ${attempts.map(({ endpoint }) => written(endpoint)).join(", ")}`;
    return noConnection(address, `nothing listens ${where}; is the session server running?`, error);
  }
  const tried = attempts.map((attempt) => `${written(attempt.endpoint)} (${codeOf(attempt.error)})`);
  const why =
    isPlain && only !== undefined ? messageOf(only.error) : `no address took the connection: ${tried.join(", ")}`;
  return noConnection(address, why, error);
}

function written({ host, port }: Endpoint): string {
  return host.includes(":") ? `[${host}]:${port}` : `${host}:${port}`;
}

function codeOf(error: unknown): string {
  return error instanceof Error && "code" in error ? String(error.code) : messageOf(error);
}

function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}
