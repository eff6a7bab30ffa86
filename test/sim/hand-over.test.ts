/**
 * A session that is written down in one process and gone on with in another, again and again, while streams come and go.
 * @module
 */
import { planned } from "./application.ts";
import { effort, seededTest } from "./seed.ts";
import { World } from "./world.ts";

seededTest("a session moves from process to process: every octet once, and no stream is forgotten", (random) => {
  for (let round = 0; round < 30 * effort; round++) {
    const world = new World(random);
    world.connect({ latencyMs: random.pick([0, 5, 30]) });
    world.open(...Array.from({ length: random.between(1, 8) }, () => planned(random)));
    for (let moves = random.between(1, 6); moves > 0; moves--) {
      world.run(random.pick([1, 20, 100]) + random.fraction() * 10);
      world.handOver({ late: random.chance(0.5), clientMs: 0, serverMs: random.pick([0, 40]) });
      world.run(random.pick([0, 50]));
      world.connect({ latencyMs: random.pick([0, 5, 30]) });
      if (random.chance(0.5)) world.open(planned(random));
    }
    world.settle(600_000);
  }
});
