/**
 * One stream: what is queued to be said on it, the credit for both directions, and which ends are still open (PROTOCOL §8).
 * Knows no frames' positions and no connections: those are `log.ts` and `session.ts`.
 * @module
 */
import { HEADER_BYTES } from "../wire/index.ts";
import { DRIBBLE_BYTES, DRIBBLE_MS, INITIAL_CREDIT_BYTES, SEND_QUEUE_BYTES } from "./limits.ts";

/** Small writes are gathered in blocks of this size while they wait. */
const GATHER_BYTES = 4_096;
/** A stream that said less than this lately is interactive: it may pass bulk ones. */
const INTERACTIVE_BYTES = 16 * 1_024;
/** How fast "lately" fades: the count halves in this time. */
const LATELY_MS = 100;
/** Payload of the first frame after a silence: with its header and TLS's it fits one packet, and waits for no other one to be read. */
const FIRST_BYTES = 1_250;
/** Nothing to say for so long is a silence: shorter than a round trip of any wide-area link, longer than a busy source hesitates. */
const SILENCE_MS = 5;

/** Room for a header, then payload: a DATA frame in the making. `used` counts both. */
export interface Chunk {
  memory: Uint8Array;
  used: number;
  /** Memory that was lent to us, in which this lies; it is released once it is no longer needed. */
  readonly lent: Uint8Array | undefined;
}

/** State of one stream, at one end. */
export class Stream {
  readonly id: number;
  readonly openedByPeer: boolean;

  /** Offset behind the last octet framed. */
  sent = 0;
  /** Offset up to which the peer lets us send. */
  credit: number;
  /** Our end: open, to be finished behind what is queued, or finished. */
  ending: "open" | "due" | "sent" = "open";
  /** With our end, the peer's is over too. */
  endsWhole = false;
  /** The application is done with it. */
  forgotten = false;
  #queue: Chunk[] = [];
  #queuedBytes = 0;
  /** Since when the peer grants too little credit to be worth a frame; undefined while it does not. */
  #dribbleSince: number | undefined;
  /** The source was told to stop, and wants to know when to go on. */
  wanting = false;
  /** Listed with the scheduler. */
  scheduled = false;
  #lately = 0;
  #latelyAt = 0;
  /** Octets framed since the last silence, and since when nothing is queued. */
  #burst = 0;
  #drainedAt = Number.NEGATIVE_INFINITY;

  /** Offset behind the last octet received. */
  received = 0;
  /** Octets the application has taken. */
  consumed = 0;
  /**
   * What comes is confirmed to the peer only once it was passed on: our process may be killed, and whoever has it then goes on without us. Only a wish while the
   * session retains nothing; and not now where nobody takes what came, as all other streams would wait too.
   */
  kept: "no" | "wished" | "yes" | "not now" = "no";
  /** Octets that were passed on, and the end with them, which counts as one. */
  passedOn = 0;
  /** Octets of ours that the peer has confirmed, and those of them that were told. */
  confirmed = 0;
  confirmedTold = 0;
  /** The peer has our end, too. */
  endConfirmed = false;
  /** Offset up to which the peer may send. */
  granted: number;
  /** How much credit we keep outstanding. */
  window: number;
  /** When credit was last renewed. */
  renewedAt: number;
  /** The peer's end is finished. */
  finished = false;
  /** Reset by either end: nothing more is said or heard on it. */
  dead = false;
  /** DATA without octets in a row (F06). */
  emptyInARow = 0;
  /** When an octet last moved, either way. */
  movedAt: number;
  /** The connection it is to be said on, as long as there is that one. */
  pin: number | undefined;
  /** The line that it was opened with, of a stream of ours. */
  request: Uint8Array | undefined;

  constructor(id: number, openedByPeer: boolean, credit: number, window: number, now: number) {
    this.id = id;
    this.openedByPeer = openedByPeer;
    this.credit = credit;
    this.granted = window;
    this.window = window;
    this.renewedAt = now;
    this.movedAt = now;
  }

  /** Octets waiting to be framed. */
  get queuedBytes(): number {
    return this.#queuedBytes;
  }

  /** Nothing is queued. */
  get drained(): boolean {
    return this.#queue.length === 0;
  }

  /** Something waits to be said, and there is credit for it. */
  get ready(): boolean {
    if (this.dead) return false;
    const next = this.#queue[0];
    if (next === undefined) return this.ending === "due";
    const room = this.credit - this.sent;
    return next.lent !== undefined ? next.used - HEADER_BYTES <= room : room > 0;
  }

  /** Octets that are somebody else's: of a stream that is kept what was passed on, though no credit may have been given for it yet. */
  get taken(): number {
    return this.kept === "no" ? this.consumed : this.passedOn;
  }

  /** Our end is known to be confirmed, or nobody wants to know. */
  get isSettled(): boolean {
    return this.kept === "no" || this.kept === "wished" || this.endConfirmed;
  }

