/**
 * A session on paper: what one process hands to another, so that it goes on there (paper section 3.1.7). Of what was said nothing is left to be
 * said again: a session is written down when the peer has confirmed all of it, and when the application has taken all that has come.
 * @module
 */

/** One stream of ours. All numbers are octets, counted from the stream's beginning. */
export interface StreamState {
  readonly id: number;
  /** The line it was opened with. */
  readonly request: Uint8Array;
  readonly sent: number;
  /** Up to where the peer lets us send. */
  readonly credit: number;
  readonly received: number;
  /** Up to where we let the peer send, and how much of that we keep outstanding. */
  readonly granted: number;
  readonly window: number;
  /** Our end is finished; the peer's is. */
  readonly ended: boolean;
  readonly finished: boolean;
}

/**
 * What a peer that has lost its memory is told of one stream (PROTOCOL §4.8, `recall`), as that peer's end of it: octets that we have of its own, up to where we let it send,
 * what had been said to it before the part of our log that comes again, and up to where it lets us send.
 */
export type RecalledStream = Omit<StreamState, "request" | "window">;

/** And of the session: what it needs to go on behind what it is told was received of its log. */
export interface Recollection {
  readonly nextStream: number;
  readonly lastTaken: number | undefined;
  /** Up to where it has let us speak. */
  readonly limit: number;
  readonly peer: SessionState["peer"];
  readonly streams: readonly RecalledStream[];
}

/** One end of a session without a connection. */
export interface SessionState {
  /** Octets of our log, all of which the peer has; and of the peer's. */
  readonly sent: number;
  readonly received: number;
  /** Up to where we let the peer speak. */
  readonly limit: number;
  readonly nextStream: number;
  /** Highest stream that the peer still takes up after its GOAWAY; undefined where it goes nowhere. */
  readonly lastTaken: number | undefined;
  /** What the peer has told of itself. */
  readonly peer: {
    readonly payload: number;
    readonly streams: number;
    readonly credit: number;
    readonly window: number;
  };
  readonly streams: readonly StreamState[];
  /** Streams that were reset, and the octets that may still come on them. */
  readonly reset: readonly (readonly [id: number, octets: number])[];
}
