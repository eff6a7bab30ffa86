import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { text } from "node:stream/consumers";
import test, { afterEach } from "node:test";
import { setImmediate as pause } from "node:timers/promises";
import { Random, seed } from "../../test/sim/seed.ts";
import { INITIAL_CREDIT_BYTES, SESSION_LIMITS } from "../session/index.ts";
import { Code, HEADER_BYTES, type SequencedContent } from "../wire/index.ts";
import { nobody, spliceOf } from "./channel.ts";
import { SLOT_BYTES, slabsHeld, takeSlab } from "./memory.ts";
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

/** Sizes around everything that is a limit somewhere: a frame, a slab, a window, a record. */
const SIZES = [1, 23, 1_300, 16_384, 16_385, 65_512, 65_536, 262_144, 1_000_003, 2_500_000, 5_000_000, 8_388_608];

/** Log window that every end grants at least (PROTOCOL §6.4). */
const LOG_WINDOW_BYTES = 1_048_576;

const SETTINGS: SequencedContent = { type: "settings", entries: new Map([[1, 65_512]]) };

afterEach(allReleased);

/** Resolves when no stream is left at either end, and no slot is taken. */
async function idle({ client, server }: Pair): Promise<void> {
  await Promise.all([client.idle(), server.idle()]);
  assert.equal(client.pump.session.streams, 0);
  assert.equal(server.pump.session.streams, 0);
}

for (const transport of TRANSPORTS) {
  for (const retain of [false, true]) {
    const kept = retain ? ", and kept until they are acknowledged" : "";
    test(`12 streams of 1 octet to 8 MiB, both ways at once${kept}, arrive as they were sent over ${transport}`, async () => {
      await using session = await pair({ transport, retain });
      const transfers = SIZES.map(async (bytes, at) => {
        const back = SIZES.at(-1 - at) ?? 0;
        const [up, down] = [noise(bytes), noise(back)];
        const { program, backEnd } = await path(session);
        program.end(up);
        backEnd.end(down);
        const [there, here] = await Promise.all([digestOf(backEnd), digestOf(program)]);
        assert.equal(there, digest(up), `${bytes} octets up`);
        assert.equal(here, digest(down), `${back} octets down`);
        await Promise.all([gone(program), gone(backEnd)]);
      });
      await Promise.all(transfers);
      await idle(session);
    });
  }

  test(`1,000 short streams one after another, and 50 at once, leave no slot, socket or slab behind over ${transport}`, async () => {
    await using session = await pair({ transport });
    const echo = async (): Promise<void> => {
      const channels = await stream(session);
      const far = channels.far.duplex(NOTHING);
      far.pipe(far);
      const near = channels.near.duplex(NOTHING);
      near.end("hello");
      assert.equal(await text(near), "hello");
    };
    for (let count = 0; count < 1_000; count++) await echo();
    await idle(session);
    for (let round = 0; round < 4; round++) await Promise.all(Array.from({ length: 50 }, echo));
    await idle(session);
    const sockets = await Promise.all(
      Array.from({ length: 50 }, async () => {
        const { program, backEnd, inner } = await path(session);
        program.end("question");
        assert.equal(await text(backEnd.iterator({ destroyOnReturn: false })), "question");
        backEnd.end("answer");
        assert.equal(await text(program), "answer");
        return [program, backEnd, ...inner];
      }),
    );
    await Promise.all(sockets.flat().map(gone));
    await idle(session);
    assert.equal(session.client.pump.streams, 0);
    assert.equal(session.server.pump.streams, 0);
  });

  test(`a connection that is cut at any moment tells every stream once and takes every socket along, over ${transport}`, async (t) => {
    t.diagnostic(`FIVED_TEST_SEED=${seed}`);
    const random = new Random(seed);
    for (let round = 0; round < 12; round++) {
      const session = await pair({ transport });
      const tellings = Array.from({ length: 4 }, () => told(session));
      const paths = await Promise.all(Array.from({ length: 6 }, () => path(session)));
      for (const { program, backEnd } of paths) {
        program.write(noise(random.between(1, 2_000_000)));
        backEnd.write(noise(random.between(1, 2_000_000)));
        if (random.chance(0.5)) backEnd.resume();
        if (random.chance(0.5)) program.resume();
      }
      for (let turns = random.between(0, 40); turns > 0; turns--) await pause();
      const { near, far } = session.wire;
      const side = random.pick([near, far]);
      if (random.chance(0.3) && transport === "tcp") side.resetAndDestroy();
      else if (random.chance(0.5)) side.destroy();
      else side.end(); // in the midst of a frame, perhaps
      const [here, there] = await Promise.all([session.client.ended, session.server.ended]);
      assert.notEqual(here.code, Code.NO_ERROR);
      assert.notEqual(there.code, Code.NO_ERROR);
      const sockets = paths.flatMap(({ program, backEnd, inner }) => [program, backEnd, ...inner]);
      for (const socket of sockets) socket.resume();
      await Promise.all([...sockets, near, far].map(gone));
      await idle(session);
      for (const telling of tellings) assert.deepEqual(await telling, [1, 1]);
    }
  });
}

