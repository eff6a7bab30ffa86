/**
 * A client by hand: sends the octets a test wants sent, cut as the test wants them cut, and hears what comes. It knows frames so far as to
 * tell streams apart, and nothing of what a client ought to do.
 * @module
 */
import assert from "node:assert/strict";
import { connect as connectSocket, type NetConnectOpts, type Socket } from "node:net";
import { setImmediate as turn } from "node:timers/promises";
import { connect as connectTls, type TLSSocket } from "node:tls";
import {
  Code,
  encodeSequenced,
  encodeUnsequenced,
  type Frame,
  FrameReader,
  LINE_BYTES_MAX,
  type SequencedContent,
} from "../../src/wire/index.ts";
import { within } from "../support/deadline.ts";

/** How octets are cut on their way out: how they are must make no difference (PROTOCOL §3.1, §8.1). */
export type Cut = "whole" | "octet by octet";
/** See {@link Cut}. */
export const CUTS: readonly Cut[] = ["whole", "octet by octet"];

/** The server's own lines are no longer than this (PROTOCOL §3.1). */
const SERVER_LINE_BYTES_MAX = 4_096;

/** One direction of octets as a test hears it: what came and was not asked for yet, and how it ended. */
export class Ear {
  #heard = Buffer.alloc(0);
  #end: "open" | "ended" | Error = "open";
  #changed = Promise.withResolvers<void>();
  #onward: ((octets: Uint8Array) => void) | undefined;

  /** Octets come. */
  hear(octets: Uint8Array): void {
    if (this.#onward !== undefined) return this.#onward(octets);
    this.#heard = Buffer.concat([this.#heard, octets]);
    this.#change();
  }

  /** The direction has ended: "ended" in order, or with an error. */
  end(how: "ended" | Error): void {
    if (this.#end === "open") this.#end = how;
    this.#change();
  }

  /** The next octets, so many of them. */
  take(count: number): Promise<Buffer> {
    return this.#wait(`${count} octets`, () => {
      if (this.#heard.length < count) return undefined;
      const taken = this.#heard.subarray(0, count);
      this.#heard = this.#heard.subarray(count);
      return taken;
    });
  }

  /** The next line, without its CRLF. */
  async line(): Promise<string> {
    const line = await this.#wait("a line", () => {
      const end = this.#heard.indexOf("\r\n");
      if (end < 0) return undefined;
      const taken = this.#heard.toString("latin1", 0, end);
      this.#heard = this.#heard.subarray(end + 2);
      return taken;
    });
    assert.match(line, /^[\x20-\x7e]*$/, "a server's line is printable");
    assert.ok(line.length <= SERVER_LINE_BYTES_MAX && (line.startsWith("- ") || line.length <= LINE_BYTES_MAX));
    return line;
  }

  /** Everything that has come and was not asked for. */
  rest(): Buffer {
    const rest = this.#heard;
    this.#heard = Buffer.alloc(0);
    return rest;
  }

  /** From here on somebody else hears: what has come already, and what comes. */
  divert(onward: (octets: Uint8Array) => void): void {
    this.#onward = onward;
    onward(this.rest());
  }

  /** Waits for an end in order, with nothing before it that was not asked for. */
  async over(): Promise<void> {
    await this.#wait("the end", () => (this.#end === "ended" ? true : undefined));
    assert.equal(this.#heard.toString("latin1"), "", "nothing is said before the end but what was asked for");
  }

  /** Waits for an end of any kind, and gives its error. */
  async lost(): Promise<Error | undefined> {
    while (this.#end === "open") await within(this.#changed.promise, "an end");
    return this.#end instanceof Error ? this.#end : undefined;
  }

  async #wait<T>(what: string, look: () => T | undefined): Promise<T> {
    for (;;) {
      const found = look();
      if (found !== undefined) return found;
      const seen = (): string => `; heard ${JSON.stringify(this.#heard.toString("latin1").slice(0, 400))}`;
      if (this.#end !== "open") {
        const why = this.#end === "ended" ? "the server ended" : `the server broke off: ${this.#end.message}`;
        throw new Error(`Waited in vain for ${what}: ${why}${seen()}`);
      }
      await within(this.#changed.promise, what, { ms: 10_000, seen });
    }
  }

  #change(): void {
    this.#changed.resolve();
    this.#changed = Promise.withResolvers();
  }
}

/** A conversation with a server, over whatever carries it. */
export interface Conversation extends AsyncDisposable {
  readonly ear: Ear;
  /** Sends octets, cut as the conversation is unless said otherwise. */
  say(octets: Uint8Array, cut?: Cut): Promise<void>;
  /** Ends our direction. */
  end(): Promise<void>;
  /** Waits for the server's end, and that it is one in order: FIN, close_notify, FIN in a stream. */
  over(): Promise<void>;
}

/** A connection. */
export class Connection implements Conversation {
  readonly cut: Cut;
  #socket: Socket;
  ear: Ear;
  #ended = false;

