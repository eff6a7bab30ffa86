/**
 * Credit for a stream whose octets go to another process: the peer may send more as they are passed on there, as long as the application takes them in the end.
 * @module
 */
import type { SessionStream, Splice } from "../io/index.ts";
import type { Keeping } from "./session.ts";

/** What may lie in the other process untaken: it need not tell of each octet that is taken. */
const UNTAKEN_BYTES = 1_024 * 1_024;

/** That of one stream. All numbers are counted from the first octet behind the service's answer. */
export class Credit {
  readonly #stream: SessionStream;
  #passedOn: number;
  #took = 0;
  /** What credit was given for. */
  #given: number;

  /** @param had octets that the other process has, and that credit was given for */
  constructor(stream: SessionStream, had = 0) {
    this.#stream = stream;
    this.#passedOn = had;
    this.#given = had;
  }

  /** So many more were passed on. */
  passedOn(octets: number): void {
    this.#passedOn += octets;
    this.#give();
  }

  /** The application has taken so many in all. */
  took(octets: number): void {
    this.#took = octets;
    this.#give();
  }

  #give(): void {
    const more = Math.min(this.#passedOn, this.#took + UNTAKEN_BYTES) - this.#given;
    if (more <= 0) return;
    this.#given += more;
    this.#stream.credit(more);
  }
}

/**
 * The same splice, with a keeper who gives credit.
 * @param preface what is said on the stream in front of the keeper's octets: he counts his own only
 */
export function kept(to: Splice, keeping: Keeping, credit: Credit, preface: Uint8Array): Splice {
  return {
    ...to,
    keeper: {
      passedOn: (octets) => credit.passedOn(octets),
      confirmed: (octets) => keeping.confirmed(Math.max(octets - preface.length, 0)),
      gone: () => keeping.gone(),
    },
  };
}
