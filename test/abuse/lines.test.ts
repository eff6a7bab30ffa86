/**
 * Group A of the abuse cases: what may be said at the port instead of a request, on a real server (PROTOCOL §3, §4.1 to §4.5). How lines
 * are cut and judged one by one is src/wire's own test; names that a configuration may not have (L09) are src/server's.
 * @module
 */
import assert from "node:assert/strict";
import test from "node:test";
import { Code } from "../../src/wire/index.ts";
import { backEnd, Victim } from "../support/victim.ts";
import { data, Enemy, EnemySession, open } from "./enemy.ts";
import { PROTOCOLS } from "./other-protocols.ts";

const MEBIBYTE = 1024 * 1024;

/** What comes for a service that does not exist. */
const UNKNOWN = "- 404 no such service\r\n";

/** Names that JavaScript's objects have from birth. */
const BORN_WITH = ["__proto__", "constructor", "toString", "hasOwnProperty", "valueOf", "__defineGetter__"];

/** What is no name: controls, what is above ASCII, what is too long, too short or in the wrong place. */
const ILL_FORMED = [
  "ec\0ho",
  "\0",
  "ec\tho",
  "\u001b[2Jecho",
  "\u0080",
  "echo\u00ff",
  "x".repeat(65),
  "",
  " echo",
  ".echo",
  "-echo",
  "+echo",
  "ec\rho",
  "ec\nho",
  "../echo",
  "echo;id",
  "$(id)",
  "LIST \u001b]0;title\u0007",
  "LIST \0",
  "HOST \u0085",
];

