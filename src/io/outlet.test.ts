import assert from "node:assert/strict";
import { Writable } from "node:stream";
import test from "node:test";
import { Random, seed } from "../../test/sim/seed.ts";
import { SLAB_BYTES, SLOT_BYTES, type Slab, scratch, slabsHeld, takeSlab } from "./memory.ts";
import { Outlet } from "./outlet.ts";
import { allReleased, connected, digest, digestOf, gone, noise } from "./pair.test.ts";

/** A sink that takes what it is given when it is told to, and shows how it was given. */
class Sink extends Writable {
  /** The pieces of each write, as they came. */
  readonly writes: Uint8Array[][] = [];
  /** What they held when they were taken; after that their memory is nobody's. */
  readonly #octets: Buffer[] = [];
  #taken: (() => void) | undefined;

  constructor() {
    super({ decodeStrings: false, highWaterMark: 1 });
  }

  override _write(chunk: Uint8Array, _encoding: BufferEncoding, done: () => void): void {
    this.writes.push([chunk]);
    this.#taken = done;
  }

  override _writev(chunks: { chunk: Uint8Array }[], done: () => void): void {
    this.writes.push(chunks.map(({ chunk }) => chunk));
    this.#taken = done;
  }

  /** The write under way is out of our hands. */
  take(): void {
    const taken = this.#taken;
    this.#taken = undefined;
    if (taken === undefined) return;
    this.#octets.push(Buffer.concat(this.writes.at(-1) ?? []));
    taken();
  }

