/**
 * A program's end of a stream that the session manager has opened: its bytes have a connection of their own to the manager, and what is said of it comes with the
 * program's requests. It outlives the manager: the program keeps what the server has not confirmed, and goes on by way of the next one (decision 0029).
 *
 * ```
 *              opened, kept                    manager gone, all of its bytes read
 *   opening ─────────────────▶ (open) ───────────────────────────────────────────────▶ waiting
 *      ▲                          ▲  goesOn: the rest of what was said                     │ the next manager
 *      │ unheard: all of it       └────────────────────────────────────────────────────────┤
 *      └───────────────────────────────────────────────────────────────────────────────────┘
 * ```
 * @module
 */
import { connect as connectSocket, type Socket } from "node:net";
import { type Channel, ChannelDuplex, FivedError, nobody, type Receiver, type Splice } from "../../io/index.ts";
import { Code, type CodeName } from "../../wire/index.ts";
import type { Asked, ManagerClient, StreamRequest } from "./client.ts";
import type { Event, Request } from "./messages.ts";
import { Unconfirmed } from "./unconfirmed.ts";

/** What may lie here unread before its connection is left alone, so that what comes is taken from one cache and not from memory … */
const UNREAD_BYTES_MAX = 256 * 1_024;
/** … but for no longer: where nobody reads, it is to lie here and not with a manager that may be killed. As much comes as there is credit for. */
const UNREAD_MS = 200;
/** What may lie here unconfirmed; then its writer waits. Several windows of a stream. */
const UNCONFIRMED_BYTES_MAX = 16 * 1_024 * 1_024;
/** And while there is no manager. */
const WAITING_BYTES_MAX = 1_024 * 1_024;
/** Managers that may be lost in so long: what ends one may end the next. */
const LOSSES_MAX = 20;
const LOSSES_MS = 60_000;
/** The manager is told what the application has taken when it is so much more: a part of what it gives credit for untaken. */
const TOOK_BYTES = 256 * 1_024;

/** How its bytes come. A Unix socket ends the same way whether the stream behind it has ended or was cut: the manager's word tells. */
interface Line {
  readonly manager: ManagerClient;
  readonly socket: Socket;
  id: number;
  isEnded: boolean;
  isClosed: boolean;
  /** The manager is gone. */
  isLost: boolean;
  /** How the stream was over, as the manager says. */
  over: { readonly code: CodeName; readonly why: string | undefined } | undefined;
}

/** Who has the stream. */
export interface StreamUser {
  /** The service has accepted. */
  connected(): void;
  /** It has not, or there is no way to go on. */
  failed(error: FivedError): void;
}

/** As a channel, for a Duplex or a socket. */
export class ManagedStream implements Channel {
  receiver: Receiver = nobody;
  readonly #user: StreamUser;
  readonly #request: StreamRequest;
  readonly #people: Asked;
  readonly #unconfirmed = new Unconfirmed();
  #line: Line | undefined;
  /** What was written waits for the manager to say from where on it is needed. */
  #isWaiting = false;
  #isOpened = false;
  #kept: { readonly session: string; readonly stream: number } | undefined;
  /** Octets of the service's answer, once it has accepted. */
  #answer: number | undefined;
  #received = 0;
  #took = 0;
  #tookTold = 0;
  #isTelling = false;
  /** When managers were lost of late. */
  #losses: readonly number[] = [];
  /** Runs while the connection is left alone. */
  #unread: NodeJS.Timeout | undefined;
  /** Everything is read: nobody has for long, or the manager is gone. */
  #isEager = false;
  /** Our end; the service's: said by the manager, and passed on. */
  #hasEnded = false;
  #isEndTold = false;
  #isEndPassedOn = false;
  #isOver = false;

  constructor(request: StreamRequest, people: Asked, user: StreamUser) {
    this.#request = request;
    this.#people = people;
    this.#user = user;
  }

  /** Has a manager open it. */
  open(manager: ManagerClient): void {
    this.#connect(manager, { do: "open", ...this.#request });
    this.#sayFrom(0);
  }

