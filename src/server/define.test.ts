import assert from "node:assert/strict";
import { once } from "node:events";
import { text } from "node:stream/consumers";
import test from "node:test";
import type { Identity } from "./auth/mechanism.ts";
import { FakeTalk } from "./backends/fake-talk.test.ts";
import { handle, service, type Visitor } from "./define.ts";

test("a function becomes a service that accepts and hands it the stream and its visitor", async () => {
  let visitor: Visitor | undefined;
  const hello = service("hello", (stream, who) => {
    visitor = who;
    stream.end(`Hello ${who.user}\n`);
  });
  const who = { user: "alice", groups: [], roles: [] };
  const identity: Identity = { ...who, mechanism: "pubkey", secondFactor: true, at: 0 };
  const talk = new FakeTalk("greeting", { user: "alice", roles: ["ops"], identity }, "a.example");
  assert.equal(hello.word, "hello");
  assert.equal(hello.serve(talk), "bytes");
  assert.deepEqual(talk.said, ["+ SUCCESS"]);
  assert.equal(await text(talk.far), "Hello alice\n");
  const { signal, ...rest } = visitor ?? assert.fail();
  assert.deepEqual(rest, {
    user: "alice",
    roles: ["ops"],
    mechanism: "pubkey",
    secondFactor: true,
    host: "a.example",
    session: "s1",
    peer: "192.0.2.1:4711",
    secure: true,
  });
  assert.equal(signal.aborted, false);
  talk.abort();
  assert.equal(signal.aborted, true);
});

test("an exception, thrown at once or later, ends that stream and is told", async () => {
  const thrown = new TypeError("oops");
  const handlers = [
    () => {
      throw thrown;
    },
    async () => {
      await null;
      throw thrown;
    },
  ];
  for (const handler of handlers) {
    const talk = new FakeTalk();
    const near = talk.stream();
    const closed = once(near, "close").catch(() => {});
    const told: unknown[] = [];
    assert.equal(
      handle(handler, talk, (error) => told.push(error)),
      "bytes",
    );
    await closed;
    assert.deepEqual(told, [thrown]);
    assert.equal(near.errored, thrown);
  }
  const odd = new FakeTalk();
  handle(
    () => Promise.reject("not an error"),
    odd,
    () => {},
  );
  await new Promise((resolve) => odd.stream().once("close", resolve));
  assert.equal(odd.stream().errored?.message, "not an error");
});

test("a caller who is suddenly gone harms nobody, even if the function does not listen", async () => {
  const talk = new FakeTalk();
  await service("deaf", () => {}).serve(talk);
  const closed = new Promise((resolve) => talk.stream().once("close", resolve));
  talk.stream().destroy(new Error("reset"));
  await closed;
});
