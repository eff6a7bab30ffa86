import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import { once } from "node:events";
import fs from "node:fs/promises";
import os from "node:os";
import path from "node:path";
import { PassThrough } from "node:stream";
import test, { type TestContext } from "node:test";
import { setTimeout as pause } from "node:timers/promises";
import { within } from "../../test/support/deadline.ts";
import { scripted, WELCOME } from "../../test/support/scripted-server.ts";
import { backEnd, Victim } from "../../test/support/victim.ts";
import { detachableLine } from "../identity/index.ts";
import { parseAddress } from "./address.ts";
import { connect } from "./connect.ts";
import type { ConnectOptions } from "./dial.ts";
import { attach, openSession } from "./open-session.ts";

async function world(t: TestContext): Promise<{ readonly address: string; readonly options: ConnectOptions }> {
  const echo = await backEnd(t, (socket) => socket.pipe(socket));
  const { at } = await Victim.start(t, {
    services: { echo: { to: echo } },
    sessions: { detach: { anonymous: 10 } },
  });
  const folder = await fs.mkdtemp(path.join(os.tmpdir(), "fived-attach-"));
  t.after(() => fs.rm(folder, { recursive: true, force: true }));
  const options = { strictHostKeyChecking: "off", knownHosts: path.join(folder, "known_hosts") } as const;
  return { address: `127.0.0.1:${at.port}`, options };
}

test("a program leaves a session, and another goes on with each of its streams", async (t) => {
  const { address, options } = await world(t);
  const session = await connect(address, options);
  const [one, other] = [session.open("echo"), session.open("echo")];
  for (const [stream, word] of [
    [one, "one"],
    [other, "other"],
  ] as const) {
    stream.write(word);
    assert.equal(String((await within(once(stream, "data"), "an echo"))[0]), word);
  }
  const ends = [one, other].map((stream) => within(once(stream, "error"), "its end"));
  const token = await session.detach();
  for (const [error] of await Promise.all(ends)) {
    assert.equal(error.code, "STREAM_RESET");
    assert.equal(error.reason, "SUPERSEDED");
  }
  await assert.rejects(session.closed, { code: "SESSION_LOST" });
  const { session: again, streams } = await attach(token, options);
  await using _again = again;
  assert.deepEqual(
    streams.map(({ id, service, sent, received }) => ({ id, service, sent, received })),
    [
      { id: 1, service: "echo", sent: 3, received: "+ SUCCESS\r\none".length },
      { id: 3, service: "echo", sent: 5, received: "+ SUCCESS\r\nother".length },
    ],
  );
  for (const { stream } of streams) {
    stream.end("again");
    const parts: Buffer[] = [];
    for await (const part of stream) parts.push(part);
    assert.equal(Buffer.concat(parts).toString(), "again");
  }
  const more = again.open("echo");
  more.write("more");
  assert.equal(String((await within(once(more, "data"), "an echo"))[0]), "more");
  more.end();
  await within(once(more.resume(), "close"), "its end");
});

test("a session waits for a slow reader before it is left, and looks for no connection meanwhile", async (t) => {
  const { address, options } = await world(t);
  const session = await connect(address, options);
  const stream = session.open("echo");
  stream.write(Buffer.alloc(300_000, "x"));
  await within(once(stream, "connect"), "the service");
  const left = session.detach();
  await pause(1_000); // many looks at the way, while nobody reads
  let heard = 0;
  stream.on("data", ({ length }: Buffer) => {
    heard += length;
  });
  const end = within(once(stream, "error"), "its end here");
  const { session: again, streams } = await attach(await left, options);
  await using _again = again;
  await end;
  const [first] = streams;
  assert.ok(first !== undefined && first.sent === 300_000);
  first.stream.end();
  for await (const { length } of first.stream) heard += length;
  assert.equal(heard, 300_000, "here and there, each octet once");
});

test("a session that cannot be left goes on: what has come was not taken", async (t) => {
  const { address, options } = await world(t);
  await using session = await connect(address, options);
  const stream = session.open("echo");
  stream.write(Buffer.alloc(300_000, "x")); // nobody reads what comes back
  await within(once(stream, "connect"), "the service");
  await assert.rejects(session.detach(), { code: "DETACH_IMPOSSIBLE", message: /has not taken/ });
  let heard = 0;
  stream.on("data", ({ length }: Buffer) => {
    heard += length;
    if (heard === 300_000) stream.end();
  });
  await within(once(stream, "end"), "all of it");
  assert.equal(heard, 300_000);
});

test("another connection has its time, whatever the patience of who asks: a server that does not answer ATTACH keeps nobody waiting", async (t) => {
  const ticket = { sid: randomBytes(16), generation: 0, secret: randomBytes(32), ttlSeconds: 60, queueBytes: 1 };
  const server = await scripted(t, (line) => {
    if (line.startsWith("DETACHABLE")) return [detachableLine(ticket)];
    return /^(MULTIPLEX|ATTACH.*)$/.test(line) ? undefined : ["+ SUCCESS"];
  });
  await using session = await connect(server.address, { ...server.options, detachable: 60 });
  const stream = session.open("echo");
  stream.write("x");
  await within(once(stream, "data"), "an echo");
  const added = session.addPath({ name: "other", signal: new AbortController().signal });
  await within(assert.rejects(added), "the end of its time", { ms: 15_000 });
  stream.end();
  await within(once(stream.resume(), "close"), "its end");
});

test("without a ticket nothing can be left, nor another connection added", async (t) => {
  const { address, options } = await world(t);
  await using session = await connect(address, { ...options, detachable: false });
  await assert.rejects(session.detach(), { code: "DETACH_IMPOSSIBLE" });
  await assert.rejects(session.addPath({ name: "other" }), { code: "DETACH_IMPOSSIBLE" });
  assert.equal(session.removePath("other"), false);
});

test("what is no token is refused", async () => {
  await assert.rejects(attach("fived-session:AAAA"), { code: "TOKEN_BAD" });
});

test("whoever waits for the ticket of a session hears at once that there is none, while the session goes on", async (t) => {
  const server = await scripted(t, WELCOME);
  for (const detachable of [false, 60] as const) {
    const session = await openSession(parseAddress(server.address), { ...server.options, detachable });
    const to = { input: new PassThrough(), output: new PassThrough(), endsWithOutput: false, destroy() {} };
    const joined = session.join("echo", to, () => {});
    assert.equal(await within(joined?.kept ?? assert.fail("it is joined to nothing"), "an answer"), undefined);
    assert.equal(session.status.connections, 1);
    await session[Symbol.asyncDispose]();
  }
});
