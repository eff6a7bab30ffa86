/**
 * The measurements themselves: each drives `load.c` through one tunnel once and gives one sample. Knows nothing of which tunnel it is, and
 * nothing of medians: run.ts decides what is measured when, table.ts what it means.
 * @module
 */
import { execFile } from "node:child_process";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { findProgram, run } from "./processes.ts";

/** A way for bytes from here to the two back ends, and the processes that carry them. */
export interface Tunnel extends AsyncDisposable {
  readonly name: string;
  /** Port that leads to the back end for bulk transfers. */
  readonly bulkPort: number;
  /** Port that leads to the back end that echoes. */
  readonly echoPort: number;
  /** The tunnel's processes at this moment; none when there is no tunnel. */
  pids(): readonly number[];
}

/** Which way the bytes of a bulk transfer go: down is from the back end to us. */
export type Direction = "down" | "up";

/** What else goes through the tunnel while an echo is timed. */
export type Beside = "nothing" | "bulk";

/** One measured transfer, round of openings, or series of echoes; seconds and bytes throughout. */
export type Sample =
  | {
      readonly type: "bulk";
      readonly peer: string;
      readonly round: number;
      readonly direction: Direction;
      readonly streams: number;
      readonly bytes: number;
      readonly seconds: number;
      readonly cpuSeconds: number;
    }
  | {
      readonly type: "streams";
      readonly peer: string;
      readonly round: number;
      readonly atOnce: number;
      readonly opened: number;
      readonly failed: number;
      readonly seconds: number;
      readonly cpuSeconds: number;
    }
  | {
      readonly type: "echo";
      readonly peer: string;
      readonly round: number;
      readonly beside: Beside;
      readonly count: number;
      readonly p50: number;
      readonly p99: number;
      readonly max: number;
      /** What the bulk streams moved meanwhile: a quick echo beside starved streams would be no merit. */
      readonly besideBytesPerSecond: number;
    };

/** Where a sample belongs. */
export interface Place {
  readonly tunnel: Tunnel;
  readonly round: number;
}

/** How many bulk streams an echo is timed beside. */
const BESIDE_STREAMS = 4;
/** How long these run before the first echo, so that windows have grown and queues have filled. */
const BESIDE_LEAD_SECONDS = 0.5;
/** A tunnel counts as quiet when it used less CPU than this between two looks. */
const QUIET_SECONDS = 0.002;
const QUIET_LOOK_MS = 100;
/** A tunnel that never gets quiet is measured all the same. */
const QUIET_LOOKS_MAX = 30;

/** The compiled `load.c`. */
export class Load {
  readonly path: string;
  readonly #signal: AbortSignal;

  private constructor(path: string, signal: AbortSignal) {
    this.path = path;
    this.#signal = signal;
  }

  /** Compiles `load.c` into `folder`. */
  static async compile(folder: string, signal: AbortSignal): Promise<Load> {
    const compiler = findProgram("cc");
    if (compiler === undefined) {
      throw new Error("Cannot compile bench/load.c: there is no C compiler (cc); on Debian, apt install gcc libc6-dev");
    }
    const path = join(folder, "load");
    await run(compiler, ["-O2", "-pthread", "-o", path, join(import.meta.dirname, "load.c")]);
    return new Load(path, signal);
  }

