import assert from "node:assert/strict";
import { once } from "node:events";
import { addAbortSignal, type Duplex, PassThrough, Readable } from "node:stream";
import { buffer, text } from "node:stream/consumers";
import { pipeline } from "node:stream/promises";
import test from "node:test";
import { setImmediate as pause } from "node:timers/promises";
import { INITIAL_CREDIT_BYTES } from "../session/index.ts";
import { Code } from "../wire/index.ts";
import { BareChannel } from "./bare-channel.ts";
import { type Channel, nobody } from "./channel.ts";
import { ChannelDuplex } from "./duplex.ts";
import { FivedError } from "./errors.ts";
import { connected, digest, digestOf, gone, NOTHING, noise, type Pair, pair, stream } from "./pair.test.ts";

/** A channel seen as a stream at both its ends. */
interface Duplexes extends AsyncDisposable {
  readonly near: Duplex;
  readonly far: Duplex;
  readonly channels: { readonly near: Channel; readonly far: Channel };
}

/** What a stream can be the end of. */
const KINDS = ["tcp", "tls", "bare tcp", "bare tls"] as const;
type Kind = (typeof KINDS)[number];

async function duplexes(kind: Kind): Promise<Duplexes> {
  if (kind === "tcp" || kind === "tls") {
    const session = await pair({ transport: kind });
    const channels = await stream(session);
    const [near, far] = [channels.near.duplex(NOTHING), channels.far.duplex(NOTHING)];
    return {
      near,
      far,
      channels,
      async [Symbol.asyncDispose]() {
        near.destroy();
        far.destroy();
        await Promise.all([session.client.idle(), session.server.idle()]);
        await session[Symbol.asyncDispose]();
      },
    };
  }
  const sockets = await connected(kind === "bare tcp" ? "tcp" : "tls");
  const channels = { near: new BareChannel(sockets.near), far: new BareChannel(sockets.far) };
  const [near, far] = [channels.near.duplex(NOTHING), channels.far.duplex(NOTHING)];
  return {
    near,
    far,
    channels,
    async [Symbol.asyncDispose]() {
      near.destroy();
      far.destroy();
      await Promise.all([gone(sockets.near), gone(sockets.far)]);
    },
  };
}

for (const kind of KINDS) {
  test(`an answer that is ended behind an ended question arrives whole over ${kind}`, async () => {
    await using ends = await duplexes(kind);
    const answer = noise(3_000_000);
    ends.far.on("error", () => assert.fail("nothing went wrong"));
    void text(ends.far).then((question) => {
      assert.equal(question, "question");
      ends.far.end(answer);
    });
    ends.near.end("question");
    assert.equal(await digestOf(ends.near), digest(answer));
    await Promise.all([gone(ends.near), gone(ends.far)]);
    assert.equal(ends.near.errored, null);
    assert.equal(ends.far.errored, null);
  });
}

