/**
 * Verifying what a session server says of a caller (docs/announce.md): where its public keys are, and how often they are looked at. What an
 * assertion is, and when it is one, is identity/assertion.ts.
 * @module
 */
import { readFile, stat } from "node:fs/promises";
import { createLocalJWKSet, createRemoteJWKSet, errors, type JSONWebKeySet, type JWTVerifyGetKey } from "jose";
import { type Assertion, judgeAssertion } from "../identity/index.ts";
import { FivedError } from "../io/index.ts";

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

/** Octets of a file of keys; a set has two keys and those that were replaced a moment ago. */
const FILE_BYTES_MAX = 256 * 1024;
/** How often keys are asked for again because of a token that none of them has signed: whoever sends such tokens decides when they come. */
const RETRY_MS = 5_000;
/** How long fetched keys are believed: the server publishes the next one long before it is used, so this bounds how long a withdrawn one is. */
const KEEP_MS = 5 * 60_000;
const FETCH_MS = 5_000;

/**
 * Makes a function that verifies assertions for one service, and keeps the keys between them. The function rejects with `ASSERTION_BAD` for
 * a token that is none, has ended, or is for somebody else, and with `KEYS_UNAVAILABLE` where the keys cannot be had. Throws a TypeError for
 * a URL of another scheme.
 * @example
 * const verify = verifier({ keys: "/run/fived/jwks.json", audience: "wiki", issuer: "gate.example.org" });
 * const { user, roles } = await verify(request.headers["fived-assertion"]);
 */
export function verifier({ keys, audience, issuer, now = Date.now }: VerifierOptions): Verify {
  const find = finderOf(keys);
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

function finderOf(keys: JwksSource): JWTVerifyGetKey {
  if (typeof keys === "string") return inFile(keys);
  if (!(keys instanceof URL)) return createLocalJWKSet(keys);
  const isHere = /^(?:localhost|127(?:\.\d+){3}|\[::1\])$/.test(keys.hostname);
  if (keys.protocol !== "https:" && !(keys.protocol === "http:" && isHere))
    throw new TypeError(`Cannot take keys from ${keys.href}: whoever is on the way could give others; use https`);
  return createRemoteJWKSet(keys, { cooldownDuration: RETRY_MS, cacheMaxAge: KEEP_MS, timeoutDuration: FETCH_MS });
}

/** Keys in a file that a server of this computer writes: read again when it is another one. */
function inFile(file: string): JWTVerifyGetKey {
  let read: { readonly version: string; readonly find: JWTVerifyGetKey } | undefined;
  return async (header, token) => {
    const { mtimeMs, ino, size } = await stat(file);
    const version = `${mtimeMs} ${ino} ${size}`;
    if (read?.version !== version) {
      if (size > FILE_BYTES_MAX) throw new Error(`${file} is too large for a set of keys`);
      const parsed: unknown = JSON.parse(await readFile(file, "utf8"));
      read = { version, find: createLocalJWKSet(keySetIn(parsed, file)) };
    }
    return await read.find(header, token);
  };
}

function keySetIn(parsed: unknown, file: string): JSONWebKeySet {
  if (typeof parsed === "object" && parsed !== null && "keys" in parsed && Array.isArray(parsed.keys))
    return { keys: parsed.keys };
  throw new errors.JWKSInvalid(`${file} is no set of keys`);
}
