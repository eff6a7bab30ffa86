/**
 * Who may use what: the one place where it is decided, for LIST and when a stream opens (PROTOCOL §4.11). `allow` names users and roles;
 * policies, where there are any, say the rest. A service that is forbidden costs the same work as one that is not there.
 * @module
 */
import type { Identity } from "../auth/mechanism.ts";
import { ANYONE, EVERYONE_SIGNED_IN } from "../schema.ts";
import type { Caller } from "../service.ts";
import type { Policies } from "./policies.ts";

/** Those whom an `allow` means. Services that allow the same share one, so that LIST asks once for all of them. */
export interface Audience {
  /** Users, roles, `group:NAME`, `anyone`, `everyone-signed-in`. */
  readonly names: ReadonlySet<string>;
}

/** A service as access sees it. */
export interface Guarded {
  /** In the spelling of the configuration. */
  readonly name: string;
  readonly audience: Audience;
}

const NOBODY: Audience = { names: new Set() };

/** How long a decision of policies that read a clock holds for one caller and one name; nothing else can have changed meanwhile. */
const DECISION_MS = 1_000;
/** Decisions kept for one caller; whoever asks for more names than that is no caller but a search. */
const DECISIONS_MAX = 256;

interface Decision {
  readonly allowed: boolean;
  readonly until: number;
}

/** Decides for one configuration. */
export class Access {
  readonly #roles: ReadonlyMap<string, ReadonlySet<string>>;
  readonly #policies: Policies | undefined;
  readonly #grants = new WeakMap<Caller, readonly string[]>();
  readonly #decisions = new WeakMap<Caller, Map<string, Decision>>();
  readonly #now: () => number;

  /** @param now milliseconds, by a clock that is never set */
  constructor(
    roles: ReadonlyMap<string, readonly string[]>,
    policies: Policies | undefined,
    now: () => number = () => performance.now(),
  ) {
    this.#roles = new Map([...roles].map(([role, members]) => [role, new Set(members)]));
    this.#policies = policies;
    this.#now = now;
  }

  /** Roles of somebody: those of the configuration, by name and by group, and those that came with him. */
  rolesOf({ user, groups, roles }: Identity): readonly string[] {
    const held = new Set(roles);
    for (const [role, members] of this.#roles)
      if (isIn(members, user) || groups.some((group) => members.has(`group:${group}`))) held.add(role);
    return [...held];
  }

  /**
   * May the caller use it?
   * @param service undefined for one that is not there, which is asked for as `asked`: the same work
   */
  allows(service: Guarded | undefined, asked: string, host: string | undefined, caller: Caller): boolean {
    const granted = this.#isGranted(service?.audience ?? NOBODY, caller);
    const policies = this.#policies;
    if (policies === undefined) return granted;
    // Services that no policy names are all decided alike, once. Only a yes is short: what is refused, or not there, is asked for by name.
    const alike = this.#decided(caller, `${host ?? ""}/`, () =>
      policies.allows({ caller, host, service: "", granted: true }),
    );
    if (alike && granted && service !== undefined && !policies.names(service.name)) return true;
    return this.#decided(caller, `${host ?? ""}/${asked.toLowerCase()}`, () => {
      const allowed = policies.allows({ caller, host, service: service?.name ?? "", granted });
      return allowed && service !== undefined;
    });
  }

  /** What was decided about a caller a moment ago, or is decided now. */
  #decided(caller: Caller, what: string, decide: () => boolean): boolean {
    const decisions = this.#decisionsOf(caller);
    const now = this.#now();
    const kept = decisions.get(what);
    if (kept !== undefined && kept.until > now) return kept.allowed;
    const allowed = decide();
    if (decisions.size >= DECISIONS_MAX) decisions.clear();
    const ms = this.#policies?.readsClock === false ? Number.POSITIVE_INFINITY : DECISION_MS;
    decisions.set(what, { allowed, until: now + ms });
    return allowed;
  }

  /** Those of a host's services that the caller may use, in their order. */
  *usable<Service extends Guarded>(
    services: Iterable<Service>,
    host: string | undefined,
    caller: Caller,
  ): Iterable<Service> {
    const byAudience = new Map<Audience, boolean>();
    const byGrant = new Map<boolean, boolean>();
    for (const service of services) {
      const granted = byAudience.get(service.audience) ?? this.#isGranted(service.audience, caller);
      byAudience.set(service.audience, granted);
      if (this.#policies === undefined) {
        if (granted) yield service;
        continue;
      }
      const named = this.#policies.names(service.name);
      let allowed = named ? undefined : byGrant.get(granted);
      if (allowed === undefined) {
        allowed = this.#policies.allows({ caller, host, service: named ? service.name : "", granted });
        if (!named) byGrant.set(granted, allowed);
      }
      if (allowed) yield service;
    }
  }

  /** The caller may use some of the services with this audience, as far as can be said without their names. */
  mayUseSome(audience: Audience, caller: Caller): boolean {
    return this.#policies !== undefined || this.#isGranted(audience, caller);
  }

  /** The caller is one of these: users, roles and groups, as in `allow`. */
  isOneOf(caller: Caller, names: readonly string[]): boolean {
    return this.#grantsOf(caller).some((name) => names.includes(name));
  }

  #isGranted({ names }: Audience, caller: Caller): boolean {
    return this.#grantsOf(caller).some((name) => names.has(name));
  }

  /** Names in `allow` that mean the caller: as many for every service, however long its list is. */
  #grantsOf(caller: Caller): readonly string[] {
    const kept = this.#grants.get(caller);
    if (kept !== undefined) return kept;
    const { user, roles, identity } = caller;
    const grants = [ANYONE];
    // Where a role is defined nobody gets in by being called like it; one that is not defined has nobody, whoever claims it.
    if (user !== undefined) grants.push(EVERYONE_SIGNED_IN, ...(this.#roles.has(user) || isGroup(user) ? [] : [user]));
    for (const group of identity?.groups ?? []) grants.push(`group:${group}`);
    for (const [role, members] of this.#roles)
      if (roles.includes(role) || (user !== undefined && isIn(members, user))) grants.push(role);
    this.#grants.set(caller, grants);
    return grants;
  }

  #decisionsOf(caller: Caller): Map<string, Decision> {
    const kept = this.#decisions.get(caller);
    if (kept !== undefined) return kept;
    const made = new Map<string, Decision>();
    this.#decisions.set(caller, made);
    return made;
  }
}

/** A name in `allow`, or a member of a role, that means a group: nobody gets in by being called so. */
function isGroup(name: string): boolean {
  return name.startsWith("group:");
}

function isIn(members: ReadonlySet<string>, user: string): boolean {
  return members.has(user) && !isGroup(user);
}
