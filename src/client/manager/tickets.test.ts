import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import fs from "node:fs/promises";
import os from "node:os";
import path from "node:path";
import test, { type TestContext } from "node:test";
import { type KeptSession, nameOf } from "../kept.ts";
import { Tickets } from "./tickets.ts";

async function folder(t: TestContext): Promise<string> {
  const made = await fs.mkdtemp(path.join(os.tmpdir(), "fived-tickets-"));
  t.after(() => fs.rm(made, { recursive: true }));
  return made;
}

async function opened(t: TestContext, at: string): Promise<Tickets> {
  const tickets = new Tickets(path.join(at, "manager.sock"), assert.fail);
  await tickets.open();
  t.after(() => tickets[Symbol.dispose]());
  return tickets;
}

function session(generation = 0): KeptSession {
  return {
    address: "example.org",
    fingerprint: `SHA256:${"A".repeat(43)}`,
    ticket: { sid: randomBytes(16), generation, secret: randomBytes(32) },
    ttlMs: 900_000,
    reached: { host: "192.0.2.1", port: 1078 },
    identity: "alice",
  };
}

test("a ticket is found by another manager, the newest of those that were kept, and only by its name", async (t) => {
  const at = await folder(t);
  const [one, next] = [await opened(t, at), await opened(t, at)];
  const kept = session();
  const name = nameOf(kept.ticket.sid);
  const newer = { ...kept, ticket: { ...kept.ticket, generation: 1, secret: randomBytes(32) } };
  void one.keep(kept);
  await one.keep(newer);
  assert.deepEqual(await next.take(name), newer);
  assert.equal(await next.take(nameOf(randomBytes(16))), undefined);
  const file = path.join(at, "sessions", name);
  assert.equal((await fs.stat(file)).mode & 0o777, 0o600);
  assert.equal((await fs.stat(path.dirname(file))).mode & 0o777, 0o700);
  one.forget(kept.ticket.sid);
  assert.equal(await one.take(name), undefined);
});

test("a file that others could read, or that says something else, is not believed", async (t) => {
  const at = await folder(t);
  const tickets = await opened(t, at);
  const kept = session();
  const name = nameOf(kept.ticket.sid);
  const file = path.join(at, "sessions", name);
  await tickets.keep(kept);
  await fs.chmod(file, 0o644);
  await assert.rejects(tickets.take(name), /others may read or change it/);
  const text = await fs.readFile(file, "utf8");
  for (const said of [
    "",
    "{",
    "null",
    text.replace('"version":1', '"version":2'),
    text.replace(name, nameOf(randomBytes(16))),
    text.replace(/"secret":"[^"]*"/, '"secret":"short"'),
    text.replace(/"generation":0/, '"generation":"0"'),
  ]) {
    await fs.writeFile(file, said);
    await fs.chmod(file, 0o600);
    assert.equal(await tickets.take(name), undefined, said);
  }
  await fs.writeFile(file, " ".repeat(5_000));
  await assert.rejects(tickets.take(name), /the limit is 4096/);
});