test("bursts with pauses between them keep every octet", async (t) => {
  t.diagnostic(`FIVED_TEST_SEED=${seed}`);
  const sessions = TRANSPORTS.map(async (transport) => {
    const random = new Random(seed);
    await using session = await pair({ transport });
    const { program, backEnd } = await path(session);
    const [up, down] = [noise(600_000), noise(600_000)];
    const arrivals = Promise.all([digestOf(backEnd), digestOf(program)]);
    let at = 0;
    const say = (bytes: number): void => {
      program.write(up.subarray(at, at + bytes));
      backEnd.write(down.subarray(at, at + bytes));
      at += bytes;
    };
    for (let burst = 0; burst < 4; burst++) {
      for (const end = at + random.between(20_000, 120_000); at < end; ) {
        // Small pieces after a large one, so that the last are read while memory is about to be given back.
        say(random.chance(0.3) ? random.between(8_192, 70_000) : random.between(1, 2_000));
        if (random.chance(0.2)) await pause();
      }
      for (const calm = performance.now() + random.between(300, 700); performance.now() < calm; ) {
        say(1);
        await new Promise((resolve) => setTimeout(resolve, random.between(1, 60)));
      }
    }
    program.end(up.subarray(at));
    backEnd.end(down.subarray(at));
    assert.deepEqual(await arrivals, [digest(up), digest(down)]);
    await idle(session);
  });
  await Promise.all(sessions);
});

test("frames that straddle the moment in which a connection becomes quiet are whole, wherever they are cut", async () => {
  const payload = noise(20_000);
  const cuts = [1, HEADER_BYTES - 1, HEADER_BYTES, HEADER_BYTES + 1, 10_000, HEADER_BYTES + payload.length - 1];
  const connections = cuts.map(async (cut) => {
    const { peer, end, near, far } = await handmade();
    const channel = await opened(end, peer);
    const got: Buffer[] = [];
    channel.receiver = { ...nobody, data: (bytes) => void got.push(Buffer.from(bytes)) };
    peer.say({ type: "data", stream: 1, offset: 0, fin: false, payload });
    while (slabsHeld() === 0) await pause();
    const second = peer.frames({ type: "data", stream: 1, offset: 20_000, fin: false, payload });
    near.write(second.subarray(0, cut));
    const third = peer.frames({ type: "data", stream: 1, offset: 40_000, fin: false, payload });
    await allReleased(); // all of these connections are quiet now
    scribble();
    near.write(second.subarray(cut, cut + 3));
    await pause();
    near.write(Buffer.concat([second.subarray(cut + 3), third.subarray(0, cut)]));
    await pause();
    near.write(third.subarray(cut));
    while (bytesIn(got) < 60_000) await pause();
    assert.equal(digest(Buffer.concat(got)), digest(Buffer.concat([payload, payload, payload])), `cut at ${cut}`);
    channel.forget();
    near.end();
    await Promise.all([end.ended, gone(near), gone(far)]);
  });
  await Promise.all(connections);
});

