/**
 * `announce: http`: each request on its way to the back end says who makes it, in fields that nobody else can set.
 *
 * | field | says |
 * |---|---|
 * | `Fived-User` | the user; absent for somebody who has not signed in |
 * | `Fived-Roles` | the roles, commas between them; absent where there are none |
 * | `Fived-Session` | the session, as in the server's log |
 * | `Fived-Assertion` | all of it, signed (identity/assertion.ts): what a back end should believe, as others than us may reach it |
 *
 * Whatever begins with `Fived-`, in any spelling that a gateway could take for it, is taken out of what the client sent. Requests go to
 * the back end one after the other, each when the one before is answered, so that what comes back is known to be its answer.
 *
 * ```
 *             head complete              body complete             answer complete
 *    head ───────────────────▶ body ──────────────────────▶ answer ───────────────▶ head
 *      │ refused: 400, end      │ answer complete: end          │ 101 to an upgrade, 2xx to CONNECT
 *      ▼                        ▼                               ▼
 *    over                      over                           tunnel: octets, both ways, until both have ended
 * ```
 *
 * How octets become requests and responses is in http-request.ts and http-response.ts.
 * @module
 */
import { STATUS_CODES } from "node:http";
import { Duplex, type Readable, type Writable } from "node:stream";
import type { Splice } from "../../io/index.ts";
import type { Log } from "../log.ts";
import type { Talk } from "../service.ts";
import type { Announcement, Announcer } from "./announcer.ts";
import { type Assertions, rolesToTell, userToTell } from "./assertions.ts";
import {
  ChunksReader,
  type HttpRefusal,
  type HttpRequest,
  judgeHead,
  LAST_CHUNK,
  LinesReader,
  refused,
} from "./http-request.ts";
import { ResponsesReader, type Sight } from "./http-response.ts";

/** Says it in fields of each request. */
export class HttpAnnouncer implements Announcer {
  /** A check of the back end is a connection that asks nothing. */
  readonly greeting = undefined;
  readonly #assertions: Assertions;
  readonly #log: Log;

  constructor(assertions: Assertions, log: Log) {
    this.#assertions = assertions;
    this.#log = log;
  }

  async announce(talk: Talk): Promise<Announcement> {
    const fields = (): Promise<string> => this.#fields(talk);
    await fields(); // who cannot be announced is refused now, and not after his first request
    const { service, caller } = talk;
    const told = (reason: string): void =>
      this.#log.debug({ service, session: caller.session, reason }, "a request is not handed on");
    return { preamble: undefined, wrap: (backEnd) => new HttpSplice(backEnd, fields, told) };
  }

  async #fields(talk: Talk): Promise<string> {
    const { caller } = talk;
    const user = userToTell(caller);
    const session = `Fived-Session: ${caller.session}\r\n`;
    if (user === undefined) return session;
    const roles = rolesToTell(caller).join(",");
    const assertion = await this.#assertions.of(talk);
    if (assertion === undefined) throw new Error("Invariant: whoever has a name has an assertion");
    const all = [
      `Fived-User: ${user}`,
      ...(roles === "" ? [] : [`Fived-Roles: ${roles}`]),
      `Fived-Assertion: ${assertion}`,
    ];
    return `${session}${all.join("\r\n")}\r\n`;
  }
}

/**
 * Where the client's octets are: see the drawing above. `rest` is what a client still sends of a request that was answered already: it goes
 * nowhere.
 */
type State = "head" | "body" | "rest" | "answer" | "tunnel" | "over";

/** A back end that is told with each request who makes it. To the stream it is what the back end was: something to be joined. */
class HttpSplice extends Duplex implements Splice {
  readonly input: Writable;
  readonly output: Readable;
  readonly endsWithOutput = false;
  readonly #backEnd: Splice;
  readonly #fields: () => Promise<string>;
  readonly #told: (reason: string) => void;
  #state: State = "head";
  #lines = new LinesReader("head");
  /** A head was read, and what is to be said with it is being made. */
  #asking = false;
  #request: HttpRequest | undefined;
  #chunks: ChunksReader | undefined;
  /** Octets of the body that are still to come, where it has a length. */
  #left = 0;
  readonly #responses = new ResponsesReader();
  /** The back end has asked for the body. */
  #continued = false;
  /** What the client has sent and is not dealt with; it is told when it is. */
  #chunk = NOTHING;
  #at = 0;
  #done: (() => void) | undefined;
  /** Writes to the back end that are not out of our hands. */
  #writing = 0;

