/**
 * A connection while lines are said on it one after the other, before it carries a session: for AUTH, whose lines must not be sent ahead
 * of the server's (PROTOCOL §4.6).
 * @module
 */
import type { Socket } from "node:net";
import { BareChannel, FivedError } from "../../io/index.ts";
import { Code, encodeLine, LineReader, REPLY_BYTES_MAX } from "../../wire/index.ts";
import { type Address, printAddress } from "../address.ts";
import type { Dialled } from "../dial.ts";

/** Wait for one line of the server: what stands behind it may take 20 s over one answer, and a little more than that. */
export const ANSWER_MS = 30_000;

/** Lines over a connection that was dialled. */
export class Conversation implements Disposable {
  readonly dialled: Dialled;
  readonly #address: Address;
  readonly #channel: BareChannel;
  readonly #lines = new LineReader(REPLY_BYTES_MAX);
  /** Nothing more will come. */
  #over = false;
  #released = false;
  #heard: () => void = () => {};

  constructor(address: Address, dialled: Dialled) {
    this.#address = address;
    this.dialled = dialled;
    this.#channel = new BareChannel(dialled.socket);
    const over = (): void => {
      this.#over = true;
      this.#heard();
    };
    this.#channel.receiver = {
      data: (bytes) => {
        this.#lines.push(bytes.slice()); // not given back: what nobody asked for fills the connection's credit, and no more
        this.#heard();
      },
      end: over,
      drained() {},
      closed: over,
    };
    dialled.socket.resume();
    if (dialled.socket.destroyed || dialled.socket.readableEnded) over();
  }

  /** False when the server has left: what is said now is heard by nobody. */
  get open(): boolean {
    return !this.#over;
  }

  /** Says a line of printable ASCII. */
  say(text: string): void {
    this.#channel.write(encodeLine(text));
  }

  /** Says a line of any octets but CR and LF, wipes them, and wipes its own copy once it is encrypted. */
  saySecret(octets: Uint8Array): void {
    const line = Buffer.alloc(octets.length + 2);
    line.set(octets);
    line.set([0x0d, 0x0a], octets.length);
    octets.fill(0);
    this.dialled.socket.write(line, () => line.fill(0));
  }

  /** The next line; rejects with SESSION_LOST, TIMEOUT, ABORTED, or PROTOCOL_ERROR for what is no line. */
  async hear(signal?: AbortSignal): Promise<string> {
    for (;;) {
      const before = this.#lines.buffered;
      const line = this.#lines.next();
      this.#channel.consumed(before - this.#lines.buffered);
      if (line?.type === "line") return line.text;
      if (line !== undefined) throw this.failed("PROTOCOL_ERROR", "the server's line is too long to be one");
      if (this.#over) throw this.failed("SESSION_LOST", "the server closed the connection");
      await this.#more(signal);
    }
  }

  /** Hands over the connection, unread. Throws PROTOCOL_ERROR if the server has said what it was not asked for. */
  release(): Socket {
    if (this.#lines.buffered > 0) {
      this[Symbol.dispose]();
      throw this.failed("PROTOCOL_ERROR", "the server says more than it was asked");
    }
    this.#released = true;
    return this.#channel.release();
  }

  /** Leaves. */
  [Symbol.dispose](): void {
    if (!this.#released) this.#channel.close();
  }

  /** What went wrong on this connection, for its user. */
  failed(code: "PROTOCOL_ERROR" | "SESSION_LOST", why: string): FivedError {
    return new FivedError(code, `Cannot sign in at ${printAddress(this.#address)}: ${why}`);
  }

  async #more(signal: AbortSignal | undefined): Promise<void> {
    const { promise, resolve, reject } = Promise.withResolvers<void>();
    const where = printAddress(this.#address);
    const late = setTimeout(() => {
      reject(new FivedError("TIMEOUT", `Cannot sign in at ${where}: the server said nothing for ${ANSWER_MS} ms`));
    }, ANSWER_MS);
    const abort = (): void =>
      reject(new FivedError("ABORTED", `Cannot sign in at ${where}: it was called off`, { cause: signal?.reason }));
    this.#heard = resolve;
    signal?.addEventListener("abort", abort);
    if (signal?.aborted) abort();
    try {
      await promise;
    } catch (error) {
      this.#channel.reset(Code.CANCEL);
      throw error;
    } finally {
      this.#heard = () => {};
      clearTimeout(late);
      signal?.removeEventListener("abort", abort);
    }
  }
}
