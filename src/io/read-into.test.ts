import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtemp, rm } from "node:fs/promises";
import { connect, createServer, Socket } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { PassThrough, type Readable } from "node:stream";
import test from "node:test";
import { setImmediate as pause } from "node:timers/promises";
import { Random, seed } from "../../test/sim/seed.ts";
import { type Connected, connected, digest, gone, noise } from "./pair.test.ts";
import { type Reader, type Reading, readInto } from "./read-into.ts";

/** The same file once more, in a runtime without the private properties. */
const again = new URL("./read-into.ts?without-machinery", import.meta.url).href;

/** How a source is read: with the machinery, or without. */
interface Way {
  readonly name: string;
  readonly machinery: boolean;
  read(source: Readable, reader: Reader): Reading;
}

const WAYS: readonly Way[] = [
  { name: "into our memory", machinery: true, read: readInto },
  { name: "where the private properties are missing", machinery: false, read: await withoutMachinery() },
];

async function withoutMachinery(): Promise<typeof readInto> {
  const other: typeof import("./read-into.ts") = await import(again);
  return (source, reader) => {
    const { getOwnPropertySymbols } = Object;
    Object.getOwnPropertySymbols = () => [];
    try {
      return other.readInto(source, reader);
    } finally {
      Object.getOwnPropertySymbols = getOwnPropertySymbols;
    }
  };
}

/** Reads with memory that changes at every read, and stops at the first one and now and then. */
class Fickle implements Reader {
  readonly #random: Random;
  readonly #pieces: Buffer[] = [];
  #memory = Buffer.alloc(1);
  /** Reads in our memory, and elsewhere. */
  reads = { here: 0, elsewhere: 0 };
  stops = 0;
  stopped = false;
  whenStopped: () => void = () => {};

  constructor(random: Random) {
    this.#random = random;
  }

  into(): Uint8Array {
    this.#memory = Buffer.alloc(this.#random.pick([1, 7, 1_000, 16_384, 65_536, 262_144]));
    return this.#memory;
  }

