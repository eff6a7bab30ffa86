/**
 * What a peer can make a session hold, do and wait for: abuse cases of groups F and G, and every deadline (PROTOCOL §8.4, §9).
 * @module
 */
import assert from "node:assert/strict";
import test from "node:test";
import { setFlagsFromString } from "node:v8";
import { runInNewContext } from "node:vm";
import { SESSION_LIMITS } from "../../src/session/index.ts";
import { Code, encodeUnsequenced, HEADER_BYTES, type SequencedContent, Setting } from "../../src/wire/index.ts";
import { data, open, Peer, SETTINGS } from "./peer.ts";

const SECOND = 1_000;

/** The application sends whatever it may, whenever it is told to go on. */
function feed(peer: Peer, ...streams: number[]): void {
  const send = (stream: number): void => {
    for (let room = peer.session.sendable(stream, peer.now); room > 0; room = peer.session.sendable(stream, peer.now)) {
      peer.session.send(stream, new Uint8Array(room), peer.now);
      const { sent } = peer.session.positions;
      peer.drain();
      if (peer.session.positions.sent === sent) break;
    }
  };
  for (const stream of streams) send(stream);
}

/** As {@link feed}, while time passes in steps. */
function feedFor(peer: Peer, ms: number, streams: readonly number[], each: () => void = () => {}): void {
  for (let passed = 0; passed < ms && peer.ended() === undefined; passed += 10) {
    peer.pass(10);
    each();
    if (peer.ended() === undefined) feed(peer, ...streams);
  }
}

/** Time passes with a peer that is alive: it acknowledges every 20 s, and its connection is not given up. */
function live(peer: Peer, seconds: number): void {
  peer.acknowledge();
  for (let passed = 0; passed < seconds; passed += 20) peer.pass(20 * SECOND).acknowledge();
  assert.equal(peer.frames("closeConnection").length, 0);
}

/** The octets that all DATA carried. */
function octets(peer: Peer): number {
  return peer.frames("data").reduce((sum, { payload }) => sum + payload.length, 0);
}

const RICH = Number.MAX_SAFE_INTEGER;

// ---- F: flow control and memory ---------------------------------------------------------------------------------------------------

test("F01 a peer that takes 100 streams and grants nothing more gets 64 KiB of each, and after 600 s RESET, whatever it pings", () => {
  const peer = new Peer().greet();
  const streams = Array.from({ length: 100 }, (_, index) => 2 * index + 1);
  for (const stream of streams) peer.say(open(stream));
  peer.acknowledge();
  feed(peer, ...streams);
  assert.equal(octets(peer), 100 * 65_536);
  for (let seconds = 0; seconds < 560; seconds += 20)
    peer
      .pass(20 * SECOND)
      .acknowledge()
      .tell({ type: "ping", received: 0, opaque: 1, reply: false });
  assert.equal(peer.frames("reset").length, 0);
  for (let seconds = 0; seconds < 80; seconds += 20) peer.pass(20 * SECOND).acknowledge();
  assert.deepEqual(new Set(peer.frames("reset").map(({ code }) => code)), new Set([Code.TIMEOUT]));
  assert.equal(peer.told("reset").length, 100);
  assert.equal(peer.ended(), undefined);
});

test("F01 a stream that moves now and then is not reset, and neither is one that only idles", () => {
  const peer = new Peer().greet().say(open(1), open(3));
  feed(peer, 1);
  for (let minutes = 0; minutes < 30; minutes++) {
    live(peer, 60);
    if (minutes % 9 === 8) peer.say({ type: "credit", stream: 1, limit: 65_536 + minutes * 10_000 });
    feed(peer, 1);
  }
  assert.equal(peer.frames("reset").length, 0);
});

test("F01 a reader that takes its octets slowly, behind the peer's end, is progress", () => {
  const peer = new Peer().greet().say(open(1), data(1, 0, 60_000, true));
  for (let minutes = 0; minutes < 60; minutes++) {
    live(peer, 60);
    peer.session.consume(1, 1_000, peer.now);
  }
  assert.equal(peer.frames("reset").length, 0);
});

test("F02 a connection that takes nothing for 60 s although something waits is closed, in time", () => {
  for (const retain of [true, false]) {
    const peer = new Peer({ retain }).greet().say(open(1, RICH)).acknowledge();
    peer.room(0);
    peer.session.send(1, new Uint8Array(1_000), peer.now);
    peer.drain();
    const keepHearing = (): void => void peer.acknowledge();
    for (let seconds = 0; seconds < 59; seconds++) {
      peer.pass(SECOND);
      keepHearing();
    }
    assert.equal(peer.frames("closeConnection").length, 0);
    for (let seconds = 0; seconds < 5; seconds++) {
      peer.pass(SECOND);
      keepHearing();
    }
    assert.deepEqual(
      peer.frames("closeConnection").map(({ code }) => code),
      [Code.TIMEOUT],
    );
    peer.lose();
    assert.equal(peer.ended(), retain ? undefined : Code.UNAVAILABLE);
  }
});

