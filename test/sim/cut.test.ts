/**
 * A connection is lost at every possible octet of a recorded exchange; the session goes on over another.
 * @module
 */
import assert from "node:assert/strict";
import { PLAIN, type Plan } from "./application.ts";
import { during, Random, seededTest } from "./seed.ts";
import { type Loss, World } from "./world.ts";

/** Little data, but everything that can be in a log: opens, data both ways, half-closes, a reset, credit, and acknowledgements. */
const EXCHANGE: readonly Plan[] = [
  { ...PLAIN, up: 60, down: 40, salt: 1, write: 20, lend: false },
  { ...PLAIN, up: 0, down: 150, salt: 2, write: 50, writeDelayMs: 30 },
  { ...PLAIN, up: 100, down: 100, salt: 3, write: 40, writeDelayMs: 20, reset: { by: "acceptor", after: 80 } },
];

function begin(): World {
  const world = new World(new Random(7));
  world.connect({ latencyMs: 10 });
  world.open(...EXCHANGE);
  return world;
}

/** Octets of each direction in the undisturbed exchange. */
function lengths(): { up: number; down: number } {
  const world = begin();
  world.settle();
  const [link] = world.links;
  assert.ok(link !== undefined);
  return { up: link.up.arrived, down: link.down.arrived };
}

function cutEverywhere(loss: Loss, reconnectMs: number): void {
  const recorded = lengths();
  assert.ok(recorded.up > 500 && recorded.down > 500, JSON.stringify(recorded));
  for (const direction of ["up", "down"] as const) {
    for (let octets = 0; octets <= recorded[direction]; octets++) {
      const world = begin();
      const [link] = world.links;
      assert.ok(link !== undefined);
      during(`the cut ${direction} behind ${octets} octets`, () => {
        world.cutAfter(link, direction, octets, loss);
        const { onCut } = link[direction];
        link[direction].onCut = () => {
          onCut();
          world.clock.after(reconnectMs, () => world.connect({ latencyMs: 10 }));
        };
        world.settle(200_000);
        for (const { application } of [world.client, world.server]) {
          // The third may have come to its end before the reset.
          assert.ok(application.finished >= 2);
          assert.equal(application.finished + application.wasReset, 3);
        }
      });
    }
  }
}

seededTest("cut at every octet, noticed at once, and attached again: nothing lost, nothing doubled", () => {
  cutEverywhere({}, 10);
});

seededTest(
  "cut at every octet, the server notices late and still reads what is under way while the session goes on elsewhere",
  () => {
    cutEverywhere({ late: true, clientMs: 0, serverMs: 500 }, 5);
  },
);

seededTest("cut at every octet, the client notices late", () => {
  cutEverywhere({ late: true, clientMs: 300, serverMs: 0 }, 5);
});

seededTest(
  "M18 the part of a frame that had come when its connection died does not count: the frame comes whole again",
  (random) => {
    const world = new World(random);
    const link = world.connect();
    world.open({ ...PLAIN, up: 60_000, down: 0, write: 60_000 });
    world.cutAfter(link, "up", 30_000);
    world.run(100);
    // Before SETTINGS were heard a frame has 16,360 octets at most: one whole frame has come, and a good part of the next.
    assert.equal(world.server.application.received, 16_360);
    assert.ok(world.server.session.positions.received < 20_000);
    world.connect();
    world.settle();
    assert.equal(world.server.application.received, 60_000);
  },
);
