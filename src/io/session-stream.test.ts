import assert from "node:assert/strict";
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import type { Socket } from "node:net";
import { PassThrough, type Readable } from "node:stream";
import { text } from "node:stream/consumers";
import test, { afterEach } from "node:test";
import { setImmediate as pause } from "node:timers/promises";
import { INITIAL_CREDIT_BYTES, SESSION_LIMITS } from "../session/index.ts";
import { Code } from "../wire/index.ts";
import { nobody, type Splice, spliceOf } from "./channel.ts";
import {
  allReleased,
  connected,
  digest,
  digestOf,
  End,
  gone,
  HandmadePeer,
  NOTHING,
  noise,
  type Pair,
  pair,
  path,
  stream,
  type Transport,
} from "./pair.test.ts";

const TRANSPORTS: readonly Transport[] = ["tcp", "tls"];

afterEach(allReleased);

/** Resolves when no stream is left at either end, and no slot is taken. */
async function idle({ client, server }: Pair): Promise<void> {
  await Promise.all([client.idle(), server.idle()]);
  assert.equal(client.pump.session.streams, 0);
  assert.equal(server.pump.session.streams, 0);
}

/** Everything up to the end, and the stream still open for writing. */
function textOf(readable: Readable): Promise<string> {
  return text(readable.iterator({ destroyOnReturn: false }));
}

/** How a socket is lost, seen from its other end. */
async function lossOf(socket: Socket): Promise<string> {
  socket.resume();
  await gone(socket);
  return socket.errored !== null && "code" in socket.errored ? String(socket.errored.code) : "no error";
}

