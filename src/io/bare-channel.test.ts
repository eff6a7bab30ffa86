import assert from "node:assert/strict";
import { once } from "node:events";
import type { Socket } from "node:net";
import { PassThrough } from "node:stream";
import { text } from "node:stream/consumers";
import test from "node:test";
import { setImmediate as pause } from "node:timers/promises";
import { INITIAL_CREDIT_BYTES } from "../session/index.ts";
import { Code } from "../wire/index.ts";
import { BareChannel } from "./bare-channel.ts";
import { nobody, type Splice, spliceOf } from "./channel.ts";
import { connected, digest, digestOf, gone, NOTHING, noise, type Transport } from "./pair.test.ts";

const TRANSPORTS: readonly Transport[] = ["tcp", "tls"];

/** A caller's socket, and the channel it is at our end. */
async function channelTo(transport: Transport): Promise<{ caller: Socket; channel: BareChannel }> {
  const { near, far } = await connected(transport);
  return { caller: near, channel: new BareChannel(far) };
}

/** A caller joined to a back end through us. */
async function joined(transport: Transport, first: Uint8Array = NOTHING) {
  const { caller, channel } = await channelTo(transport);
  const back = await connected();
  channel.splice(spliceOf(back.near), first);
  return { caller, channel, backEnd: back.far, inner: back.near };
}

for (const transport of TRANSPORTS) {
  test(`a splice half-closes both ways over ${transport}, whoever begins`, async () => {
    for (const begins of ["caller", "backEnd"] as const) {
      const ends = await joined(transport, Buffer.from("first "));
      const [one, other] = begins === "caller" ? [ends.caller, ends.backEnd] : [ends.backEnd, ends.caller];
      one.end("one");
      assert.equal(await text(other.iterator({ destroyOnReturn: false })), begins === "caller" ? "first one" : "one");
      other.write("still ");
      await once(one, "readable");
      other.end("here");
      assert.equal(
        await text(one.iterator({ destroyOnReturn: false })),
        begins === "caller" ? "still here" : "first still here",
      );
      await Promise.all([gone(ends.caller), gone(ends.backEnd), gone(ends.inner), gone(ends.channel.socket)]);
    }
  });

  test(`megabytes pass both ways at once over ${transport}, to readers that start late`, async () => {
    const { caller, backEnd, inner } = await joined(transport);
    const [up, down] = [noise(8_388_608), noise(5_000_001)];
    caller.end(up);
    backEnd.end(down);
    for (let turns = 0; turns < 100; turns++) await pause();
    // Neither is read: what waits is in the kernel, and in buffers of Node's that are bounded.
    assert.ok(inner.writableLength + inner.readableLength <= 4 * INITIAL_CREDIT_BYTES);
    const [there, here] = await Promise.all([digestOf(backEnd), digestOf(caller)]);
    assert.deepEqual([there, here], [digest(up), digest(down)]);
    await Promise.all([gone(caller), gone(backEnd), gone(inner)]);
  });

  test(`a back end that is cut cuts the caller off over ${transport}: no half answer looks whole`, async () => {
    const { caller, backEnd, channel } = await joined(transport);
    backEnd.write("half of ");
    await once(caller, "readable");
    assert.equal(String(caller.read()), "half of ");
    let error: unknown;
    caller.once("error", (reason) => {
      error = reason;
    });
    caller.resume();
    backEnd.resetAndDestroy();
    await gone(channel.socket);
    caller.end();
    await gone(caller);
    if (transport === "tcp") assert.ok(error instanceof Error && "code" in error && error.code === "ECONNRESET");
  });

  test(`a caller that is cut resets the back end, over ${transport}`, async () => {
    const { caller, backEnd, inner } = await joined(transport);
    let error: unknown;
    backEnd.once("error", (reason) => {
      error = reason;
    });
    backEnd.resume();
    caller.write("half of ");
    await once(backEnd, "data");
    if (transport === "tcp") caller.resetAndDestroy();
    else caller.destroy();
    // Node does not tell a missing close_notify: then it is what is written into the void that brings the reset.
    for (; !backEnd.destroyed; await pause()) if (transport === "tls") backEnd.write("is anybody there?");
    await Promise.all([gone(backEnd), gone(inner)]);
    assert.ok(error instanceof Error && "code" in error && (error.code === "ECONNRESET" || error.code === "EPIPE"));
  });

  test(`close() lets the last line arrive over ${transport}, although octets wait unread`, async () => {
    const { caller, channel } = await channelTo(transport);
    channel.receiver = { ...nobody }; // takes nothing: reading stops at 64 KiB
    const flood = noise(1_000_000);
    caller.write(flood);
    await until(() => channel.socket.isPaused());
    channel.write(Buffer.from("- 500 line too long\r\n"));
    channel.close();
    assert.equal(await text(caller.iterator({ destroyOnReturn: false })), "- 500 line too long\r\n");
    caller.end();
    await Promise.all([gone(caller), gone(channel.socket)]);
    assert.equal(caller.errored, null);
  });

  test(`close() cuts off a caller that does not follow, over ${transport}, but not before it has all that was said`, async () => {
    const { caller, channel } = await channelTo(transport);
    const last = noise(9_000_000);
    const closed = Promise.withResolvers<number>();
    channel.receiver = { ...nobody, closed: closed.resolve };
    channel.write(last);
    channel.close();
    // For longer than the peer's FIN is waited for: it has not even been sent.
    await new Promise((resolve) => setTimeout(resolve, 1_200));
    assert.equal(channel.socket.destroyed, false);
    assert.equal(await digestOf(caller), digest(last));
    assert.equal(await closed.promise, Code.NO_ERROR);
    assert.equal(channel.socket.destroyed, true);
    caller.destroy();
  });
}

