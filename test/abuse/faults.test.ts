/**
 * Group J of the abuse cases: what happens to a server rather than what is said to it. No descriptors, no room for the log, processes that
 * are killed or stopped, a wall clock that jumps, services that throw. That SIGUSR1 opens no inspector (S10) is test/e2e's; resolvers (S09)
 * and the preload shim (S12) come with what uses them.
 * @module
 */
import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import fs from "node:fs";
import { connect as connectSocket, createServer } from "node:net";
import test from "node:test";
import { setTimeout as pause } from "node:timers/promises";
import { connect } from "../../src/client/index.ts";
import { eventually, within } from "../support/deadline.ts";
import { client } from "../support/fived.ts";
import { portOf } from "../support/lab.ts";
import { needs, unshare } from "../support/needs.ts";
import { backEnd, Victim } from "../support/victim.ts";
import { data, Enemy, EnemySession, open } from "./enemy.ts";

const MEBIBYTE = 1024 * 1024;
const DAY_MS = 24 * 60 * 60 * 1_000;

/** Says its own number, and then what it hears. */
const CAT = { exec: ["sh", "-c", "echo $$; exec cat"] };

test("S01 100 clients and 64 descriptors", async (t) => {
  const victim = await Victim.start(t, {
    services: { echo: { to: await backEnd(t, (socket) => socket.pipe(socket)) } },
    limits: { unauthenticated: { spareLoopback: true } },
    under: ["sh", "-c", 'ulimit -n 64 && exec "$@"', "sh"],
  });
  await victim.survives(
    t,
    "who is there goes on, nothing spins, and when there is room others are served again",
    async () => {
      await using session = await EnemySession.approach(victim.at);
      session.say(open(1, "echo"));
      await session.hears(1, /^\+ SUCCESS\r\n$/);
      const crowd = Array.from({ length: 100 }, () =>
        connectSocket(victim.at)
          .on("error", () => {})
          .resume(),
      );
      await eventually(async () => {
        assert.ok(
          crowd.every((socket) => !socket.connecting),
          "all are connected, or turned away",
        );
        assert.ok(
          crowd.some((socket) => socket.destroyed),
          "the descriptors are used up",
        );
      }, "the crowd");
      const before = cpuMsOf(victim);
      const start = performance.now();
      await pause(1_000); // a time to be measured, not waited for
      const share = (cpuMsOf(victim) - before) / (performance.now() - start);
      assert.ok(share < 0.2, `${Math.round(share * 100)} % of a processor while there is nothing to do`);
      session.say(data(1, 0, "still here"), open(3, "echo"));
      await session.hears(1, /still here$/);
      await session.hears(3, /^(?:- 502 [ -~]+|\+ SUCCESS)\r\n$/);
      for (const socket of crowd) socket.destroy();
      await eventually(async () => {
        await using enemy = await Enemy.approach(victim.at);
        enemy.say("echo\r\nhello");
        await enemy.until(() => enemy.said.endsWith("hello") || enemy.end !== "open", "an echo");
        assert.match(enemy.said, /^\+ SUCCESS\r\nhello$/);
      }, "room for somebody else");
    },
  );
});

test("S02 a log that is full", { skip: needs("namespaces", "unshare") }, async (t) => {
  const lab = 'mount -t tmpfs -o size=64k tmpfs /mnt && exec "$@" 2>/mnt/log';
  const victim = await Victim.start(t, {
    limits: { unauthenticated: { spareLoopback: true } },
    under: [...unshare("--mount"), "sh", "-c", lab, "sh"],
  });
  const log = `/proc/${victim.program.pid}/root/mnt/log`;
  await victim.survives(t, "costs lines of the log, and sessions nothing", async () => {
    for (let round = 0; fs.statSync(log).size < 60 * 1024; round++) {
      assert.ok(round < 5_000, "the log grows");
      await using session = await EnemySession.approach(victim.at);
      session.say({ type: "end", code: 0 });
      await session.enemy.over();
    }
    for (let round = 0; round < 300; round++) {
      await using session = await EnemySession.approach(victim.at);
      session.say({ type: "end", code: 0 });
      await session.enemy.over();
    }
    await victim.serves();
    assert.ok(fs.statSync(log).size <= 64 * 1024);
  });
});

