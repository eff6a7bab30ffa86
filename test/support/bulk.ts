/**
 * Large files of random octets, and what they hash to: how a test knows that a transfer lost nothing, repeated nothing and changed nothing.
 * @module
 */
import { createHash, randomBytes } from "node:crypto";
import fs from "node:fs";
import type { Readable } from "node:stream";
import { pipeline } from "node:stream/promises";

/** What one write of a large file holds. */
const PIECE_BYTES = 1_000_000;

/** Writes a file of so many megabytes, and gives its SHA-256. */
export async function writeBulk(file: string, megabytes: number): Promise<string> {
  const hash = createHash("sha256");
  await pipeline(function* () {
    for (let i = 0; i < megabytes; i++) {
      const piece = randomBytes(PIECE_BYTES);
      hash.update(piece);
      yield piece;
    }
  }, fs.createWriteStream(file));
  return hash.digest("hex");
}

/** SHA-256 of a file. */
export function hashOfFile(file: string): Promise<string> {
  return hashOf(fs.createReadStream(file));
}

/** SHA-256 of everything a stream gives. */
export async function hashOf(stream: Readable): Promise<string> {
  const hash = createHash("sha256");
  await pipeline(stream, hash);
  return hash.digest("hex");
}
