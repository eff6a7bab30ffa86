/**
 * Compares docs/PROTOCOL.md with what the sources say and the vectors have: its transcripts, its tables, its numbers, and every place that
 * cites one of its sections. Whoever changes one of two is told of the other.
 * @module
 */
import assert from "node:assert/strict";
import fs from "node:fs";
import path from "node:path";
import test from "node:test";
import { QUESTIONS_MAX } from "../../src/server/auth/mechanism.ts";
import { configurationSchema } from "../../src/server/schema.ts";
import { ATTEMPTS_MAX } from "../../src/server/standing.ts";
import {
  BUILT_IN_WORDS,
  type BuiltInWord,
  CONVERSATION_STATES,
  OUTCOMES,
  RESERVED_WORDS,
  STAYS_OPEN,
  TAKES_ARGUMENT,
} from "../../src/server/words.ts";
import { ANONYMOUS_LIMITS, SESSION_LIMITS, Session } from "../../src/session/index.ts";
import {
  ACK_DELAY_MS,
  DRIBBLE_BYTES,
  DRIBBLE_MS,
  deadPeerMs,
  GAPS_MAX,
  gapMs,
  HELD_FRAMES_MAX,
  INITIAL_CREDIT_BYTES,
  LOG_WINDOW_BYTES,
} from "../../src/session/limits.ts";
import {
  Code,
  FrameReader,
  FrameType,
  HEADER_BYTES,
  HELD_RANGES_MAX,
  LINE_BYTES_MAX,
  NAME_BYTES_MAX,
  PAYLOAD_BYTES_MAX,
  PAYLOAD_BYTES_MIN,
  REQUEST_BYTES_MAX,
  Setting,
} from "../../src/wire/index.ts";

const root = path.join(import.meta.dirname, "..", "..");
const read = (file: string): string => fs.readFileSync(path.join(root, file), "utf8");
const page = read("docs/PROTOCOL.md");

// ---- reading the page -------------------------------------------------------------------------------------------------------------

