/**
 * Frames of the peer's log that have come and must not be confirmed yet: somebody else than this process is to have their octets first
 * (decision 0029). Confirming is one number for the whole log, so the oldest of them holds it back.
 *
 * ```
 *   confirmed            oldest untaken                  received
 *   |########################|..taken..|untaken|..taken..|
 * ```
 * @module
 */
import type { Stream } from "./stream.ts";

/** Who takes nothing for so long holds nothing back any more: other streams cannot wait for a program that was stopped. */
const PATIENCE_MS = 1_000;
/** Or for so long, when so many frames wait behind the first. */
const CROWD_PATIENCE_MS = 100;
const CROWD_FRAMES = 256;

interface Frame {
  readonly seq: number;
  readonly stream: Stream;
  /** What the stream has to have passed on. */
  readonly upTo: number;
  readonly since: number;
}

/** Those frames, in the order of the log. */
export class Untaken {
  #frames: Frame[] = [];
  #first = 0;

  /** A frame at `seq` has come for a stream, whose octets and end are complete up to `upTo` with it. */
  add(seq: number, stream: Stream, upTo: number, now: number): void {
    const frame = { seq, stream, upTo, since: now };
    // What came early over another connection stands behind what has yet to come.
    let at = this.#frames.length;
    while (at > this.#first && (this.#frames[at - 1]?.seq ?? 0) > seq) at--;
    if (at === this.#frames.length) this.#frames.push(frame);
    else this.#frames.splice(at, 0, frame);
  }

  /** Up to where the peer's log was taken, of which so much was received. */
  taken(received: number, now: number): number {
    for (let first = this.#frames[this.#first]; first !== undefined; first = this.#frames[this.#first]) {
      const { stream } = first;
      const isTaken = stream.dead || stream.kept !== "yes" || stream.passedOn >= first.upTo;
      if (!isTaken) {
        const crowd = this.#frames.length - this.#first > CROWD_FRAMES;
        if (now - first.since < (crowd ? CROWD_PATIENCE_MS : PATIENCE_MS)) return Math.min(first.seq, received);
        stream.kept = "not now";
      }
      this.#first++;
      if (this.#first * 2 < this.#frames.length) continue;
      this.#frames = this.#frames.slice(this.#first); // at most half of the array is behind us, so each frame moves once
      this.#first = 0;
    }
    return received;
  }

  /** When the oldest has been waited for long enough. */
  get deadline(): number {
    const first = this.#frames[this.#first];
    return first === undefined ? Number.POSITIVE_INFINITY : first.since + PATIENCE_MS;
  }
}
