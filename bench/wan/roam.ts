/**
 * How soon the next octet comes over the emulated link of the WAN benchmark, when the link was gone, the client has another address, or a translator has
 * forgotten its connection. A service says eight octets every two milliseconds; the client, on whose clock all is measured, checks that none is lost
 * and none comes twice. `npm run bench:roam -- --help`.
 * @module
 */
import { mkdir, mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { parseArgs } from "node:util";
import { run } from "../processes.ts";
import { type End, type Link, MODEL, missingForLink, SERVER_ADDRESS, startLink } from "./link.ts";
import { PORT, RemoteClient, startModules } from "./remote.ts";

const USAGE = `Usage: npm run bench:roam -- [options]     (as root: it makes network namespaces)
  --times N            how often each is measured; outages a fifth of that             (20)
  --outage SECONDS     how long an outage is                                           (30)
  --out FOLDER         where the report goes                                           (bench/results)
`;
/** Between two of them all is well for so long: the server lets a session be attached to ten times a minute, unless told otherwise as here. */
const CALM_MS = 1_500;

/** What was under way has come by then. */
const UNDER_WAY_MS = 40;

/** What happens to the client's way, and what is wanted. */
interface Trouble {
  readonly name: string;
  readonly wanted: string;
  readonly limitMs: number;
  readonly isOutage: boolean;
  /** Makes it; the moment from which on octets could come again, in milliseconds since 1970. */
  happens(world: World): Promise<number>;
}

interface World {
  readonly link: Link;
  readonly outageMs: number;
  /** The client's address, and the next. */
  address: string;
  next(): string;
  /** Runs this with a shell at an end; says when it began. */
  at(end: End, script: string): Promise<number>;
  /** What the shell prints. */
  said(end: End, script: string): Promise<string>;
}

const TROUBLES: readonly Trouble[] = [
  {
    name: "the link is down, and its computer knows",
    wanted: "150 ms after its return",
    limitMs: 150,
    isOutage: true,
    async happens({ at, outageMs, address }) {
      await at("client", "ip link set wan down");
      await sleep(outageMs);
      return await at("client", `ip link set wan up && ip route replace ${SERVER_ADDRESS} dev wan src ${address}`);
    },
  },
  {
    name: "nothing comes through, and nobody is told",
    wanted: "150 ms after its return",
    limitMs: 150,
    isOutage: true,
    async happens({ link, outageMs }) {
      await link.swallow("on");
      await sleep(outageMs);
      const back = performance.timeOrigin + performance.now();
      await link.swallow("off");
      return back;
    },
  },
  {
    name: "the client has another address",
    wanted: "150 ms",
    limitMs: 150,
    isOutage: false,
    async happens(world) {
      const [old, other] = [world.address, world.next()];
      const script = `ip address add ${other}/32 dev wan && ip route replace ${SERVER_ADDRESS} dev wan src ${other} && ip address del ${old}/32 dev wan`;
      await world.at("client", script); // what comes now comes over another connection
      return performance.timeOrigin + performance.now();
    },
  },
  {
    name: "a translator forgets the connection",
    wanted: "150 ms after 500 ms of silence, 1,000 ms without an answer, and a look every 100 ms",
    limitMs: 1_750,
    isOutage: false,
    async happens({ link, said }) {
      const own = await said("client", `ss -Htn state established dport = :${PORT}`);
      for (const [, port] of own.matchAll(/198\.18\.0\.\d+:(\d+)\s+198/g)) await link.forget(Number(port));
      await sleep(UNDER_WAY_MS);
      return performance.timeOrigin + performance.now();
    },
  },
];

const stop = new AbortController();
for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"] as const)
  process.on(signal, () => stop.abort(new Error(`ended by ${signal}`)));

async function main(times: number, outageSeconds: number, out: string): Promise<void> {
  const missing = missingForLink();
  if (missing !== undefined) throw new Error(`Cannot emulate the link: ${missing}`);
  await using stack = new AsyncDisposableStack();
  const folder = await mkdtemp(join(tmpdir(), "fived-roam-"));
  stack.defer(() => rm(folder, { recursive: true, force: true }));
  const link = stack.use(await startLink(folder, { congestionControl: "cubic", slowStartAfterIdle: true }));
  const world = worldOf(link, outageSeconds * 1_000);
  await world.at("server", "ip route del 198.18.0.2; ip route add 198.18.0.0/24 dev wan");
  stack.use(await startModules(folder, link, { ticks: TICKS }));
  const client = stack.use(await RemoteClient.start(folder, link, "roam-client.ts"));

  const rows: string[] = [];
  for (const trouble of TROUBLES) {
    const took: number[] = [];
    for (let time = 0; time < Math.ceil(trouble.isOutage ? times / 5 : times); time++) {
      stop.signal.throwIfAborted();
      await sleep(CALM_MS);
      const from = await trouble.happens(world);
      took.push((await client.ask(String(from))) - from);
    }
    const sorted = took.sort((one, other) => one - other);
    const at = (part: number): number => sorted[Math.floor((sorted.length - 1) * part)] ?? Number.NaN;
    const reached = at(0.5) <= trouble.limitMs ? "yes" : "**no**";
    const figures = [at(0.5), at(0), at(1)].map((ms) => `${ms.toFixed(0)} ms`);
    rows.push(`| ${[trouble.name, sorted.length, trouble.wanted, ...figures, reached].join(" | ")} |`);
    process.stderr.write(`${rows.at(-1)}\n`);
  }
  const counted = await client.ask("counted");
  const page = `# The next octet

Round trip ${MODEL.roundTripMs} ms, ${MODEL.downMbit}/${MODEL.upMbit} Mbit/s; an outage is ${outageSeconds} s. ${counted} octets in order, none lost, none twice.

| what happens | times | wanted | median | least | most | reached |
|---|---|---|---|---|---|---|
${rows.join("\n")}
`;
  await mkdir(out, { recursive: true });
  await writeFile(join(out, "roam.md"), page);
  process.stdout.write(`${page}\nWritten to ${join(out, "roam.md")}\n`);
}

function worldOf(link: Link, outageMs: number): World {
  let last = 2;
  const said = async (end: End, script: string): Promise<string> => {
    const [program, ...args] = link.at(end, ["sh", "-c", script]);
    return (await run(program, args)).stdout;
  };
  return {
    link,
    outageMs,
    address: "198.18.0.2",
    next() {
      last = last >= 250 ? 3 : last + 1;
      this.address = `198.18.0.${last}`;
      return this.address;
    },
    said,
    at: async (end, script) => Number((await said(end, `date +%s%N; ${script}`)).split("\n")[0]) / 1e6,
  };
}

const TICKS = `import { service } from "fived";

export default service("ticks", (stream) => {
  let count = 0n;
  const tick = setInterval(() => {
    const octets = Buffer.alloc(8);
    octets.writeBigUInt64BE(count++);
    if (!stream.write(octets)) clearInterval(tick);
  }, 2);
  const go = () => {
    clearInterval(tick);
    stream.destroy();
  };
  stream.on("error", go).on("end", go).resume();
});
`;

try {
  const { values } = parseArgs({
    options: {
      times: { type: "string", default: "20" },
      outage: { type: "string", default: "30" },
      out: { type: "string", default: join(import.meta.dirname, "..", "results") },
      help: { type: "boolean", short: "h", default: false },
    },
  });
  if (values.help) process.stdout.write(USAGE);
  else await main(Number(values.times), Number(values.outage), values.out);
} catch (error) {
  process.stderr.write(`bench:roam: ${error instanceof Error ? error.message : String(error)}\n`);
  process.exitCode = 1;
}
