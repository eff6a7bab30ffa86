/**
 * Runs the vectors of lines, frames and sessions against our own reader, decoder, log and session. What a server makes of a line
 * (`answer`, words.json, the transcripts) is not decided there, and not tested here.
 * @module
 */
import assert from "node:assert/strict";
import fs from "node:fs";
import path from "node:path";
import test from "node:test";
import { Inbox } from "../../src/session/inbox.ts";
import { Log } from "../../src/session/log.ts";
import {
  Code,
  codeName,
  encodeSequenced,
  encodeUnsequenced,
  type Frame,
  type FrameError,
  FrameReader,
  HEADER_BYTES,
  LineReader,
  PAYLOAD_BYTES_MAX,
  parseReply,
  parseRequest,
  type Range,
  type SequencedFrame,
  Setting,
} from "../../src/wire/index.ts";
import { data, open, Peer, SETTINGS } from "../sim/peer.ts";

interface LineCase {
  readonly name: string;
  readonly input: readonly { readonly ascii?: string; readonly hex?: string; readonly times?: number }[];
  readonly results: readonly {
    readonly word?: string;
    readonly args?: readonly string[];
    readonly answer?: string | number;
    readonly refuse?: number;
    readonly at?: number;
  }[];
  readonly waits?: number;
  readonly rest?: string;
}

interface Lines {
  readonly lines: readonly LineCase[];
  readonly replies: readonly {
    readonly line: string;
    readonly reply: { readonly ok: boolean; readonly code?: number; readonly text: string } | null;
  }[];
}

interface Fields {
  readonly type: number;
  readonly name?: string;
  readonly length: number;
  readonly stream: number;
  readonly seq: number;
  readonly arg: number;
  readonly payload?: string;
  readonly fin?: boolean;
  readonly reply?: boolean;
  readonly request?: string;
  readonly code?: number;
  readonly reason?: string;
  readonly held?: readonly (readonly [number, number])[];
  readonly settings?: readonly (readonly [number, number])[];
}

type Name = keyof typeof Code;

interface Frames {
  readonly valid: readonly {
    readonly name: string;
    readonly hex: string;
    readonly frame: Fields;
    readonly payloadRepeats?: { readonly hex: string; readonly times: number };
    readonly skipped?: "unsequenced" | "sequenced";
    readonly takes?: number;
    readonly note?: string;
    readonly readAs?: string;
  }[];
  readonly invalid: readonly {
    readonly name: string;
    readonly hex: string;
    readonly error: Name;
    readonly reach: "connection" | "session";
    readonly payloadLimit?: number;
  }[];
  readonly sequences: readonly {
    readonly name: string;
    readonly hex: string;
    readonly frames: readonly { readonly type: number; readonly octets?: number }[];
    readonly left?: number;
    readonly error?: string;
  }[];
}

type End = "client" | "server";
type Positions = Readonly<Record<End, { readonly end: number; readonly acknowledged: number }>>;

interface SessionVectors {
  readonly exchanges: readonly {
    readonly name: string;
    readonly steps: readonly {
      readonly from: End;
      readonly hex: string;
      readonly frame?: boolean;
      readonly logs: Positions;
    }[];
    readonly loss?: { readonly connection: number } & Readonly<Record<End, { readonly again: readonly string[] }>>;
  }[];
  readonly arrivals: readonly {
    readonly name: string;
    readonly received: number;
    readonly limit: number;
    readonly held: readonly (readonly [number, number])[];
    readonly frame: readonly [number, number];
    readonly verdict: string;
    readonly receivedAfter?: number;
  }[];
  readonly acks: readonly {
    readonly name: string;
    readonly acknowledged: number;
    readonly end: number;
    readonly seq: number;
    readonly acknowledgedAfter?: number;
    readonly ends?: Name;
  }[];
  readonly limits: readonly {
    readonly name: string;
    readonly limit: number;
    readonly heard: readonly number[];
    readonly limitAfter: number;
  }[];
  readonly replay: readonly {
    readonly name: string;
    readonly acknowledged: number;
    readonly held: readonly (readonly [number, number])[];
    readonly frames: readonly (readonly [number, number, number])[];
    readonly lost: number;
    readonly again: readonly number[];
  }[];
  readonly credit: readonly {
    readonly name: string;
    readonly direction: "opener" | "acceptor";
    readonly open?: number;
    readonly events: readonly (readonly ["settings" | "credit", number])[];
    readonly limit: number;
  }[];
  readonly violations: readonly {
    readonly name: string;
    readonly to: End;
    readonly frames: readonly string[];
    readonly data?: readonly {
      readonly stream: number;
      readonly seq: number;
      readonly offset: number;
      readonly octets: number;
    }[];
    readonly ends: Name;
  }[];
  readonly streams: Readonly<Record<string, Readonly<Record<string, StreamOutcome>> | string>>;
}

