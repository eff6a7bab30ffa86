/**
 * A world of two sessions: client and server, each with an application and a pump of its own kind, and any number of simulated
 * connections between them. After every step it checks what must always hold.
 * @module
 */
import assert from "node:assert/strict";
import {
  type Output,
  type Recollection,
  recalledState,
  SESSION_LIMITS,
  Session,
  type SessionLimits,
  type SessionState,
} from "../../src/session/index.ts";
import { assertNever, Code, HEADER_BYTES } from "../../src/wire/index.ts";
import { Application, type Plan, type Port } from "./application.ts";
import { Clock } from "./clock.ts";
import { Direction, type LinkOptions, QUICK } from "./link.ts";
import type { Random } from "./seed.ts";

/** Ticks at one moment: more is a session that wants to be woken without end. */
const TICKS_AT_ONCE_MAX = 100;

/** A connection as both ends see it. */
export interface Link {
  readonly id: number;
  readonly up: Direction;
  readonly down: Direction;
  /** Neither end has noticed its loss. */
  alive: boolean;
}

/** How a connection is lost. */
export interface Loss {
  /** What is under way still arrives, as long as its receiver has not noticed. */
  readonly late?: boolean;
  /** After so long each end notices. */
  readonly clientMs?: number;
  readonly serverMs?: number;
}

/** Options of a {@link World}. */
export interface WorldOptions {
  readonly retain?: boolean;
  /** The client's application is in another process, which has what comes after so long, and survives {@link World.kill}. */
  readonly passOnMs?: number;
  readonly client?: Partial<SessionLimits>;
  readonly server?: Partial<SessionLimits>;
}

/** One end: a session and the pump that drives it. */
export class End implements Port {
  session: Session;
  /** Nothing is taken from the application. */
  frozen = false;
  readonly #limits: SessionLimits;
  readonly application: Application;
  readonly clock: Clock;
  /** What became of the session's outputs that are no bytes, in order. */
  readonly events: Exclude<Output, { type: "transmit" | "released" | "data" | "writable" | "gone" }>[] = [];
  /** Octets that lie at the session or in a connection's buffer without bound, if any rule were missing. */
  mostLent = 0;
  readonly #random: Random;
  readonly #out = new Map<number, Direction>();
  readonly #readers = new Map<number, Reading>();
  readonly #lent = new Set<Uint8Array>();
  #lentBytes = 0;
  #wakeAt = Number.POSITIVE_INFINITY;
  #ticks = { at: -1, count: 0 };
  #busy = false;
  /** See {@link WorldOptions.passOnMs}. */
  readonly #passOnMs: number | undefined;
  /** Counts the processes: what one of them had not passed on goes with it. */
  #process = 0;
  /** Of streams that go on, octets that come again and are known. */
  #known = new Map<number, { known: number; isEndKnown: boolean }>();

  constructor(role: "client" | "server", clock: Clock, random: Random, options: WorldOptions) {
    const limits = { ...SESSION_LIMITS, ...options[role] };
    this.#limits = limits;
    this.session = new Session({ role, retain: options.retain ?? true, limits }, clock.now);
    this.clock = clock;
    this.#random = random;
    this.#passOnMs = role === "client" ? options.passOnMs : undefined;
    this.application = new Application(this);
  }

  /** The process was killed: what comes, and what is in it, goes nowhere. */
  kill(): void {
    this.#process++;
    this.#out.clear();
    this.#readers.clear();
  }

