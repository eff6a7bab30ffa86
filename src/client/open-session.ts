/**
 * Opens sessions, and goes on with those that another process has left.
 * @module
 */
import type { Duplex } from "node:stream";
import { type Address, hostLine, parseAddress } from "./address.ts";
import { authOf, signIn } from "./auth/authenticate.ts";
import { BareSession } from "./bare-session.ts";
import { type DetachedStream, detachedStreams, parseDetached } from "./detached.ts";
import { type ConnectOptions, dial } from "./dial.ts";
import { MultiplexedSession, type Start } from "./multiplexed-session.ts";
import type { ServiceOpener, Session } from "./session.ts";

/** Opens a session; rejects as {@link dial} does. */
export async function openSession(
  address: Address,
  options: ConnectOptions,
  lifetime: "ends-when-closed" | "ends-when-idle" = "ends-when-closed",
): Promise<ServiceOpener> {
  const auth = authOf(address, options);
  const start =
    auth === undefined
      ? options.tls !== "off" && (await asNobody(address, options))
      : await signIn(address, options, auth);
  if (start === false) return new BareSession(address, options);
  return new MultiplexedSession(address, start, options, lifetime === "ends-when-idle");
}

/** A session that another process has left, and its streams that are open. */
export interface AttachedSession {
  readonly session: Session;
  readonly streams: readonly AttachedStream[];
}

/** One of them: what comes next on `stream` is the octet behind the last that had come, and what is written goes behind what was sent. */
export interface AttachedStream extends DetachedStream {
  readonly stream: Duplex;
}

/**
 * Goes on with a session that another process has left (paper section 3.1.7). Rejects with TOKEN_BAD for what is no token, or one whose time is over, with SESSION_LOST where
 * the server does not know the session any more, and as {@link connect} does.
 * @example
 * const { session, streams } = await attach(await readFile("token", "utf8"), {});
 * streams[0]?.stream.pipe(process.stdout);
 */
export async function attach(token: string, options: ConnectOptions = {}): Promise<AttachedSession> {
  const detached = await parseDetached(token, Date.now());
  const { fingerprint, state } = detached;
  const address = parseAddress(detached.address);
  // A try, so that what is wrong with the way or with trust is told; the second one is the session's.
  const first = await dial(address, { ...options, expectedKey: fingerprint });
  first.socket.destroy();
  const session = new MultiplexedSession(address, detached, { ...options, expectedKey: fingerprint }, false);
  const streams = detachedStreams(state).map((each) => ({ ...each, stream: session.adopt(each.id) }));
  try {
    await session.attached;
  } catch (error) {
    for (const { stream } of streams) stream.on("error", () => {}).destroy();
    throw error;
  }
  return { session, streams };
}

async function asNobody(address: Address, options: ConnectOptions): Promise<Start> {
  const dialled = await dial(address, options);
  const host = dialled.vouched ? hostLine(address) : undefined;
  const ahead = host === undefined ? [] : [{ text: `HOST ${host}`, mayBeUnknown: true as const }];
  return { dialled, ahead, identity: Promise.resolve(undefined) };
}