  /** There is no manager any more: another one goes on. */
  async next(lost: ManagerClient): Promise<void> {
    this.#isWaiting = true;
    const now = performance.now();
    this.#losses = [...this.#losses.filter((at) => now - at < LOSSES_MS), now];
    if (this.#losses.length > LOSSES_MAX)
      return this.#fail(
        noWay("it ends again and again; see manager.log in your state folder, or say FIVED_MANAGER=off"),
      );
    if (this.#isOpened && this.#kept === undefined) return this.#fail(noWay("it has ended; try again"));
    try {
      const manager = await lost.next(this.#people);
      if (this.#isOver) return;
      if (this.#kept === undefined) return this.open(manager);
      const had = this.#answer === undefined ? {} : { had: { answer: this.#answer, octets: this.#received } };
      this.#connect(manager, { do: "goOn", ...this.#request, ...this.#kept, ...had, took: this.#took });
    } catch (error) {
      this.#fail(error instanceof FivedError ? error : noWay(String(error)));
    }
  }

  #connect(manager: ManagerClient, request: Request): void {
    const socket = connectSocket({ path: manager.socket, allowHalfOpen: true });
    const line: Line = { manager, socket, id: 0, isEnded: false, isClosed: false, isLost: false, over: undefined };
    this.#line = line;
    line.id = manager.begin(request, this.#people, {
      heard: (event) => this.#heard(line, event),
      failed: (error) => this.#fail(error),
      lost: () => {
        line.isLost = true;
        this.#settle(line);
      },
    });
    manager.greetBytes(socket, line.id);
    socket.on("data", (octets) => {
      this.#received += octets.length;
      this.receiver.data(octets);
      const isMuch = this.#received - this.#took >= UNREAD_BYTES_MAX;
      if (!isMuch || this.#isEager || this.#unread !== undefined) return;
      socket.pause();
      this.#unread = setTimeout(() => this.#readAll(), UNREAD_MS);
    });
    socket.on("end", () => {
      line.isEnded = true;
      this.#settle(line);
    });
    socket.on("drain", () => this.#drained());
    socket.on("error", () => {}); // "close" follows
    socket.on("close", () => {
      line.isClosed = true;
      this.#settle(line);
    });
  }

  #heard(line: Line, event: Event): void {
    if (line !== this.#line) return;
    switch (event.event) {
      case "opened":
        this.#isOpened = true;
        return;
      case "kept":
        this.#isOpened = true;
        this.#kept = { session: event.session, stream: event.stream };
        return;
      case "ready": {
        const isFirst = this.#answer === undefined;
        this.#answer = event.octets;
        if (isFirst) this.#user.connected();
        return;
      }
      case "confirmed":
        this.#unconfirmed.confirm(event.octets);
        return this.#drained();
      case "goesOn":
        return this.#sayFrom(event.from);
      case "unheard":
        this.#kept = undefined;
        this.#isOpened = false;
        line.socket.destroy();
        line.manager.over(line.id);
        return this.open(line.manager);
      case "gone":
        line.manager.over(line.id);
        if (!this.#isEndTold) return this.#fail(noWay("the stream has ended meanwhile"));
        line.over = { code: "NO_ERROR", why: undefined };
        line.isEnded = true;
        line.isClosed = true;
        return this.#settle(line);
      case "ended":
        this.#isEndTold = true;
        return this.#settle(line);
      case "over": {
        line.manager.over(line.id);
        line.over = { code: event.code, why: event.why };
        const isBehind = event.code === "NO_ERROR" || event.code === "SUPERSEDED"; // what has come is for whoever reads here
        if (isBehind) this.#settle(line);
        else this.#close(event.code, event.why);
        return;
      }
      default: // questions and answers of other requests
    }
  }

  #settle(line: Line): void {
    if (line !== this.#line || this.#isOver) return;
    const code = line.over?.code;
    if (line.isEnded && (this.#isEndTold || code === "NO_ERROR") && !this.#isEndPassedOn) {
      this.#isEndPassedOn = true;
      this.receiver.end();
    }
    // In peace, or because it goes on elsewhere: behind what has come here.
    const isLast = code === "NO_ERROR" || code === "SUPERSEDED";
    if (isLast && (line.isClosed || line.isEnded)) return this.#close(code, line.over?.why);
    if (!line.isLost || code !== undefined) return;
    // What the manager has passed on is read to its end: it was confirmed to the server.
    this.#readAll();
    line.socket.end();
    if (!line.isClosed && !line.isEnded) return;
    this.#line = undefined;
    line.socket.destroy();
    void this.next(line.manager);
  }

  #close(code: CodeName, why: string | undefined): void {
    if (this.#isOver) return;
    this.#isOver = true;
    this.receiver.closed(Code[code], why);
  }

  #fail(error: FivedError): void {
    this.#isOver = true;
    this.#line?.socket.destroy();
    this.#user.failed(error);
  }

  /**
   * Its user is gone.
   * @param isDone it has ended both ways: then it is over by itself, once the manager has passed on the rest
   */
  left(isDone: boolean): void {
    this.#readAll();
    if (isDone) return;
    this.#isOver = true;
    const line = this.#line;
    line?.manager.leave(line.id);
    line?.socket.destroy();
  }

  /** Says what was written from there on; with undefined the server has all of it. */
  #sayFrom(octets: number | undefined): void {
    this.#isWaiting = false;
    const socket = this.#line?.socket;
    const pieces = octets === undefined ? [] : this.#unconfirmed.since(octets);
    if (pieces === undefined) return this.#fail(noWay("the server misses what it has confirmed"));
    for (const piece of pieces) socket?.write(piece);
    if (this.#hasEnded) socket?.end();
    this.#drained();
  }

  #readAll(): void {
    this.#readOn();
    this.#isEager = true;
  }

  #readOn(): void {
    this.#isEager = false;
    if (this.#unread === undefined) return;
    clearTimeout(this.#unread);
    this.#unread = undefined;
    this.#line?.socket.resume();
  }

  #drained(): void {
    if (this.#isRoom) this.receiver.drained();
  }

  get #isRoom(): boolean {
    const { bytes } = this.#unconfirmed;
    if (this.#isWaiting || this.#line === undefined) return bytes < WAITING_BYTES_MAX;
    return bytes < UNCONFIRMED_BYTES_MAX && !this.#line.socket.writableNeedDrain;
  }

  // ---- as a channel

  write(bytes: Uint8Array): boolean {
    return this.#say(Buffer.from(bytes)); // its writer may use it again
  }

  /** Says a piece whose memory is ours. */
  #say(piece: Uint8Array): boolean {
    if (this.#isOver) return true;
    this.#unconfirmed.add(piece);
    if (!this.#isWaiting) this.#line?.socket.write(piece);
    return this.#isRoom;
  }

  end(): void {
    this.#hasEnded = true;
    if (!this.#isWaiting) this.#line?.socket.end();
  }

  close(): void {
    this.end();
  }

  reset(_code: number): void {
    this.#isOver = true;
    this.#line?.socket.destroy();
  }

  consumed(bytes: number): void {
    this.#took += bytes;
    if (this.#received - this.#took < UNREAD_BYTES_MAX) this.#readOn();
    if (this.#isTelling || this.#took - this.#tookTold < TOOK_BYTES) return;
    this.#isTelling = true;
    setImmediate(() => {
      this.#isTelling = false;
      this.#tookTold = this.#took;
      if (this.#line !== undefined) this.#line.manager.took(this.#line.id, this.#took);
    });
  }

  splice(to: Splice, first: Uint8Array): void {
    const { input, output } = to;
    this.receiver = {
      data: (octets) => void input.write(octets, () => this.consumed(octets.length)),
      end: () => void input.end(),
      drained: () => void output.resume(),
      closed: (code) => {
        if (code !== Code.NO_ERROR) return to.destroy();
        input.end();
        output.resume(); // what it still says goes nowhere
      },
    };
    if (first.length > 0) this.receiver.data(first);
    output.on("data", (octets: Buffer) => {
      if (!this.#say(octets)) output.pause(); // each piece is read into memory of its own
    });
    output.once("end", () => this.end());
    output.once("close", () => this.left(output.readableEnded && input.writableFinished));
  }

  duplex(first: Uint8Array): ChannelDuplex {
    const duplex = new ChannelDuplex();
    duplex.attach(this, first);
    return duplex;
  }

  forget(): void {
    const socket = this.#line?.socket;
    if (socket === undefined) return;
    if (!socket.writableEnded) socket.destroy();
    else socket.resume();
  }
}

function noWay(why: string): FivedError {
  return new FivedError("SESSION_LOST", `Lost the session manager: ${why}`);
}
