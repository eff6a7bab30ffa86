/**
 * A session: streams and their identity above, a set of connections (none, one, several) below, and between them one log each way
 * (PROTOCOL §6 to §8; paper sections 3.1.4 and 3.1.8).
 *
 * Pure: the world comes in through {@link Session.handle}, the application through the other methods, each with the time; what the session
 * wants is taken with {@link Session.poll} until it gives undefined, and it wants to be woken at {@link Session.deadline}.
 *
 * ```
 *   open send lend finish reset consume              handle(connected received room lost tick)
 *        |                                                      |
 *   +----v--------+   schedule   +-----+   transmit   +---------v---+
 *   | streams     |------------->| log |------------->| connections |
 *   | credit      |<-------------|inbox|<-------------| readers     |
 *   +----+--------+   in order   +-----+   received   +-------------+
 *        v
 *   poll(): opened data finished reset writable …   transmit released disconnect …
 * ```
 * @module
 */
import {
  assertNever,
  Code,
  encodeSequenced,
  encodeUnsequenced,
  type FrameError,
  FrameReader,
  HEADER_BYTES,
  PAYLOAD_BYTES_MAX,
  PAYLOAD_BYTES_MIN,
  REQUEST_BYTES_MAX,
  readDataHeader,
  type SequencedContent,
  type SequencedFrame,
  Setting,
  type UnsequencedFrame,
  writeDataHeader,
} from "../wire/index.ts";
import { Bucket } from "./bucket.ts";
import { Carrier } from "./carrier.ts";
import { Inbox } from "./inbox.ts";
import {
  ACK_DELAY_MS,
  deadPeerMs,
  END_ACK_DELAY_MS,
  GAPS_MAX,
  gapMs,
  HEARD_LATER_MS,
  HELD_FRAMES_MAX,
  INITIAL_CREDIT_BYTES,
  LOG_WINDOW_BYTES,
  ROUND_TRIP_MS_ASSUMED,
  SEND_QUEUE_BYTES,
  type SessionLimits,
  TOMBSTONES_MAX,
} from "./limits.ts";
import { type Entry, Log } from "./log.ts";
import { recollected } from "./recall.ts";
import { Schedule } from "./schedule.ts";
import type { Recollection, SessionState, StreamState } from "./state.ts";
import { CREDIT_UNHEARD, Stream } from "./stream.ts";
import { Untaken } from "./untaken.ts";
import { LogWindow } from "./window.ts";

/** What the world tells a session. `connection` is the pump's own number for it, never used twice. */
export type Input =
  | { readonly type: "connected"; readonly connection: number }
  /**
   * Connected by ATTACH: the peer has received so much of our log, and lets us speak up to `limit`. See {@link Session.resumable} for which
   * counts may be.
   */
  | { readonly type: "attached"; readonly connection: number; readonly received: number; readonly limit: number }
  /** Octets arrived. Unless `kept`, their memory is used again once {@link Session.poll} has given undefined. */
  | { readonly type: "received"; readonly connection: number; readonly bytes: Uint8Array; readonly kept: boolean }
  /** The connection will take so many octets now; below 1 it is full. */
  | { readonly type: "room"; readonly connection: number; readonly bytes: number }
  | { readonly type: "lost"; readonly connection: number }
  | { readonly type: "tick" };

/** What a session wants done, or has to tell. Bytes in `data` are a view into what was received: they are good until control returns. */
export type Output =
  | { readonly type: "transmit"; readonly connection: number; readonly bytes: Uint8Array }
  | { readonly type: "released"; readonly memory: Uint8Array }
  | { readonly type: "opened"; readonly stream: number; readonly request: Uint8Array }
  | { readonly type: "data"; readonly stream: number; readonly bytes: Uint8Array }
  | { readonly type: "finished"; readonly stream: number }
  | { readonly type: "reset"; readonly stream: number; readonly code: number }
  | { readonly type: "writable"; readonly stream: number }
  /** The peer has so many octets of a stream that is kept, see {@link Session.keep}; now and then. */
  | { readonly type: "confirmed"; readonly stream: number; readonly octets: number }
  /** Both ends are finished. */
  | { readonly type: "over"; readonly stream: number }
  /** The stream was forgotten and nothing of it is left to be said: its slot is free. */
  | { readonly type: "gone"; readonly stream: number }
  | { readonly type: "disconnect"; readonly connection: number; readonly code: number; readonly reason: string }
  /** The peer has told its limits. */
  | { readonly type: "ready" }
  /** The peer has stored the ticket of this generation. */
  | { readonly type: "ticketStored"; readonly generation: number }
  | { readonly type: "goingAway"; readonly code: number; readonly reason: string }
  | { readonly type: "ended"; readonly code: number; readonly reason: string; readonly byPeer: boolean };

/** What distinguishes one session from another. */
export interface SessionOptions {
  readonly role: "client" | "server";
  /** Keep what was said until it is acknowledged, so that the session outlives a connection; without it one connection is all there is. */
  readonly retain: boolean;
  readonly limits: SessionLimits;
  /** Where another process has stopped: it retains then, and has no connection until one is attached. */
  readonly state?: SessionState;
}

interface Question {
  readonly opaque: number;
  readonly at: number;
  /** What had come by then, if much was coming. */
  readonly received: number | undefined;
}

interface Connection {
  readonly id: number;
  readonly since: number;
  readonly reader: FrameReader;
  room: number;
  /** Since when it is full and has taken nothing. */
  blockedSince: number | undefined;
  heardAt: number;
  readonly pings: Bucket;
  /** A well-formed frame was heard on it: what is wrong from then on is no other protocol (abuse case M20). */
  spoken: boolean;
  /** Another connection was lost: what was acknowledged there is said again here. */
  owesAcknowledgement: boolean;
  /** Only the latest question is answered: a flood of them queues nothing (R06). */
  answer: number | undefined;
  /** A question of ours is to be asked; what was last asked, and when. */
  asking: boolean;
  asked: Question | undefined;
  /** Of the questions since the peer was last heard, when the first was asked. */
  unansweredSince: number | undefined;
  /** What was said on it went again elsewhere, and it has not been heard since. */
  isDoubted: boolean;
  /** Questions of ours that were answered. */
  answers: number;
  closing: { code: number; reason: string } | undefined;
  /** Of the log, what went out on it. */
  readonly carrier: Carrier;
  /** For everything, or only for what is pinned to it. */
  carriesAll: boolean;
  /** Streams that are to be said on it, by their numbers; those of the peer's may not be open yet. */
  readonly pins: Set<number>;
  /** Those of them that have something to say. */
  readonly schedule: Schedule;
  /** What the peer is to be told about it. */
  preferences: UnsequencedFrame[];
}

/** Sequenced frames other than DATA, waiting for their place. */
type Control = Exclude<SequencedContent, { type: "data" | "credit" | "skippedInLog" }>;

/** Smallest growth of a credit that is worth its frame, as a part of the window (F03). */
const CREDIT_PART_MIN = 1 / 8;
/** Streams one may open before the peer has told how many it allows (PROTOCOL §6.4). */
const STREAMS_UNHEARD = 8;
/** Frames below this size are counted as small. */
const SMALL_FRAME_BYTES = 1_024;
/** Stream numbers are 32 bits wide. */
const STREAM_MAX = 0xffff_ffff;
/** Room in the peer's log window that DATA leaves for control frames. */
const CONTROL_RESERVE_BYTES = 4_096;
/** And what bulk leaves for streams that say little. */
const URGENT_RESERVE_BYTES = 16_384;
/** What the largest control frame takes in it, and the END that must always be allowed. */
const CONTROL_BYTES_MAX = HEADER_BYTES + REQUEST_BYTES_MAX + HEADER_BYTES;
/** DATA not acknowledged, however small: the peer may have to hold it all while one frame is missing, and holds so many. */
const UNACKNOWLEDGED_FRAMES_MAX = HELD_FRAMES_MAX / 2;
/** Round trips without an acknowledgement before a connection is doubted. */
const DOUBT_ROUND_TRIPS = 4;
/** How often a new connection is asked for its round trip without a pause. */
const FIRST_QUESTIONS = 3;
/** Control frames already said are forgotten when there are so many of them. */
const CONTROLS_SAID_MAX = 64;
/** What the peer has confirmed of a stream that is kept is told after so many octets: until then they lie twice. */
const CONFIRMED_TOLD_BYTES = 128 * 1_024;
/** Streams pinned to one connection. */
const PINS_MAX = 1_000;

/** One end of a session. */
export class Session {
  readonly #log: Log;
  readonly #inbox: Inbox;
  readonly #schedule = new Schedule();
  readonly #streams = new Map<number, Stream>();
  readonly #connections = new Map<number, Connection>();
  readonly #glitches: Bucket;
  /** See {@link SessionOptions.retain}. */
  #retain: boolean;
  #limits: SessionLimits;
  #now: number;

  #outputs: Output[] = [];
  #taken = 0;

