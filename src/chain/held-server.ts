/**
 * Another session server, reached as a client: one session that is opened when the first stream needs it, kept while none does, and opened
 * again when it was lost, sooner or later (docs/chaining.md). A server that nobody vouches for is not talked to, and nobody is asked.
 *
 * ```
 *           session()                 opened                 lost
 *   idle ─────────────▶ connecting ─────────────▶ ready ─────────────▶ waiting ──▶ connecting, after 0.5 s, 1 s, 2 s … a minute, more or less
 * ```
 * @module
 */
import { createHash } from "node:crypto";
import { join } from "node:path";
import {
  type Address,
  type AuthOptions,
  type ConnectOptions,
  loginsInMemory,
  parseAddress,
  type ServiceOpener,
  SessionPool,
  signerOf,
  sshKeys,
} from "../client/index.ts";
import { ChannelDuplex, FivedError, readPrivateFile } from "../io/index.ts";
import type { FarServer, FarSession, Hop, Log } from "../server/index.ts";

/** First wait before a lost session is opened again; each failure doubles it. */
const BACK_OFF_MS = 500;
const BACK_OFF_MS_MAX = 60_000;
/** A session that nobody has used for so long is not opened again. */
const WARM_MS = 60 * 60_000;
/** Octets of a file with a password. */
const PASSWORD_FILE_BYTES_MAX = 4_096;

/** Failures of the way, after which another try may do better. */
const PASSING: ReadonlySet<string> = new Set(["RESOLVE_FAILED", "CONNECT_FAILED", "TIMEOUT", "SESSION_LOST"]);

/** Holds the session with one server as one user. */
export class HeldServer implements FarServer {
  readonly #hop: Hop;
  readonly #log: Log;
  readonly #pool: SessionPool;
  #usedAt = performance.now();
  #failures = 0;
  #waiting: NodeJS.Timeout | undefined;
  #retired = false;

  constructor(hop: Hop, log: Log) {
    this.#hop = hop;
    this.#log = log;
    const address = parseAddress(hop.server);
    const options = optionsFor(hop, address, (line) =>
      log.info({ target: hop.server, reason: line }, "another server"),
    );
    this.#pool = new SessionPool(address, options, (error) => this.#lost(error), "ends-when-closed");
  }

