/**
 * A session manager that is killed in the middle of things: another one is started, and the streams of programs go on at the very octet (issue case S04).
 * @module
 */
import assert from "node:assert/strict";
import fs from "node:fs/promises";
import test, { type TestContext } from "node:test";
import { ManagerClient } from "../../src/client/index.ts";
import { hashOfFile, writeBulk } from "../support/bulk.ts";
import { eventually, within } from "../support/deadline.ts";
import { client, fived } from "../support/fived.ts";
import { Lab } from "../support/lab.ts";
import type { Program } from "../support/program.ts";

const MEGABYTES = 60;
const KILLS = 5;

class World {
  readonly lab: Lab;
  readonly env: NodeJS.ProcessEnv;
  address = "";
  source = "";
  hash = "";
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
        cat: { exec: ["cat"], allow },
        shell: { exec: ["sh"], allow },
      },
      sessions: { detach: { anonymous: 4 } },
    };
    const settings = await lab.write("fived.yaml", JSON.stringify(configuration));
    const server = lab.start(fived("serve", "-c", settings, "--state", lab.path("server")));
    [, world.address = ""] = await server.hears(/listening on tcp:\/\/(\S+)/);
    return world;
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

/** A file has grown beyond that. */
async function grown(file: string, bytes: number, program: Program): Promise<void> {
  const seen = (): string => `: ${program.complained}`;
  await eventually(async () => assert.ok((await fs.stat(file)).size > bytes), `${file} to have ${bytes} octets`, {
    seen,
  });
}

test("S04 a download goes on at the very octet while managers are killed", async (t) => {
  const world = await World.open(t);
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
