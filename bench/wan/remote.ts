/**
 * What is measured over the emulated links by `roam.ts` and `paths.ts`: a session server with modules of the bench's own at the far end, and a client's process
 * at the near one, which takes orders on standard input, a line each, and answers each with a line.
 * @module
 */
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { setTimeout as sleep } from "node:timers/promises";
import { COMMAND, RUNTIME } from "../fived.ts";
import { start } from "../processes.ts";
import { type Link, SERVER_ADDRESS } from "./link.ts";

/** Where the server listens. */
export const PORT = 1078;
/** What it may take to start. */
const START_MS = 1_500;

/** Starts `fived serve` with services by name, each the text of a module. Who nobody knows may be detached, and attached to as often as he likes. */
export async function startModules(
  folder: string,
  link: Link,
  modules: Readonly<Record<string, string>>,
): Promise<AsyncDisposable> {
  for (const [name, text] of Object.entries(modules)) await writeFile(join(folder, `${name}.ts`), text);
  const services = Object.fromEntries(
    Object.keys(modules).map((name) => [name, { module: join(folder, `${name}.ts`), allow: ["anyone"] }]),
  );
  const settings = join(folder, "fived.yaml");
  const configuration = {
    listen: [`tcp://${SERVER_ADDRESS}:${PORT}`],
    services,
    sessions: { detach: { anonymous: 10, attaches: 10_000 } },
  };
  await writeFile(settings, JSON.stringify(configuration));
  const command = [RUNTIME, COMMAND, "serve", "-c", settings, "--state", join(folder, "state")];
  const [program, ...args] = link.at("server", command);
  const server = await start(program, args, { log: join(folder, "server.log") });
  await sleep(START_MS);
  return server;
}

/** A client's process. */
export class RemoteClient implements AsyncDisposable {
  readonly #child: ChildProcess;
  readonly #answers: AsyncIterator<string, void>;

  private constructor(child: ChildProcess, answers: AsyncIterator<string, void>) {
    this.#child = child;
    this.#answers = answers;
  }

  /** Starts a script of this folder, with the server's address and a file of pins as its arguments. */
  static async start(folder: string, link: Link, script: string): Promise<RemoteClient> {
    const command = [
      RUNTIME,
      join(import.meta.dirname, script),
      `${SERVER_ADDRESS}:${PORT}`,
      join(folder, "known_hosts"),
    ];
    const [program, ...args] = link.at("client", command);
    const child = spawn(program, args, { stdio: ["pipe", "pipe", "inherit"], detached: true });
    async function* lines(): AsyncGenerator<string, void> {
      yield* createInterface({ input: child.stdout });
    }
    const client = new RemoteClient(child, lines());
    await client.#answer();
    return client;
  }

  /** Has something done; a number. */
  async ask(order: string): Promise<number> {
    this.#child.stdin?.write(`${order}\n`);
    return Number(await this.#answer());
  }

  async #answer(): Promise<string> {
    const { value } = await this.#answers.next();
    if (value === undefined) throw new Error("Cannot go on: the client has ended");
    return value;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#child.stdin?.end();
    await once(this.#child, "exit");
  }
}
