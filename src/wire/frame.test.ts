import assert from "node:assert/strict";
import test from "node:test";
import fc from "fast-check";
import { seq as seqs, sequencedContent, unsequencedFrame } from "../../test/fuzz/arbitrary.ts";
import { effort, Random, seed, seededTest } from "../../test/sim/seed.ts";
import {
  Code,
  codeName,
  encodeSequenced,
  encodeUnsequenced,
  type Frame,
  type FrameError,
  FrameReader,
  FrameType,
  HEADER_BYTES,
  PAYLOAD_BYTES_MAX,
  type SequencedContent,
  writeDataHeader,
} from "./frame.ts";

/** Random cases of the ordinary run. */
const CASES = 100_000 * effort;
fc.configureGlobal({ seed, numRuns: 300 * effort });

/** A header by hand, to say what the encoder will not. */
function raw(type: number, options: Partial<Record<"flags" | "length" | "stream" | "seq" | "arg", number>> = {}) {
  const { flags = 0, length = 0, stream = 0, seq = 0, arg = 0 } = options;
  const octets = new Uint8Array(HEADER_BYTES + Math.min(length, PAYLOAD_BYTES_MAX));
  const view = new DataView(octets.buffer);
  view.setUint8(0, type);
  view.setUint8(1, flags);
  view.setUint16(2, length);
  view.setUint32(4, stream);
  view.setBigUint64(8, BigInt(seq));
  view.setBigUint64(16, BigInt(arg));
  return octets;
}

function concat(pieces: readonly Uint8Array[]): Uint8Array {
  return new Uint8Array(Buffer.concat(pieces));
}

/** A frame whose octets are its own, to compare. */
function owned(frame: Frame | FrameError): Frame | FrameError {
  return frame.type === "data" ? { ...frame, payload: new Uint8Array(frame.payload) } : frame;
}

/** Where pieces lie when they are pushed, and what happens to that memory afterwards. */
type Manner = (reader: FrameReader, pieces: readonly Uint8Array[], read: () => void) => void;

const manners: Record<string, Manner> = {
  "each piece in memory of its own": (reader, pieces, read) => {
    for (const piece of pieces) {
      reader.push(new Uint8Array(piece));
      read();
    }
  },
  "all pieces side by side in the same memory": (reader, pieces, read) => {
    const memory = concat(pieces);
    let at = 0;
    for (const piece of pieces) {
      reader.push(memory.subarray(at, at + piece.length));
      at += piece.length;
      read();
    }
  },
  "all pieces in the same memory, which is used again": (reader, pieces, read) => {
    const memory = Buffer.alloc(70_000);
    for (const piece of pieces) {
      for (let at = 0; at < piece.length; at += memory.length) {
        const part = piece.subarray(at, at + memory.length);
        memory.set(part);
        reader.push(memory.subarray(0, part.length)); // a Buffer, as sockets give it
        read();
        reader.detach();
        memory.fill(0xee);
      }
    }
  },
  "pieces pushed side by side or not, and now and then detached": (reader, pieces, read) => {
    const memory = concat(pieces);
    let at = 0;
    for (const [index, piece] of pieces.entries()) {
      const aside = index % 3 === 1;
      reader.push(aside ? new Uint8Array(piece) : memory.subarray(at, at + piece.length));
      at += piece.length;
      read();
      if (index % 5 === 4) reader.detach();
    }
  },
};

function readAll(pieces: readonly Uint8Array[], manner: Manner): (Frame | FrameError)[] {
  const frames: (Frame | FrameError)[] = [];
  const reader = new FrameReader();
  manner(reader, pieces, () => {
    if (frames.at(-1)?.type === "error") return;
    for (let frame = reader.next(); frame !== undefined; frame = reader.next()) {
      frames.push(owned(frame));
      if (frame.type === "error") return;
    }
  });
  return frames;
}

