/**
 * How fast, in virtual time: windows grow to what a path needs, who says little is not kept waiting by who says much, and nobody waits
 * for ever.
 * @module
 */
import assert from "node:assert/strict";
import { PLAIN } from "./application.ts";
import type { LinkOptions } from "./link.ts";
import { effort, type Random, seededTest } from "./seed.ts";
import { type End, World } from "./world.ts";

/** 100 Mbit/s. */
const BYTES_PER_MS = 12_500;

/** What part of the link a bulk stream fills in the second behind `fromMs`. */
function filled(random: Random, roundTripMs: number, direction: "up" | "down", fromMs: number): number {
  const world = new World(random);
  world.connect({ latencyMs: roundTripMs / 2, bytesPerMs: BYTES_PER_MS });
  world.open({ ...PLAIN, [direction]: 200_000_000, write: 65_512 });
  const receiver = direction === "up" ? world.server : world.client;
  world.run(fromMs);
  const before = receiver.application.received;
  world.run(1_000);
  return (receiver.application.received - before) / (1_000 * BYTES_PER_MS);
}

for (const roundTripMs of [1, 20, 100, 200]) {
  seededTest(
    `one stream fills 100 Mbit/s over ${roundTripMs} ms to more than 80 % within three seconds, both ways`,
    (random) => {
      for (const direction of ["up", "down"] as const) {
        const part = filled(random, roundTripMs, direction, 2_000);
        assert.ok(part > 0.8, `${direction}: ${Math.round(part * 100)} %`);
      }
    },
  );
}

seededTest(
  "a log window that is measured by acknowledgements of 50 ms grows on a long and narrow path, too",
  (random) => {
    const world = new World(random);
    // 30 Mbit/s over 600 ms: a satellite. Two megabytes are under way, and no quarter of a window comes within 50 ms.
    world.connect({ latencyMs: 300, bytesPerMs: 3_750 });
    for (let salt = 0; salt < 4; salt++) world.open({ ...PLAIN, down: 60_000_000, write: 65_512, salt });
    world.run(8_000);
    const before = world.client.application.received;
    world.run(2_000);
    const part = (world.client.application.received - before) / (2_000 * 3_750);
    assert.ok(part > 0.8, `${Math.round(part * 100)} %`);
  },
);

seededTest("windows stay within the budget: a session holds no more than it was allowed to", (random) => {
  const world = new World(random, { client: { budgetBytes: 524_288 } });
  world.connect({ latencyMs: 50, bytesPerMs: BYTES_PER_MS });
  let held = 0;
  let most = 0;
  world.client.application.onOctets = (_, octets) => {
    held += octets;
    most = Math.max(most, held);
    world.clock.after(400, () => {
      held -= octets;
    });
  };
  for (let salt = 0; salt < 6; salt++) world.open({ ...PLAIN, down: 3_000_000, write: 65_512, salt, readDelayMs: 400 });
  world.settle();
  assert.ok(most <= 524_288, `${most} octets held`);
  assert.ok(most > 100_000, `${most} octets held`);
});

/** Milliseconds that small writes take to the other end, 20 ms apart, beside bulk streams; sorted. */
function delays(random: Random, bulk: number, link: Partial<LinkOptions>, warmMs = 500): number[] {
  const world = new World(random);
  world.connect({ latencyMs: 5, bytesPerMs: BYTES_PER_MS, segmentBytes: 16_384, ...link });
  world.run(200); // both ends learn how long the path is while nothing waits on it
  for (let salt = 0; salt < bulk; salt++) world.open({ ...PLAIN, up: 100_000_000, write: 65_512, salt });
  world.run(warmMs);
  const written: number[] = [];
  const took: number[] = [];
  const chatty = 2 * bulk + 1;
  world.client.application.onWrite = (id) => void (id === chatty && written.push(world.clock.now));
  world.server.application.onOctets = (id, octets) => {
    if (id === chatty)
      for (let word = 0; word < octets / 10; word++) took.push(world.clock.now - (written.shift() ?? Number.NaN));
  };
  world.open({ ...PLAIN, up: 3_000, write: 10, writeDelayMs: 20, lend: false, salt: 99 });
  world.run(7_000);
  assert.equal(took.length, 300);
  return took.sort((a, b) => a - b);
}

seededTest(
  "an interactive stream passes four bulk ones: where little may wait, p99 is a frame's time and the latency",
  (random) => {
    const frameMs = 65_536 / BYTES_PER_MS;
    const took = delays(random, 4, { queueBytes: 16_384 });
    const p99 = took[Math.floor(took.length * 0.99)] ?? Number.NaN;
    // Before it: what may wait, one frame that was begun when there was room, and its own segment.
    assert.ok(p99 < 5 + 2 * frameMs + 16_384 / BYTES_PER_MS + 1, `p99 ${p99} ms`);
    const wide = delays(random, 4, { queueBytes: 262_144 });
    const wideP99 = wide[Math.floor(wide.length * 0.99)] ?? Number.NaN;
    assert.ok(wideP99 < 5 + (262_144 + 2 * 65_536) / BYTES_PER_MS + 1, `p99 ${wideP99} ms`);
  },
);

/** Whatever is sent waits in the network, where nobody can pass it. */
const DEEP: Partial<LinkOptions> = { queueBytes: 64 * 2 ** 20, segmentBytes: 16_384 };

