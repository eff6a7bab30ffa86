/**
 * What a session does about frames it should not get: abuse cases of group E, and of group H where they are the session's (PROTOCOL §6.6,
 * §7.3, §8.2).
 * @module
 */
import assert from "node:assert/strict";
import test from "node:test";
import { Code, encodeSequenced, FrameType, HEADER_BYTES, type SequencedContent } from "../../src/wire/index.ts";
import { data, open, Peer, SETTINGS, sizeOf } from "./peer.ts";
import { Random, seededTest } from "./seed.ts";

const CANCEL: SequencedContent = { type: "reset", stream: 1, code: Code.CANCEL };

/** A frame of a type that this protocol does not have. */
function unknownFrame(
  type: number,
  { stream, seq = 0, payload }: { readonly stream: number; readonly seq?: number; readonly payload: number },
): Uint8Array {
  const frame = new Uint8Array(HEADER_BYTES + payload).fill(0x61, HEADER_BYTES);
  const view = new DataView(frame.buffer);
  view.setUint8(0, type);
  view.setUint16(2, payload);
  view.setUint32(4, stream);
  view.setUint32(12, seq);
  return frame;
}

/** The session ended by its own judgement: END and CLOSE_CONN say why. */
function endedWith(peer: Peer, code: number, message?: string): void {
  assert.equal(peer.ended(), code, message);
  assert.equal(peer.session.ended?.byPeer, false);
  assert.deepEqual(
    peer.frames("end").map((frame) => frame.code),
    [code],
  );
  assert.equal(peer.frames("closeConnection").at(-1)?.code, code);
  assert.equal(peer.told("ended").length, 1);
  assert.equal(peer.outputs.at(-1)?.type, "ended", "nothing is told behind the end");
}

test("M01 M20 a broken frame costs its connection, and a session that retains goes on over another", () => {
  const broken = new Uint8Array(24).fill(0xff);
  const cases: Record<string, { octets: Uint8Array; code: number }> = {
    "a payload too long": {
      octets: Uint8Array.from(broken, (_, at) => (at === 0 ? 0xc0 : 0xff)),
      code: Code.FRAME_SIZE,
    },
    "the log in clear text": { octets: Buffer.from("HTTP/1.1 400 Bad Request\r\n"), code: Code.PROTOCOL },
    "nothing but zero, with a position": {
      octets: Uint8Array.from({ length: 24 }, (_, at) => (at === 8 ? 1 : 0)),
      code: Code.PROTOCOL,
    },
  };
  for (const [name, { octets, code }] of Object.entries(cases)) {
    const peer = new Peer({ retain: true }).greet().say(open(1));
    peer.raw(octets).raw(encodeSequenced(peer.end, data(1, 0, "unheard")));
    assert.equal(peer.frames("closeConnection")[0]?.code, code, name);
    assert.equal(peer.ended(), undefined);
    assert.equal(peer.told("data").length, 0, "nothing behind the fault is read");
    peer.lose(1).connect(2);
    peer.raw(encodeSequenced(peer.end, data(1, 0, "heard")), 2);
    assert.equal(peer.told("data").length, 1);
  }
});

test("M20 an unknown critical frame of the log as the first thing on a connection costs that connection, later the session", () => {
  const unknown = new Uint8Array(24);
  unknown[0] = 0xff;
  const fresh = new Peer({ retain: true }).greet().connect(2).raw(unknown, 2);
  assert.equal(fresh.ended(), undefined);
  assert.deepEqual(
    fresh.frames("closeConnection").map(({ code }) => code),
    [Code.UNSUPPORTED],
  );
  endedWith(new Peer({ retain: true }).greet().raw(unknown), Code.UNSUPPORTED);
});

test("M08 the numbers of streams rise, are of the right parity, and end at 2^32 - 1", () => {
  const wrong: Record<string, readonly SequencedContent[]> = {
    "even, from the client": [open(2)],
    "used before": [open(1), open(1)],
    "lower than an earlier one": [open(5), open(3)],
    "after the last there is": [open(0xffff_ffff), open(1)],
    "used before, and forgotten": [open(1), CANCEL, open(1)],
  };
  for (const [name, contents] of Object.entries(wrong))
    endedWith(new Peer().greet().say(...contents), Code.PROTOCOL, name);
  endedWith(new Peer({ role: "client" }).greet().say(open(1)), Code.PROTOCOL);
  const good = new Peer().greet().say(open(1), open(7), open(0xffff_ffff));
  assert.deepEqual(
    good.told("opened").map(({ stream }) => stream),
    [1, 7, 0xffff_ffff],
  );
  const server = new Peer({ role: "client" }).greet().say(open(2), open(4));
  assert.equal(server.told("opened").length, 2);
});

