/**
 * SOCKS 5 (RFC 1928, RFC 1929), 4 and 4a, and the two commands with which Tor's programs ask for names: octets to a request, and the answers. What is
 * more than a request is left for whoever comes next. Opens nothing.
 * @module
 */

/** What a program asks for. */
export interface SocksRequest {
  readonly version: 4 | 5;
  readonly command: "connect" | "resolve" | "resolve-ptr" | "other";
  readonly host: string;
  readonly port: number;
}

/** What has become of the octets so far. */
export type SocksRead =
  | { readonly type: "more" }
  /** To be said before more comes. */
  | { readonly type: "say"; readonly octets: Buffer }
  | { readonly type: "request"; readonly request: SocksRequest; readonly rest: Buffer }
  /** To be said, where there are octets, and then closed. */
  | { readonly type: "wrong"; readonly octets: Buffer };

const NO_AUTHENTICATION = 0;
const PASSWORD = 2;
const NOTHING_SUITS = 0xff;
/** Longer than any request: names have 255 octets, user names as many. */
const OCTETS_MAX = 1_024;

const COMMANDS: ReadonlyMap<number, SocksRequest["command"]> = new Map([
  [1, "connect"],
  [0xf0, "resolve"],
  [0xf1, "resolve-ptr"],
]);

/** Reads what one program says, from its first octet on. */
export class SocksReader {
  #octets: Buffer = Buffer.alloc(0);
  #state: "greeting" | "password" | "request" = "greeting";

  /** Takes octets, none of them for those that are here already. */
  push(octets: Uint8Array): SocksRead {
    this.#octets = Buffer.concat([this.#octets, octets]);
    const read = this.#read();
    if (read.type === "more" && this.#octets.length > OCTETS_MAX) return { type: "wrong", octets: Buffer.alloc(0) };
    return read;
  }

  #read(): SocksRead {
    const data = this.#octets;
    if (data.length < 2) return { type: "more" };
    if (this.#state === "greeting" && data[0] === 4) return this.#four(data);
    const want = this.#state === "password" ? 1 : 5;
    if (data[0] !== want) return { type: "wrong", octets: Buffer.alloc(0) };
    if (this.#state === "greeting") return this.#greeting(data);
    if (this.#state === "password") return this.#password(data);
    return this.#five(data);
  }

  #greeting(data: Buffer): SocksRead {
    const end = 2 + (data[1] ?? 0);
    if (data.length < end) return { type: "more" };
    const offered = data.subarray(2, end);
    this.#octets = data.subarray(end);
    // The folder, or the loopback address, is the guard; some programs insist on a user all the same.
    const chosen = [NO_AUTHENTICATION, PASSWORD].find((method) => offered.includes(method));
    if (chosen === undefined) return { type: "wrong", octets: Buffer.of(5, NOTHING_SUITS) };
    this.#state = chosen === PASSWORD ? "password" : "request";
    return { type: "say", octets: Buffer.of(5, chosen) };
  }

  #password(data: Buffer): SocksRead {
    const user = data[1] ?? 0;
    const password = data[2 + user];
    if (password === undefined || data.length < 3 + user + password) return { type: "more" };
    this.#octets = data.subarray(3 + user + password);
    this.#state = "request";
    return { type: "say", octets: Buffer.of(1, 0) };
  }

  #five(data: Buffer): SocksRead {
    if (data.length < 5) return { type: "more" };
    const type = data[3];
    const length = type === 1 ? 4 : type === 4 ? 16 : type === 3 ? 1 + (data[4] ?? 0) : undefined;
    if (length === undefined) return { type: "wrong", octets: answerFive(8) };
    const end = 4 + length + 2;
    if (data.length < end) return { type: "more" };
    const address = data.subarray(4, 4 + length);
    const host = type === 1 ? [...address].join(".") : type === 4 ? ipv6(address) : address.toString("latin1", 1);
    const command = COMMANDS.get(data[1] ?? 0) ?? "other";
    return this.#requested({ version: 5, command, host, port: data.readUInt16BE(end - 2) }, end);
  }

  #four(data: Buffer): SocksRead {
    const userEnd = data.length < 8 ? -1 : data.indexOf(0, 8);
    if (userEnd < 0) return { type: "more" };
    const address = data.subarray(4, 8);
    // 0.0.0.x, x not 0, says that a name stands behind (4a).
    const isNamed = address[0] === 0 && address[1] === 0 && address[2] === 0 && address[3] !== 0;
    const end = isNamed ? data.indexOf(0, userEnd + 1) : userEnd;
    if (end < 0) return { type: "more" };
    const host = isNamed ? data.toString("latin1", userEnd + 1, end) : [...address].join(".");
    const command = data[1] === 1 ? "connect" : data[1] === 0xf0 ? "resolve" : "other";
    return this.#requested({ version: 4, command, host, port: data.readUInt16BE(2) }, end + 1);
  }

  #requested(request: SocksRequest, end: number): SocksRead {
    return { type: "request", request, rest: this.#octets.subarray(end) };
  }
}

function ipv6(octets: Buffer): string {
  return Array.from({ length: 8 }, (_, at) => octets.readUInt16BE(2 * at).toString(16)).join(":");
}

/** The answer to a request; 0 is yes. An address, of four octets, answers a question for one; a name one for a name. */
export function socksAnswer(version: 4 | 5, reply: number, found?: readonly number[] | string): Buffer {
  if (version === 5) return answerFive(reply, found);
  const octets = typeof found === "object" ? found : [0, 0, 0, 0];
  return Buffer.from([0, reply === 0 ? 90 : 91, 0, 0, ...octets]);
}

function answerFive(reply: number, found: readonly number[] | string = [0, 0, 0, 0]): Buffer {
  const address = typeof found === "string" ? [3, found.length, ...Buffer.from(found, "latin1")] : [1, ...found];
  return Buffer.from([5, reply, 0, ...address, 0, 0]);
}