  private constructor(socket: Socket, cut: Cut) {
    this.cut = cut;
    this.#socket = socket;
    this.ear = listen(socket);
  }

  /** Connects. */
  static async open(at: NetConnectOpts, cut: Cut = "whole"): Promise<Connection> {
    const socket = connectSocket({ ...at, allowHalfOpen: true, noDelay: true });
    await within(heardOf(socket, "connect"), "a connection");
    return new Connection(socket, cut);
  }

  /** The socket, for what only sockets can do. */
  get socket(): Socket {
    return this.#socket;
  }

  async say(octets: Uint8Array, cut = this.cut): Promise<void> {
    for (const piece of pieces(octets, cut)) {
      this.#socket.write(piece);
      if (cut !== "whole") await turn();
    }
  }

  async end(): Promise<void> {
    this.#ended = true;
    this.#socket.end();
  }

  async over(): Promise<void> {
    await this.ear.over();
    if (this.#ended) return;
    // A server that closed in order reads on until we follow; one that did not would answer this with a reset.
    const closed = heardOf(this.#socket, "close");
    this.#socket.end("What comes behind its end is of no interest to it.\r\n");
    await within(closed, "an orderly close");
  }

  /** Begins TLS on the connection, as far as the server will have it. */
  async secure(options: { readonly sni?: string; readonly alpn?: readonly string[] } = {}): Promise<TLSSocket> {
    const { sni, alpn = ["fived/1"] } = options;
    assert.equal(this.ear.rest().length, 0, "nothing comes between the answer to TLS and the handshake");
    this.#socket.removeAllListeners();
    const tls = connectTls({
      socket: this.#socket,
      rejectUnauthorized: false,
      ALPNProtocols: [...alpn],
      ...(sni === undefined ? {} : { servername: sni }),
    });
    await within(heardOf(tls, "secureConnect"), "a handshake");
    this.#socket = tls;
    this.ear = listen(tls);
    return tls;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#socket.destroy();
  }
}

function listen(socket: Socket): Ear {
  const ear = new Ear();
  socket.on("data", (octets) => ear.hear(octets));
  socket.on("end", () => ear.end("ended"));
  socket.on("error", (error) => ear.end(error));
  socket.on("close", () => ear.end(new Error("closed without an end")));
  return ear;
}

/** Resolves at the event, rejects at an error before it. */
async function heardOf(socket: Socket, event: "connect" | "secureConnect" | "close"): Promise<void> {
  await new Promise<void>((resolve, reject) => {
    const settle = (): void => {
      socket.off("error", reject).off("close", gone);
      resolve();
    };
    const gone = (): void => reject(new Error(`closed before "${event}"`));
    socket.once("error", reject);
    if (event !== "close") socket.once("close", gone);
    socket.once(event, settle);
  });
}

function pieces(octets: Uint8Array, cut: Cut): readonly Uint8Array[] {
  return cut === "whole" ? [octets] : Array.from(octets, (octet) => Uint8Array.of(octet));
}

/** The client's end of a session that a connection has become. */
export class Frames {
  readonly #connection: Connection;
  readonly #reader = new FrameReader();
  readonly #streams = new Map<number, Ear>();
  readonly #resets = new Map<number, PromiseWithResolvers<number>>();
  /** What the server has said of itself, once it has. */
  readonly settings = Promise.withResolvers<ReadonlyMap<number, number>>();
  /** The server's GOAWAY, when it has come. */
  readonly goaway = Promise.withResolvers<{ readonly lastStream: number; readonly code: number }>();
  /** The code of the server's END, once it has come. */
  ended: number | undefined;
  /** Position behind the server's last frame, and behind ours. */
  received = 0;
  sent = 0;

  /** Hears frames from here on: behind the server's `+` to MULTIPLEX. */
  constructor(connection: Connection) {
    this.#connection = connection;
    connection.ear.divert((octets) => this.#hear(octets));
  }

  /** What the server says on a stream. */
  stream(id: number): Ear {
    const known = this.#streams.get(id);
    if (known !== undefined) return known;
    const ear = new Ear();
    this.#streams.set(id, ear);
    return ear;
  }

  /** The code with which the server resets a stream, when it does. */
  reset(id: number): Promise<number> {
    return within(this.#resetOf(id).promise, `a RESET of stream ${id}`, { ms: 10_000 });
  }

  /** Says frames of our log, in one write. */
  async say(...contents: readonly SequencedContent[]): Promise<void> {
    await this.#connection.say(Buffer.concat(contents.map((content) => this.#numbered(content))));
  }

  /** The octets of the next frame of our log. */
  #numbered(content: SequencedContent): Uint8Array {
    const octets = encodeSequenced(this.sent, content);
    this.sent += octets.length;
    return octets;
  }

  /** Acknowledges what has come. */
  async acknowledge(): Promise<void> {
    const { received } = this;
    await this.#connection.say(encodeUnsequenced({ type: "ack", received, limit: received + 1_048_576, held: [] }));
  }

  #resetOf(id: number): PromiseWithResolvers<number> {
    const known = this.#resets.get(id);
    if (known !== undefined) return known;
    const reset = Promise.withResolvers<number>();
    this.#resets.set(id, reset);
    return reset;
  }

  #hear(octets: Uint8Array): void {
    this.#reader.push(Buffer.from(octets));
    for (let frame = this.#reader.next(); frame !== undefined; frame = this.#reader.next()) {
      assert.ok(frame.type !== "error", "the server sends frames");
      this.#take(frame);
    }
  }

  #take(frame: Frame): void {
    if (!("seq" in frame)) return;
    assert.equal(frame.seq, this.received, "frames of one connection are numbered without a gap");
    assert.equal(frame.seq === 0, frame.type === "settings" && this.received === 0, "the first frame is SETTINGS");
    this.received += frame.size;
    if (frame.type === "settings") this.settings.resolve(frame.entries);
    if (frame.type === "goaway") this.goaway.resolve({ lastStream: frame.lastStream, code: frame.code });
    if (frame.type === "end") this.ended = frame.code;
    if (frame.type === "data") {
      const ear = this.stream(frame.stream);
      ear.hear(frame.payload);
      if (frame.fin) ear.end("ended");
    }
    if (frame.type !== "reset") return;
    this.#resetOf(frame.stream).resolve(frame.code);
    this.stream(frame.stream).end(new Error(`RESET ${frame.code}`));
  }
}

