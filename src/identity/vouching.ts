/**
 * Vouchings: what one session server says to another about the caller for whom it opens a stream there (PROTOCOL §4.12, docs/chaining.md). A
 * JSON Web Token as an assertion is (assertion.ts), signed with the same keys, but of a type of its own: what was said to a back end is worth
 * nothing here, and the other way round.
 *
 * A vouching is for one stream of one connection: it names the service, it holds the connection's exporter, so that nobody who gets hold of
 * it can use it anywhere else, and it is believed once. Whom to believe, and whether it came before, is the server's business.
 *
 * | claim | is |
 * |---|---|
 * | `iss` | the session server that says it |
 * | `sub` | the caller as that server knows him: `alice`, or `alice@q.example` of whom it was told itself |
 * | `aud` | the word that is asked for next, in lower case: `wiki`, `list` |
 * | `cb` | exporter of the connection, base64url |
 * | `iat`, `exp`, `jti` | as in an assertion |
 * | `roles`, `session`, `mechanism`, `secondFactor` | as in an assertion |
 * | `auth_time` | when that server has recognised him, in seconds since 1970 |
 * @module
 */
import { randomBytes } from "node:crypto";
import { decodeJwt, type JWTVerifyGetKey, SignJWT } from "jose";
import {
  ALGORITHM,
  type AssertionKey,
  isRoles,
  isText,
  isTime,
  judgeToken,
  LIFETIME_SECONDS_MAX,
  refused,
  toRecord,
} from "./assertion.ts";

/** Media type, in `typ`. */
const VOUCHING_TYPE = "fived-vouching+jwt";
/** It is made when a stream is opened, and looked at a round trip later. */
export const VOUCHING_SECONDS = 30;
/** Octets of an exporter (RFC 9266). */
const BINDING_BYTES = 32;
/** Octets of randomness in `jti`: none comes twice. */
const ID_BYTES = 16;

/** What a server says of a caller. */
export interface VouchingStatement {
  readonly issuer: string;
  readonly user: string;
  readonly roles: readonly string[];
  /** The word that is asked for next. */
  readonly word: string;
  /** Exporter of the connection. */
  readonly binding: Uint8Array;
  /** As in the log of the server that says it. */
  readonly session: string;
  readonly mechanism: string;
  readonly secondFactor: boolean;
  /** When that server has recognised him, in milliseconds since 1970. */
  readonly recognisedAt: number;
}

/** A vouching that was verified. */
export interface Vouching extends Omit<VouchingStatement, "binding"> {
  readonly id: string;
  /** In milliseconds since 1970. */
  readonly expiresAt: number;
}

/** What verifying found. */
export type VouchingVerdict =
  | { readonly type: "verified"; readonly vouching: Vouching }
  | { readonly type: "refused"; readonly code: "ASSERTION_BAD"; readonly reason: string };

/** Signs a statement; `now` in milliseconds since 1970. */
export function signVouching(statement: VouchingStatement, key: AssertionKey, now: number): Promise<string> {
  const { issuer, user, roles, word, binding, session, mechanism, secondFactor, recognisedAt } = statement;
  const seconds = Math.floor(now / 1_000);
  const cb = Buffer.from(binding).toString("base64url");
  const authTime = Math.floor(recognisedAt / 1_000);
  return new SignJWT({ cb, roles, session, mechanism, secondFactor, auth_time: authTime })
    .setProtectedHeader({ alg: ALGORITHM, kid: key.kid, typ: VOUCHING_TYPE })
    .setIssuer(issuer)
    .setSubject(user)
    .setAudience(word.toLowerCase())
    .setIssuedAt(seconds)
    .setExpirationTime(seconds + VOUCHING_SECONDS)
    .setJti(randomBytes(ID_BYTES).toString("base64url"))
    .sign(key.privateKey);
}

/** Who says it, not verified: by that its keys are found. Undefined for what is no token. */
export function claimedIssuer(token: string): string | undefined {
  try {
    const { iss } = decodeJwt(token);
    return typeof iss === "string" ? iss : undefined;
  } catch {
    return undefined; // whatever is wrong with it: nobody says it
  }
}

/** Verifies a vouching that came on the connection with this exporter. Rejects where the keys cannot be had. */
export async function judgeVouching(
  token: string,
  find: JWTVerifyGetKey,
  expected: { readonly issuer: string; readonly binding: Uint8Array; readonly now: number },
): Promise<VouchingVerdict> {
  const judged = await judgeToken(token, find, { type: VOUCHING_TYPE, issuer: expected.issuer, now: expected.now });
  if (judged.type === "refused") return judged;
  if (typeof judged.claims !== "object" || judged.claims === null) return refused("its claims are no object");
  const { iss, sub, aud, iat, exp, jti, cb, roles, session, mechanism, secondFactor, ...more } = toRecord(
    judged.claims,
  );
  const recognised = more["auth_time"];
  if (!isText(iss) || !isText(sub) || !isText(jti) || !isText(session) || !isText(mechanism))
    return refused("a claim is missing, or no text");
  if (!isText(aud) || aud !== aud.toLowerCase()) return refused("it is not for one service");
  if (!isRoles(roles)) return refused("the roles are no list of texts");
  if (typeof secondFactor !== "boolean") return refused("the second factor is neither true nor false");
  if (!isTime(recognised)) return refused("it does not say since when he is known");
  if (!isTime(iat) || !isTime(exp) || exp <= iat || exp - iat > LIFETIME_SECONDS_MAX)
    return refused("it is good for too long");
  // What it is compared with is known to both ends of the connection: no secret.
  const bound = expected.binding.length === BINDING_BYTES && cb === Buffer.from(expected.binding).toString("base64url");
  if (!bound) return refused("it is for another connection");
  const how = { session, mechanism, secondFactor, recognisedAt: recognised * 1_000 };
  const who = { issuer: iss, user: sub, roles, word: aud, ...how };
  return { type: "verified", vouching: { ...who, id: jti, expiresAt: exp * 1_000 } };
}
