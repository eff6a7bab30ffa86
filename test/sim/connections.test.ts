/**
 * A session with no, one, two and three connections that come, go, stall and lie about being alive: every stream gets all its octets once
 * and in order, and streams do not wait for one another.
 * @module
 */
import assert from "node:assert/strict";
import { Code } from "../../src/wire/index.ts";
import { PLAIN, type Plan } from "./application.ts";
import { QUICK } from "./link.ts";
import { during, effort, Random, seededTest } from "./seed.ts";
import { type Link, World } from "./world.ts";

const MINUTE = 60_000;

function randomPlan(random: Random, salt: number): Plan {
  const plan = {
    ...PLAIN,
    salt,
    up: random.chance(0.8) ? random.between(0, 5_000) : random.between(0, 400_000),
    down: random.chance(0.8) ? random.between(0, 5_000) : random.between(0, 400_000),
    write: random.pick([1, 10, 1_000, 16_384, 65_512]),
    lend: random.chance(0.5),
    readDelayMs: random.pick([0, 0, 1, 50]),
    writeDelayMs: random.pick([0, 0, 1, 30]),
  };
  // Octet by octet and slowly would take all day.
  const write = plan.up + plan.down > 20_000 ? Math.max(plan.write, 10_000) : plan.write;
  if (random.chance(0.1)) return { ...plan, write, exits: true };
  if (random.chance(0.85)) return { ...plan, write };
  const by = random.pick(["opener", "acceptor"] as const);
  return { ...plan, write, reset: { by, after: random.between(0, by === "opener" ? plan.down : plan.up) } };
}

function randomLink(random: Random) {
  return {
    latencyMs: random.pick([0, 1, 10, 100, 500]),
    bytesPerMs: random.pick([100, 1_000, 12_500]),
    queueBytes: random.pick([1_000, 30_000, 262_144]),
    segmentBytes: random.pick([1_460, 16_384, 65_536]),
  };
}

/** One end wants a stream somewhere, or a connection for itself. */
function wish(world: World, alive: readonly Link[], random: Random): void {
  const link = alive.length === 0 ? undefined : random.pick(alive);
  const end = random.pick([world.client, world.server]);
  if (link === undefined || !end.has(link.id)) return;
  const { session, clock } = end;
  for (let wishes = random.between(0, 3); wishes > 0; wishes--) {
    if (random.chance(0.7)) session.pin(random.between(1, 8), random.chance(0.6) ? link.id : undefined, clock.now);
    else session.carry(link.id, random.chance(0.5), clock.now);
  }
  end.work();
}

/** Connections come and go for a while; then one good one stays. */
function live(random: Random): World {
  const world = new World(random);
  for (let streams = random.between(1, 8); streams > 0; streams--) {
    const plan = randomPlan(random, streams);
    world.clock.after(random.between(0, 2_000), () => world.open(plan));
  }
  for (let streams = random.between(0, 3); streams > 0; streams--) {
    const plan = randomPlan(random, 100 + streams);
    world.clock.after(random.between(0, 2_000), () => world.server.application.open(plan));
  }
  const alive: Link[] = [];
  for (let steps = random.between(1, 12); steps > 0; steps--) {
    if (alive.length < 3 && random.chance(0.6)) alive.push(world.connect(randomLink(random)));
    else if (alive.length > 0) {
      const link = alive.splice(random.between(0, alive.length - 1), 1)[0];
      if (link !== undefined)
        world.cut(link, {
          late: random.chance(0.5),
          clientMs: random.pick([0, 0, 10, 1_000, Number.POSITIVE_INFINITY]),
          serverMs: random.pick([0, 0, 10, 1_000, Number.POSITIVE_INFINITY]),
        });
    }
    wish(world, alive, random);
    world.run(random.between(0, 800));
  }
  world.connect({ latencyMs: 5 });
  return world;
}