test("S04 processes that are killed", async (t) => {
  const victim = await Victim.start(t, {
    services: { cat: CAT },
    limits: { unauthenticated: { spareLoopback: true } },
  });

  await victim.survives(t, "a program: its stream ends, the session goes on, and no zombie stays", async () => {
    await using session = await EnemySession.approach(victim.at);
    for (let round = 0; round < 20; round++) {
      const stream = 1 + 4 * round;
      session.say(open(stream, "cat"), open(stream + 2, "cat"), data(stream + 2, 0, "other"));
      await session.hears(stream, /\n\d+\n$/);
      await session.hears(stream + 2, /\n\d+\nother$/);
      process.kill(pidIn(session, stream), "SIGKILL");
      await session.until(() => session.finished.has(stream) || session.resets.has(stream), "the end of the stream");
      session.say(data(stream + 2, 5, " and on", true));
      await session.hears(stream + 2, /other and on$/);
      await session.until(() => session.finished.has(stream + 2), "the other's end");
    }
    await eventually(async () => assert.deepEqual(childrenOf(victim), []), "the programs to be gone, and reaped");
  });

  await t.test("the server: its callers learn it, its port is free at once, and its programs end", async (t) => {
    const doomed = await Victim.start(t, { services: { cat: CAT } });
    await using session = await EnemySession.approach(doomed.at);
    session.say(open(1, "cat"));
    await session.hears(1, /\n\d+\n$/);
    const program = pidIn(session, 1);
    process.kill(doomed.program.pid, "SIGKILL");
    await session.enemy.over();
    await doomed.program.ended;
    const heir = createServer();
    await new Promise<void>((resolve, reject) => {
      heir.once("error", reject).listen(doomed.at.port, "127.0.0.1", resolve);
    });
    assert.equal(portOf(heir), doomed.at.port);
    heir.close();
    await eventually(async () => assert.throws(() => process.kill(program, 0), /ESRCH/), "its program to end");
  });
});

test("S05 processes that are stopped", async (t) => {
  const victim = await Victim.start(t, {
    services: { cat: CAT },
    limits: { keepalive: { interval: "300ms", misses: 2 }, unauthenticated: { spareLoopback: true } },
  });

  await victim.survives(t, "a program: its stream waits, others do not, and not an octet is lost", async () => {
    await using session = await connect(address(victim), trusting(victim));
    const stream = session.open("cat");
    const said = randomBytes(MEBIBYTE);
    const heard: Buffer[] = [];
    const first = Promise.withResolvers<number>();
    const over = new Promise<void>((resolve) => stream.once("end", resolve));
    stream.on("data", (octets: Buffer) => {
      heard.push(octets);
      first.resolve(Number(octets.toString("latin1").split("\n")[0]));
    });
    const pid = await within(first.promise, "the program's number");
    process.kill(pid, "SIGSTOP");
    stream.end(said);
    await victim.serves();
    process.kill(pid, "SIGCONT");
    await within(over, "everything to come through");
    const all = Buffer.concat(heard);
    assert.ok(all.subarray(all.indexOf("\n") + 1).equals(said));
  });

  await victim.survives(
    t,
    "the server, three times longer than it takes to be dead: it gives up nobody, and no octet is lost",
    async () => {
      await using session = await connect(address(victim), trusting(victim));
      const stream = session.open("fellow");
      const said = randomBytes(4 * MEBIBYTE);
      const heard: Buffer[] = [];
      const over = new Promise<void>((resolve, reject) => stream.once("end", resolve).once("error", reject));
      stream.on("data", (octets: Buffer) => heard.push(octets));
      stream.end(said);
      victim.program.signal("SIGSTOP");
      await pause(3 * 900); // nothing happens in a process that is stopped: only time passes
      victim.program.signal("SIGCONT");
      await within(over, "everything to come through");
      assert.ok(Buffer.concat(heard).equals(said));
    },
  );

  await victim.survives(
    t,
    "a client: it is given up when it has been silent too long, and its back end is let go",
    async () => {
      const program = victim.lab.start(client("connect", address(victim), "cat"));
      const [, pid] = await program.hears(/(\d+)\n/);
      program.signal("SIGSTOP");
      await eventually(
        async () => assert.throws(() => process.kill(Number(pid), 0), /ESRCH/),
        "its program to be ended",
      );
      program.signal("SIGCONT");
      assert.equal(await program.ended, 255, "it learns that it was given up");
    },
  );
});

test("S06 a wall clock that jumps", async (t) => {
  const victim = await Victim.start(t, {
    limits: {
      ...{ firstLine: "700ms", keepalive: { interval: "300ms", misses: 2 } },
      unauthenticated: { spareLoopback: true },
    },
  });
  for (const [jump, ms] of [
    ["90 days ahead", 90 * DAY_MS],
    ["a day back", -DAY_MS],
  ] as const) {
    await victim.survives(t, `${jump}: deadlines come when they are due, and sessions go on`, async () => {
      await using silent = await Enemy.approach(victim.at);
      const start = performance.now();
      await using session = await EnemySession.approach(victim.at);
      const alive = setInterval(
        () => session.tell({ type: "ping", received: session.received, opaque: 1, reply: false }),
        100,
      );
      try {
        for (let jumps = 0; jumps < 10; jumps++) {
          victim.moveClock(ms);
          victim.moveClock(-ms);
        }
        victim.moveClock(ms);
        await victim.serves();
        await using newcomer = await connect(address(victim), trusting(victim));
        assert.ok((await newcomer.list("fellow")).includes("fellow"));
        assert.match(await silent.rest(), /^- 408 /);
        const waited = performance.now() - start;
        assert.ok(waited > 500, `${waited} ms for the first line`);
        assert.equal(session.enemy.end, "open");
      } finally {
        clearInterval(alive);
        victim.moveClock(-ms);
      }
    });
  }
});