for (const transport of TRANSPORTS) {
  test(`a stream half-closes both ways over ${transport}, whoever begins`, async () => {
    await using session = await pair({ transport });
    for (const begins of ["program", "backEnd"] as const) {
      const { program, backEnd } = await path(session);
      const [one, other] = begins === "program" ? [program, backEnd] : [backEnd, program];
      one.end("one");
      assert.equal(await textOf(other), "one");
      for (const word of ["still ", "here "]) {
        other.write(word);
        await once(one, "readable");
        assert.equal(String(one.read()), word);
      }
      other.end("and gone");
      assert.equal(await textOf(one), "and gone");
      await Promise.all([gone(program), gone(backEnd)]);
      await idle(session);
    }
  });

  test(`readers that take a little now and then slow their stream down and lose nothing, over ${transport}`, async () => {
    await using session = await pair({ transport });
    const transfers = [1_000_000, 3_000_000].map(async (bytes) => {
      const { program, backEnd } = await path(session);
      const [up, down] = [noise(bytes), noise(bytes + 1)];
      program.end(up);
      backEnd.end(down);
      const [there, here] = await Promise.all([slowDigestOf(backEnd), slowDigestOf(program)]);
      assert.deepEqual([there, here], [digest(up), digest(down)]);
    });
    await Promise.all(transfers);
    await idle(session);
  });

  test(`a program that resets resets the back end, over ${transport}`, async () => {
    await using session = await pair({ transport });
    const { program, backEnd, inner } = await path(session);
    program.write("half of ");
    await once(backEnd, "readable");
    program.resetAndDestroy();
    assert.equal(await lossOf(backEnd), "ECONNRESET");
    await Promise.all(inner.map(gone));
    await idle(session);
  });

  test(`a back end that closes without an end resets the program, over ${transport}`, async () => {
    await using session = await pair({ transport });
    const { program, backEnd, inner } = await path(session);
    backEnd.write("half of ");
    await once(program, "readable");
    backEnd.resetAndDestroy();
    assert.equal(await lossOf(program), "ECONNRESET");
    await Promise.all(inner.map(gone));
    await idle(session);
  });

  test(`a reset in the midst of bulk both ways leaves nothing behind, over ${transport}`, async () => {
    await using session = await pair({ transport });
    for (let round = 0; round < 10; round++) {
      const { program, backEnd, inner } = await path(session);
      const bulk = noise(2_000_000);
      program.write(bulk);
      backEnd.write(bulk);
      backEnd.resume();
      await once(program, "readable");
      if (round % 2 === 0) program.resetAndDestroy();
      else backEnd.resetAndDestroy();
      await Promise.all([lossOf(program), lossOf(backEnd), ...inner.map(gone)]);
    }
    await idle(session);
  });

  test(`windows that cannot grow slow a stream down and lose nothing, over ${transport}`, async () => {
    const tight = { windowBytesMax: INITIAL_CREDIT_BYTES, budgetBytes: INITIAL_CREDIT_BYTES };
    await using session = await pair({ transport, limits: tight });
    const { program, backEnd } = await path(session);
    const [up, down] = [noise(6_000_000), noise(6_000_000)];
    program.end(up);
    backEnd.end(down);
    const [there, here] = await Promise.all([digestOf(backEnd), digestOf(program)]);
    assert.deepEqual([there, here], [digest(up), digest(down)]);
    await idle(session);
  });

  test(`sources over TLS, which give more than they are asked for, lose nothing, over ${transport}`, async () => {
    const tight = { windowBytesMax: INITIAL_CREDIT_BYTES, budgetBytes: INITIAL_CREDIT_BYTES };
    await using session = await pair({ transport, limits: tight });
    const channels = await stream(session);
    const [local, remote] = await Promise.all([connected("tls"), connected("tls")]);
    channels.near.splice(spliceOf(local.far), NOTHING);
    channels.far.splice(spliceOf(remote.near), NOTHING);
    const [up, down] = [noise(5_000_000), noise(5_000_000)];
    local.near.end(up);
    remote.far.end(down);
    const [there, here] = await Promise.all([slowDigestOf(remote.far), slowDigestOf(local.near)]);
    assert.deepEqual([there, here], [digest(up), digest(down)]);
    await idle(session);
  });

  test(`what a program says before it is joined is not lost, nor is its end, over ${transport}`, async () => {
    await using session = await pair({ transport });
    for (const said of ["", "hello", digest(noise(1)).repeat(1_000)]) {
      const channels = await stream(session);
      const [local, remote] = await Promise.all([connected(), connected()]);
      local.near.end(said);
      remote.far.end(said);
      for (let turns = 0; turns < 20; turns++) await pause(); // it lies in the sockets' own buffers by now
      channels.near.splice(spliceOf(local.far), Buffer.from("first, "));
      channels.far.splice(spliceOf(remote.near), Buffer.from("first, "));
      const [there, here] = await Promise.all([textOf(remote.far), textOf(local.near)]);
      assert.deepEqual([there, here], [`first, ${said}`, `first, ${said}`]);
    }
    await idle(session);
  });

  test(`a peer that ended before there was a back end has ended for the back end too, over ${transport}`, async () => {
    await using session = await pair({ transport });
    const channels = await stream(session);
    const ended = new Promise<void>((resolve) => {
      channels.far.receiver = { ...nobody, end: resolve };
    });
    channels.near.end();
    await ended;
    const back = await connected();
    channels.far.splice(spliceOf(back.near), Buffer.from("first"));
    assert.equal(await textOf(back.far), "first");
    back.far.end();
    channels.near.duplex(NOTHING).resume();
    await idle(session);
  });

  test(`a back end for a stream that was reset meanwhile is torn down, over ${transport}`, async () => {
    await using session = await pair({ transport });
    const channels = await stream(session);
    const closed = new Promise<number>((resolve) => {
      channels.far.receiver = { ...nobody, closed: resolve };
    });
    channels.near.reset(Code.CANCEL);
    channels.near.forget();
    assert.equal(await closed, Code.CANCEL);
    const back = await connected();
    channels.far.splice(spliceOf(back.near), Buffer.from("first"));
    assert.equal(await lossOf(back.far), "ECONNRESET");
    await idle(session);
  });

  test(`a back end that left before it was joined resets the stream, over ${transport}`, async () => {
    await using session = await pair({ transport });
    const channels = await stream(session);
    const back = await connected();
    back.near.destroy();
    const closed = new Promise<number>((resolve) => {
      channels.near.receiver = { ...nobody, closed: resolve };
    });
    channels.far.splice(spliceOf(back.near), NOTHING);
    assert.equal(await closed, Code.UNAVAILABLE);
    channels.near.forget();
    back.far.destroy();
    await idle(session);
  });

  test(`the end of a program's output is the end of it all, whatever the caller still says, over ${transport}`, async () => {
    await using session = await pair({ transport });
    const channels = await stream(session);
    const local = await connected();
    const program = new Program({ endsWithOutput: true });
    channels.far.splice(program, Buffer.from("first"));
    channels.near.splice(spliceOf(local.far), NOTHING);
    assert.equal(String(await once(program.input, "data")), "first");
    const inputEnded = once(program.input, "end");
    const bulk = noise(700_000);
    program.output.end(bulk);
    const saying = setInterval(() => local.near.write(noise(10_000)), 1);
    assert.equal(await digestOf(local.near), digest(bulk));
    await Promise.all([gone(local.far), gone(local.near)]); // it goes on and on, and is cut off
    clearInterval(saying);
    await inputEnded;
    await idle(session);
  });

  test(`what a program does not read goes nowhere, and its output goes on, over ${transport}`, async () => {
    await using session = await pair({ transport });
    const channels = await stream(session);
    const local = await connected();
    const program = new Program({ endsWithOutput: true });
    channels.far.splice(program, NOTHING);
    channels.near.splice(spliceOf(local.far), NOTHING);
    program.input.destroy();
    const said = new Promise((resolve) => local.near.write(noise(9_000_000), resolve));
    program.output.write("one ");
    await once(local.near, "readable");
    assert.ok(!(await said));
    program.output.end("two");
    assert.equal(await textOf(local.near), "one two");
    local.near.end();
    await idle(session);
  });

  test(`a program whose output breaks off, with or without an error, resets the stream, over ${transport}`, async () => {
    await using session = await pair({ transport });
    for (const error of [undefined, new Error("broken")]) {
      const channels = await stream(session);
      const local = await connected();
      const program = new Program({ endsWithOutput: true });
      channels.far.splice(program, NOTHING);
      channels.near.splice(spliceOf(local.far), NOTHING);
      program.output.write("half of ");
      await once(local.near, "readable");
      program.output.destroy(error);
      assert.equal(await lossOf(local.near), "ECONNRESET");
      assert.equal(program.destroyed, true);
      await idle(session);
    }
  });

  test(`octets pass through a process and back, over ${transport}`, async () => {
    await using session = await pair({ transport });
    const channels = await stream(session);
    const local = await connected();
    const program = await started("cat");
    channels.far.splice(program.splice, NOTHING);
    channels.near.splice(spliceOf(local.far), NOTHING);
    const bulk = noise(3_000_000);
    local.near.end(bulk);
    assert.equal(await digestOf(local.near), digest(bulk));
    await program.exited;
    await idle(session);
  });

  test(`a process that exits ends a caller that does not, over ${transport}`, async () => {
    await using session = await pair({ transport });
    const channels = await stream(session);
    const local = await connected();
    const program = await started("sh", "-c", "head -c 5; exec >&-");
    channels.far.splice(program.splice, NOTHING);
    channels.near.splice(spliceOf(local.far), NOTHING);
    local.near.write("hello and more");
    assert.equal(await textOf(local.near), "hello");
    await program.exited;
    local.near.end();
    await idle(session);
  });
}

