/**
 * The ways to the origin, from the client's end: how each is taken cold and warm, and how a conversation is had on it.
 * @module
 */
import { spawn } from "node:child_process";
import { once } from "node:events";
import { readFileSync } from "node:fs";
import { Agent, request } from "node:https";
import { connect as connectSocket } from "node:net";
import { userInfo } from "node:os";
import type { Readable, Writable } from "node:stream";
import {
  type ConnectOptions,
  connect,
  loginsInMemory,
  type Session,
  signerOf,
  sshKeys,
} from "../../src/client/index.ts";
import { SERVER_ADDRESS } from "./link.ts";
import { ANSWER_BYTES, filesIn, PORTS, SERVICES, sshArguments, type Times, USER, type WayName } from "./site.ts";

/** What an answer may take at the most, in milliseconds: the slowest way needs a second. */
const ANSWER_TIMEOUT_MS = 15_000;

/** A conversation with the origin. */
export interface Conversation {
  readonly from: Readable;
  readonly to: Writable;
  /** Ends it, and what was opened for it. */
  close(): Promise<void>;
}

/** One way. */
export interface Way {
  /** Times an answer on a new connection or session. */
  cold?(): Promise<Times>;
  /** Times an answer on what is there. */
  warm?(): Promise<Times>;
  /** One more conversation on what is there; where nothing is to be shared, on a connection of its own. */
  converse?(): Promise<Conversation>;
}

/** The ways, with what they keep open. */
export interface Ways extends AsyncDisposable {
  readonly way: Readonly<Record<WayName, Way>>;
}

/** The ways from here; nothing is opened until it is used. */
export function waysOf(folder: string): Ways {
  const files = filesIn(folder);
  const stack = new AsyncDisposableStack();

  const dial = (host: string, port: number) => async (): Promise<Conversation> => {
    const socket = connectSocket({ host, port, noDelay: true });
    socket.on("error", () => {}); // whoever waits for octets hears of "close"
    return {
      from: socket,
      to: socket,
      async close() {
        socket.destroy();
      },
    };
  };
  const far = dial(SERVER_ADDRESS, PORTS.origin);
  const nearSsh = dial("127.0.0.1", PORTS.near.ssh);

  let kept: Promise<Conversation> | undefined;
  async function keptTcp(): Promise<Times> {
    kept ??= far().then((conversation) => {
      stack.defer(() => conversation.close());
      return conversation;
    });
    try {
      return await answer(await kept, performance.now());
    } catch (error) {
      kept = undefined;
      throw error;
    }
  }

  const options: ConnectOptions = { knownHosts: files.fivedKnownHosts, strictHostKeyChecking: "yes" };
  const address = `${SERVER_ADDRESS}:${PORTS.fived}`;
  const keys = { identityFiles: [files.userKey], identitiesOnly: true, agent: undefined, folder };
  const signedIn: ConnectOptions = {
    ...options,
    auth: {
      user: USER,
      mechanisms: ["pubkey"],
      logins: loginsInMemory(),
      signers: async () => (await sshKeys(keys)).map((key) => signerOf(key, keys)),
    },
  };
  const streamOf = (session: Session, service: string, close: () => Promise<void>): Conversation => {
    const stream = session.open(service);
    stream.on("error", () => {});
    return {
      from: stream,
      to: stream,
      async close() {
        stream.destroy();
        await close();
      },
    };
  };
  const newSession = (service: string, chosen: ConnectOptions) => async (): Promise<Conversation> => {
    const session = await connect(address, chosen);
    return streamOf(session, service, async () => session[Symbol.asyncDispose]());
  };
  let session: Promise<Session> | undefined;
  async function keptSession(): Promise<Session> {
    session ??= connect(address, signedIn).then((opened) => {
      const forget = (): void => {
        session = undefined;
      };
      opened.closed.then(forget, forget);
      stack.use(opened);
      return opened;
    });
    session.catch(() => {
      session = undefined;
    });
    return session;
  }
  const newStream = async (): Promise<Conversation> => streamOf(await keptSession(), SERVICES.private, async () => {});

  const agent = new Agent({ keepAlive: true, maxSockets: 1 });
  stack.defer(() => agent.destroy());

  return {
    way: {
      tcp: { cold: () => timed(far), warm: keptTcp, converse: far },
      https: { cold: () => timedHttps(files.certificate, false), warm: () => timedHttps(files.certificate, agent) },
      stunnel: { cold: () => timed(dial("127.0.0.1", PORTS.near.stunnel)) },
      haproxy: { cold: () => timed(dial("127.0.0.1", PORTS.near.haproxy)) },
      ssh: { cold: () => timed(sshProcess(folder)), warm: () => timed(nearSsh), converse: nearSsh },
      bare: { cold: () => timed(newSession(SERVICES.open, { ...options, tls: "off" })) },
      "bare-waiting": { cold: () => timed(newSession(SERVICES.open, { ...options, tls: "off", pipeline: false })) },
      fived: {
        cold: () => timed(newSession(SERVICES.private, signedIn)),
        warm: () => timed(newStream),
        converse: newStream,
      },
    },
    [Symbol.asyncDispose]: () => stack.disposeAsync(),
  };
}

