/**
 * L08 and H06 where they speak of time: what a name costs must not tell whether it is there (PROTOCOL §3.2), nor how many others are
 * (§4.1). Time itself belongs to the benchmark; here the work is counted.
 * @module
 */
import assert from "node:assert/strict";
import fs from "node:fs/promises";
import os from "node:os";
import path from "node:path";
import test, { type TestContext } from "node:test";
import {
  type Configuration,
  configurationFromTargets,
  createLog,
  loadConfiguration,
  serve,
} from "../../src/server/index.ts";
import { callsIn, WorkCounter } from "./counted-work.ts";
import { Enemy } from "./enemy.ts";

/** Requests before counting starts: what is done once in a process's life is no work of a request. */
const WARM_UP = 3;

test("L08 asking for what is forbidden calls what asking for what is not there calls, as often", async (t) => {
  const friends = Array.from({ length: 500 }, (_, index) => `friend-${index}`);
  const at = await serveHere(t, async (state) => {
    const file = path.join(state, "fived.yaml");
    const services = {
      "secret-svc": { to: 9, allow: ["many", ...friends] },
      "shown-svc": { to: 9, allow: ["anyone"] },
    };
    // JSON is YAML.
    await fs.writeFile(file, JSON.stringify({ listen: "tcp://127.0.0.1:0", roles: { many: friends }, services }));
    return await loadConfiguration(file, { state });
  });
  await using counter = await WorkCounter.start("/src/");
  const work = async (octets: string) => {
    for (let round = 0; round < WARM_UP; round++) await answerTo(at, octets);
    return await counter.least(() => answerTo(at, octets));
  };
  for (const request of ["NAME\r\n", "LIST NAME\r\nHELP x\r\n"]) {
    const forbidden = await work(request.replace("NAME", "secret-svc"));
    const absent = await work(request.replace("NAME", "absent-svc"));
    assert.ok(callsIn(forbidden) > 10, "counted something");
    assert.deepEqual(forbidden, absent);
  }
});

test("H06 one name among 100,000 services costs what one among ten does", async (t) => {
  const counts: number[] = [];
  for (const services of [10, 100_000]) {
    const targets = Array.from({ length: services }, (_, index) => `s${index}=9`);
    const at = await serveHere(t, (state) =>
      configurationFromTargets({ targets, listen: ["tcp://127.0.0.1:0"], state }),
    );
    await using counter = await WorkCounter.start("/src/");
    const request = "LIST s9\r\nLIST nothing\r\nHELP x\r\n";
    for (let round = 0; round < WARM_UP; round++) assert.match(await answerTo(at, request), /^s9\r\n\r\n\r\n- 500 /);
    counts.push(callsIn(await counter.least(() => answerTo(at, request))));
  }
  const [few = 0, many = 0] = counts;
  assert.ok(few > 10, "counted something");
  assert.equal(many, few);
});

/** Serves in this process until the test ends: only here can calls be counted. */
async function serveHere(t: TestContext, configured: (state: string) => Configuration | Promise<Configuration>) {
  const state = await fs.mkdtemp(path.join(os.tmpdir(), "fived-abuse-"));
  const server = await serve(await configured(state), { log: createLog({ level: "silent" }) });
  t.after(async () => {
    await server[Symbol.asyncDispose]();
    await fs.rm(state, { recursive: true });
  });
  const port = Number(/:(\d+)$/.exec(server.addresses[0] ?? "")?.[1]);
  return { host: "127.0.0.1", port };
}

/** Everything a server says to these octets. */
async function answerTo(at: { readonly host: string; readonly port: number }, octets: string): Promise<string> {
  await using enemy = await Enemy.approach(at);
  enemy.say(octets);
  const said = await enemy.rest();
  const closed = enemy.until(() => enemy.socket.closed, "the server to see our end");
  enemy.socket.end();
  await closed;
  return said;
}
