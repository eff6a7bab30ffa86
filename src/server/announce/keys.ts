/**
 * The keys that assertions are signed with: made on first use, kept in the state folder, changed every so often, and published as a JSON
 * Web Key Set (RFC 7517) so that back ends can verify. Used for nothing else.
 *
 * ```
 *            made                 takes over              is replaced           its assertions have run out
 *              │     next            │      current           │      retired         │
 *   published  ├─────────────────────┼────────────────────────┼──────────────────────┤
 *   signs                            ├────────────────────────┤
 * ```
 *
 * The next key is published a whole period before it signs: a back end that keeps the set for hours still knows the key of the first
 * assertion it sees. One file holds all of it, so that no crash leaves keys that do not belong together.
 * @module
 */
import { createPrivateKey, generateKeyPairSync, type KeyObject } from "node:crypto";
import { link, unlink } from "node:fs/promises";
import { join } from "node:path";
import { calculateJwkThumbprint, type JSONWebKeySet } from "jose";
import { z } from "zod";
import { ASSERTION_SECONDS, type AssertionKey, CLOCK_TOLERANCE_SECONDS } from "../../identity/index.ts";
import type { Log } from "../log.ts";
import { type FileKind, fileUnusable, placeFile, prepareStateFolder, readFileIfThere } from "../state-file.ts";

/** How long a key signs: what leaked of it unnoticed ends some day. */
export const KEY_MS = 90 * 24 * 60 * 60 * 1_000;
/** How often the keys' age is looked at, and whether another process has changed them. */
const LOOK_EVERY_MS = 60 * 60 * 1_000;
/** A retired key is published until no clock can hold its last assertion for good, and as long again. */
const RETIRED_MS = 2 * (ASSERTION_SECONDS + CLOCK_TOLERANCE_SECONDS) * 1_000;
/** Retired keys that are published: more rotations in two minutes than this are nobody's wish. */
const RETIRED_MAX = 16;

/** What the keys need. */
export interface AnnounceKeysOptions {
  /** The state folder. */
  readonly state: string;
  /** Where the public keys are put besides: a file that back ends may read, as the state folder is nobody else's. */
  readonly publishAt?: string | undefined;
  readonly log: Log;
  /** The wall clock, in milliseconds. */
  readonly now?: () => number;
}

const KIND: FileKind = { code: "STATE_UNUSABLE", noun: "key", forbidden: 0o077 };

const octets = z.string().regex(/^[A-Za-z0-9_-]{43}$/);
const pair = z.strictObject({ kid: z.string(), x: octets, d: octets, from: z.number() });
const retired = z.strictObject({ kid: z.string(), x: octets, until: z.number() });
const stored = z.strictObject({
  version: z.literal(1),
  current: pair,
  next: pair,
  retired: z.array(retired).max(RETIRED_MAX),
});

/** What the file holds. */
type Stored = z.output<typeof stored>;
type Pair = Stored["current"];

/** The keys of one state folder, for as long as the server runs; reloading the configuration keeps them. Disposing ends looking at their age. */
export class AnnounceKeys implements Disposable {
  readonly #file: string;
  readonly #published: readonly string[];
  readonly #log: Log;
  readonly #now: () => number;
  readonly #timer: NodeJS.Timeout;
  #stored: Stored;
  #current: AssertionKey;
  /** Changes come one after the other. */
  #changing: Promise<void> = Promise.resolve();

  private constructor(file: string, published: readonly string[], first: Stored, log: Log, now: () => number) {
    this.#file = file;
    this.#published = published;
    this.#log = log;
    this.#now = now;
    this.#stored = first;
    this.#current = assertionKey(first.current);
    this.#timer = setInterval(() => void this.#look(), LOOK_EVERY_MS).unref(); // it logs what fails
  }

  /** Reads the keys, or makes them; throws `STATE_UNUSABLE`. */
  static async open({ state, publishAt, log, now = Date.now }: AnnounceKeysOptions): Promise<AnnounceKeys> {
    await prepareStateFolder(state);
    const file = join(state, "announce.keys");
    const first = (await load(file)) ?? (await make(file, now()));
    const published = [join(state, "jwks.json"), ...(publishAt === undefined ? [] : [publishAt])];
    const keys = new AnnounceKeys(file, published, first, log, now);
    try {
      await keys.#exclusively(() => keys.#tidy());
      return keys;
    } catch (error) {
      keys[Symbol.dispose]();
      throw error;
    }
  }

  /** What to sign with now. */
  get current(): AssertionKey {
    return this.#current;
  }

