/**
 * The benchmark: starts the peers that are here, measures them in turns on loopback, says how fived stands to them and ends everything it
 * has started. `--help` and README.md say what can be asked for.
 * @module
 */
import { mkdir, mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { availableParallelism, cpus, loadavg, release, tmpdir, totalmem } from "node:os";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { access } from "./access.ts";
import { detached } from "./detached.ts";
import { type IdleSample, idle } from "./idle.ts";
import { manager } from "./manager.ts";
import { type BackEnds, bulk, echo, Load, type Sample, streams, type Tunnel, untilQuiet } from "./measure.ts";
import { PEERS, type Peer } from "./peers.ts";
import { draw } from "./plot.ts";
import { memoryOf } from "./processes.ts";
import { type Circumstances, judge, markdown, panels, type Report } from "./table.ts";

const USAGE = `Usage: npm run bench -- [options]
  --only LIST      of bulk,streams,echo,memory                    (all)
  --peers LIST     of ${PEERS.map(({ name }) => name).join(",")}  (all)
  --rounds N       how often everything is measured, in turns     (3)
  --size SIZE      bytes of one bulk transfer: 500MB, 2GB         (2GB)
  --quick          one round, 200MB, shorter all through: is it in order?
  --access         instead of all this: what LIST and a stream cost with 10,000 services and users, and policies
  --detached       instead of all this: what sessions without a connection hold, and what it costs to be one that could
  --manager        instead of all this: new streams through the session manager, beside new channels of OpenSSH
  --soak MINUTES   instead of all this: load on fived, and its memory over time
  --out FOLDER     where the report goes                          (bench/results)
`;

const KINDS = ["bulk", "streams", "echo", "memory"] as const;
type Kind = (typeof KINDS)[number];

/** What is measured instead of all this, where it is asked for. */
const INSTEAD = { access, detached, manager };

/** How long, how much, how many. */
interface Plan {
  readonly kinds: ReadonlySet<Kind>;
  readonly peers: readonly Peer[];
  readonly rounds: number;
  readonly bytes: number;
  readonly streamsSeconds: number;
  readonly echoSeconds: number;
  readonly sessions: number;
  readonly idleStreams: number;
  readonly cycles: number;
  readonly instead: keyof typeof INSTEAD | undefined;
  readonly soakMinutes: number;
  readonly out: string;
}

/**
 * Through each tunnel before anything counts, for each kind of step: windows have grown, buffers are there, and V8 has compiled what runs all the time.
 * It does that beside the work, some 8 % of it for the first gigabytes, and a daemon is at work for longer than that.
 */
const WARM_UP_BYTES = 1.5e9;
const WARM_UP_SECONDS = 4;
/** A turn of the soak. */
const SOAK_BYTES = 500e6;
const SOAK_SECONDS = 4;

/** One measurement on one tunnel. */
interface Step {
  readonly name: string;
  measure(load: Load, place: { readonly tunnel: Tunnel; readonly round: number }): Promise<Sample>;
}

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
  process.stderr.write(`bench: ${error instanceof Error ? error.message : String(error)}\n`);
  process.exitCode = stop.signal.aborted ? 130 : 1;
}

async function main(plan: Plan): Promise<void> {
  const { signal } = stop;
  await using stack = new AsyncDisposableStack();
  const folder = await mkdtemp(join(tmpdir(), "fived-bench-"));
  stack.defer(() => rm(folder, { recursive: true, force: true }));
  if (plan.instead !== undefined) {
    const page = await INSTEAD[plan.instead](folder, signal);
    await mkdir(plan.out, { recursive: true });
    await writeFile(join(plan.out, `${plan.instead}.md`), page);
    process.stdout.write(`${page}\nWritten to ${plan.out}/${plan.instead}.md\n`);
    return;
  }
  const busy = loadavg()[0] ?? 0;
  const load = await Load.compile(folder, signal);
  const backEnds = stack.use(await load.serve());
  const notes: string[] = [];
  const tunnels = await startTunnels(plan, folder, backEnds, stack, notes);

  if (plan.soakMinutes > 0) {
    await soak(plan, load, tunnels);
    return;
  }

  const samples = await measureInTurns(plan, load, tunnels, notes);
  const idleSamples = await measureIdle(plan, folder, load, backEnds, notes);
  const report: Report = {
    circumstances: await circumstances(plan, busy),
    peers: await describe(plan.peers.filter(({ name }) => tunnels.some((tunnel) => tunnel.name === name))),
    samples,
    idle: idleSamples,
    notes,
  };
  await write(plan.out, report);
}

