/**
 * The paper's Figures 8 and 9 over an emulated link: starts the link, the servers at its far end and the client at its near one, measures
 * all ways in turns, and ends everything it has started. `--help` and ../README.md say what can be asked for.
 * @module
 */
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { ClientEnd } from "./client-end.ts";
import { missingForLink, startLink } from "./link.ts";
import { makeKeys, SERVERS } from "./servers.ts";
import { KINDS, type Plan, Turns, tell } from "./turns.ts";

const USAGE = `Usage: npm run bench:wan -- [options]     (as root: it makes network namespaces)
  --points N           how often each way is measured, in turns: six seconds for each  (500)
  --quick              20 points and few echoes: is it in order? three minutes
  --only LIST          of cold,warm,echo                                               (all)
  --congestion NAME    congestion control of both ends: cubic, bbr, reno               (cubic)
  --no-idle-restart    TCP keeps its window while it is idle
  --out FOLDER         where the report goes                                           (bench/results)
`;

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
  const turns = new Turns(plan, link, stop.signal);
  for (const server of SERVERS) {
    const lacking = server.missing();
    try {
      if (lacking !== undefined) throw new Error(lacking);
      await server.start({ folder, link, stack, signal: stop.signal });
      turns.versions.push({ name: server.name, version: await server.version() });
      tell(`${server.name} is up`);
    } catch (error) {
      stop.signal.throwIfAborted();
      turns.leaveOut(server.ways, messageOf(error));
    }
  }
  const client = stack.use(await ClientEnd.start(folder, link, stop.signal));
  await turns.warmUp(client);
  await turns.points(client);
  await turns.echoes(client);
  process.stdout.write(`\n${await turns.write()}\nWritten to ${plan.out}/wan.{md,json,svg}\n`);
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

function messageOf(error: unknown): string {
  return (error instanceof Error ? error.message : String(error)).trim().replaceAll("\n", " | ");
}