for (const kind of KINDS) {
  test(`what was read stays as it was, however much is read after it, over ${kind}`, async () => {
    await using ends = await duplexes(kind);
    const sent = noise(4_000_000);
    for (let at = 0; at < sent.length; at += 40_001) ends.near.write(sent.subarray(at, at + 40_001));
    ends.near.end();
    assert.equal(digest(await buffer(ends.far)), digest(sent));
  });

  test(`a reader that stops costs its credit and no more, over ${kind}`, async () => {
    await using ends = await duplexes(kind);
    const sent = noise(10_000_000);
    ends.near.end(sent);
    ends.far.once("readable", () => {}); // it is read into its own buffer, but nobody takes it from there
    await until(() => ends.far.readableLength >= INITIAL_CREDIT_BYTES);
    for (let turns = 0; turns < 200; turns++) await pause();
    const most = kind.startsWith("bare") ? 2 * INITIAL_CREDIT_BYTES : INITIAL_CREDIT_BYTES + 16_384;
    assert.ok(ends.far.readableLength <= most, `${ends.far.readableLength} octets are held`);
    assert.equal(await digestOf(ends.far), digest(sent));
  });

  test(`both ends write more than fits before either reads, over ${kind}`, async () => {
    await using ends = await duplexes(kind);
    const [there, here] = [noise(10_000_000), noise(9_999_999)];
    ends.near.end(there);
    ends.far.end(here);
    for (let turns = 0; turns < 50; turns++) await pause();
    const [up, down] = await Promise.all([digestOf(ends.far), digestOf(ends.near)]);
    assert.deepEqual([up, down], [digest(there), digest(here)]);
  });

  test(`pipeline() through both ends of ${kind}, and back`, async () => {
    await using ends = await duplexes(kind);
    const pieces = Array.from({ length: 50 }, (_, at) => noise(at * 1_000 + 1));
    const echoed = pipeline(ends.far, new PassThrough(), ends.far);
    const back = new PassThrough();
    const arrived = buffer(back);
    await Promise.all([pipeline(Readable.from(pieces), ends.near, back), echoed]);
    assert.equal(digest(await arrived), digest(Buffer.concat(pieces)));
  });

  test(`leaving an iteration resets the stream, over ${kind}`, async () => {
    await using ends = await duplexes(kind);
    const cut = errorOf(ends.far);
    ends.far.write("one");
    for await (const chunk of ends.near) {
      assert.equal(String(chunk), "one");
      break;
    }
    assert.equal(ends.near.destroyed, true);
    if (kind === "bare tls") return; // a missing close_notify tells it, and Node tells nobody of that
    assert.equal((await cut).code, "STREAM_RESET");
    await gone(ends.far);
  });

  test(`an AbortSignal ends the stream here with its reason and there with a reset, over ${kind}`, async () => {
    await using ends = await duplexes(kind);
    const calling = new AbortController();
    addAbortSignal(calling.signal, ends.near);
    const [here, there] = [once(ends.near, "error"), errorOf(ends.far)];
    ends.far.resume();
    ends.near.write("x");
    await once(ends.far, "data");
    calling.abort(new Error("called off"));
    const [error] = await here;
    assert.equal(error.code, "ABORT_ERR");
    await gone(ends.near);
    if (kind === "bare tls") return; // see above
    assert.equal((await there).code, "STREAM_RESET");
    await gone(ends.far);
  });

  test(`a stream that is reset is told as an error, once, over ${kind}`, async () => {
    await using ends = await duplexes(kind);
    if (kind === "bare tls") return; // see above
    ends.near.on("error", () => {});
    const errors: Error[] = [];
    ends.far.on("error", (error) => errors.push(error));
    ends.far.write("half of it");
    ends.channels.near.reset(Code.TIMEOUT);
    await gone(ends.far);
    const [error, ...more] = errors;
    assert.ok(error instanceof FivedError);
    assert.equal(error.code, "STREAM_RESET");
    if (kind.startsWith("bare")) assert.match(error.message, /UNAVAILABLE/);
    else assert.match(error.message, /reset with TIMEOUT$/);
    assert.deepEqual(more, []);
  });

  test(`a stream that is reset after our own end was said is told as an error too, over ${kind}`, async () => {
    await using ends = await duplexes(kind);
    if (kind === "bare tls") return; // see above
    const error = errorOf(ends.near);
    ends.near.end("all we have to say");
    ends.far.resume();
    await once(ends.far, "end");
    ends.far.write("half of ");
    await once(ends.near, "readable");
    ends.far.destroy();
    assert.equal((await error).code, "STREAM_RESET");
  });

  test(`a stream closes when its peer says that all of it is over, whatever we still have to say, over ${kind}`, async () => {
    if (kind.startsWith("bare")) return; // a bare connection cannot tell that from half of it
    await using ends = await duplexes(kind);
    ends.near.write("is anybody there?");
    await once(ends.far, "readable");
    ends.channels.far.write(Buffer.from("no"));
    ends.channels.far.close();
    assert.equal(await text(ends.near.iterator({ destroyOnReturn: false })), "no");
    await gone(ends.near);
    assert.equal(ends.near.errored, null);
    ends.far.destroy();
  });

  test(`half a stream may end long before the other, over ${kind}`, async () => {
    await using ends = await duplexes(kind);
    ends.near.end();
    assert.equal(await text(ends.far), "");
    for (let piece = 0; piece < 20; piece++) {
      ends.far.write(`${piece} `);
      await once(ends.near, "readable");
      assert.equal(String(ends.near.read()), `${piece} `);
    }
    ends.far.end();
    ends.near.resume();
    await Promise.all([gone(ends.near), gone(ends.far)]);
  });
}

test("a Duplex takes writes and an end before it has a channel", async () => {
  await using session = await pair();
  const duplex = new ChannelDuplex();
  const sent = noise(500_000);
  duplex.write(sent.subarray(0, 200_000));
  duplex.end(sent.subarray(200_000));
  await pause();
  const channels = await stream(session);
  duplex.attach(channels.near);
  const far = channels.far.duplex(NOTHING);
  assert.equal(await digestOf(far), digest(sent));
  far.end("thanks");
  assert.equal(await text(duplex), "thanks");
});

test("a Duplex that is only ended before it has a channel ends the channel", async () => {
  await using session = await pair();
  const duplex = new ChannelDuplex();
  duplex.end();
  await pause();
  const channels = await stream(session);
  duplex.attach(channels.near);
  const far = channels.far.duplex(NOTHING);
  assert.equal(await text(far), "");
  far.end("thanks");
  assert.equal(await text(duplex), "thanks");
});

test("a Duplex is given what had been received before it had a channel", async () => {
  await using session = await pair();
  const channels = await stream(session);
  const duplex = new ChannelDuplex();
  duplex.attach(channels.near, Buffer.from("first, "));
  const far = channels.far.duplex(NOTHING);
  far.end("then").resume();
  duplex.end();
  assert.equal(await text(duplex), "first, then");
  await gone(far);
});

