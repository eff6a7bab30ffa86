/**
 * What is said on a stream before it is a service's, and what is heard of it: names, lists, and errors in words.
 * @module
 */
import type { Duplex } from "node:stream";
import { FivedError } from "../io/index.ts";
import { type CodeName, isServiceName, parseReply } from "../wire/index.ts";
import { type Address, printAddress } from "./address.ts";
import { type Asked, refusal } from "./replies.ts";

/** A list is as long as an organisation has services, 100,000 of them at the most. */
const LIST_BYTES_MAX = 8 * 1_024 * 1_024;

/** Reads names until the empty line, or until a plain RFC 1078 peer closes. */
export async function readList(duplex: Duplex): Promise<string[]> {
  let text = "";
  for await (const chunk of duplex) {
    text += String(chunk);
    if (text.endsWith("\r\n\r\n") || text === "\r\n" || /^-.*\r\n/.test(text)) break; // a refused LIST leaves the conversation open
    if (text.length > LIST_BYTES_MAX)
      throw new FivedError(
        "PROTOCOL_ERROR",
        `Cannot list: the server names more than ${LIST_BYTES_MAX} octets of services`,
      );
  }
  duplex.destroy();
  if (text.startsWith("-")) throw refusal("LIST", parseReply(text.split("\r\n")[0] ?? ""));
  return text.split("\r\n").filter((line) => line !== "");
}

/** What is said of VIA in messages is its word alone: what stands behind it is a proof. */
export function asked(service: string, host: string | undefined, via?: string): Asked[] {
  const lines = [...(via === undefined ? [] : ["VIA"]), ...(host === undefined ? [] : [`HOST ${host}`]), service];
  return lines.map((text) => ({ text }));
}

export function listing(service: string | undefined): string {
  return service === undefined ? "LIST" : `LIST ${service}`;
}

export function checkName(service: string): void {
  if (isServiceName(service)) return;
  const charset = "1 to 64 letters, digits and . _ + -, starting with a letter, a digit or _";
  throw new FivedError("ADDRESS_BAD", `Cannot open "${service}": a service's name is ${charset}`);
}

export function lost(address: Address, why: string, reason?: CodeName): FivedError {
  const message = `Cannot go on with the session at ${printAddress(address)}: ${why}`;
  return new FivedError("SESSION_LOST", message, reason === undefined ? {} : { reason });
}

/** Destroys a stream with ABORTED when the signal says so. */
export function abortWith(duplex: Duplex, signal: AbortSignal | undefined): void {
  if (signal === undefined) return;
  const abort = (): void => {
    duplex.destroy(
      new FivedError("ABORTED", "Cannot go on with the stream: it was called off", { cause: signal.reason }),
    );
  };
  if (signal.aborted) return abort();
  signal.addEventListener("abort", abort, { once: true });
  duplex.once("close", () => signal.removeEventListener("abort", abort));
}