/** Reads in every manner, whole and octet by octet (`singly`) and cut at random places: it must always be the same. */
function readEveryWay(octets: Uint8Array, random: Random, singly = true): (Frame | FrameError)[] {
  const frames = readAll([octets], manners["each piece in memory of its own"] ?? assert.fail());
  const cuts = [random.cut(octets), random.cut(octets)];
  if (singly && octets.length < 2_000) cuts.push(Array.from(octets, (octet) => Uint8Array.of(octet)));
  for (const [name, manner] of Object.entries(manners))
    for (const pieces of cuts) assert.deepEqual(readAll(pieces, manner), frames, name);
  return frames;
}

const anyFrame = fc.oneof(
  unsequencedFrame.map((frame) => ({ frame, octets: encodeUnsequenced(frame) })),
  fc.tuple(seqs, sequencedContent).map(([seq, content]) => {
    const octets = encodeSequenced(seq, content);
    return { frame: { ...content, seq, size: octets.length }, octets };
  }),
);

test("every frame reads back as it was written: whole, octet by octet, cut anywhere, in any memory", () => {
  fc.assert(
    fc.property(fc.array(anyFrame, { minLength: 1, maxLength: 6 }), fc.integer(), (frames, dice) => {
      const read = readEveryWay(concat(frames.map(({ octets }) => octets)), new Random(dice));
      assert.deepEqual(
        read,
        frames.map(({ frame }) => frame),
      );
    }),
  );
});

test("a DATA header written in place equals the encoder's", () => {
  fc.assert(
    fc.property(
      fc.nat(0xffff_fffe),
      fc.maxSafeNat(),
      fc.maxSafeNat(),
      fc.boolean(),
      fc.uint8Array({ maxLength: 99 }),
      (id, seq, offset, fin, payload) => {
        const memory = new Uint8Array(10 + HEADER_BYTES + payload.length).fill(0xee);
        memory.set(payload, 10 + HEADER_BYTES);
        writeDataHeader(memory.subarray(10), id + 1, seq, offset, fin);
        const content = { type: "data", stream: id + 1, offset, fin, payload } as const;
        assert.deepEqual(memory.subarray(10), encodeSequenced(seq, content));
      },
    ),
  );
});

test("M01 a payload that is too long is an error on the header alone, whatever the type", () => {
  for (const type of [FrameType.data, FrameType.pad, FrameType.ack, FrameType.open, 0x06, 0x40, 0xff]) {
    for (const length of [PAYLOAD_BYTES_MAX + 1, 0xffff]) {
      const head = raw(type, { length, stream: 1 }).subarray(0, HEADER_BYTES);
      const [error, more] = readEveryWay(head, new Random(1));
      assert.equal(error?.type === "error" && error.code, "FRAME_SIZE");
      assert.equal(more, undefined);
    }
  }
  const [frame] = readEveryWay(raw(FrameType.data, { length: PAYLOAD_BYTES_MAX, stream: 1 }), new Random(1));
  assert.equal(frame?.type, "data");
});

test("M01 no room is made for a payload before its header was found good", (t) => {
  const made: number[] = [];
  const Whole = globalThis.Uint8Array;
  const spy = new Proxy(Whole, {
    construct(target, args, newTarget) {
      if (typeof args[0] === "number") made.push(args[0]);
      return Reflect.construct(target, args, newTarget);
    },
  });
  const head = raw(FrameType.data, { length: 0xffff, stream: 1 }).subarray(0, HEADER_BYTES);
  const reader = new FrameReader();
  globalThis.Uint8Array = spy;
  t.after(() => {
    globalThis.Uint8Array = Whole;
  });
  for (let at = 0; at < HEADER_BYTES; at++) {
    reader.push(head.subarray(at, at + 1));
    if (at === HEADER_BYTES - 1) assert.equal(reader.next()?.type, "error");
    else {
      assert.equal(reader.next(), undefined);
      reader.detach();
    }
  }
  assert.ok(made.length > 0, "looked at no allocation");
  assert.deepEqual(
    made.filter((size) => size > HEADER_BYTES),
    [],
  );
});

