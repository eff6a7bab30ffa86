/**
 * `fived pam-helper`: asks PAM as root for a server that is not root. It takes connections at a Unix socket, one for each attempt, starts a
 * process for each that asks PAM, and passes on what the two say, in turns. Who may connect is the business of the socket's mode (0660) and
 * of its folder's; what is passed on is checked here as well.
 * @module
 */
import { createServer, type Server, type Socket } from "node:net";
import { dirname } from "node:path";
import { isUserName } from "../../identity/index.ts";
import { FivedError, removeStale } from "../../io/index.ts";
import type { Log } from "../log.ts";
import { PamLink } from "./pam-link.ts";
import {
  PAM_ATTEMPT_MS_MAX,
  PAM_ATTEMPTS_MAX,
  PAM_SILENT_MS_MAX,
  type PamService,
  pamProblem,
  startAttempt,
} from "./pam-process.ts";
import { PamFrameReader, type PamMessage, parseRequest, printFrame, printMessage } from "./pam-protocol.ts";
import { folderProblem } from "./pam-socket.ts";

/** What others may not do with the socket: only root, or who runs this, and its group may write to it. */
const OTHERS_ON_SOCKET = 0o117;

/** Where the helper is reached, and what it asks. */
export interface PamHelperOptions extends PamService {
  /** Path of its socket. */
  readonly socket: string;
  readonly log: Log;
  /** A PAM that says nothing for so long hangs; {@link PAM_SILENT_MS_MAX} unless said otherwise. */
  readonly silentMs?: number;
}

/** Listens. Rejects with `CONFIGURATION_BAD` where PAM cannot be asked, and `LISTEN_FAILED` where the socket cannot be there. */
export async function servePam(options: PamHelperOptions): Promise<AsyncDisposable> {
  const why = await pamProblem(options);
  if (why !== undefined)
    throw new FivedError("CONFIGURATION_BAD", `Cannot ask PAM as the service "${options.service}": ${why}`);
  const folder = await folderProblem(dirname(options.socket));
  if (folder !== undefined) throw new FivedError("LISTEN_FAILED", `Cannot listen on ${options.socket}: ${folder}`);
  await removeStale(options.socket);
  const helper = new PamHelper(options);
  await helper.listen();
  return helper;
}

class PamHelper implements AsyncDisposable {
  readonly #options: PamHelperOptions;
  readonly #log: Log;
  readonly #server: Server;
  readonly #sockets = new Set<Socket>();

  constructor(options: PamHelperOptions) {
    this.#options = options;
    this.#log = options.log;
    this.#server = createServer((socket) => this.#accept(socket));
  }

  async listen(): Promise<void> {
    const path = this.#options.socket;
    const { promise, resolve, reject } = Promise.withResolvers<void>();
    this.#server.once("error", (cause) =>
      reject(new FivedError("LISTEN_FAILED", `Cannot listen on ${path}: ${cause.message}`, { cause })),
    );
    // The socket is made in this call, and has its mode from the first moment on.
    const before = process.umask(OTHERS_ON_SOCKET);
    this.#server.listen(path, resolve);
    process.umask(before);
    await promise;
    this.#server.on("error", (error) => this.#log.warn({ error }, "cannot accept a connection"));
  }

  /** Ends all attempts, and removes the socket. */
  async [Symbol.asyncDispose](): Promise<void> {
    const { promise, resolve } = Promise.withResolvers<void>();
    this.#server.close(() => resolve());
    for (const socket of this.#sockets) socket.destroy();
    await promise;
  }

  #accept(socket: Socket): void {
    socket.on("error", () => {}); // "close" follows, and is what counts
    this.#sockets.add(socket);
    const late = setTimeout(() => socket.destroy(), PAM_ATTEMPT_MS_MAX);
    socket.once("close", () => {
      clearTimeout(late);
      this.#sockets.delete(socket);
    });
    void this.#attend(socket); // never rejects
  }

  /** One attempt, from the first word of its process to the last. */
  async #attend(socket: Socket): Promise<void> {
    const server = new PamLink(socket, new PamFrameReader());
    const say = (message: PamMessage): void => {
      if (message.type === "broken") this.#log.error({ reason: message.why }, "PAM cannot be asked");
      server.send(printMessage(message));
    };
    if (this.#sockets.size > PAM_ATTEMPTS_MAX) {
      say({ type: "broken", why: `${PAM_ATTEMPTS_MAX} attempts run already` });
      return server.end();
    }
    const attempt = await startAttempt(this.#options).catch((error: Error) => error);
    if (attempt instanceof Error) {
      say({ type: "broken", why: attempt.message });
      return server.end();
    }
    socket.once("close", () => attempt.destroy("the server has left"));
    if (socket.destroyed) attempt.destroy("the server has left");
    await this.#relay(attempt, server, say);
    attempt.destroy("the attempt is over");
    server.end();
  }

  async #relay(
    attempt: PamLink<PamMessage>,
    server: PamLink<Uint8Array>,
    say: (message: PamMessage) => void,
  ): Promise<void> {
    const { silentMs = PAM_SILENT_MS_MAX } = this.#options;
    for (let begun = false; ; begun = true) {
      const message = await attempt.next(silentMs);
      if (server.why !== undefined) return;
      if (message === undefined) return say({ type: "broken", why: attempt.why ?? "it ended" });
      if (message.type !== "broken" && begun === (message.type === "ready"))
        return say({ type: "broken", why: "it says something out of turn" });
      say(message);
      if (message.type === "tell") continue;
      if (message.type !== "ready" && message.type !== "ask") return;
      const frame = await server.next(begun ? PAM_ATTEMPT_MS_MAX : silentMs);
      if (frame === undefined) return;
      // The first is who it is about; whoever holds the socket must not send PAM what is no name.
      const request = begun ? undefined : parseRequest(frame);
      if (!begun && (request === undefined || !isUserName(request.user)))
        return say({ type: "broken", why: "the request cannot be read" });
      attempt.send(printFrame(frame));
      frame.fill(0);
    }
  }
}
