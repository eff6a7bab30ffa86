/**
 * The ways in that a server offers, as its configuration has them (PROTOCOL §4.6): which mechanisms there are, whether a second factor is
 * asked for, and who is still known.
 * @module
 */
import { readFile } from "node:fs/promises";
import { parsePublicKeyLine } from "../../identity/index.ts";
import { FivedError } from "../../io/index.ts";
import type { Configuration } from "../config.ts";
import type { Log } from "../log.ts";
import type { AuthSettings } from "../schema.ts";
import { vouchedProviders } from "../trusts.ts";
import { readAuthorities } from "./authorized-keys.ts";
import { CertificateMechanism, findingOf } from "./cert.ts";
import { InviteMechanism } from "./invites.ts";
import { keyFiles } from "./key-files.ts";
import type { Exchange, Finding, Identity, Mechanism, MechanismName } from "./mechanism.ts";
import { PamPasswords } from "./pam.ts";
import { socketProblem } from "./pam-socket.ts";
import type { PasswordSource } from "./password-source.ts";
import { PubkeyMechanism } from "./pubkey.ts";
import { type CodeMemory, SecondFactor } from "./second-factor.ts";
import { StorePasswords } from "./store-passwords.ts";
import { PasswordMechanism } from "./up.ts";
import { openUsers, type UserStore, usersFileOf } from "./users.ts";