test("M07 reserved bits, streams where none belong, and payloads of the wrong size are PROTOCOL", () => {
  const big = 2 ** 53;
  const cases: Record<string, Uint8Array> = {
    "undefined flag of DATA": raw(FrameType.data, { stream: 1, flags: 2 }),
    "highest flag of DATA": raw(FrameType.data, { stream: 1, flags: 0x80 }),
    "undefined flag of PING": raw(FrameType.ping, { flags: 2 }),
    "flag on ACK": raw(FrameType.ack, { flags: 1 }),
    "flag on PAD": raw(FrameType.pad, { flags: 1 }),
    "flag on OPEN": raw(FrameType.open, { stream: 1, length: 1, flags: 1 }),
    "seq of 2^53": raw(FrameType.data, { stream: 1, seq: big }),
    "seq with the top bit": raw(FrameType.ack, { seq: 2 ** 63 }),
    "arg of 2^53": raw(FrameType.credit, { stream: 1, arg: big }),
    "arg with the top bit": raw(FrameType.ping, { arg: 2 ** 63 }),
    "seq of 2^53 on an unknown type": raw(0x40, { seq: big }),
    "DATA without a stream": raw(FrameType.data),
    "OPEN without a stream": raw(FrameType.open, { length: 1 }),
    "RESET without a stream": raw(FrameType.reset),
    "CREDIT without a stream": raw(FrameType.credit),
    "ACK on a stream": raw(FrameType.ack, { stream: 1 }),
    "PING on a stream": raw(FrameType.ping, { stream: 1 }),
    "CLOSE_CONN on a stream": raw(FrameType.closeConnection, { stream: 1 }),
    "TICKET_OK on a stream": raw(FrameType.ticketStored, { stream: 1 }),
    "PAD on a stream": raw(FrameType.pad, { stream: 1 }),
    "GOAWAY on a stream": raw(FrameType.goaway, { stream: 1, length: 4 }),
    "SETTINGS on a stream": raw(FrameType.settings, { stream: 1 }),
    "END on a stream": raw(FrameType.end, { stream: 1 }),
    "payload on PING": raw(FrameType.ping, { length: 1 }),
    "payload on RESET": raw(FrameType.reset, { stream: 1, length: 1 }),
    "payload on CREDIT": raw(FrameType.credit, { stream: 1, length: 8 }),
    "payload on END": raw(FrameType.end, { length: 1 }),
    "payload on TICKET_OK": raw(FrameType.ticketStored, { length: 1 }),
    "half a range in ACK": raw(FrameType.ack, { length: 8 }),
    "17 ranges in ACK": raw(FrameType.ack, { length: 17 * 16 }),
    "OPEN without a request": raw(FrameType.open, { stream: 1 }),
    "OPEN with 1,025 octets": raw(FrameType.open, { stream: 1, length: 1_025 }),
    "GOAWAY without a code": raw(FrameType.goaway, { length: 3 }),
    "GOAWAY with a long reason": raw(FrameType.goaway, { length: 4 + 256 }),
    "CLOSE_CONN with a long reason": raw(FrameType.closeConnection, { length: 256 }),
    "SETTINGS with half an entry": raw(FrameType.settings, { length: 4 }),
    "SETTINGS with 17 entries": raw(FrameType.settings, { length: 17 * 8 }),
  };
  for (const [name, octets] of Object.entries(cases)) {
    const [error] = readEveryWay(octets, new Random(1));
    assert.ok(error?.type === "error", name);
    assert.equal(error.code, "PROTOCOL", name);
    assert.equal(error.sequenced, ((octets[0] ?? 0) & 0x40) !== 0, name);
  }
});

test("the largest of everything that is allowed is read", () => {
  const largest = [
    raw(FrameType.data, {
      stream: 0xffff_ffff,
      seq: 2 ** 53 - 1,
      arg: 2 ** 53 - 1,
      length: PAYLOAD_BYTES_MAX,
      flags: 1,
    }),
    raw(FrameType.ack, { length: 256 }),
    raw(FrameType.closeConnection, { length: 255 }),
    raw(FrameType.goaway, { length: 259 }),
    raw(FrameType.settings, { length: 128 }),
    raw(FrameType.open, { stream: 1, length: 1_024 }),
    raw(FrameType.pad, { length: PAYLOAD_BYTES_MAX }),
  ];
  for (const octets of largest) {
    const [frame, more] = readEveryWay(octets, new Random(1));
    assert.notEqual(frame?.type, "error");
    assert.equal(more, undefined);
  }
});

