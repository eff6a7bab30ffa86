/**
 * A hostile peer: valid frames that make no sense, nearly right positions, connections that come and go, and an application that does not
 * help. No exception escapes, nothing a peer can make grow passes its bound, and the application is told a story that hangs together.
 * @module
 */
import assert from "node:assert/strict";
import { type Output, SESSION_LIMITS } from "../../src/session/index.ts";
import { Code, encodeSequenced, HEADER_BYTES, type SequencedContent, Setting } from "../../src/wire/index.ts";
import { Peer, SETTINGS } from "../sim/peer.ts";
import { during, effort, Random, seededTest } from "../sim/seed.ts";

const LIVES = 400 * effort;
const STEPS = 150;

/** Streams the peer may have, small so that the limit is met. */
const STREAMS = 6;
/** All windows together, and one stream's. */
const BUDGET = 2 ** 20;

const NUMBERS = Object.values(Code);

/** One stream, as its application has been told of it. */
interface Told {
  opened: boolean;
  delivered: number;
  consumed: number;
  finished: boolean;
  over: boolean;
  gone: boolean;
}

/** One stream, as the peer knows it: what it has sent, what it may send, and whether it has ended its side. */
interface Known {
  at: number;
  credit: number;
  over: boolean;
}

/** A session, a hostile peer, a careless application, and somebody who watches. */
class Life {
  readonly peer: Peer;
  readonly #random: Random;
  readonly #streams = new Map<number, Told>();
  /** What the peer knows of streams. */
  readonly #known = new Map<number, Known>();
  /** How often it does what no rule allows. */
  readonly #reckless: number;
  #heardAt = 0;
  readonly #lent = new Set<Uint8Array>();
  readonly #connections = new Set<number>();
  readonly #role: "client" | "server";
  readonly #retain: boolean;
  #nextConnection = 1;
  #seen = 0;
  #over = false;