test("a Duplex that was destroyed before it had a channel resets it, and tells whoever waits for a write", async () => {
  await using session = await pair();
  const duplex = new ChannelDuplex();
  const told = new Promise<unknown>((resolve) => duplex.write("early", resolve));
  duplex.on("error", () => {});
  duplex.destroy(new Error("not wanted any more"));
  assert.match(String(await told), /not wanted any more/);
  const channels = await stream(session);
  const far = channels.far.duplex(NOTHING);
  duplex.attach(channels.near);
  assert.match((await errorOf(far)).message, /CANCEL/);
  await Promise.all([session.client.idle(), session.server.idle()]);
});

test("a Duplex that is destroyed while a write waits for credit tells whoever waits for it", async () => {
  await using ends = await duplexes("tcp");
  const told = new Promise<unknown>((resolve) => ends.near.write(noise(1_000_000), resolve));
  await until(() => ends.far.readableLength >= INITIAL_CREDIT_BYTES);
  ends.far.on("error", () => {});
  ends.near.on("error", () => {});
  ends.near.destroy(new Error("enough"));
  assert.match(String(await told), /enough/);
  await gone(ends.far);
});

test("ten megabytes written at once pass through a window that cannot grow", async () => {
  const tight = { windowBytesMax: INITIAL_CREDIT_BYTES, budgetBytes: INITIAL_CREDIT_BYTES };
  await using session = await pair({ limits: tight });
  const { near, far } = await duplexesOf(session);
  const sent = noise(10_000_000);
  near.end(sent);
  assert.equal(await digestOf(far), digest(sent));
  far.end();
  near.resume();
  await Promise.all([session.client.idle(), session.server.idle()]);
});

test("an end behind a write that just fills the credit is said", async () => {
  await using session = await pair();
  const { near, far } = await stream(session);
  const told: string[] = [];
  let received = 0;
  const over = new Promise<void>((resolve) => {
    far.receiver = {
      ...nobody,
      data: (bytes) => {
        received += bytes.length;
        queueMicrotask(() => far.consumed(bytes.length));
      },
      end: () => {
        told.push("end");
        resolve();
      },
    };
  });
  // The first half fills the credit, the rest waits for as much again; the end comes while it waits.
  assert.equal(near.write(noise(2 * INITIAL_CREDIT_BYTES)), false);
  near.end();
  await over;
  assert.equal(received, 2 * INITIAL_CREDIT_BYTES);
  far.end();
  near.forget();
  far.forget();
});

for (const reader of ["data", "iterator", "pipe"] as const) {
  test(`a stream that goes on elsewhere ends here behind what has come, which costs nothing while nobody reads: ${reader}`, async (t) => {
    await using session = await pair();
    const channels = await stream(session);
    const duplex = channels.near.duplex(NOTHING);
    const far = channels.far.duplex(NOTHING).on("error", () => {});
    const sent = noise(10_000);
    far.write(sent);
    while (duplex.readableLength < sent.length) await pause();
    const told = once(duplex, "error");
    channels.far.reset(Code.SUPERSEDED);
    while (session.client.pump.session.positions.received < session.server.pump.session.positions.sent) await pause();
    await pause();
    const turns = t.mock.method(globalThis, "setImmediate");
    for (let passed = 0; passed < 100; passed++) await pause();
    assert.ok(!duplex.destroyed, "nobody has read it");
    assert.ok(turns.mock.callCount() < 10, "nothing turns and turns");
    turns.mock.restore();
    const heard: Buffer[] = [];
    if (reader === "data") duplex.on("data", (octets: Buffer) => heard.push(octets));
    else if (reader === "pipe") duplex.pipe(new PassThrough()).on("data", (octets: Buffer) => heard.push(octets));
    else
      void (async () => {
        for await (const octets of duplex) heard.push(octets);
      })().catch(() => {});
    const [error] = await told;
    assert.equal(error.reason, "SUPERSEDED");
    while (Buffer.concat(heard).length < sent.length) await pause();
    assert.equal(digest(Buffer.concat(heard)), digest(sent));
  });
}

test("the session ends and each Duplex on it is told so", async () => {
  const session = await pair();
  const { near, far } = await duplexesOf(session);
  const errors = [errorOf(near), errorOf(far)];
  await session[Symbol.asyncDispose]();
  for (const error of await Promise.all(errors)) assert.equal(error.code, "STREAM_RESET");
});

async function duplexesOf(session: Pair): Promise<{ near: Duplex; far: Duplex }> {
  const { near, far } = await stream(session);
  return { near: near.duplex(NOTHING), far: far.duplex(NOTHING) };
}

async function errorOf(duplex: Duplex): Promise<FivedError> {
  const [error] = await new Promise<unknown[]>((resolve) => duplex.once("error", (...args) => resolve(args)));
  assert.ok(error instanceof FivedError);
  return error;
}

/** Looks again after each turn. */
async function until(condition: () => boolean): Promise<void> {
  while (!condition()) await pause();
}
