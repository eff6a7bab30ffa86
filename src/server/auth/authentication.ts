/**
 * The ways in that a server offers, as its configuration has them (PROTOCOL §4.6): which mechanisms there are, whether a second factor is
 * asked for, and who is still known.
 * @module
 */
import { readFile } from "node:fs/promises";
import { resolve } from "node:path";
import { parsePublicKeyLine } from "../../identity/index.ts";
import { FivedError } from "../../io/index.ts";
import type { Configuration } from "../config.ts";
import type { Log } from "../log.ts";
import type { AuthSettings } from "../schema.ts";
import { readAuthorities } from "./authorized-keys.ts";
import { CertificateMechanism, findingOf } from "./cert.ts";
import { InviteMechanism } from "./invites.ts";
import { keyFiles } from "./key-files.ts";
import type { Exchange, Finding, Identity, Mechanism, MechanismName } from "./mechanism.ts";
import { PamPasswords } from "./pam.ts";
import { socketProblem } from "./pam-socket.ts";
import type { PasswordSource } from "./password-source.ts";
import { PubkeyMechanism } from "./pubkey.ts";
import { SecondFactor } from "./second-factor.ts";
import { StorePasswords } from "./store-passwords.ts";
import { PasswordMechanism } from "./up.ts";
import { openUsers, USERS_FILE, type UserStore } from "./users.ts";

/** What AUTH goes by. */
export interface Authentication extends Disposable {
  /** AUTH acts outside TLS too: the administrator said so. */
  readonly plaintext: boolean;
  /** The mechanism of that name, if it is offered. */
  mechanism(name: string): Mechanism | undefined;
  /**
   * Who it is that a mechanism has found. Asks for a second factor where there has to be one, or the person has one; undefined when that
   * is not given.
   */
  identify(finding: Finding, mechanism: MechanismName, exchange: Exchange): Promise<Identity | undefined>;
  /** Who shows that certificate, where that alone is enough; undefined otherwise. */
  automatic(certificate: Exchange["certificate"]): Identity | undefined;
  /** Who an identity is now: with the groups and roles of today; undefined when nobody is known by it any more. */
  current(identity: Identity): Identity | undefined;
  /** Called after people were added, changed or removed. */
  onChange(changed: () => void): void;
  /** A mechanism threw instead of finding anything. */
  broken(mechanism: MechanismName, error: unknown): void;
}

/** A file of authorities holds a few keys. */
const AUTHORITIES_BYTES_MAX = 1024 * 1024;

/** Makes what the configuration describes; rejects with `CONFIGURATION_BAD`, `STATE_UNUSABLE` or `USERS_UNREADABLE`. */
export async function buildAuthentication(
  { auth, state, roles }: Configuration,
  { log }: { readonly log: Log },
): Promise<Authentication> {
  const keysOf =
    auth.pubkey.authorizedKeys === undefined
      ? {}
      : {
          keysOf: keyFiles(auth.pubkey.authorizedKeys, { log: (reason) => log.warn({ reason }, "keys do not count") }),
        };
  const userCa = auth.pubkey.userCa === undefined ? {} : { userCa: await authoritiesIn(auth.pubkey.userCa) };
  const passwords = await systemPasswords(auth.up, log);
  const users = await openUsers({ file: resolve(state, auth.up.store ?? USERS_FILE), log });
  const mechanisms: readonly Mechanism[] = [
    new PubkeyMechanism({
      users,
      ...keysOf,
      ...userCa,
      log: (reason) => log.info({ reason }, "a key does not count"),
      // Where the system's own people sign in, the store is not the list of all.
      ...(passwords === undefined ? {} : { stillKnown: () => true }),
    }),
    new CertificateMechanism(),
    new PasswordMechanism(passwords ?? new StorePasswords(users)),
  ];
  const offered = new Map<string, Mechanism>();
  for (const each of mechanisms) if (auth.mechanisms.some((name) => name === each.name)) offered.set(each.name, each);
  // Whoever has an invite has it of the administrator: there is nothing else to configure.
  const isKey = (line: string): boolean => parsePublicKeyLine(line) !== undefined;
  offered.set("invite", new InviteMechanism({ store: users, log, isKey }));
  return new Ways(auth, roles, users, offered, log);
}