test("M10 OPEN and more DATA than its window, in one segment, are FLOW_CONTROL", () => {
  const peer = new Peer().greet();
  peer.say(open(1), data(1, 0, 65_000), data(1, 65_000, 537));
  endedWith(peer, Code.FLOW_CONTROL);
  const exact = new Peer().greet().say(open(1), data(1, 0, 65_000), data(1, 65_000, 536, true));
  assert.equal(exact.ended(), undefined);
  assert.equal(exact.told("finished").length, 1);
});

test("M11 a gap on the only connection there ever was is SEQ at once, and nothing is delivered", () => {
  const peer = new Peer({ retain: true }).greet().say(open(1));
  peer.sayAt(peer.end + 24, data(1, 0, "early"));
  endedWith(peer, Code.SEQ);
  assert.equal(peer.told("data").length, 0);
});

test("M11 a gap that is not filled is SEQ after two minutes, counted from the last that was, and not without a connection", () => {
  const peer = new Peer({ retain: true }).greet().connect(2).say(open(1));
  const keepalive = (): Peer => peer.tell({ type: "ping", received: 0, opaque: 0, reply: false }, 2);
  const gap = peer.end;
  peer
    .acknowledge()
    .sayAt(gap + 25, data(1, 0, "a"), 2)
    .sayAt(gap + 75, data(1, 0, "a"), 2);
  const pass = (seconds: number): void => {
    for (let second = 0; second < seconds; second += 20) {
      peer.pass(20_000);
      if (peer.ended() === undefined) keepalive().acknowledge(undefined, 2);
    }
  };
  pass(100);
  peer.sayAt(gap, { type: "skippedInLog" }, 2); // fills the first gap; the second one now has its own time
  pass(100);
  assert.equal(peer.ended(), undefined);
  peer.lose(1).lose(2);
  peer.pass(3_600_000);
  assert.equal(peer.ended(), undefined);
  peer.connect(2);
  pass(100);
  assert.equal(peer.ended(), undefined);
  pass(20);
  assert.equal(peer.ended(), Code.SEQ);
});

test("M11 a held frame that would leave a 65th gap is SEQ", () => {
  const peer = new Peer({ retain: true }).greet().connect(2);
  for (let gap = 1; gap <= 64; gap++) peer.sayAt(peer.end + gap * 100, { type: "credit", stream: 1, limit: 1 }, 2);
  assert.equal(peer.ended(), undefined);
  peer.sayAt(peer.end + 65 * 100, { type: "credit", stream: 1, limit: 1 }, 2);
  assert.equal(peer.ended(), Code.SEQ);
});

test("M12 what was delivered may come again and is dropped; what straddles, or says something else, is SEQ", () => {
  const greeted = (): Peer =>
    new Peer({ retain: true })
      .greet()
      .connect(2)
      .say(open(1), data(1, 0, "abc"));
  const at = sizeOf(SETTINGS) + sizeOf(open(1));
  const again = greeted()
    .sayAt(at, data(1, 0, "abc"), 2)
    .sayAt(at, data(1, 0, "ABC"), 2);
  assert.equal(again.told("data").length, 1);
  assert.equal(again.ended(), undefined);
  const straddling = greeted().sayAt(at, data(1, 0, "abcd"), 2);
  assert.equal(straddling.ended(), Code.SEQ);
  const held = greeted();
  held.sayAt(held.end + 30, data(1, 9, "x"), 2).sayAt(held.end + 30, data(1, 9, "x"), 1);
  assert.equal(held.ended(), undefined);
  held.sayAt(held.end + 30, data(1, 9, "y"), 1);
  assert.equal(held.ended(), Code.SEQ);
});

test("M12 a duplicate brings the acknowledgement again: the first may have died with its connection", () => {
  const peer = new Peer({ retain: true }).greet().connect(2).say(open(1)).pass(1_000).forget();
  peer.sayAt(0, SETTINGS, 2).pass(100);
  assert.deepEqual(
    peer.frames("ack").map(({ received }) => received),
    [peer.end],
  );
  peer.forget().pass(5_000);
  assert.equal(peer.frames("ack").length, 0);
});

