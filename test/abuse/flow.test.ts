/**
 * Group F of the abuse cases where a session by itself does not show them: what a peer who does not read, or reads in crumbs, makes the
 * server, its back ends and the kernel hold (PROTOCOL §8.4, §9.5). Credit and its violations one by one are test/sim's and src/session's.
 * @module
 */
import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import type { Socket } from "node:net";
import test from "node:test";
import { Code, encodeUnsequenced, type SequencedContent } from "../../src/wire/index.ts";
import { eventually } from "../support/deadline.ts";
import { backEnd, Victim } from "../support/victim.ts";
import { data, EnemySession, open } from "./enemy.ts";

const KIBIBYTE = 1024;
const MEBIBYTE = 1024 * KIBIBYTE;
/** What a stream may say before it is granted more. */
const CREDIT = 64 * KIBIBYTE;
/** What is kept for whoever comes next: memory of what has been said. */
const POOL_BYTES = 8 * MEBIBYTE;
/** More than anybody sends. */
const PLENTY = 2 ** 50;

/** A back end that says octets as long as somebody takes them. */
function pour(socket: Socket): void {
  const piece = Buffer.alloc(64 * KIBIBYTE, "w");
  const more = (): void => {
    while (socket.writable && socket.write(piece));
  };
  socket.on("drain", more);
  more();
}

test("F: who does not read, and who reads in crumbs", async (t) => {
  const poured = new Set<Socket>();
  const victim = await Victim.start(t, {
    services: {
      pour: {
        to: await backEnd(t, (socket) => {
          poured.add(socket.once("close", () => poured.delete(socket)));
          pour(socket);
        }),
      },
      digest: {
        to: await backEnd(t, (socket) => {
          const hash = createHash("sha256");
          socket.on("data", (octets) => hash.update(octets));
          socket.on("end", () => socket.end(hash.digest("hex")));
        }),
      },
    },
    limits: {
      ...{ stall: "1s", streamStall: "1s" },
      anonymous: { streams: 100, budget: "8MiB" },
      // Else oddities end the session before what is looked at here does.
      glitches: { capacity: 20_000 },
      unauthenticated: { spareLoopback: true },
    },
  });

  await victim.survives(
    t,
    "F01 100 streams that are granted nothing more: 64 KiB each, then TIMEOUT, PINGs or not",
    async () => {
      const before = await victim.usage();
      await using session = await EnemySession.approach(victim.at);
      const streams = Array.from({ length: 100 }, (_, index) => 1 + 2 * index);
      session.say(...streams.map((stream) => open(stream, "pour", CREDIT)));
      const pings = setInterval(
        () => session.tell({ type: "ping", received: session.received, opaque: 1, reply: false }),
        50,
      );
      try {
        for (const stream of streams) await session.hears(stream, CREDIT);
        const held: number[] = [];
        for (let looks = 0; looks < 3; looks++) held.push((await victim.usage()).heap - before.heap);
        const least = Math.min(...held);
        assert.ok(least < 100 * CREDIT + POOL_BYTES, `${least} octets are held for them, and for whoever comes next`);
        for (const stream of streams) assert.equal(await session.reset(stream), Code.TIMEOUT);
      } finally {
        clearInterval(pings);
      }
      for (const stream of streams) assert.equal(session.octets.get(stream), CREDIT, "and not an octet more");
      await eventually(async () => assert.equal(poured.size, 0), "the back ends to be let go");
      assert.equal(session.enemy.end, "open", "the session lives: its PINGs are answered");
    },
  );

  await victim.survives(
    t,
    "F02 credit without end for who does not read the socket: the connection is over after its time",
    async () => {
      const before = await victim.usage();
      await using session = await EnemySession.approach(victim.at);
      session.enemy.stopReading();
      session.tell({ type: "ack", received: session.received, limit: PLENTY, held: [] });
      session.say(...[1, 3, 5, 7, 9, 11, 13, 15].map((stream) => open(stream, "pour", PLENTY)));
      await eventually(async () => assert.equal(poured.size, 8), "the back ends to be reached");
      const during = await victim.usage();
      assert.ok(during.heap - before.heap < 8 * MEBIBYTE, `${during.heap - before.heap} octets are held`);
      await eventually(async () => assert.equal(poured.size, 0), "the back ends to be let go");
    },
  );

  await victim.survives(
    t,
    "F07 64 Ki frames of one octet are delivered, and others are served beside them",
    async () => {
      await using session = await EnemySession.approach(victim.at);
      const octets = Buffer.from(Array.from({ length: CREDIT }, (_, index) => index % 251));
      session.say(open(1, "digest"));
      let offset = 0;
      const frame = (): SequencedContent => data(1, offset, Uint8Array.of(octets[offset++] ?? 0));
      while (offset < octets.length) await session.sayInTime(...Array.from({ length: AT_ONCE }, frame));
      session.say(data(1, offset, "", true));
      let answered = false;
      const answer = session.hears(1, /[0-9a-f]{64}$/).then(() => {
        answered = true;
      });
      let echoes = 0;
      for (; !answered; echoes++) await victim.serves();
      await answer;
      assert.ok(echoes > 0);
      assert.equal(session.texts.get(1), `+ SUCCESS\r\n${createHash("sha256").update(octets).digest("hex")}`);
    },
  );

  const floods: Readonly<Record<string, (session: EnemySession) => () => Buffer>> = {
    PINGs: (session) => () => pings(session),
    "OPENs of what is not there": (session) => {
      let stream = -1;
      const another = (): SequencedContent => {
        stream += 2;
        return open(stream, "nothing");
      };
      return () => session.framed(...Array.from({ length: AT_ONCE }, another));
    },
    "LISTs in one stream": (session) => {
      session.say(open(1, "LIST"));
      let offset = 0;
      return () => {
        const room = (session.credits.get(1) ?? CREDIT) - offset;
        if (room < LISTS.length) return pings(session); // more would be a fault of another kind
        const frame = session.framed(data(1, offset, LISTS));
        offset += LISTS.length;
        return frame;
      };
    },
    "crumbs of credit": (session) => {
      session.say(open(1, "pour", 1));
      let limit = 1;
      const crumb = (): SequencedContent => {
        limit++;
        return { type: "credit", stream: 1, limit };
      };
      return () => session.framed(...Array.from({ length: AT_ONCE }, crumb));
    },
  };
  for (const [what, begin] of Object.entries(floods)) {
    await victim.survives(t, `F09 ${what}, whose answers nobody reads: bounded, and over in its time`, async () => {
      const before = await victim.usage();
      await using session = await EnemySession.approach(victim.at);
      session.enemy.stopReading();
      const flooding = session.enemy.flood(begin(session));
      await victim.serves();
      const during = await victim.usage();
      assert.ok(during.heap - before.heap < 4 * MEBIBYTE, `${during.heap - before.heap} octets are held`);
      await flooding;
      assert.notEqual(session.enemy.end, "open");
      await eventually(async () => {
        const over = victim.log().filter(({ msg }) => msg === "session ended");
        assert.equal(over.at(-1)?.["code"], Code.CALM);
      }, "the session to end with CALM");
    });
  }
});

