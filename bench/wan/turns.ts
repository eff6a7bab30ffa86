/**
 * All ways in turns: what is measured when, what is dropped, and what becomes of it.
 * @module
 */
import { mkdir, writeFile } from "node:fs/promises";
import { availableParallelism, cpus, loadavg, release } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { draw } from "../plot.ts";
import type { ClientEnd } from "./client-end.ts";
import { type Link, MODEL } from "./link.ts";
import { type Echoes, judge, markdown, panels, type Report, type Series } from "./report.ts";
import type { Outcome, Times, Warmth, WayName } from "./site.ts";

/** What can be asked for. */
export const KINDS = ["cold", "warm", "echo"] as const;
type Kind = (typeof KINDS)[number];

/** What to measure, how often, and over which TCP. */
export interface Plan {
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
const WARM_UPS = 10;
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

/** One run: what is still measured, and what was found. */
export class Turns {
  readonly versions: { readonly name: string; readonly version: string }[] = [];
  readonly #plan: Plan;
  readonly #link: Link;
  readonly #signal: AbortSignal;
  readonly #series = new Map<string, Series>();
  readonly #echoes = new Map<WayName, Echoes>();
  readonly #notes: string[] = [];
  readonly #leftOut = new Set<WayName>();
  readonly #failures = new Map<WayName, number>();
  readonly #lastUsed = new Map<WayName, number>();
  readonly #loads: number[] = [];
  readonly #began = new Date();
  #late = 0;

  constructor(plan: Plan, link: Link, signal: AbortSignal) {
    this.#signal = signal;
    this.#plan = plan;
    this.#link = link;
  }

  leaveOut(ways: readonly WayName[], why: string): void {
    for (const way of ways) this.#leftOut.add(way);
    this.#note(`${ways.join(", ")} left out: ${why}`);
  }

  async warmUp(client: ClientEnd): Promise<void> {
    for (let time = 0; time < WARM_UPS; time++) {
      for (const way of this.#cold()) await this.#time(client, way, "cold", false);
      for (const way of this.#warm()) await this.#time(client, way, "hot", false);
    }
    await this.#link.late();
    tell("warm");
  }

  /** All ways cold, and what was idle meanwhile: right after it, it is hot. */
  async points(client: ClientEnd): Promise<void> {
    const { points } = this.#plan;
    for (let point = 1; point <= points && this.#cold().length + this.#warm().length > 0; point++) {
      this.#loads.push(loadavg()[0] ?? 0);
      for (const way of rotate(this.#cold(), point)) await this.#time(client, way, "cold", true);
      for (const way of this.#warm()) {
        const idleMs = performance.now() - (this.#lastUsed.get(way) ?? 0);
        if (idleMs < IDLE_MS) await sleep(IDLE_MS - idleMs, undefined, { signal: this.#signal });
        await this.#time(client, way, "idle", true);
        await this.#time(client, way, "hot", true);
      }
      if (point % WRITE_EVERY === 0) await this.write();
      if (point % 10 === 0 || point === points) tell(`${point}/${points}`);
    }
  }

  async echoes(client: ClientEnd): Promise<void> {
    const { kinds, echoRounds, echoSeconds } = this.#plan;
    if (!kinds.has("echo")) return;
    for (let round = 1; round <= echoRounds; round++) {
      this.#loads.push(loadavg()[0] ?? 0);
      for (const way of rotate(ECHO, round)) {
        if (this.#leftOut.has(way)) continue;
        const order = { type: "echo", way, leadSeconds: ECHO_LEAD_SECONDS, seconds: echoSeconds } as const;
        const outcome = await client.do(order);
        await sleep(ECHO_PAUSE_MS, undefined, { signal: this.#signal });
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

  async #time(client: ClientEnd, way: WayName, warmth: Warmth, counts: boolean): Promise<void> {
    if (this.#leftOut.has(way)) return;
    const outcome = await client.do({ type: "time", way, warm: warmth !== "cold" });
    if (warmth !== "cold") this.#lastUsed.set(way, performance.now());
    const late = await this.#link.late();
    if (outcome.type !== "timed") this.#fail(way, outcome);
    else if (late > LATE_MS_MAX) this.#late++;
    else if (counts) this.#keep(way, warmth, outcome.times);
    await sleep(PAUSE_MS, undefined, { signal: this.#signal });
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

/** Says how far it is. */
export function tell(text: string): void {
  process.stderr.write(`${text}\n`);
}

function rotate<T>(list: readonly T[], by: number): readonly T[] {
  const from = by % Math.max(1, list.length);
  return [...list.slice(from), ...list.slice(0, from)];
}

/** To a hundredth of a millisecond: the clock's own noise is more. */
function rounded(ms: number): number {
  return Math.round(ms * 100) / 100;
}
