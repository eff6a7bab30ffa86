/**
 * The client's process is killed again and again, and others go on with the session: they have its ticket, the server's memory, and what the applications know.
 * @module
 */
import { planned } from "./application.ts";
import { effort, seededTest } from "./seed.ts";
import { World } from "./world.ts";

seededTest(
  "S04 a process is killed at any moment, and another goes on: every octet once, and no stream is forgotten",
  (random) => {
    for (let round = 0; round < 40 * effort; round++) {
      const world = new World(random, { passOnMs: random.pick([0, 0.1, 3]) });
      world.connect({ latencyMs: random.pick([0, 5, 30]) });
      if (random.chance(0.3)) world.connect({ latencyMs: random.pick([0, 5, 30]) });
      world.open(...Array.from({ length: random.between(1, 8) }, () => planned(random)));
      for (let kills = random.between(1, 6); kills > 0; kills--) {
        world.run(random.pick([1, 20, 100]) + random.fraction() * 10);
        world.kill(random.pick([0, 40, 200]));
        world.run(random.pick([0, 50]));
        world.recall();
        world.connect({ latencyMs: random.pick([0, 5, 30]) });
        if (random.chance(0.3)) world.connect({ latencyMs: random.pick([0, 5, 30]) });
        if (random.chance(0.5)) world.open(planned(random));
      }
      world.settle(600_000);
    }
  },
);
