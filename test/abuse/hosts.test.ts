/**
 * Group D of the abuse cases: virtual hosts, and lists longer than anybody reads (PROTOCOL §4.1, §4.5). H02 is auth.test.ts's;
 * what one name in a long list costs is oracle.test.ts's.
 * @module
 */
import assert from "node:assert/strict";
import test from "node:test";
import { backEnd, Victim } from "../support/victim.ts";
import { data, Enemy, EnemySession, open } from "./enemy.ts";

/** Names of the great list are all as long as this. */
const NAME_BYTES = "service-000000\r\n".length;
const SERVICES = 100_000;

test("D: virtual hosts", async (t) => {
  const says = (text: string) => backEnd(t, (socket) => socket.end(text));
  const victim = await Victim.start(t, {
    services: { where: { to: await says("default") }, shown: { to: await says("default") } },
    hosts: {
      "a.example": {
        services: { where: { to: await says("a") }, "only-a": { to: await says("a"), allow: ["somebody"] } },
        tls: { certificate: "a/host.pem", key: "a/host.key" },
      },
      "b.example": {
        services: { where: { to: await says("b") }, "only-b": { to: await says("b") } },
        tls: { certificate: "b/host.pem", key: "b/host.key" },
      },
      "sister-of-b.example": {
        services: { where: { to: await says("sister") } },
        tls: { certificate: "b/host.pem", key: "b/host.key" },
      },
    },
    certificates: { a: ["a.example"], b: ["b.example", "sister-of-b.example"] },
    limits: { unauthenticated: { spareLoopback: true } },
  });

  await victim.survives(
    t,
    "H01 SNI of one certificate, HOST of another: 421, and everything stays as it was",
    async () => {
      await using enemy = await Enemy.approach(victim.at, { tls: { sni: "a.example" } });
      for (const name of ["b.example", "B.Example.", "sister-of-b.example", "localhost", "127.0.0.1", "[::1]"]) {
        enemy.say(`HOST ${name}\r\nLIST only-b\r\nLIST where\r\n`);
        assert.match(await enemy.line(), /^- 421 /, name);
        assert.deepEqual([await enemy.line(), await enemy.line(), await enemy.line()], ["", "where", ""]);
      }
      // The host in force may always be named; and the back end is its own.
      enemy.say("HOST a.example\r\nwhere\r\n");
      assert.deepEqual([await enemy.line(), await enemy.line()], ["+ SUCCESS", "+ SUCCESS"]);
      assert.equal(await enemy.rest(), "a");
    },
  );

  await victim.survives(
    t,
    "H01 in streams too: 421 beyond the certificate of the session, and HOST within it",
    async () => {
      await using session = await EnemySession.approach(victim.at, { tls: { sni: "b.example" } });
      session.say(open(1, "HOST a.example"), data(1, 0, "where\r\n"));
      await session.hears(1, /^- 421 [ -~]+\r\n\+ SUCCESS\r\nb$/);
      session.say(open(3, "HOST sister-of-b.example"), data(3, 0, "where\r\n"));
      await session.hears(3, /^\+ SUCCESS\r\n\+ SUCCESS\r\nsister$/);
      session.say(open(5, "HOST localhost"), data(5, 0, "shown\r\n"));
      await session.hears(5, /^- 421 [ -~]+\r\n- 404 /);
    },
  );

  await victim.survives(
    t,
    "H04 who names no host gets the default host's services, never those of a named one",
    async () => {
      const approaches = [{}, { tls: {} }, { tls: { sni: "nobody.example" } }, { tls: { sni: "a.example.b.example" } }];
      for (const approach of approaches) {
        await using enemy = await Enemy.approach(victim.at, approach);
        enemy.say("LIST only-a\r\nLIST only-b\r\nLIST shown\r\nHOST only-a.example\r\nonly-b\r\n");
        assert.deepEqual(
          [await enemy.line(), await enemy.line(), await enemy.line(), await enemy.line()],
          ["", "", "shown", ""],
        );
        assert.match(await enemy.line(), /^- 404 /);
        assert.match(await enemy.rest(), /^- 404 /);
      }
      await using list = await Enemy.approach(victim.at);
      list.say("HELP\r\n");
      assert.deepEqual((await list.rest()).split("\r\n").slice(-5), ["fellow", "where", "shown", "", ""]);
    },
  );

  await victim.survives(
    t,
    "H05 HOST in one stream moves that stream, whatever others are asking for meanwhile",
    async () => {
      await using session = await EnemySession.approach(victim.at, { tls: { sni: "b.example" } });
      // All in one flight, and in each order: HOST first, in the middle, and behind what it must not touch.
      session.say(
        open(1, "HOST sister-of-b.example"),
        open(3, "where"),
        data(1, 0, "whe"),
        open(5, "HOST b.example"),
        open(7, "HOST sister-of-b.example"),
        open(9, "where"),
        data(1, 3, "re\r\n"),
        data(5, 0, "where\r\n"),
        data(7, 0, "where\r\n"),
      );
      for (const [stream, said] of [
        [1, /^\+ SUCCESS\r\n\+ SUCCESS\r\nsister$/],
        [3, /^\+ SUCCESS\r\nb$/],
        [5, /^\+ SUCCESS\r\n\+ SUCCESS\r\nb$/],
        [7, /^\+ SUCCESS\r\n\+ SUCCESS\r\nsister$/],
        [9, /^\+ SUCCESS\r\nb$/],
      ] as const)
        await session.hears(stream, said);
    },
  );
});

test("H06 a list of 100,000 services is told as fast as it is read, and kept nowhere", async (t) => {
  const names = Array.from({ length: SERVICES }, (_, index) => `service-${String(index).padStart(6, "0")}`);
  const victim = await Victim.start(t, {
    services: Object.fromEntries(names.map((name) => [name, { to: 9 }])),
    limits: { unauthenticated: { spareLoopback: true } },
  });
  await victim.survives(t, "by two who do not read, and then do", async () => {
    const before = await victim.usage();
    await using readers = new AsyncDisposableStack();
    const enemies = await Promise.all(Array.from({ length: 2 }, () => Enemy.approach(victim.at)));
    for (const enemy of enemies) {
      readers.use(enemy).stopReading();
      enemy.say("LIST\r\n".repeat(10));
    }
    const during = await victim.usage();
    assert.ok(during.heap - before.heap < 1024 * 1024, `${during.heap - before.heap} octets are held for them`);
    await Promise.all(
      enemies.map(async (enemy) => {
        let octets = 0;
        let last = "";
        enemy.ear = (piece) => {
          octets += piece.length;
          last = (last + Buffer.from(piece).toString("latin1")).slice(-100);
        };
        enemy.readAgain();
        enemy.say("HELP x\r\n");
        await enemy.over();
        assert.ok(octets > 10 * SERVICES * NAME_BYTES, `${octets} octets of ten lists`);
        assert.match(last, /service-099999\r\n\r\n- 500 [ -~]+\r\n$/);
      }),
    );
  });
});
