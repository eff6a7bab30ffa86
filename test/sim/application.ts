/**
 * An application for both ends of a simulated session: it opens streams with a plan in their request line, sends octets that tell where
 * they belong, reads as quickly or slowly as the plan says, half-closes, resets, and checks every octet it is given.
 * @module
 */
import assert from "node:assert/strict";
import type { Recollection } from "../../src/session/index.ts";
import { Code } from "../../src/wire/index.ts";
import type { Clock } from "./clock.ts";
import type { Random } from "./seed.ts";

/** What is to happen on one stream; it travels as the request line. */
export interface Plan {
  /** Octets from the opener to the acceptor, and back. */
  readonly up: number;
  readonly down: number;
  /** How the octets of each direction differ from all others. */
  readonly salt: number;
  /** Octets of one write. */
  readonly write: number;
  /** Lend memory instead of having it copied. */
  readonly lend: boolean;
  /** Milliseconds before octets that arrived are taken. */
  readonly readDelayMs: number;
  /** Milliseconds between writes. */
  readonly writeDelayMs: number;
  /** The acceptor has said all it wants and reads no more: a process that has exited. */
  readonly exits?: true;
  /** One end resets after it has received so much. */
  readonly reset?: { readonly by: "opener" | "acceptor"; readonly after: number };
}

/** A plan in which nothing is special. */
export const PLAIN: Plan = { up: 0, down: 0, salt: 1, write: 16_384, lend: true, readDelayMs: 0, writeDelayMs: 0 };

/** One of many sorts: short and long, quick and slow, and some that are reset. */
export function planned(random: Random): Plan {
  const by = random.pick(["opener", "acceptor"] as const);
  return {
    ...PLAIN,
    up: random.pick([0, 100, 50_000, 400_000]),
    down: random.pick([0, 100, 50_000, 400_000]),
    salt: random.between(1, 20),
    write: random.pick([100, 300, 16_384]) + random.between(0, 100),
    lend: random.chance(0.5),
    writeDelayMs: random.pick([0, 0, 2]),
    readDelayMs: random.pick([0, 0, 3]),
    ...(random.chance(0.2) ? { reset: { by, after: random.between(0, 60) } } : {}),
  };
}

/** What an application may ask of its end. */
export interface Port {
  readonly clock: Clock;
  open(request: Uint8Array): number | undefined;
  sendable(stream: number): number;
  send(stream: number, payload: Uint8Array): void;
  /** The session owns the memory until {@link Port} takes it back. */
  lend(stream: number, payload: Uint8Array): void;
  readonly payloadBytesMax: number;
  finish(stream: number, whole: boolean): void;
  reset(stream: number, code: number): void;
  consume(stream: number, bytes: number): void;
  forget(stream: number): void;
}

interface Conversation {
  readonly id: number;
  readonly plan: Plan;
  readonly opener: boolean;
  sent: number;
  received: number;
  /** A pause between two writes is running. */
  pausing: boolean;
  ended: "no" | "finished" | "reset";
  /** The session has told of its end: it does so once. */
  told: boolean;
  finishedByPeer: boolean;
  writeDone: boolean;
}

/** A prime, so that no frame size divides it: octets that moved by whole frames are found out. */
const PATTERN_BYTES = 65_537;

const patterns = new Map<number, Uint8Array>();

/** The octets of a direction, which differ from those of all others, repeated and long enough for one piece from any place. */
function patternOf(salt: number, up: boolean): Uint8Array {
  const key = 2 * salt + (up ? 1 : 0);
  const known = patterns.get(key);
  if (known !== undefined) return known;
  const pattern = new Uint8Array(2 * PATTERN_BYTES);
  for (let at = 0; at < PATTERN_BYTES; at++)
    pattern[at] = (Math.imul(at + 1, 0x9e3779b1) ^ Math.imul(key + 1, 0x85ebca6b)) >>> 24;
  pattern.copyWithin(PATTERN_BYTES, 0, PATTERN_BYTES);
  if (patterns.size > 100) patterns.clear();
  patterns.set(key, pattern);
  return pattern;
}