interface StreamOutcome {
  readonly becomes?: string;
  readonly ends?: Name;
  readonly resets?: Name;
  readonly ignored?: true;
}

function vectors<T>(file: string): T {
  return JSON.parse(fs.readFileSync(path.join(import.meta.dirname, file), "utf8"));
}

const lines = vectors<Lines>("lines.json");
const frames = vectors<Frames>("frames.json");
const session = vectors<SessionVectors>("session.json");

function hex(text: string): Uint8Array {
  return new Uint8Array(Buffer.from(text, "hex"));
}

function toHex(octets: Uint8Array): string {
  return Buffer.from(octets).toString("hex");
}

function singly(octets: Uint8Array): Uint8Array[] {
  return Array.from(octets, (octet) => Uint8Array.of(octet));
}

// ---- lines ------------------------------------------------------------------------------------------------------------------------

/** Answers behind which no line is read any more. */
const TAKEN_OVER = new Set<string | number>(["tls", "frames", "bytes", "closed"]);

for (const vector of lines.lines) {
  test(`lines.json: ${vector.name}`, () => {
    const input = new Uint8Array(
      Buffer.concat(
        vector.input.map(({ ascii, hex: octets, times = 1 }) => {
          const part = ascii === undefined ? Buffer.from(octets ?? "", "hex") : Buffer.from(ascii, "latin1");
          return Buffer.concat(Array.from({ length: times }, () => part));
        }),
      ),
    );
    readLines(vector, [input]);
    if (input.length < 5_000) readLines(vector, singly(input));
  });
}

function readLines(vector: LineCase, pieces: readonly Uint8Array[]): void {
  const reader = new LineReader();
  const results = [...vector.results];
  let over = false;
  let pushed = 0;
  for (const piece of pieces) {
    reader.push(piece);
    pushed += piece.length;
    while (!over) {
      const line = reader.next();
      if (line === undefined) break;
      const expected = results.shift();
      assert.ok(expected !== undefined, "a line too many");
      if (line.type === "error") {
        assert.equal(expected.refuse, 500);
        if (pieces.length > 1) assert.equal(pushed, expected.at);
        over = true;
        continue;
      }
      const request = parseRequest(line.text);
      if (expected.word === undefined) assert.deepEqual([request.type, expected.refuse], ["error", 501]);
      else assert.deepEqual(request, { type: "request", word: expected.word, args: expected.args });
      // Whether a conversation goes on behind a refusal is its server's to know; for the reader the next result tells.
      over = expected.word === undefined || TAKEN_OVER.has(expected.answer ?? "") || results.length === 0;
    }
  }
  assert.deepEqual(results, []);
  if (vector.waits !== undefined) assert.equal(reader.buffered, vector.waits);
  if (vector.rest !== undefined) assert.equal(toHex(reader.rest()), vector.rest);
}

test("lines.json: replies", () => {
  assert.ok(lines.lines.length > 0 && lines.replies.length > 0, "looked at nothing");
  for (const { line, reply } of lines.replies) {
    const read = parseReply(line);
    if (reply === null) assert.equal(read.type, "error", line);
    else if (reply.ok) assert.deepEqual(read, { type: "accepted", text: reply.text }, line);
    else assert.deepEqual(read, { type: "refused", code: reply.code, text: reply.text }, line);
  }
});

// ---- frames -----------------------------------------------------------------------------------------------------------------------

