/**
 * What a transport is: a way for octets to a session server and back, in order. TLS 1.3, trust, and all that fived is, come upon it; so another
 * transport is one file with one function.
 * @module
 */
import type { Duplex } from "node:stream";
import { FivedError } from "../../io/index.ts";
import { type Address, printAddress } from "../address.ts";

/** A way to session servers. */
export interface Transport {
  /** As messages call it. */
  readonly name: string;
  /**
   * A connection, unread, each direction of which ends by itself. Rejects with a {@link FivedError}, most often CONNECT_FAILED, and with the
   * signal's reason soon after it was aborted.
   */
  open(address: Address, signal: AbortSignal): Promise<Duplex>;
}

/** Why there is no connection. */
export function noConnection(address: Address, why: string, cause?: unknown): FivedError {
  return new FivedError("CONNECT_FAILED", `Cannot connect to ${printAddress(address)}: ${why}`, { cause });
}