async function startTunnels(
  plan: Plan,
  folder: string,
  backEnds: BackEnds,
  stack: AsyncDisposableStack,
  notes: string[],
): Promise<readonly Tunnel[]> {
  const tunnels: Tunnel[] = [];
  for (const peer of plan.peers) {
    const missing = peer.missing();
    if (missing !== undefined) {
      note(notes, `${peer.name} is left out: ${missing}`);
      continue;
    }
    const own = join(folder, peer.name);
    await mkdir(own, { mode: 0o700 });
    try {
      tunnels.push(stack.use(await peer.start({ folder: own, backEnds, signal: stop.signal })));
      tell(`${peer.name} is up`);
    } catch (error) {
      stop.signal.throwIfAborted();
      note(notes, `${peer.name} is left out, it did not start: ${messageOf(error)}`);
    }
  }
  return tunnels;
}

/** Every step on every tunnel before the next step, each round beginning with another tunnel: what disturbs one disturbs all. */
async function measureInTurns(
  plan: Plan,
  load: Load,
  tunnels: readonly Tunnel[],
  notes: string[],
): Promise<readonly Sample[]> {
  const samples: Sample[] = [];
  const steps = stepsOf(plan);
  const failed = new Set<Tunnel>();
  const attempt = async (tunnel: Tunnel, what: string, act: () => Promise<void>) => {
    if (failed.has(tunnel)) return;
    try {
      await untilQuiet(load, tunnel.pids);
      await act();
    } catch (error) {
      stop.signal.throwIfAborted();
      failed.add(tunnel);
      note(notes, `${tunnel.name} failed at "${what}" and is left out from there: ${messageOf(error)}`);
    }
  };
  if (steps.length > 0) {
    for (const tunnel of tunnels) await attempt(tunnel, "warm-up", () => warmUp(load, tunnel, plan));
  }
  for (let round = 1; round <= plan.rounds; round++) {
    for (const step of steps) {
      for (const tunnel of rotate(tunnels, round)) {
        await attempt(tunnel, step.name, async () => {
          const sample = await step.measure(load, { tunnel, round });
          samples.push(sample);
          tell(`${round}/${plan.rounds}  ${step.name.padEnd(26)} ${tunnel.name.padEnd(13)} ${figureOf(sample)}`);
        });
      }
    }
  }
  return samples;
}

function stepsOf(plan: Plan): readonly Step[] {
  const steps: Step[] = [];
  if (plan.kinds.has("bulk")) {
    for (const count of [1, 16]) {
      for (const direction of ["down", "up"] as const) {
        steps.push({
          name: `bulk ${direction}, ${count} stream${count === 1 ? "" : "s"}`,
          measure: (load, place) => bulk(load, place, direction, count, plan.bytes),
        });
      }
    }
  }
  if (plan.kinds.has("streams")) {
    for (const atOnce of [1, 16]) {
      steps.push({
        name: `new streams, ${atOnce} at once`,
        measure: (load, place) => streams(load, place, atOnce, plan.streamsSeconds),
      });
    }
  }
  if (plan.kinds.has("echo")) {
    for (const beside of ["nothing", "bulk"] as const) {
      steps.push({
        name: beside === "bulk" ? "echo beside bulk" : "echo alone",
        measure: (load, place) => echo(load, place, beside, plan.echoSeconds),
      });
    }
  }
  return steps;
}

async function warmUp(load: Load, tunnel: Tunnel, { bytes, streamsSeconds }: Plan): Promise<void> {
  const place = { tunnel, round: 0 };
  for (const count of [1, 16]) {
    for (const direction of ["down", "up"] as const)
      await bulk(load, place, direction, count, Math.min(WARM_UP_BYTES, bytes));
    await streams(load, place, count, Math.min(WARM_UP_SECONDS, streamsSeconds));
  }
}