function readFrames(pieces: readonly Uint8Array[]): { read: (Frame | FrameError)[]; left: number } {
  const reader = new FrameReader();
  const read: (Frame | FrameError)[] = [];
  let left = 0;
  for (const piece of pieces) {
    reader.push(piece);
    left += piece.length;
    while (read.at(-1)?.type !== "error") {
      const frame = reader.next();
      if (frame === undefined) break;
      read.push(frame);
    }
  }
  return { read, left };
}

/** The frame in the words of the vectors: what our value of it says. */
function fieldsOf(frame: Frame): Partial<Fields> {
  switch (frame.type) {
    case "ack":
      return { seq: frame.received, arg: frame.limit, held: frame.held.map(({ start, end }) => [start, end] as const) };
    case "ping":
      return { seq: frame.received, arg: frame.opaque, reply: frame.reply };
    case "closeConnection":
      return { seq: frame.received, arg: frame.code, code: frame.code, reason: frame.reason };
    case "ticketStored":
      return { seq: frame.received, arg: frame.generation };
    case "skipped":
    case "pin":
    case "carry":
    case "alone":
      return { seq: frame.received };
    case "data": {
      const { seq, stream, offset: arg, fin } = frame;
      return { seq, stream, arg, fin, payload: toHex(frame.payload) };
    }
    case "open": {
      const { seq, stream, credit: arg } = frame;
      return {
        seq,
        stream,
        arg,
        request: Buffer.from(frame.request).toString("latin1"),
        payload: toHex(frame.request),
      };
    }
    case "reset":
      return { seq: frame.seq, stream: frame.stream, arg: frame.code, code: frame.code };
    case "credit":
      return { seq: frame.seq, stream: frame.stream, arg: frame.limit };
    case "goaway":
      return { seq: frame.seq, arg: frame.lastStream, code: frame.code, reason: frame.reason };
    case "settings":
      return { seq: frame.seq };
    case "end":
      return { seq: frame.seq, arg: frame.code, code: frame.code };
    case "skippedInLog":
      return { seq: frame.seq };
  }
}

for (const vector of frames.valid) {
  test(`frames.json: ${vector.name}`, () => {
    const repeats = vector.payloadRepeats;
    const octets = hex(vector.hex + (repeats === undefined ? "" : repeats.hex.repeat(repeats.times)));
    for (const pieces of [[octets], singly(octets)]) {
      const { read } = readFrames(pieces);
      assert.equal(read.length, 1);
      const [frame] = read;
      assert.ok(frame !== undefined && frame.type !== "error");
      for (const [field, value] of Object.entries(fieldsOf(frame)))
        if (field !== "payload" || repeats === undefined)
          assert.deepEqual(value, Reflect.get(vector.frame, field), field);
      if (frame.type === "settings") assert.deepEqual(frame.entries, new Map(vector.frame.settings));
      if (vector.skipped !== undefined)
        assert.equal(frame.type, vector.skipped === "sequenced" ? "skippedInLog" : "skipped");
      if (vector.takes !== undefined) assert.equal("size" in frame && frame.size, vector.takes);
      if (vector.readAs !== undefined) assert.equal("code" in frame && codeName(frame.code), vector.readAs);
      const exact = vector.skipped === undefined && vector.note === undefined && frame.type !== "skipped";
      const oneEach = frame.type !== "settings" || frame.entries.size === vector.frame.settings?.length;
      if (exact && oneEach && !vector.name.includes("reserved u16")) {
        const again = "seq" in frame ? encodeSequenced(frame.seq, frame) : encodeUnsequenced(frame);
        assert.equal(toHex(again), toHex(octets));
      }
    }
  });
}

// We always advertise the largest payload limit there is: what others would find too long is not for us to run.
const invalid = frames.invalid.filter(({ payloadLimit = PAYLOAD_BYTES_MAX }) => payloadLimit === PAYLOAD_BYTES_MAX);

