/**
 * The embedded user store: people, their keys and passwords, and invites, in one file of JSON lines (`user-records.ts`) that only the
 * server may read. A running server keeps all of it in memory and looks every {@link LOOK_EVERY_MS} whether the file is another one: what
 * `fived user` or an editor has changed counts at once. A file that cannot be understood changes nothing, and a file that is gone means
 * that nobody is known.
 *
 * Changes are made by several processes: each takes the lock beside the file, reads it anew, and replaces it as a whole.
 * @module
 */
import { createHash, timingSafeEqual } from "node:crypto";
import { mkdir } from "node:fs/promises";
import { dirname, join, resolve } from "node:path";
import { isUserName } from "../../identity/index.ts";
import {
  type FileLock,
  FivedError,
  lockFile,
  privateFileVersion,
  readPrivateFile,
  replacePrivateFile,
} from "../../io/index.ts";
import type { Configuration } from "../config.ts";
import type { Log } from "../log.ts";
import type { User, Users } from "./mechanism.ts";
import { hashOfNothing, PASSWORD_COST, type PasswordCost, type PasswordHash, PasswordHasher } from "./password-hash.ts";
import {
  INVITES_MAX,
  type InviteRecord,
  keyLinesProblem,
  namesProblem,
  parseRecords,
  printRecords,
  type Records,
  TOTP_BYTES,
  USERS_MAX,
  type UserRecord,
} from "./user-records.ts";

/** Name of the store's file in the state folder, unless the configuration has another. */
export const USERS_FILE = "users";
/** Octets of a password: those of an answer in a dialogue (PROTOCOL §4.6.1). */
export const PASSWORD_BYTES_MAX = 1_024;

/** How a store is opened. */
export type UserStoreOptions = ({ readonly file: string } | { readonly folder: string }) & {
  readonly log: Log;
  /** What new passwords cost; the default is for servers, less is for tests. */
  readonly cost?: PasswordCost;
};

/** Somebody new. */
export interface NewUser {
  readonly name: string;
  readonly groups?: readonly string[];
  readonly roles?: readonly string[];
  readonly keys?: readonly string[];
  /** Stays the caller's to wipe. Without one he signs in by other means. */
  readonly password?: Uint8Array;
}

/** Somebody in a list. */
export interface ListedUser extends User {
  readonly hasPassword: boolean;
}

/**
 * The people of this server, and the way to change them. Every change is on the disk when its promise resolves; it rejects with `USER_BAD`,
 * `USER_EXISTS` or `USER_UNKNOWN`, with `USERS_UNREADABLE` rather than overwrite what it does not understand, and with `STATE_UNUSABLE`
 * when the file cannot be written.
 */
export interface UserStore extends Users {
  readonly file: string;
  /** Sees what another process has changed by now, instead of a moment later. Does not reject. */
  refresh(): Promise<void>;
  /** Everybody, by name. */
  list(): readonly ListedUser[];
  add(user: NewUser): Promise<void>;
  /** Removes him, and an invite for his name. */
  remove(name: string): Promise<void>;
  /** Without a password he can no longer sign in by one. The password stays the caller's to wipe. */
  setPassword(name: string, password: Uint8Array | undefined): Promise<void>;
  setKeys(name: string, keys: readonly string[]): Promise<void>;
  setGroups(name: string, groups: readonly string[]): Promise<void>;
  setRoles(name: string, roles: readonly string[]): Promise<void>;
  /** The secret of the second factor, 16 to 64 octets; undefined takes it away. */
  setTotp(name: string, secret: Uint8Array | undefined): Promise<void>;
  /** The invite for that name, its time over or not. */
  invite(name: string): InviteRecord | undefined;
  /** Every invite that nobody has redeemed, by name. */
  invites(): readonly InviteRecord[];
  /** Keeps an invite, in the place of an older one for the same name. */
  putInvite(invite: InviteRecord): Promise<void>;
  /**
   * Makes the invited person a user with that key, or adds the key to the user he is, and forgets the invite, in one step. Undefined if
   * there is no such invite any more: of several who redeem the same one, one succeeds.
   */
  redeemInvite(name: string, inviteKey: Uint8Array, keyLine: string, now: number): Promise<User | undefined>;
}

