/**
 * Services behind another session server (paper section 3.1.4; docs/chaining.md): this server opens a stream there, in a session that it keeps,
 * and joins the two. Sessions, trust and signing in are upstream.ts's; what is said of the caller is announce/vouchings.ts's.
 *
 * Nothing that the other server says reaches a caller but its bytes: a refusal becomes one of ours, and why is in the log.
 * @module
 */
import type { Duplex } from "node:stream";
import { FivedError, type Splice } from "../../io/index.ts";
import { isServiceName } from "../../wire/index.ts";
import type { Vouchings } from "../announce/vouchings.ts";
import type { FarTarget } from "../endpoint.ts";
import type { Log } from "../log.ts";
import type { Caller, Next, RefusalCode, Service, Talk } from "../service.ts";
import { HOPS_MAX } from "../services/via.ts";
import type { FarServer, FarSession } from "../upstream.ts";
import { RESERVED_WORDS } from "../words.ts";

/** What a service behind another server needs besides its settings. */
export interface FarOptions {
  readonly far: FarServer;
  /** Tells the other server who is calling; without it streams are opened there as this server's own. */
  readonly vouchings: Vouchings | undefined;
  /** Time to open a stream there, a new session and signing in included. */
  readonly connectMs: number;
  readonly log: Log;
}

/** Sessions that are tried for one stream when they are lost just then. */
const LOST_MAX = 2;
/** Sessions that are tried when they are full: of a crowd of streams that come at once, each new session takes some. */
const FULL_MAX = 32;

interface Refusal {
  readonly code: RefusalCode;
  /** Never what the other server says, nor where it is. */
  readonly text: string;
}

/** As for a service that nobody has. */
const NOT_FOUND: Refusal = { code: 404, text: "no such service" };
const UNREACHABLE: Refusal = { code: 502, text: "other server cannot be reached" };
const REFUSED: Refusal = { code: 502, text: "other server refuses" };
const UNTOLD: Refusal = { code: 502, text: "other server cannot be told who is calling" };
const TIMED_OUT: Refusal = { code: 504, text: "other server did not answer in time" };
const LOOP: Refusal = { code: 508, text: "the way to it goes through too many servers" };

/** A service behind another server, or all of them. */
export class FarService implements Service {
  readonly word: string;
  readonly #target: FarTarget;
  readonly #options: FarOptions;
  /** What was last said in the log: the same trouble of every stream is told once. */
  #trouble: string | undefined;

  constructor(word: string, target: FarTarget, options: FarOptions) {
    this.word = word;
    this.#target = target;
    this.#options = options;
  }

  async serve(talk: Talk): Promise<Next> {
    const hops = hopsOf(talk.caller);
    if (hops > HOPS_MAX) return this.#refuse(talk, LOOP, "it goes round in a circle");
    const late = AbortSignal.timeout(this.#options.connectMs);
    const stop = AbortSignal.any([talk.signal, late]);
    const service = this.#target.service ?? farName(this.word, talk.service);
    if (service === undefined) return this.#refuse(talk, NOT_FOUND, undefined);
    try {
      const stream = await this.#tried(talk.caller, hops, service, stop, (session, via) =>
        session.open(service, via, stop),
      );
      this.#trouble = undefined;
      talk.accept();
      talk.splice(spliceOfStream(stream));
      return "bytes";
    } catch (error) {
      if (talk.signal.aborted) return "closed";
      return this.#refuse(talk, late.aborted ? TIMED_OUT : refusalOf(error), error);
    }
  }

