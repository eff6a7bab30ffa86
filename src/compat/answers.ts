/**
 * What a failure becomes where only a reply of SOCKS or a status of HTTP fits: the columns of docs/errors.md, which a test compares.
 * @module
 */
import { type ErrorCode, FivedError } from "../io/index.ts";

/** What is answered. */
export interface Answer {
  /** REP of RFC 1928. */
  readonly socks: number;
  /** Status of HTTP. */
  readonly http: number;
}

const FAULT: Answer = { socks: 1, http: 502 };
const DENIED: Answer = { socks: 2, http: 403 };
const UNTRUSTED: Answer = { socks: 2, http: 502 };
const UNREACHABLE: Answer = { socks: 4, http: 502 };
const REFUSED: Answer = { socks: 5, http: 502 };
const LATE: Answer = { socks: 6, http: 504 };
const BUSY: Answer = { socks: 1, http: 503 };

/** By the code of the error; what is not here is a fault. */
export const BY_CODE: Readonly<Partial<Record<ErrorCode, Answer>>> = {
  ADDRESS_BAD: { socks: 8, http: 400 },
  INVITE_BAD: { socks: 1, http: 400 },
  TOKEN_BAD: { socks: 1, http: 400 },
  RESOLVE_FAILED: UNREACHABLE,
  CONNECT_FAILED: REFUSED,
  HOST_KEY_UNKNOWN: UNTRUSTED,
  HOST_KEY_CHANGED: UNTRUSTED,
  HOST_KEY_REVOKED: UNTRUSTED,
  AUTH_IMPOSSIBLE: UNTRUSTED,
  AUTH_REFUSED: UNTRUSTED,
  SERVICE_REFUSED: REFUSED,
  TIMEOUT: LATE,
  POLICY_REFUSED: DENIED,
};

/** By the status of a service that was refused. */
export const BY_STATUS: Readonly<Record<number, Answer>> = {
  403: DENIED,
  404: REFUSED,
  408: LATE,
  421: UNREACHABLE,
  429: BUSY,
  501: { socks: 1, http: 400 },
  500: FAULT,
  502: REFUSED,
  503: FAULT,
  504: LATE,
  507: BUSY,
  508: { socks: 1, http: 508 },
  530: DENIED,
  410: FAULT,
  554: FAULT,
};

/** What to say about an error. */
export function answerTo(error: unknown): Answer {
  if (!(error instanceof FivedError)) return FAULT;
  const { code, status } = error;
  if (code === "SERVICE_REFUSED" && status !== undefined) return BY_STATUS[status] ?? REFUSED;
  if (code === "STREAM_RESET" && (error.reason === "REFUSED" || error.reason === "CALM")) return BUSY;
  return BY_CODE[code] ?? FAULT;
}