/** A piece of a direction, of at most 65,537 octets. */
function piece(salt: number, up: boolean, offset: number, length: number): Uint8Array {
  assert.ok(length <= PATTERN_BYTES);
  const at = offset % PATTERN_BYTES;
  return patternOf(salt, up).subarray(at, at + length);
}

/** The application at one end. */
export class Application {
  readonly conversations = new Map<number, Conversation>();
  /** Conversations that came to their planned end, and those that were reset. */
  finished = 0;
  wasReset = 0;
  /** Octets received on all streams. */
  received = 0;
  /** Called with each piece that arrives, before it is taken. */
  onOctets: (stream: number, octets: number) => void = () => {};
  /** Called with each write, before the session has it. */
  onWrite: (stream: number, octets: number) => void = () => {};
  readonly #port: Port;
  readonly #waiting: Plan[] = [];

  constructor(port: Port) {
    this.#port = port;
  }

  /** Opens a stream for a plan, now or when the session lets it. */
  open(plan: Plan): void {
    this.#waiting.push(plan);
    this.openWaiting();
  }

  /** Plans that could not be opened yet. */
  get waiting(): number {
    return this.#waiting.length;
  }

  /** Opens what waits. */
  openWaiting(): void {
    for (let plan = this.#waiting[0]; plan !== undefined; plan = this.#waiting[0]) {
      const id = this.#port.open(Buffer.from(JSON.stringify(plan)));
      if (id === undefined) return;
      this.#waiting.shift();
      this.#begin(id, plan, true);
    }
  }

  opened(id: number, request: Uint8Array): void {
    const plan: Plan = JSON.parse(Buffer.from(request).toString());
    assert.ok(!this.conversations.has(id), `stream ${id} opened twice`);
    this.#begin(id, plan, false);
  }

