/**
 * Group G of the abuse cases on real back ends: opening and taking back at speed, back ends that hang, refuse or break off, sessions that
 * are left without a word (PROTOCOL §8, §9.6). What each oddity costs is src/session's own test.
 * @module
 */
import assert from "node:assert/strict";
import { connect, type Socket } from "node:net";
import test, { type TestContext } from "node:test";
import { Code } from "../../src/wire/index.ts";
import { eventually } from "../support/deadline.ts";
import { Lab } from "../support/lab.ts";
import { backEnd, Victim } from "../support/victim.ts";
import { data, EnemySession, open } from "./enemy.ts";

/** What a session without a user may have open. */
const STREAMS = 8;

const MEBIBYTE = 1024 * 1024;
const PIECE = Buffer.alloc(64_000, "q");
/** What src/io keeps of its memory for the next one who needs it. */
const POOL_BYTES = 8 * MEBIBYTE;

/** A back end that counts who comes. */
async function counting(t: TestContext, serve: (socket: Socket) => void = () => {}) {
  const seen = { now: 0, most: 0, ever: 0 };
  const address = await backEnd(t, (socket) => {
    seen.now++;
    seen.ever++;
    seen.most = Math.max(seen.most, seen.now);
    socket.once("close", () => seen.now--);
    serve(socket);
    socket.resume();
  });
  return { address, seen };
}

test("G: opening, and taking back", async (t) => {
  const quiet = await counting(t);
  const victim = await Victim.start(t, {
    services: {
      quiet: { to: quiet.address },
      // Refuses: nobody listens at the discard port of this address.
      down: { to: "tcp://127.0.0.9:9" },
      resets: { to: await backEnd(t, (socket) => socket.resetAndDestroy()) },
      echo: { to: await backEnd(t, (socket) => socket.pipe(socket)) },
    },
    limits: { unauthenticated: { spareLoopback: true } },
  });

  await victim.survives(
    t,
    "R01 OPEN and RESET at the speed of the wire: CALM, and few back ends ever know",
    async () => {
      await using session = await EnemySession.approach(victim.at);
      let stream = -1;
      const pairs = (): Buffer => {
        const frames = Array.from({ length: 250 }, () => {
          stream += 2;
          return [open(stream, "quiet"), { type: "reset", stream, code: Code.CANCEL } as const];
        });
        return session.framed(...frames.flat());
      };
      await session.enemy.flood(() => (stream > 200_000 ? undefined : pairs()));
      assert.equal(await session.over(), Code.CALM);
      assert.ok(quiet.seen.most <= STREAMS, `${quiet.seen.most} at once`);
      assert.ok(quiet.seen.ever <= 200, `${quiet.seen.ever} in all`);
      await eventually(async () => assert.equal(quiet.seen.now, 0), "the back ends to be let go");
    },
  );

  await victim.survives(
    t,
    "R02 resets that we have to send cost what the peer's own cost: CALM after about a hundred",
    async () => {
      await using session = await EnemySession.approach(victim.at);
      let offences = 0;
      for (let stream = 1; session.ended === undefined && session.enemy.end === "open"; stream += 2) {
        const over = (): boolean => session.resets.has(stream) || session.ended !== undefined;
        session.say(open(stream, "quiet"));
        await session.until(() => session.texts.has(stream) || over(), "an answer");
        if (over()) continue; // behind the warning no stream is taken up
        session.say(data(stream, 0, "over", true), data(stream, 4, "and yet not"));
        await session.until(over, "a RESET");
        if (session.resets.get(stream) === Code.STREAM_STATE) offences++;
      }
      assert.equal(await session.over(), Code.CALM);
      assert.equal(session.goneAway, Code.CALM, "it was warned");
      // 10 of 1,000 each until three quarters are gone; what comes back each second is little.
      assert.ok(offences >= 70 && offences <= 200, `${offences} offences`);
    },
  );

  await victim.survives(
    t,
    "R05 back ends that refuse or break off are the end of a stream each, and of nothing else",
    async () => {
      await using session = await EnemySession.approach(victim.at);
      for (let round = 0; round < 20; round++) {
        const down = 1 + 6 * round;
        session.say(
          open(down, "down"),
          open(down + 2, "resets"),
          open(down + 4, "echo"),
          data(down + 4, 0, "well", true),
        );
        await session.hears(down, /^- 502 [ -~]+\r\n$/);
        assert.ok(!/127|\b9\b/.test(session.texts.get(down) ?? ""), "where it is, is nobody's business");
        // It was connected, and broke off: at once, or before it could be said so.
        await session.until(
          () => session.resets.has(down + 2) || session.finished.has(down + 2),
          "the end of the stream",
        );
        assert.match(session.texts.get(down + 2) ?? "", /^(?:\+ SUCCESS\r\n|- 502 [ -~]+\r\n|)$/);
        await session.hears(down + 4, /^\+ SUCCESS\r\nwell$/);
      }
      assert.equal(session.enemy.end, "open");
    },
  );

  await victim.survives(t, "R09 1,000 sessions that are left in every way leave nothing behind", async () => {
    const before = await victim.usage();
    for (let round = 0; round < 250; round++) {
      await Promise.all([
        leave(victim, (session) =>
          session.say({ type: "goaway", lastStream: 0, code: 0, reason: "" }, { type: "end", code: 0 }),
        ),
        leave(victim, (session) => session.say({ type: "goaway", lastStream: 0, code: 0, reason: "" })),
        leave(victim, ({ enemy }) => enemy.socket.resetAndDestroy()),
        // In the middle of a frame.
        leave(victim, (session) => session.enemy.say(session.framed(data(1, 0, "half a frame")).subarray(0, 30))),
      ]);
    }
    await eventually(async () => {
      const { heap, descriptors } = await victim.usage();
      assert.ok(descriptors - before.descriptors <= 2, `${descriptors - before.descriptors} descriptors are left`);
      assert.ok(heap - before.heap < 2 * 1024 * 1024, `${heap - before.heap} octets are left`);
    }, "everything to be let go");
  });
});