for (const vector of invalid) {
  test(`frames.json: ${vector.name}`, () => {
    const octets = hex(vector.hex);
    for (const pieces of [[octets], [octets.subarray(0, HEADER_BYTES)], singly(octets)]) {
      const { read } = readFrames(pieces);
      const [error] = read;
      assert.equal(error?.type === "error" && error.code, vector.error);
    }
    for (const pieces of [[octets], singly(octets)]) {
      const peer = new Peer({ retain: true }).greet();
      for (const piece of pieces) peer.raw(piece);
      const [closed] = peer.frames("closeConnection");
      assert.equal(closed?.code, Code[vector.error]);
      assert.equal(peer.session.ended !== undefined, vector.reach === "session");
      assert.equal(peer.frames("end").length, vector.reach === "session" ? 1 : 0);
    }
  });
}

for (const vector of frames.sequences) {
  test(`frames.json: ${vector.name}`, () => {
    const octets = hex(vector.hex);
    for (const pieces of [[octets], singly(octets)]) {
      const { read } = readFrames(pieces);
      const error = read.at(-1)?.type === "error" ? read.pop() : undefined;
      assert.equal(error?.type === "error" ? error.code : undefined, vector.error);
      assert.equal(read.length, vector.frames.length);
      const whole = vector.frames.reduce((sum, frame) => sum + (frame.octets ?? 0), 0);
      for (const [at, frame] of read.entries())
        if ("size" in frame) assert.equal(frame.size, vector.frames[at]?.octets);
      if (vector.left !== undefined) assert.equal(octets.length - whole, vector.left);
    }
  });
}

// ---- sessions ---------------------------------------------------------------------------------------------------------------------

for (const vector of session.exchanges) {
  test(`session.json: ${vector.name}`, () => {
    const logs = { client: new Log(true), server: new Log(true) };
    for (const step of vector.steps) {
      if (step.frame === true) {
        const [frame] = readFrames([hex(step.hex)]).read;
        assert.ok(frame !== undefined && frame.type !== "error");
        if ("seq" in frame) {
          assert.equal(frame.seq, logs[step.from].end);
          logs[step.from].append(hex(step.hex), undefined, 1);
        } else assert.ok(logs[step.from === "client" ? "server" : "client"].acknowledge(frame.received, () => {}));
      }
      for (const end of ["client", "server"] as const) {
        assert.equal(logs[end].end, step.logs[end].end);
        assert.equal(logs[end].acknowledged, step.logs[end].acknowledged);
      }
    }
    if (vector.loss === undefined) return;
    for (const end of ["client", "server"] as const) {
      logs[end].lost(vector.loss.connection);
      assert.deepEqual(
        resent(logs[end]).map(({ frame }) => toHex(frame)),
        vector.loss[end].again,
      );
    }
  });
}

function resent(log: Log): { seq: number; frame: Uint8Array }[] {
  const entries = [];
  for (let entry = log.resend(9); entry !== undefined; entry = log.resend(9)) entries.push(entry);
  return entries;
}

for (const vector of session.arrivals) {
  test(`session.json: arrival of ${vector.name}`, () => {
    const frame = (seq: number, size: number): SequencedFrame => ({ type: "skippedInLog", seq, size });
    const inbox = new Inbox();
    if (vector.received > 0) {
      assert.equal(inbox.place(frame(0, vector.received), vector.limit), "next");
      inbox.advance(vector.received);
    }
    for (const [seq, size] of vector.held) assert.equal(inbox.place(frame(seq, size), vector.limit), "early");
    const [seq, size] = vector.frame;
    const verdict = inbox.place(frame(seq, size), vector.limit);
    assert.equal(verdict, vector.verdict);
    if (verdict === "next") {
      for (let next = inbox.advance(size); next !== undefined; next = inbox.advance(next.frame.size));
    }
    if (vector.receivedAfter !== undefined) assert.equal(inbox.received, vector.receivedAfter);
  });
}

