/**
 * What the samples mean: medians over rounds, ratios between peers, and whether fived reaches its targets. Pure; run.ts measures and writes.
 *
 * A ratio is taken inside each round and the median of these is given: on a shared machine the rounds differ by up to 40 %, but what was
 * measured within the same minute can be compared.
 * @module
 */
import type { Held, IdleSample } from "./idle.ts";
import type { Sample } from "./measure.ts";
import type { Panel } from "./plot.ts";

/** Where and when it was measured, one line each. */
export type Circumstances = Readonly<Record<string, string>>;

/** Everything one run found out. */
export interface Report {
  readonly circumstances: Circumstances;
  /** Peers that ran, with what they are. */
  readonly peers: readonly { readonly name: string; readonly about: string; readonly version: string }[];
  readonly samples: readonly Sample[];
  readonly idle: readonly IdleSample[];
  /** What was left out, and why. */
  readonly notes: readonly string[];
}

/** Whether fived is where it wants to be; `reached` is undefined when one of the figures is missing. */
export interface Verdict {
  readonly what: string;
  readonly wanted: string;
  readonly measured: string;
  readonly reached: boolean | undefined;
}

/** A figure that one peer has in one round. */
interface Metric {
  readonly title: string;
  readonly unit: string;
  readonly better: "more" | "less";
  readonly digits: number;
  of(samples: readonly Sample[]): number | undefined;
}

/** Bytes in the units of the report: MB and GB are decimal, KiB is not. */
const MB = 1e6;
const GB = 1e9;
const KIB = 1024;

const bulk = (streams: number) => ({
  down: {
    title: `${count(streams)}, down`,
    unit: "MB/s",
    better: "more",
    digits: 0,
    of: (samples) => rate(samples, streams, "down"),
  } satisfies Metric,
  up: {
    title: `${count(streams)}, up`,
    unit: "MB/s",
    better: "more",
    digits: 0,
    of: (samples) => rate(samples, streams, "up"),
  } satisfies Metric,
  both: {
    title: `${count(streams)}, both ways`,
    unit: "MB/s",
    better: "more",
    digits: 0,
    of: (samples) => rate(samples, streams),
  } satisfies Metric,
  cpu: {
    title: `${count(streams)}, CPU`,
    unit: "s/GB",
    better: "less",
    digits: 2,
    of: (samples) => cpuPerGigabyte(samples, streams),
  } satisfies Metric,
});

const one = bulk(1);
const sixteen = bulk(16);

const opened = (atOnce: number): Metric => ({
  title: atOnce === 1 ? "new streams, one at a time" : `new streams, ${atOnce} at once`,
  unit: "1/s",
  better: "more",
  digits: 0,
  of(samples) {
    const found = samples.filter((sample) => sample.type === "streams").find((sample) => sample.atOnce === atOnce);
    return found === undefined || found.opened === 0 ? undefined : found.opened / found.seconds;
  },
});

const echoed = (beside: "nothing" | "bulk", quantile: "p50" | "p99"): Metric => ({
  title: `echo ${beside === "bulk" ? "beside bulk" : "alone"}, ${quantile}`,
  unit: "ms",
  better: "less",
  digits: 2,
  of(samples) {
    const found = samples.filter((sample) => sample.type === "echo").find((sample) => sample.beside === beside);
    return found === undefined ? undefined : found[quantile] * 1000;
  },
});

/** What the bulk streams had meanwhile; low here makes a quick echo cheap. */
const besideRate: Metric = {
  title: "the bulk beside it",
  unit: "MB/s",
  better: "more",
  digits: 0,
  of(samples) {
    const found = samples.filter((sample) => sample.type === "echo").find((sample) => sample.beside === "bulk");
    return found === undefined ? undefined : found.besideBytesPerSecond / MB;
  },
};

const open1 = opened(1);
const open16 = opened(16);
const p99BesideBulk = echoed("bulk", "p99");

