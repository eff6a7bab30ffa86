/**
 * The peer's log as it arrives: what has come contiguously, and what has come early over another connection (PROTOCOL §7.3).
 * Decides order only; what frames mean is `session.ts`'s.
 *
 * ```
 *  0          received                                              limit
 *  |##############|      gap      |###early###|  gap  |#early#|       |
 *                                  \__ stretch _/     \stretch/
 * ```
 * @module
 */
import { encodeSequenced, HEADER_BYTES, HELD_RANGES_MAX, type Range, type SequencedFrame } from "../wire/index.ts";
import { GAPS_MAX, HELD_FRAMES_MAX } from "./limits.ts";

/** What to do with a frame that arrived. */
export type Arrival = "next" | "early" | "duplicate" | "full" | "SEQ" | "FLOW_CONTROL";

/** What may take effect before its turn, if its stream is open. */
export type DataFrame = Extract<SequencedFrame, { type: "data" }>;

/** A frame that came before its turn. */
export interface Early {
  readonly frame: SequencedFrame;
  /** Its content took effect already (DATA of an open stream); only its place in the log is still open. */
  readonly delivered: boolean;
}

interface Held extends Early {
  delivered: boolean;
}

/** Puts the peer's frames in order. */
export class Inbox {
  #received: number;
  /** Frames held back, in log order, from `#first` on: taking one moves that, and the array is cut now and then. */
  #held: Held[] = [];
  #first = 0;
  /** Held frames without a gap between them make a stretch: there are as many gaps. */
  #stretches = 0;
  /** DATA held back and not delivered, in log order, by stream: finding what may be delivered early takes no search. */
  readonly #waiting = new Map<number, Held[]>();

  /** @param from position up to which the log has come already, to another process */
  constructor(from = 0) {
    this.#received = from;
  }

  /** Octets of the peer's log received contiguously: the one number that acknowledges and attaches. */
  get received(): number {
    return this.#received;
  }

  /** Frames held back. */
  get held(): number {
    return this.#held.length - this.#first;
  }

  /** True while something is missing before what has come. */
  get gap(): boolean {
    return this.#stretches > 0;
  }

  /** The first stretches held, for an ACK to name: they need not come again. */
  get ranges(): readonly Range[] {
    const ranges: Range[] = [];
    let start = this.#held[this.#first]?.frame.seq ?? 0;
    for (let at = this.#first; at < this.#held.length && ranges.length < HELD_RANGES_MAX; at++) {
      const frame = this.#held[at]?.frame;
      const next = this.#held[at + 1]?.frame;
      if (frame === undefined || next?.seq === frame.seq + frame.size) continue;
      ranges.push({ start, end: frame.seq + frame.size });
      start = next?.seq ?? 0;
    }
    return ranges;
  }

  /**
   * Places a frame. "next": it takes effect now, then {@link Inbox.advance}. "early": it was kept, its payload copied. "full": it was
   * not kept, and has to come again.
   * @param limit position up to which we have allowed the peer to speak
   */
  place(frame: SequencedFrame, limit: number): Arrival {
    const end = frame.seq + frame.size;
    // A session whose log is full must be able to end with its code.
    if (end > (frame.type === "end" ? limit + HEADER_BYTES : limit)) return "FLOW_CONTROL";
    if (end <= this.#received) return "duplicate";
    if (frame.seq < this.#received) return "SEQ"; // straddles what was received: a retransmission that was changed (M12)
    if (!this.gap) return frame.seq === this.#received ? "next" : this.#hold(frame, this.#first, 0);
    const at = this.#indexOf(frame.seq);
    const before = at > this.#first ? this.#held[at - 1]?.frame : undefined;
    const behind = this.#held[at]?.frame;
    if (behind !== undefined && behind.seq === frame.seq) return same(behind, frame) ? "duplicate" : "SEQ";
    if (behind !== undefined && behind.seq < end) return "SEQ";
    if (before !== undefined && before.seq + before.size > frame.seq) return "SEQ";
    if (frame.seq === this.#received) return "next";
    const joins = before !== undefined && before.seq + before.size === frame.seq ? 1 : 0;
    return this.#hold(frame, at, joins + (behind?.seq === end ? 1 : 0));
  }

  /** The frame that was "next" has taken effect; gives the one behind it if it came early and has its turn now. */
  advance(size: number): Early | undefined {
    this.#received += size;
    const first = this.#held[this.#first];
    if (first === undefined || first.frame.seq !== this.#received) return undefined;
    this.#first++;
    const next = this.#held[this.#first];
    if (next?.frame.seq !== first.frame.seq + first.frame.size) this.#stretches--;
    if (this.#first * 2 >= this.#held.length) {
      this.#held = this.#held.slice(this.#first);
      this.#first = 0;
    }
    if (first.frame.type === "data" && !first.delivered) this.#takeWaiting(first.frame.stream);
    return first;
  }

  /** The peer begins anew behind {@link Inbox.received}: what came early is not waited for. What was delivered stays so. */
  recall(): void {
    this.#held = [];
    this.#first = 0;
    this.#stretches = 0;
    this.#waiting.clear();
  }

  /** DATA of a stream that came early and continues at this offset; it counts as delivered from now on. */
  deliver(stream: number, offset: number): DataFrame | undefined {
    const frame = this.#waiting.get(stream)?.[0]?.frame;
    if (frame?.type !== "data" || frame.offset !== offset) return undefined;
    const held = this.#takeWaiting(stream);
    if (held !== undefined) held.delivered = true;
    return frame;
  }

  #hold(frame: SequencedFrame, at: number, joins: number): Arrival {
    if (this.#stretches + 1 - joins > GAPS_MAX) return "SEQ";
    if (this.held >= HELD_FRAMES_MAX) return "full";
    this.#stretches += 1 - joins;
    const held: Held = { frame: keep(frame), delivered: false };
    this.#held.splice(at, 0, held);
    if (frame.type !== "data") return "early";
    const waiting = this.#waiting.get(frame.stream);
    if (waiting === undefined) this.#waiting.set(frame.stream, [held]);
    else waiting.splice(indexIn(waiting, 0, frame.seq), 0, held);
    return "early";
  }

  #takeWaiting(stream: number): Held | undefined {
    const waiting = this.#waiting.get(stream);
    const first = waiting?.shift();
    if (waiting?.length === 0) this.#waiting.delete(stream);
    return first;
  }

  #indexOf(seq: number): number {
    return indexIn(this.#held, this.#first, seq);
  }
}

/** Index of the first frame, from `low` on, that starts at `seq` or behind it; most come last. */
function indexIn(held: readonly Held[], low: number, seq: number): number {
  const last = held.at(-1);
  if (last === undefined || last.frame.seq < seq) return held.length;
  let high = held.length;
  while (low < high) {
    const middle = (low + high) >>> 1;
    const frame = held[middle]?.frame;
    if (frame !== undefined && frame.seq < seq) low = middle + 1;
    else high = middle;
  }
  return low;
}

/** A copy that does not point into the reader's memory. Not with slice(): of a Buffer that is no copy. */
function keep(frame: SequencedFrame): SequencedFrame {
  return frame.type === "data" ? { ...frame, payload: new Uint8Array(frame.payload) } : frame;
}

function same(held: SequencedFrame, frame: SequencedFrame): boolean {
  if (held.type !== frame.type || held.size !== frame.size) return false;
  const octets = encodeSequenced(held.seq, held);
  return encodeSequenced(frame.seq, frame).every((octet, at) => octet === octets[at]);
}
