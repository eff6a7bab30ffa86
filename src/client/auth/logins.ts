/**
 * Where somebody has signed in, as whom, and how: `logins.yaml` in a person's state folder, or this process's own memory. It says whom to
 * sign in as where nobody was named (`fived login`), which key to try first, and that a key was used before, so that a password is not
 * asked for without a word once the server takes no keys any more (abuse case A12). No secret stands in it.
 *
 * A file that cannot be read is never an empty one: whoever could make it unreadable could otherwise have us ask for passwords.
 * @module
 */
import { constants, statSync } from "node:fs";
import { mkdir, open, realpath } from "node:fs/promises";
import { dirname } from "node:path";
import { FivedError } from "../../io/index.ts";
import { lockFile, replaceFile } from "../own-file.ts";
import { CLIENT_MECHANISMS, type ClientMechanism } from "./options.ts";

/** How somebody signed in. */
export interface Way {
  readonly mechanism: ClientMechanism;
  /** Fingerprint of the key that the server took last. It stays when a password was used after it. */
  readonly key?: string;
  /** File of that key, where it is none that is looked for anyway. */
  readonly keyFile?: string;
  /** Host in force when it was; empty for the default host. */
  readonly host: string;
  /** The key, or the certificate, was all that was asked for: AUTH and what follows may travel in one flight. */
  readonly ahead: boolean;
}

/** What is known of one server. */
export interface ServerLogins {
  /** Whom to sign in as where nobody was named. */
  readonly user: string | undefined;
  readonly ways: ReadonlyMap<string, Way>;
}

/** Servers are named as in known_hosts. */
export interface Logins {
  /** Rejects with STATE_UNUSABLE when that cannot be found out. */
  find(server: string): Promise<ServerLogins>;
  /** Keeps how `user` signed in; with `stay`, he is whom to sign in as from now on. Rejects with STATE_UNUSABLE. */
  keep(server: string, user: string, way: Way, stay?: "stay"): Promise<void>;
  /** Forgets a server; false when nothing was known of it. */
  forget(server: string): Promise<boolean>;
}

/** Octets of a logins file: thousands of servers. */
export const LOGINS_BYTES_MAX = 1_048_576;
/** Servers kept in a process's memory; beyond it the oldest is forgotten, and met as if for the first time. */
const SERVERS_MAX = 1_000;
/** Users kept for one server, for the same reason. */
const WAYS_MAX = 100;

type Book = Map<string, ServerLogins>;

const NOTHING: ServerLogins = { user: undefined, ways: new Map() };

/** Logins of this process alone. */
export function loginsInMemory(): Logins {
  const book: Book = new Map();
  return {
    find: async (server) => book.get(server) ?? NOTHING,
    async keep(server, user, way, stay) {
      note(book, server, user, way, stay);
    },
    forget: async (server) => book.delete(server),
  };
}

/** Logins in a file, which need not exist yet. */
export function loginsIn(file: string): Logins {
  async function change(act: (book: Book) => boolean): Promise<boolean> {
    try {
      await mkdir(dirname(file), { recursive: true, mode: 0o700 });
      const target = await realpath(file).catch(() => file);
      await using _lock = await lockFile(target);
      const book = await read(file);
      if (!act(book)) return false;
      await replaceFile(target, Buffer.from(await printed(book)));
      return true;
    } catch (cause) {
      if (cause instanceof FivedError) throw cause;
      throw unusable(file, cause, "make it writable");
    }
  }
  return {
    find: async (server) => (await latest(file)).get(server) ?? NOTHING,
    async keep(server, user, way, stay) {
      if (isKept(await read(file), server, user, way, stay)) return; // the rule: nothing is written when all goes as ever
      await change((book) => {
        note(book, server, user, way, stay);
        return true;
      });
    },
    forget: (server) => change((book) => book.delete(server)),
  };
}

/** Files as they were read last: a program may open thousands of streams a second, and each asks whom to be. */
const lately = new Map<string, { readonly seen: string; readonly book: Book }>();

async function latest(file: string): Promise<Book> {
  const seen = seenOf(file);
  const known = lately.get(file);
  if (known !== undefined && known.seen === seen) return known.book;
  const book = await read(file);
  if (seen !== undefined) lately.set(file, { seen, book });
  return book;
}

/** What changes when a file does; undefined where it cannot be looked at, which reading it will tell. */
function seenOf(file: string): string | undefined {
  try {
    const stat = statSync(file, { bigint: true, throwIfNoEntry: false });
    return stat === undefined ? "none" : `${stat.ino} ${stat.size} ${stat.mtimeNs} ${stat.ctimeNs}`;
  } catch {
    return undefined;
  }
}

