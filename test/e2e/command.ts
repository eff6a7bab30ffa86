/**
 * The command `fived` as a person at a shell has it: every test gets a home of its own, so no pin and no key of one is seen by another.
 * @module
 */
import { type ChildProcessWithoutNullStreams, spawn } from "node:child_process";
import { once } from "node:events";
import fs from "node:fs/promises";
import os from "node:os";
import path from "node:path";
import readline from "node:readline";
import { buffer, text } from "node:stream/consumers";

/** Top of the checkout. */
export const repository = path.join(import.meta.dirname, "..", "..");

/** No command here lives for a tenth of this; one that would live for ever shall fail its own test and not the whole run. */
const LIFE_MS_MAX = 120_000;

/** How a command ended. */
export interface Ended {
  readonly code: number | null;
  readonly signal: NodeJS.Signals | null;
  readonly stdout: Buffer;
  readonly stderr: string;
}

/** Standard error without what is said of every new key: what is left is a complaint. */
export function complaints(stderr: string): string {
  return stderr.replace(/^fived: The server "[^"]*" is new: .*\n/gm, "");
}

/** A command that runs until it is told to stop. */
export interface Running {
  readonly child: ChildProcessWithoutNullStreams;
  /** The next line of standard output that matches; rejects when the command ends without one. */
  line(pattern: RegExp): Promise<RegExpExecArray>;
  /** Waits until standard error has a match. */
  complains(pattern: RegExp): Promise<void>;
  /** What has come on standard error so far. */
  stderr(): string;
  /** Sends the signal and waits for the end. */
  stop(signal?: NodeJS.Signals): Promise<{ readonly code: number | null; readonly signal: NodeJS.Signals | null }>;
}

/** A person's home, with the command in it. */
export interface Home extends AsyncDisposable {
  readonly folder: string;
  /** What commands in it are told. */
  readonly environment: NodeJS.ProcessEnv;
  /** Runs `fived` to its end. */
  fived(
    args: readonly string[],
    options?: { readonly input?: Uint8Array | string; readonly env?: NodeJS.ProcessEnv },
  ): Promise<Ended>;
  /** Starts `fived`; whatever still runs when the home goes is ended. */
  start(args: readonly string[]): Running;
}

/** Makes a home; with `manager`, commands in it use the session manager of that home, which ends with it. */
export async function home({ manager = false }: { readonly manager?: boolean } = {}): Promise<Home> {
  const folder = await fs.mkdtemp(path.join(os.tmpdir(), "fived-home-"));
  const { FIVED_CONFIG: _config, FIVED_LISTEN: _listen, FIVED_STATE: _state, ...inherited } = process.env;
  const environment = {
    ...inherited,
    XDG_CONFIG_HOME: path.join(folder, "config"),
    XDG_STATE_HOME: path.join(folder, "state"),
    // A manager outlives the command that starts it, so that a home says whether it has one, and ends it.
    FIVED_MANAGER: manager ? path.join(folder, "run", "manager.sock") : "off",
    NO_COLOR: "1",
  };
  const children = new Set<ChildProcessWithoutNullStreams>();

  function launch(args: readonly string[], env: NodeJS.ProcessEnv = {}): ChildProcessWithoutNullStreams {
    // A session of its own has no terminal: nobody can be asked, wherever the tests are run.
    const child = spawn(process.execPath, [path.join(repository, "bin", "fived.js"), ...args], {
      cwd: folder,
      detached: true,
      env: { ...environment, ...env },
    });
    children.add(child);
    const late = setTimeout(() => child.kill("SIGKILL"), LIFE_MS_MAX);
    child.once("exit", () => {
      clearTimeout(late);
      children.delete(child);
    });
    child.stdin.on("error", () => {}); // A command may end before it has read everything.
    return child;
  }

  const run: Home["fived"] = async (args, { input = "", env = {} } = {}) => {
    const child = launch(args, env);
    child.stdin.end(input);
    const [stdout, stderr] = await Promise.all([buffer(child.stdout), text(child.stderr), once(child, "close")]);
    return { code: child.exitCode, signal: child.signalCode, stdout, stderr };
  };

  return {
    folder,
    environment,
    fived: run,
    start(args) {
      const child = launch(args);
      let said = "";
      child.stderr.setEncoding("utf8").on("data", (part) => {
        said += part;
      });
      const lines = readline.createInterface({ input: child.stdout })[Symbol.asyncIterator]();
      return {
        child,
        async line(pattern) {
          for (;;) {
            const { done, value } = await lines.next();
            if (done) throw new Error(`fived ${args.join(" ")} ended before it said ${pattern}: ${said}`);
            const found = pattern.exec(value);
            if (found !== null) return found;
          }
        },
        async complains(pattern) {
          const signal = AbortSignal.timeout(LIFE_MS_MAX);
          while (!pattern.test(said)) {
            await once(child.stderr, "data", { signal }).catch((cause: unknown) => {
              throw new Error(`fived ${args.join(" ")} did not complain of ${pattern}, but: ${said}`, { cause });
            });
          }
        },
        stderr: () => said,
        async stop(signal = "SIGTERM") {
          child.kill(signal);
          if (child.exitCode === null && child.signalCode === null) await once(child, "exit");
          return { code: child.exitCode, signal: child.signalCode };
        },
      };
    },
    async [Symbol.asyncDispose]() {
      // First those who would start another manager.
      const ending = [...children].map((child) => once(child, "exit"));
      for (const child of children) child.kill("SIGKILL");
      await Promise.all(ending);
      if (manager) await run(["down"]);
      await fs.rm(folder, { recursive: true, force: true });
    },
  };
}