seededTest(
  `${80 * effort} lives of sessions whose connections come and go: nothing lost, nothing doubled, order kept`,
  (random) => {
    for (let round = 0; round < 80 * effort; round++) {
      const start = random.between(0, 2 ** 30);
      // A connection that died unnoticed may take two minutes to be found out at either end.
      during(`life ${round}, Random(${start})`, () => live(new Random(start)).settle(20 * MINUTE));
    }
  },
);

seededTest("what is pinned goes over its connection, both ways, and everything else over the other", (random) => {
  const world = new World(random);
  const [fat, quick] = [world.connect({ latencyMs: 30 }), world.connect({ latencyMs: 3 })];
  world.open({ ...PLAIN, up: 1_000_000, down: 1_000_000 }, { ...PLAIN, salt: 2, up: 200_000, down: 200_000 });
  world.client.session.carry(quick.id, false, world.clock.now);
  world.client.session.pin(3, quick.id, world.clock.now);
  world.client.work();
  world.settle();
  for (const direction of ["up", "down"] as const) {
    assert.ok(Math.abs(quick[direction].arrived - 200_000) < 40_000, `${direction} ${quick[direction].arrived}`);
    assert.ok(Math.abs(fat[direction].arrived - 1_000_000) < 40_000, `${direction} ${fat[direction].arrived}`);
  }
});

seededTest(
  "a client that knows of a loss before the server does says so: what was lost comes within a round trip",
  (random) => {
    const world = new World(random);
    const [dying, other] = [world.connect({ latencyMs: 10 }), world.connect({ latencyMs: 10 })];
    world.open({ ...PLAIN, down: 2_000_000, write: 16_384 });
    world.run(50);
    world.cut(dying, { clientMs: Number.POSITIVE_INFINITY, serverMs: Number.POSITIVE_INFINITY });
    world.run(5);
    const before = world.client.application.received;
    world.client.session.alone(other.id, world.clock.now);
    world.client.work();
    assert.ok(!world.client.has(dying.id));
    world.run(60); // a round trip, and what stands in front of it in the other's queue: 21 ms, and a segment
    assert.ok(!world.server.has(dying.id) && world.server.has(other.id));
    assert.ok(world.client.application.received > before);
    world.settle();
  },
);

seededTest("two connections of 20 and 10 Mbit/s carry one download at nine tenths of 30", (random) => {
  const world = new World(random);
  world.connect({ latencyMs: 14, bytesPerMs: 2_500 });
  world.connect({ latencyMs: 14, bytesPerMs: 1_250 });
  const octets = 20_000_000;
  world.open({ ...PLAIN, down: octets, write: 65_512 });
  const start = world.clock.now;
  world.settle();
  const perMs = octets / (world.clock.now - start);
  assert.ok(perMs > 0.9 * 3_750, `${Math.round(perMs)} octets a millisecond`);
});

seededTest("D23 acknowledgements lost with one of two connections are repeated on the other, at once", (random) => {
  const world = new World(random);
  const first = world.connect({ latencyMs: 50 });
  world.connect({ latencyMs: 50 });
  world.run(500);
  world.open({ ...PLAIN, up: 300_000, down: 10 });
  // Let the server receive all, and what it says of it die under way.
  world.clock.run(MINUTE, () => world.server.application.received === 300_000);
  world.cut(first);
  world.run(150);
  const { sent, acknowledged } = world.client.session.positions;
  assert.equal(acknowledged, sent);
  world.settle(1_000);
});

seededTest(
  "D23 an acknowledgement of the last frames that dies with the only connection is repeated on the next",
  (random) => {
    const world = new World(random);
    const first = world.connect({ latencyMs: 50 });
    world.open({ ...PLAIN, up: 100_000, down: 0 });
    world.clock.run(MINUTE, () => world.server.application.received === 100_000);
    world.run(1);
    world.cut(first);
    assert.ok(world.client.session.positions.acknowledged < world.client.session.positions.sent);
    world.connect();
    world.settle(1_000);
  },
);

seededTest("D23 a full log goes on after the connection died with the acknowledgement that made room", (random) => {
  const world = new World(random);
  let link = world.connect({ latencyMs: 20 });
  world.open({ ...PLAIN, up: 5_000_000, down: 0, write: 65_512 });
  for (let cuts = 0; cuts < 20; cuts++) {
    world.run(random.between(20, 150));
    world.cut(link);
    world.run(5);
    link = world.connect({ latencyMs: 20 });
  }
  world.settle(5_000);
});

