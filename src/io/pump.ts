/**
 * The pump: drives one session with sockets, a clock and memory. Everything that happens in an event loop turn is handed to the session,
 * and everything it wants is done once, at the end of the turn.
 *
 * ```
 *  application sockets --read--> slab --lend--> Session --transmit--> outlet --write--> connection
 *  application sockets <-write-- outlet <-data-- Session <--received-- slab <---read--- connection
 * ```
 * @module
 */
import type { Socket } from "node:net";
import { TLSSocket } from "node:tls";
import {
  type Input,
  type Output,
  type Recollection,
  Session,
  type SessionLimits,
  type SessionOptions,
} from "../session/index.ts";
import { assertNever, Code } from "../wire/index.ts";
import { endInTime, FOLLOW_MS, TAKE_MS } from "./closing.ts";
import type { Account, FrameBudget } from "./frame-budget.ts";
import { SLAB_BYTES, type Slab, scratch, slabOf, takeSlab } from "./memory.ts";
import { Outlet } from "./outlet.ts";
import { type Reader, type Reading, readInto } from "./read-into.ts";
import { SessionStream } from "./session-stream.ts";
import { atTurnEnd, type Participant, type Urgency, when } from "./turn.ts";

/** A connection that gave this much in one read is busy, and reads into a slab of its own from then on. */
const BUSY_BYTES = 8 * 1_024;
/** A busy connection that gave less than {@link BUSY_BYTES} in this time is quiet again. */
const CALM_MS = 500;
/** TLS records of a burst until so many octets were written: of one packet, then of what is left of TCP's initial window (RFC 6928). */
const BURST_RECORDS = [
  { until: 1_200, bytes: 1_300 },
  { until: 13_000, bytes: 12_000 },
] as const;
/**
 * Silence before a burst. TCP starts slowly again after its retransmission timeout, 200 ms at least; but a record of one packet is read
 * sooner in any case, by 2.6 ms at 50 Mbit/s.
 */
const BURST_IDLE_MS = 5;
/** A connection that has been calm so often stays in its slab: what Node keeps for each change of memory has become as large. */
const CALMS_MAX = 5_000;

/** What a pump's owner wants to know. */
export interface PumpOwner {
  /** The peer has opened a stream with this request line; set the channel's receiver before returning. */
  opened(channel: SessionStream, request: Uint8Array): void;
  /** The peer has told its limits. */
  ready(): void;
  /** The last stream is gone. */
  idle(): void;
  /** The peer takes no more streams. */
  goingAway(code: number, reason: string): void;
  /** The session is over; its streams have been told. */
  ended(code: number, reason: string, byPeer: boolean): void;
  /** A connection is gone, for the reason given; the session may live on, without any (`connections`). */
  disconnected(reason: string, connections: number, connection: number): void;
  /** The peer has stored the ticket of this generation. */
  ticketStored?(generation: number): void;
}

/** One session with its sockets. */
export class SessionPump implements Participant {
  readonly #session: Session;
  readonly #owner: PumpOwner;
  readonly #queueBytes: number;
  readonly #budget: FrameBudget | undefined;
  readonly #account: Account | undefined;
  readonly #connections = new Map<number, Connection>();
  readonly #streams = new Map<number, SessionStream>();
  #outlets: Outlet[] = [];
  #nextConnection = 1;
  #listed = false;
  readonly #listedFor = { next: false, soon: false };
  #timer: NodeJS.Timeout | undefined;
  #timerAt = Number.POSITIVE_INFINITY;
  #frozen = false;

  /** @param budget of small frames, shared with the other sessions of a server */
  constructor(options: SessionOptions, owner: PumpOwner, budget?: FrameBudget) {
    const now = performance.now();
    this.#session = new Session(options, now);
    this.#budget = budget;
    this.#account = budget?.open(now);
    this.#owner = owner;
    this.#queueBytes = options.limits.sendQueueBytes;
    for (const { id } of options.state?.streams ?? []) this.#streams.set(id, new SessionStream(id, this));
  }

  /** State and rules of the session itself. */
  get session(): Session {
    return this.#session;
  }

  /** Streams that are open. */
  get streams(): number {
    return this.#streams.size;
  }