test("F13 crowds of idle sessions and streams", async (t) => {
  const victim = await Victim.start(t, {
    services: { hold: { module: "hold.ts" } },
    files: { "hold.ts": 'import { service } from "fived";\nexport default service("hold", () => {});\n' },
    limits: { anonymous: { streams: STREAMS, budget: "64MiB" }, unauthenticated: { spareLoopback: true } },
  });
  const cost = async (requests: readonly string[]): Promise<number> => {
    const before = await victim.usage();
    await using crowd = new AsyncDisposableStack();
    for (let count = 0; count < SESSIONS; count++) {
      const session = crowd.use(await EnemySession.approach(victim.at));
      session.say(...requests.map((request, index) => open(1 + 2 * index, request)));
      for (let index = 0; index < requests.length; index++) await session.hears(1 + 2 * index, /\r\n$/);
    }
    return (await victim.usage()).heap - before.heap;
  };

  await victim.survives(t, `${SESSIONS} idle sessions: 64 KiB each at most`, async () => {
    const heap = (await cost([])) / SESSIONS;
    assert.ok(heap <= 64 * KIBIBYTE, `${heap} octets a session`);
  });

  await victim.survives(
    t,
    `${STREAMS} idle streams in each of ${SESSIONS}: 4 KiB each at most, half-said requests too`,
    async () => {
      const sessions = await cost([]);
      for (const request of ["hold", "LIST fellow"]) {
        const streams = (await cost(Array.from({ length: STREAMS }, () => request))) - sessions;
        const heap = streams / (SESSIONS * STREAMS);
        t.diagnostic(`${request}: ${Math.round(heap)} octets of heap for an idle stream`);
        assert.ok(heap <= 4 * KIBIBYTE, `${heap} octets a stream`);
      }
    },
  );

  await victim.survives(
    t,
    "a stream more than a session may have is refused, and costs the others nothing",
    async () => {
      await using session = await EnemySession.approach(victim.at);
      const streams = Array.from({ length: STREAMS + 1 }, (_, index) => 1 + 2 * index);
      session.say(...streams.map((stream) => open(stream, "hold")));
      assert.equal(await session.reset(1 + 2 * STREAMS), Code.REFUSED);
      for (const stream of streams.slice(0, STREAMS)) await session.hears(stream, /^\+ SUCCESS\r\n$/);
    },
  );
});

/** Of the 1,000 and 100 of the abuse case, so many: what one of them costs is the same. */
const SESSIONS = 100;
const STREAMS = 50;
/** Frames that are said in one write of a flood. */
const AT_ONCE = 512;
const LISTS = "LIST\r\n".repeat(AT_ONCE);

function pings(session: EnemySession): Buffer {
  const ping = encodeUnsequenced({ type: "ping", received: session.received, opaque: 7, reply: false });
  return Buffer.concat(Array.from({ length: AT_ONCE }, () => ping));
}
