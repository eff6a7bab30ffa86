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
    const listening = await listenFor((act) => pool.use(act, options), { bind, service, log: client.log });
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

/** What a forward needs besides sessions. */
interface Listening {
  readonly bind: Bind;
  readonly service: string;
  readonly log: ((line: string) => void) | undefined;
}

/** A forward whose streams are opened on sessions that somebody else looks after. */
export async function listenFor(
  use: (act: (session: ServiceOpener) => void) => Promise<void>,
  { bind, service, log }: Listening,
): Promise<Forward> {
  const open = new Set<Socket>();
  const server = createServer({ allowHalfOpen: true, noDelay: true }, (socket) => {
    open.add(socket);
    socket.once("close", () => open.delete(socket));
    const early = (): void => {}; // until it is joined; then whoever joined it listens
    socket.on("error", early);
    const splice = spliceOf(socket);
    const refused = (error: unknown): void => {
      log?.(error instanceof Error ? error.message : String(error));
      splice.destroy();
    };
    use((session) => {
      if (socket.destroyed) return;
      session.join(service, splice, (error) => {
        if (error !== undefined) refused(error);
      });
    }).catch(refused);
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