/** The tables of the report. */
const TABLES: readonly { readonly title: string; readonly metrics: readonly Metric[] }[] = [
  { title: "Bulk", metrics: [one.down, one.up, one.cpu, sixteen.down, sixteen.up, sixteen.cpu] },
  { title: "New streams through the warm tunnel", metrics: [open1, open16] },
  {
    title: "Echo of one octet",
    metrics: [echoed("nothing", "p50"), echoed("nothing", "p99"), echoed("bulk", "p50"), p99BesideBulk, besideRate],
  },
];

/** What the plot shows; "direct" would make every other bar a stub, so it stays in the table. */
const PLOTTED: readonly Metric[] = [
  one.both,
  one.cpu,
  sixteen.both,
  sixteen.cpu,
  open1,
  open16,
  p99BesideBulk,
  besideRate,
];

/** What fived wants to be, against which peers; `most` and `least` are factors of the best of them in the same round. */
const TARGETS: readonly {
  readonly metric: Metric;
  readonly peer: string;
  readonly against: readonly string[];
  readonly most?: number;
  readonly least?: number;
  /** Reached anyway below this figure. */
  readonly orBelow?: number;
}[] = [
  ...[one.cpu, sixteen.cpu].map((metric) => ({ metric, peer: "fived", against: ["ssh"], most: 0.8 })),
  ...[one.cpu, sixteen.cpu].map((metric) => ({ metric, peer: "fived-retain", against: ["ssh"], most: 0.9 })),
  ...[one.both, sixteen.both].map((metric) => ({
    metric,
    peer: "fived",
    against: ["ssh", "haproxy", "stunnel"],
    least: 1.3,
  })),
  ...[open1, open16].map((metric) => ({ metric, peer: "fived", against: ["ssh"], least: 1 })),
  { metric: p99BesideBulk, peer: "fived", against: ["ssh"], most: 0.5, orBelow: 1 },
];

/** What an idle session and an idle stream may cost the server, in bytes. */
const IDLE_TARGETS: readonly { readonly holds: Held; readonly most: number }[] = [
  { holds: "sessions", most: 100 * KIB },
  { holds: "module streams", most: 4 * KIB },
  { holds: "tcp streams", most: 4 * KIB },
];

/** Compares the medians with the targets. */
export function judge(report: Report): readonly Verdict[] {
  // A target whose figure nobody has was not asked for in this run.
  const asked = TARGETS.filter(({ metric }) => report.samples.some((sample) => metric.of([sample]) !== undefined));
  const ratios = asked.map((target): Verdict => {
    const { metric, peer, against, most, least, orBelow } = target;
    const best = against.length === 1 ? `${against[0]}` : `best of ${against.join(", ")}`;
    const factor = most === undefined ? `>= ${least}` : `<= ${most}`;
    const ratio = ratioOf(report.samples, metric, peer, against);
    const figure = median(perRound(report.samples, metric, peer));
    const within = ratio === undefined ? undefined : most === undefined ? ratio >= (least ?? 0) : ratio <= most;
    const below = orBelow !== undefined && figure !== undefined && figure < orBelow;
    return {
      what: `${peer}: ${metric.title} (${metric.unit})`,
      wanted: `${factor} x ${best}${orBelow === undefined ? "" : ` or < ${orBelow} ${metric.unit}`}`,
      measured: [
        ratio === undefined ? "no ratio" : `${ratio.toFixed(2)} x`,
        figure === undefined ? "not measured" : `${figure.toFixed(metric.digits)} ${metric.unit}`,
      ].join(", "),
      reached: below || within,
    };
  });
  const idle = (report.idle.length === 0 ? [] : IDLE_TARGETS).map(({ holds, most }): Verdict => {
    const held = report.idle.filter((sample) => sample.type === "held");
    const each = held.find((sample) => sample.holds === holds)?.bytesEach;
    return {
      what: `fived: memory of the server for idle ${holds} (KiB each)`,
      wanted: `<= ${most / KIB} KiB`,
      measured: each === undefined ? "not measured" : `${(each / KIB).toFixed(1)} KiB`,
      reached: each === undefined ? undefined : each <= most,
    };
  });
  return [...ratios, ...idle];
}

