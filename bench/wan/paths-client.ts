/**
 * The client of `paths.ts`, one session all the time. Orders come on standard input, a line each; each is answered with a line, a number:
 * ```
 *   add ADDRESS [reserved]    another connection, from that address
 *   remove                    leaves it
 *   download                  milliseconds of one
 *   echo [beside]             median milliseconds of echoes on the other connection, if there is one; beside a download on the first
 *   ticks                     opens the stream that ticks
 *   next MOMENT               milliseconds from that moment, of 1970, to the next tick
 * ```
 * @module
 */
import { once } from "node:events";
import { createInterface } from "node:readline";
import { setTimeout as sleep } from "node:timers/promises";
import { connect } from "../../src/client/index.ts";

const OTHER = "other";
const ECHOES = 60;

const [address = "", knownHosts = ""] = process.argv.slice(2);
const session = await connect(address, { knownHosts, strictHostKeyChecking: "accept-new" });
const waiting = new Set<(moment: number) => void>();
let ticks: ReturnType<typeof session.open> | undefined;

async function download(path?: string): Promise<number> {
  const began = performance.now();
  const stream = session.open("zeros", path === undefined ? {} : { path });
  await once(stream.resume(), "end");
  stream.end();
  return performance.now() - began;
}

async function echo(): Promise<number> {
  const stream = session.open("echo", { path: OTHER });
  const took: number[] = [];
  for (let echoes = 0; echoes < ECHOES; echoes++) {
    const began = performance.now();
    stream.write("x");
    await once(stream, "data");
    took.push(performance.now() - began);
    await sleep(30);
  }
  stream.destroy();
  return took.sort((one, other) => one - other)[ECHOES / 2] ?? Number.NaN;
}

async function obey(order: string, words: readonly string[]): Promise<number> {
  switch (order) {
    case "add":
      await session.addPath({ name: OTHER, localAddress: words[0] ?? "", reserved: words[1] === "reserved" });
      return 0;
    case "remove":
      session.removePath(OTHER);
      return 0;
    case "download":
      return await download();
    case "echo": {
      if (words[0] !== "beside") return await echo();
      const bulk = download("main");
      await sleep(1_000);
      const median = await echo();
      await bulk;
      return median;
    }
    case "ticks":
      if (ticks === undefined) {
        ticks = session.open("ticks");
        ticks.on("data", () => {
          for (const heard of waiting) heard(performance.timeOrigin + performance.now());
        });
      }
      session.move(ticks, OTHER);
      return 0;
    case "next": {
      const from = Number(words[0]);
      const { promise, resolve } = Promise.withResolvers<number>();
      const heard = (moment: number): void => {
        if (moment > from) resolve(moment - from);
      };
      waiting.add(heard);
      const ms = await promise;
      waiting.delete(heard);
      return ms;
    }
    default:
      throw new Error(`there is no order "${order}"`);
  }
}

process.stdout.write("ready\n");
for await (const line of createInterface({ input: process.stdin })) {
  const [order = "", ...words] = line.split(" ");
  process.stdout.write(`${await obey(order, words)}\n`);
}
process.exit();
