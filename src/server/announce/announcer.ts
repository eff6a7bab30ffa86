/**
 * How a back end of sockets learns who is calling. Each form is a file beside this one; what connects back ends (backends/tcp.ts) knows only
 * what is here.
 * @module
 */
import type { Splice } from "../../io/index.ts";
import type { Talk } from "../service.ts";

/** What is said to a back end about the caller of one stream. */
export interface Announcement {
  /** Goes to the back end before any octet of the caller's. */
  readonly preamble: Uint8Array | undefined;
  /** What is joined to the stream instead of the connected back end; the back end itself where nothing has to be done on the way. */
  wrap(backEnd: Splice): Splice;
}

/** Tells back ends of one service who is calling. */
export interface Announcer {
  /** What a check of the back end says in place of a caller; undefined for nothing. */
  readonly greeting: Uint8Array | undefined;
  /** Made while the back end is being connected. Where it rejects the stream is refused: nobody is somebody else, or nobody, by accident. */
  announce(talk: Talk): Promise<Announcement>;
}
