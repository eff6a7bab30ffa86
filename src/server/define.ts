/**
 * How a service is written as a function: `service(name, fn)`. It wraps the interface that the built-in words use too (service.ts), so ten
 * lines of a user's are served like any of ours. Finding and loading such a file is backends/module.ts's part.
 * @module
 */
import type { Duplex } from "node:stream";
import type { Identity } from "./auth/mechanism.ts";
import { asGuest, lendEvents } from "./guest.ts";
import type { Service, Talk } from "./service.ts";

/** Who opened a stream, and where: what a service may go by. */
export interface Visitor {
  /** Undefined for somebody who has not signed in. */
  readonly user: string | undefined;
  readonly roles: readonly string[];
  /** How the user was recognised: `pubkey`, `cert`, `ext` or `up`; undefined for somebody who has not signed in. */
  readonly mechanism: Identity["mechanism"] | undefined;
  /** The user gave a second factor. */
  readonly secondFactor: boolean;
  /** Virtual host that was asked; undefined is the default host. */
  readonly host: string | undefined;
  /** Identifier of the session, for logs. */
  readonly session: string;
  /** Transport address: `192.0.2.1:4711`, `[2001:db8::1]:4711` or `unix:`. */
  readonly peer: string;
  /** True inside TLS. */
  readonly secure: boolean;
  /** Aborted when the stream is gone. */
  readonly signal: AbortSignal;
}

/** Serves one stream, until it ends or destroys it. */
export type Handler = (stream: Duplex, visitor: Visitor) => void | Promise<void>;

/** A service made of a function. */
export interface HandledService extends Service {
  readonly handler: Handler;
}

/**
 * A service that is a function of the stream and its visitor. In a configuration the name is the configuration's.
 * @example
 * export default service("hello", (stream, { user }) => {
 *   stream.end(`Hello ${user ?? "stranger"}\n`);
 * });
 */
export function service(name: string, handler: Handler): HandledService {
  return { word: name, handler, serve: (talk) => handle(handler, talk, () => {}) };
}

/** Accepts a conversation and hands it to a function. An exception in it, or in a callback of it, ends that stream, and `failed` is told. */
export function handle(handler: Handler, talk: Talk, failed: (error: unknown) => void): "bytes" {
  const { host } = talk;
  const { user, roles, identity, session, peer, secure } = talk.caller;
  talk.accept();
  const stream = talk.stream();
  // A caller who is suddenly gone is an "error" event, and one that nobody listens to would end the whole process.
  stream.on("error", () => {});
  const fail = (error: unknown): void => {
    failed(error);
    stream.destroy(error instanceof Error ? error : new Error(String(error)));
  };
  lendEvents(stream, fail);
  try {
    const visitor: Visitor = {
      ...{ user, roles, host, session, peer, secure },
      mechanism: identity?.mechanism,
      secondFactor: identity?.secondFactor ?? false,
      // Made when it is asked for: few services do.
      get signal() {
        return talk.signal;
      },
    };
    const done = asGuest(fail, () => handler(stream, visitor));
    if (done instanceof Promise) done.catch(fail);
  } catch (error) {
    fail(error);
  }
  return "bytes";
}