async function measureIdle(
  plan: Plan,
  folder: string,
  load: Load,
  backEnds: BackEnds,
  notes: string[],
): Promise<readonly IdleSample[]> {
  const fived = plan.peers.find(({ name }) => name === "fived");
  if (!plan.kinds.has("memory") || fived === undefined || fived.missing() !== undefined) return [];
  tell("memory of idle sessions and streams");
  try {
    return await idle(
      { folder: join(folder, "idle"), load, backEnds, signal: stop.signal },
      { sessions: plan.sessions, streams: plan.idleStreams, cycles: plan.cycles },
    );
  } catch (error) {
    stop.signal.throwIfAborted();
    note(notes, `memory was not measured: ${messageOf(error)}`);
    return [];
  }
}

/** Loads fived's two ends without a pause and prints what they hold: flat is what one wants to see. */
async function soak(plan: Plan, load: Load, tunnels: readonly Tunnel[]): Promise<void> {
  const tunnel = tunnels.find(({ name }) => name === "fived");
  if (tunnel === undefined) throw new Error("Cannot soak: fived is not among the peers that run");
  const began = performance.now();
  const minutes = () => (performance.now() - began) / 60_000;
  let opened = 0;
  let bytes = 0;
  process.stdout.write("minutes  server and client, RSS in MiB  streams opened  GB moved\n");
  for (let round = 1; minutes() < plan.soakMinutes; round++) {
    const turn = [
      await streams(load, { tunnel, round }, 16, SOAK_SECONDS),
      await bulk(load, { tunnel, round }, round % 2 === 0 ? "down" : "up", 4, SOAK_BYTES),
      await echo(load, { tunnel, round }, "bulk", 1),
    ];
    for (const sample of turn) {
      if (sample.type === "streams") opened += sample.opened;
      if (sample.type === "bulk") bytes += sample.bytes;
    }
    const memory = tunnel.pids().map((pid) => (memoryOf(pid, "Rss") / 2 ** 20).toFixed(1).padStart(8));
    const moved = (bytes / 1e9).toFixed(1).padStart(8);
    process.stdout.write(
      `${minutes().toFixed(1).padStart(7)}  ${memory.join(" ")}  ${String(opened).padStart(10)}  ${moved}\n`,
    );
  }
}

async function circumstances(plan: Plan, busy: number): Promise<Circumstances> {
  const model = cpus()[0]?.model.trim() ?? "unknown";
  return {
    date: new Date().toISOString().slice(0, 16).replace("T", " "),
    machine: `${model}, ${availableParallelism()} cores, ${(totalmem() / 2 ** 30).toFixed(0)} GiB`,
    "load before it began": busy.toFixed(2),
    system: `${await systemName()}, Linux ${release()}`,
    node: `${process.versions.node}, OpenSSL ${process.versions.openssl}`,
    measured: `${plan.rounds} interleaved round${plan.rounds === 1 ? "" : "s"} on loopback, ${plan.bytes / 1e6} MB a transfer`,
  };
}

async function systemName(): Promise<string> {
  try {
    return (await readFile("/etc/os-release", "utf8")).match(/^PRETTY_NAME="(.*)"$/m)?.[1] ?? "unknown";
  } catch {
    return "unknown";
  }
}

async function describe(peers: readonly Peer[]): Promise<Report["peers"]> {
  return await Promise.all(peers.map(async ({ name, about, version }) => ({ name, about, version: await version() })));
}

async function write(folder: string, report: Report): Promise<void> {
  const page = markdown(report);
  const { machine = "", measured = "", date = "" } = report.circumstances;
  await mkdir(folder, { recursive: true });
  await writeFile(join(folder, "bench.md"), page);
  await writeFile(
    join(folder, "bench.json"),
    `${JSON.stringify({ ...report, verdicts: judge(report) }, undefined, 2)}\n`,
  );
  await writeFile(
    join(folder, "bench.svg"),
    draw("fived beside its peers", `${machine}; ${measured}; ${date}`, panels(report)),
  );
  process.stdout.write(`\n${page}\nWritten to ${folder}/bench.{md,json,svg}\n`);
}