  #controls: Control[] = [];
  #controlAt = 0;
  #creditDue = new Set<Stream>();
  /** Streams that we have reset: the octets of the peer's that may have been under way are no fault. */
  #tombstones = new Map<number, number>();

  readonly #isClient: boolean;
  #nextStream: number;
  #lastPeerStream = 0;
  #peerStreams = 0;
  #ourStreams = 0;
  /** Sum of all streams' windows: what the peer could make us hold. */
  #windows = 0;
  /** Highest stream the peer may still open after our GOAWAY. */
  #lastTaken = Number.POSITIVE_INFINITY;
  /** Highest stream of ours that the peer still takes after its GOAWAY. */
  #lastTakenByPeer = Number.POSITIVE_INFINITY;
  #calmWarned = false;
  readonly #dribbling = new Set<Stream>();
  readonly #untaken = new Untaken();
  /** Streams that are kept: what the peer confirms is looked at for their sake. */
  #keptStreams = 0;

  /** What the peer has told of itself; until then what everybody must accept. */
  #peer = {
    heard: false,
    payload: PAYLOAD_BYTES_MIN,
    streams: STREAMS_UNHEARD,
    credit: CREDIT_UNHEARD,
    window: LOG_WINDOW_BYTES,
    /** Log limit: position up to which we may speak. */
    log: LOG_WINDOW_BYTES,
  };

  readonly #window: LogWindow;
  #inboxLimit = LOG_WINDOW_BYTES;
  /** What our last ACK has said. PING says it too, but not the limit: it takes no ACK's place. */
  #acknowledged = 0;
  /** What had come by then. */
  #answered = 0;
  #acknowledgeAt = Number.POSITIVE_INFINITY;
  /** The next question is to measure the round trip under load. */
  #loaded = false;
  #smallFrames = 0;
  /** What peers were told they may send on a stream they open; never less than before. */
  #announcedCredit: number;
  #everConnected = 0;
  /** Since when somebody was there at both ends without a pause: silence before that is nobody's fault. */
  #attendedAt: number;
  /** The connection that sequenced frames last went out on, and our log's end at each change while that is not acknowledged. */
  #spokeOn: number | undefined;
  #changes: number[] = [];
  #gapSince: number | undefined;
  /** When a connection last came or went: what is missing may have gone with one whose end the peer has yet to notice. */
  #changedAt: number;
  #progressAt: number;
  #doubtedAt = 0;

  #roundTripMs: number | undefined;
  #sweepAt: number;
  #ended: { code: number; reason: string; byPeer: boolean } | undefined;

  constructor(options: SessionOptions, now: number) {
    this.#limits = options.limits;
    this.#retain = options.retain;
    this.#log = new Log(options.retain, options.state?.sent);
    this.#inbox = new Inbox(options.state?.received);
    this.#glitches = new Bucket(options.limits.glitches, now);
    this.#isClient = options.role === "client";
    this.#nextStream = this.#isClient ? 1 : 2;
    this.#now = now;
    this.#window = new LogWindow(options.limits.logWindowBytesMax, now);
    this.#progressAt = now;
    this.#attendedAt = now;
    this.#changedAt = now;
    this.#announcedCredit = creditOf(options.limits);
    this.#sweepAt = now + this.#sweepMs;
    if (options.state === undefined || options.state.sent === 0) this.#sendSettings(); // the first frame of a log
    if (options.state !== undefined) this.#restore(options.state);
  }

  #restore({ received, limit, nextStream, lastTaken, peer, streams, reset }: SessionState): void {
    this.#everConnected = 1; // in another process
    this.#acknowledged = received;
    this.#answered = received;
    this.#inboxLimit = limit;
    this.#nextStream = nextStream;
    this.#lastTakenByPeer = lastTaken ?? Number.POSITIVE_INFINITY;
    this.#peer = { heard: true, ...peer, log: this.#log.end };
    for (const state of streams) {
      const stream = this.#admit(new Stream(state.id, false, state.credit, state.window, this.#now));
      this.#ourStreams++;
      stream.request = state.request;
      stream.sent = state.sent;
      stream.received = state.received;
      stream.consumed = state.received;
      stream.passedOn = state.received;
      stream.confirmed = state.sent;
      stream.confirmedTold = state.sent;
      stream.granted = state.granted;
      stream.ending = state.ended ? "sent" : "open";
      stream.endConfirmed = state.ended;
      stream.finished = state.finished;
      if (state.granted - state.received <= state.window / 2) this.#creditDue.add(stream);
    }
    for (const [id, octets] of reset) this.#tombstones.set(id, octets);
  }

  /**
   * The session on paper; undefined while something is still on its way: what we have said and the peer has not confirmed, what has come and
   * the application has not taken, or what is missing in between. Streams of the peer's cannot be written down.
   */
  get state(): SessionState | undefined {
    const isQuiet = this.said && !this.#inbox.gap; // credit that is due is found again from the counts
    if (!isQuiet || this.#ended !== undefined || !this.#retain || !this.#peer.heard) return undefined;
    const streams: StreamState[] = [];
    for (const stream of this.#streams.values()) {
      if (stream.over) continue;
      const { id, request, sent, credit, received, granted, window, ending, finished } = stream;
      if (request === undefined || !stream.drained || ending === "due" || stream.taken < received) return undefined;
      streams.push({ id, request, sent, credit, received, granted, window, ended: ending === "sent", finished });
    }
    const { payload, streams: streamsMax, credit, window } = this.#peer;
    return {
      sent: this.#log.end,
      received: this.#inbox.received,
      limit: this.#inboxLimit,
      nextStream: this.#nextStream,
      lastTaken: this.#lastTakenByPeer === Number.POSITIVE_INFINITY ? undefined : this.#lastTakenByPeer,
      peer: { payload, streams: streamsMax, credit, window },
      streams,
      reset: [...this.#tombstones],
    };
  }

  /** All that we have said is the peer's: only what it says may still be on its way. */
  get said(): boolean {
    if (this.#log.unacknowledged > 0 || this.#controlAt < this.#controls.length || !this.#silent) return false;
    for (const stream of this.#streams.values()) if (!stream.over && !stream.drained) return false;
    return true;
  }

  /** Why the session is over; undefined while it lives. */
  get ended(): { readonly code: number; readonly reason: string; readonly byPeer: boolean } | undefined {
    return this.#ended;
  }

  /** Measured round trip in milliseconds, undefined until the first answer. */
  get roundTripMs(): number | undefined {
    return this.#roundTripMs;
  }

  /** For how many milliseconds a question has waited on the connection that answers best; 0 where one is quiet for no reason. */
  unansweredMs(now: number): number {
    let shortest = Number.POSITIVE_INFINITY;
    for (const { unansweredSince } of this.#connections.values())
      shortest = Math.min(shortest, unansweredSince === undefined ? 0 : now - unansweredSince);
    return shortest;
  }

  /** Largest payload one {@link Session.lend} may carry: what the peer has said it accepts. */
  get payloadBytesMax(): number {
    return this.#peer.payload;
  }

  /** Streams that are open, or whose back end is not gone yet. */
  get streams(): number {
    return this.#streams.size;
  }

  /** True when one more stream may be opened: the peer is staying and has a slot for it. */
  get openable(): boolean {
    const staying = this.#ended === undefined && this.#lastTakenByPeer === Number.POSITIVE_INFINITY;
    return staying && this.#ourStreams < this.#peer.streams && this.#nextStream <= STREAM_MAX;
  }

  /** True while the peer makes us answer faster than it reads: the pump then stops reading it (F09). */
  get flooded(): boolean {
    return this.#controls.length - this.#controlAt > this.#limits.controls;
  }

  /** Something is to be said, and waits only for a connection to take it. */
  get waiting(): boolean {
    for (const connection of this.#connections.values())
      if (connection.answer !== undefined || connection.owesAcknowledgement) return true;
    const controls = this.#controlAt < this.#controls.length || this.#creditDue.size > 0;
    return controls || !this.#silent || this.#log.replaying;
  }

  /** No stream has anything to say. */
  get #silent(): boolean {
    if (!this.#schedule.empty) return false;
    for (const { schedule } of this.#connections.values()) if (!schedule.empty) return false;
    return true;
  }

  /** Frames of less than 1 KiB that have come so far: they cost more than they carry (F07). */
  get smallFrames(): number {
    return this.#smallFrames;
  }

  /** Octets of our log, and of the peer's, for status and resumption. */
  get positions(): { readonly sent: number; readonly acknowledged: number; readonly received: number } {
    return { sent: this.#log.end, acknowledged: this.#log.acknowledged, received: this.#inbox.received };
  }

  /** Time at which {@link Session.handle} wants a "tick". */
  get deadline(): number {
    if (this.#ended !== undefined) return Number.POSITIVE_INFINITY;
    let at = this.#sweepAt;
    if (this.#acknowledgeAt < at && this.#best !== undefined) at = this.#acknowledgeAt;
    if (this.#gapSince !== undefined && this.#connections.size > 0)
      at = Math.min(at, Math.max(this.#gapSince, this.#attendedAt, this.#changedAt) + gapMs(this.#limits));
    for (const stream of this.#dribbling) at = Math.min(at, stream.dribbleAt);
    return Math.min(at, this.#doubtDue, this.#untaken.deadline);
  }

  // ---- the world ----------------------------------------------------------------------------------------------------------------

  /** Something happened in the world. */
  handle(input: Input, now: number): void {
    this.#now = now;
    if (this.#ended !== undefined) return;
    switch (input.type) {
      case "connected":
        return this.#connect(input.connection);
      case "attached":
        return this.#attach(input.connection, input.received, input.limit);
      case "received":
        return this.#receive(input.connection, input.bytes, input.kept);
      case "room":
        return this.#setRoom(input.connection, input.bytes);
      case "lost":
        return this.#lose(input.connection);
      case "tick":
        return this.#tick();
      default:
        assertNever(input);
    }
  }

  #connect(id: number): void {
    this.#everConnected++;
    this.#changedAt = this.#now;
    this.#window.newPath();
    if (!this.#retain && this.#everConnected > 1)
      throw new Error("A session that retains nothing has one connection in its life");
    if (this.#connections.size === 0) this.#attendedAt = this.#now;
    this.#connections.set(id, {
      id,
      since: this.#now,
      reader: new FrameReader(),
      room: 0,
      blockedSince: undefined,
      heardAt: this.#now,
      pings: new Bucket(this.#limits.pings, this.#now),
      spoken: false,
      owesAcknowledgement: false,
      answer: undefined,
      asking: true,
      asked: undefined,
      unansweredSince: undefined,
      isDoubted: false,
      answers: 0,
      closing: undefined,
      carrier: new Carrier(),
      carriesAll: true,
      pins: new Set(),
      schedule: new Schedule(),
      preferences: [],
    });
    if (this.#connections.size > 1) this.#window.several();
    for (const stream of this.#streams.values()) this.#wake(stream); // they may have waited for no more than this
  }

  #attach(id: number, received: number, limit: number): void {
    this.#peer.log = Math.max(this.#peer.log, limit);
    this.#progressAt = this.#now;
    this.#confirmed(received);
    this.#connect(id);
    // What the peer was told on connections that are gone may have gone with them.
    const connection = this.#connections.get(id);
    if (connection !== undefined) connection.owesAcknowledgement = true;
  }

  #setRoom(id: number, bytes: number): void {
    const connection = this.#connections.get(id);
    if (connection === undefined) return;
    // More room than there was means that octets were taken, though it may still be full.
    if (bytes > 0) connection.blockedSince = undefined;
    else if (bytes > connection.room || connection.blockedSince === undefined) connection.blockedSince = this.#now;
    connection.room = bytes;
  }

  #lose(id: number): void {
    const connection = this.#connections.get(id);
    if (connection === undefined) return;
    this.#connections.delete(id);
    this.#changedAt = this.#now;
    if (!this.#retain || !this.#log.whole) return this.#finish(Code.UNAVAILABLE, "the connection was lost", false);
    this.#log.lost(id);
    for (const stream of this.#streams.values())
      if (stream.pin === id) this.#move(stream, undefined, connection.schedule);
    // The last acknowledgement may have gone with it: without saying it again the peer's log would never drain (D23).
    for (const other of this.#connections.values()) other.owesAcknowledgement = true;
    if (this.#connections.size === 0) this.#acknowledgeAt = this.#now;
  }

  #tick(): void {
    // We were stopped meanwhile: what was not heard then says nothing about the peer (S05).
    const overslept = this.#now - this.#sweepAt >= this.#limits.keepaliveMs;
    if (overslept) this.#attendedAt = this.#now;
    const gapSince =
      this.#gapSince === undefined ? this.#now : Math.max(this.#gapSince, this.#attendedAt, this.#changedAt);
    if (this.#connections.size > 0 && this.#now - gapSince >= gapMs(this.#limits))
      return this.#fault(Code.SEQ, "a part of your log never came");
    for (const stream of this.#dribbling) {
      if (stream.dribbleAt > this.#now) continue;
      this.#dribbling.delete(stream);
      this.#wake(stream);
    }
    if (this.#now >= this.#doubtDue) this.#doubt();
    if (this.#now >= this.#untaken.deadline) this.#acknowledgeSoon();
    if (this.#now < this.#sweepAt) return;
    this.#sweepAt = this.#now + this.#sweepMs;
    if (this.#connections.size === 0) return; // parked: how long it may be is the owner's business
    for (const connection of this.#connections.values()) {
      if (overslept) connection.asking = true;
      this.#checkLife(connection);
      // Not sooner than a tenth of an interval: what is due may have to wait for room.
      const soonest = this.#now + this.#limits.keepaliveMs / 10;
      this.#sweepAt = Math.min(this.#sweepAt, Math.max(this.#lifeDue(connection), soonest));
    }
    for (const stream of this.#streams.values()) {
      // Keepalives are no progress: only octets of the stream itself are (F01).
      const stuck = stream.queuedBytes > 0 || stream.wanting || stream.finished || stream.ending === "sent";
      const since = Math.max(stream.movedAt, this.#attendedAt);
      if (stuck && !stream.over && this.#now - since >= this.#limits.streamStallMs) this.#kill(stream, Code.TIMEOUT);
    }
  }

  /** When, with several connections, the one that carries the oldest frame is to be doubted, as nothing was acknowledged for so long. */
  get #doubtDue(): number {
    if (this.#connections.size < 2 || this.#log.unacknowledged === 0) return Number.POSITIVE_INFINITY;
    const since = Math.max(this.#progressAt, this.#doubtedAt, this.#attendedAt);
    return since + Math.max(HEARD_LATER_MS, DOUBT_ROUND_TRIPS * this.#roundTrip);
  }

  /** Asks all connections; and if another answers and the suspect does not, says its frames again elsewhere (PROTOCOL §7.5). */
  #doubt(): void {
    this.#doubtedAt = this.#now;
    const suspect = this.#connections.get(this.#log.oldestOn ?? Number.NaN);
    for (const connection of this.#connections.values()) {
      connection.asking = true;
      if (suspect === undefined || connection.heardAt < suspect.heardAt + HEARD_LATER_MS) continue;
      this.#log.lost(suspect.id);
      suspect.carrier.underWay = 0;
      // Asked before, and silent since: nothing more is said there. Else it may only be slow.
      suspect.isDoubted ||= this.#now - (suspect.unansweredSince ?? this.#now) >= HEARD_LATER_MS;
    }
  }

  /** When a connection's life is to be looked at again, if nothing is heard of it until then. */
  #lifeDue(connection: Connection): number {
    const { keepaliveMs, stallMs } = this.#limits;
    const since = Math.max(connection.since, this.#attendedAt);
    const silent = Math.max(connection.heardAt, connection.asked?.at ?? 0, since) + keepaliveMs;
    const full = Math.max(connection.blockedSince ?? Number.POSITIVE_INFINITY, since) + stallMs;
    const unheard = this.#log.unacknowledged > 0 ? Math.max(this.#progressAt, since) + stallMs : silent;
    return Math.min(silent, full, unheard);
  }

  #checkLife(connection: Connection): void {
    const { stallMs, keepaliveMs } = this.#limits;
    const since = Math.max(connection.since, this.#attendedAt);
    const silence = this.#now - Math.max(connection.heardAt, since);
    const blockedSince = connection.blockedSince ?? this.#now;
    const full = this.#now - Math.max(blockedSince, since) >= stallMs;
    // Of several connections only the one with the oldest frame is to blame: the others' cannot be acknowledged before it.
    const blamed = !this.#retain || this.#log.oldestOn === connection.id;
    const unheard = blamed && this.#log.unacknowledged > 0 && this.#now - Math.max(this.#progressAt, since) >= stallMs;
    if (silence >= deadPeerMs(this.#limits) || full || unheard) {
      const reason = full ? "nothing was taken" : unheard ? "nothing was acknowledged" : "nothing was heard";
      this.#disconnect(connection, this.flooded ? Code.CALM : Code.TIMEOUT, reason);
      if (unheard) this.#progressAt = this.#now; // the next connection that has to carry it gets its time
    } else if (silence >= keepaliveMs - 1) {
      connection.asking ||= connection.asked === undefined || this.#now - connection.asked.at >= keepaliveMs - 1;
    }
  }

  /** Octets of a frame that a connection has only given the start of, and that still lie where they were received. */
  incomplete(connection: number): number {
    return this.#connections.get(connection)?.reader.incomplete ?? 0;
  }

  /** The {@link Session.incomplete} octets lie here now; what is received next follows them there. */
  moved(connection: number, to: Uint8Array): void {
    this.#connections.get(connection)?.reader.move(to);
  }

  // ---- the application ----------------------------------------------------------------------------------------------------------

  /**
   * Opens a stream with its request line (without CRLF). What is sent on it goes out with the request.
   * @returns the stream, or undefined when the session may not open another ({@link Session.openable})
   */
  open(request: Uint8Array, now: number): number | undefined {
    this.#now = now;
    if (!this.openable) return undefined;
    const id = this.#nextStream;
    this.#nextStream += 2;
    if (this.#nextStream > STREAM_MAX) this.goAway(Code.NO_ERROR, "stream numbers are used up", now);
    const stream = this.#admit(new Stream(id, false, this.#peer.credit, this.#windowForOurs, now));
    this.#ourStreams++;
    stream.request = request;
    this.#control({ type: "open", stream: id, credit: stream.granted, request });
    return id;
  }

  /** Octets that may be queued on a stream now; 0 means wait for "writable". */
  sendable(id: number, now: number): number {
    const stream = this.#streams.get(id);
    if (stream === undefined || this.#ended !== undefined) return 0;
    const room = this.#connections.size > 0 ? stream.sendable(now) : Math.min(stream.sendable(now), this.#detachedRoom);
    // A stream that will never take more is not woken: it would be woken without end.
    if (room > 0 || stream.dead || stream.ending !== "open") return room;
    stream.wanting = true;
    if (stream.dribbleAt < Number.POSITIVE_INFINITY) this.#dribbling.add(stream);
    return 0;
  }

  /** Octets that were said and not acknowledged, and those that wait to be said. */
  get heldBytes(): number {
    let held = this.#log.unacknowledged;
    for (const { queuedBytes } of this.#streams.values()) held += queuedBytes;
    return held;
  }

  /** What may still be queued while there is no connection, over all streams. */
  get #detachedRoom(): number {
    return Math.max(0, this.#limits.detachedBytes - this.heldBytes);
  }

  /** Queues a copy of these octets. More than {@link Session.sendable} waits for credit, and nothing bounds it: callers ask first. */
  send(id: number, payload: Uint8Array, now: number): void {
    this.#now = now;
    const stream = this.#streams.get(id);
    if (stream === undefined || stream.dead || stream.ending !== "open") return;
    for (let at = 0; at < payload.length; at += this.#peer.payload)
      stream.copy(payload.subarray(at, at + this.#peer.payload), now);
    this.#enlist(stream);
  }

  /**
   * Queues octets in place: `frame` is 24 octets of room for the header, then at most {@link Session.payloadBytesMax} and
   * {@link Session.sendable} octets of payload. The memory is the session's until "released" hands it back.
   */
  lend(id: number, frame: Uint8Array, now: number): void {
    this.#now = now;
    const stream = this.#streams.get(id);
    if (stream === undefined || stream.dead || stream.ending !== "open" || frame.length === HEADER_BYTES) {
      this.#emit({ type: "released", memory: frame });
      return;
    }
    stream.lend(frame, now);
    this.#enlist(stream);
  }

  /**
   * Half-closes our end behind what is queued.
   * @param whole the peer's end is of no use any more either (a process that has exited): it is told so, with a reset that says NO_ERROR
   */
  finish(id: number, now: number, whole = false): void {
    this.#now = now;
    const stream = this.#streams.get(id);
    if (stream === undefined || stream.dead) return;
    stream.endsWhole ||= whole;
    if (stream.ending === "sent" && whole && !stream.finished) this.#kill(stream, Code.NO_ERROR);
    if (stream.ending !== "open") return;
    stream.ending = "due";
    stream.wanting = false;
    this.#enlist(stream);
  }

  /** Ends both directions at once; what is queued is dropped. */
  reset(id: number, code: number, now: number): void {
    this.#now = now;
    const stream = this.#streams.get(id);
    if (stream === undefined || stream.over) return;
    this.#kill(stream, code, "silently");
  }

  /**
   * The application has taken octets of a stream: the peer may send as many more.
   * @returns true when that is worth a frame, which {@link Session.poll} will give
   */
  consume(id: number, bytes: number, now: number): boolean {
    this.#now = now;
    const stream = this.#streams.get(id);
    if (stream === undefined) return false;
    stream.consumed += bytes;
    stream.movedAt = now;
    if (stream.dead || stream.finished) return false;
    const outstanding = stream.granted - stream.consumed;
    if (outstanding > stream.window / 2) return false;
    // Half a window went in less than two round trips: the window is what holds the stream back.
    if (now - stream.renewedAt < 2 * this.#roundTrip) this.#grow(stream);
    stream.renewedAt = now;
    this.#creditDue.add(stream);
    return true;
  }

  /**
   * What comes on a stream is confirmed to the peer once it was passed on, and what the peer confirms is told: whoever has the octets on both sides of this
   * process can then go on without it.
   */
  keep(id: number): void {
    const stream = this.#streams.get(id);
    if (stream === undefined || stream.kept !== "no") return;
    stream.kept = this.#retain ? "yes" : "wished";
    this.#keptStreams++;
  }

  /** So many octets of a stream were passed on, to somebody who has them also when this process is killed; its end counts as one. */
  passedOn(id: number, octets: number, now: number): void {
    this.#now = now;
    const stream = this.#streams.get(id);
    if (stream === undefined || stream.kept === "no") return;
    stream.passedOn += octets;
    if (stream.kept === "not now" && stream.passedOn >= stream.received) stream.kept = "yes";
    this.#acknowledgeSoon();
  }

  /**
   * The application is done with a stream and its back end is gone: the slot is free. What was queued before the end of both directions
   * is still said; any other stream that is not over is reset.
   * @returns true when that was the last of it
   */
  forget(id: number, now: number): boolean {
    this.#now = now;
    const stream = this.#streams.get(id);
    if (stream === undefined || stream.forgotten) return stream === undefined;
    stream.forgotten = true;
    const saying = stream.ending === "due" && (stream.finished || stream.endsWhole);
    if (!stream.over && !saying) this.#kill(stream, Code.CANCEL, "silently");
    else this.#removeIfOver(stream);
    return !this.#streams.has(id);
  }

  #removeIfOver(stream: Stream): void {
    if (!stream.forgotten || !stream.over) return;
    if (!stream.isSettled && !stream.dead && this.#ended === undefined) return; // it is missed where the octets came from, should they be lost
    if (!this.#streams.delete(stream.id)) return;
    this.#creditDue.delete(stream);
    this.#dribbling.delete(stream);
    for (const { pins } of this.#connections.values()) pins.delete(stream.id);
    if (stream.kept !== "no") this.#keptStreams--;
    stream.kept = "no";
    this.#windows -= stream.window;
    if (stream.openedByPeer) this.#peerStreams--;
    else this.#ourStreams--;
    this.#emit({ type: "gone", stream: stream.id });
  }

  /** Asks the peer on each connection for a sign of life, as there is reason to doubt it (PROTOCOL §9.1). */
  probe(now: number): void {
    this.#now = now;
    for (const connection of this.#connections.values()) connection.asking = true;
  }

  /** Takes no more streams; those that are open go on. */
  goAway(code: number, reason: string, now: number): void {
    this.#now = now;
    if (this.#ended !== undefined) return;
    this.#lastTaken = Math.min(this.#lastTaken, this.#lastPeerStream);
    this.#control({ type: "goaway", lastStream: this.#lastTaken, code, reason });
  }

  /** Ends the session at both ends; streams that are open are lost. */
  end(code: number, reason: string, now: number): void {
    this.#now = now;
    if (this.#ended !== undefined) return;
    // What streams have said of their own end is still said: it may be all that the peer waits for.
    for (let best = this.#best; best !== undefined && this.#speakControl(best); best = this.#best);
    this.#fault(code, reason);
  }

  /** Keeps what is said from now on until it is acknowledged, so that the session outlives its connections once all else was. */
  retain(): void {
    if (this.#retain) return;
    this.#retain = true;
    this.#log.retain();
    for (const stream of this.#streams.values()) {
      if (stream.kept !== "wished") continue;
      stream.kept = "yes";
      stream.endConfirmed = stream.ending === "sent"; // of what was said before nobody will hear
    }
  }

  /** True when the session could go on over another connection with a peer that has received so much of our log (PROTOCOL §4.8). */
  resumable(received: number): boolean {
    return this.#ended === undefined && this.#retain && this.#log.whole && this.#log.isBoundary(received);
  }

  /** How far the peer may speak: told with ATTACHED, and from then on with ACK. */
  offer(): number {
    this.#inboxLimit = Math.max(this.#inboxLimit, this.#inbox.received + this.#window.bytes);
    return this.#inboxLimit;
  }

  /** Connections the session has. */
  get connections(): number {
    return this.#connections.size;
  }

  /** Milliseconds since the peer was last heard on any connection; infinite without one. */
  silenceMs(now: number): number {
    let heardAt = Number.NEGATIVE_INFINITY;
    for (const connection of this.#connections.values()) heardAt = Math.max(heardAt, connection.heardAt);
    return now - heardAt;
  }

  /**
   * Leaves all connections it has, as another one is to take over: they are told, nothing more is read from them, and what they carried comes
   * again. The session needs the other one at once, or is detached.
   */
  supersede(now: number): void {
    this.#now = now;
    for (const connection of [...this.#connections.values()]) {
      this.#disconnect(connection, Code.SUPERSEDED, "another connection took over");
      this.#lose(connection.id);
    }
  }

  /**
   * The peer has lost its memory, and attaches with nothing but its ticket: all connections are left, what it has not confirmed is said again, and what came early
   * is forgotten, as it may come in another form.
   */
  recall(now: number): Recollection {
    this.supersede(now);
    this.#inbox.recall();
    this.#gapSince = undefined;
    const nextStream = this.#lastPeerStream === 0 ? 1 : this.#lastPeerStream + 2;
    const lastTaken = this.#lastTaken === Number.POSITIVE_INFINITY ? undefined : this.#lastTaken;
    const { streams } = this.#limits;
    return {
      nextStream,
      lastTaken,
      limit: this.#peer.log,
      peer: { payload: PAYLOAD_BYTES_MAX, streams, credit: this.#announcedCredit, window: LOG_WINDOW_BYTES },
      streams: recollected(this.#streams.values(), this.#log.recall()),
    };
  }

  /** Tells the peer that the ticket of this generation is stored: the one before is void from then on. */
  ticketStored(connection: number, generation: number): void {
    const to = this.#connections.get(connection);
    if (to !== undefined) this.#sayUnsequenced(to, { type: "ticketStored", received: this.#confirmable, generation });
  }

  /**
   * What is said on a stream, by both ends, goes over this connection as long as it lasts (PROTOCOL §7.6); over whichever is good, if it is undefined.
   */
  pin(id: number, connection: number | undefined, now: number): void {
    this.#now = now;
    const stream = this.#streams.get(id);
    if (stream === undefined || stream.pin === connection) return;
    const [from, to] = [this.#connections.get(stream.pin ?? 0), this.#connections.get(connection ?? 0)];
    from?.preferences.push({ type: "pin", received: 0, stream: id, here: false });
    to?.preferences.push({ type: "pin", received: 0, stream: id, here: true });
    from?.pins.delete(id);
    to?.pins.add(id);
    this.#move(stream, to?.id, from?.schedule ?? this.#schedule);
  }

  /** A connection is for everything, or for what is pinned to it alone. */
  carry(id: number, all: boolean, now: number): void {
    this.#now = now;
    const connection = this.#connections.get(id);
    if (connection === undefined || connection.carriesAll === all) return;
    connection.carriesAll = all;
    connection.preferences.push({ type: "carry", received: 0, all });
  }

  /** All other connections are gone, as far as we know, and the peer may not know yet: it is told on this one. */
  alone(id: number, now: number): void {
    this.#now = now;
    const connection = this.#connections.get(id);
    if (connection === undefined) return;
    this.#leaveOthers(connection);
    connection.preferences.unshift({ type: "alone", received: 0 });
  }

  #leaveOthers(connection: Connection): void {
    for (const other of [...this.#connections.values()]) {
      if (other === connection) continue;
      this.#disconnect(other, Code.SUPERSEDED, "it was lost at the other end");
      this.#lose(other.id);
    }
  }

  #move(stream: Stream, to: number | undefined, from: Schedule): void {
    const waits = stream.scheduled;
    from.remove(stream);
    stream.pin = to;
    if (waits) this.#enlist(stream);
  }

  /** A stream has something to say. */
  #enlist(stream: Stream): void {
    const pinned = stream.pin === undefined ? undefined : this.#connections.get(stream.pin);
    (pinned?.schedule ?? this.#schedule).add(stream, this.#now);
  }

  /** The peer wants a stream on this connection, or not any more. The stream may not be open here yet. */
  #prefer(connection: Connection, id: number, here: boolean): void {
    const stream = this.#streams.get(id);
    if (here && connection.pins.size >= PINS_MAX) return this.#glitch(1);
    if (!here) {
      connection.pins.delete(id);
      if (stream?.pin === connection.id) this.#move(stream, undefined, connection.schedule);
      return;
    }
    for (const other of this.#connections.values()) if (other !== connection) other.pins.delete(id);
    connection.pins.add(id);
    if (stream !== undefined && stream.pin !== connection.id)
      this.#move(stream, connection.id, this.#connections.get(stream.pin ?? 0)?.schedule ?? this.#schedule);
  }

  /** Closes one connection; the session stays if it retains. */
  disconnect(id: number, code: number, reason: string, now: number): void {
    this.#now = now;
    const connection = this.#connections.get(id);
    if (connection !== undefined && this.#ended === undefined) this.#disconnect(connection, code, reason);
  }

  /** Other limits from now on (a user was recognised): larger ones only. */
  raise(limits: SessionLimits, now: number): void {
    this.#now = now;
    this.#limits = limits;
    this.#announcedCredit = Math.max(this.#announcedCredit, creditOf(limits));
    // The peer takes it for the streams it has open, too.
    for (const stream of this.#streams.values()) {
      const more = this.#announcedCredit - stream.granted;
      if (!stream.openedByPeer || more <= 0) continue;
      stream.granted += more;
      stream.window += more;
      this.#windows += more;
    }
    this.#sendSettings();
  }

  // ---- what comes in ------------------------------------------------------------------------------------------------------------

  #receive(id: number, bytes: Uint8Array, kept: boolean): void {
    const connection = this.#connections.get(id);
    if (connection === undefined || connection.closing !== undefined) return;
    connection.heardAt = this.#now;
    connection.unansweredSince = undefined;
    connection.isDoubted = false;
    connection.reader.push(bytes);
    for (;;) {
      const frame = connection.reader.next();
      if (frame === undefined) break;
      if (frame.type === "error") return this.#malformed(connection, frame);
      connection.spoken = true;
      if ("received" in frame) this.#unsequenced(connection, frame);
      else this.#sequenced(connection, frame);
      if (this.#ended !== undefined || connection.closing !== undefined) return;
    }
    if (!kept) connection.reader.detach();
    this.#acknowledgeSoon();
  }

  #malformed(connection: Connection, error: FrameError): void {
    const code = Code[error.code];
    // Another connection may bring a broken frame whole, but none brings one that we do not know in another form.
    if (error.sequenced && error.code === "UNSUPPORTED" && connection.spoken) return this.#fault(code, error.detail);
    this.#disconnect(connection, code, error.detail);
  }

  #unsequenced(connection: Connection, frame: UnsequencedFrame): void {
    if (frame.received > this.#log.acknowledged) this.#progressAt = this.#now;
    if (!this.#confirmed(frame.received)) return this.#fault(Code.PROTOCOL, "you acknowledge what was never said");
    switch (frame.type) {
      case "ack":
        this.#peer.log = Math.max(this.#peer.log, frame.limit);
        if (frame.held.length > 0) this.#log.hold(frame.held, (entry) => this.#arrived(entry));
        return;
      case "ping":
        if (frame.reply) {
          if (frame.opaque === connection.asked?.opaque)
            this.#measureRoundTrip(connection, this.#now - connection.asked.at);
          return;
        }
        connection.answer = frame.opaque;
        if (!connection.pings.take(1, this.#now)) this.#glitch(1);
        return;
      case "closeConnection":
        connection.closing = frame;
        this.#emit({ type: "disconnect", connection: connection.id, code: frame.code, reason: frame.reason });
        return;
      case "ticketStored":
        return this.#emit({ type: "ticketStored", generation: frame.generation });
      case "pin":
        return this.#prefer(connection, frame.stream, frame.here);
      case "carry":
        connection.carriesAll = frame.all;
        return;
      case "alone":
        // The client's to say, who makes connections: if both ends did at once, none would be left.
        if (!this.#isClient) this.#leaveOthers(connection);
        return;
      case "skipped":
        return;
      default:
        assertNever(frame);
    }
  }

  /** The peer has received so much of our log; false when that was never said. */
  #confirmed(received: number): boolean {
    const gone = (entry: Entry): void => {
      if (!entry.held) this.#arrived(entry);
      if (this.#keptStreams > 0) this.#tellConfirmed(entry.frame);
      this.#release(entry);
    };
    if (!this.#log.acknowledge(received, gone)) return false;
    while ((this.#changes[0] ?? Number.POSITIVE_INFINITY) <= this.#log.acknowledged) this.#changes.shift();
    return true;
  }

  #tellConfirmed(frame: Uint8Array): void {
    const data = readDataHeader(frame);
    const stream = data === undefined ? undefined : this.#streams.get(data.stream);
    if (data === undefined || stream === undefined || stream.kept === "no") return;
    stream.confirmed = data.offset + data.octets;
    if (data.fin) {
      stream.endConfirmed = true;
      if (!stream.dead) this.#tellIfOver(stream);
      return this.#removeIfOver(stream);
    }
    if (stream.confirmed - stream.confirmedTold < CONFIRMED_TOLD_BYTES) return;
    stream.confirmedTold = stream.confirmed;
    this.#emit({ type: "confirmed", stream: stream.id, octets: stream.confirmed });
  }

  /** What went out on a connection is known to have come. */
  #arrived({ connection, frame }: Entry): void {
    if (this.#everConnected > 1 && connection !== undefined)
      this.#connections.get(connection)?.carrier.arrived(frame.length, this.#now);
  }

  /** A connection is asked a few times in the beginning: the first answer comes from code that runs for the first time. */
  #measureRoundTrip(connection: Connection, ms: number): void {
    this.#roundTripMs = ms;
    connection.carrier.measured(ms);
    const received = connection.asked?.received;
    this.#window.measured(ms, received === undefined ? undefined : this.#inbox.received - received);
    connection.answers++;
    if (connection.answers < FIRST_QUESTIONS) connection.asking = true;
  }

  #sequenced(connection: Connection, frame: SequencedFrame): void {
    if (frame.size < SMALL_FRAME_BYTES) this.#smallFrames++;
    const arrival = this.#inbox.place(frame, this.#inboxLimit);
    switch (arrival) {
      case "next":
        this.#takeTurn(frame);
        return this.#advance(frame);
      case "early":
        // With one connection in all its life nothing can be under way elsewhere: the gap will never close.
        if (this.#everConnected === 1) return this.#fault(Code.SEQ, "a frame is missing in your log");
        this.#gapSince ??= this.#now;
        this.#acknowledgeAt = Math.min(this.#acknowledgeAt, this.#now + ACK_DELAY_MS); // it names what is held
        if (frame.type === "data") this.#deliverEarly(frame.stream);
        return;
      case "duplicate":
        // The peer has lost what we said of it: with the acknowledgement, on a connection whose end we have not noticed.
        this.#acknowledgeAt = Math.min(this.#acknowledgeAt, this.#now + ACK_DELAY_MS);
        return;
      case "full":
        return this.#disconnect(connection, Code.CALM, "too many frames came early");
      case "SEQ":
        return this.#fault(Code.SEQ, "frames overlap, or leave too many gaps");
      case "FLOW_CONTROL":
        return this.#fault(Code.FLOW_CONTROL, "you speak beyond the log window");
      default:
        assertNever(arrival);
    }
  }

  /** A frame's effect, when its turn has come. */
  #takeTurn(frame: SequencedFrame): void {
    this.#apply(frame);
    if (this.#inbox.gap && (frame.type === "data" || frame.type === "open")) this.#deliverEarly(frame.stream);
  }

  #advance(frame: SequencedFrame): void {
    let next = this.#inbox.advance(frame.size);
    while (next !== undefined && this.#ended === undefined) {
      if (!next.delivered) this.#takeTurn(next.frame);
      next = this.#inbox.advance(next.frame.size);
    }
    // Each step forward closes a gap: the next one gets its time.
    this.#gapSince = this.#inbox.gap ? this.#now : undefined;
  }

  /** DATA of a stream that is already open need not wait for other streams' frames (PROTOCOL §7.4). */
  #deliverEarly(id: number): void {
    for (;;) {
      const stream = this.#streams.get(id);
      if (stream === undefined || stream.dead || this.#ended !== undefined) return;
      const frame = this.#inbox.deliver(id, stream.received);
      if (frame === undefined) return;
      this.#applyData(frame);
    }
  }

  /** A sequenced frame takes effect. */
  #apply(frame: SequencedFrame): void {
    if (!this.#peer.heard && frame.type !== "settings")
      return this.#fault(Code.PROTOCOL, "the first frame of a log is SETTINGS");
    switch (frame.type) {
      case "data":
        return this.#applyData(frame);
      case "open":
        return this.#applyOpen(frame.stream, frame.credit, frame.request);
      case "credit":
        return this.#applyCredit(frame.stream, frame.limit);
      case "reset":
        return this.#applyReset(frame.stream, frame.code);
      case "settings":
        return this.#applySettings(frame.entries);
      case "goaway":
        return this.#applyGoAway(frame.lastStream, frame.code, frame.reason);
      case "end":
        return this.#finish(frame.code, "the peer ended the session", true);
      case "skippedInLog":
        return;
      default:
        assertNever(frame);
    }
  }

  #applyData(frame: Extract<SequencedFrame, { type: "data" }>): void {
    const stream = this.#streams.get(frame.stream);
    if (stream === undefined || stream.over) return this.#strayData(frame.stream, frame.payload.length);
    if (stream.finished) return this.#offend(stream, Code.STREAM_STATE);
    if (frame.offset !== stream.received) return this.#fault(Code.SEQ, "a stream's offset does not follow its octets");
    const octets = frame.payload.length;
    if (frame.offset + octets > stream.granted) return this.#fault(Code.FLOW_CONTROL, "you sent more than was granted");
    if (octets === 0 && !frame.fin) {
      stream.emptyInARow++;
      if (stream.emptyInARow > 1) this.#glitch(5);
      return;
    }
    stream.emptyInARow = 0;
    stream.received += octets;
    stream.movedAt = this.#now;
    if (stream.kept === "yes") this.#untaken.add(frame.seq, stream, stream.received + (frame.fin ? 1 : 0), this.#now);
    if (octets > 0) this.#emit({ type: "data", stream: stream.id, bytes: frame.payload });
    if (!frame.fin) return;
    stream.finished = true;
    // With several connections acknowledgements say which of them is quick, and come as they would.
    const ms = this.#connections.size > 1 ? ACK_DELAY_MS : END_ACK_DELAY_MS;
    this.#acknowledgeAt = Math.min(this.#acknowledgeAt, this.#now + ms);
    this.#emit({ type: "finished", stream: stream.id });
    this.#tellIfOver(stream);
  }

  /** Both ends are finished, and where a stream is kept, the peer has confirmed ours. */
  #tellIfOver(stream: Stream): void {
    if (stream.over && stream.isSettled) this.#emit({ type: "over", stream: stream.id });
  }

  #strayData(id: number, octets: number): void {
    if (this.#isIdle(id)) return this.#fault(Code.STREAM_STATE, "data on a stream that was never opened");
    const excused = this.#tombstones.get(id) ?? 0;
    if (excused === 0) return this.#glitch(1);
    this.#tombstones.set(id, Math.max(excused - Math.max(octets, 1), 0));
  }

  #applyOpen(id: number, credit: number, request: Uint8Array): void {
    if (id % 2 === this.#nextStream % 2 || id <= this.#lastPeerStream)
      return this.#fault(Code.PROTOCOL, "a stream's number is not yours, or not higher than the last");
    this.#lastPeerStream = id;
    if (id > this.#lastTaken || this.#peerStreams >= this.#limits.streams) {
      this.#bury(id, this.#announcedCredit);
      this.#control({ type: "reset", stream: id, code: Code.REFUSED });
      this.#glitch(1);
      return;
    }
    const stream = this.#admit(new Stream(id, true, credit, this.#announcedCredit, this.#now));
    this.#peerStreams++;
    for (const connection of this.#connections.values()) if (connection.pins.has(id)) stream.pin = connection.id;
    this.#emit({ type: "opened", stream: id, request });
  }

  #applyCredit(id: number, limit: number): void {
    const stream = this.#streams.get(id);
    if (stream === undefined) {
      if (this.#isIdle(id)) this.#fault(Code.STREAM_STATE, "credit for a stream that was never opened");
      return; // late, the stream is gone
    }
    if (limit <= stream.credit) return; // overtaken by a later one: the highest counts
    if (limit - stream.credit < INITIAL_CREDIT_BYTES * CREDIT_PART_MIN) this.#glitch(1);
    this.#grant(stream, limit);
  }

  #grant(stream: Stream, limit: number): void {
    stream.grant(limit, this.#now);
    if (stream.ready) this.#enlist(stream);
    this.#wake(stream);
  }

  #applyReset(id: number, code: number): void {
    const stream = this.#streams.get(id);
    if (stream === undefined) {
      if (this.#isIdle(id)) this.#fault(Code.STREAM_STATE, "reset of a stream that was never opened");
      return;
    }
    if (stream.over) return; // sent before our last octets had arrived: here all is done
    // Rapid reset: asking and taking back before any answer costs us work and the peer nothing (R01).
    if (stream.openedByPeer && stream.sent === 0) this.#glitch(10);
    if (this.#ended !== undefined) return;
    this.#die(stream);
    // "I read no more" makes sense only behind an end of its own (PROTOCOL §8.3).
    this.#tellReset(stream, code === Code.NO_ERROR && !stream.finished ? Code.CANCEL : code);
  }

  #applyGoAway(lastStream: number, code: number, reason: string): void {
    if (this.#lastTakenByPeer !== Number.POSITIVE_INFINITY) this.#glitch(1);
    // A higher number than before is an older GOAWAY that came late: the lowest counts.
    if (lastStream >= this.#lastTakenByPeer || this.#ended !== undefined) return;
    this.#lastTakenByPeer = lastStream;
    this.#emit({ type: "goingAway", code, reason });
    for (const stream of this.#streams.values()) {
      if (stream.openedByPeer || stream.id <= lastStream || stream.over) continue;
      this.#die(stream);
      this.#takeBack(stream);
      this.#tellReset(stream, Code.REFUSED);
    }
  }

  #applySettings(entries: ReadonlyMap<number, number>): void {
    if (!this.#peer.heard) this.#emit({ type: "ready" });
    if (this.#peer.heard) this.#glitch(10);
    this.#peer.heard = true;
    for (const [id, value] of entries) {
      switch (id) {
        case Setting.payloadBytesMax:
          if (value < this.#peer.payload || value > PAYLOAD_BYTES_MAX)
            return this.#fault(Code.PROTOCOL, `a payload limit of ${value}`);
          this.#peer.payload = value;
          break;
        case Setting.streamsMax:
          this.#peer.streams = value;
          break;
        case Setting.initialCredit:
          if (value < this.#peer.credit) return this.#fault(Code.PROTOCOL, `an initial credit of ${value}`);
          this.#raiseInitialCredit(value);
          break;
        case Setting.logWindow:
          if (value < this.#peer.window) return this.#fault(Code.PROTOCOL, `a log window of ${value}`);
          this.#peer.window = value;
          this.#peer.log = Math.max(this.#peer.log, value);
          break;
        default: // connections and idle time are the opener's business; unknown ones are ignored (PROTOCOL §6.4)
      }
    }
  }

  #raiseInitialCredit(value: number): void {
    this.#peer.credit = value;
    for (const stream of this.#streams.values()) {
      if (!stream.openedByPeer && stream.credit < value) this.#grant(stream, value);
    }
  }

  // ---- what goes out ------------------------------------------------------------------------------------------------------------

  /** The next thing the session wants done or has to tell, until undefined. */
  poll(): Output | undefined {
    for (;;) {
      const output = this.#outputs[this.#taken];
      if (output !== undefined) {
        this.#taken++;
        return output;
      }
      this.#outputs = [];
      this.#taken = 0;
      if (!this.#speak()) return undefined;
    }
  }

  /** Emits the next frame to be sent, if any can be. */
  #speak(): boolean {
    if (this.#ended !== undefined) return false;
    for (const connection of this.#connections.values()) {
      if (connection.closing !== undefined) continue;
      if (connection.room <= 0) continue;
      if (connection.answer !== undefined) {
        const opaque = connection.answer;
        connection.answer = undefined;
        return this.#sayUnsequenced(connection, { type: "ping", received: this.#confirmable, opaque, reply: true });
      } else if (connection.owesAcknowledgement) return this.#acknowledge(connection);
      const preference = connection.preferences.shift();
      if (preference !== undefined)
        return this.#sayUnsequenced(connection, { ...preference, received: this.#confirmable });
    }
    const best = this.#best;
    if (best === undefined) return false;
    // Acknowledging comes before everything else that may take long: two ends that both have much to repeat would starve each other.
    if (this.#acknowledgeAt <= this.#now) return this.#acknowledge(best);
    const speaker = this.#speaker(best);
    if (speaker !== undefined && (this.#speakAgain(speaker) || this.#speakControl(speaker))) return true;
    for (const connection of this.#connections.values()) if (connection.asking && this.#ask(connection)) return true;
    if (this.#connections.size === 1) return speaker !== undefined && this.#speakData(speaker, this.#schedule);
    return this.#speakApart();
  }

  /** With several connections: what is pinned goes where it belongs, and everything else where it will come soonest. */
  #speakApart(): boolean {
    let soonest: Connection | undefined;
    const carriers = this.#carriers;
    for (const connection of this.#connections.values()) {
      if (connection.closing !== undefined || connection.room <= 0 || this.#speaker(connection) !== connection)
        continue;
      if (!connection.schedule.empty && this.#speakData(connection, connection.schedule)) return true;
      const { carrier } = connection;
      if ((carriers > 0 && !connection.carriesAll) || (carriers !== 1 && (!carrier.open || connection.isDoubted)))
        continue;
      if (soonest === undefined || carrier.busyMs < soonest.carrier.busyMs) soonest = connection;
    }
    return soonest !== undefined && this.#speakData(soonest, this.#schedule);
  }

  /** Connections that are for everything. */
  get #carriers(): number {
    let carriers = 0;
    for (const { closing, carriesAll } of this.#connections.values())
      if (closing === undefined && carriesAll) carriers++;
    return carriers;
  }

  /** The connection to speak on: the one in use, unless it is full, or another was heard a good while later. */
  get #best(): Connection | undefined {
    let best: Connection | undefined;
    for (const connection of this.#connections.values()) {
      if (connection.closing !== undefined || connection.room <= 0) continue;
      if (best === undefined || worth(connection, this.#spokeOn) > worth(best, this.#spokeOn)) best = connection;
    }
    return best;
  }

  /**
   * The connection for frames of our log. Each change of connections may leave a gap at the peer, who bears so many and no more: then
   * the one in use has to do until something is acknowledged.
   */
  #speaker(best: Connection): Connection | undefined {
    if (best.id === this.#spokeOn || this.#changes.length < GAPS_MAX - 1) return best;
    const inUse = this.#spokeOn === undefined ? undefined : this.#connections.get(this.#spokeOn);
    if (inUse === undefined || inUse.closing !== undefined) return best;
    return inUse.room > 0 ? inUse : undefined;
  }

  #speakAgain(connection: Connection): boolean {
    const entry = this.#log.resend(connection.id);
    if (entry === undefined) return false;
    this.#sayLogged(connection, entry.frame);
    return true;
  }

  #ask(connection: Connection): boolean {
    if (connection.closing !== undefined || connection.room <= 0) return false;
    const opaque = Math.floor(this.#now);
    connection.asking = false;
    connection.asked = { opaque, at: this.#now, received: this.#loaded ? this.#inbox.received : undefined };
    this.#loaded = false;
    connection.unansweredSince ??= this.#now;
    return this.#sayUnsequenced(connection, { type: "ping", received: this.#confirmable, opaque, reply: false });
  }

  #speakControl(connection: Connection): boolean {
    if (this.#log.end + CONTROL_BYTES_MAX > this.#peer.log) return false;
    const control = this.#controls[this.#controlAt];
    if (control !== undefined) {
      this.#controlAt++;
      if (this.#controlAt === this.#controls.length || this.#controlAt > CONTROLS_SAID_MAX) {
        this.#controls = this.#controls.slice(this.#controlAt);
        this.#controlAt = 0;
      }
      this.#saySequenced(connection, control);
      return true;
    }
    for (const stream of this.#creditDue) {
      this.#creditDue.delete(stream);
      const limit = stream.consumed + stream.window;
      if (stream.dead || stream.finished || limit <= stream.granted) continue;
      stream.granted = limit;
      this.#saySequenced(connection, { type: "credit", stream: stream.id, limit });
      return true;
    }
    return false;
  }

  #speakData(connection: Connection, schedule: Schedule): boolean {
    const urgent = schedule.urgent;
    // Bulk stops earlier: whoever says little need not wait for the window until bulk has been acknowledged.
    const { payload, log } = this.#peer;
    const bytes = urgent === undefined ? payload + URGENT_RESERVE_BYTES : Math.min(payload, urgent.queuedBytes);
    if (this.#log.end + HEADER_BYTES + bytes + CONTROL_RESERVE_BYTES > log) return false;
    if (this.#log.frames >= UNACKNOWLEDGED_FRAMES_MAX) return false;
    const stream = schedule.next();
    if (stream === undefined) return false;
    const chunk = stream.take(this.#now);
    const last = stream.drained && stream.ending === "due";
    const memory = chunk === undefined ? new Uint8Array(HEADER_BYTES) : chunk.memory;
    const frame = chunk === undefined || chunk.used === memory.length ? memory : memory.subarray(0, chunk.used);
    writeDataHeader(frame, stream.id, this.#log.end, stream.sent, last);
    stream.sent += frame.length - HEADER_BYTES;
    if (last) stream.ending = "sent";
    const entry = this.#append(connection, frame, chunk?.lent);
    if (!this.#retain) this.#release(entry);
    if (stream.ready) this.#enlist(stream);
    if (stream.wanting) this.#wake(stream);
    if (stream.over) this.#tellIfOver(stream);
    else if (last && stream.endsWhole) this.#kill(stream, Code.NO_ERROR);
    this.#removeIfOver(stream);
    return true;
  }

  #acknowledge(connection: Connection): boolean {
    const { received, ranges: held } = this.#inbox;
    const confirmable = this.#confirmable;
    this.#window.acknowledging(received, this.#roundTrip, this.#now);
    const { bytes, acknowledgeBytes } = this.#window;
    // Under load, once the peer can have no more under way than the window is now.
    const loaded = received - this.#answered >= acknowledgeBytes && this.#inboxLimit <= received + bytes;
    if (loaded && this.#connections.size === 1 && this.#window.wantsRoundTrip(this.#now)) {
      this.#loaded = true;
      connection.asking = true;
    }
    this.#acknowledged = confirmable;
    this.#answered = received;
    this.#acknowledgeAt = Number.POSITIVE_INFINITY;
    this.#inboxLimit = Math.max(this.#inboxLimit, received + bytes);
    connection.owesAcknowledgement = false;
    return this.#sayUnsequenced(connection, { type: "ack", received: confirmable, limit: this.#inboxLimit, held });
  }

  /** What of the peer's log is confirmed: all that was received, but for what is to be passed on first. */
  get #confirmable(): number {
    return this.#untaken.taken(this.#inbox.received, this.#now);
  }

  #acknowledgeSoon(): void {
    // The peer needs to hear how far it may speak also while what has come cannot be confirmed.
    const owed = Math.max(this.#confirmable - this.#acknowledged, this.#inbox.received - this.#answered);
    if (owed <= 0) return;
    // With several connections the sender shares out by what has come: it has to know soon.
    const acknowledgeBytes = this.#connections.size > 1 ? PAYLOAD_BYTES_MAX : this.#window.acknowledgeBytes;
    if (owed >= acknowledgeBytes) this.#acknowledgeAt = this.#now;
    else this.#acknowledgeAt = Math.min(this.#acknowledgeAt, this.#now + ACK_DELAY_MS);
  }

  #sayUnsequenced(connection: Connection, frame: UnsequencedFrame): boolean {
    this.#transmit(connection, encodeUnsequenced(frame));
    return true;
  }

  #saySequenced(connection: Connection, content: SequencedContent): void {
    this.#append(connection, encodeSequenced(this.#log.end, content), undefined);
  }

  #append(connection: Connection, frame: Uint8Array, lent: Uint8Array | undefined): Entry {
    if (this.#log.unacknowledged === 0) this.#progressAt = this.#now; // from here on we wait for a sign of progress
    const entry = this.#log.append(frame, lent, connection.id);
    this.#sayLogged(connection, frame);
    return entry;
  }

  #sayLogged(connection: Connection, frame: Uint8Array): void {
    if (this.#everConnected > 1) connection.carrier.sent(frame.length, this.#now);
    if (this.#spokeOn !== connection.id) {
      if (this.#spokeOn !== undefined) this.#changes.push(this.#log.end);
      this.#spokeOn = connection.id;
    }
    this.#transmit(connection, frame);
  }

  #transmit(connection: Connection, bytes: Uint8Array): void {
    connection.room -= bytes.length;
    if (connection.room <= 0) connection.blockedSince ??= this.#now;
    this.#emit({ type: "transmit", connection: connection.id, bytes });
  }

  // ---- rules --------------------------------------------------------------------------------------------------------------------

  #sendSettings(): void {
    const entries = new Map<number, number>([
      [Setting.payloadBytesMax, PAYLOAD_BYTES_MAX],
      [Setting.streamsMax, this.#limits.streams],
      [Setting.initialCredit, this.#announcedCredit],
      [Setting.logWindow, LOG_WINDOW_BYTES],
      [Setting.connectionsMax, this.#limits.connections],
      [Setting.idleSeconds, Math.ceil(deadPeerMs(this.#limits) / 1_000)],
    ]);
    this.#control({ type: "settings", entries });
  }

  /** What the peer may send on a stream we open: generous while few are open, as most bytes flow towards who asks. */
  get #windowForOurs(): number {
    const share = this.#limits.budgetBytes / 32;
    const free = this.#windows + share <= this.#limits.budgetBytes;
    return free ? Math.max(share, INITIAL_CREDIT_BYTES) : INITIAL_CREDIT_BYTES;
  }

  /** How often deadlines are looked at. */
  get #sweepMs(): number {
    return Math.min(this.#limits.keepaliveMs, this.#limits.stallMs, this.#limits.streamStallMs);
  }

  get #roundTrip(): number {
    return this.#roundTripMs === undefined ? ROUND_TRIP_MS_ASSUMED : Math.max(this.#roundTripMs, 1);
  }

  #admit(stream: Stream): Stream {
    this.#streams.set(stream.id, stream);
    this.#windows += stream.window;
    return stream;
  }

  #grow(stream: Stream): void {
    const window = Math.min(stream.window * 2, this.#limits.windowBytesMax);
    const windows = this.#windows + window - stream.window;
    if (windows > this.#limits.budgetBytes) return;
    this.#windows = windows;
    stream.window = window;
  }

  /** Wakes a source that was told to wait, if it may queue something now. */
  #wake(stream: Stream): void {
    // Not for every frame that leaves: a source that gives much at once is read, framed and written at once.
    if (!stream.wanting || stream.queuedBytes > SEND_QUEUE_BYTES / 4) return;
    if (this.sendable(stream.id, this.#now) === 0) return;
    stream.wanting = false;
    this.#emit({ type: "writable", stream: stream.id });
  }

  /** Resets a stream from our side. */
  #kill(stream: Stream, code: number, how: "aloud" | "silently" = "aloud"): void {
    this.#die(stream);
    if (!this.#takeBack(stream)) {
      this.#bury(stream.id, stream.granted - stream.received);
      this.#control({ type: "reset", stream: stream.id, code });
    }
    if (how === "aloud") this.#tellReset(stream, code);
  }

  /**
   * Takes back an OPEN that was not said yet: the peer need never hear of the stream. Else whoever tries again and again while there is no
   * connection would make the queue grow, and look like a rapid reset when there is one (R01).
   */
  #takeBack(stream: Stream): boolean {
    if (stream.openedByPeer || stream.sent > 0) return false;
    for (let at = this.#controlAt; at < this.#controls.length; at++) {
      const control = this.#controls[at];
      if (control?.type !== "open" || control.stream !== stream.id) continue;
      this.#controls.splice(at, 1);
      return true;
    }
    return false;
  }

  /** Tells the application, unless it is done with the stream. */
  #tellReset(stream: Stream, code: number): void {
    if (!stream.forgotten) this.#emit({ type: "reset", stream: stream.id, code });
  }

  /** The peer makes us reset: that costs it what its own resets cost (R02). */
  #offend(stream: Stream, code: number): void {
    this.#glitch(10);
    if (this.#ended === undefined) this.#kill(stream, code);
  }

  #die(stream: Stream): void {
    stream.dead = true;
    this.#creditDue.delete(stream);
    this.#dribbling.delete(stream);
    stream.drop((memory) => this.#emit({ type: "released", memory }));
    this.#removeIfOver(stream);
  }

  /** @param granted octets the peer may send before it hears of the reset; its FIN counts as one */
  #bury(id: number, granted: number): void {
    this.#tombstones.set(id, granted + 1);
    if (this.#tombstones.size <= TOMBSTONES_MAX) return;
    for (const oldest of this.#tombstones.keys()) {
      this.#tombstones.delete(oldest);
      return;
    }
  }

  #isIdle(id: number): boolean {
    return id % 2 === this.#nextStream % 2 ? id >= this.#nextStream : id > this.#lastPeerStream;
  }

  #glitch(cost: number): void {
    if (!this.#glitches.take(cost, this.#now)) return this.#fault(Code.CALM, "too many unreasonable requests");
    if (this.#calmWarned || this.#glitches.level(this.#now) > this.#limits.glitches.capacity / 4) return;
    this.#calmWarned = true;
    this.goAway(Code.CALM, "slow down", this.#now);
  }

  #release(entry: Entry): void {
    if (entry.lent !== undefined) this.#emit({ type: "released", memory: entry.lent });
  }

  #disconnect(connection: Connection, code: number, reason: string): void {
    if (connection.closing !== undefined) return;
    connection.closing = { code, reason };
    const frame = encodeUnsequenced({ type: "closeConnection", received: this.#confirmable, code, reason });
    this.#transmit(connection, frame);
    this.#emit({ type: "disconnect", connection: connection.id, code, reason });
  }

  /** Ends the session at both ends. */
  #fault(code: number, reason: string): void {
    if (this.#ended !== undefined) return;
    const frame = encodeSequenced(this.#log.end, { type: "end", code });
    for (const connection of this.#connections.values()) {
      if (connection.closing !== undefined) continue;
      this.#transmit(connection, frame);
      this.#disconnect(connection, code, reason);
    }
    this.#finish(code, reason, false);
  }

  #finish(code: number, reason: string, byPeer: boolean): void {
    if (this.#ended !== undefined) return;
    this.#ended = { code, reason, byPeer };
    for (const stream of this.#streams.values())
      if (stream.over) this.#removeIfOver(stream);
      else this.#die(stream);
    this.#log.clear((entry) => this.#release(entry));
    this.#emit({ type: "ended", code, reason, byPeer });
  }

  #control(control: Control): void {
    this.#controls.push(control);
  }

  #emit(output: Output): void {
    this.#outputs.push(output);
  }
}

/** What the peer may send on a stream it opens. */
function creditOf(limits: SessionLimits): number {
  return Math.max(limits.initialCreditBytes, INITIAL_CREDIT_BYTES);
}

/** When a connection was last heard; the one in use counts as heard a little later, so that two good ones do not take turns. */
function worth(connection: Connection, inUse: number | undefined): number {
  return connection.id === inUse ? connection.heardAt + HEARD_LATER_MS : connection.heardAt;
}