/** Octets of the file: more than all users with all their keys should have, and few enough to be read as a whole. */
const FILE_BYTES_MAX = 256 * 1024 * 1024;
/** How often the file is looked at: a few microseconds each, and unlike a watch it works for a file that is not there and on any disk. */
const LOOK_EVERY_MS = 200;

/** The store's file where a configuration says nothing else, or what it says: a relative path starts at the state folder. */
export function usersFileOf({ state, auth }: Pick<Configuration, "state" | "auth">): string {
  return resolve(state, auth.up.store ?? USERS_FILE);
}

/** Opens the store; its file need not exist yet. Rejects with `STATE_UNUSABLE` or `USERS_UNREADABLE`, which name the file and what is wrong. */
export async function openUsers(options: UserStoreOptions): Promise<UserStore> {
  const file = "file" in options ? options.file : join(options.folder, USERS_FILE);
  const store = new FileUsers(file, options.log, options.cost ?? PASSWORD_COST);
  await store.load();
  return store;
}

/** What was in the file when it was last understood. */
interface Content {
  readonly records: Records;
  /** SHA-256 of the text: another file with the same text is no change. */
  readonly digest: string;
}

const EMPTY: Content = { records: { users: new Map(), invites: new Map() }, digest: "" };

class FileUsers implements UserStore {
  readonly file: string;
  readonly #log: Log;
  readonly #cost: PasswordCost;
  readonly #hasher = new PasswordHasher();
  readonly #changed = new Set<() => void>();
  #content: Content = EMPTY;
  /** Where there is no password to verify, this is verified: as costly as most of those there are. */
  #nothing: PasswordHash;
  /** Version of the file that was last looked into, understood or not; "" for no file, undefined for one we have written since. */
  #seen: string | undefined = "";
  /** What was last said to be wrong with the file; "" if nothing is. */
  #complaint = "";
  /** Looks in a row that found no file: an editor that writes anew may leave none for a moment. */
  #absences = 0;
  #timer: NodeJS.Timeout | undefined;
  #nextLook: Promise<void> | undefined;
  #disposed = false;
  /** Reading and changing the file come one after another. */
  #turn: Promise<unknown> = Promise.resolve();

  constructor(file: string, log: Log, cost: PasswordCost) {
    this.file = file;
    this.#log = log;
    this.#cost = cost;
    this.#nothing = hashOfNothing(cost);
  }

  /** Reads the file for the first time, and begins to look after it. */
  async load(): Promise<void> {
    this.#install(await this.#read());
    this.#lookLater();
  }

  find(name: string): User | undefined {
    return this.#content.records.users.get(name)?.user;
  }

  async verify(name: string, password: Uint8Array): Promise<User | undefined> {
    const kept = this.#content.records.users.get(name)?.password;
    const right = await this.#hasher.verify(kept ?? this.#nothing, password);
    // Looked up again: he may be gone, or have another password, since we began to compute.
    const record = this.#content.records.users.get(name);
    return right && kept !== undefined && record?.password !== undefined && isSame(record.password, kept)
      ? record.user
      : undefined;
  }

  onChange(changed: () => void): () => void {
    const listener = () => changed(); // so that the same function may be given twice
    this.#changed.add(listener);
    return () => void this.#changed.delete(listener);
  }

