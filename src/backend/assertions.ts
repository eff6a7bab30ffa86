/**
 * Verifying what a session server says of a caller (docs/announce.md): where its public keys are, and how often they are looked at. What an
 * assertion is, and when it is one, is identity/assertion.ts.
 * @module
 */
import type { JSONWebKeySet } from "jose";
import { type Assertion, judgeAssertion } from "../identity/index.ts";
import { FivedError, keySet } from "../io/index.ts";

/**
 * Where the public keys are: the set itself; the address of a service with `keys: true`, as a URL (`https:`, or `http:` on this computer);
 * or the path of a file.
 */
export type JwksSource = JSONWebKeySet | URL | string;

/** What is expected of an assertion. */
export interface VerifierOptions {
  readonly keys: JwksSource;
  /** Full name of the service that this program is: `wiki`, or `git.example.org/wiki` at a virtual host. */
  readonly audience: string;
  /** Name of the session server (`announce.issuer`); undefined where its key says enough. */
  readonly issuer?: string;
  /** The wall clock, in milliseconds. */
  readonly now?: () => number;
}

/** Verifies tokens; see {@link verifyAssertion}. */
export type Verify = (token: string) => Promise<Assertion>;

/**
 * Makes a function that verifies assertions for one service, and keeps the keys between them. The function rejects with `ASSERTION_BAD` for
 * a token that is none, has ended, or is for somebody else, and with `KEYS_UNAVAILABLE` where the keys cannot be had. Throws a TypeError for
 * a URL of another scheme.
 * @example
 * const verify = verifier({ keys: "/run/fived/jwks.json", audience: "wiki", issuer: "gate.example.org" });
 * const { user, roles } = await verify(request.headers["fived-assertion"]);
 */
export function verifier({ keys, audience, issuer, now = Date.now }: VerifierOptions): Verify {
  const find = keySet(keys);
  return async (token) => {
    const verdict = await judgeAssertion(token, find, { audience, issuer, now: now() }).catch((cause: unknown) => {
      if (cause instanceof FivedError) throw cause;
      const why = cause instanceof Error ? cause.message : String(cause);
      throw new FivedError("KEYS_UNAVAILABLE", `Cannot verify an assertion: ${why}`, { cause });
    });
    if (verdict.type === "verified") return verdict.assertion;
    throw new FivedError("ASSERTION_BAD", `Cannot believe an assertion: ${verdict.reason}`);
  };
}

/** Verifies one assertion; a program that verifies several makes a {@link verifier}, which keeps the keys. Rejects as that does. */
export function verifyAssertion(token: string, options: VerifierOptions): Promise<Assertion> {
  return verifier(options)(token);
}
