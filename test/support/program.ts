/**
 * Programs that a test runs: started in a process group of their own, heard, spoken to, and ended by id, also when the test's own process
 * is ended before its time.
 * @module
 */
import { type ChildProcessWithoutNullStreams, spawn } from "node:child_process";
import { once } from "node:events";
import { constants } from "node:os";
import type { Readable } from "node:stream";
import { buffer } from "node:stream/consumers";
import { PATIENCE_MS, within } from "./deadline.ts";
import { programPath } from "./needs.ts";

/** How to run a program. */
export interface ProgramOptions {
  readonly cwd?: string;
  readonly env?: NodeJS.ProcessEnv;
  /** The user to be, where that is not ourselves. */
  readonly user?: { readonly uid: number; readonly gid: number };
  /** What asks it to end; SIGTERM unless said otherwise. */
  readonly endSignal?: NodeJS.Signals;
}

/** How a program ended. */
export interface Ended {
  /** Exit status; 128 + signal number as a shell says it where a signal ended it. */
  readonly status: number;
  readonly stdout: Buffer;
  readonly stderr: string;
}

/** How long a program that was asked to end may take before it is made to. */
const END_MS = 5_000;

/** Runs a program to its end. */
export async function run(
  command: readonly string[],
  {
    input = "",
    ms = PATIENCE_MS,
    ...options
  }: ProgramOptions & { readonly input?: string | Uint8Array; readonly ms?: number } = {},
): Promise<Ended> {
  await using started = launch(command, options);
  const { child, ended } = started;
  child.stdin.end(input);
  const output = Promise.all([buffer(child.stdout), buffer(child.stderr), ended]);
  const [stdout, stderr, status] = await within(output, `the end of ${command.join(" ")}`, { ms });
  return { status, stdout, stderr: stderr.toString() };
}

/** A program that runs until it is told to end or has done its work. */
export class Program implements AsyncDisposable {
  readonly #process: Launched;
  readonly #name: string;
  readonly #output = new Transcript();
  readonly #errors = new Transcript();

  /** Starts the program; `kept` false leaves its standard output to the caller, who may then read it as slowly as he likes. */
  constructor(command: readonly string[], options: ProgramOptions & { readonly kept?: boolean } = {}) {
    this.#process = launch(command, options);
    this.#name = command.join(" ");
    if (options.kept !== false) this.#output.keep(this.#process.child.stdout);
    this.#errors.keep(this.#process.child.stderr);
  }

  /** Process id, and the id of its process group. */
  get pid(): number {
    return this.#process.pid;
  }

  /** Standard output as a stream, for a program that was started with `kept: false`. */
  get output(): Readable {
    return this.#process.child.stdout;
  }

  /** What has come on standard output. */
  get said(): string {
    return this.#output.text;
  }

  /** What has come on standard error. */
  get complained(): string {
    return this.#errors.text;
  }

