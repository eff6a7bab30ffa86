/**
 * What programs ask the manager for, one by one: `messages.ts` has the list.
 * @module
 */
import type { Socket } from "node:net";
import { FivedError, type Splice, spliceOf } from "../../io/index.ts";
import { Code } from "../../wire/index.ts";
import type { ClientChoices } from "../choices.ts";
import type { Keeping, ServiceOpener } from "../session.ts";
import { type Held, parted } from "./held.ts";
import { overEvent, type Request } from "./messages.ts";
import type { Program, Task } from "./program.ts";

/** Names in one event, so that each is a line well within its bound. */
const NAMES_AT_ONCE = 500;

/** Who holds the sessions. */
export interface Holder {
  /** The session for these choices; one is enough for all that ask with the same. */
  held(address: string, choices: ClientChoices): Held;
  /** Closes the sessions at an address; how many there were. */
  end(address: string): Promise<number>;
  /** Takes the sessions with streams at an address from here: their tokens. Rejects with DETACH_IMPOSSIBLE. */
  detach(address: string): Promise<readonly string[]>;
  stop(): void;
  readonly status: unknown;
  /** Where programs listen. */
  readonly forwards: Set<{ readonly address: string }>;
}

/** Does what a program asks for. */
export async function perform(holder: Holder, program: Program, task: Task, request: Request): Promise<void> {
  switch (request.do) {
    case "open":
      return await open(holder, program, task, request);
    case "goOn":
      return await goOn(holder, program, task, request);
    case "list": {
      const names = await listed(holder.held(request.address, request.choices), task, request);
      for (let at = 0; at < names.length; at += NAMES_AT_ONCE)
        task.tell({ event: "names", names: names.slice(at, at + NAMES_AT_ONCE) });
      return task.tell({ event: "done", result: null });
    }
    case "login": {
      const held = holder.held(request.address, request.choices);
      const identity = await held.identity(task.people, parted(request.choices).passing);
      return task.tell({ event: "done", result: identity ?? null });
    }
    case "listening":
      return await listening(holder, task, request.address);
    case "status":
      return task.tell({ event: "done", result: holder.status });
    case "end":
      return task.tell({ event: "done", result: await holder.end(request.address) });
    case "detach":
      return task.tell({ event: "done", result: await holder.detach(request.address) });
    case "stop":
      task.tell({ event: "done", result: null });
      return holder.stop();
  }
}

function listed(
  held: Held,
  { people }: Task,
  { service, choices }: Extract<Request, { readonly do: "list" }>,
): Promise<readonly string[]> {
  return new Promise((resolve, reject) => {
    held.use((session) => session.list(service).then(resolve, reject), people, parted(choices).passing).catch(reject);
  });
}

/** The bytes of a program's stream, as something to be joined to one of a session's. */
class Bytes {
  readonly to: Splice;
  readonly keeping: Keeping;
  readonly #socket: Socket;
  readonly #task: Task;
  readonly #closed: Promise<void>;
  readonly #gone = Promise.withResolvers<void>();
  #cut: { readonly code: number; readonly why?: string | undefined } = { code: Code.NO_ERROR };
  #refused: FivedError | undefined;

  constructor(task: Task, socket: Socket) {
    this.#task = task;
    this.#socket = socket;
    this.#closed = new Promise<void>((resolve) => socket.once("close", () => resolve()));
    socket.once("finish", () => task.tell({ event: "ended" }));
    this.to = {
      ...spliceOf(socket),
      destroy: () => socket.destroy(),
      cut: (code, why) => {
        this.#cut = { code, why };
      },
    };
    this.keeping = {
      confirmed: (octets) => task.tell({ event: "confirmed", octets }),
      gone: () => this.#gone.resolve(),
    };
    task.left.addEventListener("abort", () => socket.destroy(), { once: true });
  }

  get isGone(): boolean {
    return this.#socket.destroyed;
  }

  /** The service has answered. */
  readonly answered = (error: FivedError | undefined, octets: number): void => {
    if (error === undefined) return this.#task.tell({ event: "ready", octets });
    this.#refused = error;
    this.#socket.destroy();
  };

  destroy(): void {
    this.#socket.destroy();
  }

  /** It was joined to what keeps nothing. */
  unkept(): void {
    this.#gone.resolve();
  }

  /** Waits for the end, and tells of it; rejects where the service has refused. */
  async end(): Promise<void> {
    await this.#closed;
    await this.#gone.promise;
    if (this.#refused !== undefined) throw this.#refused;
    this.#task.tell(overEvent(this.#cut.code, this.#cut.why));
  }
}

async function open(
  holder: Holder,
  program: Program,
  task: Task,
  { address, service, host, choices }: Extract<Request, { readonly do: "open" }>,
): Promise<void> {
  const held = holder.held(address, choices);
  const bytes = new Bytes(task, await program.connectionOf(task.id));
  const joinTo = (session: ServiceOpener): void => {
    if (bytes.isGone) return bytes.unkept();
    const joined = session.join(service, bytes.to, bytes.answered, { host, keeping: bytes.keeping });
    // Either is told before the stream can have been asked for: control has not returned.
    if (joined?.name === undefined) task.tell({ event: "opened" });
    if (joined === undefined) return bytes.unkept();
    const { stream, kept } = joined;
    task.took = joined.took;
    if (joined.name !== undefined) task.tell({ event: "kept", session: joined.name, stream });
    else void kept.then((name) => name !== undefined && task.tell({ event: "kept", session: name, stream }));
  };
  try {
    await held.use(joinTo, task.people, parted(choices).passing);
  } catch (error) {
    bytes.destroy();
    throw error;
  }
  await bytes.end();
}

async function goOn(
  holder: Holder,
  program: Program,
  task: Task,
  { address, service, host, choices, session: name, stream, had, took }: Extract<Request, { readonly do: "goOn" }>,
): Promise<void> {
  const held = holder.held(address, choices);
  const bytes = new Bytes(task, await program.connectionOf(task.id));
  try {
    const session = await held.recalled(name);
    if (bytes.isGone) return;
    const claim = { id: stream, had, took, keeping: bytes.keeping };
    const claimed = session.claim(service, claim, bytes.to, bytes.answered, host);
    switch (claimed.type) {
      case "goes on":
        task.took = claimed.took;
        task.tell(claimed.from === undefined ? { event: "goesOn" } : { event: "goesOn", from: claimed.from });
        return await bytes.end();
      case "unheard":
        return task.tell({ event: "unheard" });
      case "over":
        return task.tell({ event: "gone" });
      case "torn": {
        const why = "some of what had come for it was with the session manager that has ended";
        throw new FivedError("SESSION_LOST", `Cannot go on with "${service}": ${why}`);
      }
    }
  } finally {
    bytes.destroy();
  }
}

async function listening(holder: Holder, { left }: Task, address: string): Promise<void> {
  const shown = { address };
  holder.forwards.add(shown);
  if (!left.aborted) await new Promise((resolve) => left.addEventListener("abort", resolve, { once: true }));
  holder.forwards.delete(shown);
}