/** A stream of a session as a conversation: the first line goes with the OPEN, what follows as DATA. */
export class Stream implements Conversation {
  readonly ear: Ear;
  readonly #frames: Frames;
  readonly #connection: Connection;
  readonly #cut: Cut;
  readonly #id: number;
  #offset: number | undefined;
  #ended = false;

  constructor(connection: Connection, frames: Frames, id: number, cut: Cut) {
    this.#connection = connection;
    this.#frames = frames;
    this.#id = id;
    this.#cut = cut;
    this.ear = frames.stream(id);
  }

  async say(octets: Uint8Array): Promise<void> {
    const frames: SequencedContent[] = [];
    let rest = octets;
    if (this.#offset === undefined) {
      const line = Buffer.from(octets).indexOf("\r\n");
      assert.ok(line > 0, "a stream begins with a line");
      frames.push({ type: "open", stream: this.#id, credit: 65_536, request: octets.subarray(0, line) });
      this.#offset = 0;
      rest = octets.subarray(line + 2);
    }
    for (const payload of rest.length === 0 ? [] : pieces(rest, this.#cut)) {
      frames.push({ type: "data", stream: this.#id, offset: this.#offset, fin: false, payload });
      this.#offset += payload.length;
    }
    await this.#frames.say(...frames);
  }

  async end(): Promise<void> {
    this.#ended = true;
    const offset = this.#offset ?? 0;
    await this.#frames.say({ type: "data", stream: this.#id, offset, fin: true, payload: new Uint8Array(0) });
  }

  async over(): Promise<void> {
    await this.ear.over();
    // Our direction is still open: the server says that it reads no more (PROTOCOL §3.7).
    if (!this.#ended) assert.equal(await this.#frames.reset(this.#id), Code.NO_ERROR);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#connection[Symbol.asyncDispose]();
  }
}

/** MULTIPLEX on a connection: the session that it is from then on. */
export async function multiplex(connection: Connection): Promise<Frames> {
  await connection.say(Buffer.from("MULTIPLEX\r\n"));
  assert.equal(await connection.ear.line(), "+ SUCCESS");
  const frames = new Frames(connection);
  await frames.say({ type: "settings", entries: new Map([[1, 65_512]]) });
  return frames;
}

/** What can carry a conversation whose octets do not say what carries them. */
export const CARRIERS = {
  "bare plaintext": (at, cut) => Connection.open(at, cut),
  "TLS from the first octet": async (at, cut) => {
    const connection = await Connection.open(at, cut);
    await connection.secure();
    return connection;
  },
  "TLS in-band": secureInBand,
  "a stream in plaintext": async (at, cut) => streamOn(await Connection.open(at), cut),
  "a stream in TLS": async (at, cut) => streamOn(await secureInBand(at, "whole"), cut),
} as const satisfies Record<string, (at: NetConnectOpts, cut: Cut) => Promise<Conversation>>;

async function secureInBand(at: NetConnectOpts, cut: Cut): Promise<Connection> {
  const connection = await Connection.open(at, cut);
  await connection.say(Buffer.from("TLS\r\n"));
  assert.equal(await connection.ear.line(), "+ SUCCESS");
  await connection.secure();
  return connection;
}

async function streamOn(connection: Connection, cut: Cut): Promise<Stream> {
  return new Stream(connection, await multiplex(connection), 1, cut);
}