  async session(): Promise<FarSession> {
    this.#usedAt = performance.now();
    clearTimeout(this.#waiting); // somebody wants it now
    this.#waiting = undefined;
    return farSession(await this.#opened());
  }

  retire(): void {
    this.#retired = true;
    clearTimeout(this.#waiting);
    for (const session of this.#pool.sessions) session.close().catch(() => {}); // its streams are told
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#retired = true;
    clearTimeout(this.#waiting);
    await this.#pool[Symbol.asyncDispose]();
  }

  #opened(): Promise<ServiceOpener> {
    return new Promise((resolve, reject) => {
      const met = (session: ServiceOpener): void => {
        this.#failures = 0;
        resolve(session);
      };
      this.#pool.use(met).catch(reject);
    });
  }

  #lost(error: unknown): void {
    if (this.#retired || error === undefined) return;
    this.#log.warn({ target: this.#hop.server, reason: reasonOf(error) }, "the session with another server is lost");
    if (isPassing(error)) this.#reopenLater();
  }

  #reopenLater(): void {
    if (this.#retired || this.#waiting !== undefined || performance.now() - this.#usedAt > WARM_MS) return;
    const longest = Math.min(BACK_OFF_MS * 2 ** this.#failures, BACK_OFF_MS_MAX);
    this.#failures++;
    // Not all servers of an organisation at once when the one they need is back.
    this.#waiting = setTimeout(() => void this.#reopen(), longest * (0.5 + Math.random() / 2)).unref();
  }

  async #reopen(): Promise<void> {
    this.#waiting = undefined;
    try {
      await this.#opened();
      if (this.#retired) await this[Symbol.asyncDispose]();
    } catch (error) {
      if (isPassing(error)) this.#reopenLater();
      else this.#log.warn({ target: this.#hop.server, reason: reasonOf(error) }, "another server cannot be reached");
    }
  }
}

function farSession(session: ServiceOpener): FarSession {
  const { binding } = session;
  if (binding === undefined) throw new Error("Invariant: other servers are reached inside TLS");
  return {
    binding,
    open: (service, via, signal) =>
      new Promise((resolve, reject) => {
        if (!session.openable) return reject(full(service));
        const stream = new ChannelDuplex();
        const abort = (): void => void stream.destroy(new FivedError("ABORTED", `Gave up opening "${service}"`));
        stream.once("connect", () => {
          signal.removeEventListener("abort", abort);
          resolve(stream);
        });
        // Stays for good: what breaks later says so with "close" too, and an error that nobody hears would end the process.
        stream.on("error", reject);
        stream.once("close", () => {
          signal.removeEventListener("abort", abort);
          reject(new FivedError("SESSION_LOST", `Cannot open "${service}": it was closed before it was answered`));
        });
        signal.addEventListener("abort", abort);
        if (signal.aborted) abort();
        else session.openOn(stream, service, { via });
      }),
    async list(via, service) {
      if (!session.openable) throw full("LIST");
      return await session.list(service, { via });
    },
  };
}

/** Others were faster; a stream that was not taken up may be asked for again (PROTOCOL §9.3). */
function full(request: string): FivedError {
  return new FivedError("STREAM_RESET", `Cannot open "${request}": the session takes no more streams`, {
    reason: "REFUSED",
  });
}

/** How to connect: with nobody to ask, and no trust but what the configuration grounds it on. */
function optionsFor({ settings, server, state }: Hop, address: Address, log: (line: string) => void): ConnectOptions {
  const { key, knownHosts, ca } = settings;
  // A file for each key that was configured: another one is no change to be refused, but the administrator's word.
  const own = join(
    state,
    "hops",
    createHash("sha256")
      .update(JSON.stringify([server, key]))
      .digest("hex"),
  );
  const options: ConnectOptions = {
    knownHosts: knownHosts ?? own,
    strictHostKeyChecking: "yes",
    log,
    ...(key === undefined ? {} : { expectedKey: key }),
    ...(ca === undefined || ca === "system" ? {} : { ca }),
  };
  return address.user === undefined ? options : { ...options, auth: authFor(address.user, settings) };
}

function authFor(user: string, { identity, password }: Hop["settings"]): AuthOptions {
  return {
    user,
    logins: loginsInMemory(),
    mechanisms: [
      ...(identity === undefined ? [] : (["pubkey"] as const)),
      ...(password === undefined ? [] : (["up"] as const)),
    ],
    ...(identity === undefined ? {} : { signers: () => signersIn(identity) }),
    ...(password === undefined ? {} : { password: (question, shown) => passwordIn(password, question, shown) }),
  };
}

async function signersIn(file: string) {
  const keys = await sshKeys({ identityFiles: [file], identitiesOnly: true, folder: file });
  return keys.map((key) => signerOf(key, { identityFiles: [file] }));
}

/** The password: the file's first line. Rejects where somebody else could read it, and where something else is asked. */
async function passwordIn(file: string, question: string, shown: boolean): Promise<Uint8Array> {
  if (shown) throw unusable(file, `the other server asks "${question}", and there is nobody to answer`);
  const read = await readPrivateFile(file, PASSWORD_FILE_BYTES_MAX).catch((cause: unknown) => {
    throw unusable(file, reasonOf(cause), cause);
  });
  if (read === undefined) throw unusable(file, "there is no such file");
  const end = read.content.findIndex((octet) => octet === 0x0a || octet === 0x0d);
  const line = Uint8Array.from(end < 0 ? read.content : read.content.subarray(0, end));
  read.content.fill(0);
  return line;
}

function unusable(file: string, why: string, cause?: unknown): FivedError {
  return new FivedError("AUTH_IMPOSSIBLE", `Cannot sign in with the password in ${file}: ${why}`, { cause });
}

function isPassing(error: unknown): boolean {
  return error instanceof FivedError && PASSING.has(error.code);
}

function reasonOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}
