/**
 * A client that does as little as a session needs: TLS, `MULTIPLEX`, and just enough frames (PROTOCOL §6) to open streams, close them and
 * answer a keepalive. Runs as a process of its own, so that its memory is not the server's. Written apart from `src/` on purpose: what it
 * measures shares no code with it.
 *
 * Takes orders on standard input, one a line, and answers each with one line: `ready`, or `failed` and why. Ends when its input ends.
 * ```
 *   node bench/idle-client.ts PORT
 *   sessions 500              open as many sessions
 *   detached NAME 500         open as many sessions with a ticket and one stream to a service, and lose their connections
 *   streams NAME 1000         open as many streams to a service, in the one session made for streams
 *   closeStreams              end them and wait until the server has ended them too
 *   closeSessions             end every session, that of the streams included
 * ```
 * @module
 */
import { once } from "node:events";
import { createInterface } from "node:readline";
import { setTimeout as sleep } from "node:timers/promises";
import { connect, type TLSSocket } from "node:tls";

const HEADER_BYTES = 24;
const TYPE = {
  ack: 0x81,
  ping: 0x82,
  closeConnection: 0x83,
  data: 0xc0,
  open: 0xc1,
  reset: 0xc2,
  goaway: 0xc4,
  settings: 0xc5,
  end: 0xc6,
};
const SEQUENCED = 0x40;
const FIN = 1;
const REPLY = 1;
const SETTING_STREAMS_MAX = 2;
/** Credit on our streams and the window of our log: the least the protocol knows, as a thousand idle clients would have it. */
const CREDIT_BYTES = 65_536;
const LOG_WINDOW_BYTES = 1_048_576;
/** We acknowledge after this much, which keeps the server's log far from its window; or after {@link ACK_DELAY_MS}. */
const ACK_BYTES = 65_536;
const ACK_DELAY_MS = 50;
/** Handshakes under way at once: more would measure the server's queue, and meet its caps. */
const HANDSHAKES_AT_ONCE = 8;
/** Streams opened or ended together: the server lets 32 wait for their back ends. */
const STREAMS_AT_ONCE = 32;
/** What an order may take. */
const ORDER_SECONDS = 120;

/** One session on one connection. */
class Session {
  readonly #socket: TLSSocket;
  #unread: Buffer = Buffer.alloc(0);
  #greeted = false;
  /** Lines that answer what was asked for before MULTIPLEX. */
  #answersAhead = 0;
  /** Octets of our log said, and of the peer's log heard. */
  #said = 0;
  #heard = 0;
  #acknowledged = 0;
  #ackTimer: NodeJS.Timeout | undefined;
  #nextStream = 1;
  /** Streams that wait for their `+`, that are open, and that wait for the server's end. */
  readonly #opening = new Set<number>();
  readonly #open = new Set<number>();
  readonly #closing = new Set<number>();
  #changed = Promise.withResolvers<void>();
  #failure: Error | undefined;

