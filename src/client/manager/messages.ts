/**
 * What a program and the session manager say to each other over a Unix socket (docs/manager.md): lines of JSON, one connection for a program's
 * requests, and one more for the bytes of each stream.
 *
 * ```
 *   requests  P  {"hello":"fived-manager/2"}                      M  {"hello":"fived-manager/2","token":"…","pid":1}
 *             P  {"id":1,"do":"open","address":"…","service":"…","choices":{…}}
 *             M  {"id":1,"event":"ask","text":"…","shown":false}    P  {"id":1,"do":"answer","bytes":13}  and 13 octets
 *             M  {"id":1,"event":"ready"}                           … {"id":1,"event":"over"}
 *   bytes     P  {"data":"TOKEN","id":1}                          and then the stream's octets, both ways, half-close included
 * ```
 *
 * A Unix socket does not tell a cut from an end; the events `ended` and `over` do, and who reads the stream waits for them. Neither end believes the other
 * beyond these bounds: a line that is none ends the connection it came on, and nothing else.
 * @module
 */
import type { Socket } from "node:net";
import { type CodeName, codeName } from "../../wire/index.ts";
import type { ClientChoices } from "../choices.ts";
import { arePathRules } from "../path-rules.ts";
import { isTransport } from "../transports/index.ts";

/** What each end says first. Another number is another protocol. */
export const HELLO = "fived-manager/2";
/** Octets of a line; a list of services may be longer, and comes in several events. */
export const LINE_BYTES_MAX = 64 * 1_024;
/** Octets of an answer to a question (PROTOCOL §4.6.1). */
export const ANSWER_BYTES_MAX = 1_024;

/** A session's name: 16 octets as base64url. It names a file, and so may be nothing else. */
const SESSION_NAME = /^[\w-]{22}$/;

/** What a program asks for. */
export type Request =
  | {
      readonly do: "open";
      readonly address: string;
      readonly service: string;
      readonly host?: string;
      readonly choices: ClientChoices;
    }
  /** Goes on with a stream that a manager had opened which was killed; see {@link Event} `kept`. */
  | {
      readonly do: "goOn";
      readonly address: string;
      readonly service: string;
      readonly host?: string;
      readonly choices: ClientChoices;
      readonly session: string;
      readonly stream: number;
      /** Octets that have come: of the service's answer and behind it; left out where it has not answered. */
      readonly had?: { readonly answer: number; readonly octets: number };
      /** Of those behind the answer, how many the application has taken. */
      readonly took: number;
    }
  | { readonly do: "list"; readonly address: string; readonly service?: string; readonly choices: ClientChoices }
  | { readonly do: "login"; readonly address: string; readonly choices: ClientChoices }
  /** This program listens there, for others that know nothing of a manager: shown until it leaves. */
  | { readonly do: "listening"; readonly address: string }
  | { readonly do: "status" }
  | { readonly do: "end"; readonly address: string }
  | { readonly do: "detach"; readonly address: string }
  | { readonly do: "stop" };

/** A line of a program. */
export type Said =
  | { readonly type: "hello" }
  | { readonly type: "data"; readonly token: string; readonly id: number }
  | {
      readonly type: "request";
      readonly id: number;
      readonly request: Request;
      readonly asks: { readonly confirm: boolean; readonly ask: boolean; readonly tries: number };
    }
  | { readonly type: "answer"; readonly id: number; readonly yes: boolean }
  /** So many octets follow. */
  | { readonly type: "octets"; readonly id: number; readonly bytes: number }
  /** The application has taken so many octets of the stream, counted from the first: the server may send as many more. */
  | { readonly type: "took"; readonly id: number; readonly octets: number }
  | { readonly type: "leave"; readonly id: number };

/** An error as it crosses. */
export interface SentError {
  readonly code: string;
  readonly message: string;
  readonly status?: number | undefined;
  readonly reason?: string | undefined;
}

