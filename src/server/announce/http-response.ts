/**
 * HTTP/1.1 responses as octets, as far as somebody who only looks on has to understand them: which request each answers, where it ends, and
 * whether the connection has become a tunnel. Nothing of them is changed, and what cannot be understood is taken for a response that ends
 * with its connection: back ends are believed to mean well, but no further request is sent to one that was not understood.
 * @module
 */

/** Octets of the head of a response, or of a line of a chunked one: longer ones are not looked at any more. */
const HEAD_BYTES_MAX = 64 * 1_024;

const LF = 0x0a;

/** What has to be known of a request to read what answers it. */
export interface Asked {
  readonly method: string;
  readonly tunnel: "none" | "upgrade" | "connect";
}

/** What was found out up to `end`. */
export type Sight =
  | { readonly type: "nothing"; readonly end: number }
  /** A `100 Continue` or its like: the response proper follows. */
  | { readonly type: "interim"; readonly end: number; readonly status: number }
  /** The head of the response proper. */
  | { readonly type: "head"; readonly end: number }
  /** The response is over. `closes` if the back end will not answer another request. */
  | { readonly type: "over"; readonly end: number; readonly closes: boolean }
  /** What follows, in both directions, is no HTTP. */
  | { readonly type: "tunnel"; readonly end: number }
  /** A response, or a change of protocol, that nobody has asked for: what is behind `end` is not the client's. */
  | { readonly type: "unasked"; readonly end: number };

type State = "idle" | "head" | "body" | "until-close" | "tunnel" | "over";

/** Reads the responses of one connection. */
export class ResponsesReader {
  #state: State = "idle";
  #asked: Asked = { method: "GET", tunnel: "none" };
  #lines: string[] = [];
  #line = "";
  #bytes = 0;
  #closes = false;
  /** Octets of the body, or of its chunk, that are still to come. */
  #left = 0;
  #chunk: "none" | "size" | "data" | "end" | "trailers" = "none";

  /** A request was sent, and its response comes next. */
  ask(asked: Asked): void {
    if (this.#state === "idle") this.#state = "head";
    this.#asked = asked;
  }

  /** No request waits for its response, and another one may be sent. */
  get isIdle(): boolean {
    return this.#state === "idle";
  }

  /** Something of a response has come that is more than an interim one. */
  get hasBegun(): boolean {
    return this.#state !== "idle" && (this.#state !== "head" || this.#lines.length > 0 || this.#line !== "");
  }

  /** Reads on from `from`; there is at least one octet. */
  read(chunk: Uint8Array, from: number): Sight {
    switch (this.#state) {
      case "idle":
        // A server that says good-bye, or one that has found more requests in what we have sent than we have.
        return { type: "unasked", end: from };
      case "head":
        return this.#readHead(chunk, from);
      case "body":
        return this.#chunk === "none" ? this.#readLength(chunk, from) : this.#readChunked(chunk, from);
      case "until-close":
      case "tunnel":
      case "over":
        return { type: "nothing", end: chunk.length };
    }
  }

  /** Up to here it was understood, and no further. */
  #give(chunk: Uint8Array): Sight {
    this.#state = "until-close";
    return { type: "nothing", end: chunk.length };
  }

  /** One line, without its end; undefined while it is not complete, null where it is too long. */
  #readLine(chunk: Uint8Array, from: number): { readonly end: number; readonly line: string | undefined | null } {
    const found = chunk.indexOf(LF, from);
    const end = found < 0 ? chunk.length : found + 1;
    this.#bytes += end - from;
    if (this.#bytes > HEAD_BYTES_MAX) return { end, line: null };
    this.#line += Buffer.from(chunk.buffer, chunk.byteOffset + from, end - from).toString("latin1");
    if (found < 0) return { end, line: undefined };
    const line = this.#line.replace(/\r?\n$/, "");
    this.#line = "";
    return { end, line };
  }