test("A: what is said at the port instead of a request", async (t) => {
  let connections = 0;
  const echo = await backEnd(t, (socket) => {
    connections++;
    socket.pipe(socket);
  });
  const victim = await Victim.start(t, {
    services: { Echo: { to: echo }, "secret-svc": { to: echo, allow: ["nobody-is-called-so"] } },
    limits: { unauthenticated: { spareLoopback: true } },
  });

  await victim.survives(
    t,
    "L03 64 MiB without an end of line: refused at octet 1,025, and nothing of it is kept",
    async () => {
      {
        await using enemy = await Enemy.approach(victim.at);
        enemy.say("x".repeat(1_025));
        assert.match(await enemy.rest(), /^- 500 [ -~]+\r\n$/);
      }
      await using enemy = await Enemy.approach(victim.at);
      const mebibyte = Buffer.alloc(MEBIBYTE, "x");
      let said = 0;
      await enemy.flood(() => (++said > 64 ? undefined : mebibyte));
      await enemy.over();
      // The answer came before the connection was reset for what still came behind it.
      assert.match(enemy.said, /^- 500 [ -~]+\r\n$/);
    },
  );

  await victim.survives(t, "L05 what is no name is refused, never repeated, and escaped in the log", async () => {
    for (const name of ILL_FORMED) {
      await using enemy = await Enemy.approach(victim.at);
      enemy.say(`${name}\r\n`);
      assert.match(await enemy.rest(), /^- 501 [ -~]+\r\n$/, JSON.stringify(name));
      assert.ok(name.length < 2 || !enemy.said.includes(name.trim()), "nothing of it is repeated");
    }
    assertCleanLog(victim);
  });

  await victim.survives(t, "L06 names that every object has are services and hosts of nobody", async () => {
    for (const name of BORN_WITH) {
      assert.equal(await answerTo(victim, `${name}\r\n`), UNKNOWN, name);
      assert.equal(
        await answerTo(victim, `LIST ${name}\r\nHELP nobody\r\n`),
        `\r\n${await answerTo(victim, "HELP x\r\n")}`,
      );
      const unknown = await answerTo(victim, "HOST nowhere.example\r\nnothing\r\n");
      assert.equal(await answerTo(victim, `HOST ${name}\r\nnothing\r\n`), unknown, name);
      assert.match(unknown, /^- 404 [ -~]+\r\n- 404 /);
      await using session = await EnemySession.approach(victim.at);
      session.say(open(1, name), open(3, `HOST ${name}`), data(3, 0, `${name}\r\n`));
      await session.hears(1, /^- 404 no such service\r\n$/);
      await session.hears(3, /^- 404 [ -~]+\r\n- 404 no such service\r\n$/);
    }
  });

  await victim.survives(t, "L07 names are compared without regard to case, by ASCII and by nothing else", async () => {
    for (const name of ["echo", "ECHO", "eChO"]) {
      await using enemy = await Enemy.approach(victim.at);
      enemy.say(`${name}\r\n`);
      assert.equal(await enemy.line(), "+ SUCCESS", name);
      assert.equal(await answerTo(victim, `list ${name}\r\nhelp x\r\n`).then((said) => said.split("\r\n")[0]), "Echo");
    }
    // Dotless i, long s, Kelvin sign, fullwidth letters: to Unicode some of these are ASCII in another case.
    for (const name of ["L\u0131ST", "LI\u017fT", "\uff25\uff23\uff28\uff2f", "Ech\u00f6", "\u212aelvin"]) {
      const octets = Buffer.from(`${name}\r\n`).toString("latin1");
      assert.match(await answerTo(victim, octets), /^- 501 /, name);
    }
  });

  await victim.survives(
    t,
    "L08 a service that is forbidden and one that is not there are told apart by nothing",
    async () => {
      for (const [forbidden, absent] of [
        ["secret-svc\r\n", "absent-svc\r\n"],
        ["LIST secret-svc\r\nx y\r\n", "LIST absent-svc\r\nx y\r\n"],
      ] as const) {
        assert.equal(await answerTo(victim, forbidden), await answerTo(victim, absent));
      }
      await using session = await EnemySession.approach(victim.at);
      session.say(open(1, "secret-svc"), open(3, "absent-svc"));
      await session.until(() => session.finished.has(1) && session.finished.has(3), "both refusals");
      assert.equal(session.texts.get(1), session.texts.get(3));
      assert.equal(session.texts.get(1), UNKNOWN);
    },
  );

  await victim.survives(t, "L13 TLS and MULTIPLEX inside a session are refused, and the session goes on", async () => {
    await using session = await EnemySession.approach(victim.at);
    session.say(open(1, "TLS"), open(3, "MULTIPLEX"), open(5, "ATTACH 1 x"), open(7, "echo"), data(7, 0, "still here"));
    await session.hears(1, /^- 503 [ -~]+\r\n$/);
    await session.hears(3, /^- 503 [ -~]+\r\n$/);
    await session.hears(5, /^- 50[03] [ -~]+\r\n$/);
    await session.hears(7, /^\+ SUCCESS\r\nstill here$/);
    for (const stream of [1, 3, 5]) assert.ok(session.finished.has(stream));
    // Where frames are expected, a word is no frame: that is the end of this session, and of nothing else.
    session.enemy.say("MULTIPLEX\r\n".repeat(3));
    await session.enemy.over();
    assert.equal(session.closed, Code.PROTOCOL);
  });

  for (const { name, octets, answer, cut = false } of PROTOCOLS) {
    await victim.survives(
      t,
      `L14 ${name} at the port: at most one refusal, and nothing is obeyed or reflected`,
      async () => {
        const before = connections;
        await using enemy = await Enemy.approach(victim.at);
        enemy.say(octets);
        enemy.say("\r\necho\r\nLIST\r\n");
        enemy.socket.end();
        await enemy.over();
        if (!cut) assert.equal(enemy.end, "ended");
        assert.match(enemy.said, answer);
        assert.equal(connections, before, "no service was asked for");
      },
    );
  }

  await victim.survives(
    t,
    "L15 what a peer puts into its reasons is one line of the log, with controls escaped",
    async () => {
      const reason = 'bye\r\n{"level":"info","msg":"forged"}\u001b[2J\u009b31m';
      await using session = await EnemySession.approach(victim.at);
      session.tell({ type: "closeConnection", received: 0, code: 0, reason });
      await session.enemy.over();
      await using another = await EnemySession.approach(victim.at);
      another.say({ type: "goaway", lastStream: 0, code: 0, reason });
      another.say(open(1, "ech\u001b[2Jo\r\nforged"));
      await another.hears(1, /^- 501 [ -~]+\r\n$/);
      assertCleanLog(victim);
      assert.ok(!victim.log().some(({ msg }) => msg === "forged"));
    },
  );
});