test("F02 a connection that is full is closed after 60 s though the session has nothing more for it, and never while it takes octets", () => {
  const full = new Peer().greet().say(open(1, RICH)).acknowledge().room(100);
  full.session.send(1, new Uint8Array(1_000), full.now);
  full.drain();
  const slow = new Peer().greet().say(open(1, RICH)).acknowledge().room(100);
  slow.session.send(1, new Uint8Array(10_000), slow.now);
  slow.drain();
  let room = 100 - 10_024;
  for (let seconds = 0; seconds < 600; seconds += 40) {
    if (seconds < 60) full.pass(40 * SECOND).acknowledge();
    room += 500;
    slow
      .pass(40 * SECOND)
      .room(room)
      .acknowledge();
  }
  assert.deepEqual(
    full.frames("closeConnection").map(({ reason }) => reason),
    ["nothing was taken"],
  );
  assert.equal(slow.frames("closeConnection").length, 0);
});

test("F02 a connection that takes a little now and then is not closed", () => {
  const peer = new Peer().greet().say(open(1, RICH)).acknowledge();
  for (let minutes = 0; minutes < 10; minutes++) {
    peer.room(100);
    feed(peer, 1);
    peer.pass(40 * SECOND).acknowledge();
  }
  assert.equal(peer.frames("closeConnection").length, 0);
});

test("F03 credit of one octet at a time makes no more than five frames a second and stream, and is a glitch each", () => {
  const peer = new Peer().greet();
  const streams = Array.from({ length: 100 }, (_, index) => 2 * index + 1);
  for (const stream of streams) peer.say(open(stream, 0));
  peer.acknowledge().forget();
  const limits = new Map<number, number>();
  let credits = 0;
  feedFor(peer, 10 * SECOND, streams, () => {
    const stream = streams[credits++ % streams.length] ?? 1;
    const limit = (limits.get(stream) ?? 0) + 1;
    limits.set(stream, limit);
    peer.say({ type: "credit", stream, limit });
  });
  assert.ok(octets(peer) > 300);
  assert.ok(peer.frames("data").length <= credits, `${peer.frames("data").length} frames for ${credits} octets`);
  // On one stream they add up while they are waited out.
  const one = new Peer().greet().say(open(1, 0)).acknowledge();
  let limit = 0;
  feedFor(one, 10 * SECOND, [1], () => void one.say({ type: "credit", stream: 1, limit: ++limit }));
  assert.ok(one.frames("data").length <= 51, `${one.frames("data").length} frames`);
  assert.ok(one.octetsOn(1) > 900);
  const calm = new Peer().greet().say(open(1, 0));
  for (let limit = 1; limit <= 1_001; limit++) calm.say({ type: "credit", stream: 1, limit });
  assert.equal(calm.ended(), Code.CALM);
});

test("F03 what is left of a large credit, and a late rest, go at once", () => {
  const peer = new Peer().greet().say(open(1, 10)).acknowledge();
  feed(peer, 1);
  assert.equal(peer.octetsOn(1), 10);
  peer.say({ type: "credit", stream: 1, limit: 8_202 });
  feed(peer, 1);
  assert.equal(peer.octetsOn(1), 8_202);
});

test("F05 one octet beyond the credit of one stream, of many, or early, ends the session", () => {
  for (const count of [1, 100]) {
    const peer = new Peer().greet();
    for (let id = 1; id < 2 * count; id += 2) peer.say(open(id), data(id, 0, 60_000));
    assert.equal(peer.ended(), undefined);
    for (let id = 1; id < 2 * count; id += 2) peer.say(data(id, 60_000, 5_537));
    assert.equal(peer.ended(), Code.FLOW_CONTROL);
  }
  const bonded = new Peer({ retain: true }).greet().connect(2).say(open(1));
  bonded.sayAt(bonded.end + 50, data(1, 0, 65_000), 2).sayAt(bonded.end + 50 + 65_024, data(1, 65_000, 537), 2);
  assert.equal(bonded.ended(), Code.FLOW_CONTROL);
});

test("F05 credit grows as the application takes octets, and the new limit holds exactly", () => {
  const peer = new Peer()
    .greet()
    .say(open(1), data(1, 0, 60_000))
    .pass(10 * SECOND);
  peer.session.consume(1, 60_000, peer.now);
  peer.drain();
  const limit = peer.frames("credit").at(-1)?.limit ?? 0;
  assert.equal(limit, 125_536);
  peer.say(data(1, 60_000, 60_000), data(1, 120_000, 5_536));
  assert.equal(peer.ended(), undefined);
  peer.say(data(1, 125_536, 1));
  assert.equal(peer.ended(), Code.FLOW_CONTROL);
});

test("F06 empty frames cost five glitches each from the second in a row on, and nothing is queued for them", () => {
  const peer = new Peer()
    .greet()
    .say(open(1), data(1, 0, ""), data(1, 0, "x"), data(1, 1, ""))
    .forget();
  let empty = 0;
  for (; peer.ended() === undefined && empty < 1_000; empty++) peer.say(data(1, 1, ""));
  assert.equal(peer.ended(), Code.CALM);
  assert.ok(empty >= 195 && empty <= 205, `${empty}`);
  assert.equal(peer.told("data").length, 0);
  const fair = new Peer().greet().say(open(1));
  for (let at = 0; at < 5_000; at++) fair.say(data(1, at, ""), data(1, at, "x"));
  assert.equal(fair.ended(), undefined);
});

