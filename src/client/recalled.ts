/**
 * Streams of a session whose process was killed, in the process that goes on with it (PROTOCOL §4.8, `recall`): each waits for the program that has it.
 * @module
 */
import type { Receiver, SessionPump, SessionStream, Splice } from "../io/index.ts";
import type { RecalledStream, Recollection } from "../session/index.ts";
import { Code } from "../wire/index.ts";
import { Credit, kept } from "./credit.ts";
import { type Answer, type Asked, expectReplies } from "./replies.ts";
import type { Joined, Keeping } from "./session.ts";

/** A stream that no program has asked for by then has none any more: programs come as soon as they notice. */
const UNCLAIMED_MS = 15_000;

/** What a program says of its stream. */
export interface Claim {
  readonly id: number;
  /** Lines that are said on it in front of the program's octets, behind the first one. */
  readonly preface: Uint8Array;
  /** Octets that have come: those of the service's answer, and behind it; undefined where there was no answer yet, which is expected then. */
  readonly had: { readonly answer: number; readonly octets: number } | undefined;
  /** Of those behind the answer, how many the application has taken. */
  readonly took: number;
  readonly keeping: Keeping;
  readonly answers: readonly Asked[];
}

/** What became of it. */
export type Claimed =
  /** It goes on; the server has so many of the program's octets, or all of them and their end (undefined). */
  | { readonly type: "goes on"; readonly from: number | undefined; readonly took: Joined["took"] }
  /** The server has never heard of it: it may be opened again. */
  | { readonly type: "unheard" }
  /** It has ended. */
  | { readonly type: "over" }
  /** Some of what had come was lost with the process. */
  | { readonly type: "torn" };

/** Those of one session. */
export class RecalledStreams {
  readonly #pump: SessionPump;
  readonly #nextStream: number;
  readonly #waiting = new Map<number, RecalledStream>();
  readonly #unclaimed: NodeJS.Timeout;

  /** To be made before the session has a connection: nothing that comes may be lost. */
  constructor(pump: SessionPump, { streams, nextStream }: Recollection) {
    this.#pump = pump;
    this.#nextStream = nextStream;
    for (const stream of streams) {
      this.#waiting.set(stream.id, stream);
      pump.stream(stream.id)?.hold(stream.finished);
    }
    this.#unclaimed = setTimeout(() => this.#forget(), UNCLAIMED_MS).unref();
  }

  /** Gives a stream to who has it. `answered` hears of the service's answer, where there was none yet. */
  claim(
    { id, preface, had, took, keeping, answers }: Claim,
    to: Splice,
    answered: (answer: Answer, octets: number) => void,
  ): Claimed {
    const told = this.#waiting.get(id);
    const stream = this.#pump.stream(id);
    if (told === undefined || stream === undefined) return { type: id >= this.#nextStream ? "unheard" : "over" };
    this.#waiting.delete(id);
    const known = had === undefined ? 0 : had.answer + had.octets - told.received;
    if (known < 0 || (had === undefined && told.received > 0)) {
      drop(stream);
      return { type: "torn" };
    }
    if (!told.ended && told.sent < preface.length) stream.write(preface.subarray(told.sent));
    const credit = new Credit(stream, had?.octets);
    credit.took(took);
    stream.splice(kept(to, keeping, credit, preface), NOTHING);
    if (had === undefined) expectReplies(stream, answers, answered);
    else if (known > 0) passOver(stream, known);
    stream.letGo();
    const from = told.ended ? undefined : Math.max(told.sent - preface.length, 0);
    return { type: "goes on", from, took: (octets) => credit.took(octets) };
  }

  /** The session is over. */
  stop(): void {
    clearTimeout(this.#unclaimed);
    this.#waiting.clear();
  }

  #forget(): void {
    for (const id of this.#waiting.keys()) {
      const stream = this.#pump.stream(id);
      if (stream !== undefined) drop(stream);
    }
    this.#waiting.clear();
  }
}

function drop(stream: SessionStream): void {
  stream.letGo();
  stream.reset(Code.CANCEL);
  stream.forget();
}

/** The next octets that come are known already where they go: they are not passed on again. */
function passOver(channel: SessionStream, octets: number): void {
  const inner: Receiver = channel.receiver;
  let left = octets;
  const filter: Receiver = {
    data(bytes) {
      const over = bytes.subarray(0, left);
      left -= over.length;
      channel.consumed(over.length);
      if (left === 0) channel.receiver = inner;
      if (over.length < bytes.length) inner.data(bytes.subarray(over.length));
    },
    end: () => inner.end(),
    drained: () => inner.drained(),
    closed: (code, why) => inner.closed(code, why),
  };
  channel.receiver = filter;
}

const NOTHING = new Uint8Array(0);
