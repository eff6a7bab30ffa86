/**
 * What the points mean: medians and quartiles, whether fived reaches its targets, the page and the plots. Pure; run.ts measures and writes.
 * @module
 */
import type { Panel } from "../plot.ts";
import { answer, median, table } from "../table.ts";
import { MODEL } from "./link.ts";
import { type Times, WAYS, type Warmth, type WayName } from "./site.ts";

/** All points of one way, one element for each. */
export interface Series {
  readonly way: WayName;
  readonly warmth: Warmth;
  readonly first: number[];
  readonly thousandth: number[];
  readonly millionth: number[];
}

/** Echoes on one way beside its four bulk streams. */
export interface Echoes {
  readonly way: WayName;
  readonly ms: number[];
  /** What the bulk streams moved meanwhile, round by round: a quick echo beside starved streams would be no merit. */
  readonly besideBytesPerSecond: number[];
}

/** Everything one run found out. */
export interface Report {
  readonly circumstances: Readonly<Record<string, string>>;
  readonly series: readonly Series[];
  readonly echoes: readonly Echoes[];
  readonly versions: readonly { readonly name: string; readonly version: string }[];
  readonly notes: readonly string[];
}

/** A target, and what was measured of it; `reached` is undefined where a figure is missing. */
export interface Verdict {
  readonly what: string;
  readonly wanted: string;
  readonly measured: string;
  readonly reached: boolean | undefined;
}

const { roundTripMs } = MODEL;

/** How the ways are called, in the order of the page; layer 4 first, as in the paper. */
const TITLES: Readonly<Record<WayName, string>> = {
  tcp: "TCP",
  https: "HTTPS",
  stunnel: "stunnel",
  haproxy: "haproxy TLS",
  ssh: "OpenSSH",
  bare: "fived bare",
  "bare-waiting": "fived bare, waits for +",
  fived: "fived TLS+AUTH",
};

const WARMTHS: readonly { readonly warmth: Warmth; readonly title: string }[] = [
  { warmth: "cold", title: "Cold: a new connection or session (Figure 8)" },
  { warmth: "hot", title: "Warm and hot: right after another answer on what is there (Figure 9)" },
  { warmth: "idle", title: "Warm and idle: after two seconds or more without a word (Figure 9)" },
];

const FIGURES = ["first", "thousandth", "millionth"] as const satisfies readonly (keyof Times)[];

/** What a way does on one line of the page's explanation. */
const EXPLAINED: readonly (readonly [string, string])[] = [
  ["TCP", "a line to the origin and its answer: layer 4. Warm: on the same connection"],
  ["HTTPS", "GET with Node's https from nginx, TLS 1.3, HTTP/1.1. Warm: kept alive"],
  [
    "stunnel, haproxy TLS",
    "through a pair of them that runs already; each connection makes a TLS connection over the link",
  ],
  ["OpenSSH", "cold: `ssh -W`, with the start of its process. Warm: a new channel of an `ssh -L`"],
  ["fived bare", "`-o Tls=off`: the name of the service and the request travel together"],
  [
    "fived bare, waits for +",
    "the same with `-o Pipeline=no`, as the paper's client does it and other tcpmux peers need it",
  ],
  [
    "fived TLS+AUTH",
    "cold: a new session with TLS 1.3, AUTH pubkey and MULTIPLEX to a server met before. Warm: a new stream",
  ],
];

/** Compares the medians with the targets. */
export function judge(report: Report): readonly Verdict[] {
  const of = (way: WayName, warmth: Warmth, figure: keyof Times) =>
    median(report.series.find((each) => each.way === way && each.warmth === warmth)?.[figure] ?? []);
  const verdicts: Verdict[] = [];
  const limit = (what: string, value: number | undefined, most: number | undefined, wanted: string) => {
    verdicts.push({
      what,
      wanted: most === undefined ? wanted : `${wanted} = ${most.toFixed(1)} ms`,
      measured: value === undefined ? "not measured" : `${value.toFixed(1)} ms`,
      reached: value === undefined || most === undefined ? undefined : value <= most,
    });
  };
  const plus = (value: number | undefined, ms: number) => (value === undefined ? undefined : value + ms);
  const times = (value: number | undefined, factor: number) => (value === undefined ? undefined : value * factor);
  const asked = (warmth: Warmth) => report.series.some((each) => each.warmth === warmth);
  if (asked("cold")) {
    const cold = of("fived", "cold", "first");
    limit("bare, cold: first byte", of("bare", "cold", "first"), plus(of("tcp", "cold", "first"), 3), "<= TCP + 3 ms");
    limit("TLS+AUTH, cold: first byte", cold, 3 * roundTripMs + 5, "<= 3 round trips + 5 ms");
    for (const peer of ["https", "stunnel", "haproxy"] as const)
      limit("TLS+AUTH, cold: first byte", cold, of(peer, "cold", "first"), `below ${TITLES[peer]}`);
  }
  for (const warmth of (["hot", "idle"] as const).filter(asked)) {
    limit(`warm, ${warmth}: first byte`, of("fived", warmth, "first"), roundTripMs + 3, "<= 1 round trip + 3 ms");
    const tcp = times(of("tcp", warmth, "millionth"), 1.05);
    limit(`warm, ${warmth}: millionth byte`, of("fived", warmth, "millionth"), tcp, "<= 1.05 x warm TCP");
  }
  const echoes = (way: WayName) => report.echoes.find((each) => each.way === way)?.ms ?? [];
  if (report.echoes.length > 0)
    for (const share of [0.5, 0.99]) {
      const tcp = times(quantile(echoes("tcp"), share), 1.3);
      const what = `echo beside four bulk streams: p${share * 100}`;
      limit(what, quantile(echoes("fived"), share), tcp, "<= 1.3 x TCP connections");
    }
  return verdicts;
}