/** The report as a page of markdown. */
export function markdown(report: Report): string {
  const { circumstances, peers, samples, idle, notes } = report;
  const measured = TABLES.filter(({ metrics }) =>
    metrics.some((metric) => peers.some(({ name }) => perRound(samples, metric, name).length > 0)),
  );
  return [
    "# fived beside its peers",
    Object.entries(circumstances)
      .map(([name, value]) => `- ${name}: ${value}`)
      .join("\n"),
    "Medians over the rounds, in brackets the lowest and the highest. Absolute figures belong to this machine; compare within one run.",
    ...measured.flatMap(({ title, metrics }) => [
      `## ${title}`,
      table(
        ["", ...metrics.map((metric) => `${metric.title}, ${metric.unit}`)],
        peers.map(({ name }) => [
          name,
          ...metrics.map((metric) => cell(perRound(samples, metric, name), metric.digits)),
        ]),
      ),
      ...failures(samples, title),
    ]),
    ...idleSection(idle),
    "## Targets",
    table(
      ["", "wanted", "measured", "reached"],
      judge(report).map(({ what, wanted, measured, reached }) => [what, wanted, measured, answer(reached)]),
    ),
    "## Peers",
    table(
      ["", "set up as", "version"],
      peers.map(({ name, about, version }) => [name, about, version]),
    ),
    ...(notes.length === 0 ? [] : ["## Notes", notes.map((note) => `- ${note}`).join("\n")]),
    "",
  ].join("\n\n");
}

/** The report as bar charts. */
export function panels(report: Report): readonly Panel[] {
  const compared = PLOTTED.map((metric) => ({
    title: metric.title,
    unit: metric.unit,
    better: metric.better,
    digits: metric.digits,
    bars: report.peers
      .filter(({ name }) => name !== "direct")
      .flatMap(({ name }) => {
        const value = median(perRound(report.samples, metric, name));
        return value === undefined ? [] : [{ name, value, ours: name.startsWith("fived") }];
      }),
  }));
  const held = {
    title: "server memory, each",
    unit: "KiB",
    better: "less",
    digits: 1,
    bars: report.idle
      .filter((sample) => sample.type === "held")
      .map(({ holds, bytesEach }) => ({ name: holds, value: bytesEach / KIB, ours: true })),
  } as const;
  return [...compared, held].filter(({ bars }) => bars.length > 0);
}

/** The middle of the values; undefined of none. */
export function median(values: readonly number[]): number | undefined {
  const sorted = values.toSorted((a, b) => a - b);
  const upper = sorted[Math.floor(sorted.length / 2)];
  const lower = sorted[Math.ceil(sorted.length / 2) - 1];
  return upper === undefined || lower === undefined ? undefined : (upper + lower) / 2;
}

function rate(samples: readonly Sample[], streams: number, direction?: "down" | "up"): number | undefined {
  const { bytes, seconds } = totals(samples, streams, direction);
  return bytes === 0 ? undefined : bytes / MB / seconds;
}

function cpuPerGigabyte(samples: readonly Sample[], streams: number): number | undefined {
  const { bytes, cpuSeconds } = totals(samples, streams);
  return cpuSeconds === 0 ? undefined : cpuSeconds / (bytes / GB);
}

function totals(samples: readonly Sample[], streams: number, direction?: "down" | "up") {
  const sum = { bytes: 0, seconds: 0, cpuSeconds: 0 };
  for (const sample of samples) {
    if (sample.type !== "bulk" || sample.streams !== streams) continue;
    if (direction !== undefined && sample.direction !== direction) continue;
    sum.bytes += sample.bytes;
    sum.seconds += sample.seconds;
    sum.cpuSeconds += sample.cpuSeconds;
  }
  return sum;
}