/** What the manager tells of a request. */
export type Event =
  | { readonly event: "ask"; readonly text: string; readonly shown: boolean }
  | { readonly event: "confirm"; readonly text: string }
  | { readonly event: "log"; readonly text: string }
  /** The stream was opened: from here on the service may know of it. */
  | { readonly event: "opened" }
  /** The same, and what another manager needs to go on with the stream, should this one be killed. */
  | { readonly event: "kept"; readonly session: string; readonly stream: number }
  /** The service has accepted the stream, with so many octets. */
  | { readonly event: "ready"; readonly octets: number }
  /** The server has so many of the program's octets: they are not needed again. Told now and then. */
  | { readonly event: "confirmed"; readonly octets: number }
  /** The stream goes on: the server has so many of the program's octets, or, left out, all of them and their end. */
  | { readonly event: "goesOn"; readonly from?: number }
  /** The server has never heard of the stream: it may be opened again. */
  | { readonly event: "unheard" }
  /** The stream has ended while no manager was there to hear how. */
  | { readonly event: "gone" }
  /** The service has ended its direction, and all of it is on its way. */
  | { readonly event: "ended" }
  /** The stream is over, in peace or cut with a code. */
  | { readonly event: "over"; readonly code: CodeName; readonly why?: string }
  | { readonly event: "names"; readonly names: readonly string[] }
  | { readonly event: "done"; readonly result: unknown }
  | { readonly event: "error"; readonly error: SentError };

/** The code of an end, as an event tells it; and why, if there is more to say. */
export function overEvent(code: number, why?: string): Event {
  return { event: "over", code: codeName(code), ...(why === undefined ? {} : { why }) };
}

/** Reads a line of a program; undefined for what is none. */
export function readSaid(line: string): Said | undefined {
  const said = parsed(line);
  if (said === undefined) return undefined;
  if (said["hello"] === HELLO) return { type: "hello" };
  const { id } = said;
  if (typeof id !== "number" || !Number.isSafeInteger(id) || id < 1) return undefined;
  if (typeof said["data"] === "string") return { type: "data", token: said["data"], id };
  if (said["do"] === "leave") return { type: "leave", id };
  if (said["do"] === "took") return isCount(said["octets"]) ? { type: "took", id, octets: said["octets"] } : undefined;
  if (said["do"] === "answer") {
    if (typeof said["yes"] === "boolean") return { type: "answer", id, yes: said["yes"] };
    const { bytes } = said;
    const fits = typeof bytes === "number" && Number.isSafeInteger(bytes) && bytes >= 0 && bytes <= ANSWER_BYTES_MAX;
    return fits ? { type: "octets", id, bytes } : undefined;
  }
  const request = requestIn(said);
  if (request === undefined) return undefined;
  const { confirm, ask, tries } = said;
  return {
    type: "request",
    id,
    request,
    asks: {
      confirm: confirm === true,
      ask: ask === true,
      tries: typeof tries === "number" && tries >= 1 && tries <= 9 ? tries : 1,
    },
  };
}

/** Reads a line of the manager, with the request it is about; undefined for what is none. */
export function readEvent(
  line: string,
): { readonly id: number; readonly event: Event } | { readonly token: string; readonly pid: number } | undefined {
  const said = parsed(line);
  if (said === undefined) return undefined;
  const { id, token, pid } = said;
  if (said["hello"] === HELLO && typeof token === "string" && typeof pid === "number") return { token, pid };
  // What the manager says is our own code's; only its shape is looked at.
  return typeof id === "number" && typeof said["event"] === "string"
    ? { id, event: said as unknown as Event }
    : undefined;
}

function parsed(line: string): Readonly<Record<string, unknown>> | undefined {
  try {
    const value: unknown = JSON.parse(line);
    return isRecord(value) ? value : undefined;
  } catch {
    return undefined;
  }
}

function isRecord(value: unknown): value is Readonly<Record<string, unknown>> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

function requestIn(said: Readonly<Record<string, unknown>>): Request | undefined {
  const { address, service, host } = said;
  if (said["do"] === "status" || said["do"] === "stop") return { do: said["do"] };
  if (!isText(address)) return undefined;
  if (said["do"] === "end" || said["do"] === "detach" || said["do"] === "listening") return { do: said["do"], address };
  const choices = choicesIn(said["choices"]);
  if (choices === undefined) return undefined;
  switch (said["do"]) {
    case "open":
    case "goOn": {
      if (!isText(service) || !(host === undefined || isText(host))) return undefined;
      const open = { address, service, ...(host === undefined ? {} : { host }), choices };
      return said["do"] === "open" ? { do: "open", ...open } : goingOn(said, open);
    }
    case "list":
      if (!(service === undefined || isText(service))) return undefined;
      return { do: "list", address, ...(service === undefined ? {} : { service }), choices };
    case "login":
      return { do: "login", address, choices };
    default:
      return undefined;
  }
}

