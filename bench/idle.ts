/**
 * What the fived server holds for sessions and streams that do nothing, and whether it gives it back. Sessions and streams come from
 * `idle-client.ts`; here they are counted. Memory is Pss from the kernel: of pages that several processes share, each counts its part.
 * @module
 */
import { type ChildProcess, spawn } from "node:child_process";
import { mkdir, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { startServer } from "./fived.ts";
import { type BackEnds, type Load, untilQuiet } from "./measure.ts";
import { memoryOf, type Started } from "./processes.ts";

/** What is held open and counted. */
export type Held = "sessions" | "detached sessions" | "module streams" | "tcp streams";

/** Memory of the server, in bytes. */
export type IdleSample =
  /** What each of `count` costs, beside as many that were open before; and the whole process with all of them. */
  | {
      readonly type: "held";
      readonly holds: Held;
      readonly count: number;
      readonly bytesEach: number;
      readonly bytesEachUncollected: number;
      readonly bytesInAll: number;
    }
  /** After opening and closing `what` once more: the whole process. */
  | { readonly type: "cycle"; readonly what: string; readonly cycle: number; readonly bytes: number };

/** What the measurements need. */
export interface IdleGround {
  readonly folder: string;
  readonly load: Load;
  readonly backEnds: BackEnds;
  readonly signal: AbortSignal;
}

/** How many of each. */
export interface IdleCounts {
  readonly sessions: number;
  readonly streams: number;
  readonly cycles: number;
}

/** Sessions one client process holds: its own TLS costs as much as the server's. */
const SESSIONS_A_CLIENT = 500;
/** A cycle opens this part of the sessions and all of the streams. */
const CYCLE_SESSIONS_PART = 0.2;

/** A service without a back end's socket: it waits until the caller has ended. */
const QUIET_MODULE = `import { service } from "fived";

export default service("quiet", (stream) => {
  stream.resume();
  stream.on("end", () => stream.end());
});
`;

/** A server, the clients that hold things open in it, and its memory. */
class Scene implements AsyncDisposable {
  readonly server: Started;
  readonly #clients: readonly Client[];
  readonly #load: Load;

  private constructor(server: Started, clients: readonly Client[], load: Load) {
    this.server = server;
    this.#clients = clients;
    this.#load = load;
  }

  static async set({ folder, load, backEnds, signal }: IdleGround, clientCount: number): Promise<Scene> {
    await mkdir(folder, { recursive: true, mode: 0o700 });
    const module = join(folder, "quiet.ts");
    await writeFile(module, QUIET_MODULE);
    const { process: server, port } = await startServer(folder, {
      services: {
        quiet: { module, allow: ["anyone"] },
        echo: { to: `tcp://127.0.0.1:${backEnds.echo}`, allow: ["anyone"] },
      },
      env: {},
      more: { sessions: { detach: { keep: "1h", anonymous: 1_000_000, total: 1_000_000 } } },
      signal,
      nodeArgs: ["--expose-gc", "--import", join(import.meta.dirname, "collect.ts")],
    });
    return new Scene(
      server,
      Array.from({ length: clientCount }, () => new Client(port, signal)),
      load,
    );
  }

  /** Has the sessions opened, shared out among the clients. */
  async openSessions(count: number): Promise<void> {
    const share = Math.ceil(count / this.#clients.length);
    await this.#all((client) => client.order(`sessions ${share}`));
  }

  async closeSessions(): Promise<void> {
    await this.#all((client) => client.order("closeSessions"));
  }

  /** Has sessions opened that each have a stream, and lose their connections. */
  async openDetached(service: string, count: number): Promise<void> {
    const share = Math.ceil(count / this.#clients.length);
    await this.#all((client) => client.order(`detached ${service} ${share}`));
  }

  /** Has the streams opened, all in one session. */
  async openStreams(service: string, count: number): Promise<void> {
    await this.#clients[0]?.order(`streams ${service} ${count}`);
  }

  async closeStreams(): Promise<void> {
    await this.#clients[0]?.order("closeStreams");
  }

  /** Pss of the server as it is once it has nothing to do, and after a collection. */
  async memory(): Promise<{ uncollected: number; collected: number }> {
    await untilQuiet(this.#load, this.server.tree);
    const uncollected = this.#pss();
    process.kill(this.server.pid, "SIGWINCH");
    await untilQuiet(this.#load, this.server.tree);
    return { uncollected, collected: this.#pss() };
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const client of this.#clients) client.end();
    await this.server[Symbol.asyncDispose]();
  }

  async #all(act: (client: Client) => Promise<void>): Promise<void> {
    await Promise.all(this.#clients.map(act));
  }

  #pss(): number {
    return this.server.tree().reduce((sum, pid) => sum + memoryOf(pid, "Pss"), 0);
  }
}

/** Counts what sessions and streams hold while they are open, and whether opening and closing them again and again adds up. */
export async function idle(ground: IdleGround, counts: IdleCounts): Promise<readonly IdleSample[]> {
  return [
    await held(ground, "sessions", counts.sessions),
    await held(ground, "module streams", counts.streams),
    await held(ground, "tcp streams", counts.streams),
    ...(await cycles(ground, counts)),
  ];
}

/**
 * What each of `count` costs when as many are open already: what the process takes once (code, caches, V8's young generation) is then not
 * charged to them. Each count has a server of its own, as memory that a process has freed mostly stays its own and would be had for nothing.
 */
export async function held(ground: IdleGround, holds: Held, count: number): Promise<IdleSample> {
  await using scene = await Scene.set(ground, clientsFor(holds, count));
  const open = async () => {
    if (holds === "sessions") await scene.openSessions(count);
    else if (holds === "detached sessions") await scene.openDetached("quiet", count);
    else await scene.openStreams(holds === "tcp streams" ? "echo" : "quiet", count);
  };
  await open();
  const before = await scene.memory();
  await open();
  const after = await scene.memory();
  return {
    type: "held",
    holds,
    count,
    bytesEach: (after.collected - before.collected) / count,
    bytesEachUncollected: (after.uncollected - before.uncollected) / count,
    bytesInAll: after.uncollected,
  };
}

/** One process is enough for what has no connection. */
function clientsFor(holds: Held, count: number): number {
  return holds === "sessions" ? Math.ceil((2 * count) / SESSIONS_A_CLIENT) : 1;
}

async function cycles(ground: IdleGround, counts: IdleCounts): Promise<readonly IdleSample[]> {
  const sessions = Math.ceil(counts.sessions * CYCLE_SESSIONS_PART);
  const what = `${sessions} sessions, ${counts.streams} module streams, ${counts.streams} tcp streams`;
  await using scene = await Scene.set(ground, 1);
  const samples: IdleSample[] = [];
  for (let cycle = 1; cycle <= counts.cycles; cycle++) {
    await scene.openSessions(sessions);
    for (const service of ["quiet", "echo"]) {
      await scene.openStreams(service, counts.streams);
      await scene.closeStreams();
    }
    await scene.closeSessions();
    const { collected } = await scene.memory();
    samples.push({ type: "cycle", what, cycle, bytes: collected });
  }
  return samples;
}

/** A process of `idle-client.ts`. */
class Client {
  readonly #child: ChildProcess;
  readonly #answers: AsyncIterator<string, void>;

  constructor(port: number, signal: AbortSignal) {
    const program = join(import.meta.dirname, "idle-client.ts");
    this.#child = spawn(process.execPath, [program, String(port)], { stdio: ["pipe", "pipe", "inherit"], signal });
    this.#child.on("error", () => {}); // Aborted: the order under way fails, as the answers end.
    this.#answers = answersOf(this.#child);
  }

  /** Gives an order and waits until it was carried out. */
  async order(order: string): Promise<void> {
    this.#child.stdin?.write(`${order}\n`);
    const { value, done } = await this.#answers.next();
    if (done === true) throw new Error(`Cannot "${order}": the idle client has ended`);
    if (value !== "ready") throw new Error(`Cannot "${order}": ${value}`);
  }

  end(): void {
    this.#child.kill("SIGKILL");
  }
}

async function* answersOf(child: ChildProcess): AsyncGenerator<string, void> {
  if (child.stdout !== null) yield* createInterface({ input: child.stdout });
}
