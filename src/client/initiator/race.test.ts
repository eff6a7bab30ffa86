import assert from "node:assert/strict";
import test from "node:test";
import type { Endpoint } from "./endpoints.ts";
import { RaceLost, race } from "./race.ts";

/** What a test opens. */
class Opened {
  destroyed = false;
  readonly host: string;
  constructor(host: string) {
    this.host = host;
  }
  destroy(): void {
    this.destroyed = true;
  }
}

async function* endpoints(...hosts: readonly string[]): AsyncGenerator<Endpoint> {
  for (const host of hosts) yield { host, port: 1 };
}

/** Waits as long as nobody is done with it. */
function never(signal: AbortSignal): Promise<Opened> {
  return new Promise((_, reject) => signal.addEventListener("abort", () => reject(signal.reason), { once: true }));
}

/** What needs no time has happened. */
async function settled(): Promise<void> {
  for (let turn = 0; turn < 3; turn++) await new Promise(setImmediate);
}

const forever = new AbortController().signal;

test("S09 an attempt that hangs is overtaken after a quarter of a second, and one that fails at once", async (t) => {
  t.mock.timers.enable({ apis: ["setTimeout"] });
  const begun: string[] = [];
  const open = async ({ host }: Endpoint, signal: AbortSignal): Promise<Opened> => {
    begun.push(host);
    if (host === "hangs") return await never(signal);
    if (host === "fails") throw new Error("no");
    return new Opened(host);
  };
  const racing = race(endpoints("hangs", "fails", "works", "unneeded"), open, forever);
  await settled();
  t.mock.timers.tick(249);
  await settled();
  assert.deepEqual(begun, ["hangs"], "it has its time");
  t.mock.timers.tick(1);
  assert.equal((await racing).host, "works");
  assert.deepEqual(begun, ["hangs", "fails", "works"]);
});

test("what is opened too late is closed", async () => {
  const late = Promise.withResolvers<Opened>();
  const open = async ({ host }: Endpoint): Promise<Opened> => (host === "slow" ? await late.promise : new Opened(host));
  const won = await race(endpoints("slow", "quick"), open, forever);
  assert.equal(won.host, "quick");
  const loser = new Opened("slow");
  late.resolve(loser);
  await new Promise(setImmediate);
  assert.ok(loser.destroyed);
  assert.ok(!won.destroyed);
});

test("when all have failed, the error has each of them", async () => {
  const open = ({ host }: Endpoint): Promise<Opened> => Promise.reject(new Error(`not ${host}`));
  await assert.rejects(race(endpoints("one", "two"), open, forever), (error) => {
    assert.ok(error instanceof RaceLost);
    assert.deepEqual(
      error.attempts.map(({ endpoint, error: why }) => [endpoint.host, String(why)]),
      [
        ["one", "Error: not one"],
        ["two", "Error: not two"],
      ],
    );
    return true;
  });
});

test("without an endpoint the reason is why there is none; called off, it is the caller's", async () => {
  async function* none(): AsyncGenerator<Endpoint> {
    yield* [];
    throw new Error("no such name");
  }
  await assert.rejects(
    race(none(), () => never(forever), forever),
    /no such name/,
  );
  const caller = new AbortController();
  const racing = race(endpoints("hangs"), (_, signal) => never(signal), caller.signal);
  caller.abort(new Error("enough"));
  await assert.rejects(racing, /enough/);
  await assert.rejects(
    race(endpoints("any"), (_, signal) => never(signal), caller.signal),
    /enough/,
  );
});

test("an attempt goes on when the names behind it fail", async () => {
  const first = Promise.withResolvers<Opened>();
  async function* broken(): AsyncGenerator<Endpoint> {
    yield { host: "first", port: 1 };
    throw new Error("the name server is gone");
  }
  const racing = race(broken(), () => first.promise, forever);
  await settled();
  first.resolve(new Opened("first"));
  assert.equal((await racing).host, "first");
});