function note(book: Book, server: string, user: string, way: Way, stay: "stay" | undefined): void {
  const before = book.get(server) ?? NOTHING;
  const ways = new Map(before.ways);
  ways.delete(user);
  ways.set(user, way.key === undefined ? { ...keyOf(before.ways.get(user)), ...way } : way);
  trim(ways, WAYS_MAX);
  book.delete(server);
  book.set(server, { user: stay === undefined ? before.user : user, ways });
  trim(book, SERVERS_MAX);
}

/** Which key it was, and where it lies. */
function keyOf({ key, keyFile }: Partial<Way> = {}): Pick<Way, "key" | "keyFile"> {
  return { ...(key === undefined ? {} : { key }), ...(keyFile === undefined ? {} : { keyFile }) };
}

function isKept(book: Book, server: string, user: string, way: Way, stay: "stay" | undefined): boolean {
  const before = book.get(server);
  const kept = before?.ways.get(user);
  if (kept === undefined || (stay !== undefined && before?.user !== user)) return false;
  return (
    kept.mechanism === way.mechanism &&
    (way.key === undefined || (kept.key === way.key && kept.keyFile === way.keyFile)) &&
    kept.host === way.host &&
    kept.ahead === way.ahead
  );
}

/** Forgets what was noted first. */
function trim(map: Map<string, unknown>, max: number): void {
  for (const first of map.keys()) {
    if (map.size <= max) return;
    map.delete(first);
  }
}

const HEAD = `# Where I have signed in with fived, as whom and how. "user" is whom to sign in as where none is named: see fived login and logout.\n`;

async function printed(book: Book): Promise<string> {
  const { stringify } = await import("yaml");
  const servers = new Map<string, object>();
  for (const [server, { user, ways }] of book) servers.set(server, user === undefined ? { ways } : { user, ways });
  return HEAD + stringify({ servers });
}

async function read(file: string): Promise<Book> {
  let text: string;
  try {
    await using handle = await open(file, constants.O_RDONLY | constants.O_NONBLOCK);
    const found = await handle.stat();
    if (!found.isFile()) throw new Error("it is not a regular file");
    if (found.size > LOGINS_BYTES_MAX) throw new Error(`it is larger than ${LOGINS_BYTES_MAX} bytes`);
    text = await handle.readFile("utf8");
  } catch (cause) {
    if (cause instanceof Error && "code" in cause && cause.code === "ENOENT") return new Map();
    throw unusable(file, cause, REPAIR);
  }
  const { parse } = await import("yaml"); // a process that signs in nowhere never pays for it
  let value: unknown;
  try {
    value = parse(text, { mapAsMap: true, maxAliasCount: 0 });
  } catch (cause) {
    throw unusable(file, cause, REPAIR);
  }
  const book = bookOf(value);
  if (book === undefined) throw unusable(file, new Error("it is not as fived writes it"), REPAIR);
  return book;
}

const REPAIR = "repair it, or move it away and sign in anew";

function bookOf(value: unknown): Book | undefined {
  if (value === null) return new Map();
  if (!(value instanceof Map)) return undefined;
  const servers: unknown = value.get("servers");
  if (!(servers instanceof Map)) return undefined;
  const book: Book = new Map();
  for (const [server, known] of servers) {
    if (!isName(server) || !(known instanceof Map)) return undefined;
    const user: unknown = known.get("user");
    const written: unknown = known.get("ways");
    if (!(user === undefined || isName(user)) || !(written instanceof Map)) return undefined;
    const ways = new Map<string, Way>();
    for (const [name, entry] of written) {
      const way = wayOf(entry);
      if (!isName(name) || way === undefined) return undefined;
      ways.set(name, way);
    }
    book.set(server, { user, ways });
  }
  return book;
}

function wayOf(value: unknown): Way | undefined {
  if (!(value instanceof Map)) return undefined;
  const mechanism: unknown = value.get("mechanism");
  const key: unknown = value.get("key");
  const keyFile: unknown = value.get("keyFile");
  const host: unknown = value.get("host");
  const ahead: unknown = value.get("ahead");
  if (!isMechanism(mechanism)) return undefined;
  if (!(key === undefined || isName(key)) || !(keyFile === undefined || typeof keyFile === "string")) return undefined;
  if (typeof host !== "string" || typeof ahead !== "boolean") return undefined;
  return {
    mechanism,
    ...(key === undefined ? {} : { key }),
    ...(keyFile === undefined ? {} : { keyFile }),
    host,
    ahead,
  };
}

function isMechanism(value: unknown): value is ClientMechanism {
  return CLIENT_MECHANISMS.some((name) => name === value);
}

/** What may stand as a name: without blanks and controls. */
function isName(value: unknown): value is string {
  return typeof value === "string" && /^[^\s\p{C}]{1,512}$/u.test(value);
}

function unusable(file: string, cause: unknown, wayOut: string): FivedError {
  const why = cause instanceof Error ? cause.message.split("\n")[0] : String(cause);
  return new FivedError("STATE_UNUSABLE", `Cannot use the logins in ${file}: ${why}; ${wayOut}`, { cause });
}