/** Opens, asks, takes the time of the answer, and closes. */
async function timed(open: () => Promise<Conversation>): Promise<Times> {
  const began = performance.now();
  const conversation = await open();
  try {
    return await answer(conversation, began);
  } finally {
    await conversation.close();
  }
}

async function answer({ from, to }: Conversation, began: number): Promise<Times> {
  to.write(`${ANSWER_BYTES}\n`);
  return await arrival(from, began);
}

/** When the octets of an answer are here; the stream can be used for another one then. */
async function arrival(from: Readable, began: number): Promise<Times> {
  let octets = 0;
  let first = Number.NaN;
  let thousandth = Number.NaN;
  const { promise, resolve, reject } = Promise.withResolvers<Times>();
  const take = (chunk: Uint8Array): void => {
    const ms = performance.now() - began;
    if (octets === 0) first = ms;
    if (octets < 1_000 && octets + chunk.length >= 1_000) thousandth = ms;
    octets += chunk.length;
    if (octets >= ANSWER_BYTES) resolve({ first, thousandth, millionth: ms });
  };
  const gone = (): void => reject(new Error(`the conversation ended after ${octets} octets`, { cause: from.errored }));
  const timer = setTimeout(
    () => reject(new Error(`${octets} octets came within ${ANSWER_TIMEOUT_MS} ms`)),
    ANSWER_TIMEOUT_MS,
  );
  from.on("data", take).once("close", gone);
  try {
    return await promise;
  } finally {
    clearTimeout(timer);
    from.off("data", take).off("close", gone);
  }
}

/** As programs do it that speak HTTP; the octets of the answer's head do not count. */
async function timedHttps(certificate: string, agent: Agent | false): Promise<Times> {
  const began = performance.now();
  const asked = request({
    ...{ host: SERVER_ADDRESS, port: PORTS.https, path: "/million", agent, ca: readOnce(certificate) },
    minVersion: "TLSv1.3",
  });
  asked.end();
  const [response] = (await once(asked, "response")) as [Readable];
  const times = await arrival(response, began);
  if (!response.readableEnded) await once(response, "end"); // an agent has its connection back then
  return times;
}

let read: Buffer | undefined;

function readOnce(file: string): Buffer {
  read ??= readFileSync(file);
  return read;
}

/** There is no other way to begin a new session of ssh than a process, so its start is in the figure. */
function sshProcess(folder: string): () => Promise<Conversation> {
  return async () => {
    const to = `127.0.0.1:${PORTS.origin}`;
    const child = spawn("ssh", [...sshArguments(folder, userInfo().username), "-W", to, SERVER_ADDRESS], {
      stdio: ["pipe", "pipe", "ignore"],
    });
    const exited = once(child, "exit");
    child.stdin.on("error", () => {});
    return {
      from: child.stdout,
      to: child.stdin,
      async close() {
        child.kill();
        await exited;
      },
    };
  };
}
