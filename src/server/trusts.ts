/**
 * Whose word about callers is believed (PROTOCOL §4.12, docs/chaining.md): another session server that has signed in here, speaks for its own
 * people, and says so with its key. Fails closed: what is not believed is refused, and never done as the server that said it.
 *
 * Whoever is vouched for is called `alice@ISSUER`, and his roles are groups of the same form, so that nobody of another organisation is ever
 * taken for somebody of this one; what he may do is for the roles and `allow` of this configuration to say.
 * @module
 */
import { claimedIssuer, isUserName, judgeVouching, type Vouching } from "../identity/index.ts";
import { canonicalName, keySet } from "../io/index.ts";
import type { Identity } from "./auth/mechanism.ts";
import type { TrustSettings } from "./schema.ts";
import type { Caller } from "./service.ts";

/** Vouchings of one server that were believed and are not over: more streams than a session opens in the half minute that each lasts. */
const SEEN_MAX = 65_536;

/** Vouchings that were believed: none is twice. Outlasts a configuration. */
export class SeenVouchings {
  /** By issuer, each in the order in which they came; ends of life in milliseconds. */
  readonly #seen = new Map<string, Map<string, number>>();

  /** Notes a vouching; false for one that came before, and where there are too many to remember another. */
  isNew({ issuer, id, expiresAt }: Vouching, now: number): boolean {
    const seen = this.#seen.get(issuer) ?? new Map<string, number>();
    this.#seen.set(issuer, seen);
    // They live equally long, so the oldest go first. An end is believed a little late, as clocks differ, and forgotten later still.
    for (const [old, end] of seen) {
      if (end + FORGET_MS > now) break;
      seen.delete(old);
    }
    if (seen.has(id) || seen.size >= SEEN_MAX) return false;
    seen.set(id, expiresAt);
    return true;
  }
}

/** After its end a vouching is remembered for so long: until no clock that is tolerated takes it for good. */
const FORGET_MS = 60_000;

/** Somebody another server vouches for. */
export interface Vouched {
  readonly identity: Identity;
  /** The server that does. */
  readonly issuer: string;
  /** The word that may be asked for. */
  readonly word: string;
  /** As in that server's log. */
  readonly session: string;
}

/** What was found of a vouching. */
export type TrustVerdict =
  | { readonly type: "believed"; readonly vouched: Vouched }
  | { readonly type: "refused"; readonly issuer: string | undefined; readonly reason: string };

/** What judging needs besides the settings. */
export interface TrustsOptions {
  readonly seen: SeenVouchings;
  /** Somebody here has one of these names: a user's, or a role's. */
  readonly isOneOf: (caller: Caller, names: readonly string[]) => boolean;
  /** The wall clock, in milliseconds. */
  readonly now?: () => number;
}

/** Judges vouchings by one configuration. */
export class Trusts {
  readonly #trusts: ReadonlyMap<string, TrustSettings & { readonly find: ReturnType<typeof keySet> }>;
  readonly #options: TrustsOptions;
  readonly #now: () => number;

  constructor(settings: readonly TrustSettings[], options: TrustsOptions) {
    this.#trusts = new Map(settings.map((trust) => [trust.issuer, { ...trust, find: keySet(trust.keys) }]));
    this.#options = options;
    this.#now = options.now ?? Date.now;
  }

  /** Whom a token is about, if `hop` is one to be believed. Rejects where the keys cannot be had. */
  async judge(token: string, hop: Caller, binding: Uint8Array | undefined): Promise<TrustVerdict> {
    const issuer = claimedIssuer(token);
    const trust = issuer === undefined ? undefined : this.#trusts.get(issuer);
    // Before any signature is looked at: strangers cost nothing.
    if (issuer === undefined || trust === undefined || !this.trusts(issuer, hop))
      return { type: "refused", issuer, reason: "its word is not trusted" };
    if (binding === undefined) return { type: "refused", issuer, reason: "the connection is not inside TLS" };
    const now = this.#now();
    const verdict = await judgeVouching(token, trust.find, { issuer, binding, now });
    if (verdict.type === "refused") return { type: "refused", issuer, reason: verdict.reason };
    const { vouching } = verdict;
    const user = this.#nameOf(vouching, trust);
    if (user === undefined) return { type: "refused", issuer, reason: "it speaks for somebody who is not its own" };
    if (!this.#options.seen.isNew(vouching, now)) return { type: "refused", issuer, reason: "it has been used" };
    const { roles, secondFactor, word, session, recognisedAt } = vouching;
    // Whoever was known long ago there is not known only now here: rules may ask for the age of a login.
    const at = Math.min(recognisedAt, now);
    const groups = roles.map((role) => `${role}@${issuer}`);
    const identity = { user, groups, roles: [], mechanism: "via", secondFactor, at } as const;
    return { type: "believed", vouched: { identity, issuer, word, session } };
  }

  /** The word of that server counts, from whoever this is here. */
  trusts(issuer: string, hop: Caller): boolean {
    const trust = this.#trusts.get(issuer);
    return trust !== undefined && hop.identity !== undefined && this.#options.isOneOf(hop, trust.as);
  }

  /** `alice@ISSUER`; whom the issuer was told of itself keeps the name he has there, where that is wanted. */
  #nameOf({ user }: Vouching, { issuer, through }: TrustSettings): string | undefined {
    const [local = "", provider, ...more] = user.split("@");
    if (!isUserName(local) || more.length > 0) return undefined;
    if (provider === undefined) return `${local}@${issuer}`;
    return canonicalName(provider) === provider && through.includes(provider) ? user : undefined;
  }
}

/** Organisations for whose people others vouch here: nobody who signs in by himself is called as one of theirs. */
export function vouchedProviders(settings: readonly TrustSettings[]): ReadonlySet<string> {
  return new Set(settings.flatMap(({ issuer, through }) => [issuer, ...through]));
}
