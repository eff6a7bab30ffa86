/**
 * A program's end of the session manager: requests over one connection, and a connection for each stream's bytes (`messages.ts`).
 * @module
 */
import { connect as connectSocket, type Socket } from "node:net";
import type { Duplex } from "node:stream";
import { setTimeout as pause } from "node:timers/promises";
import { ChannelDuplex, ERROR_CODES, type ErrorCode, FivedError, type Splice } from "../../io/index.ts";
import { Code, type CodeName } from "../../wire/index.ts";
import type { ClientChoices, People } from "../choices.ts";
import type { ManagerStatus } from "./manager.ts";
import { type Event, HELLO, MessageReader, type Request, readEvent, type SentError, writeLine } from "./messages.ts";
import { checkPlace } from "./place.ts";
import { ManagedStream } from "./stream.ts";

/** Time for a manager to say that it is one. */
const HELLO_MS = 5_000;
/** One that hangs up without a word may be ending: it is asked again for half a second, until nothing answers any more or another does. */
const HUNG_UP_TRIES = 10;
const HUNG_UP_PAUSE_MS = 10;

/** What one asks for a stream with. */
export interface StreamRequest {
  readonly address: string;
  readonly service: string;
  readonly host?: string;
  readonly choices: ClientChoices;
}

/** Who is asked what a request needs to know, and told what happens. */
export type Asked = Pick<People, "confirm" | "ask" | "tries"> & { log(line: string): void };

/** A request that is not over. */
interface Running extends Hooks {
  readonly people: Asked;
}

/** Who hears of it. */
export interface Hooks {
  heard(event: Event): void;
  failed(error: FivedError): void;
  /** The manager is gone; a failure, where nobody goes on. */
  lost?(): void;
}

/** The manager of this person, as a program talks to it. */
export class ManagerClient implements AsyncDisposable {
  readonly socket: string;
  readonly pid: number;
  /** Resolves when the manager is gone, or this was disposed of. */
  readonly closed: Promise<void>;
  readonly #token: string;
  readonly #connection: Socket;
  readonly #running = new Map<number, Running>();
  #last = 0;
  #next: Promise<ManagerClient> | undefined;
  readonly #listening = new Map<string, number>();

  private constructor(socket: string, connection: Socket, token: string, pid: number) {
    this.socket = socket;
    this.#connection = connection;
    this.#token = token;
    this.pid = pid;
    this.closed = new Promise((resolve) => connection.once("close", () => resolve()));
  }

  /**
   * Connects to the manager at a socket; undefined where none runs. Rejects with STATE_UNUSABLE where the folder is not ours alone, and
   * with PROTOCOL_ERROR for something else that answers there.
   */
  static async connect(socket: string): Promise<ManagerClient | undefined> {
    for (let tries = 1; ; tries++) {
      const client = await ManagerClient.#greet(socket);
      if (client !== "hung up") return client;
      if (tries === HUNG_UP_TRIES) throw noManager(socket);
      await pause(tries * HUNG_UP_PAUSE_MS);
    }
  }

