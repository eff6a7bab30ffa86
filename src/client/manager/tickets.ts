/**
 * Tickets of the sessions that a manager holds, in its folder: one file each, so that the next manager can go on with them when this one is killed (decision 0029). Whoever
 * can read them has the sessions: they are as private as the socket beside them.
 * @module
 */
import { mkdir, readdir, rm } from "node:fs/promises";
import { dirname, join } from "node:path";
import { SECRET_BYTES, SID_BYTES } from "../../identity/index.ts";
import { readPrivateFile, replacePrivateFile } from "../../io/index.ts";
import { type KeptSession, nameOf, type TicketKeeper } from "../kept.ts";

/** A file is a line of JSON. */
const FILE_BYTES_MAX = 4_096;
/** Nobody comes for what has not been asked for in so long: no server keeps a session longer for a manager. */
const UNASKED_MS = 15 * 60_000;

/** Those of one manager. */
export class Tickets implements TicketKeeper, Disposable {
  readonly #folder: string;
  readonly #log: (line: string) => void;
  /** What is done to each file, one thing after the other. */
  readonly #doing = new Map<string, Promise<void>>();
  /** Of those that a manager before has left, what nobody has asked for. */
  #left: Set<string> = new Set();
  #unasked: NodeJS.Timeout | undefined;

  /** @param socket of the manager, in a folder that is ours alone */
  constructor(socket: string, log: (line: string) => void) {
    this.#folder = join(dirname(socket), "sessions");
    this.#log = log;
  }

  /** Looks what a manager before has left; to be called once. */
  async open(): Promise<void> {
    await mkdir(this.#folder, { recursive: true, mode: 0o700 });
    this.#left = new Set(await readdir(this.#folder));
    this.#unasked = setTimeout(() => {
      for (const name of this.#left) void rm(join(this.#folder, name), { force: true });
    }, UNASKED_MS).unref();
  }

  async keep(session: KeptSession): Promise<void> {
    const name = nameOf(session.ticket.sid);
    await this.#do(name, (file) => replacePrivateFile(file, printed(session)));
  }

  forget(sid: Uint8Array): void {
    this.#do(nameOf(sid), (file) => rm(file, { force: true })).catch((error: unknown) =>
      this.#log(`cannot remove a ticket: ${error instanceof Error ? error.message : error}`),
    );
  }

  /** The session of that name; undefined where there is no ticket for it that can be believed. */
  async take(name: string): Promise<KeptSession | undefined> {
    this.#left.delete(name);
    let kept: KeptSession | undefined;
    await this.#do(name, async (file) => {
      const found = await readPrivateFile(file, FILE_BYTES_MAX);
      kept = found === undefined ? undefined : read(found.content.toString("utf8"));
    });
    return kept !== undefined && nameOf(kept.ticket.sid) === name ? kept : undefined;
  }

  [Symbol.dispose](): void {
    clearTimeout(this.#unasked);
  }

  async #do(name: string, act: (file: string) => Promise<void>): Promise<void> {
    const before = this.#doing.get(name);
    const now = (before ?? Promise.resolve()).catch(() => {}).then(() => act(join(this.#folder, name)));
    this.#doing.set(name, now);
    try {
      await now;
    } finally {
      if (this.#doing.get(name) === now) this.#doing.delete(name);
    }
  }
}

function printed({ address, fingerprint, ticket, ttlMs, reached, identity }: KeptSession): string {
  const { sid, generation, secret } = ticket;
  const octets = { session: nameOf(sid), secret: Buffer.from(secret).toString("base64url") };
  return `${JSON.stringify({ version: 1, address, key: fingerprint, ...octets, generation, keep: ttlMs, reached, identity })}\n`;
}

function read(text: string): KeptSession | undefined {
  let said: unknown;
  try {
    said = JSON.parse(text);
  } catch {
    return undefined;
  }
  if (typeof said !== "object" || said === null) return undefined;
  const { version, address, key, session, secret, generation, keep, reached, identity } = said as Record<
    string,
    unknown
  >;
  if (version !== 1 || typeof address !== "string" || typeof key !== "string" || typeof generation !== "number")
    return undefined;
  const [sid, octets] = [octetsOf(session, SID_BYTES), octetsOf(secret, SECRET_BYTES)];
  if (sid === undefined || octets === undefined || typeof keep !== "number") return undefined;
  return {
    address,
    fingerprint: key,
    ticket: { sid, generation, secret: octets },
    ttlMs: keep,
    reached: isReached(reached) ? reached : undefined,
    identity: typeof identity === "string" ? identity : undefined,
  };
}

function octetsOf(value: unknown, bytes: number): Uint8Array | undefined {
  if (typeof value !== "string") return undefined;
  const octets = Buffer.from(value, "base64url");
  return octets.length === bytes ? octets : undefined;
}

function isReached(value: unknown): value is KeptSession["reached"] {
  return typeof value === "object" && value !== null && "host" in value && "port" in value;
}
