/**
 * Services that are a program, started for every stream as inetd did: its standard input and output are the stream, its standard error goes
 * to the log. No shell looks at the arguments, and nothing the caller said is among them.
 *
 * A process is more than a socket: it may leave its input unread, may exit while what it has written is still under way, and may leave
 * children behind that hold its output open. Here that becomes two plain streams that end when the process has.
 * @module
 */
import { type ChildProcessByStdio, spawn } from "node:child_process";
import type { Socket } from "node:net";
import { Readable, Writable } from "node:stream";
import type { Splice, Traffic } from "../../io/index.ts";
import { rolesToTell } from "../announce/assertions.ts";
import type { Log } from "../log.ts";
import type { BackEndSettings } from "../schema.ts";
import type { Next, Service, Talk } from "../service.ts";

/** A process that does not end after SIGTERM is killed after this long. */
const TERMINATE_MS = 5_000;
/** What a process has written before its exit is in the kernel and comes at once: after so long a silence no more of it is coming. */
const QUIET_MS = 100;
/** What a process can have left in the kernel's buffers is less than this; more comes from children that outlive it. */
const DRAIN_BYTES_MAX = 1024 * 1024;
/** Characters of a line of standard error that are logged. */
const ERROR_LINE_MAX = 1_000;
/** Lines of standard error that are logged of one process: a log is no place for a program's whole output. */
const ERROR_LINES_MAX = 100;

type Child = ChildProcessByStdio<Writable, Readable, Readable>;

/** A service that starts a program for every stream. */
export class ExecService implements Service {
  readonly word: string;
  readonly #settings: Extract<BackEndSettings, { type: "exec" }>;
  readonly #log: Log;
  #running = 0;

  constructor(word: string, settings: Extract<BackEndSettings, { type: "exec" }>, log: Log) {
    this.word = word;
    this.#settings = settings;
    this.#log = log;
  }

  serve(talk: Talk): Next | Promise<Next> {
    if (talk.signal.aborted) return "closed";
    if (this.#running >= this.#settings.processesMax) {
      talk.refuse(429, `${talk.service}: too many are running, try again later`);
      return "closed";
    }
    let child: Child;
    try {
      child = this.#spawn(talk);
    } catch (error) {
      return this.#failed(talk, error);
    }
    this.#running++;
    child.once("exit", () => this.#running--);
    this.#logErrors(child.stderr, talk);
    return new Promise((resolve) => {
      child.once("error", (error) => {
        if (child.pid !== undefined) return; // it runs; only a signal to it has failed
        this.#running--;
        resolve(this.#failed(talk, error));
      });
      child.once("spawn", () => {
        talk.accept();
        talk.splice(new ProcessSplice(child));
        resolve("bytes");
      });
    });
  }

  #spawn(talk: Talk): Child {
    const { program, args, folder } = this.#settings;
    return spawn(program, args, {
      cwd: folder,
      env: environment(talk),
      stdio: ["pipe", "pipe", "pipe"],
      // Its own process group, so that what it has started can be ended with it.
      detached: true,
    });
  }

  #failed(talk: Talk, error: unknown): "closed" {
    this.#log.error({ service: talk.service, file: this.#settings.program, error }, "cannot start a program");
    talk.refuse(502, `${talk.service}: back end cannot be started`);
    return "closed";
  }

  #logErrors(stderr: Readable, talk: Talk): void {
    const fields = { service: talk.service, session: talk.caller.session };
    let lines = 0;
    const log = (line: string): void => {
      if (line === "" || ++lines > ERROR_LINES_MAX) return;
      this.#log.info({ ...fields, line }, "program said");
      if (lines === ERROR_LINES_MAX) this.#log.info(fields, "program says too much for the log");
    };
    let rest = "";
    stderr.setEncoding("utf8");
    stderr.on("data", (text: string) => {
      const parts = (rest + text).split("\n");
      rest = (parts.pop() ?? "").slice(0, ERROR_LINE_MAX);
      for (const part of parts) log(part.slice(0, ERROR_LINE_MAX));
    });
    stderr.on("error", () => {}); // "close" follows
    stderr.once("close", () => log(rest));
  }
}

