/**
 * What is said to another session server about the caller of a stream: the line VIA (PROTOCOL §4.12). Which of a caller's attributes are told
 * is assertions.ts's business too; how they are signed is identity/vouching.ts's.
 * @module
 */
import { isUserName, signVouching } from "../../identity/index.ts";
import { canonicalName } from "../../io/index.ts";
import { LINE_BYTES_MAX } from "../../wire/index.ts";
import type { Caller } from "../service.ts";
import { rolesToTell, userToTell } from "./assertions.ts";
import type { AnnounceKeys } from "./keys.ts";

/** Where vouchings come from. */
export interface VouchingsOptions {
  readonly keys: Pick<AnnounceKeys, "current">;
  /** Name of this server, as others trust it. */
  readonly issuer: string;
  /** The wall clock, in milliseconds. */
  readonly now?: () => number;
}

/** Makes them: a new one for each stream, as each is believed once. */
export class Vouchings {
  readonly #keys: Pick<AnnounceKeys, "current">;
  readonly #issuer: string;
  readonly #now: () => number;

  constructor({ keys, issuer, now = Date.now }: VouchingsOptions) {
    this.#keys = keys;
    this.#issuer = issuer;
    this.#now = now;
  }

  /**
   * The line for a caller. Rejects for somebody who cannot be told as he is: another name would be another person, and with fewer roles he
   * would be somebody to whom other rules apply.
   * @param hops servers that the stream has come through, with this one
   * @param word what is asked for next
   * @param binding exporter of the connection to the other server
   */
  async line(caller: Caller, hops: number, word: string, binding: Uint8Array): Promise<string> {
    const user = userToTell(caller);
    if (user === undefined || caller.identity === undefined) return `VIA ${hops} -`;
    if (!isTellable(user)) throw new Error("Cannot vouch for a caller: the name is none that another server takes");
    const { mechanism, secondFactor, at } = caller.identity;
    const statement = {
      ...{ issuer: this.#issuer, user, roles: rolesToTell(caller), word, binding },
      ...{ session: caller.session, mechanism, secondFactor, recognisedAt: at },
    };
    const line = `VIA ${hops} ${await signVouching(statement, this.#keys.current, this.#now())}`;
    if (line.length <= LINE_BYTES_MAX) return line;
    throw new Error(`Cannot vouch for a caller: his name and roles do not fit a line of ${LINE_BYTES_MAX} octets`);
  }
}

/** `alice`, or `alice@p.example` of whom we were told ourselves (PROTOCOL §1.3). */
function isTellable(user: string): boolean {
  const [local = "", provider, ...more] = user.split("@");
  return isUserName(local) && more.length === 0 && (provider === undefined || canonicalName(provider) === provider);
}