test("G: a back end that takes nothing", async (t) => {
  const ends: string[] = [];
  const credit = 4 * MEBIBYTE;
  const victim = await Victim.start(t, {
    services: {
      stuck: {
        to: await backEnd(t, (socket) => {
          socket.pause();
          let how = "closed";
          socket.on("error", (error) => {
            how = "code" in error ? String(error.code) : error.message;
          });
          // A paused socket hears of a reset only when it says something.
          const poke = setInterval(() => socket.write("."), 50);
          socket.on("close", () => {
            clearInterval(poke);
            ends.push(how);
          });
        }),
      },
    },
    limits: {
      initialCredit: "4MiB",
      anonymous: { streams: STREAMS, budget: "64MiB" },
      unauthenticated: { spareLoopback: true },
    },
  });

  await victim.survives(
    t,
    "R12 RESET while megabytes are queued for it: it sees a reset, and no queue is left",
    async () => {
      const before = await victim.usage();
      await using session = await EnemySession.approach(victim.at);
      for (let round = 0; round < 4; round++) {
        const stream = 1 + 2 * round;
        session.say(open(stream, "stuck"));
        await session.hears(stream, /^\+ SUCCESS\r\n/);
        // The kernel takes some, and what it has taken is granted anew; so much is more than it takes, and less than is granted.
        for (let said = 0; said + PIECE.length <= credit; said += PIECE.length)
          await session.sayInTime(data(stream, said, PIECE));
        session.say({ type: "reset", stream, code: Code.CANCEL });
        await eventually(async () => assert.equal(ends.length, round + 1), "the back end to be reset");
      }
      assert.deepEqual(new Set(ends), new Set(["ECONNRESET"]));
      session.say(open(99, "fellow"), data(99, 0, "goes on", true));
      await session.hears(99, /^\+ SUCCESS\r\ngoes on$/);
      const after = await victim.usage();
      assert.ok(after.descriptors - before.descriptors <= 3, "the session's own, and what serves it");
      assert.ok(after.heap - before.heap <= POOL_BYTES + MEBIBYTE, `${after.heap - before.heap} octets are left`);
    },
  );
});

