/**
 * What one session may cost, and how long it waits (PROTOCOL §9.5). Every number is a setting; these are the defaults.
 * @module
 */
import { PAYLOAD_BYTES_MAX } from "../wire/index.ts";

const KiB = 1_024;
const MiB = 1_024 * KiB;
const SECOND = 1_000;

/** Credit a stream starts with when nothing else was said; no end may advertise less, so a first flight can count on it. */
export const INITIAL_CREDIT_BYTES = 64 * KiB;
/** Log window both ends start with; no end may advertise less. */
export const LOG_WINDOW_BYTES = MiB;

/** So much at once, so much a second. */
export interface Rate {
  readonly capacity: number;
  readonly perSecond: number;
}

/** Bounds of one session. */
export interface SessionLimits {
  /** Streams the peer may have open at once; a slot is free again when its back end is gone (abuse case R01). */
  readonly streams: number;
  /** Credit that may be outstanding over all streams: what the peer can make us hold. */
  readonly budgetBytes: number;
  /** Credit granted on a new stream, at least {@link INITIAL_CREDIT_BYTES}. */
  readonly initialCreditBytes: number;
  /** How far one stream's window may grow. */
  readonly windowBytesMax: number;
  /** How far the log window may grow: what may be under way unacknowledged. */
  readonly logWindowBytesMax: number;
  /** What may be said and queued, over all streams, while there is no connection. */
  readonly detachedBytes: number;
  /** Connections the session may have at once. */
  readonly connections: number;
  /** What one connection may have waiting to be written. */
  readonly sendQueueBytes: number;
  /** Control frames that may wait for a connection before we stop reading the peer that causes them (F09). */
  readonly controls: number;
  /** A connection that takes nothing, or acknowledges nothing, for this long is closed (F02, F11). */
  readonly stallMs: number;
  /** A stream whose peer grants no credit, or that lies half-closed and idle, is reset after this long (F01, R13). */
  readonly streamStallMs: number;
  /** A silent connection is asked for a sign of life after this long … */
  readonly keepaliveMs: number;
  /** … and is dead when so many questions went unanswered. */
  readonly keepaliveMisses: number;
  /** Misbehaviour that is legal once and an attack in bulk takes from this; empty is CALM (R01, F06). */
  readonly glitches: Rate;
  /** PINGs beyond this rate are glitches (R06). */
  readonly pings: Rate;
}

/** Limits of a session whose user is known, and of our own end of a session that we opened. */
export const SESSION_LIMITS: SessionLimits = {
  streams: 100,
  budgetBytes: 8 * MiB,
  initialCreditBytes: INITIAL_CREDIT_BYTES,
  windowBytesMax: 4 * MiB,
  logWindowBytesMax: 8 * MiB,
  detachedBytes: MiB,
  connections: 4,
  sendQueueBytes: 256 * KiB,
  controls: 1_000,
  stallMs: 60 * SECOND,
  streamStallMs: 600 * SECOND,
  keepaliveMs: 30 * SECOND,
  keepaliveMisses: 2,
  glitches: { capacity: 1_000, perSecond: 33 },
  pings: { capacity: 10, perSecond: 2 },
};

/** Limits of a session of nobody: enough for a person trying a public service, little for a crowd. */
export const ANONYMOUS_LIMITS: SessionLimits = { ...SESSION_LIMITS, streams: 8, budgetBytes: 512 * KiB };

/** Silence after which a connection is dead: the first question goes out after one interval, each has one interval to be answered. */
export function deadPeerMs(limits: SessionLimits): number {
  return limits.keepaliveMs * (limits.keepaliveMisses + 1);
}

/** A gap in the peer's log is given up after this long: longer than a peer takes to die, as the connection that holds it may be dying. */
export function gapMs(limits: SessionLimits): number {
  return deadPeerMs(limits) + limits.keepaliveMs;
}

/** Gaps in what came early: a sender changes connections less often than this while nothing is acknowledged (PROTOCOL §7.3, §7.6). */
export const GAPS_MAX = 64;
/** Frames held out of order, however small: a connection that brings more is closed, and what it carried comes again. */
export const HELD_FRAMES_MAX = 16_384;
/** A connection that was heard so much later than the one in use is the better one: that one may be dying (D23, D24). */
export const HEARD_LATER_MS = SECOND;
/** The log window does not come down further than to this: four full frames, and what is kept free beside bulk. */
export const NARROW_WINDOW_BYTES = 256 * KiB;
/** A queue that may stand on the path under load, at least: less is not worth a smaller window, nor measured well. */
export const QUEUE_MS = 16;
/** How often the round trip is asked for under load: well below what peers allow. */
export const QUEUE_QUESTION_MS = 600;
/** Received octets are acknowledged after this long at the latest. */
export const ACK_DELAY_MS = 50;
/** Behind the end of a stream sooner: a program may be waiting to be told that all it has said has come. */
export const END_ACK_DELAY_MS = 5;
/** Less credit than this is waited out for {@link DRIBBLE_MS}: else a peer could make us send single octets (F03). */
export const DRIBBLE_BYTES = 4 * KiB;
/** How long little credit is waited out. */
export const DRIBBLE_MS = 200;
/** Streams of ours whose late frames are excused after we reset them. */
export const TOMBSTONES_MAX = 1_000;
/** Data that a sender leaves waiting before it is asked to stop: one flush of four full frames. */
export const SEND_QUEUE_BYTES = 4 * PAYLOAD_BYTES_MAX;
/** Until a round trip was measured it counts as this long: windows may then grow early rather than late. */
export const ROUND_TRIP_MS_ASSUMED = 100;
