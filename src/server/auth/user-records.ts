/**
 * The text of the user store: JSON lines, one for each user and then one for each invite, sorted by name, so that an administrator can
 * read them and a `diff` shows what changed. Text to values and back, and what is well-formed; the file itself is `users.ts`'s business.
 *
 * ```
 * {"user":"alice","groups":["staff"],"roles":["ops"],"password":"$argon2id$v=19$…","totp":"JBSW…","keys":["ssh-ed25519 AAAA… laptop"]}
 * {"invite":"bob","roles":["guest"],"key":"mFzK…","expires":"2026-01-31T12:00:00.000Z"}
 * ```
 * @module
 */
import { Secret } from "otpauth";
import { isUserName } from "../../identity/index.ts";
import { isServiceName } from "../../wire/index.ts";
import type { User } from "./mechanism.ts";
import { type PasswordHash, parsePasswordHash, printPasswordHash } from "./password-hash.ts";

/** Somebody as the store keeps him. */
export interface UserRecord {
  readonly user: User;
  readonly password: PasswordHash | undefined;
}

/** An invite that nobody has redeemed yet. */
export interface InviteRecord {
  readonly user: string;
  readonly groups: readonly string[];
  readonly roles: readonly string[];
  /** What proves it (`inviteKey` of identity/). */
  readonly key: Uint8Array;
  /** By the wall clock, in milliseconds. */
  readonly expires: number;
}

/** All that a store holds, by name. */
export interface Records {
  readonly users: Map<string, UserRecord>;
  readonly invites: Map<string, InviteRecord>;
}

/** What is wrong in a store's text, and where; lines count from 1. */
export interface RecordError {
  readonly code: "USERS_UNREADABLE";
  readonly line: number;
  readonly message: string;
}

/** People of one server; more is a directory's business, and is read as a whole at every change. */
export const USERS_MAX = 100_000;
/** Invites that wait to be redeemed; the ones whose time is over are dropped. */
export const INVITES_MAX = 10_000;
/** Groups, and roles, of one person: they travel to back ends in a header. */
export const NAMES_MAX = 128;
/** Keys of one person; each is looked at when he signs in. */
export const KEYS_MAX = 64;
/** Characters of a key's line: an RSA key of 16,384 bits and options, as OpenSSH takes them. */
export const KEY_CHARACTERS_MAX = 8_192;
/** Octets of a second factor's secret: RFC 4226 §4 asks for 16, and no program takes more than a hash has. */
export const TOTP_BYTES = { min: 16, max: 64 } as const;

/** What is wrong with groups or roles, to stand behind "because"; undefined if nothing is. */
export function namesProblem(names: readonly string[]): string | undefined {
  if (names.length > NAMES_MAX) return `there are ${names.length}, the limit is ${NAMES_MAX}`;
  const wrong = names.find((name) => !isServiceName(name));
  return wrong === undefined ? undefined : `"${wrong}" is no name: 1 to 64 of A-Z a-z 0-9 . _ + -`;
}

/** What is wrong with the form of lines of keys; whether a key is any good is seen when it is used. */
export function keyLinesProblem(lines: readonly string[]): string | undefined {
  if (lines.length > KEYS_MAX) return `there are ${lines.length} keys, the limit is ${KEYS_MAX}`;
  const wrong = lines.findIndex(
    (line) => line.length > KEY_CHARACTERS_MAX || !/^\P{Cc}*[^\p{Cc}\s]\P{Cc}*$/u.test(line),
  );
  return wrong < 0 ? undefined : `key ${wrong + 1} is no line of at most ${KEY_CHARACTERS_MAX} characters`;
}

/** The second factor's secret as authenticator programs want it. */
export function printTotp(secret: Uint8Array): string {
  return new Secret({ buffer: Uint8Array.from(secret).buffer }).base32;
}

/**
 * Reads a store's text. Nothing is skipped: of a line that says something else than its writer meant, nobody knows what it grants. Lines
 * that stood in `before`, too, are taken from there, since most of a store is as it was.
 */
export function parseRecords(text: string, before: Records = NO_RECORDS): Records | RecordError {
  const records: Records = { users: new Map(), invites: new Map() };
  const known = new Map([...before.users.values(), ...before.invites.values()].map((each) => [LINES.get(each), each]));
  let line = 0;
  for (const each of text.split("\n")) {
    line++;
    if (each.trim() === "") continue;
    const message = take(each, known.get(each), records);
    if (message !== undefined) return { code: "USERS_UNREADABLE", line, message };
  }
  return records;
}

/** The text of a store; the same records are the same text. */
export function printRecords({ users, invites }: Records): string {
  const lines = [...sorted(users), ...sorted(invites)].map((record) => LINES.get(record) ?? printed(record));
  return lines.map((line) => `${line}\n`).join("");
}

const NO_RECORDS: Records = { users: new Map(), invites: new Map() };

/** The line that a record was read from, or printed as. Records are never changed, only replaced. */
const LINES = new WeakMap<UserRecord | InviteRecord, string>();

function printed(record: UserRecord | InviteRecord): string {
  const line = JSON.stringify("password" in record ? userFields(record) : inviteFields(record));
  LINES.set(record, line);
  return line;
}

