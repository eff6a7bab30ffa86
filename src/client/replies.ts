/**
 * The lines with which a peer answers our requests, in front of the bytes we asked for (PROTOCOL §3.4). They are read while what we send
 * is already under way: no round trip is spent on waiting for them.
 * @module
 */
import { type Channel, FivedError, type Receiver } from "../io/index.ts";
import { type Line, LineReader, parseReply } from "../wire/index.ts";

/** How a request was answered: with `+`, or why not. */
export type Answer = { readonly type: "accepted" } | { readonly type: "refused"; readonly error: FivedError };

/** A request that will be answered. */
export interface Asked {
  readonly text: string;
  /** `- 404` to it is no refusal: a server without that virtual host serves its default one, as servers without hosts do. */
  readonly mayBeUnknown?: true;
}

/**
 * Puts itself before a channel's receiver until so many requests were answered with `+`.
 * @param asked what was asked for, for messages: one line for each answer that is expected
 * @param answered is told once: of the last `+`, or of the first refusal, after which nothing more reaches the receiver
 * @param onward takes what stands behind the last answer, if that is not for the receiver
 */
export function expectReplies(
  channel: Channel,
  asked: readonly Asked[],
  answered: (answer: Answer) => void,
  onward?: (rest: Uint8Array) => void,
): void {
  const inner = channel.receiver;
  const lines = new LineReader();
  let left = [...asked];
  let over = false;
  const settle = (answer: Answer): void => {
    over = true;
    answered(answer);
  };
  const hear = (line: Line, request: Asked): void => {
    const reply = line.type === "error" ? { type: "error" as const } : parseReply(line.text);
    const passes = reply.type === "refused" && reply.code === 404 && request.mayBeUnknown;
    if (reply.type !== "accepted" && !passes) return settle({ type: "refused", error: refusal(request.text, reply) });
    left = left.slice(1);
    if (left.length === 0) settle({ type: "accepted" });
  };
  const filter: Receiver = {
    data(bytes) {
      if (over) return channel.consumed(bytes.length);
      lines.push(bytes.slice());
      for (let [request] = left; request !== undefined && !over; [request] = left) {
        const before = lines.buffered;
        const line = lines.next();
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
      if (!over) settle({ type: "refused", error: silence(left[0]) });
      else inner.end();
    },
    drained: () => inner.drained(),
    closed(code) {
      if (!over) settle({ type: "refused", error: silence(left[0]) });
      inner.closed(code);
    },
  };
  channel.receiver = filter;
}

function silence(request: Asked | undefined): FivedError {
  return new FivedError("SESSION_LOST", `Cannot open "${request?.text}": the peer closed without an answer`);
}

/** What a peer's `-` line means to a person. */
export function refusal(
  request: string,
  reply:
    | { readonly type: "error" }
    | { readonly type: "refused"; readonly code: number | undefined; readonly text: string },
): FivedError {
  if (reply.type === "error")
    return new FivedError("PROTOCOL_ERROR", `Cannot open "${request}": the peer's answer is neither "+" nor "-"`);
  const said = [reply.code, reply.text].filter((part) => part !== undefined && part !== "").join(" ");
  if (reply.code !== 404)
    return new FivedError("SERVICE_REFUSED", `Cannot open "${request}": the server says "${said}"`);
  const wayOut = "fived list shows what you may use there";
  return new FivedError(
    "SERVICE_REFUSED",
    `Cannot open "${request}": no service of that name is visible to you; ${wayOut}`,
  );
}
