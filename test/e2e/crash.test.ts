/**
 * A session manager that is killed in the middle of things: another one is started, and the streams of programs go on at the very octet (issue case S04).
 * @module
 */
import assert from "node:assert/strict";
import { once } from "node:events";
import { createWriteStream } from "node:fs";
import fs from "node:fs/promises";
import net from "node:net";
import path from "node:path";
import test, { type TestContext } from "node:test";
import { setTimeout as pause } from "node:timers/promises";
import { ManagerClient } from "../../src/client/index.ts";
import { hashOf, hashOfFile, writeBulk } from "../support/bulk.ts";
import { eventually, within } from "../support/deadline.ts";
import { client, fived } from "../support/fived.ts";
import { Lab, portOf } from "../support/lab.ts";
import type { Program } from "../support/program.ts";
import { Relay } from "../support/relay.ts";

const MEGABYTES = 60;
const KILLS = 5;

class World {
  readonly lab: Lab;
  readonly env: NodeJS.ProcessEnv;
  address = "";
  source = "";
  hash = "";
  server: Program | undefined;
  readonly killed = new Set<number>();

  private constructor(lab: Lab) {
    this.lab = lab;
    this.env = { FIVED_MANAGER: lab.path("run", "manager.sock") };
  }

  static async open(t: TestContext, megabytes = MEGABYTES): Promise<World> {
    const lab = await Lab.open(t);
    const world = new World(lab);
    lab.defer(async () => void (await lab.run(fived("down"), { env: world.env })));
    world.source = lab.path("source");
    world.hash = await writeBulk(world.source, megabytes);
    const allow = ["anyone"];
    const configuration = {
      listen: ["tcp://127.0.0.1:0"],
      services: {
        // Both take their time, a megabyte for each step.
        bulk: { exec: ["sh", "-c", slowlyFrom(world.source, megabytes)], allow },
        keep: { exec: ["sh", "-c", `: >${lab.path("kept")}; ${slowlyTo(lab.path("kept"))}; echo kept`], allow },
        all: { exec: ["cat", world.source], allow },
        cat: { exec: ["cat"], allow },
        half: { to: `127.0.0.1:${await saysAndListens(t, lab.path("half"))}`, allow },
      },
      sessions: { detach: { anonymous: 4 } },
    };
    const settings = await lab.write("fived.yaml", JSON.stringify(configuration));
    world.server = lab.start(fived("serve", "-c", settings, "--state", lab.path("server")));
    [, world.address = ""] = await world.server.hears(/listening on tcp:\/\/(\S+)/);
    return world;
  }

  /** Names of the tickets that the manager keeps. */
  tickets(): Promise<string[]> {
    return fs.readdir(this.lab.path("run", "sessions"));
  }

  /** Has a manager with a session: what is opened from now on can go on without it. The session's ticket. */
  async warm(address = this.address): Promise<string> {
    const { status, stderr } = await this.lab.run(client("list", address), { env: this.env });
    assert.equal(status, 0, stderr);
    return await eventually(async () => {
      const [name] = await this.tickets();
      assert.match(name ?? "", /^[\w-]{22}$/); // not while it is being written
      return this.lab.path("run", "sessions", name ?? "");
    }, "a ticket to be kept");
  }

  /** Starts a command; its standard streams may be files. */
  start(command: readonly string[], { from, to }: { readonly from?: string; readonly to?: string } = {}): Program {
    const redirected = `exec "$@"${from === undefined ? "" : ` <'${from}'`}${to === undefined ? "" : ` >'${to}'`}`;
    return this.lab.start(["sh", "-c", redirected, "sh", ...command], { env: this.env });
  }

  /** Kills the manager, as soon as there is one that was not killed yet. */
  async kill(): Promise<void> {
    const pid = await eventually(async () => {
      await using manager = await ManagerClient.connect(this.lab.path("run", "manager.sock"));
      assert.ok(manager !== undefined && !this.killed.has(manager.pid));
      return manager.pid;
    }, "another manager");
    this.killed.add(pid);
    process.kill(pid, "SIGKILL");
  }
}

/** Shell: a file, a megabyte at a time. */
function slowlyFrom(file: string, megabytes: number): string {
  return `for at in $(seq 0 ${megabytes}); do dd if=${file} bs=1000000 skip=$at count=1 status=none; sleep 0.04; done`;
}