test("M14 a position beyond the log limit is FLOW_CONTROL, and nothing is stored", () => {
  for (const seq of [2 ** 53 - 1, 2 ** 20 + 1, 2 ** 20 - 23]) {
    const peer = new Peer({ retain: true }).greet().connect(2);
    peer.sayAt(seq, data(1, 0, ""), 2);
    assert.equal(peer.ended(), Code.FLOW_CONTROL);
  }
});

test("M14 END alone may pass the limit of a full log, by its own size", () => {
  const peer = new Peer().greet().say(open(1));
  const { end } = peer;
  // Octets that no stream holds fill the log: GREASE.
  const filler = new Uint8Array(2 ** 20 - end);
  for (let at = 0; at < filler.length; ) {
    const size = Math.min(filler.length - at, 65_536);
    const header = encodeSequenced(end + at, { type: "skippedInLog" });
    header[2] = (size - 24) >> 8;
    header[3] = (size - 24) & 0xff;
    filler.set(header, at);
    at += size;
  }
  peer.raw(filler);
  assert.equal(peer.session.positions.received, 2 ** 20);
  // The acknowledgement that makes room is not waited for: it may be on its way, but the limit known is the old one.
  peer.sayAt(2 ** 20, { type: "end", code: Code.CALM });
  assert.deepEqual(peer.session.ended, { code: Code.CALM, reason: "the peer ended the session", byPeer: true });
});

test("M15 the first frame of a log is SETTINGS at position 0, and nothing else", () => {
  const others: readonly SequencedContent[] = [
    open(1),
    data(1, 0, "x"),
    CANCEL,
    { type: "credit", stream: 1, limit: 1 },
    { type: "goaway", lastStream: 0, code: 0, reason: "" },
    { type: "end", code: 0 },
    { type: "skippedInLog" },
  ];
  for (const content of others) {
    const peer = new Peer().connect().say(content);
    endedWith(peer, Code.PROTOCOL, content.type);
    assert.equal(peer.told("opened").length, 0);
  }
  const deleted = new Peer().connect().sayAt(sizeOf(SETTINGS), open(1));
  endedWith(deleted, Code.SEQ);
  const unsequenced = new Peer().connect().tell({ type: "ping", received: 0, opaque: 1, reply: false }).say(SETTINGS);
  assert.equal(unsequenced.ended(), undefined);
});

test("M16 a request is one OPEN of 1,024 octets at most: no frame goes on with it, and none is kept for it", () => {
  const octets = new Uint8Array(1_024).fill(0x61);
  const request: SequencedContent = { type: "open", stream: 1, credit: 65_536, request: octets };
  const long = new Peer({ retain: true }).greet();
  const header = encodeSequenced(long.end, request).subarray(0, HEADER_BYTES);
  new DataView(header.buffer, header.byteOffset).setUint16(2, 1_025);
  long.raw(header);
  assert.equal(long.frames("closeConnection")[0]?.code, Code.PROTOCOL, "judged by its header");
  assert.equal(long.told("opened").length, 0);

  const peer = new Peer().greet().say(request);
  for (const type of [0x09, 0x3f, 0x40, 0x7f]) {
    const frame = unknownFrame(type, { stream: 1, seq: type >= 0x40 ? peer.end : 0, payload: 1_000 });
    peer.raw(frame);
    if (type >= 0x40) peer.end += frame.length;
  }
  assert.deepEqual(peer.told("opened"), [{ type: "opened", stream: 1, request: octets }]);
  assert.equal(peer.told("data").length, 0);
  peer.say(open(1, 65_536, "and more"));
  endedWith(peer, Code.PROTOCOL);
});

test("R08 a PRIORITY of HTTP/2, however often it is said, is a frame that nobody knows: nothing is moved, kept or answered", () => {
  const peer = new Peer().greet().say(open(1), open(3)).acknowledge().pass(100).forget();
  const storm = Buffer.concat(
    Array.from({ length: 1_000 }, (_, at) => unknownFrame(0x02, { stream: at % 2 === 0 ? 1 : 3, payload: 5 })),
  );
  const deadline = peer.session.deadline;
  for (let thousands = 0; thousands < 100; thousands++) peer.raw(storm);
  assert.deepEqual([peer.outputs, peer.heard], [[], []]);
  assert.equal(peer.session.deadline, deadline);
  peer.say(data(1, 0, "x"), data(3, 0, "y"));
  assert.deepEqual(
    peer.told("data").map(({ stream }) => stream),
    [1, 3],
  );
});