seededTest("D24 two connections, one of them 500 ms behind: order kept, and nothing is held without end", (random) => {
  for (const plans of [1, 6]) {
    const world = new World(random);
    world.connect({ latencyMs: 5, bytesPerMs: 5_000 });
    world.connect({ latencyMs: 500, bytesPerMs: 5_000 });
    for (let stream = 0; stream < plans; stream++)
      world.open({ ...PLAIN, up: 4_200_000 / plans, down: 4_200_000 / plans, write: 65_512, salt: stream });
    world.settle();
    const [quick, slow] = world.links;
    assert.ok(quick !== undefined && slow !== undefined);
    assert.ok(quick.up.arrived > 100_000 && quick.up.arrived + slow.up.arrived > 4_000_000);
  }
});

seededTest(
  "D24 small frames over three connections of very different speed: never more gaps than the peer bears",
  (random) => {
    const world = new World(random);
    for (const latencyMs of [1, 200, 700])
      world.connect({ latencyMs, bytesPerMs: 50, queueBytes: 500, segmentBytes: 100 });
    for (let stream = 0; stream < 5; stream++)
      world.open({ ...PLAIN, up: 30_000, down: 30_000, write: 40, salt: stream, lend: stream % 2 === 0 });
    world.settle(5 * MINUTE);
  },
);

seededTest("D24 for ten minutes there is always some gap, and no single one is old: that is no fault", (random) => {
  const world = new World(random, { client: { windowBytesMax: 65_536, logWindowBytesMax: 1_048_576 } });
  for (const latencyMs of [5, 400])
    world.connect({ latencyMs, bytesPerMs: 20, queueBytes: 6_000, segmentBytes: 3_000 });
  world.open({ ...PLAIN, up: 12_000_000, down: 0, write: 3_000 });
  world.run(10 * MINUTE);
  assert.ok(world.server.application.received > 10_000_000, `${world.server.application.received}`);
});

seededTest(
  "of two connections one falls silent: when the other answers, what the first carried goes over that one, within seconds",
  (random) => {
    for (const spoken of ["up", "down"] as const) {
      const world = new World(random);
      const first = world.connect();
      world.connect();
      world.open({ ...PLAIN, [spoken]: 600_000, salt: 1, write: 60_000, writeDelayMs: 200 });
      world.open({ ...PLAIN, up: 2_000, down: 2_000, salt: 2, write: 100, writeDelayMs: 50, lend: false });
      world.run(300);
      // From now on the first connection takes octets and brings none, and neither end is told.
      world.cut(first, { clientMs: Number.POSITIVE_INFINITY, serverMs: Number.POSITIVE_INFINITY });
      world.settle(8_000);
      assert.ok(world.client.has(first.id), "nobody has given the connection up yet");
    }
  },
);

seededTest("an idle session with two connections is not kept awake by doubts", (random) => {
  const world = new World(random);
  world.connect();
  world.connect();
  world.open({ ...PLAIN, up: 100, down: 100 });
  world.settle();
  world.run(1_000);
  assert.ok(world.client.session.deadline > world.clock.now + 10_000);
  assert.ok(world.server.session.deadline > world.clock.now + 10_000);
});

seededTest(
  "one of two connections dies without a word: the session heals within two minutes, and the other one lives",
  (random) => {
    for (const victim of [0, 1]) {
      const world = new World(random);
      world.connect();
      world.connect();
      world.open({ ...PLAIN, up: 20_000_000, down: 20_000_000, write: 65_512 });
      world.run(50);
      const dying = world.links[victim];
      const other = world.links[1 - victim];
      assert.ok(dying !== undefined && other !== undefined);
      world.cut(dying, { clientMs: Number.POSITIVE_INFINITY, serverMs: Number.POSITIVE_INFINITY });
      world.settle(2.5 * MINUTE);
      world.run(Math.max(0, 2.5 * MINUTE - world.clock.now));
      assert.ok(world.client.has(other.id) && world.server.has(other.id));
      assert.ok(!world.client.has(dying.id) && !world.server.has(dying.id));
    }
  },
);

