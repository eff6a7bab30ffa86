/**
 * The door of `session/`: connection, session, stream, credit, log and scheduling, without a socket, a timer or a clock.
 * @module
 */
export { Bucket } from "./bucket.ts";
export { ANONYMOUS_LIMITS, INITIAL_CREDIT_BYTES, SESSION_LIMITS, type SessionLimits } from "./limits.ts";
export { type Input, type Output, Session, type SessionOptions } from "./session.ts";
export type { SessionState, StreamState } from "./state.ts";