test("F07 data in single octets is delivered, and counted as small", () => {
  const peer = new Peer().greet().say(open(1));
  for (let at = 0; at < 50_000; at++) peer.say(data(1, at, "x"));
  assert.equal(peer.told("data").length, 50_000);
  assert.ok(peer.session.smallFrames >= 50_000);
  assert.equal(peer.ended(), undefined);
});

test("F09 a peer that makes us answer and does not read is not read, and what waits for it is bounded", () => {
  const floods: Record<string, (peer: Peer, round: number) => void> = {
    PING: (peer) => void peer.tell({ type: "ping", received: 0, opaque: 1, reply: false }),
    "OPEN beyond the limit": (peer, round) => void peer.say(open(2 * round + 1)),
    "DATA behind FIN": (peer, round) =>
      void peer.say(open(2 * round + 1), data(2 * round + 1, 0, "", true), data(2 * round + 1, 0, "x")),
    "credit to be given": (peer, round) => {
      peer.say(open(2 * round + 1), data(2 * round + 1, 0, 40_000));
      peer.session.consume(2 * round + 1, 40_000, peer.now);
      peer.session.forget(2 * round + 1, peer.now);
      peer.drain();
    },
  };
  for (const [name, flood] of Object.entries(floods)) {
    const peer = new Peer({ limits: { streams: 1 } }).greet().room(0).forget();
    let rounds = 0;
    for (; peer.ended() === undefined && !peer.session.flooded && rounds < 20_000; rounds++) flood(peer, rounds);
    // Whatever waits comes out when there is room again.
    if (peer.ended() === undefined) peer.room(1e9);
    const waited = peer.heard.filter(({ frame: { type } }) => type !== "closeConnection" && type !== "end").length;
    assert.ok(waited <= 1_003, `${name}: ${waited} frames waited after ${rounds} rounds`);
    assert.ok(name === "PING" ? waited <= 3 : rounds < 20_000, `${name}: ${rounds} rounds`);
  }
});

test("F09 a flooded connection that takes nothing for 60 s is closed with CALM", () => {
  const peer = new Peer({ limits: { streams: 0, glitches: { capacity: 1e6, perSecond: 0 } } }).greet().room(0);
  for (let round = 0; !peer.session.flooded; round++) peer.say(open(2 * round + 1));
  peer.pass(70 * SECOND);
  assert.equal(peer.frames("closeConnection")[0]?.code, Code.CALM);
});

test("F11 a peer that never acknowledges gets a log window and no more, and after 60 s is closed", () => {
  for (const retain of [true, false]) {
    const peer = new Peer({ retain }).greet().say(open(1, RICH));
    feed(peer, 1);
    const { sent } = peer.session.positions;
    assert.ok(sent <= 2 ** 20 && sent > 2 ** 20 - 80_000, `${sent}`);
    const ping = encodeUnsequenced({ type: "ping", received: 0, opaque: 1, reply: false });
    for (let seconds = 0; seconds < 59; seconds++) {
      peer.pass(SECOND).raw(ping);
      feed(peer, 1);
    }
    assert.equal(peer.frames("closeConnection").length, 0);
    peer.pass(5 * SECOND);
    assert.deepEqual(
      peer.frames("closeConnection").map(({ code }) => code),
      [Code.TIMEOUT],
    );
    assert.ok(peer.session.positions.sent < 2 ** 20);
  }
});

test("F11 control frames that fill the rest of a log window stop at the limit, OPEN with its whole request too", () => {
  const peer = new Peer({ role: "client" }).greet();
  const id = peer.session.open(Buffer.from("bulk"), peer.now);
  assert.equal(id, 1);
  peer.say({ type: "credit", stream: 1, limit: RICH });
  feed(peer, 1);
  for (let streams = 0; streams < 50; streams++) peer.session.open(new Uint8Array(1_024).fill(0x61), peer.now);
  peer.drain();
  assert.ok(peer.session.positions.sent <= 2 ** 20, `${peer.session.positions.sent}`);
  peer.session.end(Code.NO_ERROR, "done", peer.now);
  peer.drain();
  const end = peer.frames("end")[0];
  assert.ok(end !== undefined && end.seq + end.size <= 2 ** 20, "END needs no exception");
});

test("F10 acknowledgements and answers are given whatever the application does, and with a full log", () => {
  const peer = new Peer().greet().say(open(1, RICH));
  feed(peer, 1);
  peer.forget();
  for (let at = 0; at < 60_000; at += 10_000) peer.say(data(1, at, 10_000));
  peer.tell({ type: "ping", received: 0, opaque: 77, reply: false }).pass(50);
  assert.equal(peer.frames("ack").at(-1)?.received, peer.end);
  assert.equal(peer.frames("ping").filter(({ reply, opaque }) => reply && opaque === 77).length, 1);
});

test("F10 an answer to PING takes no ACK's place: the log limit is told all the same", () => {
  const peer = new Peer({ limits: { logWindowBytesMax: 2 ** 20 } }).greet();
  let limit = 2 ** 20;
  for (let id = 1; id < 200; id += 2) {
    peer.say(open(id), data(id, 0, 60_000));
    // Each burst ends in a question; what it acknowledges must not be all that is said.
    peer.tell({ type: "ping", received: 0, opaque: id, reply: false });
    peer.session.consume(id, 60_000, peer.now);
    peer.session.forget(id, peer.now);
    peer.drain().pass(60);
    limit = Math.max(limit, peer.frames("ack").at(-1)?.limit ?? 0);
    assert.ok(peer.end + 100_000 < limit, `at ${peer.end} the limit is ${limit}`);
    if (id % 10 === 1) peer.acknowledge().pass(SECOND);
  }
  assert.equal(peer.ended(), undefined);
});

