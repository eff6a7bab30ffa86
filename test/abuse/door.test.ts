/**
 * L02: crowds at the door, who connect and say nothing (PROTOCOL §9.5), on a server with the bounds that it has by default. And the numbers
 * by default of every deadline that these tests shorten.
 * @module
 */
import assert from "node:assert/strict";
import { connect, type Socket } from "node:net";
import test from "node:test";
import { configurationFromTargets } from "../../src/server/index.ts";
import { eventually } from "../support/deadline.ts";
import { Victim } from "../support/victim.ts";
import { Enemy } from "./enemy.ts";

test("L02 crowds at the door", async (t) => {
  const victim = await Victim.start(t);
  let crowd: Socket[] = [];
  const open = (): number => crowd.filter((socket) => !socket.destroyed).length;
  const gather = (count: number, source: (index: number) => string): void => {
    const sockets = Array.from({ length: count }, (_, index) => {
      const socket = connect({ ...victim.at, localAddress: source(index) });
      return socket.on("error", () => {}).resume(); // one that is turned away may be so with a reset
    });
    crowd = [...crowd, ...sockets];
  };
  const dissolve = (): void => {
    for (const socket of crowd) socket.destroy();
    crowd = [];
  };

  await victim.survives(t, "2,000 silent connections of one source: 16 stay, and others still get in", async () => {
    gather(2_000, () => "127.0.0.2");
    await eventually(async () => assert.ok(open() <= 16, `${open()} are still open`), "the crowd to be turned away");
    assert.ok(open() > 0, "the first ones are waited for");
    // Of those behind the first ten some are dropped at random: whoever means it tries again (after OpenSSH's MaxStartups).
    await eventually(async () => {
      await using enemy = await Enemy.approach(victim.at, { from: "127.0.0.3" });
      enemy.say("LIST fellow\r\n");
      assert.equal(await enemy.line(), "fellow");
    }, "somebody else to get in");
    dissolve();
  });

  await victim.survives(t, "1,000 silent connections of 250 sources: never more than 100", async () => {
    gather(1_000, (index) => `127.0.1.${1 + (index % 250)}`);
    await eventually(async () => assert.ok(open() <= 100, `${open()} are still open`), "the crowd to be turned away");
    assert.ok(open() > 16, "no source had its fill");
    dissolve();
  });

  await victim.survives(t, "who has been granted something does not count any more", async () => {
    await using served = new AsyncDisposableStack();
    for (let count = 0; count < 40; count++) {
      const enemy = served.use(await Enemy.approach(victim.at, { from: "127.0.0.4" }));
      enemy.say("fellow\r\n");
      assert.equal(await enemy.line(), "+ SUCCESS");
    }
  });
});

test("by default every bound and deadline that is shortened here is that of PROTOCOL §9.5", () => {
  const { limits, sessions } = configurationFromTargets({ targets: [], state: "/nowhere" });
  assert.deepEqual(limits, {
    ...{ firstLineMs: 10_000, betweenLinesMs: 120_000, handshakeMs: 10_000 },
    unauthenticated: {
      ...{ timeMs: 30_000, start: 10, rate: 30, full: 100, perSource: 16, ipv4Prefix: 32, ipv6Prefix: 56 },
      spareLoopback: false,
    },
    ...{ connectMs: 5_000, pendingOpens: 32 },
    ...{ streams: 100, budgetBytes: 8 * 1024 ** 2, initialCreditBytes: 64 * 1024, windowBytesMax: 4 * 1024 ** 2 },
    anonymous: { streams: 8, budgetBytes: 512 * 1024 },
    logWindowBytesMax: 8 * 1024 ** 2,
    controlQueue: { frames: 1_000 },
    ...{ sendQueueBytes: 256 * 1024, stallMs: 60_000, streamStallMs: 600_000 },
    keepalive: { intervalMs: 30_000, misses: 2 },
    glitches: { capacity: 1_000, perSecond: 33 },
    pings: { capacity: 10, perSecond: 2 },
    framesPerSecond: 20_000,
    penalties: {
      ...{ authFailureMs: 5_000, minMs: 15_000, maxMs: 600_000, sources: 65_536 },
      ...{ exempt: [], spareLoopback: false },
    },
    shutdownMs: 10_000,
  });
  const detach = {
    ...{ keepMs: 900_000, queueBytes: 1024 ** 2, attaches: 10 },
    ...{ perIdentity: 4, anonymous: 0, total: 1_000, memoryBytes: 256 * 1024 ** 2 },
  };
  assert.deepEqual(sessions, { connections: 4, detach });
});
