/**
 * What the server tells its administrator: one JSON object a line, or short text on a terminal, always on standard error. Only the fields
 * listed here can be logged, so no payload, password or key ever slips in; whatever a peer chose is escaped (abuse case L15). What is worth
 * a line is for the callers to know.
 * @module
 */
import pino from "pino";

/** Least severe lines first; `silent` logs nothing. */
export type LogLevel = "debug" | "info" | "warn" | "error" | "silent";

/** The fields a line may carry; any other is dropped at run time as well. Named as the four nouns and their parts. */
const FIELDS = [
  "connection",
  "session",
  "stream",
  "service",
  "host",
  "user",
  "mechanism",
  "peer",
  "url",
  "target",
  "file",
  "code",
  "reason",
  "line",
  "count",
  "bytes",
  "ms",
] as const;

/** What a line says besides its message. Of `error` the code, the message, the stack and the causes are kept. */
export type LogFields = {
  readonly [field in (typeof FIELDS)[number]]?: string | number | boolean | undefined;
} & { readonly error?: unknown };

/** Where events go. A message is a constant sentence; what varies goes into the fields. */
export interface Log {
  debug(fields: LogFields, message: string): void;
  info(fields: LogFields, message: string): void;
  warn(fields: LogFields, message: string): void;
  error(fields: LogFields, message: string): void;
}

/** How a log is made. */
export interface LogOptions {
  readonly level: LogLevel;
  /** JSON lines when true, text for people when false; by default text on a terminal and JSON elsewhere. */
  readonly json?: boolean;
  /** Takes the finished lines; standard error by default. */
  readonly write?: (line: string) => void;
}

/** Lines that wait for a reader of our standard error who has stopped reading: more are dropped, sessions go on (abuse case S02). */
const PENDING_BYTES_MAX = 1024 * 1024;
/** Causes followed behind an error: a chain is two or three long, and a cycle has no end. */
const CAUSES_MAX = 4;
/** Characters kept of an error's stack: enough for the frames that matter. */
const STACK_CHARACTERS_MAX = 2_000;

/** A log at the given level. */
export function createLog(options: LogOptions): Log {
  const json = options.json ?? !process.stderr.isTTY;
  const write = options.write ?? standardError();
  const out = pino(
    {
      level: options.level,
      base: null,
      timestamp: pino.stdTimeFunctions.isoTime,
      formatters: { level: (level) => ({ level }) },
    },
    { write: (line) => write(json ? escapeJson(line) : sentence(JSON.parse(line))) },
  );
  return {
    debug: (fields, message) => out.debug(allowed(fields), message),
    info: (fields, message) => out.info(allowed(fields), message),
    warn: (fields, message) => out.warn(allowed(fields), message),
    error: (fields, message) => out.error(allowed(fields), message),
  };
}

/** A log that says nothing, for those who embed the server and for tests. */
export const silentLog: Log = { debug() {}, info() {}, warn() {}, error() {} };

/** Text with every control, bidirectional override and line separator as `\xNN` or `\uNNNN`, so that it cannot forge or hide output. */
export function escapeControls(text: string): string {
  return text.toWellFormed().replace(UNSAFE, (character) => {
    const code = character.charCodeAt(0);
    return code < 0x100 ? `\\x${code.toString(16).padStart(2, "0")}` : `\\u${code.toString(16).padStart(4, "0")}`;
  });
}

// C0, DEL and C1; then what reorders or breaks lines on a terminal (Unicode TR 36 §3.6): marks, separators, embeddings, isolates, BOM.
const UNSAFE = /[\p{Cc}\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff]/gu;
/** The same without C0, which JSON has escaped already. */
const UNSAFE_IN_JSON = /[\u007f-\u009f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff]/g;

/** JSON may escape any character inside a string, and none of these stands outside one: the value stays the same. */
function escapeJson(line: string): string {
  return line.replace(UNSAFE_IN_JSON, (character) => `\\u${character.charCodeAt(0).toString(16).padStart(4, "0")}`);
}

function allowed(fields: LogFields): Record<string, unknown> {
  const kept: Record<string, unknown> = {};
  for (const field of FIELDS) {
    if (fields[field] !== undefined) kept[field] = fields[field];
  }
  if (fields.error !== undefined) kept["error"] = described(fields.error);
  return kept;
}

/** An error as data. A stack is kept for exceptions that nobody foresaw: those without a code. */
function described(error: unknown, depth = 0): unknown {
  if (!(error instanceof Error)) return String(error);
  const code = "code" in error ? error.code : undefined;
  return {
    message: error.message,
    ...(code === undefined ? { stack: error.stack?.slice(0, STACK_CHARACTERS_MAX) } : { code }),
    ...(error.cause === undefined || depth === CAUSES_MAX ? {} : { cause: described(error.cause, depth + 1) }),
  };
}

/** `12:00:04 warn back end is down service=web target=127.0.0.1:3000`. */
function sentence(entry: Record<string, unknown>): string {
  const { time, level, msg, error, ...fields } = entry;
  const pairs = Object.entries(fields).map(([name, value]) => ` ${name}=${quoted(String(value))}`);
  const cause = error === undefined ? "" : `: ${causes(error).join(": ")}`;
  const head = `${String(time).slice(11, 19)} ${level} ${escapeControls(`${msg}`)}`;
  return `${head}${cause}${pairs.join("")}\n${stackOf(error)}`;
}

function causes(error: unknown): readonly string[] {
  if (typeof error !== "object" || error === null) return [escapeControls(String(error))];
  const message = "message" in error ? [escapeControls(String(error.message))] : [];
  return "cause" in error ? [...message, ...causes(error.cause)] : message;
}

/** The frames of an unforeseen exception, a line each: whoever writes a service at a terminal wants to know where. */
function stackOf(error: unknown): string {
  if (typeof error !== "object" || error === null || !("stack" in error)) return "";
  const frames = String(error.stack).split("\n").slice(1);
  return frames.map((frame) => `  ${escapeControls(frame.trim())}\n`).join("");
}

function quoted(text: string): string {
  const escaped = escapeControls(text);
  return /[\s"=]/.test(escaped) || escaped === "" ? `"${escaped.replaceAll('"', "\\x22")}"` : escaped;
}

function standardError(): (line: string) => void {
  // Not synchronous: a pager that stopped reading must not stop the sessions. What is pending is flushed when the process exits.
  const stderr = pino.destination({ dest: 2, sync: false, maxLength: PENDING_BYTES_MAX });
  // A full disk costs log lines, nothing else.
  stderr.on("error", () => {});
  return (line) => stderr.write(line);
}