  static async #greet(socket: string): Promise<ManagerClient | undefined | "hung up"> {
    const connection = await reached(socket);
    if (connection === undefined || connection === "hung up") return connection;
    await checkPlace(socket).catch((error: unknown) => {
      connection.destroy();
      throw error;
    });
    const reader = new MessageReader();
    connection.write(`${JSON.stringify({ hello: HELLO })}\n`);
    const greeting = await greeted(connection, reader, socket);
    if (greeting === "hung up") return greeting;
    const client = new ManagerClient(socket, connection, greeting.token, greeting.pid);
    client.#start(reader);
    return client;
  }

  /** A stream to a service: "connect" says that the service has accepted, "error" why not; it ends whole, or with an error. */
  open(request: StreamRequest, people: Asked): Duplex {
    const duplex = new ChannelDuplex();
    this.openOn(duplex, request, people);
    return duplex;
  }

  /** The same on a Duplex that was handed out before. */
  openOn(duplex: ChannelDuplex, request: StreamRequest, people: Asked): void {
    if (duplex.destroyed) return;
    const stream = new ManagedStream(request, people, {
      connected: () => void duplex.emit("connect"),
      failed: (error) => void duplex.destroy(error),
    });
    duplex.attach(stream);
    duplex.once("close", () => stream.left(duplex.readableEnded && duplex.writableFinished));
    this.#open(stream);
  }

  /** A stream joined to something connected; `refused` is told why there is none, or none any more. */
  join(to: Splice, request: StreamRequest, people: Asked, refused: (error: FivedError) => void): void {
    const stream = new ManagedStream(request, people, { connected() {}, failed: refused });
    stream.splice(to, NOTHING);
    this.#open(stream);
  }

  #open(stream: ManagedStream): void {
    if (this.#connection.destroyed) void stream.next(this);
    else stream.open(this);
  }

  /** This one while it is there, then the one that has taken its place. */
  async current(asked: Asked): Promise<ManagerClient> {
    return this.#connection.destroyed ? await (await this.next(asked)).current(asked) : this;
  }

  /** The next one, where this one is gone: started, if need be; whoever asks first is told. Rejects with STATE_UNUSABLE. */
  next({ log }: Asked): Promise<ManagerClient> {
    if (this.#next === undefined) log("lost the session manager: going on by way of another");
    this.#next ??= nextManager(this.socket);
    return this.#next;
  }

  /** Names of the services that may be used; see {@link Session.list}. */
  async list(address: string, service: string | undefined, choices: ClientChoices, people: Asked): Promise<string[]> {
    const names: string[] = [];
    const request: Request = { do: "list", address, ...(service === undefined ? {} : { service }), choices };
    await this.#ask(request, people, (event) => {
      if (event.event === "names") names.push(...event.names);
    });
    return names;
  }

  /** Signs in, or is signed in already; who the server says we are. */
  async login(address: string, choices: ClientChoices, people: Asked): Promise<string | undefined> {
    const identity = await this.#ask({ do: "login", address, choices }, people);
    return typeof identity === "string" ? identity : undefined;
  }

  /** Has it show that this program listens there; `lost` is told when it is gone. */
  listening(address: string, lost: () => void): void {
    const id = this.begin({ do: "listening", address }, SILENT, { heard() {}, failed() {}, lost });
    this.#listening.set(address, id);
  }

  listensNoMore(address: string): void {
    const id = this.#listening.get(address);
    this.#listening.delete(address);
    if (id !== undefined) this.#ended(id, () => this.#leave(id));
  }

  /** What it holds. */
  async status(): Promise<ManagerStatus> {
    return (await this.#ask({ do: "status" }, SILENT)) as ManagerStatus;
  }

  /** Closes the sessions at an address; how many there were. */
  async end(address: string): Promise<number> {
    return Number(await this.#ask({ do: "end", address }, SILENT));
  }

  /** Takes the sessions with streams at an address from it, so that they can be attached to elsewhere: their tokens. */
  async detach(address: string): Promise<readonly string[]> {
    return (await this.#ask({ do: "detach", address }, SILENT)) as readonly string[];
  }

  /** Ends it, and waits until it is gone. */
  async stop(): Promise<void> {
    await this.#ask({ do: "stop" }, SILENT).catch(() => {}); // gone before it has answered is gone as well
    this.#connection.ref();
    await this.closed;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#connection.destroy();
  }

  #start(reader: MessageReader): void {
    const lost = (): void => {
      const running = [...this.#running.values()];
      this.#running.clear();
      for (const each of running) lose(each);
    };
    this.#connection.on("error", () => {}).once("close", lost);
    this.#connection.once("end", () => this.#connection.destroy());
    const hear = (): void => {
      for (let line = reader.line(); line !== undefined; line = reader.line()) {
        const said = line === null ? undefined : readEvent(line);
        if (said === undefined || !("event" in said)) return void this.#connection.destroy();
        this.#heard(said.id, said.event);
      }
    };
    this.#connection.on("data", (octets: Buffer) => {
      reader.push(octets);
      hear();
    });
    hear();
    this.#connection.unref(); // streams keep a program alive, and requests that wait
  }

  #heard(id: number, event: Event): void {
    const running = this.#running.get(id);
    if (running === undefined) return;
    switch (event.event) {
      case "log":
        return running.people.log(event.text);
      case "error":
        return this.#ended(id, () => running.failed(errorOf(event.error)));
      case "confirm":
      case "ask":
        return void this.#answer(id, running, event);
      default:
        return running.heard(event);
    }
  }

  async #answer(
    id: number,
    { people, failed }: Running,
    event: Extract<Event, { readonly event: "confirm" | "ask" }>,
  ): Promise<void> {
    try {
      if (event.event === "confirm") {
        const yes = (await people.confirm?.(event.text)) ?? false;
        return this.#say({ id, do: "answer", yes });
      }
      const octets = (await people.ask?.(event.text, event.shown)) ?? new Uint8Array(0);
      this.#say({ id, do: "answer", bytes: octets.length });
      const copy = Buffer.from(octets);
      octets.fill(0);
      this.#connection.write(copy, () => copy.fill(0));
    } catch (error) {
      this.#leave(id);
      this.#ended(id, () => failed(error instanceof FivedError ? error : new FivedError("ABORTED", String(error))));
    }
  }

  #ended(id: number, tell: () => void): void {
    this.#running.delete(id);
    if (this.#running.size === 0) this.#connection.unref();
    tell();
  }

  // ---- for the streams of this room

  /** Begins a request; its number. */
  begin(request: Request, people: Asked, hooks: Hooks): number {
    const id = ++this.#last;
    this.#begin(id, request, people, hooks);
    return id;
  }

  /** The connection of a stream's bytes says what it is. */
  greetBytes(socket: Socket, id: number): void {
    socket.write(`${JSON.stringify({ data: this.#token, id })}\n`);
  }

  /** The application has taken so many octets of a stream. */
  took(id: number, octets: number): void {
    this.#say({ id, do: "took", octets });
  }

  /** A stream is not wanted any more. */
  leave(id: number): void {
    if (this.#running.has(id)) this.#leave(id);
  }

  /** Nothing more is to be heard of a request. */
  over(id: number): void {
    this.#ended(id, () => {});
  }

  #begin(id: number, request: Request, people: Asked, hooks: Hooks): void {
    this.#running.set(id, { people, ...hooks });
    this.#connection.ref();
    const { confirm, ask, tries } = people;
    this.#say({ id, ...request, confirm: confirm !== undefined, ask: ask !== undefined, tries });
    if (this.#connection.destroyed) this.#ended(id, () => lose(hooks));
  }

  #ask(request: Request, people: Asked, heard?: (event: Event) => void): Promise<unknown> {
    return this.#asking(request, people, heard).result;
  }

  #asking(
    request: Request,
    people: Asked,
    heard: (event: Event) => void = () => {},
  ): { readonly id: number; readonly result: Promise<unknown> } {
    const id = ++this.#last;
    const result = new Promise<unknown>((resolve, reject) => {
      this.#begin(id, request, people, {
        heard: (event) => {
          if (event.event === "done") this.#ended(id, () => resolve(event.result));
          else heard(event);
        },
        failed: reject,
      });
    });
    return { id, result };
  }

  #leave(id: number): void {
    this.#say({ id, do: "leave" });
  }

  #say(line: object): void {
    writeLine(this.#connection, line);
  }
}

