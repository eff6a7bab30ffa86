/**
 * ATTACH on a connection (PROTOCOL §4.8), from the client's end: what is said, and what of the answer is believed.
 * @module
 */
import { randomBytes, timingSafeEqual } from "node:crypto";
import {
  type Attached,
  type AttachMode,
  attachLine,
  NONCE_BYTES,
  parseAttached,
  proveAttach,
  serverProof,
  storedForm,
  type Ticket,
} from "../identity/index.ts";
import { BareChannel, FivedError } from "../io/index.ts";
import { RecallReader, type Recollection } from "../session/index.ts";
import { encodeLine, parseReply } from "../wire/index.ts";
import { type Address, hostLine, printAddress } from "./address.ts";
import type { Dialled } from "./dial.ts";
import { type Asked, expectReplies, type Heard } from "./replies.ts";

/** Octets of the server's log that have come, and of ours that it has, and that were said. */
export interface Positions {
  readonly sent: number;
  readonly acknowledged: number;
  readonly received: number;
}

/** What is asked for. */
export interface AttachWish {
  readonly address: Address;
  readonly ticket: Ticket;
  readonly mode: AttachMode;
  /** Octets of the server's log that have come. */
  readonly received: number;
}

/** What the server has answered, and proved. */
export interface AttachAnswer {
  readonly attached: Attached;
  /** What it remembers of our end, where we have asked with `recall`. */
  readonly recalled: Recollection | undefined;
  /** What came behind it. */
  readonly rest: Uint8Array;
}

/**
 * Says HOST and ATTACH; resolves with the server's answer. Rejects with SESSION_LOST and its status where the server refuses, with
 * PROTOCOL_ERROR where it does not prove that it has the session. The socket is the caller's to destroy.
 */
export async function attachOver(
  { socket, vouched, binding }: Dialled,
  { address, ticket, mode, received }: AttachWish,
  signal: AbortSignal,
): Promise<AttachAnswer> {
  if (binding === undefined) throw new FivedError("TLS_FAILED", "Cannot attach without TLS");
  const { sid, generation } = ticket;
  const claim = { sid, generation, mode, received, nonce: randomBytes(NONCE_BYTES) };
  const host = vouched ? hostLine(address) : undefined;
  const lines: Asked[] = host === undefined ? [] : [{ text: `HOST ${host}`, mayBeUnknown: true }];
  let attached: Attached | undefined;
  const recall = mode === "recall" ? new RecallReader() : undefined;
  const hear = (line: string): Heard => {
    if (attached !== undefined && recall !== undefined) return recalled(recall, line);
    const said = parseAttached(line);
    if (said === undefined) return { type: "refused", error: refusal(address, line) };
    const { proof, ...rest } = said;
    // Before it is believed: whoever stands in between could have us forget what the server does not have.
    if (!timingSafeEqual(proof, serverProof(storedForm(ticket), claim, rest, binding)))
      return { type: "refused", error: unproved(address) };
    attached = rest;
    return { type: recall === undefined ? "accepted" : "more" };
  };
  const recalled = (reader: RecallReader, line: string): Heard => {
    const found = reader.push(line);
    if (found === "nonsense") return { type: "refused", error: unproved(address) };
    return { type: found === "complete" ? "accepted" : "more" };
  };
  const channel = new BareChannel(socket);
  if (socket.isPaused()) socket.resume();
  const abort = (): void => void socket.destroy();
  signal.addEventListener("abort", abort, { once: true });
  try {
    const text = attachLine({ ...claim, proof: proveAttach(ticket, claim, binding) });
    socket.write(Buffer.concat([...lines.map((line) => encodeLine(line.text)), encodeLine(text)]));
    const rest = await new Promise<Uint8Array>((resolve, reject) => {
      expectReplies(
        channel,
        [...lines, { text: "ATTACH", hear }],
        (answer) => answer.type === "refused" && reject(answer.error),
        (behind) => resolve(behind),
      );
    });
    channel.release();
    if (attached === undefined || signal.aborted) throw new FivedError("ABORTED", "Cannot attach: it is over");
    return { attached, recalled: recall?.told, rest };
  } finally {
    signal.removeEventListener("abort", abort); // its time was for the answer
  }
}

/** The server's counts fit ours: else one of the two has lost its memory, and going on would lose or double octets (abuse case D16). */
export function isSane({ sent, acknowledged, received }: Positions, attached: Attached): boolean {
  return acknowledged <= attached.received && attached.received <= sent && attached.base <= received;
}

/** What the server says that is no `+ ATTACHED`. */
function refusal(address: Address, line: string): FivedError {
  const reply = parseReply(line);
  const said = reply.type === "refused" ? `${reply.code ?? ""} ${reply.text}`.trim() : "something else";
  const status = reply.type === "refused" ? reply.code : undefined;
  const message = `Cannot go on with the session at ${printAddress(address)}: the server says "${said}"`;
  return new FivedError("SESSION_LOST", message, status === undefined ? {} : { status });
}

function unproved(address: Address): FivedError {
  const why = "the server does not prove that it has the session";
  return new FivedError("PROTOCOL_ERROR", `Cannot go on with the session at ${printAddress(address)}: ${why}`);
}