test("a peer may grant nothing at first, and then a little: what was read meanwhile is not lost", async () => {
  const wire = await connected();
  const server = new End("server", false, SESSION_LIMITS);
  const back = await connected();
  server.services.set("banner", (channel) => channel.splice(spliceOf(back.near), NOTHING));
  const sent = noise(200_000);
  back.far.end(sent);
  server.carry(wire.far);
  const peer = new HandmadePeer(wire.near);
  const octets = (): number => peer.data(1).length;
  peer.say({ type: "settings", entries: new Map([[1, 65_512]]) });
  peer.say({ type: "open", stream: 1, credit: 0, request: Buffer.from("banner") });
  for (let turns = 0; turns < 50; turns++) await pause();
  assert.equal(octets(), 0);
  for (const limit of [1, 100, 4_095, 4_096, 30_000, 100_000, 199_999, 200_000]) {
    peer.say({ type: "credit", stream: 1, limit });
    await peer.until(() => octets() >= limit);
    assert.equal(octets(), limit);
  }
  peer.say({ type: "credit", stream: 1, limit: 200_001 }); // nobody can see the end of a source without reading it
  await peer.until(() => peer.heard.some((frame) => frame.type === "data" && frame.fin));
  assert.equal(digest(peer.data(1)), digest(sent));
  peer.say({ type: "data", stream: 1, offset: 0, fin: true, payload: NOTHING });
  await server.idle();
  wire.near.end();
  assert.equal((await server.ended).code, Code.UNAVAILABLE);
  await Promise.all([gone(wire.near), gone(wire.far), gone(back.near)]);
});

