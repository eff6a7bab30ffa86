/**
 * What detached sessions hold at the server, each with one stream open; and what it costs a session to be detachable, as what it says is then kept until
 * it is confirmed: downloads in turns, with a ticket and without.
 * @module
 */
import { once } from "node:events";
import { mkdir, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { connect } from "../src/client/index.ts";
import { startServer } from "./fived.ts";
import { held } from "./idle.ts";
import { Load } from "./measure.ts";
import { cpuSecondsOf, type Started } from "./processes.ts";
import { median as medianOf } from "./table.ts";

/** Sessions counted, beside as many that were detached before. */
const SESSIONS = 10_000;
const ROUNDS = 12;
const BULK_BYTES = 400e6;

interface Turn {
  readonly mbytesPerSecond: number;
  /** Of the server. */
  readonly cpuSeconds: number;
}

/** Measures, and returns the report as markdown. */
export async function detached(folder: string, signal: AbortSignal): Promise<string> {
  const load = await Load.compile(folder, signal);
  await using backEnds = await load.serve();
  const memory = await held({ folder: join(folder, "idle"), load, backEnds, signal }, "detached sessions", SESSIONS);
  if (memory.type !== "held") throw new Error("Invariant: what is held was counted");
  const turns = await bulk(join(folder, "bulk"), signal);
  const [plain, detachable] = [turns.get(false) ?? [], turns.get(180) ?? []];
  const rows = [
    ["without", plain],
    ["with", detachable],
  ] as const;
  const ratio = (part: (turn: Turn) => number): string =>
    (median(detachable.map(part)) / median(plain.map(part))).toFixed(3);
  return `| ${SESSIONS} sessions without a connection, a stream open in each | KiB each |
|---|---|
| after a collection | ${(memory.bytesEach / 1_024).toFixed(1)} |
| before | ${(memory.bytesEachUncollected / 1_024).toFixed(1)} |

| download of ${BULK_BYTES / 1e6} MB, median of ${ROUNDS} | MB/s | CPU of the server, s |
|---|---|---|
${rows.map(([name, all]) => `| ${name} a ticket | ${median(all.map((turn) => turn.mbytesPerSecond)).toFixed(0)} | ${median(all.map((turn) => turn.cpuSeconds)).toFixed(2)} |`).join("\n")}
| ratio | ${ratio((turn) => turn.mbytesPerSecond)} | ${ratio((turn) => turn.cpuSeconds)} |
`;
}

/** Downloads in turns, by what was asked with DETACHABLE. */
async function bulk(folder: string, signal: AbortSignal): Promise<ReadonlyMap<number | false, readonly Turn[]>> {
  await mkdir(folder, { recursive: true });
  const module = join(folder, "zeros.ts");
  await writeFile(module, ZEROS);
  const { process: server, port } = await startServer(folder, {
    services: { zeros: { module, allow: ["anyone"] } },
    env: {},
    more: { sessions: { detach: { anonymous: 100 } } },
    signal,
  });
  await using _server = server;
  const turns = new Map<number | false, Turn[]>([
    [false, []],
    [180, []],
  ]);
  for (let round = -1; round < ROUNDS; round++)
    for (const [asked, all] of turns) {
      signal.throwIfAborted();
      const turn = await download(`127.0.0.1:${port}`, asked, join(folder, "known_hosts"), server);
      if (round >= 0) all.push(turn);
    }
  return turns;
}

async function download(
  address: string,
  detachable: number | false,
  knownHosts: string,
  server: Started,
): Promise<Turn> {
  await using session = await connect(address, { knownHosts, strictHostKeyChecking: "accept-new", detachable });
  const before = cpuSecondsOf(server.tree());
  const began = performance.now();
  const stream = session.open("zeros");
  await once(stream.resume(), "end");
  stream.end();
  await once(stream, "close");
  return {
    mbytesPerSecond: BULK_BYTES / 1e3 / (performance.now() - began),
    cpuSeconds: cpuSecondsOf(server.tree()) - before,
  };
}

function median(values: readonly number[]): number {
  return medianOf(values) ?? Number.NaN;
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
  source.pipe(stream);
});
`;