function goingOn(
  { session, stream, had, took }: Readonly<Record<string, unknown>>,
  open: Omit<Extract<Request, { readonly do: "open" }>, "do">,
): Request | undefined {
  if (typeof session !== "string" || !SESSION_NAME.test(session) || !isCount(stream) || !isCount(took))
    return undefined;
  if (had === undefined) return { do: "goOn", ...open, session, stream, took };
  if (!isRecord(had) || !isCount(had["answer"]) || !isCount(had["octets"])) return undefined;
  return { do: "goOn", ...open, session, stream, took, had: { answer: had["answer"], octets: had["octets"] } };
}

function isCount(value: unknown): value is number {
  return typeof value === "number" && Number.isSafeInteger(value) && value >= 0;
}

type Check = (value: unknown) => boolean;

function isText(value: unknown): value is string {
  return typeof value === "string" && value.length > 0 && value.length <= 4_096;
}

const isTexts: Check = (value) => Array.isArray(value) && value.length <= 64 && value.every(isText);
const isFlag: Check = (value) => typeof value === "boolean";
const oneOf =
  (...words: readonly string[]): Check =>
  (value) =>
    words.some((word) => word === value);

/** Each choice with what it may be. One that is not here is no choice: a newer program's wish is refused, not passed over. */
const CHOICES: { readonly [Name in keyof Required<ClientChoices>]: Check } = {
  knownHosts: isText,
  strictHostKeyChecking: oneOf("yes", "accept-new", "ask", "off"),
  transport: (value) => isText(value) && isTransport(value),
  paths: arePathRules,
  tls: oneOf("required", "in-band", "off"),
  pipeline: isFlag,
  ca: isText,
  certificate: (value) =>
    isRecord(value) && isText(value["certificate"]) && isText(value["key"]) && Object.keys(value).length === 2,
  connectTimeoutMs: (value) => typeof value === "number" && value > 0 && value < 2 ** 31,
  user: isText,
  mechanisms: isTexts,
  identityFiles: isTexts,
  identitiesOnly: isFlag,
  agent: isText,
  keysFolder: isText,
  loginsFile: isText,
  careful: isFlag,
};
const NEEDED = ["knownHosts", "identityFiles", "keysFolder", "loginsFile"] as const;

function choicesIn(value: unknown): ClientChoices | undefined {
  if (!isRecord(value) || !NEEDED.every((name) => Object.hasOwn(value, name))) return undefined;
  const checks: Readonly<Record<string, Check>> = CHOICES;
  const known = Object.entries(value).every(
    ([name, choice]) => Object.hasOwn(checks, name) && checks[name]?.(choice) === true,
  );
  return known ? (value as unknown as ClientChoices) : undefined;
}

/** Says a line. Those of one turn go out together, before anything that is done at its end. */
export function writeLine(socket: Socket, line: object): void {
  if (socket.destroyed) return;
  if (socket.writableCorked === 0) {
    socket.cork();
    process.nextTick(() => socket.uncork());
  }
  socket.write(`${JSON.stringify(line)}\n`);
}

/** Octets as lines, and as octets where a line has said that some follow. */
export class MessageReader {
  #octets: Buffer = Buffer.alloc(0);

  push(octets: Uint8Array): void {
    this.#octets = Buffer.concat([this.#octets, octets]);
  }

  /** The next line without its end; undefined where it is not there yet, null for one that is too long. */
  line(): string | undefined | null {
    const end = this.#octets.indexOf(0x0a);
    if (end > LINE_BYTES_MAX || (end < 0 && this.#octets.length > LINE_BYTES_MAX)) return null;
    return end < 0 ? undefined : this.#taken(end + 1).toString("utf8", 0, end);
  }

  /** So many octets, the caller's to wipe; undefined where they are not there yet. */
  octets(count: number): Uint8Array | undefined {
    if (this.#octets.length < count) return undefined;
    const taken = Uint8Array.from(this.#octets.subarray(0, count));
    this.#octets.fill(0, 0, count);
    this.#taken(count);
    return taken;
  }

  /** What is left. */
  rest(): Buffer {
    return this.#taken(this.#octets.length);
  }

  #taken(count: number): Buffer {
    const taken = this.#octets.subarray(0, count);
    this.#octets = this.#octets.subarray(count);
    return taken;
  }
}