function lose(hooks: Hooks): void {
  if (hooks.lost !== undefined) hooks.lost();
  else hooks.failed(new FivedError("SESSION_LOST", "Lost the session manager: it has ended; try again"));
}

async function nextManager(socket: string): Promise<ManagerClient> {
  const { managerAt } = await import("./launch.ts"); // hardly any process needs it
  return await managerAt(socket);
}

const NOTHING = new Uint8Array(0);

/** Nobody is asked, and nothing is told. */
const SILENT: Asked = { tries: 1, log() {} };

async function reached(path: string): Promise<Socket | undefined | "hung up"> {
  return await new Promise((resolve, reject) => {
    const socket = connectSocket({ path, allowHalfOpen: true });
    socket.once("connect", () => resolve(socket));
    socket.once("error", (cause: NodeJS.ErrnoException) => {
      // Nothing there, or what a manager that died has left.
      if (cause.code === "ENOENT" || cause.code === "ECONNREFUSED") return resolve(undefined);
      if (cause.code === "ECONNRESET") return resolve("hung up");
      reject(
        new FivedError("STATE_UNUSABLE", `Cannot reach the session manager at ${path}: ${cause.message}`, { cause }),
      );
    });
  });
}

function noManager(path: string): FivedError {
  const why = "it does not answer as one, or is another version; end it with fived down";
  return new FivedError("PROTOCOL_ERROR", `Cannot use the session manager at ${path}: ${why}`);
}

function greeted(
  connection: Socket,
  reader: MessageReader,
  path: string,
): Promise<{ readonly token: string; readonly pid: number } | "hung up"> {
  return new Promise((resolve, reject) => {
    if (connection.destroyed) return resolve("hung up"); // while its folder was looked at
    let hasSpoken = false;
    const fail = (): void => {
      connection.destroy();
      reject(noManager(path));
    };
    const hungUp = (): void => {
      if (hasSpoken) return fail();
      done();
      connection.destroy();
      resolve("hung up");
    };
    const late = setTimeout(fail, HELLO_MS);
    const done = (): void => {
      clearTimeout(late);
      connection.off("data", hear).off("close", hungUp).off("end", hungUp);
    };
    const hear = (octets: Buffer): void => {
      hasSpoken = true;
      reader.push(octets);
      const line = reader.line();
      if (line === undefined) return;
      done();
      const said = line === null ? undefined : readEvent(line);
      if (said === undefined || !("token" in said)) return fail();
      resolve(said);
    };
    connection
      .on("data", hear)
      .once("close", hungUp)
      .once("end", hungUp)
      .on("error", () => {});
  });
}

function errorOf({ code, message, status, reason }: SentError): FivedError {
  const known: ErrorCode = ERROR_CODES.find((each) => each === code) ?? "SESSION_LOST";
  return new FivedError(known, message, {
    ...(status === undefined ? {} : { status }),
    ...(reason !== undefined && isCodeName(reason) ? { reason } : {}),
  });
}

function isCodeName(text: string): text is CodeName {
  return Object.hasOwn(Code, text);
}