  /** Another one takes the session up. */
  recall(told: Recollection, counts: { readonly received: number; readonly base: number }): void {
    const state = recalledState(told, counts);
    this.#lent.clear(); // what was lent has gone with the process
    this.#lentBytes = 0;
    this.session = new Session({ role: "client", retain: true, limits: this.#limits, state }, this.clock.now);
    this.#wakeAt = Number.POSITIVE_INFINITY;
    for (const { id } of state.streams) this.session.keep(id);
    this.#known = this.application.recalled(told);
    for (const { id } of state.streams) {
      if (this.#known.has(id)) continue;
      this.session.reset(id, Code.CANCEL, this.clock.now); // nobody has it
      this.session.forget(id, this.clock.now);
    }
    this.application.openWaiting();
    for (const id of this.application.conversations.keys()) this.application.writable(id);
    this.work();
  }

  /** Tells the application, once this process has passed it on. */
  #tell(stream: number, octets: number, act: () => void): void {
    if (this.#passOnMs === undefined) return act();
    const process = this.#process;
    this.clock.after(this.#passOnMs, () => {
      if (process !== this.#process) return;
      act();
      if (octets === 0) return;
      this.session.passedOn(stream, octets, this.clock.now);
      this.work();
    });
  }

  #tellData(stream: number, bytes: Uint8Array): void {
    if (this.#passOnMs === undefined) return this.application.data(stream, bytes);
    const known = this.#known.get(stream);
    const over = Math.min(known?.known ?? 0, bytes.length);
    if (known !== undefined) known.known -= over;
    const copy = new Uint8Array(bytes);
    this.#tell(stream, bytes.length, () => {
      if (over > 0) this.consume(stream, over);
      if (over < copy.length) this.application.data(stream, copy.subarray(over));
    });
  }

  #tellEnd(stream: number): void {
    const isKnown = this.#known.get(stream)?.isEndKnown === true;
    this.#tell(stream, 1, () => {
      if (!isKnown) this.application.end(stream);
    });
  }

  /** Another process goes on with the session from what is on paper; what has no place there must not be missed. */
  restart(state: SessionState): void {
    const onPaper: SessionState = structuredClone(state);
    this.session = new Session({ role: "client", retain: true, limits: this.#limits, state: onPaper }, this.clock.now);
    this.#wakeAt = Number.POSITIVE_INFINITY;
    this.frozen = false;
    for (const id of this.application.conversations.keys()) this.application.writable(id);
    this.work();
  }

  // ---- the world

  attached(id: number, out: Direction, queueBytes: number, peer: Session): void {
    this.#out.set(id, out);
    this.#readers.set(id, new Reading(this.#random));
    const { received } = peer.positions;
    this.session.handle({ type: "attached", connection: id, received, limit: peer.offer() }, this.clock.now);
    this.session.handle({ type: "room", connection: id, bytes: queueBytes }, this.clock.now);
    this.work();
  }

  connected(id: number, out: Direction, queueBytes: number): void {
    this.#out.set(id, out);
    this.#readers.set(id, new Reading(this.#random));
    this.session.handle({ type: "connected", connection: id }, this.clock.now);
    this.session.handle({ type: "room", connection: id, bytes: queueBytes }, this.clock.now);
    this.work();
  }

  room(id: number, bytes: number): void {
    if (!this.#out.has(id)) return;
    this.session.handle({ type: "room", connection: id, bytes }, this.clock.now);
    this.work();
  }

  arrived(id: number, segment: Uint8Array): void {
    const reading = this.#readers.get(id);
    if (reading === undefined) return; // fenced: an end that has closed a connection does not read it
    reading.give(segment, this.session, id, this.clock.now, () => this.work());
  }

  lost(id: number): void {
    if (!this.#out.delete(id)) return;
    this.#readers.delete(id);
    this.session.handle({ type: "lost", connection: id }, this.clock.now);
    this.work();
  }

  /** True while the session counts on this connection. */
  has(id: number): boolean {
    return this.#out.has(id);
  }

  /** Takes what the session wants, and sees to it that it is woken. */
  work(): void {
    if (this.#busy) return; // from within an output: the loop below goes on
    this.#busy = true;
    for (let output = this.session.poll(); output !== undefined; output = this.session.poll()) this.#perform(output);
    this.#busy = false;
    const at = this.session.deadline;
    if (at >= this.#wakeAt || at === Number.POSITIVE_INFINITY) return;
    this.#wakeAt = at;
    this.clock.at(at, () => this.#wake(at));
  }

  #wake(at: number): void {
    if (at !== this.#wakeAt) return; // something else woke it
    this.#wakeAt = Number.POSITIVE_INFINITY;
    if (this.#ticks.at !== this.clock.now) this.#ticks = { at: this.clock.now, count: 0 };
    assert.ok(++this.#ticks.count < TICKS_AT_ONCE_MAX, "the session wants to be woken without end");
    this.session.handle({ type: "tick" }, this.clock.now);
    this.work();
  }

  #perform(output: Output): void {
    switch (output.type) {
      case "transmit": {
        const out = this.#out.get(output.connection);
        assert.ok(out !== undefined || this.session.ended !== undefined, "spoken on a connection that is gone");
        return out?.send(output.bytes);
      }
      case "released":
        assert.ok(this.#lent.delete(output.memory), "released twice, or never lent");
        this.#lentBytes -= output.memory.length;
        output.memory.fill(0xee); // whoever still points here will be found out
        return;
      case "data":
        return this.#tellData(output.stream, output.bytes);
      case "opened":
        this.events.push(output);
        return this.application.opened(output.stream, output.request);
      case "finished":
        this.events.push(output);
        return this.#tellEnd(output.stream);
      case "over":
        this.events.push(output);
        return this.#tell(output.stream, 0, () => this.application.over(output.stream));
      case "reset":
        this.events.push(output);
        return this.#tell(output.stream, 0, () => this.application.reset(output.stream, output.code));
      case "writable":
        return this.application.writable(output.stream);
      case "confirmed":
        return;
      case "disconnect":
        this.events.push(output);
        this.#out.get(output.connection)?.close();
        return this.#leave(output.connection);
      case "ready":
        this.events.push(output);
        return this.application.openWaiting();
      case "gone":
        assert.ok(!this.application.conversations.has(output.stream), "gone before it was forgotten");
        return;
      case "goingAway":
      case "ticketStored":
        this.events.push(output);
        return;
      case "ended":
        this.events.push(output);
        for (const id of [...this.#out.keys()]) {
          this.#out.get(id)?.close();
          this.#leave(id);
        }
        return;
      default:
        assertNever(output);
    }
  }

  /** The pump closes a connection behind what was sent, and reads it no more. */
  #leave(id: number): void {
    if (!this.#out.delete(id)) return;
    this.#readers.delete(id);
    this.session.handle({ type: "lost", connection: id }, this.clock.now);
  }

  /** Memory lent to the session and not given back. */
  get lentBytes(): number {
    return this.#lentBytes;
  }

  // ---- for the application

  get payloadBytesMax(): number {
    return this.session.payloadBytesMax;
  }

  open(request: Uint8Array): number | undefined {
    const id = this.session.open(request, this.clock.now);
    if (id !== undefined && this.#passOnMs !== undefined) this.session.keep(id);
    this.work();
    return id;
  }

  sendable(stream: number): number {
    return this.frozen ? 0 : this.session.sendable(stream, this.clock.now);
  }

  send(stream: number, payload: Uint8Array): void {
    this.session.send(stream, payload, this.clock.now);
    payload.fill(0xee); // it was copied, or else this shows
    this.work();
  }

  lend(stream: number, payload: Uint8Array): void {
    const frame = new Uint8Array(HEADER_BYTES + payload.length);
    frame.set(payload, HEADER_BYTES);
    this.#lent.add(frame);
    this.#lentBytes += frame.length;
    this.mostLent = Math.max(this.mostLent, this.#lentBytes);
    this.session.lend(stream, frame, this.clock.now);
    this.work();
  }

  finish(stream: number, whole: boolean): void {
    this.session.finish(stream, this.clock.now, whole);
    this.work();
  }

  reset(stream: number, code: number): void {
    this.session.reset(stream, code, this.clock.now);
    this.work();
  }

  consume(stream: number, bytes: number): void {
    this.session.consume(stream, bytes, this.clock.now);
    this.work();
  }

  forget(stream: number): void {
    this.session.forget(stream, this.clock.now);
    this.work();
  }
}

/** How a pump reads a connection: into memory it uses again, into slabs one after the other, or into memory of each segment's own. */
class Reading {
  readonly #manner: "scratch" | "slab" | "own";
  #slab = new Uint8Array(0);
  #at = 0;

  constructor(random: Random) {
    this.#manner = random.pick(["scratch", "slab", "own"]);
  }

  /** Hands a segment to the session, as pumps do; `work` takes what the session then wants. */
  give(segment: Uint8Array, session: Session, connection: number, now: number, work: () => void): void {
    const say = (bytes: Uint8Array, kept: boolean): void =>
      session.handle({ type: "received", connection, bytes, kept }, now);
    switch (this.#manner) {
      case "scratch": {
        const scratch = Buffer.from(segment);
        say(scratch, false);
        work();
        scratch.fill(0xee);
        return;
      }
      case "own":
        say(new Uint8Array(segment), true);
        return work();
      case "slab":
        if (this.#at + segment.length > this.#slab.length) this.#next(session, connection, segment.length);
        this.#slab.set(segment, this.#at);
        say(this.#slab.subarray(this.#at, this.#at + segment.length), true);
        this.#at += segment.length;
        return work();
      default:
        assertNever(this.#manner);
    }
  }

  /** A frame that has only begun is taken along into the next slab. */
  #next(session: Session, connection: number, segment: number): void {
    const begun = session.incomplete(connection);
    const slab = new Uint8Array(begun + Math.max(segment, 100_000));
    slab.set(this.#slab.subarray(this.#at - begun, this.#at));
    session.moved(connection, slab.subarray(0, begun));
    this.#slab.fill(0xee);
    this.#slab = slab;
    this.#at = begun;
  }
}

/** Two sessions and what is between them. */
export class World {
  readonly clock = new Clock();
  readonly client: End;
  readonly server: End;
  readonly links: Link[] = [];
  readonly #random: Random;

  constructor(random: Random, options: WorldOptions = {}) {
    this.#random = random;
    this.client = new End("client", this.clock, random, options);
    this.server = new End("server", this.clock, random, options);
  }

  /** A connection comes up: at the client now, at the server a latency later. */
  connect(options: Partial<LinkOptions> = {}): Link {
    const link = { ...QUICK, ...options };
    const id = this.links.length + 1;
    const { client, server } = this;
    const direction = (from: End, to: End): Direction =>
      new Direction(this.clock, this.#random, link, {
        room: (bytes) => from.room(id, bytes),
        arrived: (segment) => to.arrived(id, segment),
        closed: () => to.lost(id),
      });
    const made: Link = { id, up: direction(client, server), down: direction(server, client), alive: true };
    this.links.push(made);
    // The server has it first: the client's ATTACH is answered before either end sends frames.
    server.connected(id, made.down, link.queueBytes);
    if (client.session.connections === 0 && this.links.length > 1)
      client.attached(id, made.up, link.queueBytes, server.session);
    else client.connected(id, made.up, link.queueBytes);
    return made;
  }

  /** A connection is lost; each end notices when its time comes. */
  cut(link: Link, loss: Loss = {}): void {
    const { late = false, clientMs = 0, serverMs = 0 } = loss;
    link.alive = false;
    link.up.sever(late);
    link.down.sever(late);
    for (const [end, ms] of [
      [this.client, clientMs],
      [this.server, serverMs],
    ] as const) {
      if (ms === 0) end.lost(link.id);
      else if (ms < Number.POSITIVE_INFINITY) this.clock.after(ms, () => end.lost(link.id));
    }
  }

  /** The client's process writes the session down, as soon as it can be, and leaves; another goes on with it. */
  handOver(loss: Loss = {}): void {
    const { client } = this;
    client.frozen = true;
    this.clock.run(this.clock.now + 60_000, () => client.session.state !== undefined);
    for (const link of this.links) if (link.alive) this.cut(link, loss);
    const { state } = client.session;
    assert.ok(state !== undefined, "it does not come to rest");
    client.restart(state);
  }

  /** The client's process is killed; the server notices after a while, and by then another goes on. */
  kill(serverMs: number): void {
    for (const link of this.links) if (link.alive) this.cut(link, { clientMs: 0, serverMs });
    this.client.kill();
  }

  /** Another process goes on with the session, of which it has nothing but the ticket. */
  recall(): void {
    const { server, client } = this;
    const told: Recollection = structuredClone(server.session.recall(this.clock.now));
    server.work();
    const { received, acknowledged } = server.session.positions;
    client.recall(told, { received, base: acknowledged });
  }

  /** Cuts a connection behind so many octets of one direction. */
  cutAfter(link: Link, direction: "up" | "down", octets: number, loss: Loss = {}): void {
    link[direction].cutAfter = octets;
    link[direction].onCut = () => {
      if (link.alive) this.cut(link, loss);
    };
  }

  /** Opens streams at the client, and at the server. */
  open(...plans: Plan[]): void {
    for (const plan of plans) this.client.application.open(plan);
  }

  /** Everything planned has come to its end, everything said is acknowledged, and nobody's memory is still lent. */
  get settled(): boolean {
    const ends = [this.client, this.server];
    return ends.every(({ application, session, lentBytes }) => {
      const { sent, acknowledged } = session.positions;
      const idle = application.conversations.size === 0 && application.waiting === 0;
      return idle && session.streams === 0 && sent === acknowledged && lentBytes === 0;
    });
  }

  /** Lets time pass until all is settled; fails when it is not by then. */
  settle(withinMs = 60_000): void {
    this.clock.run(this.clock.now + withinMs, () => this.settled);
    this.check();
    if (this.settled) return;
    const state = [this.client, this.server].map(({ session, application, lentBytes }) => ({
      positions: session.positions,
      ended: session.ended,
      lentBytes,
      waiting: application.waiting,
      conversations: [...application.conversations.values()].slice(0, 5),
    }));
    assert.fail(`not settled after ${withinMs} ms: ${JSON.stringify(state)}`);
  }

  /** Lets time pass. */
  run(ms: number): void {
    this.clock.run(this.clock.now + ms);
    this.check();
  }

  /** What must hold at any time between two honest ends. */
  check(): void {
    const up = [this.client.session.positions, this.server.session.positions] as const;
    const down = [this.server.session.positions, this.client.session.positions] as const;
    for (const [sender, receiver] of [up, down]) {
      assert.ok(sender.acknowledged <= receiver.received, "acknowledged more than was received");
      assert.ok(receiver.received <= sender.sent, "received more than was sent");
    }
    for (const { session } of [this.client, this.server])
      assert.ok(session.ended === undefined || session.ended.code === 0, `ended: ${JSON.stringify(session.ended)}`);
  }
}
