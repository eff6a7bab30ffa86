/**
 * Virtual time: what is to happen, in the order of its time. Nothing waits; a minute takes as long as what happens in it.
 * @module
 */

interface Appointment {
  readonly at: number;
  /** Of two appointments at one time the one made first comes first. */
  readonly order: number;
  readonly act: () => void;
}

/** A clock that goes from one event to the next. */
export class Clock {
  now = 0;
  #made = 0;
  /** A binary heap, the earliest appointment on top. */
  readonly #heap: Appointment[] = [];

  /** Does something after so many milliseconds. */
  after(ms: number, act: () => void): void {
    this.at(this.now + ms, act);
  }

  /** Does something at a time; at once if that has passed. */
  at(time: number, act: () => void): void {
    const heap = this.#heap;
    const made: Appointment = { at: Math.max(time, this.now), order: this.#made++, act };
    let at = heap.length;
    heap.push(made);
    for (;;) {
      const above = (at - 1) >> 1;
      const parent = at > 0 ? heap[above] : undefined;
      if (parent === undefined || !isBefore(made, parent)) break;
      heap[at] = parent;
      heap[above] = made;
      at = above;
    }
  }

  /** Lets time pass: until a moment, or until something holds, looked at behind each event. */
  run(until: number, done: () => boolean = () => false): void {
    while (!done()) {
      const next = this.#heap[0];
      if (next === undefined || next.at > until) {
        this.now = until;
        return;
      }
      this.#pop();
      this.now = next.at;
      next.act();
    }
  }

  #pop(): void {
    const heap = this.#heap;
    const last = heap.pop();
    if (last === undefined || heap.length === 0) return;
    let at = 0;
    for (;;) {
      const left = heap[2 * at + 1];
      const right = heap[2 * at + 2];
      if (left === undefined) break;
      const first = right !== undefined && isBefore(right, left) ? right : left;
      if (!isBefore(first, last)) break;
      heap[at] = first;
      at = first === right ? 2 * at + 2 : 2 * at + 1;
    }
    heap[at] = last;
  }
}

function isBefore(one: Appointment, other: Appointment): boolean {
  return one.at < other.at || (one.at === other.at && one.order < other.order);
}