  #readHead(chunk: Uint8Array, from: number): Sight {
    const { end, line } = this.#readLine(chunk, from);
    if (line === null) return this.#give(chunk);
    if (line === undefined) return { type: "nothing", end };
    if (line !== "") {
      this.#lines.push(line);
      return { type: "nothing", end };
    }
    if (this.#lines.length === 0) return { type: "nothing", end }; // an empty line behind an earlier body
    const lines = this.#lines;
    this.#lines = [];
    this.#bytes = 0;
    return this.#judge(lines, end) ?? this.#give(chunk);
  }

  #judge([first = "", ...fields]: readonly string[], end: number): Sight | undefined {
    const [, minor, digits] = /^HTTP\/1\.([01]) ([1-9]\d\d)(?: |$)/.exec(first) ?? [];
    if (digits === undefined) return undefined;
    const status = Number(digits);
    if (status === 101) {
      if (this.#asked.tunnel !== "upgrade") return { type: "unasked", end };
      this.#state = "tunnel";
      return { type: "tunnel", end };
    }
    if (status < 200) return { type: "interim", end, status };
    if (this.#asked.tunnel === "connect" && status < 300) {
      this.#state = "tunnel";
      return { type: "tunnel", end };
    }
    const of = (name: string): readonly string[] =>
      fields
        .filter((field) => field.slice(0, field.indexOf(":")).trim().toLowerCase() === name)
        .map((field) =>
          field
            .slice(field.indexOf(":") + 1)
            .trim()
            .toLowerCase(),
        );
    const options = of("connection")
      .flatMap((value) => value.split(","))
      .map((option) => option.trim());
    this.#closes = options.includes("close") || (minor === "0" && !options.includes("keep-alive"));
    if (this.#asked.method === "HEAD" || status === 204 || status === 304) return this.#over(end);
    const codings = of("transfer-encoding");
    const lengths = new Set(of("content-length"));
    this.#state = "body";
    if (codings.length > 0) {
      if (minor === "0" || codings.join(",") !== "chunked" || lengths.size > 0) return undefined;
      this.#chunk = "size";
      return { type: "head", end };
    }
    const [length, ...others] = lengths;
    if (length === undefined) {
      this.#state = "until-close";
      return { type: "head", end };
    }
    if (others.length > 0 || !/^\d{1,15}$/.test(length)) return undefined;
    this.#left = Number(length);
    this.#chunk = "none";
    return this.#left === 0 ? this.#over(end) : { type: "head", end };
  }

  #over(end: number): Sight {
    this.#state = this.#closes ? "over" : "idle";
    return { type: "over", end, closes: this.#closes };
  }

  #readLength(chunk: Uint8Array, from: number): Sight {
    const end = Math.min(chunk.length, from + this.#left);
    this.#left -= end - from;
    return this.#left === 0 ? this.#over(end) : { type: "nothing", end };
  }

  #readChunked(chunk: Uint8Array, from: number): Sight {
    if (this.#chunk === "data") {
      const end = Math.min(chunk.length, from + this.#left);
      this.#left -= end - from;
      if (this.#left === 0) this.#chunk = "end";
      return { type: "nothing", end };
    }
    const { end, line } = this.#readLine(chunk, from);
    if (line === null) return this.#give(chunk);
    if (line === undefined) return { type: "nothing", end };
    this.#bytes = 0;
    switch (this.#chunk) {
      case "size": {
        const [, digits] = /^([0-9A-Fa-f]{1,13})[ \t]*(?:;|$)/.exec(line) ?? [];
        if (digits === undefined) return this.#give(chunk);
        this.#left = Number.parseInt(digits, 16);
        this.#chunk = this.#left === 0 ? "trailers" : "data";
        return { type: "nothing", end };
      }
      case "end":
        if (line !== "") return this.#give(chunk);
        this.#chunk = "size";
        return { type: "nothing", end };
      default:
        return line === "" ? this.#over(end) : { type: "nothing", end };
    }
  }
}