/** What AUTH goes by. */
export interface Authentication extends Disposable {
  /** AUTH acts outside TLS too: the administrator said so. */
  readonly plaintext: boolean;
  /** Sees who was added or removed a moment ago: an invite is often used right after it was made. */
  refresh(): Promise<void>;
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

/** What outlasts a configuration. */
export interface AuthenticationOptions {
  readonly log: Log;
  readonly codes: CodeMemory;
}

/** Makes what the configuration describes; rejects with `CONFIGURATION_BAD`, `STATE_UNUSABLE` or `USERS_UNREADABLE`. */
export async function buildAuthentication(
  { auth, state, roles, trusts }: Configuration,
  { log, codes }: AuthenticationOptions,
): Promise<Authentication> {
  const keysOf =
    auth.pubkey.authorizedKeys === undefined
      ? {}
      : {
          keysOf: keyFiles(auth.pubkey.authorizedKeys, { log: (reason) => log.warn({ reason }, "keys do not count") }),
        };
  const userCa = auth.pubkey.userCa === undefined ? {} : { userCa: await authoritiesIn(auth.pubkey.userCa) };
  const passwords = await systemPasswords(auth.up, log);
  const users = await openUsers({ file: usersFileOf({ state, auth }), log });
  const pubkey = new PubkeyMechanism({
    users,
    ...keysOf,
    ...userCa,
    log: (reason) => log.info({ reason }, "a key does not count"),
    // Where the system's own people sign in, the store is not the list of all.
    ...(passwords === undefined ? {} : { stillKnown: () => true }),
  });
  const mechanisms: readonly Mechanism[] = [
    pubkey,
    new CertificateMechanism(),
    new PasswordMechanism(passwords ?? new StorePasswords(users)),
  ];
  const offered = new Map<string, Mechanism>();
  for (const each of mechanisms) if (auth.mechanisms.some((name) => name === each.name)) offered.set(each.name, each);
  // Whoever has an invite has it of the administrator: there is nothing else to configure.
  const isKey = (line: string): boolean => parsePublicKeyLine(line) !== undefined;
  offered.set("invite", new InviteMechanism({ store: users, log, isKey }));
  const secondFactor = new SecondFactor({ users, memory: codes });
  return new Ways(auth, { roles, users, pubkey, offered, secondFactor, log, providers: vouchedProviders(trusts) });
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

/** What a configuration of AUTH was made into. */
interface Parts {
  readonly roles: ReadonlyMap<string, readonly string[]>;
  readonly users: UserStore;
  readonly pubkey: PubkeyMechanism;
  readonly offered: ReadonlyMap<string, Mechanism>;
  readonly secondFactor: SecondFactor;
  readonly log: Log;
  /** Organisations for whose people others vouch. */
  readonly providers: ReadonlySet<string>;
}

class Ways implements Authentication {
  readonly plaintext: boolean;
  readonly #settings: AuthSettings;
  readonly #roles: ReadonlyMap<string, readonly string[]>;
  readonly #users: UserStore;
  readonly #pubkey: PubkeyMechanism;
  readonly #offered: ReadonlyMap<string, Mechanism>;
  readonly #secondFactor: SecondFactor;
  readonly #log: Log;
  readonly #providers: ReadonlySet<string>;

  constructor(settings: AuthSettings, { roles, users, pubkey, offered, secondFactor, log, providers }: Parts) {
    this.#providers = providers;
    this.plaintext = settings.plaintext;
    this.#settings = settings;
    this.#roles = roles;
    this.#users = users;
    this.#pubkey = pubkey;
    this.#offered = offered;
    this.#secondFactor = secondFactor;
    this.#log = log;
  }

  refresh(): Promise<void> {
    return this.#users.refresh();
  }

  mechanism(name: string): Mechanism | undefined {
    return this.#offered.get(name);
  }

  async identify(finding: Finding, mechanism: MechanismName, exchange: Exchange): Promise<Identity | undefined> {
    const identity = this.#identity(finding, mechanism, false);
    if (identity === undefined || !this.#needsSecondFactor(identity)) return identity;
    const given = await this.#secondFactor.askSecondFactor(exchange, finding.user);
    return given ? this.#identity(finding, mechanism, true) : undefined; // as he is after however long that took
  }

  automatic(certificate: Exchange["certificate"]): Identity | undefined {
    if (!this.#settings.cert.automatic || !this.#offered.has("cert")) return undefined;
    const finding = findingOf(certificate, undefined);
    const identity = finding && this.#identity(finding, "cert", false);
    return identity === undefined || this.#needsSecondFactor(identity) ? undefined : identity;
  }

  current(identity: Identity): Identity | undefined {
    const { stored } = identity;
    if (stored === undefined) return identity;
    const user = this.#users.find(identity.user);
    if (user === undefined) return undefined;
    if (stored.key !== undefined && !this.#pubkey.holds(user, stored.key)) return undefined;
    const groups = union(stored.systemGroups, user.groups);
    return { ...identity, groups, roles: union(user.roles, stored.brought) };
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

  /** Whoever has one is asked, and whoever has to have one; who has to and has none is not let in. */
  #needsSecondFactor({ user, groups, roles }: Identity): boolean {
    if (this.#users.find(user)?.totp !== undefined) return true;
    return this.#settings.secondFactor.some((name) => {
      const members = this.#roles.get(name);
      if (members === undefined) return name === user;
      return (
        roles.includes(name) || members.includes(user) || groups.some((group) => members.includes(`group:${group}`))
      );
    });
  }

  /** Undefined for somebody of the store who has left it since he was found. */
  #identity(finding: Finding, mechanism: MechanismName, secondFactor: boolean): Identity | undefined {
    // `alice@a.example` is whom a.example vouches for, whatever stands in a certificate.
    const provider = finding.user.slice(finding.user.lastIndexOf("@") + 1).toLowerCase();
    if (finding.user.includes("@") && this.#providers.has(provider)) return undefined;
    const user = this.#users.find(finding.user);
    const { groups, roles, key } = finding;
    const found = { user: finding.user, groups, roles, mechanism, secondFactor, at: Date.now() };
    if (user === undefined) return finding.ofStore === true ? undefined : found;
    const brought = finding.roles.filter((role) => !user.roles.includes(role));
    return {
      ...found,
      groups: union(finding.groups, user.groups),
      roles: union(user.roles, brought),
      stored: { brought, systemGroups: finding.ofStore === true ? [] : finding.groups, key },
    };
  }
}

function union(some: readonly string[], more: readonly string[]): readonly string[] {
  return [...new Set([...some, ...more])];
}