seededTest("M06 unknown types are skipped if they may be, and UNSUPPORTED if they may not (GREASE)", (random) => {
  const known = new Set<number>(Object.values(FrameType));
  for (let type = 0; type < 256; type++) {
    if (known.has(type)) continue;
    const length = random.between(0, 300);
    const options = {
      length,
      stream: random.between(0, 9),
      flags: random.between(0, 255),
      seq: random.between(0, 1e9),
    };
    const octets = concat([raw(type, options), raw(FrameType.end)]);
    const [frame, behind] = readEveryWay(octets, random, false);
    if ((type & 0x80) !== 0) {
      assert.ok(frame?.type === "error");
      assert.equal(frame.code, "UNSUPPORTED");
      assert.equal(frame.sequenced, (type & 0x40) !== 0);
      continue;
    }
    const size = HEADER_BYTES + length;
    if ((type & 0x40) !== 0) assert.deepEqual(frame, { type: "skippedInLog", seq: options.seq, size });
    else assert.deepEqual(frame, { type: "skipped", received: options.seq });
    assert.equal(behind?.type, "end");
  }
});

const data = (payload: Uint8Array): SequencedContent => ({ type: "data", stream: 1, offset: 0, fin: false, payload });

test("a frame across two pieces that lie side by side is read in place", () => {
  const memory = encodeSequenced(0, data(new Uint8Array(1_000).fill(7)));
  for (const at of [1, HEADER_BYTES - 1, HEADER_BYTES, HEADER_BYTES + 1, memory.length - 1]) {
    const reader = new FrameReader();
    reader.push(memory.subarray(0, at));
    assert.equal(reader.next(), undefined);
    reader.push(memory.subarray(at));
    const frame = reader.next();
    assert.ok(frame?.type === "data");
    assert.equal(frame.payload.buffer, memory.buffer, `cut at ${at}`);
  }
});

test("a frame across two pieces that do not lie side by side is copied, also when only the place or only the memory fits", () => {
  const octets = encodeSequenced(0, data(new Uint8Array(1_000).fill(7)));
  const at = 500;
  const room = new Uint8Array(3_000);
  room.set(octets.subarray(0, at), 100);
  room.set(octets.subarray(at), 1_000);
  const elsewhere = new Uint8Array(3_000);
  elsewhere.set(octets.subarray(at), 100 + at);
  for (const second of [
    room.subarray(1_000, 1_000 + octets.length - at),
    elsewhere.subarray(100 + at, 100 + octets.length),
  ]) {
    const reader = new FrameReader();
    reader.push(room.subarray(100, 100 + at));
    assert.equal(reader.next(), undefined);
    reader.push(second);
    const frame = reader.next();
    assert.ok(frame?.type === "data");
    assert.notEqual(frame.payload.buffer, room.buffer);
    assert.notEqual(frame.payload.buffer, elsewhere.buffer);
    assert.ok(frame.payload.every((octet) => octet === 7));
  }
});

test("octets that are not a frame yet may be moved, and the frame goes on behind them", () => {
  const octets = encodeSequenced(0, data(new Uint8Array(1_000).fill(7)));
  for (const at of [1, HEADER_BYTES, 500, octets.length - 1]) {
    const reader = new FrameReader();
    const first = new Uint8Array(octets.subarray(0, at));
    reader.push(first);
    assert.equal(reader.next(), undefined);
    assert.equal(reader.incomplete, at);
    const memory = new Uint8Array(octets.length + 10);
    memory.set(octets, 10);
    reader.move(memory.subarray(10, 10 + at));
    first.fill(0xee);
    assert.equal(reader.next(), undefined);
    reader.push(memory.subarray(10 + at));
    const frame = reader.next();
    assert.ok(frame?.type === "data");
    assert.equal(frame.payload.buffer, memory.buffer);
    assert.ok(frame.payload.every((octet) => octet === 7));
    assert.equal(reader.incomplete, 0);
  }
});

