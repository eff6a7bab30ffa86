/**
 * A channel as a Duplex of Node's: for services written as functions, for the library, and for everything that is not a socket.
 * @module
 */
import { Duplex } from "node:stream";
import { Code, codeName } from "../wire/index.ts";
import type { Channel } from "./channel.ts";
import { FivedError } from "./errors.ts";

/**
 * What may lie in our buffer unread and yet be replaced by new credit: else a stream that nobody reads would cost more than its credit.
 */
const UNREAD_BYTES = 16 * 1_024;

/**
 * A channel seen as a stream: back pressure and half-close both ways, a reset as a {@link FivedError}. When the peer says that the whole
 * stream is over, the Duplex closes once it was read to its end, even if its user would have liked to write more.
 */
export class ChannelDuplex extends Duplex {
  #channel: Channel | undefined;
  /** What was written before there was a channel. */
  #early: (() => void) | undefined;
  /** Octets pushed into our buffer and not yet read by the user: no credit is given for them. */
  #unread = 0;
  /** Ends the write that is waiting, for credit or for a channel. */
  #continue: ((error?: Error | null) => void) | undefined;
  #over = false;
  /** It ends with this when what has come was read. */
  #behind: Error | undefined;
  /** Octets that came, and octets that were taken from its user; as a socket counts them. */
  bytesRead = 0;
  bytesWritten = 0;

  /** @param unreadBytes that may lie here unread and yet count as taken; 0 where only what was read is */
  constructor(unreadBytes = UNREAD_BYTES) {
    super({ allowHalfOpen: true, readableHighWaterMark: unreadBytes });
  }

  /**
   * Gives it its channel; what was written before goes out now.
   * @param first octets that had been received before
   */
  attach(channel: Channel, first?: Uint8Array): void {
    if (this.destroyed) {
      channel.reset(Code.CANCEL);
      return channel.forget();
    }
    this.#channel = channel;
    channel.receiver = {
      data: (bytes) => this.#take(bytes),
      end: () => void this.push(null),
      drained: () => this.#goOn(),
      closed: (code, why) => this.#closed(code, why),
    };
    if (first !== undefined && first.length > 0) this.#take(first);
    const early = this.#early;
    if (early === undefined) return;
    this.#early = undefined;
    this.#continue = undefined;
    early();
  }

  #take(bytes: Uint8Array): void {
    this.bytesRead += bytes.length;
    // The user may keep what it reads: it gets a copy.
    if (this.push(Buffer.from(bytes))) this.#channel?.consumed(bytes.length);
    else this.#unread += bytes.length;
  }

  #goOn(error: Error | null = null): void {
    const go = this.#continue;
    this.#continue = undefined;
    go?.(error);
  }

  #closed(code: number, why: string | undefined): void {
    this.#over = true;
    if (code !== Code.NO_ERROR) {
      const reason = codeName(code);
      const message = `Cannot go on with the stream: ${why ?? `it was reset with ${reason}`}`;
      const error = new FivedError("STREAM_RESET", message, { reason });
      // Where the stream goes on elsewhere, what has come is for whoever reads here: it goes on behind that.
      if (code === Code.SUPERSEDED && this.readableLength > 0) this.#behind = error;
      else this.destroy(error);
      return;
    }
    if (this.readableEnded) this.destroy();
    else this.once("end", () => this.destroy());
    this.#goOn();
  }

  override read(size?: number): unknown {
    const octets: unknown = super.read(size);
    // Not only once all was read, as Node asks for more: whoever has much in here would wait for its peer each time.
    const taken = this.#unread - this.readableLength;
    if (taken > 0) {
      this.#unread -= taken;
      this.#channel?.consumed(taken);
    }
    const error = this.#behind;
    if (error !== undefined && this.readableLength === 0) {
      this.#behind = undefined;
      process.nextTick(() => this.destroy(error)); // whoever reads has the octets first
    }
    return octets;
  }

  override _read(): void {
    const unread = this.#unread;
    this.#unread = 0;
    if (unread > 0) this.#channel?.consumed(unread);
  }

  override _write(chunk: Buffer, _encoding: BufferEncoding, done: (error?: Error | null) => void): void {
    if (this.#channel === undefined && !this.#over) {
      this.#early = () => this._write(chunk, _encoding, done);
      this.#continue = done;
      return;
    }
    this.bytesWritten += chunk.length;
    if (this.#over || this.#channel?.write(chunk) === true) return done();
    this.#continue = done;
  }

  override _final(done: (error?: Error | null) => void): void {
    if (this.#channel === undefined && !this.#over) {
      this.#early = () => this._final(done);
      this.#continue = done;
      return;
    }
    if (!this.#over) this.#channel?.end();
    done();
  }

  override _destroy(error: Error | null, done: (error?: Error | null) => void): void {
    // Ended both ways is no reset, even while the last octets wait to go out.
    const peaceful = this.#over || (this.writableFinished && this.readableEnded);
    this.#over = true;
    if (!peaceful) this.#channel?.reset(Code.CANCEL);
    this.#channel?.forget();
    this.#goOn(error); // whoever waits for a write to be done has waited long enough
    done(error);
  }
}
