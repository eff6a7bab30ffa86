/**
 * `npm test [PATTERN ...]`: runs the test files with node's own runner and ends in its summary. A pattern is a path, a glob, or a part of a path.
 *
 * - FIVED_TEST_SEED repeats the random choices of an earlier run; without it a new seed is drawn, and printed either way.
 * - FIVED_TEST_STRICT=1 counts a skipped test as a failure: a machine that claims to have everything may skip nothing.
 * @module
 */
import { randomInt } from "node:crypto";
import fs from "node:fs";
import path from "node:path";
import { Readable } from "node:stream";
import { pipeline } from "node:stream/promises";
import { run } from "node:test";
import { spec } from "node:test/reporters";

/** Test files at a time. Each is a process of its own, and many start servers and clients: more than the two cores of our CI only adds noise to the slow ones. */
const FILES_AT_ONCE = 2;

/** No file needs a tenth of this; one that hangs must end before CI's patience does. */
const FILE_MS_MAX = 300_000;

/** Seeds fit the 32 bits that fast-check and our own generators take. */
const SEED_MAX = 0x7fff_ffff;

const root = path.join(import.meta.dirname, "..");
const strict = process.env["FIVED_TEST_STRICT"] === "1";
const seed = process.env["FIVED_TEST_SEED"] ?? String(randomInt(SEED_MAX));
process.env["FIVED_TEST_SEED"] = seed;

const files = chosen(process.argv.slice(2));
if (files.length === 0) {
  process.stderr.write(`Cannot test: no test file matches ${process.argv.slice(2).join(" ") || "src/ or test/"}\n`);
  process.exit(1);
}
process.stdout.write(`seed ${seed} (FIVED_TEST_SEED=${seed} npm test repeats this run), ${files.length} files\n`);

const stream = run({ files, cwd: root, concurrency: FILES_AT_ONCE, timeout: FILE_MS_MAX });
type TestEvent = typeof stream extends AsyncIterable<infer Event> ? Event : never;

let ran = 0;
let failed = 0;
const skipped: string[] = [];
await pipeline(Readable.from(watched(stream)), new spec(), process.stdout, { end: false });

// A run of nothing is no success, and neither is a strict one that left something out.
process.exitCode = failed > 0 || ran === 0 || (strict && skipped.length > 0) ? 1 : 0;

/** The runner's events, counted on their way to the reporter; what strictness has to say comes before the runner's summary. */
async function* watched(events: AsyncIterable<TestEvent>): AsyncGenerator<unknown> {
  let summing = false;
  for await (const event of events) {
    if (event.type === "test:pass" || event.type === "test:fail") {
      if (event.type === "test:fail" && event.data.todo === undefined) failed++;
      if (event.data.details.type !== "suite") ran++;
      if (event.data.skip !== undefined && event.data.skip !== false) {
        skipped.push(
          `${event.data.file ?? ""}: ${event.data.name} (${event.data.skip === true ? "no reason given" : event.data.skip})`,
        );
      }
    }
    if (event.type === "test:diagnostic" && !summing && /^tests \d+$/.test(event.data.message)) {
      summing = true;
      if (strict && skipped.length > 0) {
        const message = `\nFIVED_TEST_STRICT=1 allows no skipped test, and these were skipped:\n${skipped.map((line) => `  ${line}\n`).join("")}\n`;
        yield { type: "test:stdout", data: { file: undefined, message } };
      }
    }
    yield event;
  }
}

function chosen(patterns: readonly string[]): string[] {
  const all = ["src/**/*.test.ts", "test/**/*.test.ts"].flatMap((glob) => fs.globSync(glob, { cwd: root })).sort();
  if (patterns.length === 0) return all;
  return all.filter((file) =>
    patterns.some((pattern) => file.includes(pattern.replace(/^\.\//, "")) || path.matchesGlob(file, pattern)),
  );
}