  /** Names there that this caller may use, as they are asked for here. Empty, and said in the log, where that cannot be found out. */
  async names(caller: Caller, signal: AbortSignal, name?: string): Promise<readonly string[]> {
    const hops = hopsOf(caller);
    const service = name === undefined ? undefined : farName(this.word, name);
    if (hops > HOPS_MAX || (name !== undefined && service === undefined)) return [];
    const stop = AbortSignal.any([signal, AbortSignal.timeout(this.#options.connectMs)]);
    try {
      const names = await this.#tried(caller, hops, "list", stop, (session, via) => session.list(via, service));
      return names.map((each) => nearName(this.word, each)).filter((each) => each !== undefined);
    } catch (error) {
      if (!signal.aborted) this.#tell(error);
      return [];
    }
  }

  /** Does something in a session there, with what is to be said of the caller. */
  async #tried<Result>(
    caller: Caller,
    hops: number,
    word: string,
    stop: AbortSignal,
    act: (session: FarSession, via: string) => Promise<Result>,
  ): Promise<Result> {
    for (let lost = 0, full = 0; ; ) {
      try {
        const session = await unlessAborted(this.#options.far.session(), stop);
        const via = await this.#via(caller, hops, word, session);
        stop.throwIfAborted();
        return await unlessAborted(act(session, via), stop);
      } catch (error) {
        // Nothing of the caller's has been said there yet.
        if (isFull(error) && ++full < FULL_MAX) continue;
        if (isLost(error) && ++lost < LOST_MAX) continue;
        throw error;
      }
    }
  }

  async #via(caller: Caller, hops: number, word: string, { binding }: FarSession): Promise<string> {
    const { vouchings } = this.#options;
    if (vouchings === undefined) return `VIA ${hops}`;
    try {
      return await vouchings.line(caller, hops, word, binding);
    } catch (cause) {
      throw new Untold(cause);
    }
  }

  #refuse(talk: Talk, { code, text }: Refusal, why: unknown): Next {
    if (code !== 404) this.#tell(why);
    talk.refuse(code, code === 404 ? text : `${talk.service}: ${text}`);
    return "closed";
  }

  #tell(why: unknown): void {
    const reason = why instanceof Error ? why.message : String(why);
    if (reason === this.#trouble) return;
    this.#trouble = reason;
    this.#options.log.warn({ service: this.word, target: this.#target.server, reason }, "another server is of no use");
  }
}

/** The caller cannot be told as he is. */
class Untold extends Error {
  override readonly name = "Untold";

  constructor(cause: unknown) {
    super(cause instanceof Error ? cause.message : String(cause), { cause });
  }
}

/** Servers that the caller's streams have come through when they reach the next one. */
function hopsOf({ through }: Caller): number {
  return (through?.hops ?? 0) + 1;
}

/** The name there of what is asked for here: `wiki` of `wiki.other` where `*.other` is. Never a word of the protocol, which would be obeyed. */
export function farName(wildcard: string, name: string): string | undefined {
  const suffix = wildcard.slice(1).toLowerCase();
  const lower = name.toLowerCase();
  if (!lower.endsWith(suffix)) return undefined;
  const far = lower.slice(0, lower.length - suffix.length);
  return isServiceName(far) && !RESERVED_WORDS.includes(far.toUpperCase()) ? far : undefined;
}

/** The other way round; undefined for what cannot be asked for here. */
function nearName(wildcard: string, far: string): string | undefined {
  const near = `${far}${wildcard.slice(1)}`;
  return isServiceName(near) && farName(wildcard, near) !== undefined ? near : undefined;
}

function spliceOfStream(stream: Duplex): Splice {
  return { input: stream, output: stream, endsWithOutput: false, destroy: () => void stream.destroy() };
}

function isFull(error: unknown): boolean {
  return error instanceof FivedError && error.code === "STREAM_RESET" && error.reason === "REFUSED";
}

function isLost(error: unknown): boolean {
  return error instanceof FivedError && error.code === "SESSION_LOST";
}

function refusalOf(error: unknown): Refusal {
  if (error instanceof Untold) return UNTOLD;
  if (!(error instanceof FivedError)) return REFUSED;
  switch (error.code) {
    case "TIMEOUT":
      return TIMED_OUT;
    case "SERVICE_REFUSED":
    case "STREAM_RESET":
      break;
    default:
      return UNREACHABLE;
  }
  switch (error.status) {
    case 404:
      return NOT_FOUND;
    case 403: // VIA alone is refused so: the other server does not take our word
      return UNTOLD;
    case 408:
    case 504:
      return TIMED_OUT;
    case 508:
      return LOOP;
    default:
      return REFUSED;
  }
}

/** Waits no longer than that; what comes too late is let go. */
function unlessAborted<Result>(promise: Promise<Result>, signal: AbortSignal): Promise<Result> {
  return new Promise((resolve, reject) => {
    const abort = (): void => reject(signal.reason);
    if (signal.aborted) abort();
    signal.addEventListener("abort", abort, { once: true });
    promise.then(resolve, reject).finally(() => signal.removeEventListener("abort", abort));
  });
}