  read(bytes: number, elsewhere?: Uint8Array): boolean {
    this.reads[elsewhere === undefined ? "here" : "elsewhere"]++;
    assert.ok(bytes > 0 && bytes <= (elsewhere ?? this.#memory).length);
    this.#pieces.push(Buffer.from((elsewhere ?? this.#memory).subarray(0, bytes)));
    if (this.stopped || this.stops === 0 || this.#random.chance(0.2)) {
      this.stops++;
      this.stopped = true;
      this.whenStopped();
      return false;
    }
    return true;
  }

  get received(): Buffer {
    return Buffer.concat(this.#pieces);
  }
}

/** Reads a source to its end, resuming it some turns after each stop. */
async function readAll(way: Way, source: Readable, fickle: Fickle, random: Random): Promise<Reading> {
  const ended = once(source, "end");
  const goOn = async (): Promise<void> => {
    for (let turns = random.between(0, 5); turns > 0; turns--) await pause();
    fickle.stopped = false;
    reading.resume();
  };
  fickle.whenStopped = () => {
    fickle.whenStopped = () => {};
    queueMicrotask(() => {
      fickle.whenStopped = stop;
      void goOn();
    });
  };
  const stop = fickle.whenStopped;
  const reading = way.read(source, fickle);
  await ended;
  return reading;
}

interface Source {
  readonly name: string;
  /** The end that is read, and how to have octets said and ended at the other. */
  open(): Promise<{ source: Socket; say: (octets: Buffer) => void; close: () => Promise<void> }>;
}

const SOURCES: readonly Source[] = [
  { name: "a socket that we opened", open: async () => ends(await connected("tcp"), "near") },
  { name: "a socket that we accepted", open: async () => ends(await connected("tcp"), "far") },
  { name: "TLS that we asked for, over a socket that existed", open: async () => ends(await connected("tls"), "near") },
  { name: "TLS that we accepted, over a socket that existed", open: async () => ends(await connected("tls"), "far") },
  { name: "a Unix socket", open: unixSocket },
  { name: "what a child process says", open: child },
];

function ends(both: Connected, read: "near" | "far") {
  const source = read === "near" ? both.near : both.far;
  const other = read === "near" ? both.far : both.near;
  return {
    source,
    say: (octets: Buffer) => void other.end(octets),
    close: async () => {
      source.end();
      other.resume();
      await Promise.all([gone(source), gone(other)]);
    },
  };
}

async function unixSocket() {
  const folder = await mkdtemp(join(tmpdir(), "fived-read-into-"));
  const server = createServer({ allowHalfOpen: true }).listen(join(folder, "socket"));
  await once(server, "listening");
  const near = connect({ path: join(folder, "socket"), allowHalfOpen: true });
  const [[far]] = await Promise.all([once(server, "connection"), once(near, "connect")]);
  server.close();
  const { source, say, close } = ends({ near, far }, "far");
  const closeAll = async (): Promise<void> => {
    await close();
    await rm(folder, { recursive: true });
  };
  return { source, say, close: closeAll };
}

async function child() {
  const program = spawn("cat", { stdio: ["pipe", "pipe", "inherit"] });
  await once(program, "spawn");
  const { stdin, stdout } = program;
  assert.ok(stdout instanceof Socket);
  const exited = once(program, "exit");
  return { source: stdout, say: (octets: Buffer) => void stdin.end(octets), close: async () => void (await exited) };
}

for (const way of WAYS) {
  for (const { name, open } of SOURCES) {
    test(`${name} is read ${way.name}: memory that changes, stops and all`, async (t) => {
      t.diagnostic(`FIVED_TEST_SEED=${seed}`);
      const random = new Random(seed);
      const { source, say, close } = await open();
      const octets = noise(1_500_000);
      const fickle = new Fickle(random);
      say(octets);
      await readAll(way, source, fickle, random);
      assert.equal(digest(fickle.received), digest(octets));
      assert.ok(fickle.stops > 0);
      if (!way.machinery) assert.equal(fickle.reads.here, 0);
      else assert.ok(fickle.reads.here > fickle.reads.elsewhere, "the machinery was found");
      await close();
    });
  }

  test(`what a socket had read before is given first when it is read ${way.name}`, async () => {
    for (const transport of ["tcp", "tls"] as const) {
      const { near, far } = await connected(transport);
      near.write("one ");
      while (far.readableLength < 4) {
        far.read(0);
        await pause();
      }
      const fickle = new Fickle(new Random(1));
      const ended = once(far, "end");
      const reading = way.read(far, fickle);
      assert.equal(String(fickle.received), "one ");
      near.end("two");
      fickle.whenStopped = () => setImmediate(() => reading.resume());
      reading.resume();
      await ended;
      assert.equal(String(fickle.received), "one two");
      far.end();
      await gone(near);
    }
  });

  test(`a reader that stops at once, at what had been read before, is given nothing more when read ${way.name}`, async () => {
    const { near, far } = await connected();
    near.write("one ");
    while (far.readableLength < 4) {
      far.read(0);
      await pause();
    }
    const got: string[] = [];
    const memory = Buffer.alloc(100);
    let goOn = false;
    const reading = way.read(far, {
      into: () => memory,
      read(bytes, elsewhere) {
        got.push(String((elsewhere ?? memory).subarray(0, bytes)));
        return goOn;
      },
    });
    near.end("two");
    for (let turns = 0; turns < 20; turns++) await pause();
    assert.deepEqual(got, ["one "]);
    goOn = true;
    const ended = once(far, "end");
    reading.resume();
    await ended;
    assert.deepEqual(got, ["one ", "two"]);
    far.end();
    await gone(near);
  });

  test(`a socket that is paused from outside gives nothing until it is resumed, when read ${way.name}`, async () => {
    const { near, far } = await connected();
    const fickle = new Fickle(new Random(2));
    const reading = way.read(far, fickle);
    await pause();
    far.pause();
    near.end("hello");
    for (let turns = 0; turns < 20; turns++) await pause();
    assert.equal(fickle.received.length, 0);
    fickle.whenStopped = () => setImmediate(() => reading.resume());
    const ended = once(far, "end");
    reading.resume();
    await ended;
    assert.equal(String(fickle.received), "hello");
    far.end();
    await gone(near);
  });

  test(`an end, an error and a close are still told when a socket is read ${way.name}`, async () => {
    const { near, far } = await connected();
    const told: string[] = [];
    for (const event of ["end", "error", "close"]) near.on(event, () => told.push(event));
    const reading = way.read(near, new Fickle(new Random(3)));
    far.end();
    await once(near, "end");
    assert.deepEqual(told, ["end"]);
    far.resetAndDestroy();
    near.write("into the void");
    await gone(near);
    assert.deepEqual(told, ["end", "error", "close"]);
    reading.resume(); // does nothing any more
    reading.renew();
  });
}

test("memory is registered once, however often reading stops and goes on", async () => {
  const { near, far } = await connected();
  const handle = Reflect.get(far, "_handle");
  const { useUserBuffer } = handle;
  let registered = 0;
  handle.useUserBuffer = function (memory: Uint8Array) {
    registered++;
    return useUserBuffer.call(this, memory);
  };
  const memory = Buffer.alloc(10_000);
  let stops = 0;
  const reading = readInto(far, {
    into: () => memory,
    read() {
      stops++;
      setImmediate(() => reading.resume());
      return false;
    },
  });
  near.end(noise(1_000_000));
  await once(far, "end");
  assert.ok(stops >= 100);
  assert.equal(registered, 1);
  far.end();
  await gone(near);
});

test("other memory can be asked for between two reads", async () => {
  const { near, far } = await connected();
  const [first, second] = [Buffer.alloc(100), Buffer.alloc(100)];
  let memory = first;
  let got = Promise.withResolvers<void>();
  const reading = readInto(far, {
    into: () => memory,
    read() {
      got.resolve();
      return true;
    },
  });
  near.write("one");
  await got.promise;
  assert.equal(first.subarray(0, 3).toString(), "one");
  memory = second;
  got = Promise.withResolvers<void>();
  reading.renew();
  near.write("two");
  await got.promise;
  assert.equal(second.subarray(0, 3).toString(), "two");
  assert.equal(first.subarray(0, 3).toString(), "one");
  near.end();
  far.end();
  await gone(near);
});

test("what is no socket is read by its data events", async () => {
  const through = new PassThrough();
  const octets = noise(300_000);
  through.write(octets.subarray(0, 1_000)); // before it is read
  const random = new Random(seed);
  const fickle = new Fickle(random);
  const all = readAll({ name: "", machinery: false, read: readInto }, through, fickle, random);
  through.end(octets.subarray(1_000));
  await all;
  assert.equal(digest(fickle.received), digest(octets));
  assert.equal(fickle.reads.here, 0);
});
