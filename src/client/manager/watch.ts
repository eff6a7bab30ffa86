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
