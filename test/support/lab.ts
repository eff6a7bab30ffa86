/**
 * The room a test works in: a folder with a home of its own, and whatever runs there. It is cleared when the test ends, in the reverse order,
 * whether the test passed or not.
 * @module
 */
import fs from "node:fs/promises";
import net from "node:net";
import os from "node:os";
import path from "node:path";
import type { TestContext } from "node:test";
import { type Ended, Program, type ProgramOptions, run } from "./program.ts";

/** Temporary files and running programs of one test. */
export class Lab {
  /** Where files go; others may pass through it, so that a daemon with its own user reaches what is its own. */
  readonly folder: string;
  /** The environment of everything that runs here: nothing of whoever runs the tests is seen, but PATH. */
  readonly env: NodeJS.ProcessEnv;
  readonly #open = new AsyncDisposableStack();

  private constructor(folder: string) {
    this.folder = folder;
    this.env = {
      PATH: process.env["PATH"],
      HOME: folder,
      LANG: "C.UTF-8",
      NO_COLOR: "1",
      XDG_CONFIG_HOME: path.join(folder, "config"),
      XDG_STATE_HOME: path.join(folder, "state"),
      XDG_RUNTIME_DIR: path.join(folder, "run"),
      // A session manager would outlive the test.
      FIVED_MANAGER: "off",
    };
  }

  /** Opens a lab that lasts as long as the test. */
  static async open(t: TestContext): Promise<Lab> {
    const lab = new Lab(await fs.mkdtemp(path.join(os.tmpdir(), "fived-lab-")));
    lab.#open.defer(() => fs.rm(lab.folder, { recursive: true, force: true }));
    t.after(() => lab.#open.disposeAsync());
    await fs.chmod(lab.folder, 0o711);
    return lab;
  }

  /** Path of a file here. */
  path(...names: readonly string[]): string {
    return path.join(this.folder, ...names);
  }

  /** Writes a file here, and says where. */
  async write(name: string, text: string): Promise<string> {
    const file = this.path(name);
    await fs.writeFile(file, text);
    return file;
  }

  /** Makes a folder here, and says where. */
  async makeFolder(name: string): Promise<string> {
    const folder = this.path(name);
    await fs.mkdir(folder);
    return folder;
  }

  /** Starts a program that ends with the test at the latest. */
  start(command: readonly string[], options: ProgramOptions & { readonly kept?: boolean } = {}): Program {
    return this.#open.use(new Program(command, this.#with(options)));
  }

  /** Runs a program to its end. */
  run(
    command: readonly string[],
    options: ProgramOptions & { readonly input?: string | Uint8Array; readonly ms?: number } = {},
  ): Promise<Ended> {
    return run(command, this.#with(options));
  }

  /** Has something done when the test ends, before what was asked for earlier. */
  defer(act: () => Promise<void>): void {
    this.#open.defer(act);
  }

  #with<Options extends ProgramOptions>(options: Options): Options {
    return { cwd: this.folder, ...options, env: { ...this.env, ...options.env } };
  }
}

/** A port that nobody listens on, for daemons that cannot choose one: the kernel does not hand the same one out again soon. */
export async function freePort(): Promise<number> {
  await using server = net.createServer();
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  return portOf(server);
}

/** The port a server listens on. */
export function portOf(server: net.Server): number {
  const address = server.address();
  if (address === null || typeof address === "string") throw new Error("the server listens on no port");
  return address.port;
}

/** Resolves when somebody accepts connections there; rejects when nobody does. */
export async function reachable(port: number, host = "127.0.0.1"): Promise<void> {
  const socket = net.connect({ port, host });
  try {
    await new Promise<void>((resolve, reject) => socket.once("connect", resolve).once("error", reject));
  } finally {
    socket.destroy();
  }
}
