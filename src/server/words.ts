/**
 * Which built-in words there are, and which of them act in which state of a conversation (PROTOCOL §3.3). The one table: what acts, what
 * is refused, and the tests of every pair come from it.
 * @module
 */

/** Words of this release, in the order in which LIST names them. */
export const BUILT_IN_WORDS = [
  "LIST",
  "HELP",
  "TLS",
  "MULTIPLEX",
  "HOST",
  "AUTH",
  "DETACHABLE",
  "ATTACH",
  "VIA",
] as const;
/** A word this release serves itself. */
export type BuiltInWord = (typeof BUILT_IN_WORDS)[number];

/** Words no service may have, in any case: those of the whole protocol, so that a later release breaks no configuration (abuse case L09). */
export const RESERVED_WORDS: readonly string[] = [
  ...["LIST", "HELP", "TLS", "MULTIPLEX", "HOST", "AUTH", "DETACHABLE", "ATTACH", "PROVEAUTH", "GETSIGNKEY", "VIA"],
];

/** Where a conversation takes place, before anybody is known: what its {@link ConversationState} begins as. */
export type Ground = "plain" | "restricted" | "secure" | "stream";

/**
 * Where a conversation stands.
 * `plain`: in the clear, where that is allowed (loopback, Unix sockets, a listener that says so); `restricted`: in the clear elsewhere;
 * `secure`: inside TLS; `authenticated`: inside TLS, AUTH succeeded; `stream`: inside a session; `stream-authenticated`: inside one that has
 * an identity.
 */
export const CONVERSATION_STATES = [
  "plain",
  "restricted",
  "secure",
  "authenticated",
  "stream",
  "stream-authenticated",
] as const;
/** One of {@link CONVERSATION_STATES}. */
export type ConversationState = (typeof CONVERSATION_STATES)[number];

/** The state of a conversation on that ground; an identity in plaintext, where an administrator allowed it, opens nothing else (§3.3 ³). */
export function stateOn(ground: Ground, known: boolean): ConversationState {
  if (known && ground === "secure") return "authenticated";
  return known && ground === "stream" ? "stream-authenticated" : ground;
}

/** "acts", or the code of the refusal. */
export type Outcome = "acts" | 503 | 530;

/** The outcomes of one word, in the order of {@link CONVERSATION_STATES}. */
type Row = readonly [Outcome, Outcome, Outcome, Outcome, Outcome, Outcome];

function row(
  ...[plain, restricted, secure, authenticated, stream, known]: Row
): Readonly<Record<ConversationState, Outcome>> {
  return { plain, restricted, secure, authenticated, stream, "stream-authenticated": known };
}

/** The outcome of each built-in word, and of a service's name, in each state. Whether AUTH acts in plaintext too is for the administrator. */
export const OUTCOMES: Readonly<Record<BuiltInWord | "service", Readonly<Record<ConversationState, Outcome>>>> = {
  LIST: row("acts", "acts", "acts", "acts", "acts", "acts"),
  HELP: row("acts", "acts", "acts", "acts", "acts", "acts"),
  TLS: row("acts", "acts", 503, 503, 503, 503),
  MULTIPLEX: row("acts", 530, "acts", "acts", 503, 503),
  HOST: row("acts", "acts", "acts", "acts", "acts", "acts"),
  AUTH: row(530, 530, "acts", 503, "acts", 503),
  DETACHABLE: row(530, 530, "acts", "acts", "acts", "acts"),
  ATTACH: row(530, 530, "acts", "acts", 503, 503),
  VIA: row(503, 530, 503, 503, "acts", "acts"),
  service: row("acts", 530, "acts", "acts", "acts", "acts"),
};

/** Words that may have something behind them; behind any other it is another protocol speaking (`GET / HTTP/1.1`). */
export const TAKES_ARGUMENT: ReadonlySet<string> = new Set(["LIST", "HOST", "AUTH", "DETACHABLE", "ATTACH", "VIA"]);

/** Refusals of these words leave the conversation open; of all others close it, else pipelined payload would be read as commands. */
export const STAYS_OPEN: ReadonlySet<string> = new Set(["LIST", "HOST", "AUTH", "DETACHABLE"]);

/** The built-in word a request means: words are never case sensitive (RFC 1078), by ASCII alone. */
export function builtInWord(word: string): BuiltInWord | undefined {
  const upper = word.toUpperCase();
  return BUILT_IN_WORDS.find((each) => each === upper);
}