  /** The public keys. */
  get jwks(): JSONWebKeySet {
    const { current, next, retired: old } = this.#stored;
    const now = this.#now();
    const keys = [current, next, ...old.filter(({ until }) => until > now)];
    return {
      keys: keys.map(({ kid, x }) => ({ kty: "OKP", crv: "Ed25519", x, kid, alg: "EdDSA", use: "sig" })),
    };
  }

  /**
   * Signs with the next key from now on, and makes another one to follow it. `withdraw` is for keys that somebody else may have: none of
   * those so far is published any more, and what they have signed is refused as soon as back ends ask for the set again.
   */
  rotate({ withdraw = false }: { readonly withdraw?: boolean } = {}): Promise<void> {
    return this.#exclusively(async () => {
      await this.#reload();
      await this.#rotate(withdraw);
    });
  }

  /** Looks whether another process has changed the keys. */
  refresh(): Promise<void> {
    return this.#exclusively(async () => {
      await this.#reload();
      await this.#tidy();
    });
  }

  [Symbol.dispose](): void {
    clearInterval(this.#timer);
  }

  async #look(): Promise<void> {
    try {
      await this.refresh();
    } catch (error) {
      this.#log.error({ error }, "cannot look after the keys of assertions");
    }
  }

  #exclusively(change: () => Promise<void>): Promise<void> {
    const done = this.#changing.then(change);
    this.#changing = done.catch(() => {}); // whoever asked for it is told
    return done;
  }

  async #reload(): Promise<void> {
    const now = await load(this.#file);
    if (now === undefined) return; // removed under us: what we have is written with the next change
    this.#adopt(now);
  }

  #adopt(now: Stored): void {
    if (now.current.kid !== this.#stored.current.kid) this.#current = assertionKey(now.current);
    this.#stored = now;
  }

  async #tidy(): Promise<void> {
    if (this.#now() - this.#stored.current.from >= KEY_MS) await this.#rotate(false);
    else await this.#publish();
  }

  async #rotate(withdraw: boolean): Promise<void> {
    const now = this.#now();
    const { current, next, retired: old } = this.#stored;
    const leaving = { kid: current.kid, x: current.x, until: now + RETIRED_MS };
    const changed: Stored = {
      version: 1,
      current: withdraw ? await makePair(now) : { ...next, from: now },
      next: await makePair(now),
      retired: withdraw ? [] : [leaving, ...old.filter(({ until }) => until > now)].slice(0, RETIRED_MAX),
    };
    await placeFile(this.#file, encode(changed), 0o600);
    // Published before the first assertion is signed with it.
    this.#stored = changed;
    await this.#publish();
    this.#current = assertionKey(changed.current);
    const why = withdraw ? "withdrawn" : "its time was over, or somebody asked";
    this.#log.info({ file: this.#file, reason: why }, "the key of assertions was changed");
  }

  async #publish(): Promise<void> {
    const text = Buffer.from(`${JSON.stringify(this.jwks, undefined, 2)}\n`);
    for (const file of this.#published) await placeFile(file, text, 0o644);
  }
}

async function load(file: string): Promise<Stored | undefined> {
  const content = await readFileIfThere(file, KIND);
  if (content === undefined) return undefined;
  let parsed: unknown;
  try {
    parsed = JSON.parse(content.toString());
  } catch {
    throw fileUnusable(KIND, file, "it is not what we wrote; move it away, and new keys are made");
  } finally {
    content.fill(0);
  }
  const checked = stored.safeParse(parsed);
  if (!checked.success) throw fileUnusable(KIND, file, "it is not what we wrote; move it away, and new keys are made");
  return checked.data;
}

/** Makes the keys, unless another process of ours is quicker: whichever are placed first are the keys of both. */
async function make(file: string, now: number): Promise<Stored> {
  const made: Stored = { version: 1, current: await makePair(now), next: await makePair(now), retired: [] };
  await placeFile(file, encode(made), 0o600, async (from, to) => {
    await link(from, to).catch((error: NodeJS.ErrnoException) => {
      if (error.code !== "EEXIST") throw error;
    });
    await unlink(from);
  });
  return (await load(file)) ?? made;
}

async function makePair(from: number): Promise<Pair> {
  const { x = "", d = "" } = generateKeyPairSync("ed25519").privateKey.export({ format: "jwk" });
  return { kid: await calculateJwkThumbprint({ kty: "OKP", crv: "Ed25519", x }), x, d, from };
}

function encode(keys: Stored): Buffer {
  return Buffer.from(`${JSON.stringify(keys, undefined, 2)}\n`);
}

function assertionKey({ kid, x, d }: Pair): AssertionKey {
  const key: KeyObject = createPrivateKey({ format: "jwk", key: { kty: "OKP", crv: "Ed25519", x, d } });
  return { kid, privateKey: key.toCryptoKey("Ed25519", false, ["sign"]) };
}
