/**
 * One stream of a session as a channel: its receiver is told what the session says of it, and it may be joined to a socket so that bulk
 * data passes without a copy, or be seen as a Duplex.
 * @module
 */
import type { Duplex } from "node:stream";
import { Code, HEADER_BYTES, PAYLOAD_BYTES_MAX } from "../wire/index.ts";
import { type Channel, nobody, type Receiver, type Splice } from "./channel.ts";
import { endInTime, TAKE_MS } from "./closing.ts";
import { ChannelDuplex } from "./duplex.ts";
import { SLAB_BYTES, SLOT_BYTES, type Slab, scratch, takeSlab } from "./memory.ts";
import { Outlet } from "./outlet.ts";
import type { SessionPump } from "./pump.ts";
import { type Reader, type Reading, readInto } from "./read-into.ts";
import type { Urgency } from "./turn.ts";

/** Below this a read is copied into a frame of its own size; from this on it stays where it was read. */
const LEND_BYTES_MIN = 16 * 1_024;

/** What has happened on a stream while nobody was there for it. */
interface Held {
  readonly octets: Uint8Array[];
  ended: boolean;
  over: { readonly code: number; readonly why: string | undefined } | undefined;
}

/** One stream, at one end of a session. */
export class SessionStream implements Channel {
  readonly id: number;
  readonly pump: SessionPump;
  receiver: Receiver = nobody;
  /** See {@link SessionStream.keep}. */
  confirmed: ((octets: number) => void) | undefined;
  /** Told when nothing is left of it; see {@link Keeper.gone}. */
  gone: (() => void) | undefined;
  #ended = false;
  #over = false;
  /** The end of a write that found too little credit. */
  #rest: Uint8Array | undefined;
  #ending: "half" | "whole" | undefined;
  #forgotten = false;
  #held: Held | undefined;

  constructor(id: number, pump: SessionPump) {
    this.id = id;
    this.pump = pump;
  }

  write(bytes: Uint8Array, urgency: Urgency = "now"): boolean {
    if (this.#rest !== undefined) {
      this.#rest = Buffer.concat([this.#rest, bytes]); // a source that was told to stop may have had a little more in hand
      return false;
    }
    const sendable = this.#room;
    if (this.#over || bytes.length <= sendable) this.#send(bytes, urgency);
    else {
      if (sendable > 0) this.#send(bytes.subarray(0, sendable), urgency);
      this.#rest = bytes.subarray(sendable);
    }
    return this.sendable > 0 && this.#rest === undefined; // asked in any case: only who has asked is told when there is room again
  }

  #send(bytes: Uint8Array, urgency: Urgency): void {
    this.pump.session.send(this.id, bytes, performance.now());
    this.pump.list(urgency);
  }

  end(): void {
    this.#finish("half");
  }

  close(): void {
    this.#finish("whole");
  }

  #finish(how: "half" | "whole"): void {
    if (this.#rest !== undefined) {
      this.#ending = how;
      return;
    }
    this.pump.session.finish(this.id, performance.now(), how === "whole");
    this.pump.list(this.#ended ? "soon" : "next"); // where the peer has ended before, hardly anybody waits for our end
  }

  reset(code: number): void {
    this.pump.session.reset(this.id, code, performance.now());
    this.pump.list();
    this.over(code);
  }

  consumed(bytes: number): void {
    if (this.confirmed !== undefined) this.passedOn(bytes);
    this.credit(bytes);
  }

  /** The peer may send so many octets more. */
  credit(bytes: number): void {
    if (this.pump.session.consume(this.id, bytes, performance.now())) this.pump.list("next");
  }

  /**
   * From now on what comes is confirmed to the peer once it was {@link SessionStream.passedOn}.
   * @param confirmed is told what the peer has confirmed of the stream
   */
  keep(confirmed: (octets: number) => void): void {
    this.confirmed = confirmed;
    this.pump.session.keep(this.id);
  }

  /** So many octets are somebody else's, for good; the end of the peer's direction counts as one. */
  passedOn(octets: number): void {
    this.pump.session.passedOn(this.id, octets, performance.now());
  }