  private constructor(socket: TLSSocket) {
    this.#socket = socket;
    socket.on("data", (chunk) => this.#read(chunk));
    socket.on("error", (error) => this.#fail(error.message));
    socket.on("close", () => this.#fail("the server closed the connection"));
  }

  /** TLS, then the line and the first frame in one flight. */
  static async connect(port: number, isDetachable = false): Promise<Session> {
    // The certificate is one the server made for itself a moment ago; nothing here is worth knowing it.
    const socket = connect({
      host: "127.0.0.1",
      port,
      ALPNProtocols: ["fived/1"],
      minVersion: "TLSv1.3",
      rejectUnauthorized: false,
    });
    await once(socket, "secureConnect");
    socket.setNoDelay();
    const session = new Session(socket);
    session.#answersAhead = isDetachable ? 1 : 0;
    socket.write(`${isDetachable ? "DETACHABLE\r\n" : ""}MULTIPLEX\r\n`);
    const settings = Buffer.alloc(8);
    settings.writeUInt16BE(SETTING_STREAMS_MAX, 0);
    settings.writeUInt32BE(100, 4);
    session.#saySequenced(TYPE.settings, 0, 0, 0, settings);
    await session.#until(() => session.#greeted);
    return session;
  }

  /** Opens streams to a service and waits until each was answered with `+`. */
  async openStreams(service: string, count: number): Promise<void> {
    for (let opened = 0; opened < count; opened += STREAMS_AT_ONCE) {
      this.#socket.cork();
      for (let i = opened; i < Math.min(count, opened + STREAMS_AT_ONCE); i++) {
        this.#opening.add(this.#nextStream);
        this.#saySequenced(TYPE.open, 0, this.#nextStream, CREDIT_BYTES, Buffer.from(service));
        this.#nextStream += 2;
      }
      this.#socket.uncork();
      await this.#until(() => this.#opening.size === 0);
    }
  }

  /** Ends our half of each stream and waits for the other half. A RESET would be quicker, but the server counts those as glitches. */
  async closeStreams(): Promise<void> {
    const streams = [...this.#open];
    for (let closed = 0; closed < streams.length; closed += STREAMS_AT_ONCE) {
      this.#socket.cork();
      for (const stream of streams.slice(closed, closed + STREAMS_AT_ONCE)) {
        this.#open.delete(stream);
        this.#closing.add(stream);
        this.#saySequenced(TYPE.data, FIN, stream, 0, Buffer.alloc(0));
      }
      this.#socket.uncork();
      await this.#until(() => this.#closing.size === 0);
    }
  }

  /** Ends the session and waits until the connection is gone. */
  async close(): Promise<void> {
    clearTimeout(this.#ackTimer);
    this.#socket.removeAllListeners("close");
    this.#saySequenced(TYPE.end, 0, 0, 0, Buffer.alloc(0));
    this.#socket.end();
    if (!this.#socket.destroyed) await once(this.#socket, "close");
  }

  /** Leaves without a word, as when the network is gone. */
  lose(): void {
    clearTimeout(this.#ackTimer);
    this.#socket.removeAllListeners("close");
    this.#socket.destroy();
  }

  async #until(done: () => boolean): Promise<void> {
    while (!done()) {
      if (this.#failure !== undefined) throw this.#failure;
      await this.#changed.promise;
    }
  }

  #fail(why: string): void {
    this.#failure ??= new Error(why);
    this.#wake();
  }

  #wake(): void {
    this.#changed.resolve();
    this.#changed = Promise.withResolvers();
  }

  #read(chunk: Buffer): void {
    this.#unread = this.#unread.length === 0 ? chunk : Buffer.concat([this.#unread, chunk]);
    if (!this.#greeted && !this.#readGreeting()) return;
    let at = 0;
    while (this.#unread.length - at >= HEADER_BYTES) {
      const size = HEADER_BYTES + this.#unread.readUInt16BE(at + 2);
      if (this.#unread.length - at < size) break;
      this.#handle(this.#unread.subarray(at, at + size));
      at += size;
    }
    // A copy, so that an idle session does not hold the whole chunk.
    this.#unread = Buffer.from(this.#unread.subarray(at));
    this.#acknowledge();
    this.#wake();
  }

  /** True once the line that answers MULTIPLEX was read. */
  #readGreeting(): boolean {
    const end = this.#unread.indexOf("\r\n");
    if (end < 0) return false;
    const line = this.#unread.toString("latin1", 0, end);
    if (!line.startsWith("+")) {
      this.#fail(`MULTIPLEX was answered with "${line}"`);
      return false;
    }
    this.#unread = this.#unread.subarray(end + 2);
    if (this.#answersAhead-- > 0) return this.#readGreeting();
    this.#greeted = true;
    return true;
  }

  #handle(frame: Buffer): void {
    const type = frame.readUInt8(0);
    const flags = frame.readUInt8(1);
    const stream = frame.readUInt32BE(4);
    if ((type & SEQUENCED) !== 0) this.#heard += frame.length;
    switch (type) {
      case TYPE.data:
        if (this.#opening.delete(stream)) {
          if (frame.toString("latin1", HEADER_BYTES, HEADER_BYTES + 1) === "+") this.#open.add(stream);
          else this.#fail(`a stream was answered with "${frame.toString("latin1", HEADER_BYTES).trim()}"`);
        }
        if ((flags & FIN) !== 0 && !this.#closing.delete(stream)) this.#fail("the server ended a stream unasked");
        return;
      case TYPE.ping:
        if ((flags & REPLY) === 0) this.#say(TYPE.ping, REPLY, 0, this.#heard, readNumber(frame, 16), Buffer.alloc(0));
        return;
      case TYPE.reset:
      case TYPE.goaway:
      case TYPE.end:
      case TYPE.closeConnection:
        this.#fail(
          `the server sent frame 0x${type.toString(16)}, code ${readNumber(frame, 16)}: ${frame.toString("latin1", HEADER_BYTES)}`,
        );
        return;
      default:
        return; // ACK, CREDIT, SETTINGS: nothing here sends enough to need them.
    }
  }

  #acknowledge(): void {
    if (this.#heard === this.#acknowledged) return;
    if (this.#heard - this.#acknowledged < ACK_BYTES) {
      this.#ackTimer ??= setTimeout(() => this.#sayAck(), ACK_DELAY_MS);
    } else {
      this.#sayAck();
    }
  }

  #sayAck(): void {
    clearTimeout(this.#ackTimer);
    this.#ackTimer = undefined;
    this.#acknowledged = this.#heard;
    if (this.#socket.writable) this.#say(TYPE.ack, 0, 0, this.#heard, this.#heard + LOG_WINDOW_BYTES, Buffer.alloc(0));
  }

  #saySequenced(type: number, flags: number, stream: number, arg: number, payload: Buffer): void {
    this.#say(type, flags, stream, this.#said, arg, payload);
    this.#said += HEADER_BYTES + payload.length;
  }

  #say(type: number, flags: number, stream: number, seq: number, arg: number, payload: Buffer): void {
    const header = Buffer.alloc(HEADER_BYTES);
    header.writeUInt8(type, 0);
    header.writeUInt8(flags, 1);
    header.writeUInt16BE(payload.length, 2);
    header.writeUInt32BE(stream, 4);
    writeNumber(header, 8, seq);
    writeNumber(header, 16, arg);
    this.#socket.write(Buffer.concat([header, payload]));
  }
}

function readNumber(bytes: Buffer, at: number): number {
  return bytes.readUInt32BE(at) * 2 ** 32 + bytes.readUInt32BE(at + 4);
}

function writeNumber(bytes: Buffer, at: number, value: number): void {
  bytes.writeUInt32BE(Math.floor(value / 2 ** 32), at);
  bytes.writeUInt32BE(value % 2 ** 32, at + 4);
}

const port = Number(process.argv[2]);
const sessions: Session[] = [];
/** The one session that carries every stream. */
let carrier: Session | undefined;

async function obey(order: string, argument: string | undefined, countText: string | undefined): Promise<void> {
  switch (order) {
    case "sessions":
      for (let left = Number(argument); left > 0; left -= HANDSHAKES_AT_ONCE) {
        const batch = Array.from({ length: Math.min(left, HANDSHAKES_AT_ONCE) }, () => Session.connect(port));
        sessions.push(...(await Promise.all(batch)));
      }
      return;
    case "streams":
      carrier ??= await Session.connect(port);
      await carrier.openStreams(argument ?? "", Number(countText));
      return;
    case "detached":
      for (let left = Number(countText); left > 0; left -= HANDSHAKES_AT_ONCE) {
        const batch = Array.from({ length: Math.min(left, HANDSHAKES_AT_ONCE) }, async () => {
          const session = await Session.connect(port, true);
          await session.openStreams(argument ?? "", 1);
          session.lose();
        });
        await Promise.all(batch);
      }
      return;
    case "closeStreams":
      await carrier?.closeStreams();
      return;
    case "closeSessions": {
      const ending = [...sessions.splice(0), ...(carrier === undefined ? [] : [carrier])];
      carrier = undefined;
      await Promise.all(ending.map((session) => session.close()));
      return;
    }
    default:
      throw new Error(`there is no order "${order}"`);
  }
}

for await (const line of createInterface({ input: process.stdin })) {
  const [order = "", argument, count] = line.split(" ");
  const late = new AbortController();
  try {
    await Promise.race([
      obey(order, argument, count),
      sleep(ORDER_SECONDS * 1000, undefined, { signal: late.signal }).then(() => {
        throw new Error(`"${line}" took more than ${ORDER_SECONDS} s`);
      }),
    ]);
    process.stdout.write("ready\n");
  } catch (error) {
    process.stdout.write(`failed ${error instanceof Error ? error.message : String(error)}\n`);
  } finally {
    late.abort();
  }
}
process.exit();