test("frames cut at random places, read quietly or busily, are whole", async (t) => {
  t.diagnostic(`FIVED_TEST_SEED=${seed}`);
  const random = new Random(seed);
  for (let round = 0; round < 8; round++) {
    const { peer, end, near, far } = await handmade();
    const channel = await opened(end, peer);
    const got: Buffer[] = [];
    channel.receiver = {
      ...nobody,
      data: (bytes) => {
        got.push(Buffer.from(bytes));
        channel.consumed(bytes.length);
      },
    };
    const sent = noise(INITIAL_CREDIT_BYTES * 8);
    let offset = 0;
    let granted = INITIAL_CREDIT_BYTES;
    while (offset < sent.length) {
      const frames: Buffer[] = [];
      while (offset < granted) {
        const bytes = Math.min(random.between(1, random.pick([10, 1_000, 65_512])), granted - offset);
        frames.push(
          peer.frames({ type: "data", stream: 1, offset, fin: false, payload: sent.subarray(offset, offset + bytes) }),
        );
        offset += bytes;
      }
      const octets = Buffer.concat(frames);
      for (let at = 0; at < octets.length; ) {
        const bytes = random.between(1, random.pick([30, 9_000, SLOT_BYTES, 400_000]));
        near.write(octets.subarray(at, at + bytes));
        at += bytes;
        if (random.chance(0.5)) await pause();
      }
      if (offset === sent.length) break;
      await peer.until(() => {
        for (const frame of peer.heard)
          if (frame.type === "credit") granted = Math.min(Math.max(granted, frame.limit), sent.length);
        return granted > offset;
      });
    }
    while (bytesIn(got) < sent.length) await pause();
    assert.equal(digest(Buffer.concat(got)), digest(sent));
    channel.forget();
    near.end();
    await Promise.all([end.ended, gone(near), gone(far)]);
  }
});

test("a peer that falls silent in the midst of a frame is given up, and its streams are told once", async () => {
  const { peer, end, near, far } = await handmade({ keepaliveMs: 100 });
  const channel = await opened(end, peer);
  const closes: number[] = [];
  channel.receiver = {
    ...nobody,
    closed: (code) => {
      closes.push(code);
      channel.forget();
    },
  };
  near.write(
    peer.frames({ type: "data", stream: 1, offset: 0, fin: false, payload: noise(60_000) }).subarray(0, 40_000),
  );
  const { code, byPeer } = await end.ended;
  assert.deepEqual([code, byPeer], [Code.UNAVAILABLE, false]);
  assert.match(end.disconnects.join(), /nothing was heard/);
  near.end();
  await Promise.all([gone(near), gone(far)]);
  assert.deepEqual(closes, [Code.UNAVAILABLE]);
  assert.equal(end.pump.session.streams, 0);
});

test("what is kept for a session that may move on is held until it is acknowledged, and no longer", async () => {
  const { peer, end, near, far } = await handmade({}, true);
  const back = await connected();
  end.services.set("test", (channel) => channel.splice(spliceOf(back.near), NOTHING));
  peer.say(SETTINGS, { type: "open", stream: 1, credit: 900_000, request: Buffer.from("test") });
  const sent = noise(800_000);
  back.far.end(sent);
  await peer.until(() => peer.data(1).length === sent.length);
  assert.equal(digest(peer.data(1)), digest(sent));
  peer.say({ type: "data", stream: 1, offset: 0, fin: true, payload: NOTHING });
  await gone(back.near);
  for (let turns = 0; turns < 50; turns++) await pause();
  assert.ok(slabsHeld() >= 2, `${slabsHeld()} slabs are held`);
  const received = peer.heard.reduce((sum, frame) => ("size" in frame ? sum + frame.size : sum), 0);
  peer.mention({ type: "ack", received, limit: received + LOG_WINDOW_BYTES, held: [] });
  await allReleased();
  end.pump.end(Code.NO_ERROR, "over");
  near.end();
  await Promise.all([gone(near), gone(far)]);
});