for (const transport of TRANSPORTS) {
  test(`the end of a program's output is the end of it all, whatever the caller still says, over ${transport}`, async () => {
    const { caller, channel } = await channelTo(transport);
    const program = programmed();
    channel.splice(program, NOTHING);
    const saying = setInterval(() => caller.write(noise(10_000)), 1);
    caller.on("error", () => clearInterval(saying));
    await once(program.input, "data");
    program.output.end("that is all");
    assert.equal(await text(caller.iterator({ destroyOnReturn: false })), "that is all");
    await gone(channel.socket);
    await gone(caller); // it goes on and on, and is cut off
    clearInterval(saying);
  });

  test(`what a program does not read goes nowhere, and its output goes on, over ${transport}`, async () => {
    const { caller, channel } = await channelTo(transport);
    const program = programmed();
    channel.splice(program, NOTHING);
    program.input.destroy();
    const said = new Promise((resolve) => caller.write(noise(20_000_000), resolve));
    program.output.write("one ");
    await once(caller, "readable");
    assert.ok(!(await said)); // no error
    caller.end();
    program.output.end("two");
    assert.equal(await text(caller.iterator({ destroyOnReturn: false })), "one two");
    await Promise.all([gone(caller), gone(channel.socket)]);
  });

  test(`a program whose output breaks off cuts the caller off, over ${transport}`, async () => {
    const { caller, channel } = await channelTo(transport);
    const program = programmed();
    channel.splice(program, NOTHING);
    program.output.write("half of ");
    await once(caller, "readable");
    program.output.destroy();
    await gone(channel.socket);
    caller.end();
    caller.resume();
    await gone(caller);
    if (transport === "tcp") assert.ok(caller.errored !== null);
    assert.equal(program.destroyed, true);
  });

  test(`a program's output may end before its input is over, if that is not the end of it all, over ${transport}`, async () => {
    const { caller, channel } = await channelTo(transport);
    const program = programmed({ endsWithOutput: false });
    channel.splice(program, Buffer.from("first, "));
    program.output.end("done");
    assert.equal(await text(caller.iterator({ destroyOnReturn: false })), "done");
    caller.end("then");
    assert.equal(await text(program.input), "first, then");
    await Promise.all([gone(caller), gone(channel.socket)]);
    assert.equal(program.destroyed, false);
  });

  test(`a duplex goes on where the lines ended, over ${transport}`, async () => {
    const { caller, channel } = await channelTo(transport);
    const got = Promise.withResolvers<Buffer>();
    channel.receiver = { ...nobody, data: (bytes) => got.resolve(Buffer.from(bytes)) };
    const bulk = noise(300_000);
    caller.write(Buffer.concat([Buffer.from("SERVICE\r\n"), bulk.subarray(0, 1_000)]));
    const first = await got.promise;
    channel.consumed(9);
    const duplex = channel.duplex(first.subarray(9));
    const chunks: Buffer[] = [];
    duplex.on("data", (chunk) => chunks.push(chunk)); // the plainest of readers
    caller.end(bulk.subarray(1_000));
    await once(duplex, "end");
    assert.equal(digest(Buffer.concat(chunks)), digest(bulk));
    duplex.end("thanks");
    assert.equal(await text(caller.iterator({ destroyOnReturn: false })), "thanks");
    await Promise.all([gone(caller), gone(duplex), gone(channel.socket)]);
  });

  test(`a caller that ended before the bytes had a taker has ended for the taker too, over ${transport}`, async () => {
    for (const taker of ["duplex", "splice"] as const) {
      const { caller, channel } = await channelTo(transport);
      const ended = new Promise<void>((resolve) => {
        channel.receiver = { ...nobody, end: resolve };
      });
      caller.end();
      await ended;
      if (taker === "duplex") {
        const duplex = channel.duplex(Buffer.from("first"));
        assert.equal(await text(duplex.iterator({ destroyOnReturn: false })), "first");
        duplex.end("answer");
      } else {
        const back = await connected();
        channel.splice(spliceOf(back.near), Buffer.from("first"));
        assert.equal(await text(back.far.iterator({ destroyOnReturn: false })), "first");
        back.far.end("answer");
      }
      assert.equal(await text(caller.iterator({ destroyOnReturn: false })), "answer");
      await Promise.all([gone(caller), gone(channel.socket)]);
    }
  });

  test(`a caller that left before the bytes had a taker takes the taker along, over ${transport}`, async () => {
    const { caller, channel } = await channelTo(transport);
    caller.destroy();
    channel.socket.destroy();
    await gone(channel.socket);
    await pause();
    const back = await connected();
    back.far.resume();
    channel.splice(spliceOf(back.near), NOTHING);
    await Promise.all([gone(back.near), gone(back.far)]);
    const duplex = channel.duplex(NOTHING);
    assert.equal(duplex.destroyed, true);
  });

  test(`a back end that left before it was joined takes the caller along, over ${transport}`, async () => {
    const { caller, channel } = await channelTo(transport);
    const back = await connected();
    back.near.destroy();
    channel.splice(spliceOf(back.near), NOTHING);
    assert.equal(channel.socket.destroyed, true);
    caller.end();
    caller.resume();
    await gone(caller);
    back.far.destroy();
  });

  test(`a receiver that holds 64 KiB is given no more until it has dealt with some, over ${transport}`, async () => {
    const { caller, channel } = await channelTo(transport);
    const sent = noise(5_000_000);
    const held: Buffer[] = [];
    const ended = new Promise<void>((resolve) => {
      channel.receiver = { ...nobody, data: (bytes) => void held.push(Buffer.from(bytes)), end: resolve };
    });
    caller.end(sent);
    await until(() => channel.socket.isPaused());
    for (let turns = 0; turns < 50; turns++) await pause();
    const first = bytesIn(held);
    assert.ok(first < 2 * INITIAL_CREDIT_BYTES + 65_536, `${first} octets were given`);
    let dealtWith = 0;
    channel.receiver = {
      ...channel.receiver,
      data: (bytes) => {
        held.push(Buffer.from(bytes));
        setImmediate(() => channel.consumed(bytes.length));
      },
    };
    for (dealtWith = 0; dealtWith < first; dealtWith += 1_000) channel.consumed(Math.min(1_000, first - dealtWith));
    await ended;
    assert.equal(digest(Buffer.concat(held)), digest(sent));
    channel.end();
    caller.resume();
    await gone(caller);
  });

  test(`a writer is told when a slow caller takes more, over ${transport}`, async () => {
    const { caller, channel } = await channelTo(transport);
    const piece = noise(200_000);
    let drains = 0;
    let left = 60;
    const write = (): void => {
      while (left > 0) {
        left--;
        if (!channel.write(piece)) return;
      }
      channel.end();
    };
    channel.receiver = {
      ...nobody,
      drained: () => {
        drains++;
        write();
      },
    };
    write();
    assert.ok(channel.socket.writableLength <= 1_000_000);
    assert.equal(await digestOf(caller), digest(Buffer.concat(Array.from({ length: 60 }, () => piece))));
    assert.ok(drains > 0);
    caller.end();
    await gone(caller);
  });

  test(`a receiver is told once that all is over: in peace, if both have ended, over ${transport}`, async () => {
    const { caller, channel } = await channelTo(transport);
    const closes = closesOf(channel);
    caller.end("hello");
    channel.end();
    caller.resume();
    await Promise.all([gone(caller), gone(channel.socket)]);
    await pause();
    assert.deepEqual(closes, [Code.NO_ERROR]);
  });
}