  /** Both ends are finished, or the stream is dead. */
  get over(): boolean {
    return this.dead || (this.finished && this.ending === "sent");
  }

  /** Few octets lately: its next ones may pass bulk. */
  interactive(now: number): boolean {
    return this.#lately * 2 ** ((this.#latelyAt - now) / LATELY_MS) < INTERACTIVE_BYTES;
  }

  /**
   * Octets the application may queue now, 0 when it has to wait. Credit that comes in crumbs counts as none for a moment: else a peer
   * that grants single octets makes us send them (abuse case F03). What is left of a large grant is no crumb.
   */
  sendable(now: number): number {
    if (this.dead || this.ending !== "open") return 0;
    const credit = this.credit - this.sent - this.#queuedBytes;
    const queue = SEND_QUEUE_BYTES - this.#queuedBytes;
    if (queue >= DRIBBLE_BYTES && credit > 0 && credit < DRIBBLE_BYTES && this.#dribbleSince !== undefined)
      return now - this.#dribbleSince >= DRIBBLE_MS ? credit : 0;
    this.#dribbleSince = undefined;
    // A queue that is almost full is full: it is being emptied, and small reads are dear.
    return queue < DRIBBLE_BYTES ? 0 : Math.max(Math.min(credit, queue), 0);
  }

  /** The peer lets us send up to this offset, which is higher than before. */
  grant(limit: number, now: number): void {
    const exhausted = this.credit - this.sent - this.#queuedBytes <= 0;
    if (exhausted && limit - this.credit < DRIBBLE_BYTES) this.#dribbleSince = now;
    this.credit = limit;
  }

  /** When little credit has been waited out, if it is being waited out. */
  get dribbleAt(): number {
    return this.wanting && this.#dribbleSince !== undefined
      ? this.#dribbleSince + DRIBBLE_MS
      : Number.POSITIVE_INFINITY;
  }

  /** Queues a copy of the payload, gathered with what already waits. */
  copy(payload: Uint8Array, now: number): void {
    this.#begin(now);
    this.#queuedBytes += payload.length;
    const last = this.#queue.at(-1);
    if (last !== undefined && last.lent === undefined && last.used + payload.length <= last.memory.length) {
      last.memory.set(payload, last.used);
      last.used += payload.length;
      return;
    }
    const gathering = last === undefined ? payload.length : Math.max(payload.length, GATHER_BYTES);
    const memory = new Uint8Array(HEADER_BYTES + gathering);
    memory.set(payload, HEADER_BYTES);
    this.#queue.push({ memory, used: HEADER_BYTES + payload.length, lent: undefined });
  }

  /** Queues a payload in place: 24 octets of room for the header, then the payload. */
  lend(frame: Uint8Array, now: number): void {
    this.#begin(now);
    this.#queuedBytes += frame.length - HEADER_BYTES;
    this.#queue.push({ memory: frame, used: frame.length, lent: frame });
  }

  /** A burst begins with what is queued behind a silence. */
  #begin(now: number): void {
    if (this.#queue.length === 0 && now - this.#drainedAt > SILENCE_MS) this.#burst = 0;
  }

  /**
   * The next chunk to be framed, as much of it as there is credit for. A frame is of no use before its last octet: one of 64 KiB, with which
   * a connection starts slowly, would keep its first octet waiting for three round trips. So a burst begins with a small frame, and each
   * of the next is as large as all before it.
   */
  take(now: number): Chunk | undefined {
    const next = this.#queue[0];
    if (next === undefined) return undefined;
    const room = Math.min(this.credit - this.sent, Math.max(this.#burst, FIRST_BYTES));
    const chunk = next.used - HEADER_BYTES <= room ? this.#queue.shift() : split(next, room);
    if (chunk === undefined) return undefined;
    const octets = chunk.used - HEADER_BYTES;
    this.#queuedBytes -= octets;
    this.#burst += octets;
    if (this.#queue.length === 0) this.#drainedAt = now;
    this.#lately = this.#lately * 2 ** ((this.#latelyAt - now) / LATELY_MS) + octets;
    this.#latelyAt = now;
    this.movedAt = now;
    return chunk;
  }

  /** Drops what is queued; what was lent is handed to `release`. */
  drop(release: (memory: Uint8Array) => void): void {
    for (const chunk of this.#queue) if (chunk.lent !== undefined) release(chunk.lent);
    this.#queue = [];
    this.#queuedBytes = 0;
  }
}

/**
 * Takes the first octets of a chunk, as a copy. What is left stays where it is: its header will lie over octets that were taken.
 */
function split(chunk: Chunk, octets: number): Chunk {
  const part = chunk.memory.slice(0, HEADER_BYTES + octets);
  chunk.memory = chunk.memory.subarray(octets);
  chunk.used -= octets;
  return { memory: part, used: part.length, lent: undefined };
}

/** The offset a stream's peer may use before anything was granted explicitly. */
export const CREDIT_UNHEARD = INITIAL_CREDIT_BYTES;
