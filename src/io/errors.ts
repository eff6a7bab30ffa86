/**
 * The one error class of everything that touches the outside world, and the list of its codes. What each code means, and what to do
 * about it, is in docs/errors.md; how a code becomes an errno, a SOCKS reply, an HTTP status or an exit code is decided elsewhere.
 * The mistakes of a peer that the pure rooms find are values and never come as this class.
 * @module
 */

import type { CodeName } from "../wire/index.ts";

/** Every code a {@link FivedError} may carry; add, never rename: scripts branch on them. */
export const ERROR_CODES = [
  "ADDRESS_BAD",
  "RESOLVE_FAILED",
  "CONNECT_FAILED",
  "TLS_FAILED",
  "ALPN_MISSING",
  "HOST_KEY_UNSUPPORTED",
  "HOST_KEY_UNKNOWN",
  "HOST_KEY_CHANGED",
  "HOST_KEY_REVOKED",
  "KNOWN_HOSTS_UNREADABLE",
  "KEY_UNUSABLE",
  "AGENT_FAILED",
  "AUTH_IMPOSSIBLE",
  "AUTH_REFUSED",
  "DETACH_IMPOSSIBLE",
  "INVITE_BAD",
  "TOKEN_BAD",
  "PROTOCOL_ERROR",
  "SESSION_LOST",
  "STREAM_RESET",
  "SERVICE_REFUSED",
  "POLICY_REFUSED",
  "TIMEOUT",
  "ABORTED",
  "CONFIGURATION_BAD",
  "STATE_UNUSABLE",
  "USER_UNKNOWN",
  "USER_EXISTS",
  "USER_BAD",
  "USERS_UNREADABLE",
  "LISTEN_FAILED",
  "ASSERTION_BAD",
  "KEYS_UNAVAILABLE",
] as const;

/** One of {@link ERROR_CODES}. */
export type ErrorCode = (typeof ERROR_CODES)[number];

/**
 * A failure of the outside world: branch on `code`, show `message`, log `cause`.
 * @example
 * if (error instanceof FivedError && error.code === "HOST_KEY_CHANGED") process.exit(255);
 */
export class FivedError extends Error {
  override readonly name = "FivedError";
  readonly code: ErrorCode;
  /** Of a `SERVICE_REFUSED` and an `AUTH_REFUSED` the line code (PROTOCOL §3.5); undefined where a plain RFC 1078 server gave none. */
  readonly status: number | undefined;
  /** Of a `STREAM_RESET`, and of a `SESSION_LOST` where the end had one, the frame code (PROTOCOL §6.5). */
  readonly reason: CodeName | undefined;

  constructor(code: ErrorCode, message: string, options: FivedErrorOptions = {}) {
    super(message, options);
    this.code = code;
    this.status = options.status;
    this.reason = options.reason;
  }
}

/** What an error may carry besides its message. */
export interface FivedErrorOptions extends ErrorOptions {
  readonly status?: number | undefined;
  readonly reason?: CodeName;
}
