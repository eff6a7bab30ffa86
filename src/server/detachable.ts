/**
 * Sessions that outlive their connections (PROTOCOL §4.7, §4.8): who may attach to which, how many there may be, and how long one without a
 * connection is kept. Of a ticket's secret only what checks a proof is kept, and of the next one the secret until the client has it.
 * @module
 */
import { randomBytes } from "node:crypto";
import {
  type AttachRequest,
  type DetachableGrant,
  isProved,
  SECRET_BYTES,
  SID_BYTES,
  storedForm,
} from "../identity/index.ts";
import { Bucket } from "../session/index.ts";
import type { SessionSettings } from "./schema.ts";
import type { ServerSession } from "./server-session.ts";

/** What an administrator allows. */
export type DetachSettings = SessionSettings["detach"];

/** Sessions that are over and of which that is still told to who holds their ticket. */
const OVER_MAX = 1_000;

interface Generation {
  readonly generation: number;
  /** See {@link storedForm}. */
  readonly stored: Uint8Array;
}

/** One session that can be attached to, from DETACHABLE on. */
export class Detachable {
  readonly sid = randomBytes(SID_BYTES);
  /** Whose it was when it was granted; undefined for nobody. */
  readonly user: string | undefined;
  readonly ttlMs: number;
  /** Undefined until MULTIPLEX, and when it is over. */
  session: ServerSession | undefined;
  isOver = false;
  readonly #attaches: Bucket;
  #current: Generation;
  /** The next ticket, until the client has said that it is stored. */
  #next: (Generation & { readonly secret: Uint8Array }) | undefined;
  #end: NodeJS.Timeout | undefined;

  /**
   * @param attaches that are allowed a minute, half of them at once (abuse case D11)
   * @param secret of generation 0
   */
  constructor(user: string | undefined, ttlMs: number, attaches: number, secret: Uint8Array) {
    this.user = user;
    this.ttlMs = ttlMs;
    this.#attaches = new Bucket({ capacity: Math.ceil(attaches / 2), perSecond: attaches / 60 }, performance.now());
    this.#current = { generation: 0, stored: storedForm({ sid: this.sid, generation: 0, secret }) };
  }

