/**
 * Notices what happens to a computer that says nothing about its connections, but gives reason to doubt them: it has slept, or its addresses
 * are others than before.
 * @module
 */
import { networkInterfaces } from "node:os";

/** A clock that goes on while the computer sleeps is ahead by more than this of one that does not. It may be set by hand, which does no harm. */
const SLEPT_MS = 5_000;

/** What is looked at; a test is the computer. */
export interface Computer {
  /** Milliseconds of a clock that goes on while the computer sleeps. */
  wallClock(): number;
  /** Milliseconds of one that stops meanwhile. */
  monotonic(): number;
  addresses(): readonly string[];
}

/** This computer. */
export const thisComputer: Computer = {
  wallClock: () => Date.now(),
  monotonic: () => performance.now(),
  addresses: () =>
    Object.entries(networkInterfaces()).flatMap(([name, all]) =>
      (all ?? []).map(({ address }) => `${name} ${address}`),
    ),
};

/** Tells at each look what has happened since the last one; undefined for nothing. */
export function watcherOf(computer: Computer): () => "slept" | "moved" | undefined {
  let ahead = computer.wallClock() - computer.monotonic();
  let addresses = written(computer);
  return () => {
    const nowAhead = computer.wallClock() - computer.monotonic();
    const nowAddresses = written(computer);
    const slept = nowAhead - ahead > SLEPT_MS;
    const moved = nowAddresses !== addresses;
    ahead = nowAhead;
    addresses = nowAddresses;
    return slept ? "slept" : moved ? "moved" : undefined;
  };
}

/** Addresses that come and go by themselves (RFC 8981) make no difference to one that stays, but asking costs little. */
function written(computer: Computer): string {
  return [...computer.addresses()].sort().join();
}

/** How often it is looked, while anybody wants to know: a network that has changed is noticed in that time. */
const LOOK_MS = 50;
/** So many looks make a beat, which everybody hears who listens. */
const BEAT_LOOKS = 2;

const listeners = new Set<(moved: boolean) => void>();
let looking: NodeJS.Timeout | undefined;

/**
 * Calls `look` ten times a second, and at once when the addresses of this computer have changed, or it has slept (`moved`), until the returned function
 * is called. All who listen share one timer, which keeps no process alive.
 */
export function watchNetwork(look: (moved: boolean) => void): () => void {
  listeners.add(look);
  looking ??= beginToLook();
  return () => {
    listeners.delete(look);
    if (listeners.size > 0) return;
    clearInterval(looking);
    looking = undefined;
  };
}

function beginToLook(): NodeJS.Timeout {
  const happened = watcherOf(thisComputer);
  let looks = 0;
  const timer = setInterval(() => {
    looks++;
    const moved = happened() !== undefined;
    if (moved || looks % BEAT_LOOKS === 0) for (const each of [...listeners]) each(moved);
  }, LOOK_MS);
  return timer.unref();
}
