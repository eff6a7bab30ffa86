/**
 * Random commands to two honest sessions and the connections between them. However they come, in the end every stream has all its octets
 * once and in order. What fails is shrunk to the commands that matter.
 * @module
 */
import assert from "node:assert/strict";
import test from "node:test";
import fc from "fast-check";
import { Code } from "../../src/wire/index.ts";
import { PLAIN, type Plan } from "../sim/application.ts";
import { effort, Random, seed } from "../sim/seed.ts";
import { type Link, type Loss, World } from "../sim/world.ts";

const MINUTE = 60_000;

/** What a command may rely on: connections that are up, in the order they came. */
interface Model {
  up: Link[];
  streams: number;
}

interface Real {
  readonly world: World;
}

type Command = fc.Command<Model, Real>;

const plan: fc.Arbitrary<Plan> = fc
  .record({
    up: fc.oneof(fc.nat(100), fc.nat(200_000)),
    down: fc.oneof(fc.nat(100), fc.nat(200_000)),
    write: fc.constantFrom(1_000, 16_384, 65_512),
    lend: fc.boolean(),
    readDelayMs: fc.constantFrom(0, 0, 40),
    writeDelayMs: fc.constantFrom(0, 0, 25),
    exits: fc.option(fc.constant(true as const), { freq: 8 }),
    reset: fc.option(
      fc.record({ by: fc.constantFrom("opener" as const, "acceptor" as const), after: fc.nat(50_000) }),
      {
        freq: 4,
      },
    ),
  })
  .map(({ reset, exits, ...rest }) => ({
    ...PLAIN,
    ...rest,
    ...(exits === null ? {} : { exits }),
    ...(reset === null || exits !== null ? {} : { reset }),
  }));

const opens = fc.tuple(plan, fc.boolean()).map(
  ([plan, atServer]): Command => ({
    check: ({ streams }) => streams < 40,
    run(model, { world }) {
      const salt = ++model.streams;
      (atServer ? world.server : world.client).application.open({ ...plan, salt });
      world.check();
    },
    toString: () => `open(${JSON.stringify(plan)}, ${atServer ? "server" : "client"})`,
  }),
);

const connects = fc
  .record({
    latencyMs: fc.constantFrom(0, 2, 40, 300),
    bytesPerMs: fc.constantFrom(200, 12_500),
    queueBytes: fc.constantFrom(10, 20_000, 262_144),
    segmentBytes: fc.constantFrom(30, 1_460, 65_536),
  })
  .map(
    (options): Command => ({
      check: ({ up }) => up.length < 4,
      run(model, { world }) {
        model.up.push(world.connect(options));
        world.check();
      },
      toString: () => `connect(${JSON.stringify(options)})`,
    }),
  );

const noticed = fc.constantFrom(0, 0, 5, 500, Number.POSITIVE_INFINITY);
const cuts = fc.record({ late: fc.boolean(), clientMs: noticed, serverMs: noticed, which: fc.nat(3) }).map(
  ({ which, ...loss }): Command => ({
    check: ({ up }) => up.length > 0,
    run(model, { world }) {
      const [link] = model.up.splice(which % model.up.length, 1);
      if (link !== undefined) world.cut(link, loss satisfies Loss);
      world.check();
    },
    toString: () => `cut(${which}, ${JSON.stringify(loss)})`,
  }),
);

const closes = fc.tuple(fc.nat(3), fc.boolean()).map(
  ([which, byServer]): Command => ({
    check: ({ up }) => up.length > 0,
    run(model, { world }) {
      const [link] = model.up.splice(which % model.up.length, 1);
      const end = byServer ? world.server : world.client;
      if (link !== undefined) end.session.disconnect(link.id, Code.SUPERSEDED, "replaced", world.clock.now);
      end.work();
      world.check();
    },
    toString: () => `close(${which}, ${byServer ? "server" : "client"})`,
  }),
);

const passes = fc.oneof(fc.nat(50), fc.nat(1_000), fc.constantFrom(45_000, 130_000)).map(
  (ms): Command => ({
    check: () => true,
    run(_, { world }) {
      world.run(ms);
    },
    toString: () => `pass(${ms})`,
  }),
);

test("whatever happens to its connections, a session delivers every octet once and in order", () => {
  fc.assert(
    fc.property(
      fc.integer(),
      fc.commands([opens, opens, connects, connects, cuts, closes, passes, passes, passes], {
        maxCommands: 60,
        size: "max",
      }),
      (dice, commands) => {
        const world = new World(new Random(dice));
        fc.modelRun(() => ({ model: { up: [], streams: 0 }, real: { world } }), commands);
        // Connections that died unnoticed are found out in two minutes; another one stays.
        world.connect({ latencyMs: 5 });
        world.settle(20 * MINUTE);
        for (const end of [world.client, world.server]) assert.equal(end.session.ended, undefined);
      },
    ),
    { seed, numRuns: 100 * effort },
  );
});
