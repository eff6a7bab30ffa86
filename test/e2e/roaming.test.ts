/**
 * Sessions whose computer moves: two computers in namespaces of their own, real addresses, and the command as people run it.
 * @module
 */
import assert from "node:assert/strict";
import fs from "node:fs/promises";
import test, { type TestContext } from "node:test";
import { setTimeout as pause } from "node:timers/promises";
import { hashOfFile, writeBulk } from "../support/bulk.ts";
import { eventually, within } from "../support/deadline.ts";
import { client, fived } from "../support/fived.ts";
import { Lab } from "../support/lab.ts";
import { needs } from "../support/needs.ts";
import { Network, SERVER } from "../support/network.ts";
import type { Program } from "../support/program.ts";

const skip = needs("root", "ip", "nsenter", "unshare");
const MEGABYTES = 100;

interface Download {
  readonly network: Network;
  readonly server: Program;
  /** Starts it again. */
  serve(): Promise<Program>;
  /** Of what is downloaded. */
  readonly hash: string;
  readonly file: string;
  readonly program: Program;
  /** Resolves when so many octets have come. */
  reached(octets: number): Promise<void>;
}

/** A large file that is on its way, from one computer to the other. */
async function download(t: TestContext): Promise<Download> {
  const lab = await Lab.open(t);
  const network = await Network.open(lab);
  await network.lay(1);
  const source = lab.path("source");
  const hash = await writeBulk(source, MEGABYTES);
  const configuration = {
    listen: ["tcp://0.0.0.0:1078"],
    // Slow enough that things can happen meanwhile.
    services: {
      bulk: {
        exec: ["sh", "-c", `head -c 1000000 ${source}; sleep 0.1; tail -c +1000001 ${source}`],
        allow: ["anyone"],
      },
    },
    sessions: { detach: { anonymous: 4 } },
  };
  const settings = await lab.write("fived.yaml", JSON.stringify(configuration));
  const serve = async (): Promise<Program> => {
    const program = lab.start(network.atServer(fived("serve", "-c", settings, "--state", lab.path("server"))));
    await program.hears(/listening on/);
    return program;
  };
  const server = await serve();
  const file = lab.path("copy");
  const command = client("connect", SERVER, "bulk");
  const program = lab.start(
    network.atClient(["sh", "-c", 'file=$1; shift; exec "$@" >"$file"', "sh", file, ...command]),
  );
  return {
    ...{ network, server, serve, hash, file, program },
    async reached(octets) {
      await eventually(
        async () => assert.ok(((await fs.stat(file).catch(() => undefined))?.size ?? 0) >= octets),
        `${octets} octets`,
      );
    },
  };
}

async function arrives({ program, file, hash }: Download): Promise<void> {
  assert.equal(await within(program.ended, "the end of the download", { ms: 60_000 }), 0, program.complained);
  assert.equal(await hashOfFile(file), hash);
}

test("the address changes in the middle of a download, and then the network", { skip }, async (t) => {
  const all = await download(t);
  const { network } = all;
  await all.reached(500_000);
  await network.fell(1);
  await network.raise(1, 77);
  await all.reached(20_000_000);
  // Another network, before the first is gone: as when a laptop is taken out of its dock.
  await network.lay(2);
  await network.fell(1);
  await arrives(all);
  assert.match(all.program.complained, /went on with the session at 10\.78\.0\.1 over a new connection/);
});

test("30 seconds without a network, of which nobody is told", { skip }, async (t) => {
  const all = await download(t);
  await all.reached(500_000);
  await all.network.swallow(1, "from now on");
  await pause(30_000); // the outage itself
  await all.network.swallow(1, "no more");
  await arrives(all);
});

test("a server that is killed: the command says so, and does not pretend that it was all", { skip }, async (t) => {
  const all = await download(t);
  await all.reached(500_000);
  all.server.signal("SIGKILL");
  assert.equal(await within(all.program.ended, "the command to give up", { ms: 30_000 }), 255);
  assert.match(all.program.complained, /Cannot go on with the .* the server has ended: .*ECONNREFUSED/);
});

test("a server that is killed and started again does not know the session: the command says so at once", {
  skip,
}, async (t) => {
  const all = await download(t);
  await all.reached(500_000);
  all.server.signal("SIGKILL");
  await all.server.ended;
  await all.serve();
  assert.equal(await within(all.program.ended, "the command to give up"), 255);
  assert.match(
    all.program.complained,
    /Cannot go on with the stream: the server knows no such session of ours \(403\)/,
  );
});