  list(): readonly ListedUser[] {
    const users = [...this.#content.records.users.values()];
    return users
      .map(({ user, password }) => ({ ...user, hasPassword: password !== undefined }))
      .sort((one, other) => (one.name < other.name ? -1 : 1));
  }

  async add({ name, groups = [], roles = [], keys = [], password }: NewUser): Promise<void> {
    mustBeName(name);
    mustBeNames("groups", name, groups);
    mustBeNames("roles", name, roles);
    mustBeKeys(name, keys);
    const hash = password === undefined ? undefined : await this.#hashed(name, password);
    await this.#change(({ users }) => {
      if (users.has(name)) throw new FivedError("USER_EXISTS", `Cannot add "${name}": there is a user of that name`);
      if (users.size >= USERS_MAX)
        throw new FivedError(
          "USER_BAD",
          `Cannot add "${name}": there are ${users.size} users, the limit is ${USERS_MAX}`,
        );
      users.set(name, { user: { name, groups, roles, keys, totp: undefined }, password: hash });
    });
  }

  async remove(name: string): Promise<void> {
    await this.#change(({ users, invites }) => {
      const known = users.delete(name);
      if (!invites.delete(name) && !known) throw unknown(name);
    });
  }

  async setPassword(name: string, password: Uint8Array | undefined): Promise<void> {
    const hash = password === undefined ? undefined : await this.#hashed(name, password);
    await this.#alter(name, ({ user }) => ({ user, password: hash }));
  }

  async setKeys(name: string, keys: readonly string[]): Promise<void> {
    mustBeKeys(name, keys);
    await this.#alter(name, ({ user, password }) => ({ user: { ...user, keys }, password }));
  }

  async setGroups(name: string, groups: readonly string[]): Promise<void> {
    mustBeNames("groups", name, groups);
    await this.#alter(name, ({ user, password }) => ({ user: { ...user, groups }, password }));
  }

  async setRoles(name: string, roles: readonly string[]): Promise<void> {
    mustBeNames("roles", name, roles);
    await this.#alter(name, ({ user, password }) => ({ user: { ...user, roles }, password }));
  }

  async setTotp(name: string, secret: Uint8Array | undefined): Promise<void> {
    if (secret !== undefined && (secret.length < TOTP_BYTES.min || secret.length > TOTP_BYTES.max))
      throw new RangeError(
        `Cannot keep a secret of ${secret.length} octets: ${TOTP_BYTES.min} to ${TOTP_BYTES.max} fit`,
      );
    const totp = secret?.slice();
    await this.#alter(name, ({ user, password }) => ({ user: { ...user, totp }, password }));
  }

  invite(name: string): InviteRecord | undefined {
    return this.#content.records.invites.get(name);
  }

  invites(): readonly InviteRecord[] {
    return [...this.#content.records.invites.values()].sort((one, other) => (one.user < other.user ? -1 : 1));
  }

  async putInvite(invite: InviteRecord): Promise<void> {
    mustBeName(invite.user);
    mustBeNames("groups", invite.user, invite.groups);
    mustBeNames("roles", invite.user, invite.roles);
    await this.#change(({ users, invites }) => {
      if (users.has(invite.user) && invite.groups.length + invite.roles.length > 0) {
        const why = "there is a user of that name already, and an invite only adds a key to him";
        throw new FivedError("USER_EXISTS", `Cannot invite "${invite.user}" with groups or roles: ${why}`);
      }
      const now = Date.now();
      for (const [name, { expires }] of invites) if (expires <= now) invites.delete(name);
      if (invites.size >= INVITES_MAX && !invites.has(invite.user)) {
        const why = `${invites.size} invites wait to be redeemed, and that is the limit`;
        throw new FivedError("USER_BAD", `Cannot invite "${invite.user}": ${why}`);
      }
      invites.set(invite.user, invite);
    });
  }

  async redeemInvite(name: string, inviteKey: Uint8Array, keyLine: string, now: number): Promise<User | undefined> {
    return await this.#change(({ users, invites }) => {
      const invite = invites.get(name);
      if (invite === undefined || invite.expires <= now || !isEqual(invite.key, inviteKey)) return undefined;
      const record = users.get(name);
      const { groups, roles } = invite;
      const before: User = record?.user ?? { name, groups, roles, keys: [], totp: undefined };
      const user = { ...before, keys: before.keys.includes(keyLine) ? before.keys : [...before.keys, keyLine] };
      if (keyLinesProblem(user.keys) !== undefined || (record === undefined && users.size >= USERS_MAX))
        return undefined;
      users.set(name, { user, password: record?.password });
      invites.delete(name);
      return user;
    });
  }

  [Symbol.dispose](): void {
    this.#disposed = true;
    clearTimeout(this.#timer);
    this.#changed.clear();
  }

  async #hashed(name: string, password: Uint8Array): Promise<PasswordHash> {
    const why = passwordProblem(password);
    if (why !== undefined) throw new FivedError("USER_BAD", `Cannot use that password for "${name}": ${why}`);
    const hash = await this.#hasher.hash(password, this.#cost);
    if (hash === undefined)
      throw new FivedError("USER_BAD", `Cannot set the password of "${name}": too much waits, try again`);
    return hash;
  }

  async #alter(name: string, change: (record: UserRecord) => UserRecord): Promise<void> {
    await this.#change(({ users }) => {
      const record = users.get(name);
      if (record === undefined) throw unknown(name);
      users.set(name, change(record));
    });
  }

  /** Makes one change to the file as it is now; nothing is written if `edit` throws or changes nothing. */
  async #change<T>(edit: (records: Records) => T): Promise<T> {
    try {
      await mkdir(dirname(this.file), { recursive: true, mode: 0o700 });
      // Waited for outside our turn: while another process is slow, what it has written must be seen all the same.
      await using lock = await lockFile(`${this.file}.lock`);
      return await this.#inTurn(() => this.#edit(edit, lock));
    } catch (cause) {
      if (cause instanceof FivedError) throw cause;
      throw new FivedError("STATE_UNUSABLE", `Cannot change the users in ${this.file}: ${reason(cause)}`, { cause });
    }
  }

  async #edit<T>(edit: (records: Records) => T, lock: FileLock): Promise<T> {
    const read = await this.#read();
    this.#install(read); // whatever becomes of this change, others' changes count
    const { records, digest } = read;
    const draft = { users: new Map(records.users), invites: new Map(records.invites) };
    const result = edit(draft);
    const text = printRecords(draft);
    const content = { records: draft, digest: digestOf(text) };
    if (content.digest !== digest) {
      await lock.stillHeld();
      await replacePrivateFile(this.file, text);
      this.#seen = undefined; // so that it is looked into, even if it goes away again before we have looked once
    }
    this.#install(content);
    return result;
  }

  async #inTurn<T>(act: () => Promise<T>): Promise<T> {
    const result = this.#turn.then(act);
    this.#turn = result.catch(() => {}); // its own caller hears of it
    return await result;
  }

  async #read(): Promise<Content> {
    const read = await readPrivateFile(this.file, FILE_BYTES_MAX).catch((cause: unknown) => {
      throw new FivedError("STATE_UNUSABLE", `Cannot use the users in ${this.file}: ${reason(cause)}`, { cause });
    });
    this.#seen = read?.version ?? "";
    if (read === undefined) return EMPTY;
    const digest = digestOf(read.content);
    if (digest === this.#content.digest) return this.#content;
    const records = parseRecords(utf8(read.content) ?? "\ufffd", this.#content.records);
    if (!("code" in records)) return { records, digest };
    const { line, message } = records;
    throw new FivedError("USERS_UNREADABLE", `Cannot understand the users in ${this.file}, line ${line}: ${message}`);
  }

  #install(content: Content): void {
    if (content.digest === this.#content.digest) return;
    this.#content = content;
    this.#nothing = hashOfNothing(usualCost(content.records) ?? this.#cost);
    for (const changed of this.#changed) {
      try {
        changed();
      } catch (error) {
        this.#log.error({ error, file: this.file }, "cannot follow a change of the users");
      }
    }
  }

  refresh(): Promise<void> {
    // Whoever asks while others wait for a look sees what that one will see.
    this.#nextLook ??= this.#inTurn(() => {
      this.#nextLook = undefined;
      return this.#look("asked");
    });
    return this.#nextLook;
  }

  #lookLater(): void {
    if (this.#disposed) return;
    this.#timer = setTimeout(() => {
      void this.#inTurn(() => this.#look()).then(() => this.#lookLater()); // does not reject
    }, LOOK_EVERY_MS).unref();
  }

  /** Takes over what others have done to the file. */
  async #look(when: "in time" | "asked" = "in time"): Promise<void> {
    try {
      const version = (await privateFileVersion(this.file)) ?? "";
      if (version === "" && when === "asked") return; // looks in a row say something by the time between them
      this.#absences = version === "" ? this.#absences + 1 : 0;
      if (version === this.#seen || this.#absences === 1 || this.#disposed) return;
      const before = this.#content;
      this.#install(await this.#read());
      if (version === "") this.#log.warn({ file: this.file }, "the file of the users is gone, and so are they");
      else if (this.#content !== before)
        this.#log.info({ file: this.file, count: this.#content.records.users.size }, "read the users again");
      this.#complaint = "";
    } catch (error) {
      // Said once, however long it stays wrong. It is tried again all the same: descriptors may be short, or a disk away for a moment.
      if (this.#complaint === reason(error)) return;
      this.#complaint = reason(error);
      this.#log.error({ error, file: this.file }, "cannot read the users again, those known before stay");
    }
  }
}

/** What most passwords of the store cost, so that nothing costs the same as something. */
function usualCost({ users }: Records): PasswordCost | undefined {
  const counts = new Map<string, { readonly cost: PasswordCost; count: number }>();
  for (const { password } of users.values()) {
    if (password === undefined) continue;
    const name = `${password.memoryKiB} ${password.passes} ${password.lanes}`;
    const entry = counts.get(name) ?? { cost: password, count: 0 };
    entry.count++;
    counts.set(name, entry);
  }
  let usual: { readonly cost: PasswordCost; readonly count: number } | undefined;
  for (const entry of counts.values()) if (entry.count > (usual?.count ?? 0)) usual = entry;
  return usual?.cost;
}

function mustBeName(name: string): void {
  if (isUserName(name)) return;
  const why = "a name has 1 to 64 of a-z 0-9 . _ -, the first a letter or digit";
  throw new FivedError("USER_BAD", `Cannot use "${name}" as the name of a user: ${why}`);
}

function mustBeNames(what: "groups" | "roles", name: string, names: readonly string[]): void {
  const why = namesProblem(names);
  if (why !== undefined) throw new FivedError("USER_BAD", `Cannot give "${name}" these ${what}: ${why}`);
}

function mustBeKeys(name: string, keys: readonly string[]): void {
  const why = keyLinesProblem(keys);
  if (why !== undefined) throw new FivedError("USER_BAD", `Cannot give "${name}" these keys: ${why}`);
}

/** Why a password could never be typed in a dialogue (PROTOCOL §4.6.1). */
function passwordProblem(password: Uint8Array): string | undefined {
  if (password.length === 0) return "it is empty";
  if (password.length > PASSWORD_BYTES_MAX)
    return `it has ${password.length} octets, the limit is ${PASSWORD_BYTES_MAX}`;
  return [0x00, 0x0a, 0x0d].some((octet) => password.includes(octet)) ? "it holds a NUL, CR or LF" : undefined;
}

function unknown(name: string): FivedError {
  return new FivedError("USER_UNKNOWN", `Cannot find "${name}": there is no user of that name`);
}

function isSame(one: PasswordHash, other: PasswordHash): boolean {
  return one === other || (isEqual(one.tag, other.tag) && isEqual(one.salt, other.salt));
}

function isEqual(one: Uint8Array, other: Uint8Array): boolean {
  return one.length === other.length && timingSafeEqual(one, other);
}

function digestOf(text: string | Uint8Array): string {
  return createHash("sha256").update(text).digest("base64");
}

/** The text, if it is well-formed UTF-8. */
function utf8(content: Buffer): string | undefined {
  try {
    return new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(content);
  } catch {
    return undefined;
  }
}

function reason(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}
