/**
 * What one session may cost, and how long it waits (PROTOCOL §9). Every number is a setting; these are the defaults.
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
  /** Connections the session may have at once. */
  readonly connections: number;
}

/** Limits of a session whose user is known, and of our own end of a session that we opened. */
export const SESSION_LIMITS: SessionLimits = {
  streams: 100,
  budgetBytes: 8 * MiB,
  initialCreditBytes: INITIAL_CREDIT_BYTES,
  windowBytesMax: 4 * MiB,
  logWindowBytesMax: 8 * MiB,
  connections: 4,
};

/** Limits of a session of nobody: enough for a person trying a public service, little for a crowd. */
export const ANONYMOUS_LIMITS: SessionLimits = { ...SESSION_LIMITS, streams: 8, budgetBytes: 512 * KiB };

/** A silent connection is asked for a sign of life after this long … */
export const KEEPALIVE_MS = 30 * SECOND;
/** … and is dead when nothing at all was heard for this long: two questions went unanswered. */
export const DEAD_PEER_MS = 3 * KEEPALIVE_MS;
/** A gap in the peer's log is given up after this long: longer than DEAD_PEER_MS, as the connection that holds it may be dying. */
export const GAP_MS = DEAD_PEER_MS + 30 * SECOND;
/** Frames held out of order: more is no bonding but an attack on our memory. */
export const GAPS_MAX = 64;
/** A connection that takes nothing, or acknowledges nothing, for this long is closed (abuse cases F02, F11). */
export const STALL_MS = 60 * SECOND;
/** A stream whose peer grants no credit, or that lies half-closed and idle, is reset after this long (F01, R13). */
export const STREAM_STALL_MS = 600 * SECOND;
/** Received octets are acknowledged after this long at the latest. */
export const ACK_DELAY_MS = 50;
/** Less credit than this is waited out for {@link DRIBBLE_MS}: else a peer could make us send single octets (F03). */
export const DRIBBLE_BYTES = 4 * KiB;
/** How long little credit is waited out. */
export const DRIBBLE_MS = 200;
/** Control frames that may wait for a connection before we stop reading the peer that causes them (F09). */
export const CONTROLS_MAX = 1_000;
/** Misbehaviour that is legal once and an attack in bulk takes from this; empty is CALM (R01, F06). */
export const GLITCHES = { capacity: 1_000, perSecond: 33 };
/** PINGs beyond this rate are glitches (R06). */
export const PINGS = { capacity: 10, perSecond: 2 };
/** Streams of ours whose late frames are excused after we reset them. */
export const TOMBSTONES_MAX = 1_000;
/** Data that a sender leaves waiting before it is asked to stop: one flush of four full frames. */
export const SEND_QUEUE_BYTES = 4 * PAYLOAD_BYTES_MAX;
/** Until a round trip was measured it counts as this long: windows may then grow early rather than late. */
export const ROUND_TRIP_MS_ASSUMED = 100;
