/**
 * The client's end of the WAN benchmark, a process in the client's namespace: takes orders from its parent and says what it measured, so
 * that no start of a process is in a figure. Ends when its parent is gone.
 * @module
 */
import { once } from "node:events";
import { setTimeout as sleep } from "node:timers/promises";
import { ANSWER_BYTES, type Order, type Outcome } from "./site.ts";
import { type Conversation, type Way, waysOf } from "./ways.ts";

/** Bulk streams beside which an echo is timed. */
const BESIDE_STREAMS = 4;
/** Between two echoes: as a person or a program that answers. */
const ECHO_PAUSE_MS = 5;
/** An echo that takes longer is lost, and the measurement with it. */
const ECHO_TIMEOUT_MS = 10_000;
/** More than a bulk stream can carry while it is measured. */
const ENDLESS_BYTES = 1e12;

const [, , folder] = process.argv;
if (folder === undefined || process.send === undefined)
  throw new Error("Cannot run by itself: it is bench/wan/run.ts's");

await using ways = waysOf(folder);

process.on("message", (order: Order) => {
  obey(order).then(say, (error: unknown) => say({ type: "failed", message: messageOf(error) }));
});
const disconnected = once(process, "disconnect");
say({ type: "ready" });
await disconnected;

function say(outcome: Outcome): void {
  if (process.connected) process.send?.(outcome);
}

async function obey(order: Order): Promise<Outcome> {
  const way = ways.way[order.way];
  switch (order.type) {
    case "time": {
      const time = order.warm ? way.warm : way.cold;
      if (time === undefined) throw new Error(`${order.way} is not measured like that`);
      return { type: "timed", times: await time() };
    }
    case "echo":
      return await echo(way, order.leadSeconds, order.seconds);
  }
}

async function echo(way: Way, leadSeconds: number, seconds: number): Promise<Outcome> {
  await using stack = new AsyncDisposableStack();
  async function open(line: string): Promise<Conversation> {
    if (way.converse === undefined) throw new Error("there are no conversations on it");
    const conversation = stack.adopt(await way.converse(), (each) => each.close());
    conversation.to.write(line);
    return conversation;
  }
  let besideBytes = 0;
  for (let stream = 0; stream < BESIDE_STREAMS; stream++) {
    const { from } = await open(`${ENDLESS_BYTES}\n`);
    from.on("data", (chunk: Uint8Array) => {
      besideBytes += chunk.length;
    });
  }
  const { from, to } = await open("echo\n");
  await sleep(leadSeconds * 1_000);
  const before = besideBytes;
  const echoesMs: number[] = [];
  const ends = performance.now() + seconds * 1_000;
  while (performance.now() < ends) {
    const began = performance.now();
    const echoed = once(from, "data", { signal: AbortSignal.timeout(ECHO_TIMEOUT_MS) });
    to.write("x");
    await echoed;
    echoesMs.push(performance.now() - began);
    await sleep(ECHO_PAUSE_MS);
  }
  if (besideBytes - before < ANSWER_BYTES) throw new Error("the streams beside it carried next to nothing");
  return { type: "echoed", echoesMs, besideBytes: besideBytes - before };
}

function messageOf(error: unknown): string {
  if (!(error instanceof Error)) return String(error);
  return error.cause instanceof Error ? `${error.message}: ${error.cause.message}` : error.message;
}