  /** What checks a proof of this generation; undefined when it is not valid, or not any more. */
  stored(generation: number): Uint8Array | undefined {
    if (generation === this.#current.generation) return this.#current.stored;
    return generation === this.#next?.generation ? this.#next.stored : undefined;
  }

  /** It was valid once: somebody has kept what he should not have, or was robbed of it. */
  isSpent(generation: number): boolean {
    return generation < this.#current.generation;
  }

  /** One more attach; false when there were too many of late. */
  mayAttach(now: number): boolean {
    return this.#attaches.take(1, now);
  }

  /** The client has the ticket of this generation: the one before is void. */
  confirmed(generation: number): void {
    if (this.#next === undefined || generation !== this.#next.generation) return;
    const { stored } = this.#next;
    this.#current = { generation, stored };
    this.#next = undefined;
  }

  /** The next ticket: the same one until it is confirmed, else an answer that was lost would leave a client without (abuse case D12). */
  next(): { readonly generation: number; readonly secret: Uint8Array } {
    if (this.#next === undefined) {
      const generation = this.#current.generation + 1;
      const secret = randomBytes(SECRET_BYTES);
      this.#next = { generation, secret, stored: storedForm({ sid: this.sid, generation, secret }) };
    }
    return this.#next;
  }

  /** It has no connection: `end` is called when it has had none for its time. Timers are monotonic (abuse case D21). */
  park(end: () => void): void {
    this.unpark();
    this.#end = setTimeout(end, this.ttlMs).unref();
  }

  /** It has one again, or is over. */
  unpark(): void {
    clearTimeout(this.#end);
    this.#end = undefined;
  }
}

/** All of a server's. */
export class DetachableSessions {
  settings: DetachSettings;
  readonly #all = new Map<string, Detachable>();
  readonly #ofUser = new Map<string | undefined, number>();
  readonly #over = new Map<string, Detachable>();
  /** Those without a connection, the longest first. */
  readonly #parked = new Set<Detachable>();
  /** Work is the same for a session that is not there as for one that is (abuse case D07). */
  readonly #dummy = randomBytes(SECRET_BYTES);

  constructor(settings: DetachSettings) {
    this.settings = settings;
  }

  /** Those without a connection. */
  get parked(): number {
    return this.#parked.size;
  }

  /** A ticket for a session of this user; undefined when he, or all together, have as many as they may. */
  grant(
    user: string | undefined,
    ttlSeconds: number | undefined,
  ): { readonly detachable: Detachable; readonly granted: DetachableGrant } | undefined {
    const { keepMs, queueBytes, attaches, perIdentity, anonymous, total } = this.settings;
    const most = user === undefined ? anonymous : perIdentity;
    if (this.#count(user) >= most) this.#makeRoomFor(user);
    const before = this.#count(user);
    if (before >= most || this.#all.size >= total) return undefined;
    const ttlMs = Math.min(keepMs, (ttlSeconds ?? Number.POSITIVE_INFINITY) * 1_000);
    const secret = randomBytes(SECRET_BYTES);
    const detachable = new Detachable(user, ttlMs, attaches, secret);
    this.#all.set(key(detachable.sid), detachable);
    this.#ofUser.set(user, before + 1);
    const { sid } = detachable;
    return { detachable, granted: { sid, generation: 0, secret, ttlSeconds: Math.floor(ttlMs / 1_000), queueBytes } };
  }

  #count(user: string | undefined): number {
    return this.#ofUser.get(user) ?? 0;
  }

  /**
   * Of somebody's own sessions the one that has been without a connection longest makes room for a new one: most likely nobody is left who could attach to
   * it, as when a session manager was killed. Nobody's sessions are no one's own.
   */
  #makeRoomFor(user: string | undefined): void {
    if (user === undefined) return;
    for (const detachable of this.#parked) {
      if (detachable.user !== user) continue;
      detachable.session?.endDetached("a newer session has taken its place");
      return;
    }
  }

  /** The session for which that is proved, also one that is over; undefined for everything else, in the same time. */
  proved(request: AttachRequest, binding: Uint8Array): Detachable | undefined {
    const found = this.find(request.sid);
    const stored = found?.stored(request.generation);
    const isGood = isProved(request, stored ?? this.#dummy, binding);
    return isGood && stored !== undefined ? found : undefined;
  }

  /** By its identifier, which proves nothing. */
  find(sid: Uint8Array): Detachable | undefined {
    const name = key(sid);
    return this.#all.get(name) ?? this.#over.get(name);
  }

  /** It has lost its last connection, and holds so many octets; `end` ends it when it is kept no longer. */
  park(detachable: Detachable, end: () => void): void {
    detachable.park(end);
    this.#parked.delete(detachable);
    this.#parked.add(detachable);
    this.#makeRoom();
  }

  /** It has a connection again. */
  unpark(detachable: Detachable): void {
    detachable.unpark();
    this.#parked.delete(detachable);
  }

  /** It is over, or never became one: the ticket is void. */
  over(detachable: Detachable): void {
    const name = key(detachable.sid);
    if (!this.#all.delete(name)) return;
    this.unpark(detachable);
    const left = this.#count(detachable.user) - 1;
    if (left > 0) this.#ofUser.set(detachable.user, left);
    else this.#ofUser.delete(detachable.user);
    detachable.session = undefined;
    detachable.isOver = true;
    this.#over.set(name, detachable);
    for (const oldest of this.#over.keys()) {
      if (this.#over.size <= OVER_MAX) break;
      this.#over.delete(oldest);
    }
  }

  /** What they hold together is bounded: nobody's go first, then those that have been without a connection longest (abuse case D19). */
  #makeRoom(): void {
    const { memoryBytes, queueBytes } = this.settings;
    if (this.#parked.size * queueBytes <= memoryBytes) return; // all of them may be full
    let held = 0;
    for (const { session } of this.#parked) held += session?.heldBytes ?? 0;
    const inTurn = [...this.#parked].sort((one, other) => rank(one) - rank(other)); // stable: the longest first
    for (const each of inTurn) {
      if (held <= memoryBytes) return;
      held -= each.session?.heldBytes ?? 0;
      each.session?.endDetached("there is no room for it any more");
    }
  }
}

function rank({ user }: Detachable): number {
  return user === undefined ? 0 : 1;
}

function key(sid: Uint8Array): string {
  return Buffer.from(sid.buffer, sid.byteOffset, sid.byteLength).toString("base64url");
}
