/**
 * A new password: typed twice at the terminal without being shown, or a line of standard input where that is no terminal. Never an
 * argument, which every user of the computer can read.
 * @module
 */
import { timingSafeEqual } from "node:crypto";
import { FivedError } from "../io/index.ts";
import { questioner } from "./ask.ts";

const LF = 0x0a;
const CR = 0x0d;

/** Gets a new password for that user, of at most `bytesMax` octets; the octets are the caller's to wipe. */
export async function newPassword(user: string, bytesMax: number): Promise<Uint8Array> {
  const ask = process.stdin.isTTY ? questioner() : undefined;
  if (ask === undefined) return await firstLine(user, bytesMax);
  const password = await ask(`New password for ${user}: `, false);
  const again = await ask("The same again: ", false);
  const same = password.length === again.length && timingSafeEqual(password, again);
  again.fill(0);
  if (same) return password;
  password.fill(0);
  throw new FivedError("USER_BAD", `Cannot set the password of "${user}": the two are not the same; try again`);
}

/** The first line of standard input, with or without an end. */
async function firstLine(user: string, bytesMax: number): Promise<Uint8Array> {
  const line = Buffer.alloc(bytesMax + 2); // room for CR, and for one octet that is too many
  let bytes = 0;
  for await (const chunk of process.stdin) {
    const end = chunk.indexOf(LF);
    bytes += chunk.copy(line, bytes, 0, end < 0 ? chunk.length : end);
    chunk.fill(0);
    if (end >= 0 || bytes === line.length) break;
  }
  if (line[bytes - 1] === CR) bytes--;
  if (bytes > 0 && bytes <= bytesMax) return line.subarray(0, bytes);
  line.fill(0);
  const why =
    bytes === 0
      ? "standard input has no line; give one, type it at a terminal, or say --no-password"
      : `it has more than ${bytesMax} octets`;
  throw new FivedError("USER_BAD", `Cannot set the password of "${user}": ${why}`);
}
