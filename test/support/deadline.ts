/**
 * Waiting that ends: every wait of a test with real programs has a deadline, and says what it waited for when that has passed.
 * @module
 */
import { setTimeout as pause } from "node:timers/promises";

/** Generous to a loaded two-core machine, and well within the runner's patience with a file. */
export const PATIENCE_MS = 30_000;

/** How often what cannot be waited for is looked at again. */
const LOOK_EVERY_MS = 50;

/** How long to wait, and what to show when it was in vain. */
export interface Patience {
  readonly ms?: number;
  readonly seen?: () => string;
}

/** The promise's outcome, or a rejection that says what was waited for in vain. */
export async function within<T>(
  promise: Promise<T>,
  what: string,
  { ms = PATIENCE_MS, seen = () => "" }: Patience = {},
): Promise<T> {
  const over = new AbortController();
  const late = pause(ms, undefined, { signal: over.signal }).then(() => {
    throw new Error(`waited ${ms} ms in vain for ${what}${seen()}`);
  });
  try {
    return await Promise.race([promise, late]);
  } finally {
    late.catch(() => {}); // The wait is over: the clock's own end is of no interest.
    over.abort();
  }
}

/** Tries until it works; for what announces itself in no other way. Rejects with the last failure as the cause. */
export async function eventually<T>(
  attempt: () => Promise<T>,
  what: string,
  { ms = PATIENCE_MS, seen = () => "" }: Patience = {},
): Promise<T> {
  const end = performance.now() + ms;
  for (;;) {
    try {
      return await attempt();
    } catch (cause) {
      if (performance.now() > end) throw new Error(`waited ${ms} ms in vain for ${what}${seen()}`, { cause });
      await pause(LOOK_EVERY_MS);
    }
  }
}
