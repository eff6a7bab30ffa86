/**
 * Enemies of a server: who says whatever octets a test wants said, as fast as the server takes them, and reads only when told to. What the
 * server answers is counted rather than kept, since a flood has many answers. They follow no rule.
 * @module
 */
import { connect as connectSocket, type NetConnectOpts, type Socket } from "node:net";
import { connect as connectTls } from "node:tls";
import {
  encodeSequenced,
  encodeUnsequenced,
  type Frame,
  FrameReader,
  type SequencedContent,
  Setting,
  type UnsequencedFrame,
} from "../../src/wire/index.ts";
import { PATIENCE_MS, within } from "../support/deadline.ts";

/** Characters kept of what was heard: answers are short, and floods of them are only counted. */
const KEPT_CHARACTERS_MAX = 256 * 1024;
/** What everybody may say before he has heard a log limit (PROTOCOL §6.4). */
const LOG_WINDOW_BYTES = 1024 * 1024;
/** A session that acknowledges does so after so much: well before the server's log is full. */
const ACKNOWLEDGED_BYTES = 128 * 1024;

/** How an enemy connects. */
export interface Approach {
  /** Address to come from: another one of 127.0.0.0/8 is another source. */
  readonly from?: string;
  /** TLS from the first octet, with this name in SNI. */
  readonly tls?: {
    readonly sni?: string;
    readonly alpn?: readonly string[];
    /** A client certificate to show, and its key, in PEM. */
    readonly cert?: string;
    readonly key?: string;
  };
}

/** A connection of an enemy. */
export class Enemy implements AsyncDisposable {
  readonly socket: Socket;
  /** What the server has said, one character an octet. */
  said = "";
  /** How the connection ended: "open", "ended" in order, or the error's code. */
  end = "open";
  /** Who takes what arrives. */
  ear: (octets: Uint8Array) => void = (octets) => {
    if (this.said.length < KEPT_CHARACTERS_MAX) this.said += Buffer.from(octets).toString("latin1");
  };
  readonly #listeners = new Set<() => void>();