seededTest("where the network has a deep buffer, bulk leaves no more in it than one round trip", (random) => {
  // 50 Mbit/s over 28 ms: the window would begin with 168 ms of it.
  const took = delays(random, 4, { ...DEEP, latencyMs: 14, bytesPerMs: 6_250 }, 3_000);
  const [p50, p99] = [took[149] ?? Number.NaN, took[296] ?? Number.NaN];
  // One way, a round trip of queue, and the frames that are begun.
  assert.ok(p50 < 14 + 28 + 5, `p50 ${p50} ms`);
  assert.ok(p99 < 14 + 28 + (2 * 65_536) / 6_250, `p99 ${p99} ms`);
});

for (const roundTripMs of [1, 28, 100, 200])
  seededTest(`a window that comes down keeps the path full, deep buffer and ${roundTripMs} ms`, (random) => {
    const world = new World(random);
    world.connect({ ...DEEP, latencyMs: roundTripMs / 2, bytesPerMs: BYTES_PER_MS });
    for (let salt = 0; salt < 4; salt++) world.open({ ...PLAIN, down: 100_000_000, write: 65_512, salt });
    world.run(4_000);
    for (let seconds = 4; seconds < 9; seconds++) {
      const before = world.client.application.received;
      world.run(1_000);
      const part = (world.client.application.received - before) / (1_000 * BYTES_PER_MS);
      assert.ok(part > 0.9, `${Math.round(part * 100)} % in the second behind ${seconds} s`);
    }
  });

seededTest("a path that has become longer has no queue of ours: it is filled again after a few looks", (random) => {
  const world = new World(random);
  const link = world.connect({ ...DEEP, latencyMs: 10, bytesPerMs: BYTES_PER_MS });
  for (let salt = 0; salt < 4; salt++) world.open({ ...PLAIN, down: 150_000_000, write: 65_512, salt });
  world.run(2_000);
  link.up.detourMs = 100;
  link.down.detourMs = 100;
  world.run(8_000);
  const before = world.client.application.received;
  world.run(10_000);
  const part = (world.client.application.received - before) / (10_000 * BYTES_PER_MS);
  assert.ok(part > 0.8, `${Math.round(part * 100)} %`);
});

seededTest("bulk streams share a connection, and none is starved", (random) => {
  const world = new World(random);
  world.connect({ latencyMs: 5, bytesPerMs: BYTES_PER_MS });
  for (let salt = 0; salt < 4; salt++) world.open({ ...PLAIN, up: 100_000_000, write: 65_512, salt });
  world.run(4_000);
  const received = [...world.server.application.conversations.values()].map((conversation) => conversation.received);
  assert.equal(received.length, 4);
  // A turn is four frames, which a stream with a small window does not fill.
  assert.ok(Math.min(...received) > 0.3 * Math.max(...received), received.join(" "));
});

seededTest("a stream whose reader sleeps does not stop the others", (random) => {
  const world = new World(random);
  world.connect({ latencyMs: 10, bytesPerMs: BYTES_PER_MS });
  world.open({ ...PLAIN, down: 10_000_000, write: 65_512, salt: 1, readDelayMs: 3_000_000 });
  world.open({ ...PLAIN, down: 20_000_000, write: 65_512, salt: 2 });
  world.run(4_000);
  assert.equal(world.client.application.finished, 1);
});

seededTest("F10 both ends fill every window before they read, over small buffers: it comes to its end", (random) => {
  const world = new World(random);
  world.connect({ latencyMs: 5, queueBytes: 65_536 });
  for (let salt = 0; salt < 12; salt++)
    world.open({ ...PLAIN, up: 1_000_000, down: 1_000_000, write: 65_512, salt, readDelayMs: 300 });
  world.settle(5 * 60_000);
  assert.equal(world.client.application.finished, 12);
});

seededTest("F10 the smallest buffers and the slowest readers there are: it comes to its end all the same", (random) => {
  const world = new World(random);
  world.connect({ latencyMs: 1, queueBytes: 1, segmentBytes: 7, bytesPerMs: 50 });
  for (let salt = 0; salt < 5; salt++)
    world.open({ ...PLAIN, up: 20_000, down: 20_000, write: 700, salt, readDelayMs: 20, lend: salt % 2 === 0 });
  world.settle(5 * 60_000);
});

seededTest("F02 what waits for a slow peer is bounded: the sources are asked to stop", (random) => {
  const world = new World(random);
  world.connect({ latencyMs: 5, bytesPerMs: 100 });
  for (let salt = 0; salt < 10; salt++) world.open({ ...PLAIN, up: 3_000_000, write: 65_512, salt });
  const bounds = (end: End): void => {
    // A log window that is not acknowledged, and for each stream one flush of frames that waits.
    assert.ok(end.mostLent < 8 * 2 ** 20 + 10 * 4 * 65_536, `${end.mostLent}`);
  };
  for (let seconds = 0; seconds < 30; seconds++) {
    world.run(1_000);
    bounds(world.client);
  }
  assert.ok(world.client.mostLent < 4 * 2 ** 20, `${world.client.mostLent}`);
});

seededTest(`both ends open, fill and close streams as fast as they can, ${effort} minutes of it`, (random) => {
  const world = new World(random);
  world.connect({ latencyMs: 1 });
  const again = (end: End, salt: number): void => {
    const up = random.between(0, 3_000);
    end.application.open({ ...PLAIN, up, down: random.between(0, 3_000), salt, write: 1_000, lend: salt % 2 === 0 });
  };
  for (let salt = 0; salt < 2_000 * effort; salt++) world.clock.after(salt * 2, () => again(world.client, salt));
  for (let salt = 0; salt < 2_000 * effort; salt++) world.clock.after(salt * 2, () => again(world.server, salt));
  world.run(4_000 * effort);
  world.settle();
  assert.equal(world.client.application.finished, 4_000 * effort);
});
