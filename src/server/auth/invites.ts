/**
 * Invites at the server: making them, and the mechanism `invite` that redeems them (PROTOCOL §4.6). Whoever proves an invite names an SSH
 * key, and is from then on the invited user, by that key.
 *
 * ```
 * C: AUTH invite NAME proof:43
 * S: + SUCCESS <invite>
 * S: ? Enter Public Key:
 * C: ssh-ed25519 AAAA… comment
 * S: Authentication as NAME successful
 * ```
 *
 * An invite that is unknown, used, over, or proved for another connection, host or name is refused in one way and with one amount of work.
 * @module
 */
import { randomBytes, timingSafeEqual } from "node:crypto";
import { INVITE_SECRET_BYTES, inviteKey, isUserName, printInvite, proveInvite } from "../../identity/index.ts";
import { FivedError } from "../../io/index.ts";
import type { Log } from "../log.ts";
import type { Exchange, Finding, Mechanism } from "./mechanism.ts";
import type { UserStore } from "./users.ts";

/** Whom to invite, and where to. */
export interface Invitation {
  readonly user: string;
  /** Where the server is, as people write it. */
  readonly address: string;
  /** `SHA256:…` of the server's key at that address. */
  readonly fingerprint: string;
  readonly lifeMs: number;
  readonly groups?: readonly string[];
  readonly roles?: readonly string[];
}

/** Longest life of an invite: what lies about for longer is found by somebody else. */
export const INVITE_LIFE_MS_MAX = 30 * 24 * 3_600_000;

/** Question for the key to enrol. */
const QUESTION = "Enter Public Key: ";

/** Makes an invite, in the place of an older one for that user, and answers its text, which is not kept anywhere. */
export async function createInvite(
  store: UserStore,
  { user, address, fingerprint, lifeMs, groups = [], roles = [] }: Invitation,
  now: number = Date.now(),
): Promise<string> {
  if (!isUserName(user)) {
    const why = "a name has 1 to 64 of a-z 0-9 . _ -, the first a letter or digit";
    throw new FivedError("USER_BAD", `Cannot invite "${user}": ${why}`);
  }
  if (!(lifeMs >= 1_000 && lifeMs <= INVITE_LIFE_MS_MAX))
    throw new RangeError(`Cannot invite for ${lifeMs} ms: a second to 30 days are possible`);
  const secret = randomBytes(INVITE_SECRET_BYTES);
  const expires = Math.ceil((now + lifeMs) / 1_000) * 1_000;
  const text = printInvite({ address, fingerprint, secret, user, expires });
  await store.putInvite({ user, groups, roles, key: inviteKey(secret), expires });
  secret.fill(0);
  return text;
}

/** What redeeming goes by. */
export interface InviteMechanismOptions {
  readonly store: UserStore;
  readonly log: Log;
  /** True for a line of a public key that would be believed afterwards; what is none is refused here, where its owner still learns of it. */
  readonly isKey: (line: string) => boolean;
  /** The wall clock, in milliseconds. */
  readonly now?: () => number;
}

/** Redeems invites. */
export class InviteMechanism implements Mechanism {
  readonly name = "invite";
  readonly #store: UserStore;
  readonly #log: Log;
  readonly #isKey: (line: string) => boolean;
  readonly #now: () => number;
  /** Stands for the key of an invite that is not there (abuse case A05). */
  readonly #nothing = randomBytes(32);

  constructor({ store, log, isKey, now = Date.now }: InviteMechanismOptions) {
    this.#store = store;
    this.#log = log;
    this.#isKey = isKey;
    this.#now = now;
  }

  async authenticate(exchange: Exchange): Promise<Finding | undefined> {
    const [user = "", proof = "", ...more] = exchange.initial;
    const { binding, host } = exchange;
    if (binding === undefined || more.length > 0 || !isUserName(user)) return undefined;
    const invite = this.#store.invite(user);
    const key = invite?.key ?? this.#nothing;
    const proved = isProof(proof, proveInvite(key, { binding, host, user }));
    if (!proved || invite === undefined || invite.expires <= this.#now()) return undefined;
    const answer = await exchange.ask(QUESTION, "shown");
    const line = Buffer.from(answer).toString("utf8").trim();
    // The line becomes one of an authorized_keys file: options in front of the key would be the client's own to choose.
    if (!isBareKeyLine(line) || !this.#isKey(line)) return undefined;
    return await this.#redeem(user, key, line);
  }

  async #redeem(user: string, key: Uint8Array, line: string): Promise<Finding | undefined> {
    try {
      const redeemed = await this.#store.redeemInvite(user, key, line, this.#now());
      return redeemed && { user: redeemed.name, groups: redeemed.groups, roles: redeemed.roles, ofStore: true };
    } catch (error) {
      this.#log.error({ error, user }, "cannot redeem an invite");
      return undefined;
    }
  }
}

/** True for `type base64` and perhaps a comment, which goes into a list that people read. */
function isBareKeyLine(line: string): boolean {
  return /^(?:ssh-|ecdsa-sha2-|sk-)[a-z0-9@.-]+ [A-Za-z0-9+/]+={0,2}(?: [^\p{C}\p{Zl}\p{Zp}]*)?$/u.test(line);
}

/** Compares octets of one length, whatever was given. */
function isProof(given: string, expected: Uint8Array): boolean {
  const octets = Buffer.from(given, "base64url");
  const isWellFormed = octets.length === expected.length && octets.toString("base64url") === given;
  return timingSafeEqual(isWellFormed ? octets : new Uint8Array(expected.length), expected) && isWellFormed;
}