function userFields({ user, password }: UserRecord): object {
  return {
    user: user.name,
    groups: filled(user.groups),
    roles: filled(user.roles),
    password: password && printPasswordHash(password),
    totp: user.totp && printTotp(user.totp),
    keys: filled(user.keys),
  };
}

function inviteFields({ user, groups, roles, key, expires }: InviteRecord): object {
  return {
    invite: user,
    groups: filled(groups),
    roles: filled(roles),
    key: Buffer.from(key).toString("base64url"),
    expires: new Date(expires).toISOString(),
  };
}

/** A field of a line that is wrong. */
class FieldError extends Error {}

/** Adds what a line says, which is `known` if it was read before; answers what is wrong with it. */
function take(text: string, known: UserRecord | InviteRecord | undefined, records: Records): string | undefined {
  try {
    const record = known ?? recordOf(fieldsOf(text));
    LINES.set(record, text);
    if ("password" in record) put(record.user.name, record, records.users, USERS_MAX, "users");
    else put(record.user, record, records.invites, INVITES_MAX, "invites");
    return undefined;
  } catch (error) {
    if (error instanceof FieldError) return error.message;
    throw error;
  }
}

function put<T>(name: string, record: T, into: Map<string, T>, max: number, what: string): void {
  if (into.has(name)) fail(`"${name}" stands there twice`);
  if (into.size >= max) fail(`there are more than ${max} ${what}`);
  into.set(name, record);
}

function recordOf(fields: Map<string, unknown>): UserRecord | InviteRecord {
  const kind = fields.has("invite") ? "invite" : "user";
  const name = string(fields, kind) ?? fail(`expected the name of a "user" or an "invite"`);
  if (!isUserName(name)) fail(`"${name.slice(0, 80)}" is no name: 1 to 64 of a-z 0-9 . _ -, first a letter or digit`);
  const record = kind === "user" ? userRecord(name, fields) : inviteRecord(name, fields);
  for (const field of fields.keys()) fail(`unknown field "${field.slice(0, 80)}"`);
  return record;
}

function userRecord(name: string, fields: Map<string, unknown>): UserRecord {
  const groups = names(fields, "groups");
  const roles = names(fields, "roles");
  const hash = string(fields, "password");
  const password =
    hash === undefined ? undefined : (parsePasswordHash(hash) ?? fail("expected an argon2id hash as password"));
  const base32 = string(fields, "totp");
  const totp =
    base32 === undefined ? undefined : (parseTotp(base32) ?? fail("expected 16 to 64 octets in base32 as totp"));
  const keys = strings(fields, "keys");
  const problem = keyLinesProblem(keys);
  if (problem !== undefined) fail(problem);
  return { user: { name, groups, roles, keys, totp }, password };
}

function inviteRecord(user: string, fields: Map<string, unknown>): InviteRecord {
  const groups = names(fields, "groups");
  const roles = names(fields, "roles");
  const text = string(fields, "key") ?? "";
  const key = Buffer.from(text, "base64url");
  if (key.length !== 32 || key.toString("base64url") !== text) fail("expected 32 octets in base64url as key");
  const expires = Date.parse(string(fields, "expires") ?? "");
  if (Number.isNaN(expires)) fail("expected a time such as 2026-01-31T12:00:00Z as expires");
  return { user, groups, roles, key, expires };
}

function fieldsOf(text: string): Map<string, unknown> {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch {
    fail("expected a JSON object");
  }
  if (typeof value !== "object" || value === null || Array.isArray(value)) fail("expected a JSON object");
  return new Map(Object.entries(value));
}

/** Takes a field out; undefined where it is not there. */
function string(fields: Map<string, unknown>, name: string): string | undefined {
  const value = fields.get(name);
  if (fields.delete(name) && typeof value !== "string") fail(`expected a string as ${name}`);
  return typeof value === "string" ? value : undefined;
}

function strings(fields: Map<string, unknown>, name: string): readonly string[] {
  const value = fields.get(name) ?? [];
  fields.delete(name);
  if (!Array.isArray(value) || !value.every((each) => typeof each === "string")) fail(`expected strings as ${name}`);
  return value;
}

function names(fields: Map<string, unknown>, field: string): readonly string[] {
  const found = strings(fields, field);
  const problem = namesProblem(found);
  return problem === undefined ? found : fail(`${field}: ${problem}`);
}

function parseTotp(text: string): Uint8Array | undefined {
  if (!/^[A-Z2-7]{26,103}$/.test(text)) return undefined;
  const octets = Secret.fromBase32(text).bytes;
  if (octets.length < TOTP_BYTES.min || octets.length > TOTP_BYTES.max) return undefined;
  return printTotp(octets) === text ? octets : undefined;
}

function fail(message: string): never {
  throw new FieldError(message);
}

function sorted<T>(records: ReadonlyMap<string, T>): readonly T[] {
  return [...records].sort(([one], [other]) => (one < other ? -1 : 1)).map(([, record]) => record);
}

/** An empty list is not worth its place. */
function filled(list: readonly string[]): readonly string[] | undefined {
  return list.length === 0 ? undefined : list;
}