test("a session that ends gives back what it kept, acknowledged or not", async () => {
  const { peer, end, near, far } = await handmade({}, true);
  const back = await connected();
  end.services.set("test", (channel) => channel.splice(spliceOf(back.near), NOTHING));
  peer.say(SETTINGS, { type: "open", stream: 1, credit: 800_000, request: Buffer.from("test") });
  back.far.write(noise(2_000_000));
  await peer.until(() => peer.data(1).length === 800_000);
  assert.ok(slabsHeld() >= 2);
  end.pump.end(Code.CALM, "enough");
  back.far.resume();
  await Promise.all([gone(back.far), gone(back.near)]);
  near.end();
  await Promise.all([gone(near), gone(far)]);
  assert.deepEqual(
    peer.heard.slice(-2).map(({ type }) => type),
    ["end", "closeConnection"],
  );
});

test("a session that is kept goes on over another connection, and every octet arrives once", async (t) => {
  t.diagnostic(`FIVED_TEST_SEED=${seed}`);
  const random = new Random(seed);
  const session = await pair({ retain: true, transport: "tls" });
  let { wire } = session;
  const transfers = [300_000, 5_000_000, 5_000_000].map(async (bytes) => {
    const [up, down] = [noise(bytes), noise(bytes)];
    const { program, backEnd } = await path(session);
    program.end(up);
    backEnd.end(down);
    const [there, here] = await Promise.all([digestOf(backEnd), digestOf(program)]);
    assert.deepEqual([there, here], [digest(up), digest(down)]);
  });
  const all = Promise.all(transfers);
  for (let cuts = 0; cuts < 8; cuts++) {
    for (let turns = random.between(1, 30); turns > 0; turns--) await pause();
    random.pick([wire.near, wire.far]).destroy();
    await Promise.all([gone(wire.near), gone(wire.far)]);
    wire = await connected("tls");
    session.server.carry(wire.far);
    session.client.carry(wire.near);
  }
  await all;
  await idle(session);
  await session[Symbol.asyncDispose]();
  await Promise.all([gone(wire.near), gone(wire.far)]);
});

test("F09 a peer that makes us answer faster than it reads is not read, until it does", async () => {
  const wire = await connected("unix");
  const end = new End("server", false, {
    ...SESSION_LIMITS,
    streams: 0,
    controls: 50,
    sendQueueBytes: 10_000,
    glitches: { capacity: 1_000_000, perSecond: 1 },
  });
  end.carry(wire.far);
  const peer = new HandmadePeer(wire.near);
  wire.near.pause();
  const opens = 20_000;
  const request = Buffer.from("test");
  peer.say(SETTINGS);
  for (let stream = 1; stream <= 2 * opens; stream += 2) peer.say({ type: "open", stream, credit: 0, request });
  let read = -1;
  while (read < wire.far.bytesRead) {
    read = wire.far.bytesRead;
    for (let turns = 0; turns < 50; turns++) await pause();
  }
  assert.ok(read < opens * 28, "all was read");
  assert.ok(end.pump.session.flooded && wire.far.isPaused());
  wire.near.resume();
  await peer.until(() => {
    const refused = peer.heard.filter(({ type }) => type === "reset").length;
    const received = peer.heard.reduce((sum, frame) => ("size" in frame ? sum + frame.size : sum), 0);
    peer.mention({ type: "ack", received, limit: received + LOG_WINDOW_BYTES, held: [] });
    return refused === opens;
  });
  wire.near.end();
  await Promise.all([end.ended, gone(wire.near), gone(wire.far)]);
});

