/**
 * A channel: the bytes of one conversation, whether it has a connection to itself (RFC 1078) or is one stream of a session. What is said
 * over it as lines, and what joins it to a back end, need not know which.
 * @module
 */
import type { Socket } from "node:net";
import type { Duplex, Readable, Writable } from "node:stream";
import type { Urgency } from "./turn.ts";

/** Something already connected whose bytes can be joined to a channel: a socket, or the standard streams of a process. */
export interface Splice {
  /** Takes the caller's bytes; ended when the caller half-closes. */
  readonly input: Writable;
  /** Gives the bytes for the caller; its end half-closes towards the caller. The same object as `input` for a socket. */
  readonly output: Readable;
  /** The end of `output` is the end of the whole stream, whatever the caller still holds open (a process that has exited). */
  readonly endsWithOutput: boolean;
  /** What went through so far, where the streams themselves do not count it as sockets do. */
  readonly traffic?: Traffic;
  /** Whoever is behind it has the octets also when this process is killed, and can go on without it; see {@link Keeper}. */
  readonly keeper?: Keeper;
  /** Tears both down at once; a TCP peer sees a reset. */
  destroy(): void;
  /** Told before that happens why the peer has cut the stream, of PROTOCOL §6.5; see {@link Receiver.closed}. */
  cut?(code: number, why?: string): void;
}

/**
 * Who is behind a splice, in another process of this computer: he keeps what he has said until it is confirmed, and sees to credit himself
 * (`SessionStream.credit`).
 */
export interface Keeper {
  /** So many octets more are his. */
  passedOn(octets: number): void;
  /** The peer has so many octets of the stream. Told now and then. */
  confirmed(octets: number): void;
  /** The stream is over, and where it has ended in peace the peer has all of it. */
  gone(): void;
}

/** Octets of one conversation, seen from the server: from the caller, and to him. */
export interface Traffic {
  readonly received: number;
  readonly sent: number;
}

/** Who gets what arrives on a channel. */
export interface Receiver {
  /** Octets, in memory that is used again as soon as this returns; {@link Channel.consumed} makes room for more. */
  data(bytes: Uint8Array): void;
  /** The peer has half-closed. */
  end(): void;
  /** More may be written, after {@link Channel.write} gave false. */
  drained(): void;
  /**
   * Nothing comes or goes any more. `code` is that of PROTOCOL §6.5; NO_ERROR when all went well.
   * @param why for people, where there is more to say than the code: the whole session is over, for instance
   */
  closed(code: number, why?: string): void;
}

/** The bytes of one conversation. */
export interface Channel {
  /** Who gets what arrives; set it before control returns to the event loop. */
  receiver: Receiver;
  /** Number of the stream in its session; undefined for a connection. */
  readonly id?: number;
  /**
   * Sends octets. False: not all could go yet; their memory stays untouched, and nothing more is written, until {@link Receiver.drained}.
   * @param urgency how soon; what nobody waits for may travel with what comes next
   */
  write(bytes: Uint8Array, urgency?: Urgency): boolean;
  /** Half-closes behind what was written. */
  end(): void;
  /** Ends both directions behind what was written: what the peer still sends is of no interest. */
  close(): void;
  /** Ends both directions at once, with a code of PROTOCOL §6.5. */
  reset(code: number): void;
  /** Octets given to {@link Receiver.data} were dealt with: the peer may send as many more. */
  consumed(bytes: number): void;
  /** Joins the channel to something connected, half-close included, until both are over. `first` had been received before. */
  splice(to: Splice, first: Uint8Array): void;
  /** The channel as a stream of Node's. `first` had been received before. */
  duplex(first: Uint8Array): Duplex;
  /** What was behind the channel is gone: its slot is free. After {@link Channel.splice} and {@link Channel.duplex} that is their doing. */
  forget(): void;
}

/** A receiver for a channel that nobody listens to. */
export const nobody: Receiver = { data() {}, end() {}, drained() {}, closed() {} };

/** A connected socket as something to be joined. */
export function spliceOf(socket: Socket): Splice {
  return {
    input: socket,
    output: socket,
    endsWithOutput: false,
    destroy() {
      // Only TCP knows a reset; of anything else Node throws at the wish for one.
      if (socket.remoteAddress === undefined) socket.destroy();
      else socket.resetAndDestroy();
    },
  };
}
