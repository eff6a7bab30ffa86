/**
 * The door of `session/`: connection, session, stream, credit, log and scheduling, without a socket, a timer or a clock.
 * @module
 */
export { Bucket } from "./bucket.ts";
export { ANONYMOUS_LIMITS, INITIAL_CREDIT_BYTES, SESSION_LIMITS, type SessionLimits } from "./limits.ts";
export { recalledState } from "./recall.ts";
export { RECALLED_STREAMS_MAX, RecallReader, recalledLines } from "./recalled-lines.ts";
export { type Input, type Output, Session, type SessionOptions } from "./session.ts";
export type { RecalledStream, Recollection, SessionState, StreamState } from "./state.ts";