  /** Runs one act of `load.c` and gives what it says. */
  async run(...args: readonly (string | number)[]): Promise<ReadonlyMap<string, number>> {
    const { stdout } = await run(this.path, args.map(String), { signal: this.#signal });
    return readPairs(stdout);
  }

  /** Nanoseconds of user and system time that each of the processes has used so far, by process id. */
  async cpu(pids: readonly number[]): Promise<ReadonlyMap<string, number>> {
    return pids.length === 0 ? new Map() : await this.run("cpu", ...pids);
  }

  /** Starts the back ends; they end with the bench. */
  async serve(): Promise<BackEnds> {
    const child = execFile(this.path, ["serve"]);
    const { promise, resolve, reject } = Promise.withResolvers<string>();
    child.stdout?.once("data", (line) => resolve(String(line)));
    child.once("exit", () => reject(new Error("Cannot start the back ends: load serve has ended")));
    const ports = readPairs(await promise);
    return {
      bulk: figure(ports, "bulk"),
      echo: figure(ports, "echo"),
      [Symbol.asyncDispose]: async () => {
        child.kill("SIGKILL");
      },
    };
  }
}

/** The ports where every tunnel ends. */
export interface BackEnds extends AsyncDisposable {
  readonly bulk: number;
  readonly echo: number;
}

/** Moves `bytes` in all over `streams` streams at once. */
export async function bulk(
  load: Load,
  { tunnel, round }: Place,
  direction: Direction,
  streams: number,
  bytes: number,
): Promise<Sample> {
  const { said, cpuSeconds } = await withCpu(load, tunnel, () =>
    load.run("bulk", tunnel.bulkPort, direction, streams, bytes),
  );
  return {
    type: "bulk",
    peer: tunnel.name,
    round,
    direction,
    streams,
    bytes: figure(said, "bytes"),
    seconds: figure(said, "seconds"),
    cpuSeconds,
  };
}

/** Opens, uses once and closes streams for some seconds, `atOnce` at a time. */
export async function streams(load: Load, { tunnel, round }: Place, atOnce: number, seconds: number): Promise<Sample> {
  const { said, cpuSeconds } = await withCpu(load, tunnel, () => load.run("rate", tunnel.echoPort, atOnce, seconds));
  return {
    type: "streams",
    peer: tunnel.name,
    round,
    atOnce,
    opened: figure(said, "opened"),
    failed: figure(said, "failed"),
    seconds: figure(said, "seconds"),
    cpuSeconds,
  };
}

/** Times echoes of one octet on one stream for some seconds, alone or beside four downloads through the same tunnel. */
export async function echo(load: Load, { tunnel, round }: Place, beside: Beside, seconds: number): Promise<Sample> {
  const time = () => load.run("echo", tunnel.echoPort, seconds);
  const [said, flooded] =
    beside === "nothing"
      ? [await time(), undefined]
      : await Promise.all([
          sleep(BESIDE_LEAD_SECONDS * 1000).then(time),
          load.run("flood", tunnel.bulkPort, BESIDE_STREAMS, seconds + 2 * BESIDE_LEAD_SECONDS),
        ]);
  return {
    type: "echo",
    peer: tunnel.name,
    round,
    beside,
    count: figure(said, "count"),
    p50: figure(said, "p50"),
    p99: figure(said, "p99"),
    max: figure(said, "max"),
    besideBytesPerSecond: flooded === undefined ? 0 : figure(flooded, "bytes") / figure(flooded, "seconds"),
  };
}

/** Waits until the processes have nothing left to do, so that one measurement does not pay for the one before. */
export async function untilQuiet(load: Load, pids: () => readonly number[]): Promise<void> {
  let before = total(await load.cpu(pids()));
  for (let look = 0; look < QUIET_LOOKS_MAX; look++) {
    await sleep(QUIET_LOOK_MS);
    const after = total(await load.cpu(pids()));
    if (after - before < QUIET_SECONDS) return;
    before = after;
  }
}

/** CPU is counted over all processes of the tunnel, those started meanwhile included. */
async function withCpu(
  load: Load,
  tunnel: Tunnel,
  act: () => Promise<ReadonlyMap<string, number>>,
): Promise<{ said: ReadonlyMap<string, number>; cpuSeconds: number }> {
  const before = await load.cpu(tunnel.pids());
  const said = await act();
  const after = await load.cpu(tunnel.pids());
  const nanoseconds = [...after].reduce((sum, [pid, used]) => sum + used - (before.get(pid) ?? 0), 0);
  return { said, cpuSeconds: nanoseconds / 1e9 };
}

function total(cpu: ReadonlyMap<string, number>): number {
  return [...cpu.values()].reduce((sum, used) => sum + used, 0) / 1e9;
}

function readPairs(text: string): ReadonlyMap<string, number> {
  const pairs = text
    .trim()
    .split(/\s+/)
    .filter((pair) => pair !== "");
  return new Map(
    pairs.map((pair) => {
      const [name = "", value = ""] = pair.split("=");
      return [name, Number(value)] as const;
    }),
  );
}

function figure(pairs: ReadonlyMap<string, number>, name: string): number {
  const value = pairs.get(name);
  if (value === undefined || Number.isNaN(value)) throw new Error(`Cannot read "${name}" in what load.c says`);
  return value;
}
