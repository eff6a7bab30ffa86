/**
 * What somebody who signs in has to say about it. Everything has an answer where it is left out, but the password.
 * @module
 */
import type { Logins } from "./logins.ts";
import type { Signer } from "./signer.ts";

/** How our client can sign in, in the order in which it tries where nobody asks for another; `cert` where it was given a certificate. */
export const CLIENT_MECHANISMS = ["cert", "pubkey", "up"] as const;
/** One of {@link CLIENT_MECHANISMS}. */
export type ClientMechanism = (typeof CLIENT_MECHANISMS)[number];

/** Signing in (PROTOCOL §4.6). */
export interface AuthOptions {
  /** Who it is; the user in the address if left out. */
  readonly user?: string;
  /** Keys to try, in this order; a function is asked for them once for each connection's worth of tries. */
  readonly signers?: readonly Signer[] | (() => Promise<readonly Signer[]>);
  /**
   * Answers what the server asks: a password, a code. Texts come without controls. Octets are wiped after use, a string cannot be. Left out
   * where nobody can be asked.
   */
  readonly password?: (question: string, shown: boolean) => Promise<string | Uint8Array>;
  /** Mechanisms to use, in this order; all of them if left out. */
  readonly mechanisms?: readonly ClientMechanism[];
  /** How often to ask for a password that is refused; once if left out. */
  readonly passwordTries?: number;
  /** Where it is kept how one has signed in; this process's memory if left out. */
  readonly logins?: Logins;
  /** Wait for the answer to AUTH before anything else is said, even where a key was taken before. */
  readonly careful?: boolean;
}
