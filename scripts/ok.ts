/**
 * `npm run ok [-- --no-tests]`: everything that has to hold before a change is handed in. Each check is named, timed and says how much it
 * looked at; one that looked at nothing fails, because a check that is not connected to anything is green for ever.
 * @module
 */
import { spawn } from "node:child_process";
import fs from "node:fs";
import os from "node:os";
import path from "node:path";
import { text } from "node:stream/consumers";
import { pack } from "./pack.ts";

const root = path.join(import.meta.dirname, "..");
const temporary = fs.mkdtempSync(path.join(os.tmpdir(), "fived-ok-"));
const withTests = !process.argv.includes("--no-tests");

/** A check answers how many things it looked at and what these are; it throws when it found fault with one. */
interface Check {
  readonly name: string;
  run(): Promise<{ readonly looked: number; readonly at: string }>;
}

const checks: readonly Check[] = [
  {
    name: "biome",
    async run() {
      const output = await tool("biome", ["ci", "--colors=off", "--error-on-warnings", "."]);
      return { looked: number(output, /Checked (\d+) files/), at: "files" };
    },
  },
  {
    name: "tsc -b",
    async run() {
      await tool("tsc", ["-b", "--pretty", "false"]);
      return { looked: emitted(), at: "modules" };
    },
  },
  {
    name: "tsc tests",
    async run() {
      await tool("tsc", ["-p", "tsconfig.test.json", "--pretty", "false"]);
      const output = await tool("tsc", ["-p", "tsconfig.test.json", "--listFilesOnly"]);
      const own = output.split("\n").filter((file) => file.startsWith(root) && !file.includes("/node_modules/"));
      return { looked: own.length, at: "files" };
    },
  },
  {
    name: "arch",
    run: () => tests(["test/arch/"]),
  },
  ...(withTests ? [{ name: "tests", run: () => tests([]) }] : []),
  {
    name: "knip",
    async run() {
      // Knip counts nothing; but a pattern in its configuration that matches nothing is a hint, and hints are errors to us.
      await tool("knip", ["--no-progress", "--treat-config-hints-as-errors"]);
      return { looked: emitted(), at: "modules" };
    },
  },
  {
    name: "publint",
    async run() {
      const { tarball, files } = await pack(temporary);
      await tool("publint", [tarball, "--strict"]);
      for (const needed of [
        "bin/fived.js",
        "dist/index.js",
        "dist/index.d.ts",
        "dist/cli/main.js",
        "README.md",
        "LICENSE",
      ]) {
        if (!files.includes(needed)) throw new Error(`Cannot publish: ${needed} is not in the package`);
      }
      return { looked: files.length, at: "packed files" };
    },
  },
  {
    name: "typedoc",
    async run() {
      const json = path.join(temporary, "api.json");
      await tool("typedoc", ["--json", json]);
      const modules: Reflection = JSON.parse(fs.readFileSync(json, "utf8"));
      const exports = (modules.children ?? []).flatMap((module) =>
        (module.children ?? []).map((each) => ({ ...each, name: `${module.name}.${each.name}` })),
      );
      const silent = exports.filter((each) => !isDocumented(each)).map(({ name }) => name);
      if (silent.length > 0)
        throw new Error(`These exports have no sentence that says what they are: ${silent.join(", ")}`);
      return { looked: exports.length, at: "exports" };
    },
  },
];

let failures = 0;
for (const check of checks) {
  const started = performance.now();
  let line: string;
  try {
    const { looked, at } = await check.run();
    if (looked === 0) throw new Error(`Looked at 0 ${at}: a check of nothing is no check`);
    line = `ok    ${check.name.padEnd(10)} ${String(looked).padStart(5)} ${at}`;
  } catch (error) {
    failures++;
    line = `FAIL  ${check.name}\n${error instanceof Error ? error.message : String(error)}`;
  }
  process.stdout.write(`${line}  (${((performance.now() - started) / 1000).toFixed(1)} s)\n`);
}
fs.rmSync(temporary, { recursive: true });
process.stdout.write(
  failures === 0 ? `all ${checks.length} checks passed\n` : `${failures} of ${checks.length} checks failed\n`,
);
process.exitCode = failures === 0 ? 0 : 1;

/** Runs a tool of node_modules/.bin to its end and answers all it printed; throws that when it failed. */
async function tool(command: string, args: readonly string[]): Promise<string> {
  const bin = path.join(root, "node_modules", ".bin");
  const environment = { ...process.env, NO_COLOR: "1", PATH: `${bin}${path.delimiter}${process.env["PATH"] ?? ""}` };
  const child = spawn(command, args, { cwd: root, env: environment, stdio: ["ignore", "pipe", "pipe"] });
  const ended = new Promise<number | null>((resolve, reject) => {
    child.once("error", reject);
    child.once("close", resolve);
  });
  const [status, out, err] = await Promise.all([ended, text(child.stdout), text(child.stderr)]);
  if (status !== 0) throw new Error(`${[command, ...args].join(" ")} ended with ${status}\n${out}${err}`);
  return out + err;
}

async function tests(patterns: readonly string[]): Promise<{ looked: number; at: string }> {
  const output = await tool("node", [path.join("scripts", "test.ts"), ...patterns]);
  process.stdout.write(output.replace(/\n.*$/s, "\n")); // The first line: it names the seed.
  return { looked: number(output, /^ℹ pass (\d+)$/m), at: "tests passed" };
}

/** Modules that tsc -b has written; throws when one of the sources has none. */
function emitted(): number {
  const sources = fs.globSync("src/**/*.ts", { cwd: root }).filter((file) => !file.endsWith(".test.ts"));
  for (const source of sources) {
    const built = source.replace(/^src/, "dist").replace(/\.ts$/, ".js");
    if (!fs.existsSync(path.join(root, built)))
      throw new Error(`${source} was not built: no tsconfig.json takes it in`);
  }
  return sources.length;
}

function number(output: string, pattern: RegExp): number {
  return Number(pattern.exec(output)?.[1] ?? 0);
}

/** What typedoc tells of a module or of an export; the part we look at. */
interface Reflection {
  readonly name: string;
  readonly variant?: string;
  readonly comment?: unknown;
  readonly signatures?: readonly Reflection[];
  readonly children?: readonly Reflection[];
}

/** An export has its sentence; a function has it on its signatures, and what is exported twice has it at the first place. */
function isDocumented({ variant, comment, signatures }: Reflection): boolean {
  return (
    variant === "reference" || comment !== undefined || signatures?.every((each) => each.comment !== undefined) === true
  );
}
