/**
 * A session at the server's end: each stream the peer opens is a conversation of its own, which shares who the caller is.
 * @module
 */
import type { Socket } from "node:net";
import { type Channel, type FrameBudget, SessionPump } from "../io/index.ts";
import type { Recollection, Session, SessionLimits } from "../session/index.ts";
import { Code } from "../wire/index.ts";
import { Conversation, type Deadlines, type Place, type Use } from "./conversation.ts";
import type { Log } from "./log.ts";
import type { Standing } from "./standing.ts";

/** What a session needs from the server. */
export interface SessionSetting
  extends Pick<Place, "standing" | "audit" | "registry" | "authentication" | "recognised" | "failed" | "detachable"> {
  readonly host: string | undefined;
  readonly log: Log;
  /** What it may cost, by whether it is known whose it is. */
  limits(known: boolean): SessionLimits;
  readonly deadlines: Deadlines;
  /** The services of the server that are in use. */
  readonly uses: Set<Use>;
  /** Small frames, shared with the server's other sessions. */
  readonly budget: FrameBudget;
  /** Back ends of one session that may be connecting at once (abuse case R04). */
  readonly pendingOpens: number;
  /** Keep the session's log, as sessions that may be detached do. */
  readonly retain: boolean;
  /** The session has no connection any more, and is not over. */
  detached(): void;
  /** The client has stored the ticket of this generation. */
  ticketStored(generation: number): void;
  /** The session is over. */
  ended(): void;
}

/** One session and its streams. */
export class ServerSession {
  readonly #setting: SessionSetting;
  readonly #pump: SessionPump;
  readonly #place: Place;
  /** Back ends that have been asked and have not answered. */
  #reaching = 0;
  /** Who waits for one of them to answer; bounded by the limit on streams. */
  readonly #waiting: (() => void)[] = [];
  #draining = false;

  constructor(setting: SessionSetting) {
    this.#setting = setting;
    const { standing } = setting;
    const { user, session } = standing.caller;
    this.#pump = new SessionPump(
      { role: "server", retain: setting.retain, limits: setting.limits(user !== undefined) },
      {
        opened: (channel, request) => this.#opened(channel, request),
        ready: () => {},
        goingAway: () => {},
        idle: () => this.#endIfIdle(),
        disconnected: (reason, connections) => {
          setting.log.debug({ session, reason }, "connection gone");
          if (connections === 0 && this.#pump.session.ended === undefined) setting.detached();
        },
        ticketStored: (generation) => setting.ticketStored(generation),
        ended: (code, reason) => {
          setting.log.debug({ session, code, reason }, "session ended");
          setting.ended();
        },
      },
      setting.budget,
    );
    this.#place = {
      ground: "stream",
      standing,
      log: setting.log,
      audit: setting.audit,
      host: setting.host,
      deadlines: setting.deadlines,
      firstLineBy: Number.POSITIVE_INFINITY, // it came with the OPEN
      uses: setting.uses,
      registry: setting.registry,
      authentication: setting.authentication,
      recognised: (identity) => {
        if (!setting.recognised(identity)) return false;
        this.#pump.raise(setting.limits(true));
        return true;
      },
      failed: setting.failed,
      detachable: setting.detachable,
      attach: () => ({ code: 503, text: "bad sequence of words" }), // the table of words lets no stream attach
      accepted: () => {},
      become: () => {}, // the table of words lets no stream become "tls" or "frames"
      reach: (go) => {
        this.#waiting.push(go);
        this.#goOn();
      },
      reached: () => {
        this.#reaching--;
        this.#goOn();
      },
      settled: () => {},
    };
  }

  /** Host in force; undefined is the default host. */
  get host(): string | undefined {
    return this.#setting.host;
  }

  /** Whose it is. */
  get standing(): Standing {
    return this.#setting.standing;
  }

  /** Carries the session over a connection. */
  carry(socket: Socket, first: Uint8Array): void {
    this.#pump.carry(socket, new Uint8Array(0))(first);
  }

  /** Keeps what is said from now on, so that it can be said again: the session has become detachable. */
  retain(): void {
    this.#pump.retain();
  }

  /** Goes on over a connection whose client has received so much. */
  attach(socket: Socket, first: Uint8Array, received: number): void {
    this.#pump.attach(socket, first, { received, limit: 0 });
  }

  /** Leaves all connections, as another takes over. */
  supersede(): void {
    this.#pump.supersede();
  }

  /** Leaves them for a client that has lost its memory, and that is told this. */
  recall(): Recollection {
    return this.#pump.recall();
  }

  /** The session's own state, for ATTACH. */
  get state(): Session {
    return this.#pump.session;
  }

  /** Octets held for the client. */
  get heldBytes(): number {
    return this.#pump.session.heldBytes;
  }

  /** Ends it where there is no connection to say so on. */
  endDetached(reason: string): void {
    this.#pump.end(Code.TIMEOUT, reason);
  }

  /** Takes no more streams, and ends when the last is over: at once if there is none. */
  drain(): void {
    this.#draining = true;
    // Nobody can attach to it any more.
    if (this.#pump.session.connections === 0) return this.end(Code.UNAVAILABLE, "the server is shutting down");
    this.#pump.goAway(Code.NO_ERROR, "the server is shutting down");
    this.#endIfIdle();
  }

  /** Ends now, whatever is open. */
  end(code: number, reason: string): void {
    this.#pump.end(code, reason);
  }

  #endIfIdle(): void {
    if (this.#draining && this.#pump.streams === 0) this.#pump.end(Code.NO_ERROR, "the server is shutting down");
  }

  #opened(channel: Channel, request: Uint8Array): void {
    new Conversation(channel, this.#place).startWith(request);
  }

  #goOn(): void {
    while (this.#reaching < this.#setting.pendingOpens) {
      const go = this.#waiting.shift();
      if (go === undefined) return;
      this.#reaching++;
      go();
    }
  }
}
