/**
 * Several connections of one session over two emulated links, each with the round trip of the WAN benchmark: one download over both (bonding), a small stream on the one
 * beside a download on the other (quality of service), and how soon the next octet comes when the address of one of them goes. `npm run bench:paths -- --help`.
 * @module
 */
import { mkdir, mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { parseArgs } from "node:util";
import { run } from "../processes.ts";
import { median as medianOf } from "../table.ts";
import { type End, MODEL, missingForLink, SERVER_ADDRESS, startLink } from "./link.ts";
import { RemoteClient, startModules } from "./remote.ts";

const USAGE = `Usage: npm run bench:paths -- [options]     (as root: it makes network namespaces)
  --times N            how often each is measured                                      (5)
  --out FOLDER         where the report goes                                           (bench/results)
`;
const FAT = { downMbit: 20, upMbit: 10 };
const THIN = { downMbit: 10, upMbit: 5 };
/** The client's address on the second link. */
const OTHER_ADDRESS = "198.18.1.2";
/** Octets of a download. */
const BULK_BYTES = 30e6;

const stop = new AbortController();
for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"] as const)
  process.on(signal, () => stop.abort(new Error(`ended by ${signal}`)));

async function main(times: number, out: string): Promise<void> {
  const missing = missingForLink();
  if (missing !== undefined) throw new Error(`Cannot emulate the link: ${missing}`);
  await using stack = new AsyncDisposableStack();
  const folder = await mkdtemp(join(tmpdir(), "fived-paths-"));
  stack.defer(() => rm(folder, { recursive: true, force: true }));
  const options = { congestionControl: "cubic", slowStartAfterIdle: true };
  const link = stack.use(await startLink(folder, options, FAT));
  stack.use(await startLink(folder, options, { ...THIN, link, device: "wan2" }));
  const at = async (end: End, script: string): Promise<void> => {
    const [program, ...args] = link.at(end, ["sh", "-c", script]);
    await run(program, args);
  };
  // Whoever starts from the second address goes the second way, there and back.
  await at(
    "client",
    `sysctl -qw net.ipv4.conf.all.rp_filter=0 net.ipv4.conf.wan2.rp_filter=0
ip address add ${OTHER_ADDRESS} dev wan2 && ip link set wan2 txqueuelen 10000 up
ip route add ${SERVER_ADDRESS} dev wan2 src ${OTHER_ADDRESS} table 2 && ip rule add from ${OTHER_ADDRESS} lookup 2`,
  );
  await at(
    "server",
    `sysctl -qw net.ipv4.conf.all.rp_filter=0 net.ipv4.conf.wan2.rp_filter=0
ip link set wan2 txqueuelen 10000 up && ip route add ${OTHER_ADDRESS} dev wan2`,
  );
  stack.use(await startModules(folder, link, { zeros: ZEROS, echo: ECHO, ticks: TICKS }));
  const client = stack.use(await RemoteClient.start(folder, link, "paths-client.ts"));

  const goodput = (ms: number): number => (BULK_BYTES * 8) / ms / 1e3;
  const alone: number[] = [];
  const both: number[] = [];
  for (let time = 0; time < times; time++) {
    await client.ask(`remove`);
    alone.push(goodput(await client.ask("download")));
    await client.ask(`add ${OTHER_ADDRESS}`);
    both.push(goodput(await client.ask("download")));
  }
  await client.ask("remove");
  await client.ask(`add ${OTHER_ADDRESS} reserved`);
  const idle: number[] = [];
  const beside: number[] = [];
  for (let time = 0; time < times; time++) {
    idle.push(await client.ask("echo"));
    beside.push(await client.ask("echo beside"));
  }
  await client.ask("remove");
  const left: number[] = [];
  for (let time = 0; time < 4 * times; time++) {
    stop.signal.throwIfAborted();
    await client.ask(`add ${OTHER_ADDRESS}`);
    await client.ask("ticks");
    await sleep(1_000);
    await at("client", "ip address flush dev wan2");
    left.push(await client.ask(`next ${performance.timeOrigin + performance.now()}`));
    await at(
      "client",
      `ip address add ${OTHER_ADDRESS} dev wan2 && ip route replace ${SERVER_ADDRESS} dev wan2 src ${OTHER_ADDRESS} table 2`,
    );
    await client.ask("remove");
  }

  const rate = FAT.downMbit + THIN.downMbit;
  const echoMs = median(beside) - median(idle);
  const page = `# Several connections

Two links of ${FAT.downMbit} and ${THIN.downMbit} Mbit/s, round trip ${MODEL.roundTripMs} ms each.

| | wanted | median | least | most | reached |
|---|---|---|---|---|---|
| download over the first | | ${figures(alone, "Mbit/s", 1)} | |
| download over both | ${0.9 * rate} Mbit/s | ${figures(both, "Mbit/s", 1)} | ${median(both) >= 0.9 * rate ? "yes" : "**no**"} |
| echo on the second, idle | | ${figures(idle, "ms", 1)} | |
| echo on the second, a download on the first | 10 ms more: ${(median(idle) + 10).toFixed(1)} ms | ${figures(beside, "ms", 1)} | ${echoMs <= 10 ? "yes" : "**no**"} |
| next octet when the address of one goes | 60 ms | ${figures(left, "ms", 0)} | ${median(left) <= 60 ? "yes" : "**no**"} |
`;
  await mkdir(out, { recursive: true });
  await writeFile(join(out, "paths.md"), page);
  process.stdout.write(`${page}\nWritten to ${join(out, "paths.md")}\n`);
}

function median(values: readonly number[]): number {
  return medianOf(values) ?? Number.NaN;
}

function figures(values: readonly number[], unit: string, digits: number): string {
  return [median(values), Math.min(...values), Math.max(...values)]
    .map((value) => `${value.toFixed(digits)} ${unit}`)
    .join(" | ");
}

const ZEROS = `import { Readable } from "node:stream";
import { service } from "fived";

const piece = Buffer.alloc(65_536);

export default service("zeros", (stream) => {
  let left = ${BULK_BYTES};
  const source = new Readable({
    read() {
      if (left <= 0) return this.push(null);
      left -= piece.length;
      this.push(piece);
    },
  });
  source.on("error", () => {});
  stream.on("error", () => source.destroy()).resume();
  source.pipe(stream);
});
`;

const ECHO = `import { service } from "fived";

export default service("echo", (stream) => {
  stream.on("error", () => {}).pipe(stream);
});
`;

const TICKS = `import { service } from "fived";

export default service("ticks", (stream) => {
  const tick = setInterval(() => stream.write("tick"), 2);
  stream.on("error", () => {}).on("close", () => clearInterval(tick)).resume();
});
`;

try {
  const { values } = parseArgs({
    options: {
      times: { type: "string", default: "5" },
      out: { type: "string", default: join(import.meta.dirname, "..", "results") },
      help: { type: "boolean", short: "h", default: false },
    },
  });
  if (values.help) process.stdout.write(USAGE);
  else await main(Number(values.times), values.out);
} catch (error) {
  process.stderr.write(`bench:paths: ${error instanceof Error ? error.message : String(error)}\n`);
  process.exitCode = 1;
}
