/**
 * Forwarding: a local address whose connections are streams to one service (like `ssh -L`, but to a name).
 * @module
 */
import { createServer, isIPv6, type Socket } from "node:net";
import { FivedError, removeStale, spliceOf } from "../io/index.ts";
import type { Address } from "./address.ts";
import { addressOf, type ConnectOptions } from "./dial.ts";
import { SessionPool } from "./pool.ts";
import type { ServiceOpener } from "./session.ts";

/** Where to listen. */
export type Bind = { readonly host: string; readonly port: number } | { readonly path: string };

/** Where to listen, and what for. */
export interface ForwardOptions {
  readonly bind: Bind;
  readonly address: string | Address;
  readonly service: string;
  readonly client: ConnectOptions;
}

/** A running forward. */
export interface Forward extends AsyncDisposable {
  /** Where it listens, with the port that was really taken: `127.0.0.1:8080`, `[::1]:8080` or `unix:/path`. */
  readonly address: string;
}

/** Starts a forward; rejects with LISTEN_FAILED. A local program whose stream is refused sees its connection reset. */
export async function forward({ bind, address, service, client }: ForwardOptions): Promise<Forward> {
  const pool = new SessionPool(addressOf(address), client, () => {});
  const { signal: _, ...options } = client;
  try {
    const { log } = client;
    const listening = await listen({ bind, log }, (socket, refused) => {
      const joinTo = (session: ServiceOpener): void => {
        if (socket.destroyed) return;
        session.join(service, spliceOf(socket), (error) => error !== undefined && refused(error));
      };
      pool.use(joinTo, options).catch(refused);
    });
    return {
      address: listening.address,
      async [Symbol.asyncDispose]() {
        await listening[Symbol.asyncDispose]();
        await pool[Symbol.asyncDispose]();
      },
    };
  } catch (error) {
    await pool[Symbol.asyncDispose]();
    throw error;
  }
}

/** Where to listen, and who is told what goes wrong. */
interface Listening {
  readonly bind: Bind;
  readonly log: ((line: string) => void) | undefined;
}

/**
 * Listens for local programs. Rejects with LISTEN_FAILED.
 * @param accept leads a program's connection on; `refused` resets it, and says why
 */
export async function listen(
  { bind, log }: Listening,
  accept: (socket: Socket, refused: (error: unknown) => void) => void,
): Promise<Forward> {
  const open = new Set<Socket>();
  const server = createServer({ allowHalfOpen: true, noDelay: true }, (socket) => {
    open.add(socket);
    socket.once("close", () => open.delete(socket));
    socket.on("error", () => {}); // until it is joined; then whoever joined it listens
    accept(socket, (error) => {
      log?.(error instanceof Error ? error.message : String(error));
      spliceOf(socket).destroy();
    });
  });
  if ("path" in bind) await removeStale(bind.path);
  await new Promise<void>((resolve, reject) => {
    server.once("error", (error) => {
      reject(new FivedError("LISTEN_FAILED", `Cannot listen on ${written(bind)}: ${error.message}`, { cause: error }));
    });
    server.listen(bind, resolve);
  });
  server.on("error", (error) => log?.(`cannot accept a connection: ${error.message}`));
  const bound = server.address();
  return {
    address:
      typeof bound === "object" && bound !== null ? written({ host: bound.address, port: bound.port }) : written(bind),
    async [Symbol.asyncDispose]() {
      server.close();
      for (const socket of open) socket.destroy();
    },
  };
}

function written(bind: Bind): string {
  if ("path" in bind) return `unix:${bind.path}`;
  return isIPv6(bind.host) ? `[${bind.host}]:${bind.port}` : `${bind.host}:${bind.port}`;
}