const IMPORTS = `import { connect } from "node:net";
import { Transform } from "node:stream";
import { service } from "fived";
void connect, Transform;
`;

/** Services that throw, each in another place. */
const THROWING: Readonly<Record<string, string>> = {
  "at-once": '(stream) => { throw new Error("boom"); }',
  later: 'async (stream) => { await null; throw new Error("boom"); }',
  "not-an-error": '(stream) => { throw "boom"; }',
  "in-data": '(stream) => { stream.on("data", () => { throw new Error("boom"); }); }',
  "in-end": '(stream) => { stream.resume(); stream.on("end", () => { throw new Error("boom"); }); }',
  "in-close":
    '(stream) => { stream.resume(); stream.on("close", () => { throw new Error("boom"); }); stream.destroy(); }',
  "in-error":
    '(stream) => { stream.on("error", () => { throw new Error("boom"); }); stream.destroy(new Error("first")); }',
  "in-transform":
    '(stream) => { stream.pipe(new Transform({ transform() { throw new Error("boom"); } })).pipe(stream); }',
  "in-timer": '(stream) => { setTimeout(() => { throw new Error("boom"); }, 1); }',
  "in-immediate": '(stream) => { setImmediate(() => { throw new Error("boom"); }); }',
  "in-microtask": '(stream) => { queueMicrotask(() => { throw new Error("boom"); }); }',
  "in-rejection": '(stream) => { void (async () => { await null; throw new Error("boom"); })(); }',
  "in-listeners-timer": '(stream) => { stream.on("data", () => setTimeout(() => { throw new Error("boom"); }, 1)); }',
  "in-socket": '(stream) => { stream.pipe(connect(9, "127.0.0.9")).pipe(stream); }',
};

/** The same for services that speak the interface of the built-in words. */
const THROWING_TALKS: Readonly<Record<string, string>> = {
  "talk-at-once": '{ word: "x", serve() { throw new Error("boom"); } }',
  "talk-later": '{ word: "x", async serve() { throw new Error("boom"); } }',
  "talk-accepted": '{ word: "x", async serve(talk) { talk.accept(); throw new Error("boom"); } }',
  "talk-unserved": '{ word: "x", serve: (talk) => { talk.stream().destroy(); return "bytes"; } }',
};

test("S08 services that throw", async (t) => {
  const files = Object.fromEntries([
    ...Object.entries(THROWING).map(([name, handler]) => [
      `${name}.ts`,
      `${IMPORTS}export default service("x", ${handler});\n`,
    ]),
    ...Object.entries(THROWING_TALKS).map(([name, talk]) => [`${name}.ts`, `export default ${talk};\n`]),
  ]);
  const names = Object.keys(files).map((file) => file.slice(0, -".ts".length));
  const victim = await Victim.start(t, {
    services: Object.fromEntries(names.map((name) => [name, { module: `${name}.ts` }])),
    files,
    limits: { unauthenticated: { spareLoopback: true } },
  });
  for (const name of names) {
    await victim.survives(
      t,
      `${name}: that stream ends, its session does not, and a bare connection ends too`,
      async () => {
        await using session = await EnemySession.approach(victim.at);
        session.say(open(1, name), data(1, 0, "anything", true));
        await session.until(() => session.resets.has(1) || session.finished.has(1), "the end of the stream");
        session.say(open(3, "fellow"), data(3, 0, "goes on", true));
        await session.hears(3, /^\+ SUCCESS\r\ngoes on$/);
        await using bare = await Enemy.approach(victim.at);
        bare.say(`${name}\r\nanything`);
        bare.socket.end();
        await bare.over();
      },
    );
  }
});

/** The number that a program has said on a stream. */
function pidIn(session: EnemySession, stream: number): number {
  return Number(/\n(\d+)\n/.exec(session.texts.get(stream) ?? "")?.[1]);
}

/** Processes that the server has started, and not reaped. */
function childrenOf({ program: { pid } }: Victim): readonly number[] {
  const children = fs.readFileSync(`/proc/${pid}/task/${pid}/children`, "latin1");
  return children
    .split(" ")
    .filter((child) => child !== "")
    .map(Number);
}

/** Processor time of a server, told by the kernel. */
function cpuMsOf({ program: { pid } }: Victim): number {
  // Behind the name, which may hold anything, come the fields from the third on; user and system time are the 14th and 15th, in 1/100 s.
  const stat = fs.readFileSync(`/proc/${pid}/stat`, "latin1");
  const fields = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
  return (Number(fields[11]) + Number(fields[12])) * 10;
}

function address({ at }: Victim): string {
  return `${at.host}:${at.port}`;
}

function trusting({ lab }: Victim) {
  return { knownHosts: lab.path("known_hosts"), strictHostKeyChecking: "accept-new" } as const;
}
