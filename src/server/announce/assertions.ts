/**
 * Who is calling, as every form of announcement says it: which of a caller's attributes a back end is told, and the signed assertion of
 * them (identity/assertion.ts), made anew when half its time is over.
 * @module
 */
import { ASSERTION_SECONDS, type Statement, signAssertion } from "../../identity/index.ts";
import type { Caller, Talk } from "../service.ts";
import type { AnnounceKeys } from "./keys.ts";

/** An assertion older than this is not sent any more. */
const RENEW_MS = (ASSERTION_SECONDS * 1_000) / 2;
/** What may stand in a header field between commas: visible ASCII. */
const NAME = /^[\x21-\x2b\x2d-\x7e]{1,255}$/;

/** What is known of the caller of a stream. */
export type Announced = Pick<Talk, "caller" | "host" | "service" | "streamNumber">;

/** Where assertions come from. */
export interface AssertionsOptions {
  readonly keys: Pick<AnnounceKeys, "current">;
  /** Name of this server, as back ends expect it in `iss`. */
  readonly issuer: string;
  /** The wall clock, in milliseconds. */
  readonly now?: () => number;
}

interface Made {
  readonly of: string;
  readonly at: number;
  readonly kid: string;
  readonly token: Promise<string>;
}

/** Makes assertions, and keeps each caller's last one for his next stream. */
export class Assertions {
  readonly #keys: Pick<AnnounceKeys, "current">;
  readonly #issuer: string;
  readonly #now: () => number;
  readonly #last = new WeakMap<Caller, Made>();

  constructor({ keys, issuer, now = Date.now }: AssertionsOptions) {
    this.#keys = keys;
    this.#issuer = issuer;
    this.#now = now;
  }

  /** The assertion for the caller of a stream, with at least half its time before it; undefined for somebody who has not signed in. */
  of(announced: Announced): Promise<string> | undefined {
    const statement = statementOf(announced, this.#issuer);
    if (statement === undefined) return undefined;
    const key = this.#keys.current;
    const now = this.#now();
    const of = JSON.stringify(statement);
    const last = this.#last.get(announced.caller);
    const age = last === undefined ? 0 : now - last.at;
    // Younger than nothing: the clock was set back, and the assertion is from the future.
    if (last !== undefined && last.of === of && last.kid === key.kid && age >= 0 && age <= RENEW_MS) return last.token;
    const made: Made = { of, at: now, kid: key.kid, token: signAssertion(statement, key, now) };
    this.#last.set(announced.caller, made);
    return made.token;
  }
}

/** Roles of a caller that can be told. One that could be taken for several, or for the end of a line, is kept back: it grants nothing. */
export function rolesToTell({ roles }: Caller): readonly string[] {
  return roles.filter((role) => NAME.test(role));
}

/** The user's name; undefined for nobody. Throws for a name that cannot be told as it is: another one would be another person. */
export function userToTell({ user, identity }: Caller): string | undefined {
  if (user === undefined || identity === undefined) return undefined;
  if (!NAME.test(user)) throw new Error("Cannot announce a user: the name has characters that a header cannot carry");
  return user;
}

function statementOf({ caller, host, service }: Announced, issuer: string): Statement | undefined {
  const user = userToTell(caller);
  if (user === undefined || caller.identity === undefined) return undefined;
  const { mechanism, secondFactor } = caller.identity;
  const { session } = caller;
  return { issuer, user, roles: rolesToTell(caller), host, service, session, mechanism, secondFactor };
}