  splice(to: Splice, first: Uint8Array): void {
    const { keeper } = to;
    if (keeper !== undefined) {
      this.keep((octets) => keeper.confirmed(octets));
      this.gone = () => keeper.gone();
    }
    if (this.#over || to.output.destroyed) {
      // One of the two has left while the other was being found.
      to.destroy();
      if (!this.#over) this.reset(Code.UNAVAILABLE);
      return this.forget();
    }
    const joint = new Joint(this, to);
    this.receiver = joint;
    joint.start(first);
    if (this.#ended) joint.end();
  }

  duplex(first: Uint8Array): Duplex {
    const duplex = new ChannelDuplex();
    duplex.attach(this, first);
    if (this.#ended) this.receiver.end();
    return this.#over ? duplex.destroy() : duplex;
  }

  forget(): void {
    this.receiver = nobody;
    this.#forgotten = true;
    if (this.#rest !== undefined && this.#ending !== undefined) return; // what was written before the end is still said
    this.#over = true;
    if (this.pump.forget(this)) this.gone?.(); // whoever waits for it need not wait for the next turn
  }

  /** Octets that may be sent now; 0 asks to wait for {@link Receiver.drained}. */
  get sendable(): number {
    const room = this.#room; // asked in any case: what was taken already is still said, and waits to be told
    return this.pump.frozen ? 0 : room;
  }

  get #room(): number {
    return this.pump.session.sendable(this.id, performance.now());
  }

  /** Nothing that was written waits for credit here. */
  get said(): boolean {
    return this.#rest === undefined || this.#over;
  }

  /**
   * Keeps what happens until somebody is there for it, and it is {@link SessionStream.letGo}: as much as credit allows. What comes is not confirmed until then.
   * @param ended the peer had ended its direction before
   */
  hold(ended: boolean): void {
    const held: Held = { octets: [], ended, over: undefined };
    this.#held = held;
    this.keep(() => {});
    this.receiver = { ...nobody, data: (bytes) => void held.octets.push(new Uint8Array(bytes)) };
  }

  /** Tells the receiver, which was set meanwhile, of all that was kept. */
  letGo(): void {
    const held = this.#held;
    this.#held = undefined;
    if (held === undefined) return;
    for (const octets of held.octets) this.receiver.data(octets);
    if (held.ended) this.ended();
    if (held.over !== undefined) this.over(held.over.code, held.over.why);
  }

  /** The peer has half-closed; who receives later is told too. */
  ended(): void {
    if (this.#held !== undefined) {
      this.#held.ended = true;
      return;
    }
    this.#ended = true;
    this.receiver.end();
  }

  /** The session lets the stream go on. */
  writable(): void {
    const rest = this.#rest;
    this.#rest = undefined;
    const drained = rest === undefined || this.write(rest);
    if (this.#rest !== undefined) return;
    if (this.#ending !== undefined)
      this.#finish(this.#ending); // an end needs no credit
    else if (drained && !this.pump.frozen) this.receiver.drained();
    if (this.#forgotten) this.forget();
  }

  /** Both directions are over: the receiver is told once, and says when what is behind it is gone ({@link Channel.forget}). */
  over(code: number, why?: string): void {
    if (this.#over) return;
    if (this.#held !== undefined) {
      this.#held.over ??= { code, why };
      return;
    }
    this.#over = true;
    this.#rest = undefined;
    this.receiver.closed(code, why);
    if (this.#forgotten) this.forget();
  }
}

/** A stream joined to a socket, or to the standard streams of a process. */
class Joint implements Receiver, Reader {
  readonly #stream: SessionStream;
  readonly #to: Splice;
  readonly #outlet: Outlet;
  #reading: Reading | undefined;
  #stopped = false;
  /** Octets that may be sent of what is read next. */
  #room = 0;
  /** What {@link Joint.#room} was when reading last went on: when it has to stop, so much is likely to be sent at once when it goes on again. */
  #roomLast = PAYLOAD_BYTES_MAX;
  /** While the source is busy: the slab it reads into, and which frame of it comes next. */
  #slab: Slab | undefined;
  #slot = 0;
  #outputOver = false;
  #over = false;
  #callOff: (() => void) | undefined;
  /** Of input and output, how many are not closed. */
  #open: number;

  constructor(stream: SessionStream, to: Splice) {
    this.#stream = stream;
    this.#to = to;
    const { keeper } = to;
    const passOn = (bytes: number): void => {
      stream.passedOn(bytes);
      keeper?.passedOn(bytes);
    };
    this.#outlet = new Outlet(to.input, keeper === undefined ? (bytes) => stream.consumed(bytes) : passOn);
    this.#open = Object.is(to.input, to.output) ? 1 : 2;
  }

  start(first: Uint8Array): void {
    const { input, output } = this.#to;
    if (first.length > 0) this.data(first);
    output.on("end", () => this.#outputEnded());
    output.on("error", () => this.#failed());
    output.on("close", () => {
      this.#failed(); // closed without an end: the octets before may not be all
      this.#gone();
    });
    if (this.#open === 2) {
      input.on("error", () => {}); // a process that does not read its input to the end is no fault; its output says the rest
      input.on("close", () => this.#gone());
    }
    if (output.readableEnded) this.#outputEnded();
    else this.#reading = readInto(output, this);
  }

  // ---- towards the socket

  data(bytes: Uint8Array): void {
    const idle = this.#outlet.gathered === 0;
    this.#outlet.add(bytes);
    if (idle) this.#stream.pump.touch(this.#outlet);
  }

  end(): void {
    this.#outlet.flush();
    const { input, keeper } = this.#to;
    if (input.writableEnded) return; // twice is no fault, but Node would make an error of it, which is dear
    if (keeper !== undefined) input.once("finish", () => this.#stream.passedOn(1));
    input.end();
  }

  closed(code: number, why?: string): void {
    this.#over = true;
    this.#releaseSlab();
    if (code !== Code.NO_ERROR) {
      this.#outlet.drop();
      this.#to.cut?.(code, why);
      return this.#to.destroy();
    }
    this.end(); // if the peer has not ended, nobody listens to it any more
    if (this.#outputOver) return; // both have ended in peace: the socket closes by itself, or the process is being waited for
    // The peer reads no more, and nothing went wrong (PROTOCOL §8.3): what still comes goes nowhere.
    this.#callOff = endInTime(this.#to.input, TAKE_MS, () => this.#to.destroy());
    this.#reading?.renew();
    this.#goOn();
  }

  // ---- from the socket

  into(): Uint8Array {
    if (this.#over) return scratch;
    if (this.#stopped) return this.#memory(this.#roomLast);
    this.#room = this.#roomNow();
    return this.#memory(Math.max(this.#room, 1));
  }

  #roomNow(): number {
    return Math.min(this.#stream.sendable, this.#stream.pump.session.payloadBytesMax, PAYLOAD_BYTES_MAX);
  }

  /** Where octets are read to: behind the room for a header. */
  #memory(bytes: number): Uint8Array {
    const from = this.#slot * SLOT_BYTES + HEADER_BYTES;
    return (this.#slab?.bytes ?? scratch).subarray(from, from + bytes);
  }

  read(bytes: number, elsewhere?: Uint8Array): boolean {
    if (this.#over) return true;
    if (elsewhere !== undefined) this.#stream.write(elsewhere);
    else if (bytes > this.#room)
      this.#stream.write(this.#memory(bytes).slice()); // the rest of it waits, and this memory does not
    else if (this.#slab !== undefined && bytes >= LEND_BYTES_MIN) this.#lend(this.#slab, bytes);
    else this.#copy(bytes);
    if (this.#stream.sendable > 0) return true;
    this.#stopped = true;
    this.#room = 0;
    // What is read next goes out in one turn: in one slab it is one piece of memory, and one write.
    if (this.#slab !== undefined && this.#slot > 0) this.#nextSlab(this.#slab);
    return false;
  }

  #lend(slab: Slab, bytes: number): void {
    const from = this.#slot * SLOT_BYTES;
    slab.hold();
    this.#stream.pump.session.lend(
      this.#stream.id,
      slab.bytes.subarray(from, from + HEADER_BYTES + bytes),
      performance.now(),
    );
    this.#stream.pump.list();
    this.#slot++;
    if (this.#slot * SLOT_BYTES < SLAB_BYTES) return;
    this.#nextSlab(slab);
  }

  #nextSlab(slab: Slab): void {
    slab.release();
    this.#slab = takeSlab();
    this.#slot = 0;
  }

  #copy(bytes: number): void {
    this.#stream.write(this.#memory(bytes));
    if (bytes < LEND_BYTES_MIN) this.#releaseSlab();
    else if (this.#slab === undefined) this.#slab = takeSlab();
  }

  drained(): void {
    if (!this.#stopped) return;
    this.#room = this.#roomNow();
    if (this.#room === 0) return;
    this.#roomLast = this.#room;
    this.#goOn();
  }

  #goOn(): void {
    this.#stopped = false;
    this.#reading?.resume();
  }

  // ---- ends

  #outputEnded(): void {
    this.#outputOver = true;
    this.#releaseSlab();
    if (this.#to.endsWithOutput) this.#stream.close();
    else this.#stream.end();
  }

  #failed(): void {
    if (this.#outputOver) return;
    this.#outputOver = true;
    this.#releaseSlab();
    this.#stream.reset(Code.UNAVAILABLE);
  }

  #gone(): void {
    this.#open--;
    if (this.#open > 0) return;
    this.#callOff?.();
    this.#outlet.drop();
    this.#stream.close(); // nobody is left to take what the caller may still send
    this.#stream.forget();
  }

  #releaseSlab(): void {
    this.#slab?.release();
    this.#slab = undefined;
    this.#slot = 0;
  }
}
