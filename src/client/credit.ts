/**
 * Credit for a stream whose octets another process counts, without those of the service's answer in front of them.
 * @module
 */
import type { SessionStream } from "../io/index.ts";

/** That of one stream. */
export class Credit {
  readonly #stream: SessionStream;
  #answer = 0;
  /** Octets of the stream that credit was given for. */
  #given: number;

  /** @param given octets of the stream that need none: they had come before */
  constructor(stream: SessionStream, given = 0) {
    this.#stream = stream;
    this.#given = given;
  }

  /** The answer had so many octets, which are dealt with. */
  answered(octets: number): void {
    this.#answer = octets;
    this.#given = Math.max(this.#given, octets);
  }

  /** The application has taken so many, counted from the first one behind the answer. */
  took(octets: number): void {
    const more = this.#answer + octets - this.#given;
    if (more <= 0) return;
    this.#given += more;
    this.#stream.credit(more);
  }
}