test("D23 the limit that was told on a lost connection is told again on the next", () => {
  const peer = new Peer({ retain: true }).greet().say(open(1));
  for (let at = 0; at < 60_000; at += 10_000) peer.say(data(1, at, 10_000));
  peer.pass(100).lose(1).forget().pass(1_000).connect(2);
  const [ack] = peer.frames("ack");
  assert.ok(ack !== undefined && ack.received === peer.end && ack.limit >= peer.end + 2 ** 20);
});

test("what is sent beyond the credit waits for it, and no peer sees it", () => {
  const peer = new Peer().greet().say(open(1, 0)).acknowledge();
  peer.session.send(1, Buffer.from("+ SUCCESS\r\n"), peer.now);
  peer.session.finish(1, peer.now);
  peer.drain();
  assert.equal(peer.frames("data").length, 0);
  peer.say({ type: "credit", stream: 1, limit: 3 });
  assert.equal(peer.octetsOn(1), 3);
  peer.say({ type: "credit", stream: 1, limit: 1_000 });
  const frames = peer.frames("data");
  assert.equal(Buffer.concat(frames.map(({ payload }) => payload)).toString(), "+ SUCCESS\r\n");
  assert.deepEqual(
    frames.map(({ fin }) => fin),
    [false, true],
  );
});

test("a client's first credit is 65,536 octets until SETTINGS were heard, and then theirs, for streams that are open too", () => {
  const peer = new Peer({ role: "client" }).connect().acknowledge();
  peer.session.open(Buffer.from("echo"), peer.now);
  feed(peer, 1);
  assert.equal(peer.octetsOn(1), 65_536);
  assert.ok(peer.frames("data").every(({ payload }) => payload.length <= 16_360));
  peer.say({ type: "settings", entries: new Map([[Setting.initialCredit, 100_000]]) });
  feed(peer, 1);
  assert.equal(peer.octetsOn(1), 100_000);
});

test("limits that are raised give streams that are open what is announced", () => {
  const peer = new Peer().greet().say(open(1), data(1, 0, 60_000));
  peer.session.raise({ ...SESSION_LIMITS, initialCreditBytes: 200_000, streams: 200 }, peer.now);
  peer.drain();
  const { entries } = peer.frames("settings").at(-1) ?? {};
  assert.equal(entries?.get(Setting.initialCredit), 200_000);
  assert.equal(entries?.get(Setting.streamsMax), 200);
  peer.say(data(1, 60_000, 65_000), data(1, 125_000, 65_000), data(1, 190_000, 10_000));
  assert.equal(peer.ended(), undefined);
  peer.session.raise({ ...SESSION_LIMITS, initialCreditBytes: 70_000 }, peer.now);
  peer.drain();
  assert.equal(peer.frames("settings").at(-1)?.entries.get(Setting.initialCredit), 200_000, "never lower than before");
  peer.say(data(1, 200_000, 1));
  assert.equal(peer.ended(), Code.FLOW_CONTROL);
});

test("F13 an idle stream takes less than 4 KiB, and an idle session less than 64 KiB", () => {
  setFlagsFromString("--expose-gc");
  const collect: () => void = runInNewContext("gc");
  const heap = (): number => {
    collect();
    return process.memoryUsage().heapUsed + process.memoryUsage().arrayBuffers;
  };
  const held: unknown[] = [];
  const cost = (count: number, make: () => unknown): number => {
    const before = heap();
    for (let made = 0; made < count; made++) held.push(make());
    return (heap() - before) / count;
  };
  const session = (): Peer => new Peer({ retain: true }).greet().acknowledge().pass(1_000).forget();
  const withStreams = (): Peer => {
    const peer = session();
    for (let id = 1; id < 200; id += 2) peer.say(open(id));
    return peer.acknowledge().pass(1_000).forget();
  };
  cost(10, withStreams); // what is loaded and compiled once
  const empty = cost(100, session);
  const full = cost(100, withStreams);
  assert.ok(empty > 0 && empty < 65_536, `a session ${Math.round(empty)} octets`);
  assert.ok((full - empty) / 100 < 4_096, `a stream ${Math.round((full - empty) / 100)} octets`);
  assert.equal(held.length, 210);
});

