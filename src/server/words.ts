/**
 * Which built-in words there are, and which of them act in which state of a conversation (PROTOCOL §3.3). The one table: what acts, what
 * is refused, and the tests of every pair come from it.
 * @module
 */

/** Words of this release, in the order in which LIST names them. */
export const BUILT_IN_WORDS = ["LIST", "HELP", "TLS", "MULTIPLEX", "HOST"] as const;
/** A word this release serves itself. */
export type BuiltInWord = (typeof BUILT_IN_WORDS)[number];

/** Words no service may have, in any case: those of the whole protocol, so that a later release breaks no configuration (abuse case L09). */
export const RESERVED_WORDS: readonly string[] = [
  ...BUILT_IN_WORDS,
  "AUTH",
  "DETACHABLE",
  "ATTACH",
  "PROVEAUTH",
  "GETSIGNKEY",
];

/**
 * Where a conversation stands.
 * `plain`: in the clear, where that is allowed (loopback, Unix sockets, a listener that says so); `restricted`: in the clear elsewhere;
 * `secure`: inside TLS; `stream`: inside a session.
 */
export const CONVERSATION_STATES = ["plain", "restricted", "secure", "stream"] as const;
/** One of {@link CONVERSATION_STATES}. */
export type ConversationState = (typeof CONVERSATION_STATES)[number];

/** "acts", or the code of the refusal. */
export type Outcome = "acts" | 503 | 530;

/** The outcome of each built-in word, and of a service's name, in each state. */
export const OUTCOMES: Readonly<Record<BuiltInWord | "service", Readonly<Record<ConversationState, Outcome>>>> = {
  LIST: { plain: "acts", restricted: "acts", secure: "acts", stream: "acts" },
  HELP: { plain: "acts", restricted: "acts", secure: "acts", stream: "acts" },
  TLS: { plain: "acts", restricted: "acts", secure: 503, stream: 503 },
  MULTIPLEX: { plain: "acts", restricted: 530, secure: "acts", stream: 503 },
  HOST: { plain: "acts", restricted: "acts", secure: "acts", stream: "acts" },
  service: { plain: "acts", restricted: 530, secure: "acts", stream: "acts" },
};

/** Words that may have something behind them; behind any other it is another protocol speaking (`GET / HTTP/1.1`). */
export const TAKES_ARGUMENT: ReadonlySet<string> = new Set(["LIST", "HOST"]);

/** Refusals of these words leave the conversation open; of all others close it, else pipelined payload would be read as commands. */
export const STAYS_OPEN: ReadonlySet<string> = new Set(["LIST", "HOST"]);

/** The built-in word a request means: words are never case sensitive (RFC 1078), by ASCII alone. */
export function builtInWord(word: string): BuiltInWord | undefined {
  const upper = word.toUpperCase();
  return BUILT_IN_WORDS.find((each) => each === upper);
}
