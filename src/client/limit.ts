/**
 * The time for connecting, and the caller's wish to be done with it, as one signal whose reason is the error to fail with.
 * @module
 */
import { FivedError } from "../io/index.ts";
import { type Address, printAddress } from "./address.ts";

/** Time for name, connection, in-band request and handshake: three round trips of the worst of networks. Questions to the user are not counted. */
export const HANDSHAKE_TIMEOUT_MS = 10_000;

/** Whose patience, and how long. */
export interface Patience {
  readonly signal?: AbortSignal | undefined;
  /** {@link HANDSHAKE_TIMEOUT_MS} if left out. */
  readonly timeoutMs?: number | undefined;
}

/** It counts until it is disposed of. */
export class Limit implements Disposable {
  readonly signal: AbortSignal;
  /** What is waited for, for the message. */
  step: "connection" | "TLS" = "connection";
  readonly #timer: NodeJS.Timeout;
  readonly #caller: AbortSignal | undefined;
  readonly #abort: () => void;

  constructor(address: Address, { signal, timeoutMs = HANDSHAKE_TIMEOUT_MS }: Patience) {
    const limit = new AbortController();
    const failed = (code: "TIMEOUT" | "ABORTED", why: string, cause?: unknown): FivedError =>
      new FivedError(code, `Cannot connect to ${printAddress(address)}: ${why}`, { cause });
    this.signal = limit.signal;
    this.#timer = setTimeout(() => limit.abort(failed("TIMEOUT", `no ${this.step} within ${timeoutMs} ms`)), timeoutMs);
    this.#caller = signal;
    this.#abort = () => {
      const cause: unknown = signal?.reason;
      const isLate = cause instanceof Error && cause.name === "TimeoutError";
      limit.abort(
        isLate ? failed("TIMEOUT", `no ${this.step} in time`, cause) : failed("ABORTED", "it was called off", cause),
      );
    };
    if (signal?.aborted) this.#abort();
    else signal?.addEventListener("abort", this.#abort);
  }

  [Symbol.dispose](): void {
    clearTimeout(this.#timer);
    this.#caller?.removeEventListener("abort", this.#abort);
  }
}