  /** One of them, by its number. */
  stream(id: number): SessionStream | undefined {
    return this.#streams.get(id);
  }

  /** Nothing more is taken from the applications: the session is about to be written down. */
  get frozen(): boolean {
    return this.#frozen;
  }

  freeze(): void {
    this.#frozen = true;
  }

  /** Applications may go on. */
  thaw(): void {
    this.#frozen = false;
    for (const stream of [...this.#streams.values()]) stream.writable();
    this.list();
  }

  /** All that was taken from the applications has been said, and confirmed. */
  get said(): boolean {
    for (const stream of this.#streams.values()) if (!stream.said) return false;
    return this.#session.said;
  }

  /**
   * Carries the session over a connected socket from now on.
   * @param preface goes out before the session's own octets, and with them
   * @returns starts the reading, with octets that were read from the socket already
   */
  carry(socket: Socket, preface: Uint8Array): (first: Uint8Array) => void {
    const id = this.#nextConnection++;
    const connection = this.#begin(id, socket, { type: "connected", connection: id });
    if (preface.length > 0) connection.outlet.add(preface);
    return (first) => this.#read(connection, first);
  }

  /**
   * Goes on over a connection that was attached (PROTOCOL §4.8), and reads it, with octets that were read already.
   * @param peer what it has received of our log, how far that may go, and the generation of the ticket that was stored, to be told
   */
  attach(
    socket: Socket,
    first: Uint8Array,
    peer: { readonly received: number; readonly limit: number; readonly stored?: number },
  ): number {
    const id = this.#nextConnection++;
    const { received, limit, stored } = peer;
    const connection = this.#begin(id, socket, { type: "attached", connection: id, received, limit });
    if (stored !== undefined) this.#session.ticketStored(id, stored);
    this.#read(connection, first);
    return id;
  }

  /** What is said on a stream goes over this connection as long as it lasts; over whichever is good, if it is undefined. */
  pin(stream: number, connection: number | undefined): void {
    this.#session.pin(stream, connection, performance.now());
    this.list();
  }

  /** A connection is for everything, or for what is pinned to it alone. */
  carryAll(connection: number, all: boolean): void {
    this.#session.carry(connection, all, performance.now());
    this.list();
  }

  /** Leaves one connection; what it carried goes over the others, if there are any. */
  leave(connection: number): void {
    this.#session.disconnect(connection, Code.NO_ERROR, "it was left", performance.now());
    this.#work();
  }

  /** All connections but this one are gone: the peer is told, as it may not know. */
  alone(connection: number): void {
    this.#session.alone(connection, performance.now());
    this.#work();
  }

  #begin(id: number, socket: Socket, input: Input): Connection {
    const connection = new Connection(id, socket, this);
    this.#connections.set(id, connection);
    const now = performance.now();
    this.#session.handle(input, now);
    this.#session.handle({ type: "room", connection: id, bytes: this.#queueBytes }, now);
    this.list();
    return connection;
  }

  #read(connection: Connection, first: Uint8Array): void {
    if (first.length > 0) this.received(connection.id, first, false);
    connection.start();
  }

  /** Leaves all connections, as another takes over: nothing more is read from them when this returns. */
  supersede(): void {
    this.#session.supersede(performance.now());
    this.#work();
  }

  /** Leaves them for a peer that has lost its memory, and is to be told this before it is carried on. */
  recall(): Recollection {
    const told = this.#session.recall(performance.now());
    this.#work();
    return told;
  }

  /** Keeps what is said until it is acknowledged, from now on. */
  retain(): void {
    this.#session.retain();
  }

  /** Opens a stream; undefined when the session may not open another. */
  open(request: Uint8Array): SessionStream | undefined {
    const id = this.#session.open(request, performance.now());
    if (id === undefined) return undefined;
    const stream = new SessionStream(id, this);
    this.#streams.set(id, stream);
    this.list("next");
    return stream;
  }

  /** Other limits from now on, larger ones: the peer's user was recognised. */
  raise(limits: SessionLimits): void {
    this.#session.raise(limits, performance.now());
    this.list();
  }

  /** Asks the peer for a sign of life, as there is reason to doubt it. */
  probe(): void {
    this.#session.probe(performance.now());
    this.list();
  }

  /** For how many milliseconds the peer has left a question of ours unanswered; infinite without a connection. */
  get unansweredMs(): number {
    return this.#session.unansweredMs(performance.now());
  }

  /** For how many milliseconds the peer was not heard; infinite without a connection. */
  get silenceMs(): number {
    return this.#session.silenceMs(performance.now());
  }

  /** Takes no more streams; those that are open go on. */
  goAway(code: number, reason: string): void {
    this.#session.goAway(code, reason, performance.now());
    this.list();
  }

  /** Ends the session and closes its connections. */
  end(code: number, reason: string): void {
    this.#session.end(code, reason, performance.now());
    this.#work();
  }

  // ---- for the connections and streams of this room -----------------------------------------------------------------------------

  /** There is work for the end of the turn. */
  list(urgency: Urgency = "now"): void {
    if (this.#listed) return;
    if (urgency === "now") {
      this.#listed = true;
      return atTurnEnd(this);
    }
    if (this.#listedFor[urgency]) return;
    this.#listedFor[urgency] = true;
    when(urgency, this);
  }

  /** An outlet has something to flush at the end of the turn. */
  touch(outlet: Outlet): void {
    this.#outlets.push(outlet);
    this.list();
  }

  /** Octets came over a connection. Unless `kept`, their memory is used again when this returns. */
  received(connection: number, bytes: Uint8Array, kept: boolean): void {
    const now = performance.now();
    const before = this.#session.smallFrames;
    this.#session.handle({ type: "received", connection, bytes, kept }, now);
    if (this.#budget !== undefined && this.#account !== undefined) {
      const pauseMs = this.#budget.charge(this.#account, this.#session.smallFrames - before, now);
      if (pauseMs > 0) this.#connections.get(connection)?.pause(pauseMs);
    }
    this.#drain();
    for (const each of this.#connections.values()) if (each.outlet.gathered > 0) this.list("next");
    this.#arm();
  }

  /** A connection has written something out, or was filled. */
  room(connection: number, backlog: number): void {
    const bytes = this.#queueBytes - backlog;
    this.#session.handle({ type: "room", connection, bytes }, performance.now());
    const gathered = (this.#connections.get(connection)?.outlet.gathered ?? 0) > 0; // by the start of a burst
    if (gathered || this.#session.waiting) this.list();
    else this.#arm(); // an acknowledgement may have fallen due while there was no room for it
  }

  /** A connection is gone. */
  lost(id: number, reason: string): void {
    if (!this.#connections.delete(id)) return;
    this.#session.handle({ type: "lost", connection: id }, performance.now());
    this.#owner.disconnected(reason, this.#connections.size, id);
    this.list();
  }

  /** A stream's two ends are done with, here and behind it. True when nothing is left of it. */
  forget(stream: SessionStream): boolean {
    this.list("next");
    return this.#session.forget(stream.id, performance.now());
  }

  turn(): void {
    this.#listed = false;
    this.#listedFor.next = false;
    this.#listedFor.soon = false;
    for (const connection of this.#connections.values()) connection.deliver();
    this.#work();
  }

  #work(): void {
    this.#drain();
    while (this.#outlets.length > 0) {
      const outlets = this.#outlets;
      this.#outlets = [];
      for (const outlet of outlets) outlet.flush();
      this.#drain(); // what was written out at once is credit for the peer
    }
    for (const connection of this.#connections.values()) connection.flush(this.#session.flooded);
    this.#arm();
  }

  #drain(): void {
    for (let output = this.#session.poll(); output !== undefined; output = this.#session.poll()) this.#perform(output);
  }

  #perform(output: Output): void {
    switch (output.type) {
      case "transmit":
        return this.#connections.get(output.connection)?.outlet.add(output.bytes);
      case "released":
        return slabOf(output.memory)?.release();
      case "data":
        return this.#streams.get(output.stream)?.receiver.data(output.bytes);
      case "writable":
        return this.#streams.get(output.stream)?.writable();
      case "confirmed":
        return this.#streams.get(output.stream)?.confirmed?.(output.octets);
      case "opened": {
        const stream = new SessionStream(output.stream, this);
        this.#streams.set(output.stream, stream);
        return this.#owner.opened(stream, output.request);
      }
      case "finished":
        return this.#streams.get(output.stream)?.ended();
      case "over":
        return this.#streams.get(output.stream)?.over(Code.NO_ERROR);
      case "gone":
        this.#streams.get(output.stream)?.gone?.();
        this.#streams.delete(output.stream);
        if (this.#streams.size === 0) this.#owner.idle();
        return;
      case "reset":
        return this.#streams.get(output.stream)?.over(output.code);
      case "disconnect":
        return this.#connections.get(output.connection)?.close(output.code, output.reason);
      case "ready":
        return this.#owner.ready();
      case "ticketStored":
        return this.#owner.ticketStored?.(output.generation);
      case "goingAway":
        return this.#owner.goingAway(output.code, output.reason);
      case "ended":
        return this.#ended(output.code, output.reason, output.byPeer);
      default:
        assertNever(output);
    }
  }

  #ended(code: number, reason: string, byPeer: boolean): void {
    clearTimeout(this.#timer);
    for (const connection of [...this.#connections.values()]) connection.close(code, reason);
    const lost = code === Code.NO_ERROR ? Code.UNAVAILABLE : code;
    for (const stream of [...this.#streams.values()]) stream.over(lost, reason);
    this.#owner.ended(code, reason, byPeer);
  }

  /** One timer a session, moved only when it would ring too late. */
  #arm(): void {
    const at = this.#session.deadline;
    if (at === Number.POSITIVE_INFINITY || (this.#timer !== undefined && this.#timerAt <= at)) return;
    clearTimeout(this.#timer);
    this.#timerAt = at;
    this.#timer = setTimeout(this.#tick, Math.max(1, at - performance.now()));
    this.#timer.unref();
  }

  readonly #tick = (): void => {
    this.#timer = undefined;
    this.#session.handle({ type: "tick" }, performance.now());
    this.#work();
  };
}

/** A socket that carries a session. */
class Connection implements Reader {
  readonly id: number;
  readonly outlet: Outlet;
  readonly #socket: Socket;
  readonly #pump: SessionPump;
  #reading: Reading | undefined;
  /** While the connection is busy: where it reads, and what of it the session has not seen. */
  #slab: Slab | undefined;
  #from = 0;
  #to = 0;
  #busyBytes = 0;
  #calm: NodeJS.Timeout | undefined;
  #calms = 0;
  #flooded = false;
  #paused = false;
  /** Not read at the moment, for one of these reasons. */
  #stopped = false;
  #closing = false;
  /** Octets written since the burst began. */
  #burst = 0;
  #flushedAt = 0;

  constructor(id: number, socket: Socket, pump: SessionPump) {
    this.id = id;
    this.#socket = socket;
    this.#pump = pump;
    this.outlet = new Outlet(socket, () => pump.room(id, this.outlet.backlog));
    socket.setNoDelay(true);
    const lost = (reason: string) => (): void => {
      this.#releaseSlab();
      this.outlet.drop();
      pump.lost(id, reason);
    };
    socket.on("end", () => {
      this.deliver();
      lost("the peer closed the connection")();
      this.close(Code.UNAVAILABLE, "");
    });
    socket.on("error", (error) => lost(error.message)());
    socket.on("close", lost("the connection was closed"));
  }

  start(): void {
    this.#reading = readInto(this.#socket, this);
  }

  into(): Uint8Array {
    if (this.#slab === undefined) return scratch;
    return this.#slab.bytes.subarray(this.#to);
  }

  read(bytes: number, elsewhere?: Uint8Array): boolean {
    if (this.#closing) return true; // of no interest any more
    if (elsewhere !== undefined) this.#pump.received(this.id, elsewhere, false);
    else if (this.#slab === undefined) this.#readQuiet(bytes);
    else this.#readBusy(this.#slab, bytes);
    return !this.#stopped;
  }

  #readQuiet(bytes: number): void {
    this.#pump.received(this.id, scratch.subarray(0, bytes), false);
    if (bytes < BUSY_BYTES) return;
    this.#slab = takeSlab();
    this.#from = 0;
    this.#to = 0;
    this.#busyBytes = 0;
    this.#calm = setInterval(() => this.#calmDown(), CALM_MS).unref();
  }

  #readBusy(slab: Slab, bytes: number): void {
    this.#to += bytes;
    this.#busyBytes += bytes;
    if (this.#to < SLAB_BYTES) return this.#pump.list();
    this.#pump.received(this.id, slab.bytes.subarray(this.#from), true);
    this.#nextSlab(slab);
  }

  /** Goes on in another slab, or in the same if nobody needs it; a frame that has only begun is taken along, so that it stays in one piece. */
  #nextSlab(slab: Slab): void {
    const session = this.#pump.session;
    const begun = session.incomplete(this.id);
    const next = slab.spent ? slab : takeSlab();
    next.bytes.set(slab.bytes.subarray(SLAB_BYTES - begun), 0);
    session.moved(this.id, next.bytes.subarray(0, begun));
    if (next !== slab) slab.release();
    this.#slab = next;
    this.#from = begun;
    this.#to = begun;
  }

  /** Hands the session what this turn gave. */
  deliver(): void {
    const slab = this.#slab;
    if (slab === undefined) return;
    if (this.#to === this.#from) return;
    this.#pump.received(this.id, slab.bytes.subarray(this.#from, this.#to), true);
    this.#from = this.#to;
  }

  /** Back to the shared memory when little came of late: an idle connection owns none. */
  #calmDown(): void {
    const bytes = this.#busyBytes;
    this.#busyBytes = 0;
    if (bytes >= BUSY_BYTES || this.#slab === undefined || this.#calms === CALMS_MAX) return;
    this.#calms++;
    const unseen = this.#slab.bytes.subarray(this.#from, this.#to);
    this.#pump.received(this.id, unseen, false); // also without octets: the session may hold the start of a frame in the slab
    this.#releaseSlab();
    this.#reading?.renew();
  }

  #releaseSlab(): void {
    clearInterval(this.#calm);
    this.#slab?.release();
    this.#slab = undefined;
    this.#from = 0;
    this.#to = 0;
  }

  /** Writes what the turn has gathered. A peer that makes us answer faster than it reads is not read meanwhile (F09). */
  flush(flooded: boolean): void {
    if (this.outlet.gathered > 0) this.#write();
    this.#flooded = flooded;
    this.#readOrNot();
  }

  /** Does not read for a while. */
  pause(ms: number): void {
    if (this.#paused) return;
    this.#paused = true;
    this.#readOrNot();
    const timer = setTimeout(() => {
      this.#paused = false;
      this.#readOrNot();
    }, ms);
    timer.unref();
  }

  #readOrNot(): void {
    const stop = this.#flooded || this.#paused;
    if (stop === this.#stopped) return;
    this.#stopped = stop;
    if (stop) this.#socket.pause();
    else this.#reading?.resume();
  }

  /**
   * A TLS record is of no use before its last octet: one of 16 KiB is larger than TCP's initial window, and would cost the first octet
   * of a burst a whole round trip more (PROTOCOL §8.5). So a burst starts with a record of one packet, and one that fills the window.
   * (OpenSSL has a setting for that, but it can only ever be lowered.)
   */
  #write(): void {
    if (!(this.#socket instanceof TLSSocket)) return this.outlet.flush();
    if (this.outlet.writing) return; // Node would put it together with what comes next, in memory of its own
    const now = performance.now();
    if (now - this.#flushedAt > BURST_IDLE_MS) this.#burst = 0;
    this.#flushedAt = now;
    const record = BURST_RECORDS.find(({ until }) => this.#burst < until);
    if (record === undefined) return this.outlet.flushAsOne();
    this.#burst += Math.min(record.bytes, this.outlet.gathered);
    this.outlet.flush(record.bytes);
  }

  /** Sends what is gathered, then FIN; what the peer still sends is dropped until it follows. */
  close(code: number, reason: string): void {
    if (this.#closing) return;
    this.#closing = true;
    this.outlet.flush();
    const cut = (): void => void this.#socket.destroy();
    this.#socket.once("close", endInTime(this.#socket, code === Code.NO_ERROR ? TAKE_MS : FOLLOW_MS, cut));
    this.#reading?.resume();
    this.#pump.lost(this.id, reason);
  }
}