for (const vector of session.acks) {
  test(`session.json: an acknowledgement that ${vector.name}`, () => {
    const peer = new Peer().greet();
    const { sent } = peer.session.positions;
    peer.tell({ type: "ping", received: vector.ends === undefined ? sent : sent + 1, opaque: 0, reply: false });
    assert.equal(peer.session.ended?.code, vector.ends === undefined ? undefined : Code[vector.ends]);

    const log = new Log(true);
    for (const size of [vector.acknowledged, vector.end - vector.acknowledged])
      log.append(new Uint8Array(size), undefined, 1);
    assert.ok(log.acknowledge(vector.acknowledged, () => {}));
    assert.equal(
      log.acknowledge(vector.seq, () => {}),
      vector.ends === undefined,
    );
    if (vector.acknowledgedAfter !== undefined) assert.equal(log.acknowledged, vector.acknowledgedAfter);
  });
}

for (const vector of session.limits) {
  test(`session.json: log limit, ${vector.name}`, () => {
    const peer = new Peer().greet().say(open(1, Number.MAX_SAFE_INTEGER));
    for (const limit of [vector.limit, ...vector.heard]) peer.tell({ type: "ack", received: 0, limit, held: [] });
    sendAll(peer, 1);
    const { sent } = peer.session.positions;
    // What is left must be too small for the largest frame, and for a few control frames besides.
    assert.ok(sent <= vector.limitAfter && sent > vector.limitAfter - 80_000, `${sent}`);
  });
}

/** Sends as much as the session lets on a stream, which is acknowledged by nobody. */
function sendAll(peer: Peer, stream: number): void {
  for (let room = peer.session.sendable(stream, peer.now); room > 0; room = peer.session.sendable(stream, peer.now)) {
    peer.session.send(stream, new Uint8Array(room), peer.now);
    const before = peer.session.positions.sent;
    peer.drain();
    if (peer.session.positions.sent === before) return;
  }
}

for (const vector of session.replay) {
  test(`session.json: replay, ${vector.name}`, () => {
    const log = new Log(true);
    const start = vector.frames[0]?.[0] ?? vector.acknowledged;
    if (start > 0) log.append(new Uint8Array(start), undefined, 7);
    for (const [, size, connection] of vector.frames) log.append(new Uint8Array(size), undefined, connection);
    assert.ok(log.acknowledge(vector.acknowledged, () => {}));
    log.hold(vector.held.map(([from, to]): Range => ({ start: from, end: to })));
    log.lost(vector.lost);
    assert.deepEqual(
      resent(log).map(({ seq }) => seq),
      vector.again,
    );
  });
}

for (const vector of session.credit) {
  test(`session.json: credit, ${vector.name}`, () => {
    const opener = vector.direction === "opener";
    const peer = new Peer({ role: opener ? "client" : "server" }).connect();
    // A log limit that is no part of this.
    peer.tell({ type: "ack", received: 0, limit: Number.MAX_SAFE_INTEGER, held: [] });
    if (opener) assert.equal(peer.session.open(Buffer.from("echo"), peer.now), 1);
    else peer.say(SETTINGS, open(1, vector.open));
    if (opener && vector.events[0]?.[0] === "credit") peer.say(SETTINGS);
    peer.drain();
    for (const [what, value] of vector.events) {
      if (what === "credit") peer.say({ type: "credit", stream: 1, limit: value });
      else peer.say({ type: "settings", entries: new Map([[Setting.initialCredit, value]]) });
    }
    sendAll(peer, 1);
    assert.equal(peer.octetsOn(1), vector.limit);
  });
}

for (const vector of session.violations) {
  test(`session.json: ${vector.name}`, () => {
    const frame = (piece: string): Uint8Array[] => [hex(piece)];
    const octetwise = (piece: string): Uint8Array[] => singly(hex(piece));
    for (const cut of [frame, octetwise]) {
      const peer = new Peer({ role: vector.to }).connect();
      for (const piece of vector.frames.flatMap(cut)) peer.raw(piece);
      for (const { stream, seq, offset, octets } of vector.data ?? []) peer.sayAt(seq, data(stream, offset, octets));
      assert.equal(peer.session.ended?.code, Code[vector.ends]);
      assert.deepEqual(
        peer.frames("end").map(({ code }) => code),
        [Code[vector.ends]],
      );
      assert.deepEqual(
        peer.frames("closeConnection").map(({ code }) => code),
        [Code[vector.ends]],
      );
    }
  });
}