for (const due of ["acknowledgement", "answer to PING"]) {
  test(`an ${due} that fell due while a connection was full is said as soon as it has room`, async () => {
    const wire = await connected("unix");
    const end = new End("server", false, { ...SESSION_LIMITS, sendQueueBytes: 100_000 });
    end.carry(wire.far);
    const peer = new HandmadePeer(wire.near);
    const channel = await opened(end, peer, 2_000_000);
    let got = 0;
    channel.receiver = {
      ...nobody,
      data: (bytes) => {
        got += bytes.length;
      },
    };
    await peer.until(() => peer.heard.some(({ type }) => type === "ack"));
    wire.near.pause();
    // Just so much that the last frame is under way and the connection full, with nothing else to be said.
    while (wire.far.writableLength <= 100_000) {
      channel.write(noise(65_512));
      await pause();
      await pause();
    }
    assert.equal(end.pump.session.waiting, false);
    if (due === "acknowledgement") {
      for (let offset = 0; offset < INITIAL_CREDIT_BYTES; offset += 16_384)
        peer.say({ type: "data", stream: 1, offset, fin: false, payload: noise(16_384) });
      while (got < INITIAL_CREDIT_BYTES) await pause();
      await new Promise((resolve) => setTimeout(resolve, 100));
    } else {
      const read = wire.far.bytesRead;
      peer.mention({ type: "ping", received: 0, opaque: 4_711, reply: false });
      while (wire.far.bytesRead === read) await pause();
    }
    wire.near.resume();
    const resumedAt = performance.now();
    await peer.until(() =>
      peer.heard.some((frame) => {
        if (due === "acknowledgement") return "received" in frame && frame.received === peer.seq;
        return frame.type === "ping" && frame.reply && frame.opaque === 4_711;
      }),
    );
    assert.ok(performance.now() - resumedAt < 1_500, "it waited for something else");
    channel.reset(Code.CANCEL);
    channel.forget();
    wire.near.end();
    await Promise.all([end.ended, gone(wire.near), gone(wire.far)]);
  });
}

test("an idle process whose session was cut ends by itself", async () => {
  const support = new URL("./pair.test.ts", import.meta.url).href;
  const program = `
    import { gone, noise, pair, path } from ${JSON.stringify(support)};
    for (const transport of ["tcp", "tls"]) {
      const session = await pair({ transport, retain: true });
      const { program, backEnd } = await path(session);
      program.write(noise(1_000_000));
      backEnd.resume();
      await new Promise((resolve) => backEnd.once("data", resolve));
      session.wire.near.destroy();
      session.client.pump.end(1, "over");
      session.server.pump.end(1, "over");
      program.resume();
      await Promise.all([gone(program), gone(backEnd)]);
    }
    console.log("done");
  `;
  const { NODE_TEST_CONTEXT: _, ...env } = process.env;
  const child = spawn(process.execPath, ["--input-type=module", "--eval", program], {
    env,
    stdio: ["ignore", "pipe", "inherit"],
  });
  const [said, [code]] = await Promise.all([text(child.stdout), once(child, "exit")]);
  assert.deepEqual([said, code], ["done\n", 0]);
});

test("octets that came before the reading begins are read first, and a preface goes out before all else", async () => {
  const wire = await connected();
  const end = new End("server", false, SESSION_LIMITS);
  const peer = new HandmadePeer(wire.near);
  const said = new Promise<string>((resolve) => {
    end.services.set("test", (channel) => {
      channel.receiver = { ...nobody, data: (bytes) => resolve(String(Buffer.from(bytes))) };
    });
  });
  const octets = peer.frames(
    SETTINGS,
    { type: "open", stream: 1, credit: 0, request: Buffer.from("test") },
    { type: "data", stream: 1, offset: 0, fin: false, payload: Buffer.from("hello") },
  );
  const start = end.pump.carry(wire.far, NOTHING);
  wire.near.write(octets.subarray(30, 50));
  while (wire.far.readableLength < 20) await pause(); // lies in the socket's own buffer
  start(octets.subarray(0, 30));
  wire.near.write(octets.subarray(50));
  assert.equal(await said, "hello");
  wire.near.end();
  await Promise.all([end.ended, gone(wire.near), gone(wire.far)]);

  const other = await connected();
  const client = new End("client", false, SESSION_LIMITS);
  client.pump.carry(other.near, Buffer.from("MULTIPLEX\r\n"));
  const [chunk] = await once(other.far, "data");
  assert.equal(String(chunk.subarray(0, 11)), "MULTIPLEX\r\n");
  assert.equal(chunk[11], 0xc5); // SETTINGS, in the same segment
  client.pump.end(Code.NO_ERROR, "over");
  other.far.end();
  await Promise.all([gone(other.near), gone(other.far)]);
});