  /** All that was taken. */
  get octets(): Buffer {
    return Buffer.concat(this.#octets);
  }
}

/** An outlet and what it has told of. */
function outletTo(sink: Writable): { outlet: Outlet; written: number[] } {
  const written: number[] = [];
  return { outlet: new Outlet(sink, (bytes) => written.push(bytes)), written };
}

function filledSlab(): Slab {
  const slab = takeSlab();
  slab.bytes.set(noise(SLAB_BYTES));
  return slab;
}

test("neighbours in a slab are given as one piece, where they lie", () => {
  const sink = new Sink();
  const { outlet } = outletTo(sink);
  const slab = filledSlab();
  for (let slot = 0; slot < 4; slot++) outlet.add(slab.bytes.subarray(slot * SLOT_BYTES, (slot + 1) * SLOT_BYTES));
  outlet.flush();
  const [[piece, ...more] = []] = sink.writes;
  assert.deepEqual(more, []);
  assert.equal(piece?.buffer, slab.bytes.buffer);
  assert.equal(piece?.length, SLAB_BYTES);
  slab.release();
  sink.take();
  assert.equal(slabsHeld(), 0);
});

test("pieces of a slab that leave a gap between them stay apart, and in order", () => {
  const sink = new Sink();
  const { outlet } = outletTo(sink);
  const slab = filledSlab();
  const parts = [
    slab.bytes.subarray(0, 5_000),
    slab.bytes.subarray(5_001, 10_000),
    slab.bytes.subarray(10_000, 50_000),
  ];
  const expected = digest(Buffer.concat(parts));
  for (const part of parts) outlet.add(part);
  outlet.flush();
  assert.deepEqual(
    sink.writes.flat().map(({ length }) => length),
    [5_000, 44_999],
  );
  slab.release();
  sink.take();
  assert.equal(digest(sink.octets), expected);
});

test("small pieces are put together, and large ones between them are left where they are", () => {
  const sink = new Sink();
  const { outlet } = outletTo(sink);
  const large = noise(100_000);
  const pieces = [Buffer.from("a"), Buffer.from("b".repeat(2_048)), large, Buffer.from("c"), Buffer.from("d")];
  for (const piece of pieces) outlet.add(piece);
  assert.equal(outlet.gathered, 102_051);
  outlet.flush();
  assert.equal(outlet.gathered, 0);
  const given = sink.writes.flat();
  assert.deepEqual(
    given.map(({ length }) => length),
    [2_049, 100_000, 2],
  );
  assert.equal(given[1], large);
  assert.equal(digest(Buffer.concat(given)), digest(Buffer.concat(pieces)));
  sink.take();
});

test("everything gathered in a turn is one write", async () => {
  const { near, far } = await connected();
  const { outlet } = outletTo(near);
  const pieces = Array.from({ length: 10 }, () => noise(10_000));
  for (const piece of pieces) outlet.add(piece);
  const vectors: number[] = [];
  const { writev } = Reflect.get(near, "_handle");
  Reflect.get(near, "_handle").writev = function (...args: unknown[]) {
    vectors.push(Array.isArray(args[1]) ? args[1].length : 0);
    return writev.apply(this, args);
  };
  outlet.flush();
  assert.deepEqual(vectors, [10]);
  near.end();
  assert.equal(await digestOf(far), digest(Buffer.concat(pieces)));
  far.end();
  await gone(near);
});

test("a slab is held until its octets are out of our hands", () => {
  const sink = new Sink();
  const { outlet, written } = outletTo(sink);
  const slab = filledSlab();
  outlet.add(slab.bytes.subarray(0, 40_000));
  outlet.add(slab.bytes.subarray(100_000, 140_000));
  assert.equal(slab.spent, false);
  outlet.flush();
  assert.deepEqual(written, []);
  assert.equal(slab.spent, false);
  sink.take();
  assert.deepEqual(written, [80_000]);
  assert.equal(slab.spent, true);
  slab.release();
});

test("what the kernel takes at once is told at once", async () => {
  const { near, far } = await connected();
  const { outlet, written } = outletTo(near);
  const slab = filledSlab();
  outlet.add(slab.bytes.subarray(0, 50_000));
  outlet.add(Buffer.from("hello"));
  outlet.flush();
  assert.deepEqual(written, [50_005]);
  assert.equal(slab.spent, true);
  near.end();
  assert.equal(await digestOf(far), digest(Buffer.concat([slab.bytes.subarray(0, 50_000), Buffer.from("hello")])));
  assert.deepEqual(written, [50_005]); // and once
  slab.release();
  far.end();
  await gone(near);
});

test("what lies in the memory that all share is copied", () => {
  const sink = new Sink();
  const { outlet } = outletTo(sink);
  scratch.fill(0x61, 0, 3_000);
  outlet.add(scratch.subarray(0, 3_000));
  scratch.fill(0x62, 0, 3_000);
  outlet.flush();
  sink.take();
  assert.equal(String(sink.octets), "a".repeat(3_000));
});

test("while the sink is behind, pieces below 32 KiB are copied out of their slab: one octet keeps no slab in use", () => {
  const sink = new Sink();
  const { outlet, written } = outletTo(sink);
  outlet.add(Buffer.from("first"));
  outlet.flush();
  assert.equal(outlet.writing, true);
  const slab = filledSlab();
  const [small, large] = [slab.bytes.subarray(0, 32_767), slab.bytes.subarray(40_000, 72_768)];
  const expected = digest(Buffer.concat([Buffer.from("first"), small, large]));
  outlet.add(small);
  assert.equal(slab.spent, true);
  small.fill(0);
  assert.notEqual(digest(slab.bytes), expected);
  outlet.add(large);
  assert.equal(slab.spent, false);
  assert.equal(outlet.backlog, 5 + 32_767 + 32_768);
  outlet.flush();
  assert.equal(outlet.backlog, 5 + 32_767 + 32_768);
  for (let takes = 0; takes < 3; takes++) sink.take();
  assert.deepEqual(written, [5, 65_535]);
  assert.equal(digest(sink.octets), expected);
  assert.equal(slab.spent, true);
  slab.release();
});

test("a limited flush takes the first octets, and what follows keeps its order", () => {
  const sink = new Sink();
  const { outlet, written } = outletTo(sink);
  const slab = filledSlab();
  const parts = [
    noise(700),
    slab.bytes.subarray(0, 65_000),
    noise(1),
    slab.bytes.subarray(65_000, 100_000),
    noise(5_000),
  ];
  const expected = digest(Buffer.concat(parts));
  for (const part of parts) outlet.add(part);
  for (const limit of [1_300, 12_000, 40_000]) {
    outlet.flush(limit);
    sink.take();
  }
  assert.deepEqual(
    sink.writes.map((pieces) => pieces.map(({ length }) => length)),
    [[1_300], [12_000], [40_000]],
  );
  assert.equal(outlet.gathered, 105_701 - 53_300);
  slab.release();
  assert.equal(slabsHeld(), 0); // what was cut was copied
  outlet.add(noise(0));
  outlet.flush(1_000_000);
  sink.take();
  assert.deepEqual(written, [1_300, 12_000, 40_000, 105_701 - 53_300]);
  assert.equal(digest(sink.octets), expected);
});

test("as one means one piece, of a slab at the most, and the rest keeps its order and its place", () => {
  const sink = new Sink();
  const { outlet, written } = outletTo(sink);
  const slabs = [filledSlab(), filledSlab()];
  const parts = slabs.flatMap((slab) => [noise(5_000), slab.bytes.subarray(0, 100_000), slab.bytes.subarray(100_001)]);
  const expected = digest(Buffer.concat(parts));
  for (const part of parts) outlet.add(part);
  for (const slab of slabs) slab.release();
  const bytes = outlet.gathered;
  while (outlet.gathered > 0) {
    outlet.flushAsOne();
    sink.take();
  }
  for (const pieces of sink.writes) assert.ok(pieces.length === 1 && (pieces[0]?.length ?? 0) <= SLAB_BYTES);
  assert.equal(digest(sink.octets), expected);
  assert.equal(
    written.reduce((sum, count) => sum + count, 0),
    bytes,
  );
  assert.equal(slabsHeld(), 0);
});

test("as one leaves a single piece where it lies, and puts small ones together without a slab", () => {
  const sink = new Sink();
  const { outlet } = outletTo(sink);
  const large = noise(SLAB_BYTES + 1);
  outlet.add(large);
  outlet.flushAsOne();
  sink.take();
  assert.equal(sink.writes[0]?.[0], large);
  outlet.add(Buffer.from("a"));
  outlet.add(Buffer.from("b"));
  outlet.flushAsOne();
  assert.equal(slabsHeld(), 0);
  sink.take();
  outlet.add(large); // larger than a slab, and not alone
  outlet.add(Buffer.from("c".repeat(3_000)));
  outlet.flushAsOne();
  sink.take();
  outlet.flushAsOne();
  sink.take();
  assert.deepEqual(
    sink.writes.map((pieces) => pieces.map(({ length }) => length)),
    [[large.length], [2], [large.length], [3_000]],
  );
  assert.equal(slabsHeld(), 0);
});

test("a sink that is destroyed takes nothing, and everything is released and told all the same", async () => {
  const { near, far } = await connected();
  const { outlet, written } = outletTo(near);
  const slab = filledSlab();
  outlet.add(slab.bytes.subarray(0, 40_000));
  near.destroy();
  outlet.flush();
  assert.deepEqual(written, [40_000]);
  assert.equal(slab.spent, true);
  outlet.add(slab.bytes.subarray(0, 40_000));
  outlet.flush();
  assert.deepEqual(written, [40_000, 40_000]);
  slab.release();
  far.destroy();
  await gone(far);
});

test("a sink that was ended takes nothing more", async () => {
  const { near, far } = await connected();
  const { outlet, written } = outletTo(near);
  near.end();
  outlet.add(Buffer.from("late"));
  outlet.flush();
  assert.deepEqual(written, [4]);
  assert.equal(await digestOf(far), digest(new Uint8Array(0)));
  far.end();
  await gone(near);
});

for (const how of ["destroyed", "reset by its peer"]) {
  test(`a sink that is ${how} while it is behind releases everything, and tells it once`, async () => {
    const { near, far } = await connected();
    far.pause();
    const { outlet, written } = outletTo(near);
    let given = 0;
    while (!outlet.writing) {
      const slab = filledSlab();
      outlet.add(slab.bytes);
      given += slab.bytes.length;
      slab.release();
      outlet.flush();
    }
    const behind = filledSlab();
    outlet.add(behind.bytes);
    outlet.add(behind.bytes.subarray(0, 50_000));
    behind.release();
    given += SLAB_BYTES + 50_000;
    outlet.flush();
    assert.notEqual(slabsHeld(), 0);
    if (how === "destroyed") near.destroy();
    else far.resetAndDestroy();
    await gone(near);
    await allReleased();
    assert.equal(
      written.reduce((sum, bytes) => sum + bytes, 0),
      given,
    );
    far.destroy();
  });
}

test("what is dropped is released, not written, and not told", () => {
  const sink = new Sink();
  const { outlet, written } = outletTo(sink);
  const slab = filledSlab();
  outlet.add(slab.bytes.subarray(0, 40_000));
  outlet.add(Buffer.from("hello"));
  outlet.drop();
  assert.equal(slab.spent, true);
  assert.equal(outlet.gathered, 0);
  outlet.flush();
  assert.deepEqual(sink.writes, []);
  assert.deepEqual(written, []);
  slab.release();
});

test("pieces of any size, flushed at any time, to a slow socket arrive in order and leave no slab held", async (t) => {
  t.diagnostic(`FIVED_TEST_SEED=${seed}`);
  const random = new Random(seed);
  const { near, far } = await connected();
  let arriving: Promise<string> | undefined;
  const { outlet, written } = outletTo(near);
  const sent: Buffer[] = [];
  let slab = filledSlab();
  for (let piece = 0; piece < 600; piece++) {
    const bytes = Math.floor(65_536 ** random.fraction());
    const from = random.between(0, SLAB_BYTES - bytes);
    const octets = random.chance(0.7) ? slab.bytes.subarray(from, from + bytes) : noise(bytes);
    sent.push(Buffer.from(octets));
    outlet.add(octets);
    if (random.chance(0.2)) random.pick([() => outlet.flush(), () => outlet.flush(1_300), () => outlet.flushAsOne()])();
    if (random.chance(0.1)) {
      slab.release(); // somebody else may read into it now, unless it is held
      slab = filledSlab();
    }
    if (piece === 300) arriving = digestOf(far);
    if (piece % 50 === 0) await new Promise(setImmediate);
  }
  outlet.flush();
  slab.release();
  near.end();
  const all = Buffer.concat(sent);
  assert.equal(await arriving, digest(all));
  far.end();
  await gone(near);
  await allReleased();
  assert.equal(
    written.reduce((sum, bytes) => sum + bytes, 0),
    all.length,
  );
});
