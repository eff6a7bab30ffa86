/**
 * A connection whose bytes are one conversation, as RFC 1078 has it: lines first, then everything belongs to the service that was asked
 * for. Without frames a connection that breaks looks like one that ends: who needs to tell them apart asks for MULTIPLEX.
 * @module
 */
import type { Socket } from "node:net";
import type { Duplex } from "node:stream";
import { TLSSocket } from "node:tls";
import { INITIAL_CREDIT_BYTES } from "../session/index.ts";
import { Code } from "../wire/index.ts";
import { type Channel, nobody, type Receiver, type Splice } from "./channel.ts";
import { endInTime, TAKE_MS } from "./closing.ts";
import { ChannelDuplex } from "./duplex.ts";

/** A connection as a channel. */
export class BareChannel implements Channel {
  receiver: Receiver = nobody;
  readonly socket: Socket;
  /** Octets the receiver has not dealt with. */
  #held = 0;
  #ended = false;
  #closing = false;
  #over = false;

  readonly #onData = (chunk: Buffer): void => {
    if (this.#closing) return; // of no interest any more
    this.#held += chunk.length;
    if (this.#held >= INITIAL_CREDIT_BYTES) this.socket.pause();
    this.receiver.data(chunk);
  };
  readonly #onEnd = (): void => {
    this.#ended = true;
    this.receiver.end();
  };
  readonly #onDrain = (): void => this.receiver.drained();
  readonly #onError = (): void => {}; // "close" follows, and says that it is over
  readonly #onClose = (): void => {
    if (this.#over) return;
    this.#over = true;
    const inPeace = this.socket.writableFinished && (this.#ended || this.#closing);
    this.receiver.closed(inPeace ? Code.NO_ERROR : Code.UNAVAILABLE);
  };

  /** @param socket connected, with `allowHalfOpen` */
  constructor(socket: Socket) {
    this.socket = socket;
    socket.setNoDelay(true);
    socket.on("data", this.#onData);
    socket.on("end", this.#onEnd);
    socket.on("drain", this.#onDrain);
    socket.on("error", this.#onError);
    socket.on("close", this.#onClose);
  }

  /** The socket, no longer listened to: what comes next is somebody else's. An "error" listener stays, so that none goes unheard. */
  release(): Socket {
    this.socket.pause();
    this.socket.off("data", this.#onData);
    this.socket.off("end", this.#onEnd);
    this.socket.off("drain", this.#onDrain);
    this.socket.off("close", this.#onClose);
    return this.socket;
  }

  write(bytes: Uint8Array): boolean {
    return this.socket.write(bytes);
  }

  end(): void {
    this.socket.end();
  }

  close(): void {
    if (this.#closing || this.socket.destroyed) return;
    this.#closing = true;
    // What still comes is read and dropped: closing over unread octets would be a reset, which can overtake our last line.
    this.socket.unpipe().resume();
    this.socket.once(
      "close",
      endInTime(this.socket, TAKE_MS, () => this.socket.destroy()),
    );
  }

  reset(_code: number): void {
    // A reset is what TCP can say; through TLS it is the missing close_notify, and a Unix socket cannot tell.
    const canTell = !(this.socket instanceof TLSSocket) && this.socket.remoteFamily !== undefined;
    if (canTell) this.socket.resetAndDestroy();
    else this.socket.destroy();
  }

  consumed(bytes: number): void {
    this.#held -= bytes;
    if (this.#held < INITIAL_CREDIT_BYTES && this.socket.isPaused()) this.socket.resume();
  }

  splice(to: Splice, first: Uint8Array): void {
    const socket = this.release();
    const { input, output } = to;
    if (socket.destroyed || output.destroyed) {
      to.destroy(); // one of the two has left while the other was being found
      return this.reset(Code.UNAVAILABLE);
    }
    socket.once("close", () => {
      if (!output.readableEnded || !input.writableFinished) to.destroy();
    });
    const closed = (): void => {
      if (output.destroyed && !output.readableEnded)
        this.reset(Code.UNAVAILABLE); // a cut is handed on as a cut
      else if (output.destroyed && input.destroyed) this.close();
      else if (input.destroyed) socket.unpipe(input).resume(); // nobody takes what the caller says: it goes nowhere
    };
    output.on("error", () => {}); // "close" follows
    output.once("close", closed);
    input.on("error", () => {}); // a process that does not read its input to the end is no fault; its output says the rest
    input.once("close", closed);
    if (to.endsWithOutput) output.once("end", () => this.close());
    if (first.length > 0) input.write(first);
    socket.pipe(input);
    output.pipe(socket);
  }

  duplex(first: Uint8Array): Duplex {
    const duplex = new ChannelDuplex();
    duplex.attach(this, first);
    if (this.#ended) this.receiver.end();
    return this.#over ? duplex.destroy() : duplex;
  }

  forget(): void {
    this.#over = true;
    if (this.socket.writableEnded) this.close();
    else this.socket.destroy();
  }
}
