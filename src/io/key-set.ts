/**
 * Public keys of others (JWKS, RFC 7517) that sign who somebody is: in a file, or behind a URL, and how often each is looked at. What is
 * verified with them is not known here.
 * @module
 */
import { readFile, stat } from "node:fs/promises";
import { createLocalJWKSet, createRemoteJWKSet, errors, type JSONWebKeySet, type JWTVerifyGetKey } from "jose";

/** Octets of a file of keys; a set has two keys and those that were replaced a moment ago. */
const FILE_BYTES_MAX = 256 * 1024;
/** How often keys are asked for again because of a token that none of them has signed: whoever sends such tokens decides when they come. */
const RETRY_MS = 5_000;
/** How long fetched keys are believed: the server publishes the next one long before it is used, so this bounds how long a withdrawn one is. */
const KEEP_MS = 5 * 60_000;
const FETCH_MS = 5_000;

/**
 * Finds the key that a token names, in the set itself, in a file of this computer, or behind a URL (`https:`, or `http:` on this computer). What
 * was read is kept. Throws a TypeError for a URL of another scheme; looking a key up rejects where the set cannot be had.
 */
export function keySet(keys: JSONWebKeySet | URL | string): JWTVerifyGetKey {
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
