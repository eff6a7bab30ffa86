/**
 * Assertions: who is calling, said by a session server to a back end in a form that the back end can check. A JSON Web Token (RFC 7519)
 * signed with Ed25519 (`alg` EdDSA, RFC 8037), of a type of its own, so that no token made for anything else passes for one.
 *
 * An assertion says who opened a stream and to which service, and nothing about what he may do there. It lives {@link ASSERTION_SECONDS}:
 * it is looked at when a connection or an HTTP request begins, and a new one is made when the old one is half over, so that the life of a
 * connection does not matter. Whoever gets hold of one can use it that long at that service and nowhere else: the audience is the
 * service's full name. Where keys lie and how they come to the verifier is not this file's business.
 *
 * | claim | is |
 * |---|---|
 * | `iss` | the session server |
 * | `sub` | the user: `alice`, or `alice@p.example` |
 * | `aud` | the service's full name in lower case: `wiki`, or `git.example.org/wiki` at a virtual host |
 * | `iat`, `exp` | seconds since 1970 |
 * | `jti` | of this assertion; it may come several times, as it does on the requests of one connection |
 * | `roles` | those of the user at that host |
 * | `host` | the virtual host; absent for the default host |
 * | `service` | as it is configured |
 * | `session` | as in the server's log |
 * | `mechanism` | how the user was recognised: `pubkey`, `cert`, `ext` or `up` |
 * | `secondFactor` | a second factor was given |
 * @module
 */
import { randomUUID, type webcrypto } from "node:crypto";
import { errors, type JWTVerifyGetKey, jwtVerify, SignJWT } from "jose";

/** Media type of an assertion, in `typ`: a token of another type is none, whoever signed it. */
const ASSERTION_TYPE = "fived-assertion+jwt";
/** The one algorithm: a token does not choose how it is verified. */
export const ALGORITHM = "EdDSA";
/** How long an assertion is good. Half of it is left at the least when one is sent: enough for a slow connection to a back end. */
export const ASSERTION_SECONDS = 60;
/** No assertion that says to be good for longer is believed. */
export const LIFETIME_SECONDS_MAX = 300;
/** Clocks of server and back end may differ by so much. */
export const CLOCK_TOLERANCE_SECONDS = 10;
/** Characters of the longest token that is looked at; what servers of HTTP take as one header field is about as long. */
export const TOKEN_LENGTH_MAX = 16 * 1_024;
/** Roles of one user. */
const ROLES_MAX = 1_000;
/** Characters of any text in an assertion. */
const TEXT_LENGTH_MAX = 512;

/** What a server asserts. */
export interface Statement {
  readonly issuer: string;
  readonly user: string;
  readonly roles: readonly string[];
  /** Undefined for the default host. */
  readonly host: string | undefined;
  /** As it is configured. */
  readonly service: string;
  readonly session: string;
  readonly mechanism: string;
  readonly secondFactor: boolean;
}

/** A statement that was verified. */
export interface Assertion extends Statement {
  /** When it was made, in milliseconds since 1970. */
  readonly issuedAt: number;
  /** When it ends, in milliseconds since 1970. */
  readonly expiresAt: number;
  readonly id: string;
}

/** A key to sign with. */
export interface AssertionKey {
  /** Names the key in the published set (RFC 7638 thumbprint). */
  readonly kid: string;
  readonly privateKey: webcrypto.CryptoKey;
}

/** What an assertion has to be besides well signed. */
export interface Expectation {
  /** Full name of the service that it is for; see {@link audienceOf}. */
  readonly audience: string;
  /** Name of the server; undefined where its key says enough. */
  readonly issuer: string | undefined;
  /** In milliseconds since 1970. */
  readonly now: number;
}

/** What verifying found. A verifier that cannot get at its keys throws instead. */
export type Verdict =
  | { readonly type: "verified"; readonly assertion: Assertion }
  | { readonly type: "refused"; readonly code: "ASSERTION_BAD"; readonly reason: string };

/** The full name of a service, as the audience of an assertion: names differ in nothing but case only by accident, so there is none. */
export function audienceOf(host: string | undefined, service: string): string {
  return (host === undefined ? service : `${host}/${service}`).toLowerCase();
}

/** Signs a statement; `now` in milliseconds since 1970. */
export function signAssertion(statement: Statement, key: AssertionKey, now: number): Promise<string> {
  const { issuer, user, roles, host, service, session, mechanism, secondFactor } = statement;
  const seconds = Math.floor(now / 1_000);
  const claims = { roles, ...(host === undefined ? {} : { host }), service, session, mechanism, secondFactor };
  return new SignJWT(claims)
    .setProtectedHeader({ alg: ALGORITHM, kid: key.kid, typ: ASSERTION_TYPE })
    .setIssuer(issuer)
    .setSubject(user)
    .setAudience(audienceOf(host, service))
    .setIssuedAt(seconds)
    .setExpirationTime(seconds + ASSERTION_SECONDS)
    .setJti(randomUUID())
    .sign(key.privateKey);
}

