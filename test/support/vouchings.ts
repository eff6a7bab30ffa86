/**
 * Keys of other session servers, and what they, or somebody who would like to be one of them, can say of callers (PROTOCOL §4.12).
 * @module
 */
import { generateKeyPairSync, type KeyObject } from "node:crypto";
import { type JSONWebKeySet, SignJWT } from "jose";
import type { AssertionKey, VouchingStatement } from "../../src/identity/index.ts";

/** A server's key, and the set that it publishes. */
export interface OtherKey extends AssertionKey {
  readonly publicKey: KeyObject;
  readonly set: JSONWebKeySet;
}

/** A new key. */
export function otherKey(kid: string): OtherKey {
  const { privateKey, publicKey } = generateKeyPairSync("ed25519");
  const { x = "" } = publicKey.export({ format: "jwk" });
  const set = { keys: [{ kty: "OKP", crv: "Ed25519", x, kid, alg: "EdDSA", use: "sig" } as const] };
  return { kid, publicKey, privateKey: privateKey.toCryptoKey("Ed25519", false, ["sign"]), set };
}

/** What is said of alice, who wants the wiki. */
export function vouchingFor(more: Partial<VouchingStatement> = {}): VouchingStatement {
  return {
    ...{ issuer: "a.example", user: "alice", roles: ["ops"], word: "wiki", binding: Buffer.alloc(32, 7) },
    ...{ session: "s1", mechanism: "pubkey", secondFactor: true },
    recognisedAt: 1_700_000_000_000,
    ...more,
  };
}

/** The claims of {@link vouchingFor}, made at that second, with others in their place. */
export function vouchingClaims(seconds: number, more: Readonly<Record<string, unknown>> = {}) {
  const { issuer, user, word, binding, roles, session, mechanism, secondFactor } = vouchingFor();
  const cb = Buffer.from(binding).toString("base64url");
  return {
    ...{ iss: issuer, sub: user, aud: word, cb, iat: seconds, exp: seconds + 30, jti: "j1" },
    ...{ roles, session, mechanism, secondFactor, auth_time: 1_700_000_000, ...more },
  };
}

/** A token that is well signed, whatever it says. */
export function forgeVouching(
  claims: Readonly<Record<string, unknown>>,
  key: AssertionKey,
  header: Readonly<Record<string, unknown>> = {},
): Promise<string> {
  return new SignJWT({ ...claims })
    .setProtectedHeader({ alg: "EdDSA", kid: key.kid, typ: "fived-vouching+jwt", ...header })
    .sign(key.privateKey);
}