  constructor(backEnd: Splice, fields: () => Promise<string>, told: (reason: string) => void) {
    super();
    this.input = this;
    this.output = this;
    this.#backEnd = backEnd;
    this.#fields = fields;
    this.#told = told;
    const { output } = backEnd;
    output.on("data", (chunk: Buffer) => this.#received(chunk));
    output.once("end", () => this.#ended());
    output.on("error", () => {}); // "close" follows
    output.once("close", () => {
      if (!output.readableEnded && this.#state !== "over") this.destroy();
    });
    output.pause();
  }

  // ---- from the client

  override _write(chunk: Buffer, _encoding: BufferEncoding, done: () => void): void {
    this.#chunk = chunk;
    this.#at = 0;
    this.#done = done;
    this.#advance();
  }

  override _final(done: () => void): void {
    const { input } = this.#backEnd;
    if (this.#state === "over" || input.destroyed) return done();
    input.end(() => done());
  }

  /** Deals with what the client has sent, as far as that goes now. */
  #advance(): void {
    const { input } = this.#backEnd;
    input.cork(); // a head and what is behind it leave together
    while (this.#at < this.#chunk.length && this.#step());
    input.uncork();
    this.#giveBack();
  }

  /** Once all of a chunk is dealt with, and what was handed on of it is gone, its memory is the client's again. */
  #giveBack(): void {
    if (this.#at < this.#chunk.length || this.#asking || this.#writing > 0) return;
    const done = this.#done;
    this.#done = undefined;
    this.#chunk = NOTHING;
    this.#at = 0;
    done?.();
  }

  /** One step; false where something else has to happen first. */
  #step(): boolean {
    switch (this.#state) {
      case "head":
        if (this.#asking || !this.#responses.isIdle) return false;
        this.#readHead();
        return true;
      case "body":
        this.#readBody();
        return true;
      case "answer":
        return false;
      case "tunnel":
        this.#hand(this.#chunk.subarray(this.#at));
        this.#at = this.#chunk.length;
        return true;
      case "rest":
      case "over":
        this.#at = this.#chunk.length;
        return true;
    }
  }

  #readHead(): void {
    // TLS, for one, would never come to the end of a line.
    if (this.#lines.isFresh && !BEGINNING.test(String.fromCharCode(this.#chunk[this.#at] ?? 0)))
      return this.#refuse(refused(400, "this is no HTTP"));
    const read = this.#lines.read(this.#chunk, this.#at);
    if (read.type === "refused") return this.#refuse(read);
    this.#at = read.type === "lines" ? read.end : this.#chunk.length;
    if (read.type === "more") return;
    this.#lines = new LinesReader("head");
    const request = judgeHead(read.lines);
    if (request.type === "refused") return this.#refuse(request);
    this.#asking = true;
    this.#fields().then(
      (fields) => this.#send(request, fields),
      () => this.#send(request, undefined),
    );
  }

  #send(request: HttpRequest, fields: string | undefined): void {
    this.#asking = false;
    if (this.#state === "head") {
      if (fields === undefined) this.#refuse(refused(502, "the back end cannot be told who is calling"));
      else this.#begin(request, fields);
    }
    this.#advance();
  }

  #begin(request: HttpRequest, fields: string): void {
    const { head, body } = request;
    this.#request = request;
    this.#continued = false;
    this.#responses.ask(request);
    this.#handText(`${head}${fields}\r\n`);
    this.#chunks = body.type === "chunked" ? new ChunksReader() : undefined;
    this.#left = body.type === "length" ? body.bytes : 0;
    this.#state = body.type === "none" ? "answer" : "body";
  }

  #readBody(): void {
    const from = this.#at;
    if (this.#chunks === undefined) {
      this.#at = Math.min(this.#chunk.length, from + this.#left);
      this.#left -= this.#at - from;
      if (this.#left === 0) this.#state = "answer";
      return this.#hand(this.#chunk.subarray(from, this.#at));
    }
    const part = this.#chunks.read(this.#chunk, from);
    if (part.type === "refused") return this.#refuse(part);
    this.#at = part.end;
    if (part.type === "data") this.#hand(this.#chunk.subarray(from, part.end));
    else if (part.type === "line") this.#handText(part.line);
    else if (part.type === "over") {
      this.#handText(LAST_CHUNK);
      this.#state = "answer";
    }
  }

  #handText(text: string): void {
    this.#hand(Buffer.from(text, "latin1"));
  }