/** The operating system's passwords, where they are configured. */
async function systemPasswords({ pam, helper }: AuthSettings["up"], log: Log): Promise<PasswordSource | undefined> {
  if (pam === undefined) return undefined;
  if (helper === undefined) {
    if (process.geteuid?.() === 0) return new PamPasswords({ service: pam, log });
    const why = "the server is not root; name the socket of `fived pam-helper` in auth.up.helper";
    throw new FivedError("CONFIGURATION_BAD", `Cannot ask PAM: ${why}`);
  }
  // The helper may come later, and may come and go: each attempt looks for it anew.
  const reason = await socketProblem(helper);
  if (reason !== undefined) log.warn({ file: helper, reason }, "the helper that asks PAM is not there");
  return new PamPasswords({ service: pam, helper, log });
}

async function authoritiesIn(file: string) {
  const text = await readFile(file, "latin1").catch((cause: Error) => {
    throw new FivedError("CONFIGURATION_BAD", `Cannot use the authorities ${file}: ${cause.message}`, { cause });
  });
  if (text.length > AUTHORITIES_BYTES_MAX)
    throw new FivedError("CONFIGURATION_BAD", `Cannot use the authorities ${file}: there are too many`);
  return readAuthorities(text, file);
}

class Ways implements Authentication {
  readonly plaintext: boolean;
  readonly #settings: AuthSettings;
  readonly #roles: ReadonlyMap<string, readonly string[]>;
  readonly #users: UserStore;
  readonly #offered: ReadonlyMap<string, Mechanism>;
  readonly #secondFactor: SecondFactor;
  readonly #log: Log;
  /** Of those who stood in the user store when they signed in: the roles that they had not from there but from their key. */
  readonly #ofStore = new WeakMap<Identity, readonly string[]>();

  constructor(
    settings: AuthSettings,
    roles: ReadonlyMap<string, readonly string[]>,
    users: UserStore,
    offered: ReadonlyMap<string, Mechanism>,
    log: Log,
  ) {
    this.plaintext = settings.plaintext;
    this.#settings = settings;
    this.#roles = roles;
    this.#users = users;
    this.#offered = offered;
    this.#secondFactor = new SecondFactor(users);
    this.#log = log;
  }

  mechanism(name: string): Mechanism | undefined {
    return this.#offered.get(name);
  }

  async identify(finding: Finding, mechanism: MechanismName, exchange: Exchange): Promise<Identity | undefined> {
    if (!this.#needsSecondFactor(finding)) return this.#identity(finding, mechanism, false);
    const given = await this.#secondFactor.askSecondFactor(exchange, finding.user);
    return given ? this.#identity(finding, mechanism, true) : undefined;
  }

  automatic(certificate: Exchange["certificate"]): Identity | undefined {
    if (!this.#settings.cert.automatic || !this.#offered.has("cert")) return undefined;
    const finding = findingOf(certificate, undefined);
    if (finding === undefined || this.#needsSecondFactor(finding)) return undefined;
    return this.#identity(finding, "cert", false);
  }

  current(identity: Identity): Identity | undefined {
    const extra = this.#ofStore.get(identity);
    const user = this.#users.find(identity.user);
    if (extra === undefined) return identity;
    if (user === undefined) return undefined;
    const current = { ...identity, groups: user.groups, roles: union(user.roles, extra) };
    this.#ofStore.set(current, extra);
    return current;
  }

  onChange(changed: () => void): void {
    this.#users.onChange(changed);
  }

  broken(mechanism: MechanismName, error: unknown): void {
    this.#log.error({ mechanism, error }, "a mechanism of AUTH failed");
  }

  [Symbol.dispose](): void {
    this.#users[Symbol.dispose]();
  }

  /** An invitation, which is used once, is proof enough to enrol a key. */
  #needsSecondFactor({ user, groups, roles }: Finding): boolean {
    if (this.#users.find(user)?.totp !== undefined) return true;
    return this.#settings.secondFactor.some((name) => {
      const members = this.#roles.get(name);
      if (members === undefined) return name === user;
      return (
        roles.includes(name) || members.includes(user) || groups.some((group) => members.includes(`group:${group}`))
      );
    });
  }

  #identity(finding: Finding, mechanism: MechanismName, secondFactor: boolean): Identity {
    const stored = this.#users.find(finding.user);
    const groups = stored === undefined ? finding.groups : union(finding.groups, stored.groups);
    const roles = stored === undefined ? finding.roles : union(finding.roles, stored.roles);
    const identity = { user: finding.user, groups, roles, mechanism, secondFactor, at: Date.now() };
    if (stored !== undefined)
      this.#ofStore.set(
        identity,
        finding.roles.filter((role) => !stored.roles.includes(role)),
      );
    return identity;
  }
}

function union(some: readonly string[], more: readonly string[]): readonly string[] {
  return [...new Set([...some, ...more])];
}