test("D24 without an acknowledgement a sender changes connections fewer than 64 times, then waits for the one in use", () => {
  const peer = new Peer({ role: "client", retain: true }).connect(1, 0).connect(2, 0).say(SETTINGS);
  assert.equal(peer.session.open(Buffer.from("echo"), peer.now), 1);
  const say = (times: number): void => {
    for (let time = 0; time < times; time++) {
      // Only one of the two has room, in turns.
      peer.room(0, 1 + (time % 2)).room(1, 2 - (time % 2));
      peer.session.send(1, Uint8Array.of(time), peer.now);
      peer.drain();
    }
  };
  const changes = (): number => {
    const on = peer.heard.filter(({ frame: { type } }) => type === "data").map(({ connection }) => connection);
    return on.filter((connection, at) => at > 0 && connection !== on[at - 1]).length;
  };
  say(200);
  assert.ok(changes() >= 60 && changes() < 64, `${changes()} changes`);
  assert.equal(peer.octetsOn(1) < 200, true);
  peer.acknowledge(undefined, 2).forget();
  say(20);
  assert.ok(changes() > 10, `${changes()} changes behind an acknowledgement`);
  // A connection that is gone is not waited for.
  say(200);
  peer.forget().lose(1).lose(2).connect(3);
  assert.ok(peer.frames("data").length > 0);
});

test("behind its own end a stream says nothing, and gives back what it is lent", () => {
  const ends: Record<string, (peer: Peer) => void> = {
    finish: (peer) => peer.session.finish(1, peer.now),
    "finish, and the peer has too": (peer) => {
      peer.say(data(1, 0, "", true));
      peer.session.finish(1, peer.now);
    },
    reset: (peer) => peer.session.reset(1, Code.CANCEL, peer.now),
    "reset by the peer": (peer) => void peer.say({ type: "reset", stream: 1, code: Code.CANCEL }),
  };
  for (const [name, end] of Object.entries(ends)) {
    for (const drained of [true, false]) {
      const peer = new Peer().greet().say(open(1)).acknowledge();
      end(peer);
      if (drained) peer.drain();
      assert.equal(peer.session.sendable(1, peer.now), 0);
      peer.session.send(1, Buffer.from("late"), peer.now);
      const memory = new Uint8Array(HEADER_BYTES + 4);
      peer.session.lend(1, memory, peer.now);
      peer.session.finish(1, peer.now);
      peer.drain();
      assert.equal(peer.octetsOn(1), 0, name);
      assert.deepEqual(peer.told("released"), [{ type: "released", memory }], name);
      assert.ok(peer.frames("data").length <= 1, name);
      assert.equal(peer.told("writable").length, 0, name);
    }
  }
});

test("a stream that is forgotten says what it had to say, if both of its ends were to come; else it is reset", () => {
  const cases: readonly {
    name: string;
    finish?: true;
    whole?: true;
    peerFinishes?: true;
    said: boolean;
    resets: number[];
  }[] = [
    { name: "open", said: false, resets: [Code.CANCEL] },
    { name: "our end was to come", finish: true, said: false, resets: [Code.CANCEL] },
    { name: "the peer's end had come", peerFinishes: true, said: false, resets: [Code.CANCEL] },
    { name: "both", finish: true, peerFinishes: true, said: true, resets: [] },
    { name: "ours is all that matters", finish: true, whole: true, said: true, resets: [Code.NO_ERROR] },
    {
      name: "ours is all that matters, and theirs had come",
      finish: true,
      whole: true,
      peerFinishes: true,
      said: true,
      resets: [],
    },
  ];
  for (const { name, finish, whole = false, peerFinishes, said, resets } of cases) {
    const peer = new Peer({ limits: { streams: 1 } }).greet().say(open(1)).acknowledge().room(0).forget();
    peer.session.send(1, Buffer.from("last words"), peer.now);
    if (finish === true) peer.session.finish(1, peer.now, whole);
    if (peerFinishes === true) peer.say(data(1, 0, "", true));
    peer.session.forget(1, peer.now);
    peer.drain();
    assert.equal(peer.told("gone").length, said ? 0 : 1, name);
    peer.say(open(3));
    assert.equal(peer.told("opened").length, said ? 0 : 1, `${name}: the slot is free when nothing is left to be said`);
    peer.room(1e9);
    assert.equal(peer.octetsOn(1), said ? 10 : 0, name);
    const mine = peer.frames("reset").filter(({ stream }) => stream === 1);
    assert.deepEqual(
      mine.map(({ code }) => code),
      resets,
      name,
    );
    assert.equal(peer.told("gone").length, 1, name);
    assert.equal(peer.told("reset").length, 0, `${name}: who has forgotten is told nothing`);
  }
});

test("a whole end behind a half one says that no more is read", () => {
  const peer = new Peer().greet().say(open(1)).acknowledge();
  peer.session.finish(1, peer.now);
  peer.drain();
  assert.equal(peer.frames("reset").length, 0);
  peer.session.finish(1, peer.now, true);
  peer.drain();
  assert.deepEqual(
    peer.frames("reset").map(({ code }) => code),
    [Code.NO_ERROR],
  );
  const over = new Peer()
    .greet()
    .say(open(1), data(1, 0, "", true))
    .acknowledge();
  over.session.finish(1, over.now);
  over.drain();
  over.session.finish(1, over.now, true);
  over.drain();
  assert.equal(over.frames("reset").length, 0);
});