/** What a program is told. Nothing of our own environment but where programs are, and in which language to speak. */
function environment({ service, host = "", caller }: Talk): Record<string, string> {
  return {
    PATH: process.env["PATH"] ?? "/usr/local/bin:/usr/bin:/bin",
    LANG: process.env["LANG"] ?? "C.UTF-8",
    FIVED_SERVICE: service,
    FIVED_HOST: host,
    FIVED_USER: caller.user ?? "",
    FIVED_ROLES: rolesToTell(caller).join(","),
    FIVED_MECHANISM: caller.identity?.mechanism ?? "",
    FIVED_SECOND_FACTOR: caller.identity?.secondFactor === true ? "yes" : "",
    FIVED_SESSION: caller.session,
    FIVED_PEER: caller.peer,
  };
}

/** The standard streams of a running process as the channel wants them. */
class ProcessSplice implements Splice {
  readonly input: Writable;
  readonly output: Readable;
  readonly endsWithOutput = true;
  readonly #child: Child;
  #killing: NodeJS.Timeout | undefined;

  constructor(child: Child) {
    this.#child = child;
    this.input = inputOf(child);
    this.output = outputOf(child);
    child.once("exit", () => clearTimeout(this.#killing));
    // A child that outlives it may hold standard error too: what that says is of no interest.
    this.output.once("close", () => child.stderr.destroy());
  }

  get traffic(): Traffic {
    // Node makes sockets of both, and says so nowhere.
    const { stdin, stdout } = this.#child as unknown as { readonly stdin: Socket; readonly stdout: Socket };
    return { received: stdin.bytesWritten, sent: stdout.bytesRead };
  }

  destroy(): void {
    this.input.destroy();
    this.output.destroy();
    if (this.#killing !== undefined) return;
    this.#signal("SIGTERM");
    this.#killing = setTimeout(() => this.#signal("SIGKILL"), TERMINATE_MS);
    if (isOver(this.#child)) clearTimeout(this.#killing);
  }

  /** Signals the process and what it has started; once it has exited its number may be another's. */
  #signal(signal: "SIGTERM" | "SIGKILL"): void {
    const { pid } = this.#child;
    if (pid === undefined || isOver(this.#child)) return;
    try {
      process.kill(-pid, signal);
    } catch {
      // It has just ended by itself.
    }
  }
}

function isOver({ exitCode, signalCode }: Child): boolean {
  return exitCode !== null || signalCode !== null;
}

/** What the caller says goes to standard input for as long as somebody reads there, and afterwards nowhere. */
function inputOf(child: Child): Writable {
  const { stdin } = child;
  stdin.on("error", () => {}); // EPIPE: a program need not read its input to the end
  const input = new Writable({
    write: (chunk, _encoding, done) => void stdin.write(chunk, () => done()),
    final: (done) => void stdin.end(() => done()),
    destroy: (error, done) => {
      stdin.destroy();
      done(error);
    },
  });
  child.once("exit", () => input.destroy());
  return input;
}

/** What the process says, ended when it has exited and all that it said is read, even if its children hold the pipe open. */
function outputOf(child: Child): Readable {
  const { stdout } = child;
  let exited = false;
  let bytesSinceExit = 0;
  let quiet: NodeJS.Timeout | undefined;
  const output = new Readable({
    read: () => void stdout.resume(),
    destroy: (error, done) => {
      clearTimeout(quiet);
      stdout.destroy();
      done(error);
    },
  });
  const finish = (): void => {
    clearTimeout(quiet);
    stdout.destroy();
    if (!output.destroyed) output.push(null);
  };
  const listen = (): void => {
    const before = bytesSinceExit;
    quiet = setTimeout(() => {
      // Timers come before reading: after a turn in which nothing else was done, what had arrived meanwhile must be read first.
      setImmediate(() => {
        const silent = bytesSinceExit === before && !stdout.isPaused();
        if (silent) finish();
        else if (!output.destroyed) listen();
      });
    }, QUIET_MS);
  };
  stdout.on("data", (chunk: Buffer) => {
    if (exited) bytesSinceExit += chunk.length;
    if (!output.push(chunk)) stdout.pause();
    if (bytesSinceExit > DRAIN_BYTES_MAX) finish();
  });
  stdout.on("error", () => {}); // "close" follows
  stdout.once("close", () => {
    if (exited) finish();
  });
  child.once("exit", () => {
    exited = true;
    if (stdout.closed) finish();
    else listen();
  });
  return output;
}
