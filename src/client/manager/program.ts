/**
 * A program as the manager meets it: a connection for its requests, one more for the bytes of each stream, and each request while it is being done.
 * @module
 */
import { randomBytes } from "node:crypto";
import type { Socket } from "node:net";
import { FivedError } from "../../io/index.ts";
import type { People } from "../choices.ts";
import { type Event, HELLO, MessageReader, type Request, readSaid, type Said, writeLine } from "./messages.ts";

/** Requests of one program that are not over. */
const REQUESTS_MAX = 2_048;
/** Time for a stream's request and its bytes' connection to find each other, and for a new connection to say what it is. */
const MEET_MS = 10_000;

/** Who has the programs, and does what they ask. */
export interface ProgramOwner {
  /** The program with that token. */
  program(token: string): Program | undefined;
  greeted(program: Program): void;
  left(program: Program): void;
  perform(program: Program, task: Task, request: Request): Promise<void>;
  /** Streams of programs: each ends when its program has been told how. */
  readonly carried: Set<Promise<void>>;
}

/** A stream's request waits for the connection of its bytes, or the other way round. */
interface Meeting {
  readonly socket: PromiseWithResolvers<Socket>;
  readonly timer: NodeJS.Timeout;
}

/** A new connection: what it says first tells whether it is a program's requests or a stream's bytes. */
export class Caller {
  constructor(owner: ProgramOwner, socket: Socket) {
    const reader = new MessageReader();
    const late = setTimeout(() => socket.destroy(), MEET_MS);
    const left = (): void => void socket.destroy();
    const hear = (octets: Buffer): void => {
      reader.push(octets);
      const line = reader.line();
      if (line === undefined) return;
      clearTimeout(late);
      socket.off("data", hear).off("end", left).pause();
      const said = line === null ? undefined : readSaid(line);
      if (said?.type === "hello") return new Program(owner, socket, reader).start();
      const program = said?.type === "data" ? owner.program(said.token) : undefined;
      if (program === undefined || said?.type !== "data") return void socket.destroy();
      const rest = reader.rest();
      if (rest.length > 0) socket.unshift(rest);
      program.bytes(said.id, socket);
    };
    socket.on("data", hear).once("end", left);
    socket.once("close", () => clearTimeout(late));
  }
}

/** A program's requests. */
export class Program {
  /** What the connections of its streams' bytes show, so that no other program's are taken for them. */
  readonly token = randomBytes(16).toString("base64url");
  readonly #owner: ProgramOwner;
  readonly #socket: Socket;
  readonly #reader: MessageReader;
  readonly #running = new Map<number, Task>();
  readonly #meetings = new Map<number, Meeting>();
  /** Octets of an answer are coming. */
  #octets: { readonly id: number; readonly bytes: number } | undefined;

  constructor(owner: ProgramOwner, socket: Socket, reader: MessageReader) {
    this.#owner = owner;
    this.#socket = socket;
    this.#reader = reader;
  }

