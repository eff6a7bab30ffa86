/**
 * A peer by hand: says to one {@link Session} whatever a test wants said, at a time of its choice, and keeps what the session answers. It
 * follows no rule of its own.
 * @module
 */
import { type Output, SESSION_LIMITS, Session, type SessionLimits } from "../../src/session/index.ts";
import {
  encodeSequenced,
  encodeUnsequenced,
  type Frame,
  FrameReader,
  type SequencedContent,
  Setting,
  type UnsequencedFrame,
} from "../../src/wire/index.ts";

/** What a peer that wants nothing special says of itself. */
export const SETTINGS: SequencedContent = {
  type: "settings",
  entries: new Map([
    [Setting.payloadBytesMax, 65_512],
    [Setting.streamsMax, 100],
  ]),
};

/** Options of {@link Peer}; `role` is that of the session under test. */
export interface PeerOptions {
  readonly role?: "client" | "server";
  readonly retain?: boolean;
  readonly limits?: Partial<SessionLimits>;
}

/** The peer of one session. */
export class Peer {
  readonly session: Session;
  now = 1_000;
  /** Position behind what was said in order. */
  end = 0;
  /** Everything the session has wanted or told, but the frames. */
  outputs: Output[] = [];
  /** Frames the session has sent, by connection. */
  heard: { readonly connection: number; readonly frame: Frame }[] = [];
  readonly #readers = new Map<number, FrameReader>();

  constructor(options: PeerOptions = {}) {
    const { role = "server", retain = false, limits = {} } = options;
    this.session = new Session({ role, retain, limits: { ...SESSION_LIMITS, ...limits } }, this.now);
  }

  /** A connection comes up, with so much room; the session's first words are heard. */
  connect(connection = 1, room = Number.POSITIVE_INFINITY): this {
    this.#readers.set(connection, new FrameReader());
    this.session.handle({ type: "connected", connection }, this.now);
    return this.room(room, connection);
  }

  /** Connects, and says SETTINGS as the protocol wants it. */
  greet(connection = 1, room = Number.POSITIVE_INFINITY): this {
    return this.connect(connection, room).say(SETTINGS);
  }

  /** The connection has so much room. */
  room(bytes: number, connection = 1): this {
    this.session.handle({ type: "room", connection, bytes }, this.now);
    return this.drain();
  }

  /** The connection is gone. */
  lose(connection = 1): this {
    this.session.handle({ type: "lost", connection }, this.now);
    return this.drain();
  }

  /** Says frames of the log in their order. */
  say(...contents: SequencedContent[]): this {
    const pieces = contents.map((content) => {
      const octets = encodeSequenced(this.end, content);
      this.end += octets.length;
      return octets;
    });
    return this.raw(Buffer.concat(pieces));
  }

  /** Says a frame of the log at a place of choice. */
  sayAt(seq: number, content: SequencedContent, connection = 1): this {
    return this.raw(encodeSequenced(seq, content), connection);
  }

  /** Says a frame about the connection. */
  tell(frame: UnsequencedFrame, connection = 1): this {
    return this.raw(encodeUnsequenced(frame), connection);
  }

  /** Octets, in memory that is overwritten as soon as the session has had its turn. */
  raw(octets: Uint8Array, connection = 1): this {
    const memory = Buffer.from(octets);
    this.session.handle({ type: "received", connection, bytes: memory, kept: false }, this.now);
    this.drain();
    memory.fill(0xee);
    return this;
  }

  /** Acknowledges everything the session has said, with the log limit it is given. */
  acknowledge(limit = Number.MAX_SAFE_INTEGER, connection = 1): this {
    return this.tell({ type: "ack", received: this.session.positions.sent, limit, held: [] }, connection);
  }

  /** Time passes; the session is woken whenever it wants to be. */
  pass(ms: number): this {
    const until = this.now + ms;
    let atOnce = 0;
    for (let at = this.session.deadline; at <= until; at = this.session.deadline) {
      atOnce = at > this.now ? 0 : atOnce + 1;
      if (atOnce > 100) throw new Error("The session wants to be woken without end");
      this.now = Math.max(this.now, at);
      this.session.handle({ type: "tick" }, this.now);
      this.drain();
    }
    this.now = until;
    return this;
  }

  /** Takes what the session wants. */
  drain(): this {
    for (let output = this.session.poll(); output !== undefined; output = this.session.poll()) {
      if (output.type !== "transmit") {
        // Octets are good only until the session is asked for more.
        this.outputs.push(output.type === "data" ? { ...output, bytes: new Uint8Array(output.bytes) } : output);
        continue;
      }
      const { connection } = output;
      const reader = this.#readers.get(connection);
      if (reader === undefined) throw new Error(`The session speaks on connection ${connection}, which never was`);
      reader.push(new Uint8Array(output.bytes));
      for (let frame = reader.next(); frame !== undefined; frame = reader.next()) {
        if (frame.type === "error") throw new Error(`The session sent what is no frame: ${frame.detail}`);
        this.heard.push({ connection, frame });
      }
    }
    return this;
  }

  /** The frames of one type that were heard. */
  frames<T extends Frame["type"]>(type: T): Extract<Frame, { type: T }>[] {
    const frames: Extract<Frame, { type: T }>[] = [];
    for (const { frame } of this.heard) if (isOf(frame, type)) frames.push(frame);
    return frames;
  }

  /** The outputs of one type. */
  told<T extends Output["type"]>(type: T): Extract<Output, { type: T }>[] {
    const told: Extract<Output, { type: T }>[] = [];
    for (const output of this.outputs) if (isOf(output, type)) told.push(output);
    return told;
  }

  /** Octets of payload in the DATA of a stream that were heard. */
  octetsOn(stream: number): number {
    return this.frames("data")
      .filter((frame) => frame.stream === stream)
      .reduce((sum, frame) => sum + frame.payload.length, 0);
  }

  /** The code the session has ended with; undefined while it lives. */
  ended(): number | undefined {
    return this.session.ended?.code;
  }

  /** Forgets what was heard and told so far. */
  forget(): this {
    this.heard = [];
    this.outputs = [];
    return this;
  }
}

function isOf<U extends { readonly type: string }, T extends U["type"]>(
  value: U,
  type: T,
): value is Extract<U, { type: T }> {
  return value.type === type;
}

/** DATA. */
export function data(
  stream: number,
  offset: number,
  payload: Uint8Array | number | string,
  fin = false,
): SequencedContent {
  const octets = typeof payload === "number" ? new Uint8Array(payload).fill(0x61) : Buffer.from(payload);
  return { type: "data", stream, offset, fin, payload: octets };
}

/** OPEN. */
export function open(stream: number, credit = 65_536, request = "echo"): SequencedContent {
  return { type: "open", stream, credit, request: Buffer.from(request) };
}

/** Octets that contents take in a log. */
export function sizeOf(content: SequencedContent): number {
  return encodeSequenced(0, content).length;
}
