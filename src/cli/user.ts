/**
 * `fived user`: the people of the embedded user store. Works on the store's file, whether a server runs or not; one that runs sees each
 * change within half a second.
 * @module
 */
import fs from "node:fs";
import os from "node:os";
import { styleText } from "node:util";
import { Command } from "commander";
import { FivedError } from "../io/index.ts";
import type { InviteRecord, ListedUser, UserStore } from "../server/index.ts";
import { newPassword } from "./new-password.ts";
import { serverOption } from "./server-flags.ts";
import { collected, configurationOf, openStore, type ServerFlags } from "./user-store.ts";
import type { Verb } from "./verb.ts";

interface PersonFlags extends ServerFlags {
  readonly group?: readonly string[];
  readonly role?: readonly string[];
  readonly key?: readonly string[];
}

/** The verb `user`. */
export const user: Verb = (ended) => {
  /** What a subcommand does with the store; it has done it when it returns. */
  const doing = async (flags: ServerFlags, act: (store: UserStore) => Promise<void> | void): Promise<void> => {
    using store = await openStore(await configurationOf(flags));
    await act(store);
    ended(0);
  };
  return new Command("user")
    .description("add, change, remove and list the people of the user store")
    .addCommand(
      person("add", "add a user")
        .option("--no-password", "no password: keys or a certificate are the way in")
        .action((name: string, flags: PersonFlags & { readonly password: boolean }) =>
          doing(flags, (store) => add(store, name, flags)),
        ),
    )
    .addCommand(
      person("set", "replace the groups, roles or keys of a user; an empty value takes all away").action(
        (name: string, flags: PersonFlags) => doing(flags, (store) => set(store, name, flags)),
      ),
    )
    .addCommand(
      about("remove", "remove a user, and an invite for that name").action((name: string, flags: ServerFlags) =>
        doing(flags, (store) => store.remove(name)),
      ),
    )
    .addCommand(
      of(new Command("list").description("list users and invites"))
        .option("--json", "print JSON")
        .action((flags: ServerFlags & { readonly json?: boolean }) =>
          doing(flags, (store) => void process.stdout.write(listed(store, flags.json === true))),
        ),
    )
    .addCommand(
      about("passwd", "set the password of a user")
        .option("--no-password", "take the password away instead")
        .action((name: string, flags: ServerFlags & { readonly password: boolean }) =>
          doing(flags, (store) => setPassword(store, name, flags.password)),
        ),
    )
    .addCommand(
      about("totp", "give a user a second factor, and print it for an authenticator program")
        .option("--issuer <name>", "how the program calls this server", os.hostname())
        .option("--off", "take the second factor away instead")
        .action((name: string, flags: ServerFlags & { readonly issuer: string; readonly off?: boolean }) =>
          doing(flags, (store) => setSecondFactor(store, name, flags)),
        ),
    );
};

function of(command: Command): Command {
  return command.addOption(serverOption("config")).addOption(serverOption("state"));
}

function about(verb: string, description: string): Command {
  return of(new Command(verb).description(description).argument("<name>", "name of the user"));
}

function person(verb: string, description: string): Command {
  return about(verb, description)
    .option("-g, --group <name>", "a group; may be repeated", collected)
    .option("-r, --role <name>", "a role; may be repeated", collected)
    .option("-k, --key <file>", "public keys, a line each as in authorized_keys; may be repeated", collected);
}

async function add(store: UserStore, name: string, flags: PersonFlags & { readonly password: boolean }): Promise<void> {
  const { group = [], role = [], key = [] } = flags;
  const keys = await keysIn(key);
  // Nobody shall think of a password, and type it twice, for a user that there is already.
  if (store.find(name) !== undefined)
    throw new FivedError("USER_EXISTS", `Cannot add "${name}": there is a user of that name`);
  const password = flags.password ? await passwordFor(name) : undefined;
  try {
    await store.add({ name, groups: group, roles: role, keys, ...(password === undefined ? {} : { password }) });
  } finally {
    password?.fill(0);
  }
}

async function set(store: UserStore, name: string, { group, role, key }: PersonFlags): Promise<void> {
  mustBeKnown(store, name);
  const keys = key === undefined ? undefined : await keysIn(key.filter(isFilled));
  if (group !== undefined) await store.setGroups(name, group.filter(isFilled));
  if (role !== undefined) await store.setRoles(name, role.filter(isFilled));
  if (keys !== undefined) await store.setKeys(name, keys);
}

async function setPassword(store: UserStore, name: string, wanted: boolean): Promise<void> {
  mustBeKnown(store, name);
  const password = wanted ? await passwordFor(name) : undefined;
  try {
    await store.setPassword(name, password);
  } finally {
    password?.fill(0);
  }
}

