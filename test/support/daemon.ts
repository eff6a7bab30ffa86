/**
 * A session server in a process of its own that tells what it costs. It serves as `fived serve` does; besides, it answers lines on its
 * standard input: `usage` collects garbage and prints what is left, `clock MS` moves the wall clock, as NTP or an administrator does.
 * @module
 */
import { readdirSync } from "node:fs";
import { createInterface } from "node:readline";
import { setImmediate as turn } from "node:timers/promises";
import { serve } from "../../src/chain/index.ts";
import { createLog, loadConfiguration } from "../../src/server/index.ts";

/** What the process holds when nobody could do without it. */
export interface Usage {
  readonly rss: number;
  /** The JavaScript heap and the memory of its buffers. */
  readonly heap: number;
  /** Open descriptors. */
  readonly descriptors: number;
  /** Processor time since the start. */
  readonly cpuMs: number;
  /** What every object here has that objects should not have (abuse case L06). */
  readonly polluted: readonly string[];
}

const [file = "", state = ""] = process.argv.slice(2);
const configuration = await loadConfiguration(file, { state });
await using server = await serve(configuration, { log: createLog({ level: "debug", json: true }) });
process.stdout.write(`listening on ${server.addresses.join(" ")}\n`);
for await (const line of createInterface(process.stdin)) {
  const [command, argument] = line.split(" ");
  if (command === "usage") process.stdout.write(`usage ${JSON.stringify(await usage())}\n`);
  if (command === "clock") moveClock(Number(argument));
}

async function usage(): Promise<Usage> {
  const { gc } = globalThis;
  if (gc === undefined) throw new Error("Cannot tell what is in use: node needs --expose-gc");
  // What is closed in one turn can be collected in the next.
  for (let round = 0; round < 3; round++) {
    await turn();
    gc({ type: "major", execution: "sync", flavor: "last-resort" });
  }
  const { rss, heapUsed, external } = process.memoryUsage();
  const { user, system } = process.cpuUsage();
  const polluted: string[] = [];
  for (const key in {}) polluted.push(key);
  return {
    rss,
    heap: heapUsed + external,
    descriptors: readdirSync("/proc/self/fd").length,
    cpuMs: (user + system) / 1_000,
    polluted,
  };
}

/** From now on the wall clock is so much ahead, for everything that is JavaScript; timers have a clock of their own. */
function moveClock(ms: number): void {
  const { now } = Date;
  const Real = Date;
  Date.now = () => now() + ms;
  globalThis.Date = new Proxy(Real, {
    construct: (target, args) => Reflect.construct(target, args.length === 0 ? [Real.now()] : args),
    apply: () => new Real(Real.now()).toString(),
  });
}
