/**
 * The second factor: a code of six digits that changes every 30 seconds (TOTP, RFC 6238, with SHA-1 as all authenticator programs have it),
 * asked for after a first proof. When it is asked for is for policy to say.
 *
 * Invariant: of a user no code is accepted twice, and none that is older than one accepted before (RFC 6238 §5.2).
 * @module
 */
import { randomBytes, timingSafeEqual } from "node:crypto";
import { Secret, TOTP } from "otpauth";
import type { Exchange, Users } from "./mechanism.ts";

/** Octets of a new secret, as RFC 4226 §4 recommends. */
const SECRET_BYTES = 20;
const DIGITS = 6;
const PERIOD_SECONDS = 30;
/** Periods before and after the present one whose codes count: clocks differ, and people type slowly (RFC 6238 §5.2). */
const WINDOW = 1;
/** Periods for which an accepted code is remembered, before and after the present one: a clock that was wrong for a day locks nobody out. */
const REMEMBERED_PERIODS = 20;
const QUESTION = "Enter Code: ";
/** Wrong codes of one user in {@link FAILURES_MS}: who knows the password must not be able to try them all (RFC 4226 §7.3). */
const FAILURES_MAX = 10;
const FAILURES_MS = 15 * 60_000;

/** Which codes were accepted, and how many were wrong. One for a server's life: another configuration is no reason to forget. */
export class CodeMemory {
  /** The period of the last code that was accepted, by user. As many as users with a secret at most; old ones go. */
  readonly accepted = new Map<string, number>();
  /** Wrong codes since a time, by user. Only who has given a first proof gets this far, so these are users as well. */
  readonly failed = new Map<string, { readonly since: number; readonly count: number }>();
}

/** What asking for codes needs. */
export interface SecondFactorOptions {
  readonly users: Users;
  readonly memory: CodeMemory;
  /** The wall clock, in milliseconds. */
  readonly now?: () => number;
}

/** Asks for codes. One for all mechanisms of a server. */
export class SecondFactor {
  readonly #users: Users;
  readonly #memory: CodeMemory;
  readonly #now: () => number;
  /** Stands for the secret of whoever has none, so that it costs the same. */
  readonly #nothing = randomBytes(SECRET_BYTES);

  constructor({ users, memory, now = Date.now }: SecondFactorOptions) {
    this.#users = users;
    this.#memory = memory;
    this.#now = now;
  }

  /** Asks for a code; true if it is right, new, and there is a second factor at all. Rejects when the exchange does. */
  async askSecondFactor(exchange: Exchange, user: string): Promise<boolean> {
    const answer = await exchange.ask(QUESTION, "shown");
    const right = this.#accept(user, answer);
    answer.fill(0);
    return right;
  }

  #accept(user: string, answer: Uint8Array): boolean {
    const { accepted, failed: failures } = this.#memory;
    const now = this.#now();
    const present = Math.floor(now / 1_000 / PERIOD_SECONDS);
    const secret = this.#users.find(user)?.totp;
    const matching = matchingPeriod(secret ?? this.#nothing, present, answer);
    this.#forget(now, present);
    const failed = failures.get(user) ?? { since: now, count: 0 };
    const fresh = matching !== undefined && matching > (accepted.get(user) ?? -1);
    if (secret === undefined || !fresh || failed.count >= FAILURES_MAX) {
      if (failed.count < FAILURES_MAX) failures.set(user, { since: failed.since, count: failed.count + 1 });
      return false;
    }
    failures.delete(user);
    accepted.delete(user); // so that the map stays in the order of time
    accepted.set(user, matching);
    return true;
  }

  /** Drops what can no longer matter, from the oldest on. */
  #forget(now: number, present: number): void {
    const { accepted, failed } = this.#memory;
    for (const [user, period] of accepted) {
      if (Math.abs(present - period) <= REMEMBERED_PERIODS) break;
      accepted.delete(user);
    }
    for (const [user, { since }] of failed) {
      if (Math.abs(now - since) < FAILURES_MS) break;
      failed.delete(user);
    }
  }
}

/** A new secret, and the `otpauth:` address that authenticator programs read it from, often as a QR code. */
export function newSecondFactor(user: string, issuer: string): { readonly secret: Uint8Array; readonly url: string } {
  const secret = new Secret({ size: SECRET_BYTES });
  const totp = new TOTP({ issuer, label: user, secret, algorithm: "SHA1", digits: DIGITS, period: PERIOD_SECONDS });
  return { secret: secret.bytes, url: totp.toString() };
}

/** The period within the window whose code the answer is. Looks at all of them, whichever it is. */
function matchingPeriod(octets: Uint8Array, present: number, answer: Uint8Array): number | undefined {
  const secret = new Secret({ buffer: Uint8Array.from(octets).buffer });
  // An answer of another length is compared, too, as zeros: no code has one.
  const given = answer.length === DIGITS ? answer : new Uint8Array(DIGITS);
  let matching: number | undefined;
  for (let period = present - WINDOW; period <= present + WINDOW; period++) {
    const timestamp = period * PERIOD_SECONDS * 1_000;
    const code = TOTP.generate({ secret, algorithm: "SHA1", digits: DIGITS, period: PERIOD_SECONDS, timestamp });
    if (timingSafeEqual(Buffer.from(code), given)) matching = period;
  }
  return matching;
}
