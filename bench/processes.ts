/**
 * Starting, counting and ending what the bench runs. Everything started here is ended here: by its owner, or at the latest when this
 * process exits, whatever the reason. Only processes that descend from ours are ever signalled, each by its own id.
 * @module
 */
import { type ChildProcess, execFile, spawn } from "node:child_process";
import { once } from "node:events";
import { accessSync, closeSync, constants, openSync, readdirSync, readFileSync } from "node:fs";
import { connect, createServer } from "node:net";
import { delimiter, join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { promisify } from "node:util";

/** What a server may take to end after SIGTERM before it is killed. */
const END_SECONDS = 3;
/** What a tunnel may take from its start to its first echo. */
const READY_SECONDS = 20;
/** What one attempt at an echo may take: a tunnel whose far end is not up yet often accepts and then says nothing. */
const ATTEMPT_MS = 1000;
const POLL_MS = 50;
/** How much of a log an error shows: its end tells what happened last. */
const LOG_TAIL = 600;

/** Runs a command to its end and gives its output. */
export const run = promisify(execFile);

/** A process of ours, its output in a file. */
export interface Started extends AsyncDisposable {
  readonly pid: number;
  /** Where its output goes. */
  readonly log: string;
  /** True while it runs. */
  alive(): boolean;
  /** It and everything that descends from it. */
  tree(): readonly number[];
}

/** How a process is started. */
export interface StartOptions {
  readonly log: string;
  readonly env?: Readonly<Record<string, string>>;
}

const children = new Set<ChildProcess>();

// The last resort: an owner that could not end its process because the bench itself was ended.
process.on("exit", () => {
  for (const child of children) for (const pid of treeOf(child.pid)) signal(pid, "SIGKILL");
});

/** Starts a process in a group of its own, so that Ctrl-C reaches the bench alone and the bench ends its processes in order. */
export async function start(command: string, args: readonly string[], options: StartOptions): Promise<Started> {
  const log = openSync(options.log, "a");
  const child = spawn(command, args, {
    stdio: ["ignore", log, log],
    detached: true,
    env: { ...process.env, ...options.env },
  });
  closeSync(log);
  await once(child, "spawn");
  children.add(child);
  child.on("exit", () => children.delete(child));
  const { pid } = child;
  if (pid === undefined) throw new Error(`Cannot start ${command}: it has no process id`);
  return {
    pid,
    log: options.log,
    alive: () => child.exitCode === null && child.signalCode === null,
    tree: () => treeOf(pid),
    [Symbol.asyncDispose]: () => end(pid),
  };
}

/** Processor time of these processes so far, user and system, in seconds; the kernel counts it in ticks of 10 ms. */
export function cpuSecondsOf(pids: readonly number[]): number {
  let ticks = 0;
  for (const pid of pids) {
    const text = readFileSync(`/proc/${pid}/stat`, "utf8");
    const [user = "0", system = "0"] = text
      .slice(text.lastIndexOf(")") + 2)
      .split(" ")
      .slice(11, 13);
    ticks += Number(user) + Number(system);
  }
  return ticks / 100;
}

/** Bytes of memory a process holds: `Rss` all its pages, `Pss` of a page that several share its part. */
export function memoryOf(pid: number, figure: "Rss" | "Pss"): number {
  const text = readFileSync(`/proc/${pid}/smaps_rollup`, "utf8");
  return Number(text.match(new RegExp(`^${figure}: *(\\d+) kB`, "m"))?.[1]) * 1024;
}

/** Finds a program as the shell would, and also where Debian puts servers. */
export function findProgram(name: string): string | undefined {
  const folders = [...(process.env["PATH"] ?? "").split(delimiter), "/usr/local/sbin", "/usr/sbin", "/sbin"];
  return folders
    .map((folder) => join(folder, name))
    .find((path) => {
      try {
        accessSync(path, constants.X_OK);
        return true;
      } catch {
        return false;
      }
    });
}

/** A port that was free a moment ago; for programs that cannot say which port they were given. */
export async function freePort(): Promise<number> {
  const server = createServer().listen(0, "127.0.0.1");
  await once(server, "listening");
  const address = server.address();
  server.close();
  await once(server, "close");
  if (address === null || typeof address === "string") throw new Error("Cannot read the port of a listening socket");
  return address.port;
}

/** Waits until one octet comes back through `port`; fails with the end of the logs when one of the processes has ended. */
export async function untilEcho(port: number, processes: readonly Started[], signal: AbortSignal): Promise<void> {
  await until(`no echo within ${READY_SECONDS} s`, () => echoes(port), processes, signal);
}

/** Waits until `process` accepts connections on `port`. */
export async function untilListening(port: number, process: Started, signal: AbortSignal): Promise<void> {
  await until(`nothing accepts within ${READY_SECONDS} s`, () => accepts(port), [process], signal);
}

async function until(
  late: string,
  ready: () => Promise<boolean>,
  processes: readonly Started[],
  signal: AbortSignal,
): Promise<void> {
  const deadline = performance.now() + READY_SECONDS * 1000;
  while (!(await ready())) {
    const dead = processes.some((process) => !process.alive());
    if (dead || performance.now() > deadline) {
      const logs = new Set(processes.map((process) => readFileSync(process.log, "utf8").trim().slice(-LOG_TAIL)));
      throw new Error([dead ? "one of its processes has ended" : late, ...logs].join("\n"));
    }
    await sleep(POLL_MS, undefined, { signal });
  }
}

async function accepts(port: number): Promise<boolean> {
  const socket = connect({ port, host: "127.0.0.1" });
  const { promise, resolve } = Promise.withResolvers<boolean>();
  socket.on("connect", () => resolve(true));
  socket.on("error", () => resolve(false));
  const answer = await promise;
  socket.destroy();
  return answer;
}

async function echoes(port: number): Promise<boolean> {
  const socket = connect({ port, host: "127.0.0.1" });
  socket.setTimeout(ATTEMPT_MS, () => socket.destroy());
  const { promise, resolve } = Promise.withResolvers<boolean>();
  socket.on("connect", () => socket.write("x"));
  socket.on("data", () => resolve(true));
  socket.on("error", () => resolve(false));
  socket.on("close", () => resolve(false));
  const answer = await promise;
  socket.destroy();
  return answer;
}

/** The process and its descendants, parents first. */
function treeOf(root: number | undefined): readonly number[] {
  if (root === undefined) return [];
  const childrenOf = new Map<number, number[]>();
  for (const entry of readdirSync("/proc")) {
    const parent = parentOf(entry);
    if (parent === undefined) continue;
    childrenOf.set(parent, [...(childrenOf.get(parent) ?? []), Number(entry)]);
  }
  const tree = [root];
  for (const pid of tree) tree.push(...(childrenOf.get(pid) ?? []));
  return tree;
}

function parentOf(entry: string): number | undefined {
  if (!/^\d+$/.test(entry)) return undefined;
  try {
    // The command's name stands in parentheses and may hold anything, so fields are counted from the last one.
    const stat = readFileSync(`/proc/${entry}/stat`, "utf8");
    return Number(stat.slice(stat.lastIndexOf(")") + 2).split(" ")[1]);
  } catch {
    return undefined; // It has ended since it was listed.
  }
}

/** Ends the whole tree, listed before the first signal: an orphan no longer tells whose it was. */
async function end(root: number): Promise<void> {
  const tree = treeOf(root);
  const left = () => tree.filter((pid) => signal(pid, 0));
  for (const pid of tree) signal(pid, "SIGTERM");
  const deadline = performance.now() + END_SECONDS * 1000;
  while (left().length > 0 && performance.now() < deadline) await sleep(POLL_MS);
  for (const pid of left()) signal(pid, "SIGKILL");
}

/** False when there is no such process any more. */
function signal(pid: number, name: NodeJS.Signals | 0): boolean {
  try {
    return process.kill(pid, name);
  } catch {
    return false;
  }
}