/** Shell: a megabyte of standard input at a time, behind what the file has. */
function slowlyTo(file: string): string {
  return `while had=$(stat -c %s ${file}); head -c 1000000 >>${file}; [ $(stat -c %s ${file}) -gt $had ]; do sleep 0.04; done`;
}

/** A service that has said all it has to say, and still listens: its port. */
async function saysAndListens(t: TestContext, file: string): Promise<number> {
  const server = net.createServer({ allowHalfOpen: true }, (socket) => {
    socket.end("that is all\n");
    socket.pipe(createWriteStream(file));
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  t.after(() => server.close());
  return portOf(server);
}

/** A file has grown beyond that. */
async function grown(file: string, bytes: number, program: Program): Promise<void> {
  const seen = (): string => `: ${program.complained}`;
  await eventually(async () => assert.ok((await fs.stat(file)).size > bytes), `${file} to have ${bytes} octets`, {
    seen,
  });
}

test("S04 a download goes on at the very octet while managers are killed", async (t) => {
  const world = await World.open(t);
  await world.warm();
  const to = world.lab.path("first");
  const program = world.start(client("connect", world.address, "bulk"), { to });
  for (let kill = 1; kill <= KILLS; kill++) {
    await grown(to, (kill * MEGABYTES * 700_000) / KILLS, program);
    await world.kill();
  }
  assert.equal(await within(program.ended, "the end", { ms: 60_000 }), 0, program.complained);
  assert.equal(await hashOfFile(to), world.hash);
  assert.match(program.complained, /lost the session manager: going on by way of another/);
});

test("S04 an upload goes on at the very octet while managers are killed", async (t) => {
  const world = await World.open(t);
  await world.warm();
  const to = world.lab.path("kept");
  const program = world.start(client("connect", world.address, "keep"), { from: world.source });
  for (let kill = 1; kill <= KILLS; kill++) {
    await grown(to, (kill * MEGABYTES * 700_000) / KILLS, program);
    await world.kill();
  }
  assert.equal(await within(program.ended, "the end", { ms: 60_000 }), 0, program.complained);
  assert.equal(program.said, "kept\n");
  assert.equal(await hashOfFile(to), world.hash);
});

test("S04 what is typed and answered goes on, also where the answer had ended", async (t) => {
  const world = await World.open(t, 1);
  await world.warm();
  const [typed, half] = [
    world.start(client("connect", world.address, "cat")),
    world.start(client("connect", world.address, "half")),
  ];
  typed.says("one\n");
  await typed.hears(/^one$/m);
  await half.hears(/^that is all$/m);
  for (const word of ["two", "three"]) {
    await world.kill();
    typed.says(`${word}\n`);
    await typed.hears(new RegExp(`^${word}$`, "m"));
    half.says(`${word}\n`);
  }
  typed.hangsUp();
  half.hangsUp();
  assert.deepEqual([await within(typed.ended, "cat"), await within(half.ended, "half")], [0, 0], half.complained);
  assert.equal(typed.said, "one\ntwo\nthree\n");
  await eventually(
    async () => assert.equal(await fs.readFile(world.lab.path("half"), "utf8"), "two\nthree\n"),
    "what was typed behind the answer's end",
  );
});

test("S04 what nobody has read yet is not lost with the manager", async (t) => {
  const world = await World.open(t, 30);
  await world.warm();
  const program = world.lab.start(client("connect", world.address, "all"), { env: world.env, kept: false });
  await pause(1_500); // as much comes as there is credit for, and then nothing
  await world.kill();
  assert.equal(await within(hashOf(program.output), "all of it"), world.hash, program.complained);
  assert.equal(await within(program.ended, "the end"), 0);
});

test("S04 twenty streams go on together, over a network that comes back after the manager", async (t) => {
  const world = await World.open(t, 2);
  const [host = "", port] = world.address.split(":");
  const relay = await Relay.to(t, { host, port: Number(port) });
  const address = `127.0.0.1:${relay.port}`;
  await world.warm(address);
  const programs = Array.from({ length: 20 }, () => world.start(client("connect", address, "cat")));
  for (const [at, program] of programs.entries()) program.says(`${at} before\n`);
  for (const [at, program] of programs.entries()) await program.hears(new RegExp(`^${at} before$`, "m"));
  relay.forget("server"); // the server still waits for the old connection
  await world.kill();
  for (const [at, program] of programs.entries()) program.says(`${at} behind\n`);
  for (const [at, program] of programs.entries()) await program.hears(new RegExp(`^${at} behind$`, "m"));
  for (const program of programs) program.hangsUp();
  for (const program of programs) assert.equal(await within(program.ended, "the end"), 0, program.complained);
});

test("S04 a program with the library goes on, and starts the next manager", async (t) => {
  const world = await World.open(t, 20);
  const { lab } = world;
  const library = path.join(import.meta.dirname, "..", "..", "src", "index.ts");
  const file = await lab.write(
    "program.ts",
    `import { connect } from ${JSON.stringify(library)};
     import { createWriteStream } from "node:fs";
     import { pipeline } from "node:stream/promises";
     const session = await connect(process.argv[2]);
     const stream = session.open("bulk");
     stream.end();
     await pipeline(stream, createWriteStream(process.argv[3]));
     console.log((await session.list()).includes("bulk"));
     await session.close();`,
  );
  await world.warm();
  const to = lab.path("first");
  const program = lab.start([process.execPath, file, world.address, to], { env: world.env });
  await grown(to, 5_000_000, program);
  await world.kill();
  assert.equal(await within(program.ended, "the program"), 0, program.complained);
  assert.equal(program.said, "true\n");
  assert.equal(await hashOfFile(to), world.hash);
});

test("S04 a manager that is told to end takes its streams with it, and keeps no ticket", async (t) => {
  const world = await World.open(t, 1);
  const ticket = await world.warm();
  const program = world.start(client("connect", world.address, "cat"));
  program.says("one\n");
  await program.hears(/^one$/m);
  assert.equal((await fs.stat(ticket)).mode & 0o777, 0o600);
  await world.lab.run(fived("down"), { env: world.env });
  assert.equal(await within(program.ended, "the end"), 255);
  assert.doesNotMatch(program.complained, /going on/);
  assert.deepEqual(await world.tickets(), []);
});

test("S04 without its ticket, or without its server, a stream ends with an error that says so", async (t) => {
  const world = await World.open(t, 1);
  for (const spoil of ["the ticket", "the server"] as const) {
    const ticket = await world.warm();
    const program = world.start(client("connect", world.address, "cat"));
    program.says("one\n");
    await program.hears(/^one$/m);
    if (spoil === "the ticket") await fs.writeFile(ticket, "{}");
    else process.kill(world.server?.pid ?? 0, "SIGKILL");
    await world.kill();
    assert.equal(await within(program.ended, "the end"), 255, program.complained);
    assert.match(program.complained, spoil === "the ticket" ? /Lost the session manager/ : /the server has ended/);
    await fs.rm(ticket, { force: true });
  }
});

test("S04 a program that was stopped holds up no other, and where it missed something it hears so", async (t) => {
  const world = await World.open(t, 30);
  const to = world.lab.path("first");
  await world.warm();
  const stopped = world.start(client("connect", world.address, "bulk"), { to });
  const other = world.start(client("connect", world.address, "cat"));
  await grown(to, 3_000_000, stopped);
  stopped.signal("SIGSTOP");
  for (let at = 0; at < 5; at++) {
    await pause(500);
    other.says(`${at}\n`);
    await other.hears(new RegExp(`^${at}$`, "m"));
  }
  await world.kill();
  stopped.signal("SIGCONT");
  assert.equal(await within(stopped.ended, "the end"), 255);
  assert.match(stopped.complained, /some of what had come for it was with the session manager that has ended/);
  const had = await fs.readFile(to);
  assert.ok(had.equals((await fs.readFile(world.source)).subarray(0, had.length)), "what has come is the beginning");
  other.says("and on\n");
  await other.hears(/^and on$/m);
});

test("S04 the programs behind a forward notice nothing", async (t) => {
  const world = await World.open(t, 1);
  await world.warm();
  const forward = world.start(client("forward", `0=${world.address}/cat`));
  const [, port] = await forward.hears(/^fived: 127\.0\.0\.1:(\d+) -> /);
  const programs = Array.from({ length: 5 }, () => net.connect({ host: "127.0.0.1", port: Number(port) }));
  for (const [at, program] of programs.entries()) {
    program.on("error", assert.fail).setEncoding("utf8");
    for (const word of ["before", "behind"]) {
      program.write(`${at} ${word}\n`);
      assert.deepEqual(await within(once(program, "data"), "an answer"), [`${at} ${word}\n`]);
      if (at > 0 || word === "behind") continue;
      await world.kill();
    }
    program.end();
    await within(once(program, "close"), "the end");
    if (at === 3) await world.kill();
  }
});