/** A peer whose stream 1 is in a state at the session, and the offset it has reached there. */
const states: Record<string, (forgotten: boolean) => { peer: Peer; at: number }[]> = {
  idle: () => [{ peer: new Peer().greet(), at: 0 }],
  open: () => [{ peer: opened(), at: 3 }],
  "half-closed (local)": () => [{ peer: finished(opened()), at: 3 }],
  "half-closed (remote)": () => [{ peer: opened().say(data(1, 3, "", true)), at: 3 }],
  closed: (forgotten) => {
    const both = finished(opened().say(data(1, 3, "", true)));
    if (forgotten) both.session.forget(1, both.now);
    both.drain();
    const passedOver = new Peer().greet().say(open(3));
    return [
      { peer: both, at: 3 },
      { peer: passedOver, at: 0 },
    ];
  },
  reset: (forgotten) => {
    const byUs = opened();
    byUs.session.reset(1, Code.CANCEL, byUs.now);
    const byPeer = opened().say({ type: "reset", stream: 1, code: Code.CANCEL });
    for (const peer of [byUs, byPeer]) {
      if (forgotten) peer.session.forget(1, peer.now);
      peer.drain();
    }
    return [
      { peer: byUs, at: 3 },
      { peer: byPeer, at: 3 },
    ];
  },
};

function opened(): Peer {
  return new Peer().greet().say(open(1), data(1, 0, "abc"));
}

function finished(peer: Peer): Peer {
  peer.session.finish(1, peer.now);
  return peer.drain();
}

for (const [state, row] of Object.entries(session.streams)) {
  if (typeof row === "string") continue;
  for (const [frame, outcome] of Object.entries(row)) {
    test(`session.json: M09 ${frame} on a stream that is ${state}`, () => {
      for (const forgotten of [false, true]) {
        const cases = states[state]?.(forgotten);
        assert.ok(cases !== undefined && cases.length > 0, "no such state");
        for (const { peer, at } of cases) {
          peer.forget();
          switch (frame) {
            case "OPEN":
              peer.say(open(1));
              break;
            case "DATA":
            case "DATA FIN":
              peer.say(data(1, at, "more", frame === "DATA FIN"));
              break;
            case "CREDIT":
              peer.say({ type: "credit", stream: 1, limit: 131_072 });
              break;
            case "RESET":
              peer.say({ type: "reset", stream: 1, code: Code.CANCEL });
              break;
            default:
              assert.fail(`no such frame: ${frame}`);
          }
          check(peer, frame, outcome);
        }
      }
    });
  }
}

function check(peer: Peer, frame: string, outcome: StreamOutcome): void {
  assert.equal(peer.session.ended?.code, outcome.ends === undefined ? undefined : Code[outcome.ends]);
  const resets = peer.frames("reset").map(({ code }) => code);
  assert.deepEqual(resets, outcome.resets === undefined ? [] : [Code[outcome.resets]]);
  const aside = ["ended", "disconnect", "gone"]; // checked above, or said of a stream that was forgotten
  const told = peer.outputs.map(({ type }) => type).filter((type) => !aside.includes(type));
  if (outcome.ends !== undefined || outcome.ignored === true) return assert.deepEqual(told, []);
  if (outcome.resets !== undefined) return assert.deepEqual(told, ["reset"]);
  const expected: Record<string, readonly string[]> = {
    OPEN: ["opened"],
    DATA: ["data"],
    "DATA FIN": outcome.becomes === "closed" ? ["data", "finished", "over"] : ["data", "finished"],
    CREDIT: [],
    RESET: ["reset"],
  };
  assert.deepEqual(told, expected[frame]);
}

test("the vectors of frames and sessions are there", () => {
  for (const list of [frames.valid, invalid, frames.sequences]) assert.ok(list.length > 0);
  for (const list of [session.exchanges, session.arrivals, session.acks, session.limits]) assert.ok(list.length > 0);
  for (const list of [session.replay, session.credit, session.violations]) assert.ok(list.length > 0);
  assert.ok(Object.keys(session.streams).length > 5);
});