test("G: back ends that take their time", async (t) => {
  let halfClosed: Socket | undefined;
  const victim = await Victim.start(t, {
    services: {
      hangs: { to: await hangingBackEnd(t) },
      silent: { to: await backEnd(t, (socket) => socket.resume()) },
      // Hears its end, and goes on.
      talks: {
        to: await backEnd(t, (socket) => {
          socket.resume();
          socket.on("end", () => {
            halfClosed = socket;
            socket.write("I heard you");
          });
        }),
      },
    },
    limits: {
      ...{ connect: "1s", streamStall: "1s" },
      anonymous: { streams: 100 },
      unauthenticated: { spareLoopback: true },
    },
  });

  await victim.survives(
    t,
    "R04 a back end that does not accept: 504 in its time, and 32 connections at once at most",
    async () => {
      await using session = await EnemySession.approach(victim.at);
      session.say(open(1, "silent"));
      await session.hears(1, /^\+ SUCCESS\r\n$/);
      const { descriptors } = await victim.usage();
      const streams = Array.from({ length: 40 }, (_, index) => 3 + 2 * index);
      session.say(...streams.map((stream) => open(stream, "hangs")));
      const during = await victim.usage();
      assert.ok(during.descriptors - descriptors <= 32, `${during.descriptors - descriptors} connections at once`);
      for (const stream of streams) await session.hears(stream, /^- 50[24] [ -~]+\r\n$/);
      assert.match(session.texts.get(3) ?? "", /^- 504 /);
      assert.equal(session.enemy.end, "open");
    },
  );

  await victim.survives(
    t,
    "R13 the end of one direction is handed on as such, and the other goes on until it ends",
    async () => {
      await using session = await EnemySession.approach(victim.at);
      session.say(open(1, "talks"), data(1, 0, "over to you", true));
      await session.hears(1, /^\+ SUCCESS\r\nI heard you$/);
      halfClosed?.write(", and have more to say");
      await session.hears(1, /more to say$/);
      halfClosed?.end();
      await session.until(() => session.finished.has(1), "the end of the other direction");
      assert.ok(!session.resets.has(1));
    },
  );

  await victim.survives(
    t,
    "R13 half-closed, and then nothing: TIMEOUT, for the caller and for the back end",
    async () => {
      await using session = await EnemySession.approach(victim.at);
      session.say(open(1, "talks"), data(1, 0, "", true));
      await session.hears(1, /I heard you$/);
      const socket = halfClosed;
      assert.equal(await session.reset(1), Code.TIMEOUT);
      // Who has heard an end learns of a reset when he says something.
      socket?.write("is anybody there?");
      await eventually(async () => assert.ok(socket?.closed), "the back end to be let go");
      // A stream that is open both ways may be silent as long as it likes.
      session.say(open(3, "silent"));
      await session.hears(3, /^\+ SUCCESS\r\n$/);
      session.say(open(5, "talks"), data(5, 0, "", true));
      assert.equal(await session.reset(5), Code.TIMEOUT);
      assert.ok(!session.resets.has(3));
    },
  );
});

/**
 * A back end that does not accept: once its queue is full, connections to it hang. That needs a process that does nothing at all, since the
 * kernel accepts for anybody who only waits.
 */
async function hangingBackEnd(t: TestContext): Promise<string> {
  const lab = await Lab.open(t);
  const script = `
    const server = require("node:net").createServer().listen({ host: "127.0.0.1", port: 0, backlog: 1 }, () => {
      require("node:fs").writeSync(1, "port " + server.address().port + "\\n");
      Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0);
    });`;
  const program = lab.start([process.execPath, "--eval", script], { endSignal: "SIGKILL" });
  const port = Number((await program.hears(/port (\d+)/))[1]);
  // Two fill the queue; of those behind them nothing is heard.
  for (let caller = 0; caller < 2; caller++) {
    const socket = connect({ host: "127.0.0.1", port });
    socket.on("error", () => {}); // it ends with its peer
    t.after(() => socket.destroy());
    await new Promise((resolve) => socket.once("connect", resolve));
  }
  return `tcp://127.0.0.1:${port}`;
}

/** Opens a session with a stream, and leaves it so. */
async function leave(victim: Victim, how: (session: EnemySession) => void): Promise<void> {
  await using session = await EnemySession.approach(victim.at);
  session.say(open(1, "quiet"));
  await session.hears(1, /^\+ SUCCESS\r\n$/);
  how(session);
}