test("ranges of an ACK that are not ascending above what was received are ignored", () => {
  const limit = 2 ** 20;
  const held = [
    { start: 90, end: 95 }, // below what was received
    { start: 100, end: 110 }, // touches it
    { start: 200, end: 300 },
    { start: 300, end: 310 }, // touches the one before
    { start: 250, end: 400 }, // overlaps it
    { start: 500, end: 500 }, // empty
    { start: 600, end: 550 }, // backwards
    { start: 700, end: 2 ** 54 }, // no position
    { start: 800, end: 801 },
  ];
  const [frame] = readEveryWay(encodeUnsequenced({ type: "ack", received: 100, limit, held }), new Random(1));
  const good = [
    { start: 200, end: 300 },
    { start: 800, end: 801 },
  ];
  assert.deepEqual(frame, { type: "ack", received: 100, limit, held: good });
});

test("after detach the memory may be overwritten, at whatever octet a frame was cut", () => {
  const octets = encodeSequenced(0, data(new Uint8Array(100).fill(7)));
  for (let at = 1; at < octets.length; at++) {
    const reader = new FrameReader();
    const memory = new Uint8Array(octets);
    reader.push(memory.subarray(0, at));
    assert.equal(reader.next(), undefined);
    reader.detach();
    memory.fill(0xee, 0, at);
    reader.push(memory.subarray(at));
    const frame = reader.next();
    assert.ok(frame?.type === "data");
    assert.ok(frame.payload.every((octet) => octet === 7));
    reader.detach();
    assert.equal(reader.next(), undefined);
  }
});

test("a request is a copy even of a Buffer, whose slice() is none", () => {
  const memory = Buffer.from(encodeSequenced(0, { type: "open", stream: 1, credit: 0, request: Buffer.from("wiki") }));
  const reader = new FrameReader();
  reader.push(memory);
  const frame = reader.next();
  memory.fill(0xee);
  assert.ok(frame?.type === "open");
  assert.equal(Buffer.from(frame.request).toString(), "wiki");
});

test("nothing is lost when pieces are pushed, or detached, without reading in between", () => {
  fc.assert(
    fc.property(fc.array(anyFrame, { minLength: 1, maxLength: 4 }), fc.integer(), (frames, dice) => {
      const random = new Random(dice);
      const reader = new FrameReader();
      const read: (Frame | FrameError)[] = [];
      for (const piece of random.cut(concat(frames.map(({ octets }) => octets)))) {
        const memory = new Uint8Array(piece);
        reader.push(memory);
        if (random.chance(0.3)) {
          reader.detach();
          memory.fill(0xee);
        }
        while (random.chance(0.4)) {
          const frame = reader.next();
          if (frame !== undefined) read.push(owned(frame));
        }
      }
      for (let frame = reader.next(); frame !== undefined; frame = reader.next()) read.push(owned(frame));
      assert.deepEqual(
        read,
        frames.map(({ frame }) => frame),
      );
    }),
  );
});

test("M03 a frame that comes in 24,000 single octets is copied once, not once an octet", (t) => {
  const octets = encodeSequenced(0, data(new Uint8Array(24_000 - HEADER_BYTES).fill(7)));
  let copied = 0;
  const prototype = Object.getPrototypeOf(Uint8Array.prototype);
  const set: (source: ArrayLike<number>, at?: number) => void = prototype.set;
  t.mock.method(prototype, "set", function (this: Uint8Array, source: ArrayLike<number>, at?: number) {
    copied += source.length;
    set.call(this, source, at);
  });
  for (const detached of [true, false]) {
    copied = 0;
    const reader = new FrameReader();
    let frame: Frame | FrameError | undefined;
    for (let at = 0; at < octets.length; at++) {
      const memory = detached ? octets.slice(at, at + 1) : octets.subarray(at, at + 1);
      reader.push(memory);
      frame = reader.next();
      if (detached) reader.detach();
    }
    assert.ok(frame?.type === "data");
    assert.equal(frame.payload.length, 24_000 - HEADER_BYTES);
    assert.ok(copied <= octets.length + 2 * HEADER_BYTES, `${copied} octets copied, detached ${detached}`);
  }
});

