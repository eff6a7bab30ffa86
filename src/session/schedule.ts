/**
 * Which stream speaks next (PROTOCOL §8.5): interactive streams before bulk ones, and in each class one frame a turn.
 * @module
 */
import type { Stream } from "./stream.ts";

/** Streams that have something to say, in the order of their turns. */
export class Schedule {
  #interactive: Stream[] = [];
  #bulk: Stream[] = [];

  /** A stream has something to say. */
  add(stream: Stream, now: number): void {
    if (stream.scheduled) return;
    stream.scheduled = true;
    (stream.interactive(now) ? this.#interactive : this.#bulk).push(stream);
  }

  /** The stream whose turn it is. It leaves the schedule: {@link Schedule.add} lists it again if it has more to say. */
  next(): Stream | undefined {
    for (;;) {
      const stream = this.#interactive.shift() ?? this.#bulk.shift();
      if (stream === undefined) return undefined;
      stream.scheduled = false;
      if (stream.ready) return stream;
    }
  }

  /** True when nobody has anything to say. */
  get empty(): boolean {
    return this.#interactive.length === 0 && this.#bulk.length === 0;
  }
}