test("whatever is asked of a stream that is not there changes nothing", () => {
  const peer = new Peer().greet().say(open(1)).say({ type: "reset", stream: 1, code: Code.CANCEL });
  peer.session.forget(1, peer.now);
  peer.drain().forget();
  for (const id of [1, 3, 2, 0, 2 ** 32]) {
    assert.equal(peer.session.sendable(id, peer.now), 0);
    peer.session.send(id, Uint8Array.of(1), peer.now);
    peer.session.consume(id, 1, peer.now);
    peer.session.finish(id, peer.now);
    peer.session.reset(id, Code.CANCEL, peer.now);
    peer.session.forget(id, peer.now);
    peer.session.disconnect(id + 100, Code.CANCEL, "not there", peer.now);
  }
  peer.room(5, 99).lose(99);
  const memory = new Uint8Array(HEADER_BYTES + 1);
  peer.session.lend(1, memory, peer.now);
  peer.drain();
  assert.deepEqual(peer.outputs, [{ type: "released", memory }]);
  assert.equal(peer.heard.length, 0);
});

// ---- G: resets, opens, control floods ----------------------------------------------------------------------------------------------

test("R01 opening and resetting at speed is CALM, and never holds more than the limit", () => {
  const peer = new Peer().greet();
  let pairs = 0;
  for (; peer.ended() === undefined && pairs < 10_000; pairs++)
    peer.say(open(2 * pairs + 1), { type: "reset", stream: 2 * pairs + 1, code: Code.CANCEL });
  assert.equal(peer.ended(), Code.CALM);
  // 75 cost three quarters; behind GOAWAY nothing is taken up, and each OPEN costs one of the 250 that are left.
  assert.ok(pairs <= 330, `${pairs}`);
  assert.ok(peer.told("opened").length <= 76, `${peer.told("opened").length}`);
  assert.equal(peer.frames("goaway")[0]?.code, Code.CALM);
});

test("R01 a slot is free only when the back end is gone, so that resets buy none", () => {
  const peer = new Peer({ limits: { streams: 3 } }).greet();
  for (const id of [1, 3, 5]) peer.say(open(id));
  peer.say({ type: "reset", stream: 1, code: Code.CANCEL }, open(7));
  assert.deepEqual(
    peer.frames("reset").map(({ stream, code }) => [stream, code]),
    [[7, Code.REFUSED]],
  );
  peer.session.forget(1, peer.now);
  peer.drain().say(open(9));
  assert.deepEqual(
    peer.told("opened").map(({ stream }) => stream),
    [1, 3, 5, 9],
  );
});

test("R01 streams opened and given up while there is no connection are never heard of", () => {
  const peer = new Peer({ role: "client", retain: true }).greet().lose().forget();
  const kept = peer.session.open(Buffer.from("kept"), peer.now);
  for (let tries = 0; tries < 10_000; tries++) {
    const id = peer.session.open(Buffer.from("impatient"), peer.now);
    assert.ok(id !== undefined);
    peer.session.send(id, Buffer.from("hello"), peer.now);
    peer.session.reset(id, Code.CANCEL, peer.now);
    peer.session.forget(id, peer.now);
    peer.drain();
  }
  peer.connect(2);
  assert.deepEqual(
    peer.frames("open").map(({ stream }) => stream),
    [kept],
  );
  assert.equal(peer.frames("reset").length, 0);
  assert.equal(peer.frames("data").length, 0);
  const late = peer.session.open(Buffer.from("echo"), peer.now);
  assert.ok(late !== undefined && late > 20_000, "a number is used once, whether it was heard of or not");
});

test("GOAWAY takes back what was not said yet", () => {
  const peer = new Peer({ role: "client" }).greet().acknowledge().room(0).forget();
  assert.equal(peer.session.open(Buffer.from("echo"), peer.now), 1);
  peer.say({ type: "goaway", lastStream: 0, code: Code.NO_ERROR, reason: "" }).room(1e9);
  assert.deepEqual(
    peer.told("reset").map(({ code }) => code),
    [Code.REFUSED],
  );
  assert.equal(peer.frames("open").length, 0);
});

test("R01 a stream that was answered may be reset at any speed", () => {
  const peer = new Peer().greet();
  for (let id = 1; id < 4_000; id += 2) {
    peer.say(open(id));
    peer.session.send(id, Buffer.from("+\r\n"), peer.now);
    peer.drain().acknowledge().say({ type: "reset", stream: id, code: Code.CANCEL });
    peer.session.forget(id, peer.now);
    peer.drain();
  }
  assert.equal(peer.ended(), undefined);
});

test("R02 resets that the peer makes us send cost what its own cost", () => {
  const peer = new Peer().greet();
  let resets = 0;
  for (; peer.ended() === undefined && resets < 10_000; resets++) {
    const id = 2 * resets + 1;
    peer.say(open(id), data(id, 0, "", true), data(id, 0, "x"));
    peer.session.forget(id, peer.now);
    peer.drain();
  }
  assert.equal(peer.ended(), Code.CALM);
  assert.ok(resets <= 330 && peer.told("opened").length <= 76, `${resets}`);
});

test("R06 only the latest question is answered, and beyond ten at once and two a second each is a glitch", () => {
  const peer = new Peer().greet().room(0).forget();
  for (let opaque = 0; opaque < 500; opaque++) peer.tell({ type: "ping", received: 0, opaque, reply: false });
  peer.room(1e9);
  assert.deepEqual(
    peer
      .frames("ping")
      .filter(({ reply }) => reply)
      .map(({ opaque }) => opaque),
    [499],
  );
  for (let more = 0; more < 600; more++) peer.tell({ type: "ping", received: 0, opaque: 0, reply: false });
  assert.equal(peer.ended(), Code.CALM);
  const patient = new Peer().greet();
  for (let pings = 0; pings < 2_000; pings++)
    patient.pass(500).tell({ type: "ping", received: 0, opaque: 0, reply: false }).acknowledge();
  assert.equal(patient.ended(), undefined);
  assert.equal(patient.frames("goaway").length, 0);
});