test("a caller that resets is told as such, before and after our own end", async () => {
  for (const ours of ["open", "ended"]) {
    const { caller, channel } = await channelTo("tcp");
    const closes = closesOf(channel);
    caller.resume();
    if (ours === "ended") {
      channel.end();
      await once(caller, "end");
    }
    caller.resetAndDestroy();
    await gone(channel.socket);
    await pause();
    assert.deepEqual(closes, [Code.UNAVAILABLE], `our end was ${ours}`);
  }
});

test("a reset is one of TCP, so that what arrived does not look whole", async () => {
  const { caller, channel } = await channelTo("tcp");
  channel.write(Buffer.from("half of "));
  channel.reset(Code.CANCEL);
  caller.resume();
  await gone(caller);
  assert.ok(caller.errored !== null && "code" in caller.errored && caller.errored.code === "ECONNRESET");
});

test("a socket that was released has no listener of ours but that for errors", async () => {
  const { caller, channel } = await channelTo("tcp");
  const before = ["data", "end", "drain", "close"].map((event) => channel.socket.listenerCount(event));
  const socket = channel.release();
  const after = ["data", "end", "drain", "close"].map((event) => socket.listenerCount(event));
  assert.deepEqual(
    before.map((count, at) => count - (after[at] ?? 0)),
    [1, 1, 1, 1],
  );
  assert.equal(socket.isPaused(), true);
  socket.destroy();
  caller.destroy();
});

/** A program as a channel sees one: two streams, and what became of them. */
class Programmed implements Splice {
  readonly input = new PassThrough();
  readonly output = new PassThrough();
  readonly endsWithOutput: boolean;
  destroyed = false;

  constructor(endsWithOutput: boolean) {
    this.endsWithOutput = endsWithOutput;
  }

  destroy(): void {
    this.destroyed = true;
    this.input.destroy();
    this.output.destroy();
  }
}

function programmed({ endsWithOutput = true } = {}): Programmed {
  return new Programmed(endsWithOutput);
}

function bytesIn(buffers: readonly Buffer[]): number {
  return buffers.reduce((sum, { length }) => sum + length, 0);
}

/** The codes a channel's receiver is told of. */
function closesOf(channel: BareChannel): number[] {
  const closes: number[] = [];
  channel.receiver = { ...nobody, closed: (code) => void closes.push(code) };
  return closes;
}

/** Looks again after each turn. */
async function until(condition: () => boolean): Promise<void> {
  while (!condition()) await pause();
}
