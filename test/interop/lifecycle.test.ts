/**
 * The server's signals, with work under way: SIGHUP reads the configuration again, SIGTERM lets running streams end. Signals with nothing
 * under way, and mistakes in the configuration, are tested in e2e.
 * @module
 */
import assert from "node:assert/strict";
import net from "node:net";
import test, { type TestContext } from "node:test";
import { hashOf, writeBulk } from "../support/bulk.ts";
import { eventually, within } from "../support/deadline.ts";
import { client, connect, forward, list, serve } from "../support/fived.ts";
import { Lab, reachable } from "../support/lab.ts";

/** How long streams may go on after SIGTERM (PROTOCOL §9.3). */
const DRAIN_MS = 10_000;

test("SIGHUP adds a service while 100 MB are on their way, and the transfer is whole", async (t) => {
  const lab = await Lab.open(t);
  const hash = await writeBulk(lab.path("bulk"), 100);
  const bulk = { exec: ["cat", lab.path("bulk")] };
  const server = await serve(lab, { services: { bulk } });
  const transfer = lab.start(client("connect", server.address, "bulk"), { kept: false });
  // Until we read on, the transfer stands still somewhere in the middle, in whatever buffers there are.
  await within(new Promise((resolve) => transfer.output.once("readable", resolve)), "the first bytes");
  await server.reload({ services: { bulk, greet: { exec: ["echo", "hello"] } } });
  assert.ok((await list(lab, server.address)).includes("greet"));
  assert.equal((await connect(lab, server.address, "greet")).text, "hello\n");
  assert.equal(await within(hashOf(transfer.output), "the end of the transfer"), hash);
  assert.equal(await transfer.ended, 0);
});

test("SIGHUP that removes a service cuts nobody who is using others, and the name is unknown from then on", async (t) => {
  const { lab, server, caller } = await questions(t);
  await server.reload({ services: { question: { exec: QUESTION } } });
  assert.equal((await connect(lab, server.address, "greet")).status, 255);
  caller.says("an answer\n");
  assert.equal(await caller.rest(), "thank you for an answer\n");
  assert.equal(await caller.ended, 0, caller.complained);
});

test("SIGTERM ends an idle server with idle sessions at once", async (t) => {
  const { lab, server } = await quiet(t);
  const [port = 0] = await forward(lab, server, "greet");
  // The forward has a session now, and keeps it.
  const socket = net.connect({ port, host: "127.0.0.1" });
  await within(new Promise((resolve) => socket.resume().once("close", resolve)), "the end of the first stream");
  const start = performance.now();
  server.program.signal("SIGTERM");
  assert.equal(await server.program.ended, 0);
  const took = performance.now() - start;
  assert.ok(took < DRAIN_MS / 2, `it took ${Math.round(took)} ms`);
});

test("SIGTERM refuses what is new, lets a running stream finish, and then the server exits with 0", async (t) => {
  const { server, caller } = await questions(t);
  server.program.signal("SIGTERM");
  await eventually(() => assert.rejects(reachable(server.port)), "the server to stop listening");
  caller.says("my answer\n");
  assert.equal(await caller.rest(), "thank you for my answer\n");
  assert.equal(await caller.ended, 0, caller.complained);
  assert.equal(await server.program.ended, 0);
});

test("a stream that will not finish is cut ten seconds after SIGTERM; its caller learns that, and the server exits with 0", async (t) => {
  const { server, caller } = await questions(t);
  const start = performance.now();
  server.program.signal("SIGTERM");
  assert.equal(await server.program.ended, 0);
  const took = performance.now() - start;
  assert.ok(took > DRAIN_MS - 1_000 && took < DRAIN_MS + 5_000, `it took ${Math.round(took)} ms`);
  assert.equal(await caller.ended, 255);
  assert.notEqual(caller.complained, "");
});

/** Asks something, and waits for an answer. */
const QUESTION = ["sh", "-c", 'echo your answer?; read -r answer; echo "thank you for $answer"'];

/** A server with a service that asks a question. */
async function quiet(t: TestContext) {
  const lab = await Lab.open(t);
  const server = await serve(lab, { services: { question: { exec: QUESTION }, greet: { exec: ["echo", "hello"] } } });
  return { lab, server };
}

/** The same, with a caller who has been asked and has not answered. */
async function questions(t: TestContext) {
  const { lab, server } = await quiet(t);
  const caller = lab.start(client("connect", server.address, "question"));
  await caller.hears(/your answer\?\n/);
  return { lab, server, caller };
}
