/**
 * A detached session as text: what `fived detach` prints, and `fived attach` reads on another computer. Whoever has it has the session, so it is a secret,
 * and it is good once: attaching makes another ticket (PROTOCOL §4.8).
 * @module
 */
import type { Ticket } from "../identity/index.ts";
import { FivedError } from "../io/index.ts";
import type { SessionState } from "../session/index.ts";
import { isServiceName } from "../wire/index.ts";
import type { DetachedText } from "./detached-schema.ts";

/** A session without a process. */
export interface DetachedSession {
  /** Where its server is. */
  readonly address: string;
  /** `SHA256:…` of the server's key. */
  readonly fingerprint: string;
  readonly ticket: Ticket;
  /** For how long the server keeps it without a connection, in milliseconds; and so when it forgets it at the latest, in milliseconds since 1970. */
  readonly ttlMs: number;
  readonly expires: number;
  readonly state: SessionState;
}

/** One of its streams, for people to look at. */
export interface DetachedStream {
  readonly id: number;
  readonly service: string;
  /** Octets that the service has taken, and that it has said, so far. */
  readonly sent: number;
  readonly received: number;
}

/** What every token begins with. */
const PREFIX = "fived-session:";
/** Characters of a token at most; a session with 100 streams has some 20,000. */
const TOKEN_CHARACTERS_MAX = 1_000_000;
/** The token of a session. */
export function printDetached({ address, fingerprint, ticket, ttlMs, expires, state }: DetachedSession): string {
  const { lastTaken, streams, ...counts } = state;
  const contents: DetachedText = {
    version: 1,
    address,
    key: fingerprint,
    session: Buffer.from(ticket.sid).toString("base64url"),
    generation: ticket.generation,
    secret: Buffer.from(ticket.secret).toString("base64url"),
    keep: ttlMs,
    expires,
    ...counts,
    ...(lastTaken === undefined ? {} : { lastTaken }),
    streams: streams.map(({ request, ...stream }) => ({ ...stream, request: Buffer.from(request).toString("latin1") })),
    reset: counts.reset.map(([id, octets]) => [id, octets]),
  };
  return PREFIX + Buffer.from(JSON.stringify(contents)).toString("base64url");
}

/** Reads a token; blanks around it are no mistake. Rejects with TOKEN_BAD for what is none, and for one whose time is over. */
export async function parseDetached(text: string, now: number): Promise<DetachedSession> {
  const { detachedSchema: schema } = await import("./detached-schema.ts"); // its library is large, and hardly any process needs it
  const said = text.length <= TOKEN_CHARACTERS_MAX ? text.trim() : "";
  const { success, data } = schema.safeParse(
    said.startsWith(PREFIX) ? contentsOf(said.slice(PREFIX.length)) : undefined,
  );
  if (!success)
    throw new FivedError(
      "TOKEN_BAD",
      `Cannot attach: this is no token of a detached session, which begins with ${PREFIX}`,
    );
  const { address, key, session, generation, secret, keep, expires, lastTaken, streams, ...counts } = data;
  if (expires <= now)
    throw new FivedError(
      "TOKEN_BAD",
      `Cannot attach: the server has kept the session until ${new Date(expires).toISOString()}`,
    );
  const { sent, received, limit, nextStream, peer, reset } = counts;
  return {
    address,
    fingerprint: key,
    ticket: { sid: session, generation, secret },
    ttlMs: keep,
    expires,
    state: {
      ...{ sent, received, limit, nextStream, lastTaken, peer, reset },
      streams: streams.map(({ request, ...stream }) => ({ ...stream, request: Buffer.from(request, "latin1") })),
    },
  };
}

/** Streams that are open, in the order in which they were opened. */
export function detachedStreams({ streams }: Pick<SessionState, "streams">): DetachedStream[] {
  return streams.map(({ id, request, sent, received }) => ({ id, service: serviceOf(request), sent, received }));
}

function serviceOf(request: Uint8Array): string {
  const [word = ""] = Buffer.from(request).toString("latin1").split(" ");
  return isServiceName(word) ? word : "?";
}

function contentsOf(text: string): unknown {
  try {
    return JSON.parse(Buffer.from(text, "base64url").toString("utf8"));
  } catch {
    return undefined;
  }
}