test("a peer that reads no more although nothing went wrong ends the back end's input, and its output goes nowhere", async () => {
  await using session = await pair();
  for (const backEndSays of ["nothing", "more than fits"]) {
    const channels = await stream(session);
    const back = await connected();
    channels.far.splice(spliceOf(back.near), NOTHING);
    if (backEndSays !== "nothing") back.far.write(noise(20_000_000));
    channels.near.write(Buffer.from("never mind"));
    channels.near.close();
    channels.near.forget();
    assert.equal(await textOf(back.far), "never mind");
    back.far.end();
    await Promise.all([gone(back.near), gone(back.far)]);
    await idle(session);
  }
});

test("an end that waits behind octets without credit is said when they are, although the socket has closed long since", async () => {
  const tight = { windowBytesMax: INITIAL_CREDIT_BYTES, budgetBytes: INITIAL_CREDIT_BYTES };
  await using session = await pair({ limits: tight });
  const channels = await stream(session);
  const program = new Program({ endsWithOutput: true });
  channels.far.splice(program, NOTHING);
  const bulk = noise(4 * INITIAL_CREDIT_BYTES);
  program.output.end(bulk);
  program.input.resume();
  const near = channels.near.duplex(NOTHING);
  near.end();
  await once(program.output, "close");
  await once(program.input, "close");
  assert.equal(await digestOf(near), digest(bulk));
  await idle(session);
});

/** What a runtime looks like to us that lacks the private properties by which sockets are read into our memory. */
const HIDING = `
  const { getOwnPropertySymbols } = Object;
  Object.getOwnPropertySymbols = (of) => getOwnPropertySymbols(of).filter((symbol) => !symbol.description?.startsWith("kBuffer"));
  globalThis.machineryIsHidden = true;
`;

test("all this holds too in a runtime without the private properties", {
  skip: "machineryIsHidden" in globalThis,
}, async () => {
  const hiding = `data:text/javascript,${encodeURIComponent(HIDING)}`;
  const { NODE_TEST_CONTEXT: _, ...env } = process.env; // a run of its own, and no part of this one
  const again = spawn(
    process.execPath,
    ["--import", hiding, "--test-name-pattern", "over tcp$", import.meta.filename],
    {
      env,
      stdio: ["ignore", "pipe", "inherit"],
    },
  );
  const [said, [code]] = await Promise.all([text(again.stdout), once(again, "exit")]);
  assert.equal(code, 0, said);
  assert.match(said, /pass 1[0-9]/);
});

/** A program as a channel sees one: two streams, and what became of them. */
class Program implements Splice {
  readonly input = new PassThrough();
  readonly output = new PassThrough();
  readonly endsWithOutput: boolean;
  destroyed = false;

  constructor({ endsWithOutput }: { readonly endsWithOutput: boolean }) {
    this.endsWithOutput = endsWithOutput;
  }

  destroy(): void {
    this.destroyed = true;
    this.input.destroy();
    this.output.destroy();
  }
}

/** A process whose standard streams are a splice. */
async function started(command: string, ...args: string[]): Promise<{ splice: Splice; exited: Promise<unknown> }> {
  const child: ChildProcess = spawn(command, args, { stdio: ["pipe", "pipe", "inherit"] });
  await once(child, "spawn");
  const { stdin, stdout } = child;
  assert.ok(stdin !== null && stdout !== null);
  const destroy = (): void => {
    stdin.destroy();
    stdout.destroy();
    child.kill();
  };
  return { splice: { input: stdin, output: stdout, endsWithOutput: true, destroy }, exited: once(child, "exit") };
}

/** As {@link digestOf}, a turn at a time. */
async function slowDigestOf(readable: Readable): Promise<string> {
  const slow = new PassThrough({ highWaterMark: 1_000 });
  readable.on("data", (chunk) => {
    if (slow.write(chunk)) return;
    readable.pause();
    slow.once("drain", () => setImmediate(() => readable.resume()));
  });
  readable.on("end", () => slow.end());
  readable.on("close", () => readable.readableEnded || slow.destroy());
  return await digestOf(slow);
}
