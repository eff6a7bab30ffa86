/**
 * Redeeming an invite (PROTOCOL §4.6.5): the server has to have the key that the invite names, before anything is said to it; then the
 * secret proves who was invited, without crossing, and a public key takes its place.
 * @module
 */
import { generateKeyPairSync } from "node:crypto";
import { mkdir, stat } from "node:fs/promises";
import { dirname } from "node:path";
import { type Invite, inviteProof } from "../../identity/index.ts";
import { FivedError, replacePrivateFile } from "../../io/index.ts";
import { parseAddress, printAddress } from "../address.ts";
import type { ConnectOptions } from "../dial.ts";
import { exchange, openConversation } from "./authenticate.ts";

/** Somebody who is a user from now on. */
export interface Redeemed {
  /** Who the server says he is. */
  readonly identity: string;
  /** Host in force when he was; empty for the default host. */
  readonly host: string;
  /** Nothing but the key was asked for. */
  readonly keyAlone: boolean;
}

/**
 * Redeems an invite with a public key, `type base64`. Rejects with HOST_KEY_CHANGED for a server with another key, with INVITE_BAD for an
 * invite whose time is over, with AUTH_REFUSED for one that is used or withdrawn, with AUTH_IMPOSSIBLE where a second factor is asked for and nobody can answer, and as dialling does.
 */
export async function redeemInvite(invite: Invite, publicKey: string, options: ConnectOptions): Promise<Redeemed> {
  const { user, secret, fingerprint, expires } = invite;
  const address = parseAddress(invite.address);
  const cannot = `Cannot join ${printAddress(address)} as ${user}`;
  if (expires <= Date.now())
    throw new FivedError(
      "INVITE_BAD",
      `${cannot}: the invite ended on ${new Date(expires).toISOString()}; ask for another`,
    );
  using opening = await openConversation(address, { ...options, expectedKey: fingerprint });
  const { conversation, host } = opening;
  const { binding } = conversation.dialled;
  if (binding === undefined || host === undefined) throw new Error("Invariant: an invite names its server's key");
  const proof = inviteProof(secret, { binding, host, user });
  let isKeyGiven = false;
  let answered = 0;
  const outcome = await exchange(
    conversation,
    `AUTH invite ${user} ${proof}`,
    async (question, shown) => {
      if (!isKeyGiven) {
        isKeyGiven = true;
        return publicKey;
      }
      const ask = options.auth?.password;
      if (ask === undefined)
        throw new FivedError("AUTH_IMPOSSIBLE", `${cannot}: the server asks "${question}"; run it at a terminal`);
      answered++;
      return await ask(question, shown);
    },
    options,
  );
  if (outcome.type === "refused") {
    const why = isKeyGiven ? "the server does not take the key" : "the invite was used, withdrawn, or has ended";
    throw new FivedError("AUTH_REFUSED", `${cannot}: ${why}; ask for another invite`, { status: outcome.code });
  }
  return { identity: outcome.identity, host, keyAlone: answered === 0 };
}

/**
 * Makes an Ed25519 key in a file of mode 0600 (PKCS #8), where there is none yet; the folder is made too, for its owner alone. Rejects as
 * the file system does.
 */
export async function makeKeyIfMissing(file: string): Promise<void> {
  await mkdir(dirname(file), { recursive: true, mode: 0o700 });
  if ((await stat(file).catch(() => undefined)) !== undefined) return;
  const { privateKey } = generateKeyPairSync("ed25519");
  await replacePrivateFile(file, privateKey.export({ type: "pkcs8", format: "pem" }));
}