  private constructor(socket: Socket) {
    this.socket = socket;
    socket.on("data", (octets: Buffer) => {
      this.ear(octets);
      this.changed();
    });
    socket.on("end", () => this.#over("ended"));
    socket.on("error", (error) => this.#over("code" in error ? String(error.code) : error.message));
    socket.on("close", () => this.#over("closed"));
    socket.on("drain", () => this.changed());
  }

  /** Connects. */
  static async approach(at: NetConnectOpts, { from, tls }: Approach = {}): Promise<Enemy> {
    const local = from === undefined ? {} : { localAddress: from };
    const socket = connectSocket({ ...at, ...local, allowHalfOpen: true, noDelay: true });
    if (tls === undefined) return await Enemy.#met(socket, "connect");
    return await Enemy.#met(secured(socket, tls), "secureConnect");
  }

  static async #met(socket: Socket, event: "connect" | "secureConnect"): Promise<Enemy> {
    const enemy = new Enemy(socket);
    let met = false;
    socket.once(event, () => {
      met = true;
      enemy.changed();
    });
    await enemy.until(() => met || enemy.end !== "open", "a connection");
    if (!met) throw new Error(`Cannot approach: the connection was ${enemy.end}`);
    return enemy;
  }

  /** TLS over the connection, when the server is ready for it; a new enemy, who has heard nothing yet. */
  async secure(tls: NonNullable<Approach["tls"]> = {}): Promise<Enemy> {
    for (const event of ["data", "end", "error", "close", "drain"]) this.socket.removeAllListeners(event);
    return await Enemy.#met(secured(this.socket, tls), "secureConnect");
  }

  /** Sends text as it is, or octets. False: the server has not taken what was sent before. */
  say(words: string | Uint8Array): boolean {
    return typeof words === "string" ? this.socket.write(words, "latin1") : this.socket.write(words);
  }

  /** Says one thing after the other, as fast as the server takes them, until the connection ends or nothing is left to be said. */
  async flood(next: () => Uint8Array | undefined): Promise<void> {
    while (this.end === "open") {
      const octets = next();
      if (octets === undefined) return;
      if (this.say(octets)) await new Promise<void>((resolve) => setImmediate(resolve));
      else {
        this.changed(); // whoever waits for that
        await this.until(() => this.end !== "open" || !this.socket.writableNeedDrain, "room to say more");
      }
    }
  }

  /** Waits until something holds; it is looked at whenever something happens here. */
  async until(holds: () => boolean, what: string, ms = PATIENCE_MS): Promise<void> {
    if (holds()) return;
    const { promise, resolve } = Promise.withResolvers<void>();
    const look = (): void => {
      if (holds()) resolve();
    };
    this.#listeners.add(look);
    try {
      await within(promise, what, { ms, seen: () => `; the connection is ${this.end}, it said ${this.shown}` });
    } finally {
      this.#listeners.delete(look);
    }
  }

  /** Waits for the next line, and takes it. */
  async line(): Promise<string> {
    await this.until(() => this.said.includes("\r\n") || this.end !== "open", "a line");
    const end = this.said.indexOf("\r\n");
    if (end < 0) throw new Error(`Waited in vain for a line: the connection is ${this.end}, it said ${this.shown}`);
    const line = this.said.slice(0, end);
    this.said = this.said.slice(end + 2);
    return line;
  }

  /** Everything the server says until its end, which has to be in order. */
  async rest(): Promise<string> {
    await this.over();
    if (this.end !== "ended")
      throw new Error(`The connection did not end in order: ${this.end}, it said ${this.shown}`);
    return this.said;
  }

  /** Waits for the end, of whatever kind. */
  async over(ms = PATIENCE_MS): Promise<string> {
    await this.until(() => this.end !== "open", "the end of the connection", ms);
    return this.end;
  }

  /** From here on what arrives stays with the kernel, and then with the server. */
  stopReading(): void {
    this.socket.pause();
  }

  readAgain(): void {
    this.socket.resume();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.socket.destroy();
  }

  /** What was said, for people. */
  get shown(): string {
    return JSON.stringify(this.said.slice(0, 400));
  }

  /** Something happened: whoever waits looks again. */
  changed(): void {
    for (const look of this.#listeners) look();
  }

  #over(how: string): void {
    if (this.end === "open") this.end = how;
    this.changed();
  }
}

function secured(socket: Socket, { sni, alpn = ["fived/1"], ...shown }: NonNullable<Approach["tls"]>): Socket {
  const servername = sni === undefined ? {} : { servername: sni };
  return connectTls({ socket, rejectUnauthorized: false, ALPNProtocols: [...alpn], ...servername, ...shown });
}

/** A session of an enemy. */
export class EnemySession implements AsyncDisposable {
  enemy: Enemy;
  #reader = new FrameReader();
  /** Position behind our last frame, and behind the server's. */
  sent = 0;
  received = 0;
  /** Position up to which the server lets us speak. */
  limit = LOG_WINDOW_BYTES;
  /** How many frames of each type were heard. */
  readonly counts = new Map<Frame["type"], number>();
  /** Octets heard on each stream, and the first of them as text. */
  readonly octets = new Map<number, number>();
  readonly texts = new Map<number, string>();
  /** Offsets up to which the server lets us send, where it has said so. */
  readonly credits = new Map<number, number>();
  /** Streams whose end was heard, and codes of those that were reset. */
  readonly finished = new Set<number>();
  readonly resets = new Map<number, number>();
  /** Codes of the END, CLOSE_CONN and GOAWAY that were heard last. */
  ended: number | undefined;
  closed: number | undefined;
  goneAway: number | undefined;
  settings: ReadonlyMap<number, number> = new Map();
  /** Acknowledge what comes, as peers do. */
  acknowledges = true;
  #unacknowledged = 0;

  private constructor(enemy: Enemy) {
    this.enemy = enemy;
  }

  /** MULTIPLEX on a new connection, and the SETTINGS a peer has to begin with; the server's were heard. */
  static async approach(at: NetConnectOpts, approach: Approach = {}): Promise<EnemySession> {
    return await EnemySession.on(await Enemy.approach(at, approach));
  }

  /** The same on a connection that is there. */
  static async on(enemy: Enemy): Promise<EnemySession> {
    const session = new EnemySession(enemy);
    enemy.say("MULTIPLEX\r\n");
    const line = await enemy.line();
    if (line !== "+ SUCCESS") throw new Error(`Cannot begin a session: the server says ${line}`);
    const first = Buffer.from(enemy.said, "latin1");
    enemy.said = "";
    enemy.ear = (octets) => session.#hear(octets);
    session.#hear(first);
    session.say({ type: "settings", entries: new Map([[Setting.payloadBytesMax, 65_512]]) });
    await session.until(() => session.settings.size > 0, "the server's SETTINGS");
    return session;
  }

  /** Goes on over a connection that was attached, behind what was heard before. */
  goOn(enemy: Enemy): void {
    this.enemy = enemy;
    this.#reader = new FrameReader();
    const first = Buffer.from(enemy.said, "latin1");
    enemy.said = "";
    enemy.ear = (octets) => this.#hear(octets);
    this.#hear(first);
  }

  /** The octets of frames of our log, each at its place. */
  framed(...contents: readonly SequencedContent[]): Buffer {
    const frames = contents.map((content) => {
      const octets = encodeSequenced(this.sent, content);
      this.sent += octets.length;
      return octets;
    });
    return Buffer.concat(frames);
  }

  /** Says frames of our log in one write. */
  say(...contents: readonly SequencedContent[]): boolean {
    return this.enemy.say(this.framed(...contents));
  }

  /** Says frames of our log when the server's log limit lets us. */
  async sayInTime(...contents: readonly SequencedContent[]): Promise<void> {
    const octets = this.framed(...contents);
    await this.until(() => this.sent <= this.limit || this.enemy.end !== "open", "room in the log");
    this.enemy.say(octets);
  }

  /** Says a frame about the connection. */
  tell(frame: UnsequencedFrame): boolean {
    return this.enemy.say(encodeUnsequenced(frame));
  }

  /** Waits until something holds. */
  until(holds: () => boolean, what: string, ms?: number): Promise<void> {
    return this.enemy.until(holds, what, ms);
  }

  /** Waits until a stream has said so much, or something that matches. */
  hears(stream: number, what: RegExp | number): Promise<void> {
    return this.until(
      () =>
        typeof what === "number" ? (this.octets.get(stream) ?? 0) >= what : what.test(this.texts.get(stream) ?? ""),
      `${what} on stream ${stream}, which said ${JSON.stringify(this.texts.get(stream)?.slice(0, 200))}`,
    );
  }

  /** Waits for a RESET of a stream; its code. */
  async reset(stream: number): Promise<number> {
    await this.until(() => this.resets.has(stream), `a RESET of stream ${stream}`);
    return this.resets.get(stream) ?? -1;
  }

  /** Waits for the END of the session; its code. */
  async over(): Promise<number> {
    await this.until(() => this.ended !== undefined || this.enemy.end !== "open", "the end of the session");
    return this.ended ?? -1;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.enemy[Symbol.asyncDispose]();
  }

  #hear(octets: Uint8Array): void {
    this.#reader.push(Buffer.from(octets));
    for (let frame = this.#reader.next(); frame !== undefined; frame = this.#reader.next()) {
      if (frame.type === "error") throw new Error(`The server sent what is no frame: ${frame.detail}`);
      this.#take(frame);
    }
    if (this.acknowledges && this.#unacknowledged > ACKNOWLEDGED_BYTES) this.acknowledge();
  }

  /** Acknowledges what has come. */
  acknowledge(): void {
    this.#unacknowledged = 0;
    this.tell({ type: "ack", received: this.received, limit: this.received + 8 * 1024 * 1024, held: [] });
  }

  #take(frame: Frame): void {
    this.counts.set(frame.type, (this.counts.get(frame.type) ?? 0) + 1);
    if ("seq" in frame) {
      if (frame.seq < this.received) return; // it comes again, as it was said to be missing
      this.received += frame.size;
      this.#unacknowledged += frame.size;
    }
    switch (frame.type) {
      case "data": {
        this.octets.set(frame.stream, (this.octets.get(frame.stream) ?? 0) + frame.payload.length);
        const text = this.texts.get(frame.stream) ?? "";
        if (text.length < 1_024) this.texts.set(frame.stream, text + Buffer.from(frame.payload).toString("latin1"));
        if (frame.fin) this.finished.add(frame.stream);
        return;
      }
      case "ack":
        this.limit = Math.max(this.limit, frame.limit);
        return;
      case "credit":
        this.credits.set(frame.stream, frame.limit);
        return;
      case "reset":
        this.resets.set(frame.stream, frame.code);
        return;
      case "settings":
        this.settings = frame.entries;
        return;
      case "goaway":
        this.goneAway = frame.code;
        return;
      case "end":
        this.ended = frame.code;
        return;
      case "closeConnection":
        this.closed = frame.code;
        return;
      default: // PINGs and their kind are counted, and that is all
    }
  }
}

/** OPEN of a stream. */
export function open(stream: number, request: string, credit = 65_536): SequencedContent {
  return { type: "open", stream, credit, request: Buffer.from(request, "latin1") };
}

/** DATA. */
export function data(stream: number, offset: number, payload: string | Uint8Array, fin = false): SequencedContent {
  return { type: "data", stream, offset, fin, payload: Buffer.from(payload) };
}