  start(): void {
    this.#owner.greeted(this);
    this.#socket.once("close", () => {
      this.#owner.left(this);
      for (const task of this.#running.values()) task.leave();
      for (const [id] of this.#meetings) this.#forget(id);
    });
    this.#socket.once("end", () => this.#socket.end());
    this.#write({ hello: HELLO, token: this.token, pid: process.pid });
    this.#socket.on("data", (octets) => {
      this.#reader.push(octets);
      this.#hear();
    });
    this.#socket.resume();
    this.#hear();
  }

  /** Tells something of a request. */
  tell(id: number, event: Event): void {
    this.#write({ id, ...event });
  }

  /** The bytes of a stream have come. */
  bytes(id: number, socket: Socket): void {
    this.#meeting(id).socket.resolve(socket);
  }

  /** Where the bytes of a stream come. */
  async connectionOf(id: number): Promise<Socket> {
    const { socket, timer } = this.#meeting(id);
    const connection = await socket.promise;
    clearTimeout(timer);
    this.#meetings.delete(id);
    return connection;
  }

  #meeting(id: number): Meeting {
    const known = this.#meetings.get(id);
    if (known !== undefined) return known;
    const socket = Promise.withResolvers<Socket>();
    socket.promise.catch(() => {}); // whoever waits hears of it
    const timer = setTimeout(() => this.#forget(id), MEET_MS);
    const meeting = { socket, timer };
    this.#meetings.set(id, meeting);
    if (this.#meetings.size > REQUESTS_MAX) this.#socket.destroy();
    return meeting;
  }

  #forget(id: number): void {
    const meeting = this.#meetings.get(id);
    if (meeting === undefined) return;
    this.#meetings.delete(id);
    clearTimeout(meeting.timer);
    meeting.socket.reject(new FivedError("ABORTED", "Cannot open a stream: its bytes did not come"));
    meeting.socket.promise.then(
      (socket) => {
        if (!this.#running.has(id)) socket.destroy();
      },
      () => {},
    );
  }

  #write(line: object): void {
    writeLine(this.#socket, line);
  }

  #hear(): void {
    for (;;) {
      if (this.#octets !== undefined) {
        const { id, bytes } = this.#octets;
        const octets = this.#reader.octets(bytes);
        if (octets === undefined) return;
        this.#octets = undefined;
        this.#running.get(id)?.answered(octets);
        continue;
      }
      const line = this.#reader.line();
      if (line === undefined) return;
      const said = line === null ? undefined : readSaid(line);
      if (said === undefined || !this.#obey(said)) return void this.#socket.destroy();
    }
  }

  /** False for what makes no sense here. */
  #obey(said: Said): boolean {
    switch (said.type) {
      case "request":
        if (this.#running.has(said.id) || this.#running.size >= REQUESTS_MAX) return false;
        this.#run(new Task(this, said.id, said.asks), said.request);
        return true;
      case "answer":
        this.#running.get(said.id)?.answered(said.yes);
        return true;
      case "octets":
        this.#octets = said;
        return true;
      case "took":
        this.#running.get(said.id)?.took?.(said.octets);
        return true;
      case "leave":
        this.#running.get(said.id)?.leave();
        return true;
      default:
        return false;
    }
  }

  #run(task: Task, request: Request): void {
    this.#running.set(task.id, task);
    const done = this.#owner
      .perform(this, task, request)
      .catch((error: unknown) => task.tell({ event: "error", error: sentOf(error) }))
      .finally(() => {
        this.#running.delete(task.id);
        this.#owner.carried.delete(done);
      });
    if (request.do === "open" || request.do === "goOn") this.#owner.carried.add(done);
  }
}

function sentOf(error: unknown): Extract<Event, { readonly event: "error" }>["error"] {
  if (!(error instanceof FivedError))
    return { code: "INTERNAL", message: error instanceof Error ? error.message : String(error) };
  const { code, message, status, reason } = error;
  return { code, message, status, reason };
}

/** One request that is being done. */
export class Task {
  readonly id: number;
  readonly people: People;
  /** Hears how much of a stream the application has taken. */
  took: ((octets: number) => void) | undefined;
  readonly #program: Program;
  readonly #leaving = new AbortController();
  #asked: { resolve(answer: boolean | Uint8Array): void; reject(error: Error): void } | undefined;

  constructor(program: Program, id: number, asks: Extract<Said, { readonly type: "request" }>["asks"]) {
    this.#program = program;
    this.id = id;
    this.people = {
      tries: asks.tries,
      log: (text) => this.tell({ event: "log", text }),
      ...(asks.confirm
        ? { confirm: (text: string) => this.#ask({ event: "confirm", text }).then((answer) => answer === true) }
        : {}),
      ...(asks.ask
        ? {
            ask: (text: string, shown: boolean) =>
              this.#ask({ event: "ask", text, shown }).then((answer) =>
                answer instanceof Uint8Array ? answer : new Uint8Array(0),
              ),
          }
        : {}),
    };
  }

  get left(): AbortSignal {
    return this.#leaving.signal;
  }

  tell(event: Event): void {
    this.#program.tell(this.id, event);
  }

  answered(answer: boolean | Uint8Array): void {
    if (this.#asked === undefined && answer instanceof Uint8Array) answer.fill(0); // nobody has asked
    this.#asked?.resolve(answer);
    this.#asked = undefined;
  }

  /** The program wants it no more, or is gone. */
  leave(): void {
    this.#leaving.abort();
    this.#asked?.reject(new FivedError("ABORTED", "Cannot go on: whoever was asked has left"));
    this.#asked = undefined;
  }

  #ask(event: Event): Promise<boolean | Uint8Array> {
    if (this.left.aborted) return Promise.reject(new FivedError("ABORTED", "Cannot ask: nobody is there any more"));
    return new Promise((resolve, reject) => {
      this.#asked = { resolve, reject };
      this.tell(event);
    });
  }
}
