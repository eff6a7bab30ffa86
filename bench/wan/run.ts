/**
 * The paper's Figures 8 and 9 over an emulated link: starts the link, the servers at its far end and the client at its near one, measures
 * all ways in turns, and ends everything it has started. `--help` and ../README.md say what can be asked for.
 * @module
 */
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { mkdir, mkdtemp, rm, writeFile } from "node:fs/promises";
import { availableParallelism, cpus, loadavg, release, tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { parseArgs } from "node:util";
import { RUNTIME } from "../fived.ts";
import { draw } from "../plot.ts";
import { type Link, MODEL, missingForLink, startLink } from "./link.ts";
import { type Echoes, judge, markdown, panels, type Report, type Series } from "./report.ts";
import { makeKeys, SERVERS } from "./servers.ts";
import type { Order, Outcome, Times, Warmth, WayName } from "./site.ts";

const USAGE = `Usage: npm run bench:wan -- [options]     (as root: it makes network namespaces)
  --points N           how often each way is measured, in turns: six seconds for each  (500)
  --quick              20 points and few echoes: is it in order? three minutes
  --only LIST          of cold,warm,echo                                               (all)
  --congestion NAME    congestion control of both ends: cubic, bbr, reno               (cubic)
  --no-idle-restart    TCP keeps its window while it is idle
  --out FOLDER         where the report goes                                           (bench/results)
`;

const KINDS = ["cold", "warm", "echo"] as const;
type Kind = (typeof KINDS)[number];

interface Plan {
  readonly kinds: ReadonlySet<Kind>;
  readonly points: number;
  readonly echoRounds: number;
  readonly echoSeconds: number;
  readonly congestionControl: string;
  readonly slowStartAfterIdle: boolean;
  readonly out: string;
}

const COLD: readonly WayName[] = ["tcp", "https", "stunnel", "haproxy", "ssh", "bare", "bare-waiting", "fived"];
const WARM: readonly WayName[] = ["tcp", "https", "ssh", "fived"];
const ECHO: readonly WayName[] = ["tcp", "ssh", "fived"];

/** Silence that makes a connection idle: TCP has forgotten its window after some of its timeouts, of 230 ms here. */
const IDLE_MS = 2_000;
/** After each point, so that what ends a connection is not in the way of the next one. */
const PAUSE_MS = 40;
/** Before anything counts: V8 compiles what it is made to repeat, and servers fill their caches. */
const WARM_UPS = 5;
/** A link that delivers a packet later than this is not the one it claims to be: the point is dropped. */
const LATE_MS_MAX = 1;
/** Failed points after which a way is left out. */
const FAILURES_MAX = 5;
/** Bulk streams run so long before the first echo counts: queues are full then. */
const ECHO_LEAD_SECONDS = 2;
/** Between two measurements of echoes: what was on its way for the bulk streams drains. */
const ECHO_PAUSE_MS = 1_500;
/** The report is written each time after so many points, so that a run that is cut off was not for nothing. */
const WRITE_EVERY = 50;

const stop = new AbortController();
for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"] as const) {
  // Once is enough, also when a terminal and npm both pass it on: what was started is ended in order, within seconds.
  process.on(signal, () => stop.abort(new Error(`ended by ${signal}`)));
}

try {
  const plan = readPlan(process.argv.slice(2));
  if (plan === undefined) process.stdout.write(USAGE);
  else await main(plan);
} catch (error) {
  process.stderr.write(`bench:wan: ${messageOf(error)}\n`);
  process.exitCode = stop.signal.aborted ? 130 : 1;
}