/** The report as a page of markdown. */
export function markdown(report: Report): string {
  const { circumstances, series, echoes, versions, notes } = report;
  const parts = WARMTHS.flatMap(({ warmth, title }) => {
    const rows = inOrder(series.filter((each) => each.warmth === warmth));
    if (rows.length === 0) return [];
    const head = ["ms", "points", "first byte", "round trips", "thousandth", "millionth"];
    return [`## ${title}`, table(head, rows.map(row))];
  });
  return [
    "# fived over a wide-area link: the paper's Figures 8 and 9",
    Object.entries(circumstances)
      .map(([name, value]) => `- ${name}: ${value}`)
      .join("\n"),
    `Milliseconds from the request until the first, thousandth and millionth byte of the answer are with the program that asked: medians, in
brackets the quartiles. A round trip is ${roundTripMs} ms. Compare within one run.`,
    ...parts,
    ...(echoes.length === 0
      ? []
      : [
          "## Echo of one octet beside four bulk streams",
          "fived and OpenSSH: all five in one session; TCP: five connections.",
          table(["ms", "echoes", "p50", "p90", "p99", "most", "bulk, Mbit/s"], inOrder(echoes).map(echoRow)),
        ]),
    "## Targets",
    table(
      ["", "wanted", "measured", "reached"],
      judge(report).map(({ what, wanted, measured, reached }) => [what, wanted, measured, answer(reached)]),
    ),
    "## Ways",
    table(["", "how it is taken"], EXPLAINED),
    versions.map(({ name, version }) => `- ${name}: ${version}`).join("\n"),
    ...(notes.length === 0 ? [] : ["## Notes", notes.map((note) => `- ${note}`).join("\n")]),
    "",
  ].join("\n\n");
}

/** The report as box charts: Figure 8 on the left, Figure 9 on the right, whiskers from the 5th to the 95th of a hundred. */
export function panels(report: Report): readonly Panel[] {
  const { series, echoes } = report;
  const cold = inOrder(series.filter(({ warmth }) => warmth === "cold"));
  const coldTcp = cold.filter(({ way }) => way === "tcp");
  const warm = inOrder(series.filter(({ warmth }) => warmth !== "cold"));
  const timesOf = FIGURES.flatMap((figure) => [
    panelOf(
      `${figure} byte, cold`,
      cold.map((each) => [TITLES[each.way], each.way, each[figure]]),
    ),
    panelOf(`${figure} byte, warm`, [
      ...coldTcp.map((each) => [`${TITLES[each.way]}, new connection`, each.way, each[figure]] as const),
      ...warm.map((each) => [`${TITLES[each.way]}, ${each.warmth}`, each.way, each[figure]] as const),
    ]),
  ]);
  const beside = panelOf(
    "echo beside bulk",
    echoes.map(({ way, ms }) => [TITLES[way], way, ms]),
  );
  return [...timesOf, beside].filter(({ bars }) => bars.length > 0);
}

function panelOf(title: string, bars: readonly (readonly [string, WayName, readonly number[]])[]): Panel {
  return {
    title,
    unit: "ms",
    better: "less",
    digits: 1,
    bars: bars.flatMap(([name, way, values]) => {
      const at = (share: number) => quantile(values, share) ?? Number.NaN;
      if (values.length === 0) return [];
      const spread = { lowest: at(0.05), lower: at(0.25), upper: at(0.75), highest: at(0.95) };
      return [{ name, value: at(0.5), ours: TITLES[way].startsWith("fived"), spread }];
    }),
  };
}

/** In the order in which the ways are named, whatever was measured first. */
function inOrder<T extends { readonly way: WayName }>(all: readonly T[]): readonly T[] {
  return all.toSorted((one, other) => WAYS.indexOf(one.way) - WAYS.indexOf(other.way));
}

function row(each: Series): string[] {
  const first = median(each.first);
  const trips = first === undefined ? "" : (first / roundTripMs).toFixed(2);
  const [one = "", ...others] = FIGURES.map((figure) => cell(each[figure]));
  return [TITLES[each.way], String(each.first.length), one, trips, ...others];
}

function echoRow({ way, ms, besideBytesPerSecond }: Echoes): string[] {
  const figures = [0.5, 0.9, 0.99, 1].map((share) => quantile(ms, share)?.toFixed(1) ?? "");
  const beside = median(besideBytesPerSecond);
  return [TITLES[way], String(ms.length), ...figures, beside === undefined ? "" : ((beside * 8) / 1e6).toFixed(1)];
}

function cell(values: readonly number[]): string {
  const [lower, middle, upper] = [0.25, 0.5, 0.75].map((share) => quantile(values, share)?.toFixed(1));
  return middle === undefined ? "" : `${middle} (${lower}-${upper})`;
}

/** The value below which this share of the values lies, between two of them where it has to be; undefined of none. */
function quantile(values: readonly number[], share: number): number | undefined {
  const sorted = values.toSorted((one, other) => one - other);
  const at = (sorted.length - 1) * share;
  const [below, above] = [sorted[Math.floor(at)], sorted[Math.ceil(at)]];
  return below === undefined || above === undefined ? undefined : below + (above - below) * (at - Math.floor(at));
}