/** Verifies a token with keys that `find` knows. */
export async function judgeAssertion(token: string, find: JWTVerifyGetKey, expected: Expectation): Promise<Verdict> {
  const audience = expected.audience.toLowerCase();
  const judged = await judgeToken(token, find, { ...expected, type: ASSERTION_TYPE });
  return judged.type === "refused" ? judged : verdictOn(judged.claims, audience);
}

/** What a token was found to be, whatever it says: signed as it should be, in time, and of the type that was expected. */
export type JudgedToken =
  | { readonly type: "signed"; readonly claims: unknown }
  | { readonly type: "refused"; readonly code: "ASSERTION_BAD"; readonly reason: string };

/** Verifies a token of any type of ours; its claims are for the caller to judge. Rejects where the keys cannot be had. */
export async function judgeToken(
  token: string,
  find: JWTVerifyGetKey,
  expected: Omit<Expectation, "audience"> & { readonly type: string; readonly audience?: string },
): Promise<JudgedToken> {
  if (token.length > TOKEN_LENGTH_MAX) return refused("it is too long");
  if (!token.split(".").every(isBase64url)) return refused("it is not in the one form that base64url has for it");
  try {
    const { payload } = await jwtVerify(token, find, {
      algorithms: [ALGORITHM],
      typ: expected.type,
      ...(expected.audience === undefined ? {} : { audience: expected.audience.toLowerCase() }),
      ...(expected.issuer === undefined ? {} : { issuer: expected.issuer }),
      currentDate: new Date(expected.now),
      clockTolerance: CLOCK_TOLERANCE_SECONDS,
      maxTokenAge: LIFETIME_SECONDS_MAX,
      requiredClaims: ["iss", "sub", "exp", "jti"],
    });
    return { type: "signed", claims: payload };
  } catch (error) {
    if (error instanceof errors.JOSEError && OF_THE_TOKEN.has(error.code)) return refused(error.message);
    throw error;
  }
}

/** Failures that are the token's, and not those of whoever keeps the keys. */
const OF_THE_TOKEN: ReadonlySet<string> = new Set(
  [
    errors.JWSInvalid,
    errors.JWTInvalid,
    errors.JWTExpired,
    errors.JWTClaimValidationFailed,
    errors.JWSSignatureVerificationFailed,
    errors.JOSEAlgNotAllowed,
    errors.JOSENotSupported,
    errors.JWKSNoMatchingKey,
    errors.JWKSMultipleMatchingKeys,
  ].map(({ code }) => code),
);

/** Decoders forgive padding, blanks and bits that mean nothing; then one token has many spellings, and no list of seen ones is any good. */
function isBase64url(part: string): boolean {
  return Buffer.from(part, "base64url").toString("base64url") === part;
}

/** A good signature says who wrote the claims, not that they are what they should be. */
function verdictOn(claims: unknown, audience: string): Verdict {
  if (typeof claims !== "object" || claims === null) return refused("its claims are no object");
  const { iss, sub, aud, iat, exp, jti, roles, host, service, session, mechanism, secondFactor } = toRecord(claims);
  if (!isText(iss) || !isText(sub) || !isText(jti) || !isText(service) || !isText(session) || !isText(mechanism))
    return refused("a claim is missing, or no text");
  if (host !== undefined && !isText(host)) return refused("the host is no text");
  // One audience, and the one that the other claims amount to: a list could name others besides us.
  if (aud !== audience || audienceOf(host, service) !== audience) return refused("it is for another service");
  if (!isRoles(roles)) return refused("the roles are no list of texts");
  if (typeof secondFactor !== "boolean") return refused("the second factor is neither true nor false");
  if (!isTime(iat) || !isTime(exp) || exp <= iat || exp - iat > LIFETIME_SECONDS_MAX)
    return refused("it is good for too long");
  return {
    type: "verified",
    assertion: {
      ...{ issuer: iss, user: sub, roles, host, service, session, mechanism, secondFactor },
      ...{ issuedAt: iat * 1_000, expiresAt: exp * 1_000, id: jti },
    },
  };
}

/** Claims as what they are, before anything of them is believed. */
export function toRecord(claims: object): Readonly<Record<string, unknown>> {
  return Object.fromEntries(Object.entries(claims));
}

/** A claim of ours that is a text. */
export function isText(value: unknown): value is string {
  return typeof value === "string" && value.length > 0 && value.length <= TEXT_LENGTH_MAX;
}

/** A claim that is a list of texts. */
export function isRoles(value: unknown): value is readonly string[] {
  return Array.isArray(value) && value.length <= ROLES_MAX && value.every(isText);
}

/** A claim that is a time, in seconds since 1970. */
export function isTime(value: unknown): value is number {
  return typeof value === "number" && Number.isSafeInteger(value) && value >= 0;
}

/** The verdict on a token that is not to be believed. */
export function refused(reason: string): {
  readonly type: "refused";
  readonly code: "ASSERTION_BAD";
  readonly reason: string;
} {
  return { type: "refused", code: "ASSERTION_BAD", reason };
}