/** Undefined when only help was asked for. */
function readPlan(args: readonly string[]): Plan | undefined {
  const { values } = parseArgs({
    args: [...args],
    options: {
      only: { type: "string", default: KINDS.join(",") },
      peers: { type: "string", default: PEERS.map(({ name }) => name).join(",") },
      rounds: { type: "string" },
      size: { type: "string" },
      quick: { type: "boolean", default: false },
      access: { type: "boolean", default: false },
      detached: { type: "boolean", default: false },
      manager: { type: "boolean", default: false },
      soak: { type: "string", default: "0" },
      out: { type: "string", default: join(import.meta.dirname, "results") },
      help: { type: "boolean", short: "h", default: false },
    },
  });
  if (values.help) return undefined;
  const { quick } = values;
  return {
    kinds: new Set(pick(values.only, KINDS, (kind) => kind)),
    peers: pick(values.peers, PEERS, ({ name }) => name),
    rounds: readCount("--rounds", values.rounds ?? (quick ? "1" : "3")),
    bytes: readSize(values.size ?? (quick ? "200MB" : "2GB")),
    streamsSeconds: quick ? 1 : 3,
    echoSeconds: quick ? 1 : 4,
    sessions: quick ? 500 : 1000,
    // Not fewer in a quick run: V8 grows in steps, and a step shared by few streams looks like theirs.
    idleStreams: 2000,
    cycles: quick ? 4 : 10,
    instead: values.access ? "access" : values.detached ? "detached" : values.manager ? "manager" : undefined,
    soakMinutes: Number(values.soak),
    out: values.out,
  };
}

/** The named ones of `all`, in the order of `all`. */
function pick<T>(list: string, all: readonly T[], nameOf: (one: T) => string): readonly T[] {
  const names = list.split(",").map((name) => name.trim());
  const unknown = names.find((name) => !all.some((one) => nameOf(one) === name));
  if (unknown !== undefined) {
    throw new Error(`Cannot measure "${unknown}": there is ${all.map(nameOf).join(", ")}`);
  }
  return all.filter((one) => names.includes(nameOf(one)));
}

function readCount(option: string, text: string): number {
  const count = Number(text);
  if (!Number.isInteger(count) || count < 1)
    throw new Error(`Cannot read ${option} ${text}: a whole number from 1 is expected`);
  return count;
}

function readSize(text: string): number {
  const [, digits, unit] = /^(\d+(?:\.\d+)?)(MB|GB)$/i.exec(text) ?? [];
  if (digits === undefined) throw new Error(`Cannot read --size ${text}: a number and MB or GB is expected, as in 2GB`);
  return Math.round(Number(digits) * (unit?.toUpperCase() === "GB" ? 1e9 : 1e6));
}

function rotate<T>(list: readonly T[], by: number): readonly T[] {
  const from = by % Math.max(1, list.length);
  return [...list.slice(from), ...list.slice(0, from)];
}

function figureOf(sample: Sample): string {
  switch (sample.type) {
    case "bulk":
      return `${(sample.bytes / 1e6 / sample.seconds).toFixed(0)} MB/s, ${(sample.cpuSeconds / (sample.bytes / 1e9)).toFixed(2)} s/GB`;
    case "streams":
      return `${(sample.opened / sample.seconds).toFixed(0)}/s${sample.failed > 0 ? `, ${sample.failed} failed` : ""}`;
    case "echo":
      return `p50 ${(sample.p50 * 1000).toFixed(2)} ms, p99 ${(sample.p99 * 1000).toFixed(2)} ms`;
  }
}

function note(notes: string[], text: string): void {
  notes.push(text);
  tell(text);
}

function tell(text: string): void {
  process.stderr.write(`${text}\n`);
}

function messageOf(error: unknown): string {
  return (error instanceof Error ? error.message : String(error)).trim().replaceAll("\n", " | ");
}