/** Text of each section, by its number; that of its own sub-sections is not in it. */
const sections = new Map<string, string>();
for (const part of page.split(/^(?=#{2,4} )/m)) {
  const number = /^#+ (\d+(?:\.\d+)*) /.exec(part)?.[1];
  if (number !== undefined) sections.set(number, part);
}

function section(number: string): string {
  const text = sections.get(number);
  assert.ok(text !== undefined, `PROTOCOL.md has no section ${number}`);
  return text;
}

/** The rows of the table that begins with this cell, without its head. */
function table(number: string, head: string): readonly (readonly string[])[] {
  const rows = section(number)
    .split("\n\n")
    .map((block) =>
      block
        .trim()
        .split("\n")
        .filter((line) => line.startsWith("|")),
    )
    .map((lines) =>
      lines.map((line) =>
        line
          .split("|")
          .slice(1, -1)
          .map((cell) => cell.trim()),
      ),
    )
    .find(([first]) => first?.[0] === head);
  assert.ok(rows !== undefined && rows.length > 2, `§${number} has no table that begins with ${head}`);
  return rows.slice(2);
}

/** 65512 as the page writes it. */
function grouped(count: number): string {
  return count.toLocaleString("en-US");
}

function size(bytes: number): string {
  return bytes < 1_048_576 ? `${bytes / 1_024} KiB` : `${bytes / 1_048_576} MiB`;
}

function seconds(ms: number): string {
  return `${ms / 1_000} s`;
}

// ---- transcripts ------------------------------------------------------------------------------------------------------------------

/** A step as the page tells it: who, what kind, and the text or the frame. */
type Told = readonly [who: string, what: string];

/** The lines of a transcript on the page. A frame may go on in further lines, which stand farther in. */
function toldOnPage(block: string): readonly Told[] {
  const told: Told[] = [];
  for (const line of block.trimEnd().split("\n")) {
    const mark = line.slice(0, 2);
    const [octets = "", remark] = line.slice(2).split(";");
    if (mark !== "C>" && mark !== "S>") told.push([mark, line.slice(3)]);
    else if (!octets.startsWith("   ")) told.push([mark, `${octets.replaceAll(" ", "")} ${remark?.trim()}`]);
    else {
      const [, begun = ""] = told.pop() ?? [];
      const [before, ...name] = begun.split(" ");
      told.push([mark, [`${before}${octets.replaceAll(" ", "")}`, ...name].join(" ")]);
    }
  }
  return told;
}

interface Step {
  readonly c?: string;
  readonly cText?: string;
  readonly cFrame?: string;
  readonly s?: string;
  readonly sText?: string;
  readonly sFrame?: string;
  readonly what?: string;
  readonly words?: readonly string[];
  readonly tls?: { readonly sni?: string };
  readonly end?: string;
}

function toldInVector({ c, cText, cFrame, s, sText, sFrame, what, words, tls, end }: Step): readonly Told[] {
  if (c !== undefined) return [["C:", c]];
  if (s !== undefined) return [["S:", s]];
  if (words !== undefined) return words.map((word) => ["S:", word]);
  if (cText !== undefined) return [["C~", JSON.stringify(cText)]];
  if (sText !== undefined) return [["S~", JSON.stringify(sText)]];
  if (cFrame !== undefined) return [["C>", `${cFrame} ${what}`]];
  if (sFrame !== undefined) return [["S>", `${sFrame} ${what}`]];
  if (tls !== undefined) return [["= ", tls.sni === undefined ? "LS" : `LS with SNI ${tls.sni}`]];
  return [["= ", `${end?.slice(1)} ends`]];
}

test("the transcripts of §12 are those of test/vectors", () => {
  const blocks = [...page.matchAll(/^### 12\.\d+ ([^\n]*)\n\n```transcript ([a-z-]+)\n(.*?)^```$/gms)];
  assert.ok(blocks.length > 5, "looked at too little");
  assert.equal(blocks.length, page.split("\n```transcript ").length - 1, "each has a heading of its own");
  for (const [, title, name, block = ""] of blocks) {
    const vector: { readonly title: string; readonly steps: readonly Step[] } = JSON.parse(
      read(`test/vectors/transcripts/${name}.json`),
    );
    assert.equal(title, vector.title);
    assert.deepEqual(toldOnPage(block), vector.steps.flatMap(toldInVector), name);
  }
});

// ---- lines and words --------------------------------------------------------------------------------------------------------------

test("§1.1 calls implemented what is a built-in word of this release, and nothing else", () => {
  const rows = table("1.1", "Section");
  const ofWords = rows.filter(([numbers]) => numbers?.startsWith("§4"));
  for (const word of RESERVED_WORDS) {
    const statuses = ofWords
      .filter(([, what = ""]) => what.split(/[ ,:]+/).includes(word))
      .map(([, , status]) => status);
    assert.equal(statuses.length, 1, word);
    const implemented = BUILT_IN_WORDS.some((own) => own === word);
    assert.equal(statuses[0]?.startsWith("implemented"), implemented, word);
  }
  for (const [numbers = ""] of rows)
    for (const [, number = ""] of numbers.matchAll(/§([\d.]+)/g)) assert.ok(sections.has(number), number);
});

test("LIST names the built-in words in the order of §4.1", () => {
  assert.match(section("4.1").replaceAll("\n", " "), new RegExp(`in this order: ${RESERVED_WORDS.join(" ")}\\.`));
});

test("the table of §3.3 is words.json, and the server's own table is part of it", () => {
  const vectors: {
    readonly states: readonly string[];
    readonly words: Record<string, Record<string, { readonly refuse?: number; readonly next: string }>>;
  } = JSON.parse(read("test/vectors/words.json"));
  const rows = table("3.3", "Word");
  assert.match(section("3.3"), new RegExp(`^\\| Word \\| ${vectors.states.join(" \\| ")} \\|$`, "m"));
  const names: Record<string, string> = { "a service's name": "a service", "any other name": "an unknown name" };
  assert.deepEqual(
    rows.map(([word = ""]) => names[word] ?? word),
    Object.keys(vectors.words),
  );
  for (const [word = "", ...cells] of rows) {
    const row = vectors.words[names[word] ?? word];
    for (const [at, state] of vectors.states.entries()) {
      const outcome = row?.[state];
      const expected = outcome?.refuse === undefined ? outcome?.next : `${outcome.refuse} ${outcome.next}`;
      assert.equal(cells[at]?.replace(/ [¹²³⁴]$/, ""), expected, `${word} in ${state}`);
    }
  }
  for (const [word, row] of Object.entries(OUTCOMES))
    for (const state of CONVERSATION_STATES) {
      const outcome = vectors.words[word === "service" ? "a service" : word]?.[state];
      assert.equal(row[state], outcome?.refuse ?? "acts", `${word} in ${state}`);
      if (outcome?.refuse !== undefined) assert.equal(STAYS_OPEN.has(word), outcome.next === "lines", word);
    }
});

test("§3.2 says which words take arguments, and behind whose refusal lines are read", () => {
  const own = (words: string): BuiltInWord[] => BUILT_IN_WORDS.filter((word) => words.split(", ").includes(word));
  const taking = /a word that takes arguments \(([A-Z, ]+)\)/.exec(section("3.2").replaceAll("\n", " "))?.[1] ?? "";
  assert.deepEqual(own(taking), [...TAKES_ARGUMENT]);
  const staying = table("3.2", "Becomes").find(([becomes]) => becomes === "`lines`");
  assert.equal(staying?.[3], "the same, but VIA");
  assert.deepEqual(
    own(staying?.[2] ?? "").filter((word) => word !== "VIA"),
    [...STAYS_OPEN],
  );
});

test("the lengths of §1.3, §3.1 and §3.2 are those of the sources", () => {
  assert.match(section("1.3").replaceAll("\n", " "), new RegExp(`\\*service name\\* is 1 to ${NAME_BYTES_MAX} octets`));
  assert.ok(section("3.1").includes(`at most ${grouped(LINE_BYTES_MAX)} octets before the CRLF`));
  const verdict = `octet ${grouped(LINE_BYTES_MAX + 1)} if it is not CR, or else octet ${grouped(LINE_BYTES_MAX + 2)}`;
  assert.ok(section("3.1").includes(verdict));
  assert.ok(section("3.2").includes(`; at most ${grouped(LINE_BYTES_MAX)} octets before CRLF`));
});

test("§3.5 has the line codes that docs/errors.md explains", () => {
  const errors = read("docs/errors.md");
  const explained = [...errors.matchAll(/^\| `(\d{3})` \|/gm)].map(([, code]) => code);
  assert.deepEqual(
    table("3.5", "Code").map(([code]) => code),
    explained,
  );
});

// ---- frames -----------------------------------------------------------------------------------------------------------------------

/** Names of frames in the sources. */
const TYPES: Readonly<Record<string, keyof typeof FrameType>> = {
  PAD: "pad",
  PIN: "pin",
  CARRY: "carry",
  ALONE: "alone",
  ACK: "ack",
  PING: "ping",
  CLOSE_CONN: "closeConnection",
  TICKET_OK: "ticketStored",
  DATA: "data",
  OPEN: "open",
  RESET: "reset",
  CREDIT: "credit",
  GOAWAY: "goaway",
  SETTINGS: "settings",
  END: "end",
};

/** The verdict on a header alone. */
function verdict(type: number, flags: number, length: number, stream: number): string {
  const octets = new Uint8Array(HEADER_BYTES);
  const view = new DataView(octets.buffer);
  view.setUint8(0, type);
  view.setUint8(1, flags);
  view.setUint16(2, length);
  view.setUint32(4, stream);
  const reader = new FrameReader();
  reader.push(octets);
  const frame = reader.next();
  return frame?.type === "error" ? frame.code : "good";
}

/** Least and most octets of a payload, and the unit they come in, from the words of the table. */
function payload(words: string): readonly [least: number, most: number, unit: number] {
  if (words === "none") return [0, 0, 1];
  const [, from, to, unit = "octets"] = /(\d+) to ([\d,]+) (pairs|entries|octets)/.exec(words) ?? [];
  if (from === undefined || to === undefined) return [0, PAYLOAD_BYTES_MAX, 1];
  const octets = { pairs: 16, entries: 8, octets: 1 }[unit] ?? 1;
  const before = words.startsWith("u32 code") ? 4 : 0;
  return [before + Number(from) * octets, before + Number(to.replace(",", "")) * octets, octets];
}

test("the table of types in §6.2 is the one by which headers are judged", () => {
  const rows = table("6.2", "Type");
  assert.deepEqual(Object.fromEntries(rows.map(([number, name = ""]) => [TYPES[name], Number(number)])), {
    ...FrameType,
  });
  for (const [number, name, sequenced, of, , flags = "", words = ""] of rows) {
    const type = Number(number);
    assert.equal((type & 0x40) !== 0, sequenced === "yes", name);
    const stream = of === "0" ? 0 : 1;
    const [least, most, unit] = payload(words);
    const flag = flags === "none" ? 0 : Number(flags.split(" ")[0]);
    const wrong = type > 0x05 && type < 0x40 ? "good" : "PROTOCOL"; // wishes are skipped
    for (let bit = 1; bit < 0x100; bit *= 2)
      assert.equal(verdict(type, bit, most, stream), bit === flag ? "good" : wrong, `${name} with flag ${bit}`);
    assert.equal(verdict(type, 0, most, 1 - stream), wrong, `${name} on stream ${1 - stream}`);
    for (const length of [least, least + unit, most]) {
      if (length > most) continue;
      assert.equal(verdict(type, 0, length, stream), "good", `${name} with ${length}`);
    }
    for (const length of [least - 1, least + unit / 2, most + 1, PAYLOAD_BYTES_MAX + 1]) {
      if (length < 0 || !Number.isInteger(length)) continue;
      const code = length > PAYLOAD_BYTES_MAX ? "FRAME_SIZE" : wrong;
      assert.equal(verdict(type, 0, length, stream), code, `${name} with ${length}`);
    }
  }
  const lengths = `ACK a multiple of 16 up to ${HELD_RANGES_MAX * 16}; CLOSE_CONN up to 255; OPEN 1 to ${grouped(REQUEST_BYTES_MAX)}; GOAWAY 4 to 259; SETTINGS a multiple of 8 up to 128`;
  assert.ok(section("6.6").includes(lengths), "§6.6 has the lengths of §6.2");
});

test("reserved types are judged as §6.2 says", () => {
  const known: ReadonlySet<number> = new Set(Object.values(FrameType));
  for (let type = 0; type < 0x100; type++)
    if (!known.has(type)) assert.equal(verdict(type, 0xff, 7, 7), type < 0x80 ? "good" : "UNSUPPORTED", `${type}`);
});

test("the settings of §6.4 are those of the sources, with their defaults and bounds", () => {
  const rows = table("6.4", "Id");
  assert.deepEqual(
    rows.map(([id]) => Number(id)),
    Object.values(Setting),
  );
  const payloads = `${grouped(PAYLOAD_BYTES_MIN)} to ${grouped(PAYLOAD_BYTES_MAX)}, and never lower than before`;
  const credit = grouped(INITIAL_CREDIT_BYTES);
  const window = grouped(LOG_WINDOW_BYTES);
  assert.deepEqual(
    rows.map(([, , value, bounds]) => [value, bounds]),
    [
      [grouped(PAYLOAD_BYTES_MIN), payloads],
      [`${streamsUnheard()}`, "any"],
      [credit, `at least ${credit}, and never lower than before`],
      [window, `at least ${window}, and never lower than before`],
      [`${SESSION_LIMITS.connections}`, "any; 0 is read as 1"],
      [`${deadPeerMs(SESSION_LIMITS) / 1_000}`, "any; 0 says nothing"],
    ],
  );
  const defaults = `payloads up to ${grouped(PAYLOAD_BYTES_MIN)}, ${streamsUnheard()} streams, stream credit ${credit}, log limit ${window}`;
  assert.ok(section("6.4").replaceAll("\n", " ").includes(defaults));
});

/** Streams that an end opens before it has heard anything of its peer. */
function streamsUnheard(): number {
  const session = new Session({ role: "client", retain: false, limits: SESSION_LIMITS }, 0);
  let streams = 0;
  while (session.open(Buffer.from("echo"), 0) !== undefined) streams++;
  return streams;
}

test("the codes of §6.5 are those of the sources and of docs/errors.md", () => {
  const codes = table("6.5", "Code").map(([code, name]) => [name, Number(code)]);
  assert.deepEqual(Object.fromEntries(codes), { ...Code });
  const explained = [...read("docs/errors.md").matchAll(/^\| `(\d{1,2})` \| `([A-Z_]+)` \|/gm)];
  assert.deepEqual(
    explained.map(([, code, name]) => [name, Number(code)]),
    codes,
  );
});

// ---- numbers ----------------------------------------------------------------------------------------------------------------------

const { limits, sessions } = configurationSchema({ folder: root, path: "" }).parse(new Map());

test("the deadlines of §3.6 are the defaults of the configuration", () => {
  assert.deepEqual(
    table("3.6", "Waiting for").map(([, deadline]) => deadline),
    [
      seconds(limits.firstLineMs),
      seconds(limits.betweenLinesMs),
      seconds(limits.handshakeMs),
      seconds(limits.stallMs),
      seconds(limits.unauthenticated.timeMs),
      seconds(limits.betweenLinesMs),
    ],
  );
});

test("the limits of §9.5 are the defaults of sessions and of the configuration", () => {
  const { anonymous, unauthenticated: door, keepalive, penalties } = limits;
  const { streams, budgetBytes, windowBytesMax, logWindowBytesMax, stallMs, streamStallMs } = SESSION_LIMITS;
  const shares = [anonymous.streams, anonymous.budgetBytes];
  assert.deepEqual(shares, [ANONYMOUS_LIMITS.streams, ANONYMOUS_LIMITS.budgetBytes]);
  const nothing = "of a later release";
  const { detach } = sessions;
  const expected: Readonly<Record<string, string>> = {
    "line; server's line": `${grouped(LINE_BYTES_MAX)}; 4,096 octets (fixed)`,
    "first line; further lines; TLS handshake": [limits.firstLineMs, limits.betweenLinesMs, limits.handshakeMs]
      .map(seconds)
      .join("; "),
    "a connection without a granted request": seconds(door.timeMs),
    "such connections: in all; of one source (/32, /56)": `early drop ${door.start}:${door.rate}:${door.full} (start:percent:full); ${door.perSource}`,
    "penalty for a source: each failed AUTH or ATTACH; refused from; at most": [
      penalties.authFailureMs,
      penalties.minMs,
      penalties.maxMs,
    ]
      .map(seconds)
      .join("; "),
    "answers of a conversation that wait": "64 KiB",
    "connecting to a back end": `${seconds(limits.connectMs)}; ${limits.pendingOpens} waiting in a session`,
    "AUTH: attempts; questions; a back end's answer": `${ATTEMPTS_MAX}; ${QUESTIONS_MAX}; 20 s`,
    "streams of the peer; of nobody": `${streams}; ${anonymous.streams}`,
    "credit outstanding in a session; of nobody; in a stream": `${size(budgetBytes)}; ${size(anonymous.budgetBytes)}; ${size(limits.initialCreditBytes)} growing to ${size(windowBytesMax)}`,
    "log window": `${size(LOG_WINDOW_BYTES)} growing to ${size(logWindowBytesMax)}`,
    "gaps; frames held out of order; time of a gap": `${GAPS_MAX}; ${grouped(HELD_FRAMES_MAX)}; ${seconds(gapMs(SESSION_LIMITS))} (with one connection 0)`,
    "connections of a session": `${sessions.connections}`,
    "control frames that wait": `${grouped(limits.controlQueue.frames)}; then the peer is not read`,
    "octets that wait on a connection; without any being taken": `${size(limits.sendQueueBytes)}; ${seconds(stallMs)}`,
    "stream without progress although data waits, or half-closed and idle": `${seconds(streamStallMs)}, then RESET TIMEOUT`,
    "keepalive; dead": `${seconds(keepalive.intervalMs)}; ${seconds(deadPeerMs(SESSION_LIMITS))}`,
    "frames under 1 KiB, while other sessions are active": `${grouped(limits.framesPerSecond)} a second and session; then it is read more slowly`,
    "detached: ttl; log held; of an identity; of nobody; in all": `${detach.keepMs / 60_000} min; ${size(detach.queueBytes)}; ${detach.perIdentity}; ${detach.anonymous}; ${grouped(detach.total)} and ${size(detach.memoryBytes)}`,
    "ATTACH to one session": `${detach.attaches} a minute, ${detach.attaches / 2} at once`,
    PROVEAUTH: nothing,
  };
  const rows = table("9.5", "What");
  assert.deepEqual(
    rows.map(([what]) => what),
    Object.keys(expected),
  );
  for (const [what = "", value] of rows) if (expected[what] !== nothing) assert.equal(value, expected[what], what);
});

test("what the configuration assumes is what a session assumes", () => {
  const { streams, budgetBytes, initialCreditBytes, windowBytesMax, logWindowBytesMax, sendQueueBytes } = limits;
  const { stallMs, streamStallMs, glitches, pings, keepalive, controlQueue } = limits;
  assert.deepEqual(
    {
      ...{ streams, budgetBytes, initialCreditBytes, windowBytesMax, logWindowBytesMax, sendQueueBytes },
      ...{ stallMs, streamStallMs, glitches, pings },
      keepaliveMs: keepalive.intervalMs,
      keepaliveMisses: keepalive.misses,
      controls: controlQueue.frames,
      connections: sessions.connections,
      detachedBytes: sessions.detach.queueBytes,
    },
    { ...SESSION_LIMITS },
  );
});

test("the numbers in the text are those of the sources", () => {
  const numbers: readonly (readonly [string, string])[] = [
    ["7.2", `at the latest ${ACK_DELAY_MS} ms after`],
    ["8.1", `Up to ${limits.pendingOpens} streams may be waiting for their back ends`],
    ["8.4", `waits up to ${DRIBBLE_MS} ms until it may send ${DRIBBLE_BYTES / 1_024} KiB`],
    ["9.1", `up to ${SESSION_LIMITS.pings.capacity} at once and ${SESSION_LIMITS.pings.perSecond} a second`],
    ["9.3", `gives streams and services ${seconds(limits.shutdownMs)}`],
    ["8.5", `turns of up to ${constant("session/schedule.ts", "TURN_FRAMES")} frames`],
    ["8.5", `said little lately (under ${size(constant("session/stream.ts", "INTERACTIVE_BYTES"))}`],
    ["8.5", `after ${constant("io/pump.ts", "BURST_IDLE_MS")} ms without a word`],
    ["8.5", `for up to ${constant("io/turn.ts", "SOON_MS")} ms`],
    ["9.5", `in the last ${constant("io/frame-budget.ts", "ACTIVE_MS")} ms`],
    ["9.5", `${constant("io/frame-budget.ts", "PAUSE_MS_MAX")} ms at most at a time`],
    [
      "9.6",
      `${grouped(SESSION_LIMITS.glitches.capacity)}, and ${SESSION_LIMITS.glitches.perSecond} come back each second`,
    ],
  ];
  for (const [number, words] of numbers)
    assert.ok(section(number).replaceAll("\n", " ").replaceAll("  ", " ").includes(words), `§${number}: ${words}`);
});

/** A number that a file keeps to itself; a product of numbers where it is written as one. */
function constant(file: string, name: string): number {
  const written = new RegExp(`^(?:export )?const ${name} = ([\\d_* ]+);`, "m").exec(read(`src/${file}`))?.[1];
  assert.ok(written !== undefined, `src/${file} has no ${name}`);
  return written.split("*").reduce((product, factor) => product * Number(factor.replaceAll("_", "").trim()), 1);
}

// ---- citations --------------------------------------------------------------------------------------------------------------------

/** Section numbers behind each "§" of a text; only those behind "PROTOCOL" where other documents are cited too. */
function cited(text: string, own: boolean): readonly string[] {
  const joined = text.replaceAll(/\n[ \t]*(?:\*|\/\/|#)?[ \t]*/g, " ");
  const found = own
    ? [...joined.matchAll(/(?<!(?:RFC \d+|Figure) )§\d+(?:\.\d+)*/g)].map(([all]) => all)
    : [...joined.matchAll(/PROTOCOL(?:\.md)?((?:,? (?:and |to )?§\d+(?:\.\d+)*)+)/g)].map(([, all = ""]) => all);
  return found.flatMap((all) => [...all.matchAll(/§(\d+(?:\.\d+)*)/g)].map(([, number = ""]) => number));
}

test("every section of PROTOCOL that is cited exists", () => {
  const files = ["src", "test", "bench", "scripts", "examples", "docs"].flatMap((folder) =>
    fs.globSync(`${folder}/**/*.{ts,json,md,yaml}`, { cwd: root }),
  );
  let looked = 0;
  for (const file of files) {
    for (const number of cited(read(file), file === "docs/PROTOCOL.md")) {
      looked++;
      assert.ok(sections.has(number), `${file} cites PROTOCOL §${number}, which does not exist`);
    }
  }
  assert.ok(looked > 100, "looked at too little");
});
