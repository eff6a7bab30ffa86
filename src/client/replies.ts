/**
 * The lines with which a peer answers our requests, in front of the bytes we asked for (PROTOCOL §3.4). They are read while what we send
 * is already under way: no round trip is spent on waiting for them.
 * @module
 */
import { type Channel, FivedError, type Receiver } from "../io/index.ts";
import { Code, codeName, type Line, LineReader, parseReply, REPLY_BYTES_MAX, type Reply } from "../wire/index.ts";

/** How a request was answered: with `+`, or why not. */
export type Answer = { readonly type: "accepted" } | { readonly type: "refused"; readonly error: FivedError };

/** A request that will be answered. */
export interface Asked {
  readonly text: string;
  /** `- 404` to it is no refusal: a server without that virtual host serves its default one, as servers without hosts do. */
  readonly mayBeUnknown?: true;
  /** Reads the lines of an answer that is not one `+` or `-`. */
  readonly hear?: (line: string) => Heard;
}

/** What a line means to a request: more lines follow, it was granted, or it was not. */
export type Heard = { readonly type: "more" } | Answer;

/**
 * Puts itself before a channel's receiver until so many requests were answered with `+`.
 * @param asked what was asked for, for messages: one line for each answer that is expected
 * @param answered is told once: of the last `+`, or of the first refusal, after which nothing more reaches the receiver; and how many octets the answers had
 * @param onward takes what stands behind the last answer, if that is not for the receiver
 */
export function expectReplies(
  channel: Channel,
  asked: readonly Asked[],
  answered: (answer: Answer, octets: number) => void,
  onward?: (rest: Uint8Array) => void,
): void {
  const inner = channel.receiver;
  const lines = new LineReader(REPLY_BYTES_MAX);
  let left = [...asked];
  let over = false;
  let octets = 0;
  const settle = (answer: Answer): void => {
    over = true;
    answered(answer, octets);
  };
  const hear = (line: Line, request: Asked): void => {
    const heard = line.type === "line" && request.hear !== undefined ? request.hear(line.text) : plain(line, request);
    if (heard.type === "more") return;
    if (heard.type === "refused") return settle(heard);
    left = left.slice(1);
    if (left.length === 0) settle(heard);
  };
  const filter: Receiver = {
    data(bytes) {
      if (over) return channel.consumed(bytes.length);
      lines.push(bytes.slice());
      for (let [request] = left; request !== undefined && !over; [request] = left) {
        const before = lines.buffered;
        const line = lines.next();
        octets += before - lines.buffered;
        channel.consumed(before - lines.buffered);
        if (line === undefined) return;
        hear(line, request);
      }
      if (left.length > 0) return;
      channel.receiver = inner;
      const rest = lines.rest();
      if (onward !== undefined) onward(rest);
      else if (rest.length > 0) inner.data(rest);
    },
    end() {
      if (!over) settle({ type: "refused", error: silence(left[0], Code.NO_ERROR) });
      else inner.end();
    },
    drained: () => inner.drained(),
    closed(code, why) {
      if (!over) settle({ type: "refused", error: silence(left[0], code) });
      inner.closed(code, why);
    },
  };
  channel.receiver = filter;
}

/** An answer that is one line, as almost all are. */
function plain(line: Line, request: Asked): Answer {
  const reply: Reply = line.type === "error" ? { type: "error", code: "REPLY_BAD" } : parseReply(line.text);
  const passes = reply.type === "refused" && reply.code === 404 && request.mayBeUnknown;
  if (reply.type === "accepted" || passes) return { type: "accepted" };
  return { type: "refused", error: refusal(request.text, reply) };
}

/** Why there was no answer; a stream that was reset for a reason of its own says which, as it may be asked for again (PROTOCOL §9.3). */
function silence(request: Asked | undefined, code: number): FivedError {
  if (code === Code.NO_ERROR || code === Code.UNAVAILABLE)
    return new FivedError("SESSION_LOST", `Cannot open "${request?.text}": the peer closed without an answer`);
  const reason = codeName(code);
  return new FivedError("STREAM_RESET", `Cannot open "${request?.text}": it was reset with ${reason}`, { reason });
}

/** What a peer's answer means to a person, if it is no `+`. */
export function refusal(request: string, reply: Reply): FivedError {
  if (reply.type !== "refused")
    return new FivedError("PROTOCOL_ERROR", `Cannot open "${request}": the peer's answer is neither "+" nor "-"`);
  const status = statusOf(reply.code);
  const said = [reply.code, reply.text].filter((part) => part !== undefined && part !== "").join(" ");
  const why =
    reply.code === 404
      ? "no service of that name is visible to you; fived list shows what you may use there"
      : `the server says "${said}"`;
  return new FivedError("SERVICE_REFUSED", `Cannot open "${request}": ${why}`, { status });
}

/** Line codes that programs can branch on (PROTOCOL §3.5). */
const STATUSES: ReadonlySet<number> = new Set([
  403, 404, 408, 410, 421, 429, 500, 501, 502, 503, 504, 507, 508, 530, 554,
]);

/** The code of a refusal; one that this release does not know is read as 500 or 404, so that later ones may add some. */
function statusOf(code: number | undefined): number | undefined {
  if (code === undefined || STATUSES.has(code)) return code;
  return code > 499 ? 500 : 404;
}
