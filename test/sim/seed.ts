/**
 * Chance that can be repeated: everything random in a test comes from FIVED_TEST_SEED (drawn by scripts/test.ts, or here when a file is run
 * alone), and a failure says it. FIVED_TEST_EFFORT multiplies how many random cases are tried.
 * @module
 */
import { randomInt } from "node:crypto";
import test, { type TestContext } from "node:test";

/** The seed of this run. */
export const seed: number = Number(process.env["FIVED_TEST_SEED"] ?? randomInt(0x7fff_ffff)) | 0;

/** So many times the ordinary number of random cases. */
export const effort: number = Math.max(1, Number(process.env["FIVED_TEST_EFFORT"] ?? 1));

/** Numbers that look random and are the same for the same seed (mulberry32). */
export class Random {
  #state: number;

  constructor(from: number) {
    this.#state = from | 0;
  }

  /** From 0 up to, and not including, 1. */
  fraction(): number {
    this.#state = (this.#state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(this.#state ^ (this.#state >>> 15), 1 | this.#state);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 0x1_0000_0000;
  }

  /** A whole number, both ends included. */
  between(low: number, high: number): number {
    return low + Math.floor(this.fraction() * (high - low + 1));
  }

  /** True so often. */
  chance(probability: number): boolean {
    return this.fraction() < probability;
  }

  /** One of them. */
  pick<T>(from: readonly T[]): T {
    const picked = from[this.between(0, from.length - 1)];
    if (picked === undefined) throw new Error("Cannot pick from nothing");
    return picked;
  }

  /** So many octets. */
  octets(length: number): Uint8Array {
    const octets = new Uint8Array(length);
    for (let at = 0; at < length; at++) octets[at] = this.between(0, 255);
    return octets;
  }

  /** The octets, cut at random places; most pieces are small. */
  cut(octets: Uint8Array): Uint8Array[] {
    const pieces: Uint8Array[] = [];
    for (let at = 0; at < octets.length; ) {
      const length = this.chance(0.7) ? this.between(1, 40) : this.between(1, Math.max(1, octets.length));
      pieces.push(octets.subarray(at, at + length));
      at += length;
    }
    return pieces;
  }
}

/** Says during what a failure came: what has to be known to repeat it. */
export function during(what: string, act: () => void): void {
  try {
    act();
  } catch (error) {
    throw new Error(`Failed with ${what}: ${error instanceof Error ? error.message : String(error)}`, { cause: error });
  }
}

/** A test with dice of its own. When it fails, the message ends in what repeats it. */
export function seededTest(name: string, body: (random: Random, t: TestContext) => void): void {
  test(name, (t) => {
    let salt = seed;
    for (const character of name) salt = Math.imul(salt ^ character.charCodeAt(0), 0x01000193);
    during(`FIVED_TEST_SEED=${seed}`, () => body(new Random(salt), t));
  });
}