test("R06 a reply nobody asked for changes nothing", () => {
  const peer = new Peer().greet();
  peer.pass(5).tell({ type: "ping", received: 0, opaque: 12_345, reply: true });
  assert.equal(peer.session.roundTripMs, undefined);
  const [question] = peer.frames("ping");
  assert.ok(question !== undefined && !question.reply);
  peer.tell({ type: "ping", received: 0, opaque: question.opaque, reply: true });
  assert.equal(peer.session.roundTripMs, 5);
});

test("R12 what was queued on a stream that is reset is dropped; what was numbered goes again, octet for octet", () => {
  const peer = new Peer({ retain: true }).greet().say(open(1, RICH)).room(70_000);
  feed(peer, 1);
  const before = peer.frames("data");
  peer.say({ type: "reset", stream: 1, code: Code.CANCEL });
  peer.lose(1).forget().connect(2);
  assert.deepEqual(peer.frames("data"), before);
});

test("R13 a stream that is half-closed, either way, and idle for ten minutes is reset with TIMEOUT", () => {
  const peer = new Peer().greet().say(open(1), open(3), open(5), data(3, 0, "x", true));
  peer.session.finish(1, peer.now);
  peer.drain();
  for (let seconds = 0; seconds < 560; seconds += 20) peer.pass(20 * SECOND).acknowledge();
  assert.equal(peer.frames("reset").length, 0);
  for (let seconds = 0; seconds < 80; seconds += 20) peer.pass(20 * SECOND).acknowledge();
  assert.deepEqual(
    peer.frames("reset").map(({ stream, code }) => [stream, code]),
    [
      [1, Code.TIMEOUT],
      [3, Code.TIMEOUT],
    ],
  );
});

test("SETTINGS said again and again are glitches", () => {
  const peer = new Peer().greet();
  let said = 0;
  for (; peer.ended() === undefined && said < 1_000; said++) peer.say(SETTINGS);
  assert.equal(peer.ended(), Code.CALM);
  assert.ok(said >= 99 && said <= 105, `${said}`);
});

test("CALM comes with a warning: GOAWAY when a quarter is left", () => {
  const peer = new Peer().greet();
  const nuisance = (id: number): SequencedContent[] => [open(id), { type: "reset", stream: id, code: Code.CANCEL }];
  for (let id = 1; id < 2 * 74; id += 2) peer.say(...nuisance(id));
  assert.equal(peer.frames("goaway").length, 0);
  peer.say(...nuisance(149), ...nuisance(151));
  assert.deepEqual(
    peer.frames("goaway").map(({ code }) => code),
    [Code.CALM],
  );
  assert.equal(peer.ended(), undefined);
  peer.pass(20 * SECOND).acknowledge(); // tokens come back; so does nothing else
  assert.equal(peer.ended(), undefined);
});

test("streams beyond the limit are REFUSED, and ours wait for the peer's", () => {
  const peer = new Peer({ limits: { streams: 2 } }).greet();
  peer.say(open(1), open(3), open(5), data(5, 0, "unheard"));
  assert.deepEqual(
    peer.frames("reset").map(({ stream, code }) => [stream, code]),
    [[5, Code.REFUSED]],
  );
  assert.equal(peer.told("data").length, 0);

  const client = new Peer({ role: "client" }).connect();
  const openAll = (): number => {
    let opened = 0;
    while (client.session.open(Buffer.from("echo"), client.now) !== undefined) opened++;
    return opened;
  };
  const unheard = openAll();
  assert.ok(unheard > 0 && unheard <= 100);
  client.say({ type: "settings", entries: new Map([[Setting.streamsMax, unheard + 3]]) });
  assert.equal(openAll(), 3);
  client.session.forget(1, client.now);
  assert.equal(openAll(), 1);
  client.say({ type: "settings", entries: new Map([[Setting.streamsMax, 0]]) });
  client.session.forget(3, client.now);
  assert.equal(openAll(), 0);
});

// ---- deadlines ----------------------------------------------------------------------------------------------------------------------

test("a silent connection is asked after 30 s, again after 60, and is dead at 90", () => {
  const peer = new Peer({ retain: true }).greet();
  for (const { opaque } of peer.frames("ping")) peer.tell({ type: "ping", received: 0, opaque, reply: true });
  peer.acknowledge().forget();
  const asked = (): number => peer.frames("ping").length;
  peer.pass(29_900);
  assert.equal(asked(), 0);
  peer.pass(200);
  assert.equal(asked(), 1);
  peer.pass(30_000);
  assert.equal(asked(), 2);
  peer.pass(29_000);
  assert.equal(peer.frames("closeConnection").length, 0);
  peer.pass(3_500);
  assert.deepEqual(
    peer.frames("closeConnection").map(({ code, reason }) => [code, reason]),
    [[Code.TIMEOUT, "nothing was heard"]],
  );
});

