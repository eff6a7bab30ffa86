/**
 * New streams of a program through its session manager, beside new channels of `ssh -L`: the same program opens, has one octet there and back
 * and closes, one at a time and sixteen at a time, in turns. The manager has a warm session, and ssh its connection. And for how long a stream is silent
 * when the manager is killed.
 * @module
 */
import { once } from "node:events";
import { mkdir } from "node:fs/promises";
import { type AddressInfo, connect as connectSocket, createServer } from "node:net";
import { join } from "node:path";
import type { Duplex } from "node:stream";
import { setTimeout as pause } from "node:timers/promises";
import { connect, ManagerClient } from "../src/client/index.ts";
import { COMMAND, RUNTIME, startServer } from "./fived.ts";
import { PEERS } from "./peers.ts";
import { run } from "./processes.ts";

const ROUNDS = 10;
/** Seconds of one turn. */
const TURN_SECONDS = 1.5;
const AT_ONCE = [1, 16];

/** A way to the service that echoes, and how many streams a second it has opened, by how many at once. */
interface Way {
  readonly name: string;
  open(): Duplex;
  readonly perSecond: ReadonlyMap<number, number[]>;
}

/** Measures, and returns the report as markdown. */
export async function manager(folder: string, signal: AbortSignal): Promise<string> {
  await using stack = new AsyncDisposableStack();
  const echo = createServer({ noDelay: true }, (socket) => {
    socket.on("error", () => socket.destroy());
    socket.pipe(socket);
  }).listen(0, "127.0.0.1");
  await once(echo, "listening");
  stack.defer(() => void echo.close());
  const echoPort = (echo.address() as AddressInfo).port;

  const services = { echo: { to: `tcp://127.0.0.1:${echoPort}`, allow: ["anyone"] } };
  const more = { sessions: { detach: { anonymous: 4, attaches: 1_000 } } }; // as who is known has it
  const server = await startServer(folder, { services, env: {}, signal, more });
  stack.use(server.process);
  const run0700 = join(folder, "run");
  await mkdir(run0700, { mode: 0o700 });
  // This process is the program, and finds its manager and its pins where any program finds them.
  const env = {
    XDG_CONFIG_HOME: join(folder, "config"),
    XDG_STATE_HOME: join(folder, "client-state"),
    FIVED_MANAGER: join(run0700, "manager.sock"),
  };
  Object.assign(process.env, env);
  const fived = (...args: readonly string[]) => run(RUNTIME, [COMMAND, ...args], { env: { ...process.env, ...env } });
  stack.defer(async () => void (await fived("down")));
  await fived("list", "-o", "StrictHostKeyChecking=accept-new", `127.0.0.1:${server.port}`);

  const ssh = PEERS.find(({ name }) => name === "ssh");
  if (ssh === undefined || ssh.missing() !== undefined)
    throw new Error("Cannot measure beside OpenSSH: it is not here");
  const tunnel = stack.use(
    await ssh.start({ folder, backEnds: { ...NO_BACK_ENDS, bulk: echoPort, echo: echoPort }, signal }),
  );

  const ways: readonly Way[] = [
    {
      name: "fived, a stream through the manager",
      open: () => connect(`127.0.0.1:${server.port}`, "echo"),
      perSecond: new Map(),
    },
    {
      name: "OpenSSH, a channel of ssh -L",
      open: () => connectSocket({ port: tunnel.echoPort, host: "127.0.0.1", noDelay: true }),
      perSecond: new Map(),
    },
  ].map((way) => ({ ...way, perSecond: new Map(AT_ONCE.map((atOnce) => [atOnce, []])) }));
  for (let round = -2; round < ROUNDS; round++)
    for (const atOnce of AT_ONCE)
      for (const way of ways) {
        signal.throwIfAborted();
        const perSecond = await rate(way, atOnce);
        if (round >= 0) way.perSecond.get(atOnce)?.push(perSecond);
      }
  const silences: number[] = [];
  for (let round = -1; round < ROUNDS; round++) {
    signal.throwIfAborted();
    const ms = await silence(`127.0.0.1:${server.port}`, env.FIVED_MANAGER);
    if (round >= 0) silences.push(ms);
  }
  return `${report(ways)}
A stream of the program is silent for ${spread(silences)} ms when its manager is killed: until the next octet was there and back.
`;
}

/** Milliseconds from the end of the manager to an answer to what was said behind it. */
async function silence(address: string, socket: string): Promise<number> {
  const stream = connect(address, "echo");
  const echoes = async (): Promise<void> => {
    stream.write("x");
    await once(stream, "data");
  };
  await echoes();
  await pause(200); // its ticket is kept
  const manager = await ManagerClient.connect(socket);
  if (manager === undefined) throw new Error("There is no manager to be killed");
  process.kill(manager.pid, "SIGKILL");
  const began = performance.now();
  await echoes();
  const ms = performance.now() - began;
  stream.destroy();
  return ms;
}

function spread(values: readonly number[]): string {
  const sorted = [...values].sort((a, b) => a - b);
  const at = (part: number): string => (sorted[Math.floor((sorted.length - 1) * part)] ?? Number.NaN).toFixed(0);
  return `${at(0.5)} (${at(0)} to ${at(1)})`;
}

const NO_BACK_ENDS = { [Symbol.asyncDispose]: async () => {} };

/** Streams opened a second, so many at a time. */
async function rate(way: Way, atOnce: number): Promise<number> {
  const until = performance.now() + TURN_SECONDS * 1_000;
  const began = performance.now();
  let opened = 0;
  const one = async (): Promise<void> => {
    for (; performance.now() < until; opened++) await echoed(way.open());
  };
  await Promise.all(Array.from({ length: atOnce }, one));
  return (opened * 1_000) / (performance.now() - began);
}

/** Has one octet there and back, and closes. */
function echoed(stream: Duplex): Promise<void> {
  return new Promise((resolve, reject) => {
    stream.once("error", reject);
    stream.once("data", () => stream.end());
    stream.once("close", resolve);
    stream.write("x");
  });
}

function report(ways: readonly Way[]): string {
  const rows = ways.map(({ name, perSecond }) => {
    const cells = AT_ONCE.map((atOnce) => spread(perSecond.get(atOnce) ?? []));
    return `| ${[name, ...cells].join(" | ")} |`;
  });
  return `| new streams a second, median of ${ROUNDS} | ${AT_ONCE.map((atOnce) => `${atOnce} at once`).join(" | ")} |
|---|${AT_ONCE.map(() => "---").join("|")}|
${rows.join("\n")}
`;
}
