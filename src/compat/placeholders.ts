/**
 * Addresses that stand for names, for programs that want an address first and say it when they connect: of 198.18.0.0/15, which no network has (RFC 2544).
 * None is ever used for another name, as nobody knows for how long a program keeps it.
 * @module
 */

const FIRST = 198 * 2 ** 24 + 18 * 2 ** 16 + 1;
/** Names in the life of one proxy. */
const NAMES_MAX = 65_536;

/** Names and their addresses. */
export class Placeholders {
  readonly #addresses = new Map<string, string>();
  readonly #names = new Map<string, string>();

  /** The address that stands for a name; undefined when there are no more. */
  addressOf(name: string): string | undefined {
    const known = this.#addresses.get(name);
    if (known !== undefined || this.#addresses.size === NAMES_MAX) return known;
    const number = FIRST + this.#addresses.size;
    const address = [24, 16, 8, 0].map((shift) => (number >>> shift) & 0xff).join(".");
    this.#addresses.set(name, address);
    this.#names.set(address, name);
    return address;
  }

  /** The name that an address stands for; undefined for an address that is one. */
  nameOf(address: string): string | undefined {
    return this.#names.get(address);
  }
}
