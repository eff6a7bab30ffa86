/**
 * The client's end as its parent sees it: starts `client.ts` in the client's namespace, hands it orders and ends it.
 * @module
 */
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { join } from "node:path";
import { RUNTIME } from "../fived.ts";
import type { Link } from "./link.ts";
import type { Order, Outcome } from "./site.ts";

/** The client's end: one order at a time. */
export class ClientEnd implements AsyncDisposable {
  readonly #child: ChildProcess;
  readonly #exited: Promise<unknown>;
  readonly #signal: AbortSignal;

  private constructor(child: ChildProcess, signal: AbortSignal) {
    this.#child = child;
    this.#signal = signal;
    this.#exited = once(child, "exit");
  }

  /** Starts it; its orders reject when the signal says so. */
  static async start(folder: string, link: Link, signal: AbortSignal): Promise<ClientEnd> {
    const [command, ...args] = link.at("client", [RUNTIME, join(import.meta.dirname, "client.ts"), folder]);
    // In a group of its own, so that Ctrl-C leaves its end to us; should we be gone, it ends with the channel.
    const child = spawn(command, args, { stdio: ["ignore", "inherit", "inherit", "ipc"], detached: true });
    const client = new ClientEnd(child, signal);
    await client.#hear();
    return client;
  }

  /** Has an order obeyed, and tells how it went. */
  async do(order: Order): Promise<Outcome> {
    this.#child.send(order);
    return await this.#hear();
  }

  async #hear(): Promise<Outcome> {
    const { promise, resolve, reject } = Promise.withResolvers<Outcome>();
    const abort = () => reject(this.#signal.reason);
    const gone = () => reject(new Error("Cannot go on: the client's end has ended"));
    this.#signal.addEventListener("abort", abort);
    this.#child.once("message", (outcome: Outcome) => resolve(outcome)).once("exit", gone);
    try {
      this.#signal.throwIfAborted();
      return await promise;
    } finally {
      this.#signal.removeEventListener("abort", abort);
      this.#child.off("exit", gone);
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    if (this.#child.connected) this.#child.disconnect();
    const timer = setTimeout(() => this.#child.kill("SIGKILL"), 3_000);
    await this.#exited;
    clearTimeout(timer);
  }
}