async function main(plan: Plan): Promise<void> {
  const missing = missingForLink();
  if (missing !== undefined) throw new Error(`Cannot emulate the link: ${missing}`);
  await using stack = new AsyncDisposableStack();
  const folder = await mkdtemp(join(tmpdir(), "fived-wan-"));
  stack.defer(() => rm(folder, { recursive: true, force: true }));
  const link = stack.use(await startLink(folder, plan));
  await makeKeys(folder);
  const run = new Run(plan, link);
  for (const server of SERVERS) {
    const lacking = server.missing();
    try {
      if (lacking !== undefined) throw new Error(lacking);
      await server.start({ folder, link, stack, signal: stop.signal });
      run.versions.push({ name: server.name, version: await server.version() });
      tell(`${server.name} is up`);
    } catch (error) {
      stop.signal.throwIfAborted();
      run.leaveOut(server.ways, messageOf(error));
    }
  }
  const client = stack.use(await Client.start(folder, link));
  await run.warmUp(client);
  await run.points(client);
  await run.echoes(client);
  process.stdout.write(`\n${await run.write()}\nWritten to ${plan.out}/wan.{md,json,svg}\n`);
}

/** The client's end: one order at a time. */
class Client implements AsyncDisposable {
  readonly #child: ChildProcess;
  readonly #exited: Promise<unknown>;

  private constructor(child: ChildProcess) {
    this.#child = child;
    this.#exited = once(child, "exit");
  }

  static async start(folder: string, link: Link): Promise<Client> {
    const [command, ...args] = link.at("client", [RUNTIME, join(import.meta.dirname, "client.ts"), folder]);
    // In a group of its own, so that Ctrl-C leaves its end to us; should we be gone, it ends with the channel.
    const child = spawn(command, args, { stdio: ["ignore", "inherit", "inherit", "ipc"], detached: true });
    const client = new Client(child);
    await client.#hear();
    return client;
  }

  async do(order: Order): Promise<Outcome> {
    this.#child.send(order);
    return await this.#hear();
  }