  #begin(id: number, plan: Plan, opener: boolean): void {
    const conversation: Conversation = {
      id,
      plan,
      opener,
      sent: 0,
      received: 0,
      pausing: false,
      ended: "no",
      told: false,
      finishedByPeer: false,
      writeDone: false,
    };
    this.conversations.set(id, conversation);
    this.#write(conversation);
  }

  /**
   * The process of the session was killed, and another has taken it up: of each stream it knows what the peer remembers, and the rest is known here.
   * @returns for each stream that goes on, how many of the octets that come again had come, and whether its end had
   */
  recalled({
    streams,
    nextStream,
  }: Recollection): Map<number, { readonly known: number; readonly isEndKnown: boolean }> {
    const told = new Map(streams.map((stream) => [stream.id, stream]));
    const known = new Map<number, { readonly known: number; readonly isEndKnown: boolean }>();
    for (const conversation of [...this.conversations.values()]) {
      const { id, plan } = conversation;
      const stream = told.get(id);
      if (conversation.ended !== "no" || stream === undefined) {
        this.conversations.delete(id);
        if (conversation.ended !== "no") continue; // it was only to be forgotten
        conversation.ended = "reset"; // what is still planned for it is of no use
        if (id >= nextStream) {
          assert.equal(conversation.received, 0);
          this.#waiting.push(plan);
        } else if (conversation.finishedByPeer) this.finished++;
        else {
          assert.ok(plan.reset !== undefined, `stream ${id} is gone, and nobody has planned that`);
          this.wasReset++;
        }
        continue;
      }
      assert.ok(stream.received <= conversation.received, `stream ${id}: octets are lost`);
      if (stream.finished) assert.ok(conversation.finishedByPeer, `stream ${id}: its end is lost`);
      assert.ok(stream.ended || stream.sent <= conversation.sent, `stream ${id}: octets that were never said`);
      if (!stream.ended) conversation.sent = stream.sent;
      conversation.writeDone = stream.ended;
      if (stream.ended) conversation.sent = plan.up;
      conversation.pausing = false;
      known.set(id, { known: conversation.received - stream.received, isEndKnown: conversation.finishedByPeer });
    }
    return known;
  }

  data(id: number, octets: Uint8Array): void {
    const conversation = this.conversations.get(id);
    if (conversation === undefined || conversation.ended !== "no") return;
    const { plan } = conversation;
    const up = !conversation.opener;
    const total = up ? plan.up : plan.down;
    assert.ok(conversation.received + octets.length <= total, `stream ${id}: octets beyond the end`);
    const expected = piece(plan.salt, up, conversation.received, octets.length);
    if (Buffer.compare(octets, expected) !== 0)
      assert.fail(`stream ${id}: wrong octets behind ${conversation.received}`);
    conversation.received += octets.length;
    this.received += octets.length;
    this.onOctets(id, octets.length);
    const { length } = octets;
    if (plan.readDelayMs === 0) this.#port.consume(id, length);
    else this.#port.clock.after(plan.readDelayMs, () => this.#port.consume(id, length));
    const { reset } = plan;
    if (reset !== undefined && (reset.by === "opener") === conversation.opener && conversation.received >= reset.after)
      this.#reset(conversation);
  }

  #reset(conversation: Conversation): void {
    if (conversation.ended !== "no") return;
    conversation.ended = "reset";
    this.#port.reset(conversation.id, Code.CANCEL);
    this.#over(conversation);
  }

  end(id: number): void {
    const conversation = this.conversations.get(id);
    if (conversation === undefined || conversation.ended !== "no") return;
    assert.ok(!conversation.finishedByPeer, `stream ${id} finished twice`);
    conversation.finishedByPeer = true;
    assert.equal(conversation.received, conversation.opener ? conversation.plan.down : conversation.plan.up);
  }

  over(id: number): void {
    const conversation = this.conversations.get(id);
    if (conversation === undefined) return;
    this.#told(conversation);
    if (conversation.ended !== "no") return; // by ourselves, while this was being told
    assert.ok(conversation.finishedByPeer && conversation.writeDone);
    conversation.ended = "finished";
    this.#over(conversation);
  }

  reset(id: number, code: number): void {
    const conversation = this.conversations.get(id);
    if (conversation === undefined) return;
    this.#told(conversation);
    if (conversation.ended !== "no") return;
    if (code === Code.NO_ERROR && conversation.plan.exits === true) {
      assert.ok(conversation.finishedByPeer);
      conversation.ended = "finished";
      return this.#over(conversation);
    }
    if (code === Code.REFUSED && conversation.opener) {
      assert.equal(conversation.received, 0);
      this.#waiting.push(conversation.plan); // asking again is safe
    } else
      assert.ok(conversation.plan.reset !== undefined, `stream ${id} was reset with ${code}, which nobody planned`);
    conversation.ended = "reset";
    this.#over(conversation);
  }

  #told(conversation: Conversation): void {
    assert.ok(!conversation.told, `stream ${conversation.id}: its end was told twice`);
    conversation.told = true;
  }

  /** What is behind the stream takes a moment to go. */
  #over(conversation: Conversation): void {
    if (conversation.ended === "finished") this.finished++;
    else this.wasReset++;
    this.#port.clock.after(1, () => {
      this.conversations.delete(conversation.id);
      this.#port.forget(conversation.id);
      this.openWaiting();
    });
  }

  writable(id: number): void {
    const conversation = this.conversations.get(id);
    if (conversation !== undefined) this.#write(conversation);
  }

  #write(conversation: Conversation): void {
    const { id, plan, opener } = conversation;
    const total = opener ? plan.up : plan.down;
    while (!conversation.pausing && conversation.ended === "no" && conversation.sent < total) {
      const room = Math.min(this.#port.sendable(id), this.#port.payloadBytesMax);
      if (room === 0) return;
      const length = Math.min(room, plan.write, total - conversation.sent);
      const payload = new Uint8Array(piece(plan.salt, opener, conversation.sent, length));
      conversation.sent += length;
      this.onWrite(id, length);
      if (plan.lend) this.#port.lend(id, payload);
      else this.#port.send(id, payload);
      if (plan.writeDelayMs === 0 || conversation.sent === total) continue;
      conversation.pausing = true;
      this.#port.clock.after(plan.writeDelayMs, () => {
        conversation.pausing = false;
        this.#write(conversation);
      });
    }
    if (conversation.sent < total || conversation.writeDone || conversation.ended !== "no") return;
    conversation.writeDone = true;
    const exits = !opener && plan.exits === true;
    if (exits) conversation.ended = "finished"; // the process is gone; what it has said is still to be said
    this.#port.finish(id, exits);
    if (exits) this.#over(conversation);
  }
}
