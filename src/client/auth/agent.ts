/**
 * The protocol of ssh-agent (draft-ietf-sshm-ssh-agent), as far as a client needs it: which keys are there, and a signature of one of them.
 * A connection for each request: agents are local, and some close after one.
 * @module
 */
import { connect } from "node:net";
import { FieldReader, sshString as string, sshU32 as u32 } from "../../identity/index.ts";
import { FivedError } from "../../io/index.ts";

/** A key that an agent holds. */
export interface AgentKey {
  /** The key, or its certificate, in SSH's form. */
  readonly blob: Uint8Array;
  /** Printable; usually the name of the file it came from. */
  readonly comment: string;
}

/** What waits for an agent. */
export interface AgentOptions {
  readonly signal?: AbortSignal | undefined;
  /** How long to wait instead of {@link LIST_MS} or {@link SIGN_MS}. */
  readonly ms?: number | undefined;
}

/** Octets of an answer: OpenSSH's own bound. */
export const ANSWER_BYTES_MAX = 262_144;
/** Keys of an agent that are looked at: servers lose patience after a handful. */
export const AGENT_KEYS_MAX = 1_000;
/** An agent answers this by itself. */
export const LIST_MS = 5_000;
/** Somebody may have to confirm, to type a PIN, or to find the token and touch it. */
export const SIGN_MS = 60_000;

/** Where the agent listens, as ssh finds it; undefined where none is named. */
export function agentSocket(env: NodeJS.ProcessEnv, platform: NodeJS.Platform = process.platform): string | undefined {
  const named = env["SSH_AUTH_SOCK"];
  if (named !== undefined && named !== "") return named;
  return platform === "win32" ? "\\\\.\\pipe\\openssh-ssh-agent" : undefined;
}

/** The keys of an agent, in its order; rejects with `AGENT_FAILED`, `TIMEOUT` or `ABORTED`. */
export async function agentKeys(
  socket: string,
  { signal, ms = LIST_MS }: AgentOptions = {},
): Promise<readonly AgentKey[]> {
  const answer = await request(socket, Uint8Array.of(Message.requestIdentities), { signal, ms });
  const reader = new FieldReader(answer);
  const type = reader.u8();
  const count = reader.u32();
  const keys: AgentKey[] = [];
  while (keys.length < count && reader.left > 0) {
    const blob = reader.string().slice();
    const comment = Buffer.from(reader.string()).toString("utf8");
    keys.push({ blob, comment: comment.replace(/[^\x20-\x7e]/g, "?") });
  }
  if (type !== Message.identitiesAnswer || !reader.done || keys.length !== count)
    throw failed(socket, "it does not list its keys");
  return keys.slice(0, AGENT_KEYS_MAX);
}

/** A signature by one of the agent's keys, in SSH's form, with SHA-512 where the key is RSA; rejects as {@link agentKeys}. */
export async function agentSign(
  socket: string,
  blob: Uint8Array,
  octets: Uint8Array,
  { signal, ms = SIGN_MS }: AgentOptions = {},
): Promise<Uint8Array> {
  const fields = [Uint8Array.of(Message.signRequest), string(blob), string(octets), u32(RSA_SHA2_512)];
  const reader = new FieldReader(await request(socket, Buffer.concat(fields), { signal, ms }));
  const type = reader.u8();
  const signature = reader.string().slice();
  if (type !== Message.signResponse || !reader.done)
    throw failed(socket, "it refused to sign; see whether it asks for a confirmation or a touch");
  return signature;
}

const Message = { requestIdentities: 11, identitiesAnswer: 12, signRequest: 13, signResponse: 14 } as const;
/** Asks for `rsa-sha2-512`; means nothing to other keys. */
const RSA_SHA2_512 = 4;

/** Sends a message and resolves with the one that answers it. */
async function request(
  path: string,
  message: Uint8Array,
  { signal, ms }: { readonly signal: AbortSignal | undefined; readonly ms: number },
): Promise<Uint8Array> {
  const deadline = AbortSignal.timeout(ms);
  const socket = connect({ path, signal: signal === undefined ? deadline : AbortSignal.any([signal, deadline]) });
  try {
    socket.write(Buffer.concat([u32(message.length), message]));
    let answer = Buffer.alloc(0);
    for await (const chunk of socket) {
      answer = Buffer.concat([answer, chunk]);
      if (answer.length < 4) continue;
      const length = answer.readUInt32BE();
      if (length === 0 || length > ANSWER_BYTES_MAX) throw failed(path, "what it answers is no answer of an agent");
      if (answer.length >= 4 + length) return answer.subarray(4, 4 + length);
    }
    throw failed(path, "it hung up");
  } catch (cause) {
    if (cause instanceof FivedError) throw cause;
    if (signal?.aborted) throw new FivedError("ABORTED", "Gave up asking the ssh-agent", { cause: signal.reason });
    if (deadline.aborted)
      throw new FivedError("TIMEOUT", `Gave up on the ssh-agent at ${path}: no answer within ${ms / 1000} s`, {
        cause,
      });
    throw failed(path, cause instanceof Error ? cause.message : String(cause), cause);
  } finally {
    socket.destroy();
  }
}

function failed(path: string, why: string, cause?: unknown): FivedError {
  return new FivedError("AGENT_FAILED", `Cannot use the ssh-agent at ${path}: ${why}`, { cause });
}