  constructor(random: Random) {
    this.#random = random;
    this.#role = random.pick(["client", "server"]);
    this.#retain = random.chance(0.7);
    this.#reckless = random.pick([0, 0.01, 0.1, 0.7]);
    const limits = { streams: STREAMS, budgetBytes: BUDGET, windowBytesMax: BUDGET / 2, logWindowBytesMax: 2 ** 21 };
    const calm = random.chance(0.3) ? { glitches: { capacity: 1e9, perSecond: 0 } } : {};
    this.peer = new Peer({ role: this.#role, retain: this.#retain, limits: { ...limits, ...calm } });
    this.#connect();
    if (!random.chance(this.#reckless)) this.peer.say(SETTINGS);
    this.watch();
  }

  step(): void {
    const act = this.#random.between(0, 99);
    if (act < 55) this.#sayFrame();
    else if (act < 65) this.#tell();
    else if (act < 85) this.#useStreams();
    else if (act < 90) this.peer.pass(this.#random.pick([1, 50, 1_000, 40_000]));
    else if (act < 94) this.#room();
    else if (act < 96) this.#connect();
    else if (act < 98) this.#lose();
    else this.#manage();
    this.watch();
  }

  // ---- the peer

  get #connection(): number | undefined {
    return this.#connections.size === 0 ? undefined : this.#random.pick([...this.#connections]);
  }

  #connect(): void {
    if (this.#connections.size >= 3 || (!this.#retain && this.#nextConnection > 1)) return;
    if (this.peer.session.ended !== undefined) return;
    const id = this.#nextConnection++;
    this.#connections.add(id);
    this.peer.connect(id, this.#random.pick([0, 100, 100_000, 1e9]));
  }

  #lose(): void {
    const id = this.#connection;
    if (id === undefined) return;
    this.#connections.delete(id);
    this.peer.lose(id);
  }

  #room(): void {
    const id = this.#connection;
    if (id !== undefined) this.peer.room(this.#random.pick([-5, 0, 1, 500, 1e5, 1e9]), id);
  }

  #tell(): void {
    const id = this.#connection;
    // A pump does not read a peer that floods.
    if (id === undefined || this.peer.session.flooded) return;
    const { sent, acknowledged } = this.peer.session.positions;
    const random = this.#random;
    const honest = !random.chance(this.#reckless / 3);
    const received = honest ? random.between(acknowledged, sent) : sent + random.between(1, 99);
    const limit = random.pick([0, sent, sent + 10_000, sent + 2 ** 20, Number.MAX_SAFE_INTEGER]);
    const start = received + random.between(1, 500);
    const held = random.chance(0.5) ? [] : [{ start, end: start + random.between(1, 3_000) }];
    switch (random.between(0, 5)) {
      case 0:
      case 1:
        return void this.peer.tell({ type: "ack", received, limit, held }, id);
      case 2:
      case 3:
        return void this.peer.tell(
          { type: "ping", received, opaque: random.between(0, 9), reply: random.chance(0.5) },
          id,
        );
      case 4:
        return void this.peer.tell({ type: "skipped", received }, id);
      default:
        if (random.chance(0.1)) this.peer.tell({ type: "closeConnection", received, code: 0, reason: "bye" }, id);
    }
  }

  #sayFrame(): void {
    const id = this.#connection;
    if (id === undefined || this.peer.session.flooded) return;
    const random = this.#random;
    this.#listen();
    const content = random.chance(this.#reckless) ? this.#nonsense() : this.#sense();
    const { end } = this.peer;
    const late = [0, 24, 72, end - 24].filter((seq) => seq >= 0);
    const early = this.#retain ? [end + 24, end + random.between(100, 9_999)] : [];
    const wrong = random.chance(this.#reckless / 3);
    const seq = wrong ? random.pick([...late, end + 24, end + random.between(1, 9_999), 2 ** 40]) : end;
    if (wrong && seq > end && early.length === 0) return;
    const octets = encodeSequenced(seq, content);
    if (seq === end) this.peer.end += octets.length;
    if (random.chance(this.#reckless / 50)) octets[random.between(0, HEADER_BYTES - 1)] = random.between(0, 255);
    for (const piece of random.chance(0.1) ? random.cut(octets) : [octets]) {
      if (!this.#connections.has(id)) return;
      this.peer.raw(piece, id);
    }
  }

  /** Learns what the session grants, and which streams it opens and resets. */
  #listen(): void {
    const { heard } = this.peer;
    for (; this.#heardAt < heard.length; this.#heardAt++) {
      const frame = heard[this.#heardAt]?.frame;
      if (frame?.type === "open") this.#known.set(frame.stream, { at: 0, credit: frame.credit, over: false });
      const known = frame !== undefined && "stream" in frame ? this.#known.get(frame.stream) : undefined;
      if (known === undefined) continue;
      if (frame?.type === "credit") known.credit = frame.limit;
      if (frame?.type === "reset") known.over = true;
    }
  }

  get #theirs(): number {
    return this.#role === "server" ? 1 : 2;
  }

  /** What a peer may say. */
  #sense(): SequencedContent {
    const random = this.#random;
    const ids = [...this.#known].filter(([, { over }]) => !over);
    if (ids.length === 0 || random.chance(0.15)) {
      const highest = Math.max(
        this.#theirs - 2,
        ...[...this.#known.keys()].filter((id) => id % 2 === this.#theirs % 2),
      );
      const id = highest + random.pick([2, 2, 2, 4]);
      this.#known.set(id, { at: 0, credit: 65_536, over: false });
      const credit = random.pick([0, 1, 65_536, 2 ** 50]);
      return { type: "open", stream: id, credit, request: random.octets(random.between(1, 20)) };
    }
    const [stream, known] = random.pick(ids);
    switch (random.between(0, 11)) {
      case 0:
        return { type: "credit", stream, limit: random.pick([1, random.between(0, 70_000), 1_000_000, 2 ** 53 - 1]) };
      case 1:
        known.over = random.chance(0.5);
        if (known.over) return { type: "reset", stream, code: random.pick([...NUMBERS, 99, 2 ** 50]) };
        return { type: "skippedInLog" };
      case 2:
        if (random.chance(0.05)) return { type: "goaway", lastStream: random.between(0, 20), code: 0, reason: "" };
        return { type: "settings", entries: new Map([[Setting.streamsMax, random.between(0, 20)]]) };
      case 3:
        if (random.chance(0.02)) return { type: "end", code: random.pick(NUMBERS) };
        return { type: "skippedInLog" };
      default: {
        const length = Math.min(random.pick([0, 1, 10, 1_000, 60_000]), known.credit - known.at, 65_512);
        const fin = random.chance(0.05);
        const offset = known.at;
        known.at += length;
        known.over = fin;
        return { type: "data", stream, offset, fin, payload: new Uint8Array(length) };
      }
    }
  }

  /** What none may say, most of the time. */
  #nonsense(): SequencedContent {
    const random = this.#random;
    const stream = random.pick([...this.#known.keys(), 1, 2, 3, 4, random.between(1, 30)]);
    switch (random.between(0, 5)) {
      case 0:
        return {
          type: "open",
          stream,
          credit: random.pick([0, 2 ** 52]),
          request: random.octets(random.between(1, 1_024)),
        };
      case 1:
        return { type: "credit", stream, limit: random.pick([0, 1, 2 ** 53 - 1]) };
      case 2:
        return { type: "reset", stream, code: random.pick([...NUMBERS, 99, 2 ** 50]) };
      case 3:
        return { type: "goaway", lastStream: random.between(0, 2 ** 32), code: 2 ** 32 - 1, reason: "nonsense" };
      case 4: {
        const setting = random.pick([1, 2, 3, 4, 5, 6, 7, 65_535]);
        return {
          type: "settings",
          entries: new Map([[setting, random.pick([0, 1, 16_360, 65_536, 2 ** 20, 2 ** 32 - 1])]]),
        };
      }
      default: {
        const at = this.#known.get(stream)?.at ?? 0;
        const offset = random.pick([at, at, at, 0, at + 1, 2 ** 52]);
        const payload = new Uint8Array(random.pick([0, 1, 1_000, 65_512]));
        return { type: "data", stream, offset, fin: random.chance(0.1), payload };
      }
    }
  }

  // ---- the application

  #useStreams(): void {
    const random = this.#random;
    const { session } = this.peer;
    if (random.chance(0.2)) {
      const id = session.open(random.octets(random.between(1, 30)), this.peer.now);
      if (id !== undefined) this.#streams.set(id, { ...NEW });
      this.peer.drain();
      return;
    }
    const ids = [...this.#streams].filter(([, { gone }]) => !gone);
    if (ids.length === 0) return;
    const [id, told] = random.pick(ids);
    switch (random.between(0, 6)) {
      case 0:
      case 1: {
        const room = session.sendable(id, this.peer.now);
        assert.ok(room >= 0);
        const length = Math.min(room, session.payloadBytesMax, random.pick([0, 1, 100, 65_512]));
        if (random.chance(0.5)) session.send(id, new Uint8Array(length), this.peer.now);
        else {
          const frame = new Uint8Array(HEADER_BYTES + length);
          this.#lent.add(frame);
          session.lend(id, frame, this.peer.now);
        }
        break;
      }
      case 2:
        session.send(id, new Uint8Array(random.between(0, 2_000)), this.peer.now); // without asking
        break;
      case 3: {
        const bytes = random.between(0, told.delivered - told.consumed);
        told.consumed += bytes;
        session.consume(id, bytes, this.peer.now);
        break;
      }
      case 4:
        session.finish(id, this.peer.now, random.chance(0.2));
        break;
      case 5:
        session.reset(id, random.pick(NUMBERS), this.peer.now);
        told.over = true; // what is still told of it does not matter
        break;
      default:
        if (told.over || random.chance(0.3)) {
          session.forget(id, this.peer.now);
          told.over = true;
        }
    }
    this.peer.drain();
  }

  #manage(): void {
    const { session, now } = this.peer;
    const random = this.#random;
    const id = this.#connection;
    const what = random.between(0, 19);
    if (what < 2) session.goAway(Code.NO_ERROR, "leaving", now);
    else if (what < 8 && id !== undefined) session.disconnect(id, Code.SUPERSEDED, "replaced", now);
    else if (what === 8) session.end(Code.NO_ERROR, "done", now);
    else session.raise({ ...SESSION_LIMITS, streams: STREAMS, budgetBytes: BUDGET, windowBytesMax: BUDGET / 2 }, now);
    this.peer.drain();
  }

  // ---- who watches

  /** Follows what was told since the last time, and checks every bound. */
  watch(): void {
    const { outputs, session } = this.peer;
    for (; this.#seen < outputs.length; this.#seen++) {
      const output = outputs[this.#seen];
      if (output !== undefined) this.#follow(output);
    }
    let held = 0;
    let open = 0;
    for (const [id, told] of this.#streams) {
      if (told.gone) continue;
      held += told.delivered - told.consumed;
      if (id % 2 === (this.#role === "server" ? 1 : 0)) open++;
    }
    assert.ok(open <= STREAMS, `${open} streams of the peer`);
    // Ours and theirs begin with 64 KiB each, whatever the budget.
    assert.ok(held <= BUDGET + 2 * 100 * 65_536, `${held} octets held`);
    assert.ok(session.positions.acknowledged <= session.positions.sent);
    for (const { frame } of this.peer.heard) if (frame.type === "data") assert.ok(frame.payload.length <= 65_512);
    this.#listen();
    this.peer.heard = [];
    this.#heardAt = 0;
    assert.equal(session.ended !== undefined, this.#over);
  }

  #follow(output: Exclude<Output, { type: "transmit" }> | Output): void {
    if (this.#over) assert.ok(output.type === "released" || output.type === "gone", `${output.type} behind the end`);
    if (output.type === "ended") this.#over = true;
    if (output.type === "released") assert.ok(this.#lent.delete(output.memory), "released twice, or never lent");
    if (output.type === "disconnect") assert.ok(this.#connections.has(output.connection));
    if (!("stream" in output)) return;
    if (output.type === "opened") this.#streams.set(output.stream, { ...NEW, opened: true });
    const told = this.#streams.get(output.stream);
    assert.ok(told !== undefined && !told.gone, `${output.type} of a stream that is gone`);
    switch (output.type) {
      case "data":
        assert.ok(!told.finished && output.bytes.length > 0);
        told.delivered += output.bytes.length;
        return;
      case "finished":
        assert.ok(!told.finished);
        told.finished = true;
        return;
      case "over":
      case "reset":
        told.over = true;
        return;
      case "gone":
        told.gone = true;
        return;
    }
  }

  /** Connections go, the session ends: everything that was lent comes back. */
  end(): void {
    for (const id of [...this.#connections]) {
      this.#connections.delete(id);
      this.peer.lose(id);
    }
    this.watch();
    this.peer.session.end(Code.NO_ERROR, "done", this.peer.now);
    this.peer.drain();
    this.watch();
    assert.equal(this.#lent.size, 0, "memory that was lent has come back");
    assert.equal(this.peer.session.deadline, Number.POSITIVE_INFINITY);
  }
}

const NEW: Told = { opened: false, delivered: 0, consumed: 0, finished: false, over: false, gone: false };

seededTest(
  `${LIVES} hostile lives of ${STEPS} steps: no exception, no bound passed, no contradiction told`,
  (random) => {
    let survived = 0;
    for (let round = 0; round < LIVES; round++) {
      const start = random.between(0, 2 ** 30);
      during(`life ${round}, Random(${start})`, () => {
        const life = new Life(new Random(start));
        for (let step = 0; step < STEPS; step++) life.step();
        if (life.peer.ended() === undefined) survived++;
        life.end();
      });
    }
    assert.ok(survived > LIVES / 20, `${survived} sessions lived to the end: enough to have tried everything`);
  },
);
