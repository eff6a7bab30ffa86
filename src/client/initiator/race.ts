/**
 * Attempts at endpoints that overlap, the next one after a quarter of a second or as soon as the last has failed, of which the first to succeed
 * wins (Happy Eyeballs, RFC 8305, section 5). A family or an address that leads nowhere costs that quarter, not a timeout.
 * @module
 */
import type { Endpoint } from "./endpoints.ts";

/** The recommended "Connection Attempt Delay". */
const ATTEMPT_GAP_MS = 250;

/** No attempt has succeeded; `errors` has why, in the order of the attempts. */
export class RaceLost extends AggregateError {
  readonly attempts: readonly { readonly endpoint: Endpoint; readonly error: unknown }[];

  constructor(attempts: RaceLost["attempts"]) {
    super(attempts.map(({ error }) => error));
    this.attempts = attempts;
  }
}

/** What an attempt opens. */
interface Opened {
  destroy(): void;
}

/**
 * The first that `open` resolves with; what the others open is destroyed. Rejects with {@link RaceLost}, with what `endpoints` throws where it
 * yields nothing, and with the signal's reason.
 * @param open rejects soon after its signal is aborted
 */
export async function race<Result extends Opened>(
  endpoints: AsyncIterable<Endpoint>,
  open: (endpoint: Endpoint, signal: AbortSignal) => Promise<Result>,
  signal: AbortSignal,
): Promise<Result> {
  signal.throwIfAborted();
  const over = new AbortController();
  const attempts: { readonly endpoint: Endpoint; readonly error: unknown }[] = [];
  const won = Promise.withResolvers<Result>();
  const abort = (): void => won.reject(signal.reason);
  signal.addEventListener("abort", abort, { once: true });
  won.promise.catch(() => {});

  let running = 0;
  let isAll = false;
  const settle = (): void => {
    if (isAll && running === 0) won.reject(new RaceLost(attempts));
  };
  const attempt = async (endpoint: Endpoint): Promise<void> => {
    running++;
    try {
      const opened = await open(endpoint, over.signal);
      if (over.signal.aborted) opened.destroy();
      else won.resolve(opened);
      over.abort();
    } catch (error) {
      attempts.push({ endpoint, error });
    }
    running--;
    settle();
  };
  const start = async (): Promise<void> => {
    let failure: unknown;
    try {
      for await (const endpoint of endpoints) {
        if (over.signal.aborted) return;
        const gap = Promise.withResolvers<void>();
        const timer = setTimeout(gap.resolve, ATTEMPT_GAP_MS);
        over.signal.addEventListener("abort", () => gap.resolve(), { once: true });
        void attempt(endpoint).then(gap.resolve);
        await gap.promise;
        clearTimeout(timer);
      }
    } catch (error) {
      failure = error;
    }
    isAll = true;
    if (failure !== undefined && running === 0 && attempts.length === 0) won.reject(failure);
    else settle();
  };
  void start();
  try {
    return await won.promise;
  } finally {
    over.abort();
    signal.removeEventListener("abort", abort);
  }
}
