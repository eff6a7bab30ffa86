/**
 * Passwords as they are kept: argon2id (RFC 9106) in the PHC string format, `$argon2id$v=19$m=65536,t=3,p=4$salt$tag`. Each hash carries
 * what it cost, so that the cost of new ones may change. Computing them is rationed: a flood of attempts queues, and memory does not grow.
 * @module
 */
import { argon2, randomBytes, timingSafeEqual } from "node:crypto";
import { promisify } from "node:util";

/** What a hash costs to compute. */
export interface PasswordCost {
  readonly memoryKiB: number;
  readonly passes: number;
  readonly lanes: number;
}

/** A kept password. */
export interface PasswordHash extends PasswordCost {
  readonly salt: Uint8Array;
  readonly tag: Uint8Array;
}

/** The second recommended choice of RFC 9106 §4, for where 2 GiB a login are too much. */
export const PASSWORD_COST: PasswordCost = { memoryKiB: 65_536, passes: 3, lanes: 4 };

const SALT_BYTES = 16;
const TAG_BYTES = 32;
/** What a hash from elsewhere may cost us: a login must not take a gigabyte or half a minute. */
const COST_MAX: PasswordCost = { memoryKiB: 1_048_576, passes: 32, lanes: 16 };
/** Characters of a hash in its text form; ours have 97. */
const TEXT_CHARACTERS_MAX = 256;

/** Computations at a time, so that others get a processor, and some memory, too. */
const RUNNING_MAX = 2;
/** Computations that wait: at 0.1 s each the last one is still answered in time. */
export const WAITING_MAX = 64;

/** A hash that no password has, of the given cost: for the work of verifying where there is nothing to verify (abuse case A05). */
export function hashOfNothing({ memoryKiB, passes, lanes }: PasswordCost): PasswordHash {
  return { memoryKiB, passes, lanes, salt: randomBytes(SALT_BYTES), tag: randomBytes(TAG_BYTES) };
}

/** Reads a hash; undefined for anything else, for other variants of argon2, and for costs out of bounds. */
export function parsePasswordHash(text: string): PasswordHash | undefined {
  if (text.length > TEXT_CHARACTERS_MAX) return undefined;
  const parts = PHC.exec(text);
  if (parts === null) return undefined;
  const [memoryKiB = 0, passes = 0, lanes = 0] = parts.slice(1, 4).map(Number);
  const salt = fromBase64(parts[4] ?? "");
  const tag = fromBase64(parts[5] ?? "");
  if (salt === undefined || salt.length < 8 || tag === undefined || tag.length < 16) return undefined;
  if (memoryKiB > COST_MAX.memoryKiB || passes > COST_MAX.passes || lanes > COST_MAX.lanes) return undefined;
  if (memoryKiB < 8 * lanes) return undefined; // RFC 9106 §3.1
  return { memoryKiB, passes, lanes, salt, tag };
}

/** The text form of a hash. */
export function printPasswordHash({ memoryKiB, passes, lanes, salt, tag }: PasswordHash): string {
  return `$argon2id$v=19$m=${memoryKiB},t=${passes},p=${lanes}$${toBase64(salt)}$${toBase64(tag)}`;
}

/** Computes hashes, {@link RUNNING_MAX} at a time; {@link WAITING_MAX} may wait, and what is more is not computed at all. */
export class PasswordHasher {
  #running = 0;
  readonly #waiting: (() => void)[] = [];

  /** A new hash of a password, which stays the caller's to wipe; undefined when too much waits. */
  async hash(password: Uint8Array, cost: PasswordCost = PASSWORD_COST): Promise<PasswordHash | undefined> {
    const { memoryKiB, passes, lanes } = cost;
    const salt = randomBytes(SALT_BYTES);
    const tag = await this.#tag(password, { memoryKiB, passes, lanes, salt, tag: new Uint8Array(TAG_BYTES) });
    return tag && { memoryKiB, passes, lanes, salt, tag };
  }

  /** True if it is that password; false when too much waits, too. */
  async verify(kept: PasswordHash, password: Uint8Array): Promise<boolean> {
    const tag = await this.#tag(password, kept);
    if (tag === undefined) return false;
    const right = timingSafeEqual(tag, kept.tag);
    tag.fill(0);
    return right;
  }

  async #tag(message: Uint8Array, kept: PasswordHash): Promise<Uint8Array | undefined> {
    if (this.#running < RUNNING_MAX) this.#running++;
    else if (this.#waiting.length < WAITING_MAX) await new Promise<void>((resolve) => this.#waiting.push(resolve));
    else return undefined;
    try {
      return await computed("argon2id", {
        message,
        nonce: kept.salt,
        memory: kept.memoryKiB,
        passes: kept.passes,
        parallelism: kept.lanes,
        tagLength: kept.tag.length,
      });
    } finally {
      // Whoever waits takes this place over: it is not free in between.
      const next = this.#waiting.shift();
      if (next === undefined) this.#running--;
      else next();
    }
  }
}

const computed = promisify(argon2);

/** Decimal numbers without leading zeros, base64 without padding, as PHC writes them. */
const PHC =
  /^\$argon2id\$v=19\$m=([1-9]\d{0,9}),t=([1-9]\d{0,9}),p=([1-9]\d{0,9})\$([A-Za-z0-9+/]{11,86})\$([A-Za-z0-9+/]{22,86})$/;

function fromBase64(text: string): Buffer | undefined {
  const octets = Buffer.from(text, "base64");
  return toBase64(octets) === text ? octets : undefined;
}

function toBase64(octets: Uint8Array): string {
  return Buffer.from(octets).toString("base64").replace(/=+$/, "");
}
