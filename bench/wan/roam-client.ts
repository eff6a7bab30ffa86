/**
 * The client of `roam.ts`: has one stream open all the time and notes when its octets come. A line on standard input is a moment, in milliseconds since
 * 1970; it is answered with the moment at which the first octet behind it came. `counted` is answered with the octets that have come. What is
 * lost or comes twice ends it.
 * @module
 */
import { createInterface } from "node:readline";
import { connect } from "../../src/client/index.ts";

const [address = "", knownHosts = ""] = process.argv.slice(2);
/** Older moments are not asked for. */
const MOMENTS_MAX = 100_000;

const session = await connect(address, { knownHosts, strictHostKeyChecking: "accept-new" });
const stream = session.open("ticks");
const moments: number[] = [];
let heard = 0;
let waiting: { readonly from: number; readonly resolve: (moment: number) => void } | undefined;
stream.on("data", (octets: Buffer) => {
  const now = performance.timeOrigin + performance.now();
  for (const octet of octets) {
    const wanted = Number((BigInt(Math.floor(heard / 8)) >> BigInt(8 * (7 - (heard % 8)))) & 0xffn);
    if (octet !== wanted) throw new Error(`octet ${heard} is ${octet} and not ${wanted}`);
    heard++;
  }
  moments.push(now);
  if (moments.length > MOMENTS_MAX) moments.splice(0, MOMENTS_MAX / 2);
  if (waiting !== undefined && now > waiting.from) {
    waiting.resolve(now);
    waiting = undefined;
  }
});
stream.once("close", () => {
  throw stream.errored ?? new Error("the stream has ended");
});

process.stdout.write("ready\n");
for await (const line of createInterface({ input: process.stdin })) {
  if (line === "counted") {
    process.stdout.write(`${heard}\n`);
    continue;
  }
  const from = Number(line);
  const at = moments.find((moment) => moment > from);
  const moment = at ?? (await new Promise<number>((resolve) => (waiting = { from, resolve })));
  process.stdout.write(`${moment}\n`);
}
process.exit();