seededTest(
  `M04 ${CASES} mutated and random inputs: no exception, only frames that hold and one error at the end`,
  (random) => {
    const templates = fc.sample(anyFrame, { seed: random.between(0, 1e9), numRuns: 400 }).map(({ octets }) => octets);
    const small = templates.filter((octets) => octets.length < 400);
    let errors = 0;
    let frames = 0;
    for (let round = 0; round < CASES; round++) {
      const octets = random.chance(0.2) ? random.octets(random.between(0, 80)) : mutated(random, small);
      const pieces = round % 50 === 0 ? random.cut(octets) : [octets];
      const read = readAll(pieces, Object.values(manners)[round % 4] ?? assert.fail());
      for (const frame of read) {
        if (frame.type === "error") errors++;
        else frames++;
        hold(frame);
      }
    }
    assert.ok(errors > CASES / 20 && frames > CASES / 20, `a fair share of both: ${errors} errors, ${frames} frames`);
  },
);

function mutated(random: Random, templates: readonly Uint8Array[]): Uint8Array {
  const octets = concat(Array.from({ length: random.between(1, 3) }, () => random.pick(templates)));
  for (let times = random.between(1, 3); times > 0; times--) {
    const at = random.chance(0.6) ? random.between(0, HEADER_BYTES - 1) : random.between(0, octets.length - 1);
    octets[at] = random.chance(0.5) ? random.between(0, 255) : (octets[at] ?? 0) ^ (1 << random.between(0, 7));
  }
  return random.chance(0.2) ? octets.subarray(0, random.between(0, octets.length)) : octets;
}

/** What the rest of the program relies on in any frame it is given. */
function hold(frame: Frame | FrameError): void {
  if (frame.type === "error") {
    assert.ok(frame.detail.length > 0);
    return;
  }
  for (const value of Object.values(frame))
    if (typeof value === "number") assert.ok(Number.isSafeInteger(value) && value >= 0);
  if ("seq" in frame) assert.ok(frame.size >= HEADER_BYTES && frame.size <= HEADER_BYTES + PAYLOAD_BYTES_MAX);
  if (frame.type === "data") assert.equal(frame.payload.length, frame.size - HEADER_BYTES);
  if ("stream" in frame) assert.ok(frame.stream > 0);
  if ("reason" in frame) assert.match(frame.reason, /^[ -~]*$/);
}

test("after an error the same error comes again, and nothing else", () => {
  const reader = new FrameReader();
  reader.push(concat([raw(0xff), encodeUnsequenced({ type: "skipped", received: 0 })]));
  assert.equal(reader.next()?.type, "error");
  assert.equal(reader.next()?.type, "error");
});

test("L15 a reason is printable when it was read, and never longer than 255 octets when it is written", () => {
  const octets = encodeUnsequenced({ type: "closeConnection", received: 0, code: 1, reason: "slow down" });
  octets.set([0x0a, 0x1b, 0x80, 0xff], HEADER_BYTES);
  const [frame] = readEveryWay(octets, new Random(1));
  assert.equal(frame?.type === "closeConnection" && frame.reason, "???? down");
  const [long] = readEveryWay(
    encodeSequenced(0, { type: "goaway", lastStream: 0, code: 8, reason: "x".repeat(1_000) }),
    new Random(1),
  );
  assert.equal(long?.type === "goaway" && long.reason.length, 255);
});

test("codes have names, and unknown ones read as INTERNAL", () => {
  for (const [name, code] of Object.entries(Code)) assert.equal(codeName(code), name);
  assert.equal(codeName(15), "INTERNAL");
  assert.equal(codeName(2 ** 53 - 1), "INTERNAL");
});