/** The metric's value in each round in which the peer has one. */
function perRound(samples: readonly Sample[], metric: Metric, peer: string): readonly number[] {
  return roundsOf(samples).flatMap((round) => figureIn(samples, metric, peer, round) ?? []);
}

function figureIn(samples: readonly Sample[], metric: Metric, peer: string, round: number): number | undefined {
  return metric.of(samples.filter((sample) => sample.peer === peer && sample.round === round));
}

function roundsOf(samples: readonly Sample[]): readonly number[] {
  return [...new Set(samples.map(({ round }) => round))];
}

/** How the peer stands to the best of the others, as the median of the rounds. */
function ratioOf(
  samples: readonly Sample[],
  metric: Metric,
  peer: string,
  against: readonly string[],
): number | undefined {
  const ratios = roundsOf(samples).flatMap((round) => {
    const ours = figureIn(samples, metric, peer, round);
    const theirs = against.flatMap((name) => figureIn(samples, metric, name, round) ?? []);
    if (ours === undefined || theirs.length === 0) return [];
    return ours / (metric.better === "more" ? Math.max(...theirs) : Math.min(...theirs));
  });
  return median(ratios);
}

function failures(samples: readonly Sample[], title: string): readonly string[] {
  if (!title.startsWith("New streams")) return [];
  const failed = new Map<string, number>();
  for (const sample of samples) {
    if (sample.type === "streams" && sample.failed > 0) {
      failed.set(sample.peer, (failed.get(sample.peer) ?? 0) + sample.failed);
    }
  }
  return [...failed].map(([peer, times]) => `${peer}: ${times} of its connections got no echo.`);
}

function idleSection(idle: readonly IdleSample[]): readonly string[] {
  if (idle.length === 0) return [];
  const held = idle.filter((sample) => sample.type === "held");
  const cycles = idle.filter((sample) => sample.type === "cycle");
  return [
    "## Memory of the fived server",
    "Pss. What each of so many costs beside as many that were open before, after a forced collection and before one; the process with all of them.",
    table(
      ["held open", "how many", "KiB each", "KiB each, uncollected", "process, MiB"],
      held.map(({ holds, count, bytesEach, bytesEachUncollected, bytesInAll }) => [
        holds,
        String(count),
        (bytesEach / KIB).toFixed(1),
        (bytesEachUncollected / KIB).toFixed(1),
        (bytesInAll / KIB / KIB).toFixed(1),
      ]),
    ),
    ...(cycles.length === 0
      ? []
      : [
          `Opened and closed again and again (${cycles[0]?.what}), MiB afterwards: ${cycles
            .map(({ bytes }) => (bytes / KIB / KIB).toFixed(1))
            .join(", ")}.`,
        ]),
  ];
}

function cell(values: readonly number[], digits: number): string {
  const middle = median(values);
  if (middle === undefined) return "";
  const [low, high] = [Math.min(...values).toFixed(digits), Math.max(...values).toFixed(digits)];
  return values.length === 1 || low === high ? middle.toFixed(digits) : `${middle.toFixed(digits)} (${low}-${high})`;
}

/** Whether a target was reached, for a table. */
export function answer(reached: boolean | undefined): string {
  return reached === undefined ? "?" : reached ? "yes" : "**no**";
}

function count(streams: number): string {
  return streams === 1 ? "1 stream" : `${streams} streams`;
}

/** A markdown table, padded so that it reads well on a terminal too. */
export function table(head: readonly string[], rows: readonly (readonly string[])[]): string {
  const widths = head.map((title, column) => Math.max(3, title.length, ...rows.map((row) => row[column]?.length ?? 0)));
  const line = (cells: readonly string[]) =>
    `| ${widths.map((width, column) => (cells[column] ?? "").padEnd(width)).join(" | ")} |`;
  return [line(head), line(widths.map((width) => "-".repeat(width))), ...rows.map(line)].join("\n");
}
