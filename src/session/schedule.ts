/**
 * Which stream speaks next (PROTOCOL §8.5): interactive streams before bulk ones. Interactive ones take turns frame by frame; a bulk one
 * speaks a few frames in a row, which lie side by side in memory and are written, here and at the other end, at once.
 * @module
 */
import type { Stream } from "./stream.ts";

/** Frames a bulk stream may speak in a row: one slab, about 256 KiB. An interactive stream may come between any two of them. */
const TURN_FRAMES = 4;

/** Streams that have something to say, in the order of their turns. */
export class Schedule {
  #interactive: Stream[] = [];
  #bulk: Stream[] = [];
  /** The bulk stream whose turn it is, and the frames that are left of the turn. */
  #speaking: Stream | undefined;
  #left = 0;

  /** A stream has something to say. */
  add(stream: Stream, now: number): void {
    if (stream.scheduled) return;
    stream.scheduled = true;
    if (stream.interactive(now)) this.#interactive.push(stream);
    else if (stream === this.#speaking && this.#left > 0) this.#bulk.unshift(stream);
    else this.#bulk.push(stream);
  }

  /** The stream whose turn it is. It leaves the schedule: {@link Schedule.add} lists it again if it has more to say. */
  next(): Stream | undefined {
    for (;;) {
      const stream = this.#interactive.shift() ?? this.#nextBulk();
      if (stream === undefined) return undefined;
      stream.scheduled = false;
      if (stream.ready) return stream;
    }
  }

  /** It is listed elsewhere from now on. */
  remove(stream: Stream): void {
    if (!stream.scheduled) return;
    stream.scheduled = false;
    this.#interactive = this.#interactive.filter((each) => each !== stream);
    this.#bulk = this.#bulk.filter((each) => each !== stream);
  }

  /** The interactive stream whose turn it is, if there is one. It stays in the schedule. */
  get urgent(): Stream | undefined {
    for (;;) {
      const stream = this.#interactive[0];
      if (stream === undefined || stream.ready) return stream;
      this.#interactive.shift();
      stream.scheduled = false;
    }
  }

  #nextBulk(): Stream | undefined {
    const stream = this.#bulk.shift();
    if (stream !== this.#speaking) this.#left = TURN_FRAMES;
    this.#speaking = stream;
    this.#left--;
    return stream;
  }

  /** True when nobody has anything to say. */
  get empty(): boolean {
    return this.#interactive.length === 0 && this.#bulk.length === 0;
  }
}