test("A: what takes its time", async (t) => {
  let connections = 0;
  const echo = await backEnd(t, (socket) => {
    connections++;
    socket.pipe(socket);
  });
  const many = Object.fromEntries(Array.from({ length: 200 }, (_, at) => [`service-${at}`, { to: echo }]));
  const victim = await Victim.start(t, {
    services: { echo: { to: echo }, ...many },
    limits: { firstLine: "400ms", stall: "1s", unauthenticated: { spareLoopback: true, time: "700ms" } },
  });

  for (const [where, approach] of [
    ["outside", {}],
    ["inside", { tls: {} }],
  ] as const) {
    await victim.survives(
      t,
      `L01 octets of a request that never ends, ${where} TLS: 408 when its time is over`,
      async () => {
        await using enemy = await Enemy.approach(victim.at, approach);
        const start = performance.now();
        // Each octet comes well before the deadline: single octets must not count (PROTOCOL §3.6).
        const trickle = setInterval(() => enemy.end === "open" && enemy.say("x"), 50);
        const said = await enemy.rest().finally(() => clearInterval(trickle));
        assert.match(said, /^- 408 [ -~]+\r\n$/);
        assert.ok(performance.now() - start > 300, "not before its time");
      },
    );
  }

  await victim.survives(t, "L01 who says nothing at all is told so too, and is not heard any more", async () => {
    await using enemy = await Enemy.approach(victim.at);
    await enemy.over();
    const before = connections;
    enemy.say("echo\r\nLIST\r\n");
    enemy.socket.end();
    await enemy.until(() => enemy.socket.closed, "both ends closed");
    assert.match(enemy.said, /^- 408 [ -~]+\r\n$/);
    assert.equal(connections, before);
  });

  await victim.survives(
    t,
    "L01 one refused request after the other does not last for ever: 408 without an accepted one",
    async () => {
      await using enemy = await Enemy.approach(victim.at);
      const start = performance.now();
      const trickle = setInterval(() => enemy.end === "open" && enemy.say("HOST nowhere.example\r\n"), 50);
      const said = await enemy.rest().finally(() => clearInterval(trickle));
      assert.match(said, /^(?:- 404 [ -~]+\r\n){3,}- 408 [ -~]+\r\n$/);
      assert.ok(performance.now() - start > 600, "not before its time");
    },
  );

  await victim.survives(
    t,
    "L10 requests without end whose answers nobody reads: no more is read, and then it is over",
    async () => {
      const before = await victim.usage();
      await using enemy = await Enemy.approach(victim.at);
      enemy.stopReading();
      // An answer has 3,500 octets: those to a megabyte of requests would be 600 MB.
      const requests = Buffer.from("LIST\r\n".repeat(1_000));
      const flooding = enemy.flood(() => requests);
      await enemy.until(() => enemy.socket.writableNeedDrain, "the server to stop reading");
      await victim.serves();
      const during = await victim.usage();
      assert.ok(during.heap - before.heap < MEBIBYTE, `${during.heap - before.heap} octets are held for answers`);
      await flooding;
      assert.notEqual(enemy.end, "open");
    },
  );
});

/** What the server says to these octets, whole, until it ends in order. */
async function answerTo(victim: Victim, octets: string): Promise<string> {
  await using enemy = await Enemy.approach(victim.at);
  enemy.say(octets);
  enemy.socket.end();
  return await enemy.rest();
}

/** Each line of the log is one JSON object, and nothing in it moves a cursor. */
function assertCleanLog(victim: Victim): void {
  victim.log();
  const raw = victim.program.complained;
  // biome-ignore lint/suspicious/noControlCharactersInRegex: those are what must not be there.
  assert.doesNotMatch(raw, /[\0-\x09\x0b-\x1f\x7f-\x9f]/);
}