  async #hear(): Promise<Outcome> {
    const { promise, resolve, reject } = Promise.withResolvers<Outcome>();
    const abort = () => reject(stop.signal.reason);
    const gone = () => reject(new Error("Cannot go on: the client's end has ended"));
    stop.signal.addEventListener("abort", abort);
    this.#child.once("message", (outcome: Outcome) => resolve(outcome)).once("exit", gone);
    try {
      stop.signal.throwIfAborted();
      return await promise;
    } finally {
      stop.signal.removeEventListener("abort", abort);
      this.#child.off("exit", gone);
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    if (this.#child.connected) this.#child.disconnect();
    const timer = setTimeout(() => this.#child.kill("SIGKILL"), 3_000);
    await this.#exited;
    clearTimeout(timer);
  }
}

/** One run: what is still measured, and what was found. */
class Run {
  readonly versions: { readonly name: string; readonly version: string }[] = [];
  readonly #plan: Plan;
  readonly #link: Link;
  readonly #series = new Map<string, Series>();
  readonly #echoes = new Map<WayName, Echoes>();
  readonly #notes: string[] = [];
  readonly #leftOut = new Set<WayName>();
  readonly #failures = new Map<WayName, number>();
  readonly #lastUsed = new Map<WayName, number>();
  readonly #loads: number[] = [];
  readonly #began = new Date();
  #late = 0;

  constructor(plan: Plan, link: Link) {
    this.#plan = plan;
    this.#link = link;
  }

  leaveOut(ways: readonly WayName[], why: string): void {
    for (const way of ways) this.#leftOut.add(way);
    this.#note(`${ways.join(", ")} left out: ${why}`);
  }

  async warmUp(client: Client): Promise<void> {
    for (let time = 0; time < WARM_UPS; time++) {
      for (const way of this.#cold()) await this.#time(client, way, "cold", false);
      for (const way of this.#warm()) await this.#time(client, way, "hot", false);
    }
    await this.#link.late();
    tell("warm");
  }

  /** All ways cold, and what was idle meanwhile: right after it, it is hot. */
  async points(client: Client): Promise<void> {
    const { points } = this.#plan;
    for (let point = 1; point <= points && this.#cold().length + this.#warm().length > 0; point++) {
      this.#loads.push(loadavg()[0] ?? 0);
      for (const way of rotate(this.#cold(), point)) await this.#time(client, way, "cold", true);
      for (const way of this.#warm()) {
        const idleMs = performance.now() - (this.#lastUsed.get(way) ?? 0);
        if (idleMs < IDLE_MS) await sleep(IDLE_MS - idleMs, undefined, { signal: stop.signal });
        await this.#time(client, way, "idle", true);
        await this.#time(client, way, "hot", true);
      }
      if (point % WRITE_EVERY === 0) await this.write();
      if (point % 10 === 0 || point === points) tell(`${point}/${points}`);
    }
  }

  async echoes(client: Client): Promise<void> {
    const { kinds, echoRounds, echoSeconds } = this.#plan;
    if (!kinds.has("echo")) return;
    for (let round = 1; round <= echoRounds; round++) {
      this.#loads.push(loadavg()[0] ?? 0);
      for (const way of rotate(ECHO, round)) {
        if (this.#leftOut.has(way)) continue;
        const order = { type: "echo", way, leadSeconds: ECHO_LEAD_SECONDS, seconds: echoSeconds } as const;
        const outcome = await client.do(order);
        await sleep(ECHO_PAUSE_MS, undefined, { signal: stop.signal });
        if (outcome.type !== "echoed") {
          this.#fail(way, outcome);
          continue;
        }
        const echoes = this.#echoes.get(way) ?? { way, ms: [], besideBytesPerSecond: [] };
        this.#echoes.set(way, echoes);
        echoes.ms.push(...outcome.echoesMs.map(rounded));
        echoes.besideBytesPerSecond.push(Math.round(outcome.besideBytes / echoSeconds));
        tell(`echoes ${round}/${echoRounds} ${way}`);
      }
    }
  }

  /** Writes what there is, and returns the page. */
  async write(): Promise<string> {
    const { out } = this.#plan;
    const report = await this.#report();
    const page = markdown(report);
    await mkdir(out, { recursive: true });
    await writeFile(join(out, "wan.md"), page);
    await writeFile(join(out, "wan.json"), `${JSON.stringify({ ...report, verdicts: judge(report) })}\n`);
    const { link = "", measured = "", date = "" } = report.circumstances;
    const subheading = `${link}; ${measured}; ${date}`;
    await writeFile(
      join(out, "wan.svg"),
      draw("Figures 8 and 9: layer 4, layer 5 and others", subheading, panels(report)),
    );
    return page;
  }

  async #report(): Promise<Report> {
    const { points, congestionControl, slowStartAfterIdle } = this.#plan;
    const { roundTripMs, deviationMs, downMbit, upMbit, downQueue, upQueue } = MODEL;
    const minutes = (Date.now() - this.#began.getTime()) / 60_000;
    const loads = this.#loads.toSorted((one, other) => one - other);
    const at = (share: number) => (loads[Math.floor((loads.length - 1) * share)] ?? 0).toFixed(2);
    const late = `${this.#late} points dropped, as the link was more than ${LATE_MS_MAX} ms late in them`;
    return {
      circumstances: {
        date: this.#began.toISOString().slice(0, 16).replace("T", " "),
        link: `${roundTripMs} ms round trip, sd ${deviationMs}, ${downMbit}/${upMbit} Mbit/s, queues of ${downQueue}/${upQueue} packets`,
        tcp: `${congestionControl}, slow start after idle ${slowStartAfterIdle ? "on" : "off"}`,
        measured: `${points} interleaved points a way in ${minutes.toFixed(0)} minutes`,
        packets: await this.#link.count(),
        late: late,
        "load of the machine": `median ${at(0.5)}, most ${at(1)} (1 minute averages)`,
        machine: `${cpus()[0]?.model.trim() ?? "unknown"}, ${availableParallelism()} cores, Linux ${release()}`,
        node: `${process.versions.node}, OpenSSL ${process.versions.openssl}`,
      },
      series: [...this.#series.values()],
      echoes: [...this.#echoes.values()],
      versions: this.versions,
      notes: this.#notes,
    };
  }

  async #time(client: Client, way: WayName, warmth: Warmth, counts: boolean): Promise<void> {
    if (this.#leftOut.has(way)) return;
    const outcome = await client.do({ type: "time", way, warm: warmth !== "cold" });
    if (warmth !== "cold") this.#lastUsed.set(way, performance.now());
    const late = await this.#link.late();
    if (outcome.type !== "timed") this.#fail(way, outcome);
    else if (late > LATE_MS_MAX) this.#late++;
    else if (counts) this.#keep(way, warmth, outcome.times);
    await sleep(PAUSE_MS, undefined, { signal: stop.signal });
  }

  #keep(way: WayName, warmth: Warmth, { first, thousandth, millionth }: Times): void {
    const key = `${way} ${warmth}`;
    const series = this.#series.get(key) ?? { way, warmth, first: [], thousandth: [], millionth: [] };
    this.#series.set(key, series);
    series.first.push(rounded(first));
    series.thousandth.push(rounded(thousandth));
    series.millionth.push(rounded(millionth));
  }

  #fail(way: WayName, outcome: Outcome): void {
    const why = outcome.type === "failed" ? outcome.message : outcome.type;
    const failures = (this.#failures.get(way) ?? 0) + 1;
    this.#failures.set(way, failures);
    if (failures === 1) this.#note(`${way} failed at least once: ${why}`);
    if (failures === FAILURES_MAX) this.leaveOut([way], `it has failed ${failures} times, lastly: ${why}`);
  }

  #cold(): readonly WayName[] {
    return this.#plan.kinds.has("cold") ? COLD.filter((way) => !this.#leftOut.has(way)) : [];
  }

  #warm(): readonly WayName[] {
    return this.#plan.kinds.has("warm") ? WARM.filter((way) => !this.#leftOut.has(way)) : [];
  }

  #note(text: string): void {
    this.#notes.push(text);
    tell(text);
  }
}

/** Undefined when only help was asked for. */
function readPlan(args: readonly string[]): Plan | undefined {
  const { values } = parseArgs({
    args: [...args],
    options: {
      points: { type: "string" },
      quick: { type: "boolean", default: false },
      only: { type: "string", default: KINDS.join(",") },
      congestion: { type: "string", default: "cubic" },
      "no-idle-restart": { type: "boolean", default: false },
      out: { type: "string", default: join(import.meta.dirname, "..", "results") },
      help: { type: "boolean", short: "h", default: false },
    },
  });
  if (values.help) return undefined;
  const { quick } = values;
  const points = Number(values.points ?? (quick ? 20 : 500));
  if (!Number.isInteger(points) || points < 1)
    throw new Error(`Cannot read --points ${values.points}: a whole number from 1 is expected`);
  const names = values.only.split(",").map((name) => name.trim());
  const unknown = names.find((name) => !KINDS.some((kind) => kind === name));
  if (unknown !== undefined) throw new Error(`Cannot measure "${unknown}": there is ${KINDS.join(", ")}`);
  return {
    kinds: new Set(KINDS.filter((kind) => names.includes(kind))),
    points,
    echoRounds: quick ? 1 : 8,
    echoSeconds: quick ? 6 : 12,
    congestionControl: values.congestion,
    slowStartAfterIdle: !values["no-idle-restart"],
    out: values.out,
  };
}

function rotate<T>(list: readonly T[], by: number): readonly T[] {
  const from = by % Math.max(1, list.length);
  return [...list.slice(from), ...list.slice(0, from)];
}

/** To a hundredth of a millisecond: the clock's own noise is more. */
function rounded(ms: number): number {
  return Math.round(ms * 100) / 100;
}

function tell(text: string): void {
  process.stderr.write(`${text}\n`);
}

function messageOf(error: unknown): string {
  return (error instanceof Error ? error.message : String(error)).trim().replaceAll("\n", " | ");
}