test("M19 frames behind END are ignored, and it is answered by silence", () => {
  const peer = new Peer().greet().say(open(1)).forget();
  peer.say({ type: "end", code: Code.NO_ERROR }, data(1, 0, "late"), open(3));
  peer.tell({ type: "ping", received: 2 ** 52, opaque: 1, reply: false });
  peer.room(1_000).lose().pass(10_000);
  assert.deepEqual(
    peer.outputs.map(({ type }) => type),
    ["ended"],
  );
  assert.equal(peer.heard.length, 0);
  assert.equal(peer.session.deadline, Number.POSITIVE_INFINITY);
});

test("M19 frames behind CLOSE_CONN are ignored; the session goes on elsewhere", () => {
  const peer = new Peer({ retain: true }).greet().say(open(1));
  peer.tell({ type: "closeConnection", received: 0, code: Code.SUPERSEDED, reason: "roamed" });
  peer.raw(encodeSequenced(peer.end, data(1, 0, "late")));
  assert.deepEqual(peer.told("disconnect"), [
    { type: "disconnect", connection: 1, code: Code.SUPERSEDED, reason: "roamed" },
  ]);
  assert.equal(peer.told("data").length, 0);
  const { length } = peer.heard;
  peer.session.send(1, Buffer.from("x"), peer.now);
  peer.drain();
  assert.equal(peer.heard.length, length, "nothing is said on it any more");
  peer.lose(1).connect(2);
  assert.ok(peer.frames("data").length === 1);
});

test("M19 a stream above our GOAWAY is REFUSED, those below go on", () => {
  const peer = new Peer().greet().say(open(1));
  peer.session.goAway(Code.NO_ERROR, "closing", peer.now);
  peer.drain();
  assert.deepEqual(
    peer.frames("goaway").map(({ lastStream }) => lastStream),
    [1],
  );
  peer.say(open(3), data(3, 0, "unheard", true), data(1, 0, "heard"));
  assert.deepEqual(
    peer.frames("reset").map(({ stream, code }) => [stream, code]),
    [[3, Code.REFUSED]],
  );
  assert.deepEqual(
    peer.told("data").map(({ stream }) => stream),
    [1],
  );
  assert.equal(peer.ended(), undefined);
});

test("M09 what was under way when we reset is excused, as much as was granted, and no more", () => {
  const peer = new Peer().greet().say(open(1), data(1, 0, 1_000));
  peer.session.reset(1, Code.CANCEL, peer.now);
  peer.drain();
  for (let offset = 1_000; offset < 65_536; offset += 10) peer.say(data(1, offset, Math.min(10, 65_536 - offset)));
  peer.say(data(1, 65_536, 0, true));
  assert.equal(peer.ended(), undefined, "6,454 frames, none of them a fault");
  assert.equal(peer.frames("goaway").length, 0);
  let more = 0;
  for (; peer.ended() === undefined && more < 5_000; more++) peer.say(data(1, 65_536, 1));
  assert.equal(peer.ended(), Code.CALM);
  assert.ok(more > 900 && more < 1_100, `${more}`);
});

test("M09 a RESET that crosses our own, or our last octets, is no event", () => {
  const peer = new Peer().greet().say(open(1), open(3));
  peer.session.reset(1, Code.CANCEL, peer.now);
  peer.session.finish(3, peer.now);
  peer
    .drain()
    .say(data(3, 0, "", true))
    .forget();
  peer.say(CANCEL, { type: "reset", stream: 3, code: Code.CANCEL });
  assert.deepEqual(peer.outputs, []);
});

test("RESET with NO_ERROR behind a FIN means no more is read; without one it is CANCEL", () => {
  const peer = new Peer({ role: "client" }).greet();
  for (const id of [1, 3]) assert.equal(peer.session.open(Buffer.from("echo"), peer.now), id);
  peer.drain().say(data(1, 0, "bye", true));
  for (const stream of [1, 3]) peer.say({ type: "reset", stream, code: Code.NO_ERROR });
  assert.deepEqual(
    peer.told("reset").map(({ stream, code }) => [stream, code]),
    [
      [1, Code.NO_ERROR],
      [3, Code.CANCEL],
    ],
  );
});