test("anything that is heard is a sign of life, also half a frame", () => {
  const peer = new Peer().greet().acknowledge();
  const frame = encodeUnsequenced({ type: "skipped", received: 0 });
  for (let minutes = 0; minutes < 20; minutes++)
    peer.pass(60 * SECOND).raw(frame.subarray(minutes % 24, (minutes % 24) + 1));
  assert.equal(peer.frames("closeConnection").length, 0);
});

test("S05 an end that was stopped itself asks before it gives up anybody", () => {
  const peer = new Peer({ retain: true }).greet().connect(2).say(open(1)).acknowledge();
  feed(peer, 1);
  peer.sayAt(peer.end + 100, { type: "skippedInLog" }, 2).forget();
  peer.now += 3_600_000; // a laptop's lid, closed for an hour
  peer.session.handle({ type: "tick" }, peer.now);
  peer.drain();
  assert.equal(peer.frames("closeConnection").length, 0);
  assert.equal(peer.frames("reset").length, 0);
  assert.equal(peer.ended(), undefined);
  assert.equal(peer.frames("ping").length, 2);
  peer
    .acknowledge()
    .acknowledge(undefined, 2)
    .pass(40 * SECOND);
  assert.equal(peer.frames("closeConnection").length, 0);
  assert.equal(peer.ended(), undefined);
});

test("a session that is parked, flooded or full never asks to be woken at once", () => {
  const parked = new Peer({ retain: true })
    .greet()
    .say(open(1), data(1, 0, 10))
    .lose();
  assert.ok(parked.session.deadline > parked.now + 1_000);
  parked.pass(3_600_000);
  const full = new Peer({ retain: true }).greet().say(open(1)).room(0);
  full.say(data(1, 0, 60_000));
  assert.ok(full.session.deadline > full.now + 1_000);
  full.pass(50_000);
  const crumbs = new Peer().greet().say(open(1, 1)).acknowledge();
  feed(crumbs, 1);
  crumbs.say({ type: "credit", stream: 1, limit: 2 });
  feed(crumbs, 1);
  crumbs.room(0).pass(50_000);
});

test("F03 a stream that ends while it waits for more than crumbs is not woken without end", () => {
  const peer = new Peer().greet().say(open(1, 10)).acknowledge();
  feed(peer, 1);
  peer.say({ type: "credit", stream: 1, limit: 11 });
  assert.equal(peer.session.sendable(1, peer.now), 0);
  peer.session.finish(1, peer.now);
  assert.equal(peer.session.sendable(1, peer.now), 0);
  peer.pass(1_000);
  assert.equal(peer.told("writable").length, 0);
  assert.ok(peer.frames("data").some(({ fin }) => fin));
});

test("received octets are acknowledged after 50 ms, or at once when a quarter of the window has come", () => {
  const peer = new Peer().greet().say(open(1)).pass(100).forget();
  peer.say(data(1, 0, 10)).pass(49);
  assert.equal(peer.frames("ack").length, 0);
  peer.pass(1);
  assert.equal(peer.frames("ack").length, 1);
  peer.forget();
  for (let id = 3; id <= 11; id += 2) peer.say(open(id), data(id, 0, 60_000));
  assert.equal(peer.frames("ack").length, 1);
});

test("settings of the limits move every deadline", () => {
  const limits = { keepaliveMs: 100, stallMs: 200, streamStallMs: 500 };
  const silent = new Peer({ retain: true, limits }).greet();
  silent.pass(320);
  assert.equal(silent.frames("closeConnection").length, 1);
  const stuck = new Peer({ limits }).greet().say(open(1, 10));
  feed(stuck, 1);
  for (let passed = 0; passed < 700; passed += 50) stuck.pass(50).acknowledge();
  assert.equal(stuck.frames("reset")[0]?.code, Code.TIMEOUT);
});

test("a session that retains nothing has one connection in its life", () => {
  const peer = new Peer().greet();
  assert.throws(() => peer.connect(2), /one connection/);
  const lost = new Peer().greet().lose();
  assert.equal(lost.ended(), Code.UNAVAILABLE);
});

test("a question that waits is told from a peer that has nothing to say, and anything that is heard ends the doubt", () => {
  const peer = new Peer()
    .greet()
    .pass(1 * SECOND)
    .acknowledge();
  const waited = (): number => peer.session.unansweredMs(peer.now);
  peer.forget().pass(29 * SECOND);
  assert.equal(waited(), 0, "quiet is no doubt before it was asked about");
  peer.session.probe(peer.now);
  peer.drain();
  assert.equal(peer.frames("ping").length, 1);
  peer.pass(2 * SECOND);
  peer.session.probe(peer.now); // asked again: the first question counts
  peer.drain();
  peer.pass(1 * SECOND);
  assert.equal(waited(), 3 * SECOND);
  peer.acknowledge();
  assert.equal(waited(), 0);
});

test("with two connections the one that answers speaks for the session", () => {
  const peer = new Peer({ retain: true }).greet();
  peer.connect(2);
  peer.session.probe(peer.now);
  peer.drain();
  peer.pass(5 * SECOND);
  peer.acknowledge(undefined, 2);
  assert.equal(peer.session.unansweredMs(peer.now), 0);
  peer.lose(2);
  assert.ok(peer.session.unansweredMs(peer.now) >= 5 * SECOND);
});