seededTest(
  "single octets beside a connection that died without a word are never more frames than the peer can hold",
  (random) => {
    const world = new World(random);
    const dying = world.connect();
    const other = world.connect();
    world.open({ ...PLAIN, up: 10_000, down: 10_000, write: 1_000, writeDelayMs: 1, salt: 1 });
    world.run(6);
    world.cut(dying, { clientMs: Number.POSITIVE_INFINITY, serverMs: Number.POSITIVE_INFINITY });
    for (let salt = 2; salt < 10; salt++) world.open({ ...PLAIN, up: 5_000, down: 5_000, write: 1, salt });
    world.settle(5 * MINUTE);
    assert.ok(world.client.has(other.id) && world.server.has(other.id));
  },
);

seededTest(
  "a session without a connection waits as long as its owner likes: no gap, no stream and no log grows old meanwhile",
  (random) => {
    const world = new World(random);
    const first = world.connect();
    const second = world.connect({ latencyMs: 300 });
    world.open({ ...PLAIN, up: 3_000_000, down: 3_000_000, write: 65_512 });
    world.open({ ...PLAIN, up: 10, down: 200_000, salt: 2, readDelayMs: 20 });
    world.run(200); // long enough for gaps
    world.cut(first);
    world.cut(second);
    world.run(60 * MINUTE);
    world.connect();
    world.settle();
    assert.equal(world.client.application.finished, 2);
  },
);

seededTest(
  "D15 the old connection is superseded: what it still brings is not read, and nothing is lost or doubled",
  (random) => {
    for (let round = 0; round < 20; round++) {
      const world = new World(random);
      let old = world.connect({ latencyMs: random.between(1, 50) });
      world.open({ ...PLAIN, up: 2_000_000, down: 2_000_000, write: 65_512 });
      for (let roams = 0; roams < 5; roams++) {
        world.run(random.between(5, 80));
        const { id } = old;
        old = world.connect({ latencyMs: random.between(1, 50) });
        world.server.session.disconnect(id, Code.SUPERSEDED, "replaced", world.clock.now);
        world.server.work();
        assert.ok(!world.server.has(id));
      }
      world.settle();
    }
  },
);

seededTest("D13 two connections replace one another at once: one survives, data exactly once both ways", (random) => {
  for (let round = 0; round < 100 * effort; round++) {
    const world = new World(random);
    const first = world.connect({ latencyMs: 10 });
    world.open({ ...PLAIN, up: 30_000, down: 30_000, write: 1_000 });
    world.run(random.between(0, 40));
    world.cut(first, { late: random.chance(0.5), clientMs: random.pick([0, 100]), serverMs: random.pick([0, 100]) });
    const rivals = [
      world.connect({ latencyMs: random.between(0, 30) }),
      world.connect({ latencyMs: random.between(0, 30) }),
    ];
    world.run(random.between(0, 40));
    const loser = random.pick(rivals);
    world.server.session.disconnect(loser.id, Code.SUPERSEDED, "replaced", world.clock.now);
    world.server.work();
    world.settle();
    assert.ok(world.client.events.every(({ type }) => type !== "ended"));
  }
});

seededTest("a second connection that comes when the first has been silent for 59 s is given its own time", (random) => {
  const world = new World(random);
  const first = world.connect({ bytesPerMs: QUICK.bytesPerMs });
  world.open({ ...PLAIN, up: 100_000, down: 0, writeDelayMs: 1 });
  world.run(3);
  world.cut(first, { clientMs: Number.POSITIVE_INFINITY, serverMs: Number.POSITIVE_INFINITY });
  world.run(59_000);
  const second = world.connect({ latencyMs: 2_000 });
  world.run(5_000);
  assert.ok(world.client.has(second.id) && world.server.has(second.id));
  world.settle(3 * MINUTE);
});
