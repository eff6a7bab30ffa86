import assert from "node:assert/strict";
import test from "node:test";
import { digest, digestOf, gone, noise, pair, path, type Transport } from "./pair.test.ts";

const TRANSPORTS: readonly Transport[] = ["tcp", "tls"];

/** Sizes around everything that is a limit somewhere: a frame, a slab, a window, a record. */
const SIZES = [1, 23, 1_300, 16_384, 16_385, 65_512, 65_536, 262_144, 1_000_003, 2_500_000, 5_000_000, 8_388_608];

for (const transport of TRANSPORTS) {
  test(`12 streams of 1 octet to 8 MiB, both ways at once over ${transport}, arrive as they were sent`, async () => {
    await using session = await pair({ transport });
    const transfers = SIZES.map(async (bytes, at) => {
      const back = SIZES.at(-1 - at) ?? 0;
      const [up, down] = [noise(bytes), noise(back)];
      const { program, backEnd } = await path(session);
      program.end(up);
      backEnd.end(down);
      const [there, here] = await Promise.all([digestOf(backEnd), digestOf(program)]);
      assert.equal(there, digest(up), `${bytes} octets up`);
      assert.equal(here, digest(down), `${back} octets down`);
      await Promise.all([gone(program), gone(backEnd)]);
    });
    await Promise.all(transfers);
    await Promise.all([session.client.idle(), session.server.idle()]);
    assert.equal(session.client.pump.session.streams, 0);
    assert.equal(session.server.pump.session.streams, 0);
  });
}