test("R10 GOAWAY goes down only: a higher one, which a replay may bring late, changes nothing; a thousand are CALM", () => {
  const peer = new Peer({ role: "client" }).greet();
  for (let streams = 0; streams < 3; streams++) peer.session.open(Buffer.from("echo"), peer.now);
  peer.drain();
  const goaway = (lastStream: number): SequencedContent => ({
    type: "goaway",
    lastStream,
    code: Code.NO_ERROR,
    reason: "",
  });
  peer.say(goaway(3));
  assert.deepEqual(
    peer.told("reset").map(({ stream, code }) => [stream, code]),
    [[5, Code.REFUSED]],
  );
  assert.equal(peer.session.openable, false);
  peer.say(goaway(99));
  assert.equal(peer.session.openable, false);
  peer.say(goaway(1));
  assert.equal(peer.told("goingAway").length, 2);
  assert.deepEqual(
    peer.told("reset").map(({ stream }) => stream),
    [5, 3],
  );
  assert.equal(peer.session.open(Buffer.from("echo"), peer.now), undefined);
  for (let repeats = 0; repeats < 1_100; repeats++) peer.say(goaway(1));
  assert.equal(peer.ended(), Code.CALM);
});

seededTest(
  "OPEN, SETTINGS, GOAWAY, RESET and CREDIT take effect in log order, whatever order they come in",
  (random) => {
    for (let round = 0; round < 200; round++) {
      const peer = new Peer({ retain: true }).greet().connect(2).connect(3);
      const contents: SequencedContent[] = [];
      for (let id = 1; id <= 15; id += 2) {
        contents.push(open(id), data(id, 0, "a"), { type: "credit", stream: id, limit: 100_000 + id });
        contents.push(random.chance(0.5) ? data(id, 1, "b", true) : { type: "reset", stream: id, code: Code.CANCEL });
      }
      contents.push({ type: "goaway", lastStream: 0, code: 0, reason: "" });
      const frames: Uint8Array[] = [];
      for (const content of contents) {
        frames.push(encodeSequenced(peer.end, content));
        peer.end += frames.at(-1)?.length ?? 0;
      }
      const connections: Uint8Array[][] = [[], [], []];
      for (const frame of frames) random.pick(connections).push(frame);
      while (connections.some((waiting) => waiting.length > 0)) {
        const from = random.between(0, 2);
        const frame = connections[from]?.shift();
        if (frame !== undefined) peer.raw(frame, from + 1);
      }
      assert.equal(peer.ended(), undefined);
      const opened = peer.told("opened").map(({ stream }) => stream);
      assert.deepEqual(opened, [1, 3, 5, 7, 9, 11, 13, 15]);
      for (const id of opened) {
        const told = peer.outputs
          .filter((output) => "stream" in output && output.stream === id)
          .map(({ type }) => type);
        assert.deepEqual(told.slice(0, 2), ["opened", "data"]);
        assert.ok(["finished", "reset"].includes(told.at(-1) ?? ""));
      }
      assert.equal(peer.outputs.at(-1)?.type === "goingAway" || peer.told("goingAway").length === 1, true);
      assert.equal(peer.session.positions.received, peer.end);
    }
  },
);

test("DATA of an open stream is delivered before its turn; of one whose OPEN is missing it waits", () => {
  const peer = new Peer({ retain: true }).greet().connect(2).say(open(1));
  const third = open(3);
  const gap = peer.end;
  let at = gap + sizeOf(third);
  const early: readonly SequencedContent[] = [data(1, 0, "now"), data(3, 0, "later"), data(1, 3, "too", true)];
  for (const content of early) {
    peer.sayAt(at, content, 2);
    at += sizeOf(content);
  }
  assert.deepEqual(
    peer.told("data").map(({ stream, bytes }) => `${stream} ${Buffer.from(bytes)}`),
    ["1 now", "1 too"],
  );
  assert.deepEqual(
    peer.told("finished").map(({ stream }) => stream),
    [1],
  );
  assert.equal(peer.session.positions.received, gap);
  peer.sayAt(gap, third, 1);
  assert.deepEqual(peer.told("data").at(-1)?.stream, 3);
  assert.equal(peer.told("data").length, 3);
  assert.equal(peer.session.positions.received, at);
});

test("early DATA of a stream that is reset or forgotten meanwhile is counted in the log and nowhere else", () => {
  const peer = new Peer({ retain: true }).greet().connect(2).say(open(1), open(3));
  const gap = peer.end;
  const missing: SequencedContent = { type: "credit", stream: 1, limit: 100_000 };
  let at = gap + sizeOf(missing);
  for (const content of [data(1, 0, "one"), data(3, 5, "hole")]) {
    peer.sayAt(at, content, 2);
    at += sizeOf(content);
  }
  peer.session.reset(1, Code.CANCEL, peer.now);
  peer.session.forget(1, peer.now);
  peer.session.forget(3, peer.now);
  peer.drain().sayAt(gap, missing, 1);
  assert.equal(peer.session.positions.received, at);
  assert.equal(peer.ended(), undefined);
});