  /** Exit status, when it has ended. */
  get ended(): Promise<number> {
    return within(this.#process.ended, `the end of ${this.#name}`, { seen: () => this.#seen() });
  }

  /** Waits for what matches on standard output, behind what was heard before. */
  hears(pattern: RegExp): Promise<RegExpExecArray> {
    return this.#wait(this.#output, pattern, "standard output");
  }

  /** The same on standard error, where daemons log. */
  logs(pattern: RegExp): Promise<RegExpExecArray> {
    return this.#wait(this.#errors, pattern, "standard error");
  }

  /** Everything on standard output from what was heard before to its end. */
  async rest(): Promise<string> {
    await within(this.#output.over, `the end of the output of ${this.#name}`, { seen: () => this.#seen() });
    return this.#output.unheard;
  }

  /** Types on its standard input. */
  says(text: string | Uint8Array): void {
    this.#process.child.stdin.write(text);
  }

  /** Ends its standard input. */
  hangsUp(): void {
    this.#process.child.stdin.end();
  }

  /** Sends a signal to it alone. */
  signal(signal: NodeJS.Signals): void {
    process.kill(this.pid, signal);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#process[Symbol.asyncDispose]();
  }

  async #wait(transcript: Transcript, pattern: RegExp, where: string): Promise<RegExpExecArray> {
    const what = `${pattern} on the ${where} of ${this.#name}`;
    const found = await within(transcript.find(pattern), what, { seen: () => this.#seen() });
    if (found === undefined) throw new Error(`waited in vain for ${what}, which has ended${this.#seen()}`);
    return found;
  }

  #seen(): string {
    return `\n--- standard output\n${this.said}\n--- standard error\n${this.complained}\n---`;
  }
}

/** What a program has said, and up to where a test has listened. */
class Transcript {
  #text = "";
  #heard = 0;
  #changed = Promise.withResolvers<void>();
  readonly #over = Promise.withResolvers<void>();
  #isOver = false;

  get text(): string {
    return this.#text;
  }

  get unheard(): string {
    return this.#text.slice(this.#heard);
  }

  get over(): Promise<void> {
    return this.#over.promise;
  }

  keep(stream: Readable): void {
    // Latin-1 keeps every octet apart, wherever the pipe cuts.
    stream.setEncoding("latin1").on("data", (part) => {
      this.#text += part;
      this.#change();
    });
    stream.once("close", () => {
      this.#isOver = true;
      this.#over.resolve();
      this.#change();
    });
  }

  /** The next match behind the last; undefined when the end comes first. */
  async find(pattern: RegExp): Promise<RegExpExecArray | undefined> {
    for (;;) {
      const found = pattern.exec(this.unheard);
      if (found !== null) {
        this.#heard += found.index + found[0].length;
        return found;
      }
      if (this.#isOver) return undefined;
      await this.#changed.promise;
    }
  }

  #change(): void {
    this.#changed.resolve();
    this.#changed = Promise.withResolvers();
  }
}

interface Launched extends AsyncDisposable {
  readonly child: ChildProcessWithoutNullStreams;
  readonly pid: number;
  readonly ended: Promise<number>;
}

/** Process groups that have not ended: if we are ended first, they go with us. */
const groups = new Set<number>();
process.once("exit", () => {
  for (const group of groups) kill(-group, "SIGKILL");
});
for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"] as const) process.once(signal, () => process.exit(1));

function launch(
  [name = "", ...args]: readonly string[],
  { cwd, env, user, endSignal = "SIGTERM" }: ProgramOptions,
): Launched {
  const file = programPath(name);
  if (file === undefined) throw new Error(`Cannot run ${name}: there is no such program on this machine`);
  // Detached is a session of its own: no terminal to ask at, and a process group that can be ended as one.
  const child = spawn(file, args, {
    detached: true,
    ...(cwd === undefined ? {} : { cwd }),
    ...(env === undefined ? {} : { env }),
    ...user,
  });
  const { pid } = child;
  child.on("error", () => {}); // Told by the missing pid.
  if (pid === undefined) throw new Error(`Cannot run ${file}: it could not be started`);
  groups.add(pid);
  child.stdin.on("error", () => {}); // A program may end before it has read everything.
  const ended = once(child, "exit").then(
    () => child.exitCode ?? 128 + constants.signals[child.signalCode ?? "SIGKILL"],
  );
  return {
    child,
    pid,
    ended,
    async [Symbol.asyncDispose]() {
      if (child.exitCode === null && child.signalCode === null) {
        kill(-pid, endSignal);
        await within(ended, "", { ms: END_MS }).catch(() => {});
      }
      // Whatever it has started and left behind, and itself if it did not listen.
      kill(-pid, "SIGKILL");
      await ended;
      groups.delete(pid);
      for (const stream of child.stdio) stream?.destroy();
    },
  };
}

/** Signals a process group by its id; one that is gone already needs no signal. */
function kill(group: number, signal: NodeJS.Signals): void {
  try {
    process.kill(group, signal);
  } catch (error) {
    if (!(error instanceof Error && "code" in error && error.code === "ESRCH")) throw error;
  }
}