async function setSecondFactor(
  store: UserStore,
  name: string,
  { issuer, off = false }: { readonly issuer: string; readonly off?: boolean },
): Promise<void> {
  const found = mustBeKnown(store, name);
  if (off) return await store.setTotp(name, undefined);
  if (found.totp !== undefined) {
    const why = "there is one already, and its program would no longer work; --off takes it away first";
    throw new FivedError("USER_EXISTS", `Cannot give "${name}" a second factor: ${why}`);
  }
  const { newSecondFactor } = await import("../server/index.ts");
  const { secret, url } = newSecondFactor(name, issuer);
  await store.setTotp(name, secret);
  secret.fill(0);
  process.stdout.write(`${url}\n`);
}

async function passwordFor(name: string): Promise<Uint8Array> {
  const { PASSWORD_BYTES_MAX } = await import("../server/index.ts");
  return await newPassword(name, PASSWORD_BYTES_MAX);
}

function mustBeKnown(store: UserStore, name: string) {
  const found = store.find(name);
  if (found === undefined) throw new FivedError("USER_UNKNOWN", `Cannot find "${name}": there is no user of that name`);
  return found;
}

function isFilled(text: string): boolean {
  return text !== "";
}

/** Octets of a file of keys: hundreds of them. */
const KEY_FILE_BYTES_MAX = 1024 * 1024;

/** The lines of keys in these files, without comments; each has to be one that would be believed. */
async function keysIn(files: readonly string[]): Promise<readonly string[]> {
  const { readAuthorizedKeys } = await import("../server/index.ts");
  return files.flatMap((file) => {
    const lines = textOf(file).split(/\r?\n/);
    const [wrong] = readAuthorizedKeys(lines).useless;
    const found = lines.map((line) => line.trim()).filter((line) => line !== "" && !line.startsWith("#"));
    if (wrong === undefined && found.length > 0) return found;
    const why =
      wrong === undefined
        ? "there is none"
        : found[0]?.startsWith("-----BEGIN")
          ? "it is a private key; name the file beside it that ends in .pub"
          : `line ${wrong.line}: ${wrong.reason}`;
    throw new FivedError("USER_BAD", `Cannot use the keys in ${file}: ${why}`);
  });
}

function textOf(file: string): string {
  try {
    if (fs.statSync(file).size > KEY_FILE_BYTES_MAX) throw new Error(`it is larger than ${KEY_FILE_BYTES_MAX} bytes`);
    return fs.readFileSync(file, "utf8");
  } catch (cause) {
    const why = cause instanceof Error ? cause.message : String(cause);
    throw new FivedError("USER_BAD", `Cannot use the keys in ${file}: ${why}`, { cause });
  }
}

function listed(store: UserStore, json: boolean): string {
  const users = store.list();
  const invites = store.invites();
  if (json) return `${JSON.stringify({ users: users.map(userJson), invites: invites.map(inviteJson) })}\n`;
  if (!process.stdout.isTTY) return users.map(({ name }) => `${name}\n`).join("");
  const rows = [
    ["USER", "GROUPS", "ROLES", "SIGNS IN BY"],
    ...users.map((each) => [each.name, each.groups.join(" "), each.roles.join(" "), waysIn(each)]),
    ...invites.map((each) => [each.user, each.groups.join(" "), each.roles.join(" "), waysInOf(each)]),
  ];
  const widths = [0, 1, 2].map((column) => Math.max(...rows.map((row) => row[column]?.length ?? 0)));
  const lines = rows.map((row) =>
    row
      .map((cell, column) => cell.padEnd(widths[column] ?? 0))
      .join("  ")
      .trimEnd(),
  );
  return lines.map((line, at) => `${at === 0 ? styleText("bold", line) : line}\n`).join("");
}

function userJson({ name, groups, roles, keys, hasPassword, totp }: ListedUser): object {
  return { name, groups, roles, keys, password: hasPassword, secondFactor: totp !== undefined };
}

function inviteJson({ user: name, groups, roles, expires }: InviteRecord): object {
  return { name, groups, roles, expires: new Date(expires).toISOString() };
}

function waysIn({ keys, hasPassword, totp }: ListedUser): string {
  const ways = [
    ...(hasPassword ? ["password"] : []),
    ...(keys.length > 0 ? [`${keys.length} ${keys.length === 1 ? "key" : "keys"}`] : []),
  ];
  const factor = totp === undefined ? "" : " and a code";
  return ways.length === 0 ? "nothing here" : `${ways.join(" or ")}${factor}`;
}

function waysInOf({ expires }: InviteRecord): string {
  return `invite, ${expires <= Date.now() ? "over since" : "until"} ${new Date(expires).toISOString()}`;
}