test("a burst begins with a TLS record of one packet, and one that fills TCP's first window", async () => {
  await using session = await pair({ transport: "tls" });
  const channels = await stream(session);
  const far = channels.far.duplex(NOTHING);
  const near = channels.near.duplex(NOTHING);
  const sizes: number[] = [];
  let last = performance.now();
  const { wire } = session;
  const { write } = wire.far;
  Reflect.set(wire.far, "write", function (this: unknown, ...args: [Uint8Array]) {
    sizes.push(args[0].length);
    last = performance.now();
    return Reflect.apply(write, wire.far, args);
  });
  for (let burst = 0; burst < 2; burst++) {
    while (performance.now() - last < 250) await new Promise((resolve) => setTimeout(resolve, 50));
    sizes.length = 0;
    const bulk = noise(60_000);
    far.write(bulk);
    let got = 0;
    while (got < bulk.length) {
      await once(near, "readable");
      for (let chunk = near.read(); chunk !== null; chunk = near.read()) got += chunk.length;
    }
    assert.deepEqual(sizes.slice(0, 2), [1_300, 12_000]);
  }
  near.end();
  far.end();
  near.resume();
  far.resume();
  await idle(session);
});

test("a session that ends in peace says everything first, to a peer that takes its time", async () => {
  const wire = await connected("unix");
  const end = new End("server", false, SESSION_LIMITS);
  end.carry(wire.far);
  const peer = new HandmadePeer(wire.near);
  const channel = await opened(end, peer, 1_000_000);
  wire.near.pause();
  const sent = noise(400_000);
  channel.write(sent.subarray(0, 200_000));
  await pause();
  await pause();
  channel.write(sent.subarray(200_000));
  await pause();
  await pause();
  end.pump.end(Code.NO_ERROR, "goodbye");
  await new Promise((resolve) => setTimeout(resolve, 1_200));
  wire.near.resume();
  await once(wire.near, "end");
  assert.equal(digest(peer.data(1)), digest(sent));
  assert.deepEqual(
    peer.heard.slice(-2).map(({ type }) => type),
    ["end", "closeConnection"],
  );
  channel.forget();
  wire.near.end();
  await Promise.all([gone(wire.near), gone(wire.far)]);
});

/** A server's end, and a peer made of frames. */
async function handmade(limits: Partial<typeof SESSION_LIMITS> = {}, retain = false) {
  const { near, far } = await connected();
  const end = new End("server", retain, { ...SESSION_LIMITS, ...limits });
  end.carry(far);
  return { near, far, end, peer: new HandmadePeer(near) };
}

/** Stream 1, opened by the peer. */
async function opened(end: End, peer: HandmadePeer, credit = 0) {
  const channel = new Promise<Awaited<ReturnType<typeof stream>>["far"]>((resolve) =>
    end.services.set("test", resolve),
  );
  peer.say(SETTINGS, { type: "open", stream: 1, credit, request: Buffer.from("test") });
  return await channel;
}

/** How often a stream's receivers are told of its end, at either end, once the session is over. */
async function told(session: Pair): Promise<number[]> {
  const { near, far } = await stream(session);
  const times = [0, 0];
  for (const [at, channel] of [near, far].entries()) {
    channel.receiver = {
      ...nobody,
      closed: () => {
        times[at] = (times[at] ?? 0) + 1;
        channel.forget();
      },
    };
  }
  await Promise.all([session.client.ended, session.server.ended]);
  for (let turns = 0; turns < 10; turns++) await pause();
  return times;
}

/** Overwrites all memory that is nobody's. */
function scribble(): void {
  const slabs = Array.from({ length: 32 }, () => takeSlab());
  for (const slab of slabs) {
    slab.bytes.fill(0xa5);
    slab.release();
  }
}

function bytesIn(buffers: readonly Buffer[]): number {
  return buffers.reduce((sum, { length }) => sum + length, 0);
}
