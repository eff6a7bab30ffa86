/**
 * One end of the socket over which an attempt to sign in with PAM is carried on (`pam-protocol.ts`): whole messages one after the other, a
 * deadline for each and a bound for all of them together, and the reason when there are no more. Used by the server towards the process
 * that asks PAM, and by the helper in both directions.
 * @module
 */
import type { Duplex } from "node:stream";

/** Messages of one attempt: 16 questions, and some scores of lines to be told. A module that says more has lost itself (abuse case A07). */
const MESSAGES_MAX = 96;
/** Octets of one attempt: as many messages of ordinary length, or a dozen of the longest. */
const LINK_BYTES_MAX = 1024 * 1024;

/** Cuts octets into messages, as the readers of `pam-protocol.ts` do. */
export interface MessageReader<Message> {
  push(chunk: Uint8Array): void;
  /** Undefined when no whole message has come, "garbage" for what is none. */
  next(): Message | "garbage" | undefined;
}

/** A socket that carries messages one way and octets the other. */
export class PamLink<Message extends object> {
  readonly #stream: Duplex;
  readonly #arrived: Message[] = [];
  #messages = 0;
  #bytes = 0;
  #why: string | undefined;
  #wake: (() => void) | undefined;

  constructor(stream: Duplex, reader: MessageReader<Message>) {
    this.#stream = stream;
    stream.on("data", (chunk: Buffer) => this.#take(chunk, reader));
    stream.on("error", (error) => this.#lose(error.message));
    stream.once("end", () => this.#lose("it ended without a result"));
    stream.once("close", () => this.#lose("it ended without a result"));
  }

  /** Why no more comes; undefined while more may. */
  get why(): string | undefined {
    return this.#why;
  }

  /** The next message; undefined when none will come, {@link PamLink.why} tells the reason. One that takes longer than `ms` is waited for no more. */
  async next(ms: number): Promise<Message | undefined> {
    const late = setTimeout(() => this.destroy(`it was silent for ${Math.round(ms / 1_000)} s`), ms);
    try {
      while (this.#arrived.length === 0 && this.#why === undefined) {
        const { promise, resolve } = Promise.withResolvers<void>();
        this.#wake = resolve;
        await promise;
      }
      return this.#arrived.shift();
    } finally {
      clearTimeout(late);
    }
  }

  /** Says octets, and wipes them. */
  send(octets: Uint8Array): void {
    this.#stream.write(octets, () => void octets.fill(0));
  }

  /** Says what has been sent, and no more; the stream is gone when that is out. */
  end(): void {
    this.#lose("it is over");
    this.#stream.end(() => this.#stream.destroy());
  }

  /** Drops the link with all that has come and was not taken; the first reason given counts. */
  destroy(why: string): void {
    this.#arrived.length = 0;
    this.#lose(why);
    this.#stream.destroy();
  }

  #take(chunk: Buffer, reader: MessageReader<Message>): void {
    if (this.#why === undefined) {
      this.#bytes += chunk.length;
      reader.push(chunk);
      for (let message = reader.next(); message !== undefined; message = reader.next()) {
        if (message === "garbage") return this.destroy("it says what nobody understands");
        this.#arrived.push(message);
        this.#messages++;
        if (this.#messages > MESSAGES_MAX) return this.destroy("it says too much");
      }
      if (this.#bytes > LINK_BYTES_MAX) return this.destroy("it says too much");
      this.#wake?.();
    }
    chunk.fill(0); // an answer may be a password
  }

  #lose(why: string): void {
    this.#why ??= why;
    this.#wake?.();
  }
}