test("a copy of a frame held out of order does not change with the memory it came in", () => {
  const peer = new Peer({ retain: true }).greet().connect(2).say(open(1));
  const first = data(1, 0, "first ");
  const gap = peer.end;
  peer.sayAt(gap + sizeOf(first), data(1, 6, "second"), 2); // Peer overwrites what it gave, which was a Buffer
  peer.sayAt(gap, first, 1);
  assert.equal(
    peer
      .told("data")
      .map(({ bytes }) => Buffer.from(bytes).toString())
      .join(""),
    "first second",
  );
});

test("too many frames held cost the connection that brought them, and not the session", () => {
  const peer = new Peer({ retain: true }).greet().connect(2);
  const gap = peer.end;
  const frame = (at: number): Uint8Array => encodeSequenced(gap + at * 24, { type: "skippedInLog" });
  for (let at = 1; at <= 16_384; at++) peer.raw(frame(at), 2);
  assert.equal(peer.frames("closeConnection").length, 0);
  peer.raw(frame(16_385), 2);
  assert.deepEqual(
    peer.heard.filter(({ frame: { type } }) => type === "closeConnection").map(({ connection }) => connection),
    [2],
  );
  assert.equal(peer.ended(), undefined);
  peer.raw(frame(0), 1).raw(frame(16_385), 1);
  assert.equal(peer.session.positions.received, gap + 24 * 16_386);
});

test("an ACK names what is held out of order, within 50 ms", () => {
  const peer = new Peer({ retain: true }).greet().connect(2).pass(100).forget();
  peer
    .sayAt(peer.end + 100, { type: "skippedInLog" }, 2)
    .sayAt(peer.end + 200, { type: "skippedInLog" }, 2)
    .pass(50);
  assert.deepEqual(
    peer.frames("ack").map(({ held }) => held),
    [
      [
        { start: peer.end + 100, end: peer.end + 124 },
        { start: peer.end + 200, end: peer.end + 224 },
      ],
    ],
  );
});

test("what the peer holds out of order does not go again when its connection is lost", () => {
  const peer = new Peer({ role: "client", retain: true }).greet();
  peer.session.open(Buffer.from("echo"), peer.now);
  for (const word of ["one", "two", "three"]) {
    peer.session.send(1, Buffer.from(word), peer.now);
    peer.drain();
  }
  const [, second] = peer.frames("data");
  assert.ok(second !== undefined);
  peer.tell({ type: "ack", received: 0, limit: 2 ** 20, held: [{ start: second.seq, end: second.seq + second.size }] });
  peer.lose(1).forget().connect(2);
  assert.deepEqual(
    peer.frames("data").map(({ payload }) => Buffer.from(payload).toString()),
    ["one", "three"],
  );
});

test("an acknowledgement of what was never said ends the session, in any unsequenced frame", () => {
  const received = 10_000;
  const peers = [
    new Peer().greet().tell({ type: "ack", received, limit: 2 ** 30, held: [] }),
    new Peer().greet().tell({ type: "ping", received, opaque: 1, reply: true }),
    new Peer().greet().tell({ type: "closeConnection", received, code: 0, reason: "" }),
    new Peer().greet().tell({ type: "ticketStored", received, generation: 1 }),
    new Peer().greet().tell({ type: "skipped", received }),
  ];
  for (const peer of peers) endedWith(peer, Code.PROTOCOL);
});

test("GREASE anywhere changes nothing", () => {
  const peer = new Peer({ retain: true }).connect();
  const random = new Random(1);
  const grease = (sequenced: boolean): void => {
    const frame = new Uint8Array(24 + random.between(0, 50));
    frame[0] = sequenced ? random.between(0x40, 0x7f) : random.pick([0, FrameType.pad, 0x06, 0x3f]);
    frame[3] = frame.length - 24;
    if (sequenced) new DataView(frame.buffer).setUint32(12, peer.end);
    peer.raw(frame);
    if (sequenced) peer.end += frame.length;
  };
  grease(false);
  peer.say(SETTINGS);
  for (const content of [open(1), data(1, 0, "a"), data(1, 1, "b", true)]) {
    grease(true);
    grease(false);
    peer.say(content);
  }
  assert.equal(peer.ended(), undefined);
  assert.deepEqual(
    peer.outputs.map(({ type }) => type),
    ["ready", "opened", "data", "data", "finished"],
  );
});