  #hand(octets: Uint8Array): void {
    this.#writing++;
    this.#backEnd.input.write(octets, () => {
      this.#writing--;
      this.#giveBack();
    });
  }

  /** Answers in the back end's place, or cuts where it is too late for that: our answer would be taken for a part of another. */
  #refuse({ status, text }: HttpRefusal): void {
    this.#told(text);
    if (this.#responses.hasBegun) {
      this.destroy(new Error(`Cannot answer an HTTP request: ${text}`));
      return;
    }
    const body = `fived: ${text}\n`;
    const fields = ["Content-Type: text/plain; charset=utf-8", `Content-Length: ${body.length}`, "Connection: close"];
    this.#finish(Buffer.from(`HTTP/1.1 ${status} ${STATUS_CODES[status]}\r\n${fields.join("\r\n")}\r\n\r\n${body}`));
  }

  /** Ends both directions, behind these last octets for the client. */
  #finish(last = NOTHING): void {
    const { input } = this.#backEnd;
    // What the back end has of a request may be less than all of it, and must not look complete.
    if (this.#state === "body" || this.#state === "rest") this.#backEnd.destroy();
    else input.end(() => input.destroy());
    this.#state = "over";
    this.once("end", () => this.destroy());
    if (last.length > 0) this.push(last);
    this.push(null);
  }

  // ---- from the back end

  override _read(): void {
    this.#backEnd.output.resume();
  }

  #received(chunk: Buffer): void {
    if (this.#state === "over") return;
    for (let at = 0; at < chunk.length; ) {
      const sight = this.#responses.read(chunk, at);
      at = sight.end;
      if (this.#goesOnAfter(sight)) continue;
      this.#finish(chunk.subarray(0, at));
      return this.#advance();
    }
    if (!this.push(chunk)) this.#backEnd.output.pause();
    this.#advance();
  }

  /** Takes note of what was seen of the responses; false where the connection ends with it. */
  #goesOnAfter(sight: Sight): boolean {
    switch (sight.type) {
      case "nothing":
        return true;
      case "interim":
        this.#continued ||= sight.status === 100;
        return true;
      case "head":
        // Asked whether it wants the body it said no; what comes of it now it could take for another request.
        if (this.#state === "body" && this.#request?.expectsContinue === true && !this.#continued) this.#state = "rest";
        return true;
      case "over":
        // Whoever answers before he has read all of a request may take what is left of it for another one.
        if (this.#state !== "answer" || sight.closes || this.#request?.last !== false) return false;
        this.#state = "head";
        return true;
      case "tunnel":
        this.#state = "tunnel";
        return true;
      case "unasked":
        this.#told("the back end answers without being asked");
        return false;
    }
  }

  #ended(): void {
    if (this.#state === "tunnel") this.push(null);
    else if (this.#state !== "over") this.#finish();
    this.#advance();
  }

  override _destroy(error: Error | null, done: (error: Error | null) => void): void {
    const { input, output } = this.#backEnd;
    this.#state = "over";
    if (!input.destroyed && !(output.readableEnded && input.writableFinished)) this.#backEnd.destroy();
    done(error);
  }
}

const NOTHING: Uint8Array = new Uint8Array(0);
/** The first octet of a request: that of a token, or of an empty line before it. */
const BEGINNING = /[\r!#$%&'*+\-.^_`|~0-9A-Za-z]/;
