/**
 * The peer's log as it arrives: what has come contiguously, and what has come early over another connection (PROTOCOL §7.3).
 * Decides order only; what frames mean is `session.ts`'s.
 * @module
 */
import type { SequencedFrame } from "../wire/index.ts";
import { GAPS_MAX } from "./limits.ts";

/** What to do with a frame that arrived. */
export type Arrival = "next" | "early" | "duplicate" | "SEQ" | "FLOW_CONTROL";

/** A frame that came before its turn. */
export interface Early {
  readonly frame: SequencedFrame;
  /** Its content took effect already (DATA of an open stream); only its place in the log is still open. */
  delivered: boolean;
}

/** Puts the peer's frames in order. */
export class Inbox {
  #received = 0;
  #early: Early[] = [];

  /** Octets of the peer's log received contiguously: the one number that acknowledges and attaches. */
  get received(): number {
    return this.#received;
  }

  /** Frames held back, oldest first. */
  get early(): readonly Early[] {
    return this.#early;
  }

  /** True while something is missing before what has come. */
  get gap(): boolean {
    return this.#early.length > 0;
  }

  /**
   * Places a frame. "next": it takes effect now, then {@link Inbox.advance}. "early": it was kept, its payload copied.
   * @param limit position up to which we have allowed the peer to speak
   */
  place(frame: SequencedFrame, limit: number): Arrival {
    const end = frame.seq + frame.size;
    if (end > limit) return "FLOW_CONTROL";
    if (frame.seq === this.#received) return this.#overlaps(frame) ? "SEQ" : "next";
    if (end <= this.#received) return "duplicate";
    if (frame.seq < this.#received) return "SEQ"; // straddles what was received: a retransmission that was changed (M12)
    const twin = this.#early.find((early) => early.frame.seq === frame.seq);
    if (twin !== undefined) return same(twin, frame) ? "duplicate" : "SEQ";
    if (this.#overlaps(frame)) return "SEQ";
    if (this.#early.length >= GAPS_MAX) return "SEQ";
    this.#early.push({ frame: keep(frame), delivered: false });
    this.#early.sort((a, b) => a.frame.seq - b.frame.seq);
    return "early";
  }

  /** The frame that was "next" has taken effect; gives the one behind it if it came early and has its turn now. */
  advance(size: number): Early | undefined {
    this.#received += size;
    const first = this.#early[0];
    if (first === undefined || first.frame.seq !== this.#received) return undefined;
    this.#early.shift();
    return first;
  }

  #overlaps(frame: SequencedFrame): boolean {
    const end = frame.seq + frame.size;
    return this.#early.some(
      (early) =>
        early.frame.seq !== frame.seq && early.frame.seq < end && frame.seq < early.frame.seq + early.frame.size,
    );
  }
}

/** A copy that does not point into the reader's memory. */
function keep(frame: SequencedFrame): SequencedFrame {
  return frame.type === "data" ? { ...frame, payload: frame.payload.slice() } : frame;
}

function same(early: Early, frame: SequencedFrame): boolean {
  const held = early.frame;
  if (held.type !== frame.type || held.size !== frame.size) return false;
  if (held.type !== "data" || frame.type !== "data") return true;
  if (held.stream !== frame.stream || held.offset !== frame.offset || held.fin !== frame.fin) return false;
  return held.payload.every((octet, at) => octet === frame.payload[at]);
}
