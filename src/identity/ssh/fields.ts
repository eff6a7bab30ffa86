/**
 * Fields of SSH's structures (RFC 4251 §5): what keys, signatures, certificates and key files are made of, and the strict base64 in which
 * they travel. Knows no structure.
 * @module
 */

/**
 * Reads fields one behind the other. A field that is not there, or not well-formed, reads as an empty one and spoils the reader: read
 * everything, then look at {@link FieldReader.done}.
 */
export class FieldReader {
  readonly #octets: Uint8Array;
  #at = 0;
  #spoilt = false;

  constructor(octets: Uint8Array) {
    // Not as a Buffer, whose slice() would be a view of memory that its owner goes on using.
    this.#octets = new Uint8Array(octets.buffer, octets.byteOffset, octets.byteLength);
  }

  /** Octets read. */
  get at(): number {
    return this.#at;
  }

  /** Octets left; none in a spoilt reader, so that loops over what is left end. */
  get left(): number {
    return this.#spoilt ? 0 : this.#octets.length - this.#at;
  }

  /** True when every field was well-formed and nothing is left. */
  get done(): boolean {
    return !this.#spoilt && this.#at === this.#octets.length;
  }

  /** The next octets, a view of what is read from; not more than there are. */
  take(length: number): Uint8Array {
    if (this.#spoilt || length > this.#octets.length - this.#at) return this.#spoil();
    this.#at += length;
    return this.#octets.subarray(this.#at - length, this.#at);
  }

  u8(): number {
    return this.take(1)[0] ?? 0;
  }

  u32(): number {
    return this.take(4).reduce((value, octet) => value * 256 + octet, 0);
  }

  u64(): bigint {
    return (BigInt(this.u32()) << 32n) | BigInt(this.u32());
  }

  /** A `string`: octets with their length before them. */
  string(): Uint8Array {
    return this.take(this.u32());
  }

  /** A `string` of printable ASCII, which is what names of algorithms and options are. */
  name(): string {
    const text = Buffer.from(this.string()).toString("latin1");
    if (!/^[\x21-\x7e]*$/.test(text)) this.#spoil();
    return text;
  }

  /** A positive `mpint` in its only right form, without the zero that keeps it from being negative. */
  positive(): Uint8Array {
    const octets = this.string();
    const [first = 0, second = 0] = octets;
    if (octets.length === 0 || first >= 0x80 || (first === 0 && second < 0x80)) return this.#spoil();
    return first === 0 ? octets.subarray(1) : octets;
  }

  /** Ends the reading: something read so far cannot be. */
  spoil(): void {
    this.#spoil();
  }

  #spoil(): Uint8Array {
    this.#spoilt = true;
    return new Uint8Array(0);
  }
}

/** A `string`: octets, or ASCII text, behind their length. */
export function string(content: Uint8Array | string): Uint8Array {
  const octets = typeof content === "string" ? Buffer.from(content, "latin1") : content;
  return joined([u32(octets.length), octets]);
}

/** An `mpint` for a positive number of any length, leading zeros allowed. */
export function mpint(number: Uint8Array): Uint8Array {
  const first = number.findIndex((octet) => octet !== 0);
  const digits = first < 0 ? new Uint8Array(0) : number.subarray(first);
  return string((digits[0] ?? 0) >= 0x80 ? joined([Uint8Array.of(0), digits]) : digits);
}

/** A `uint32`. */
export function u32(value: number): Uint8Array {
  return Uint8Array.of(value >>> 24, value >>> 16, value >>> 8, value);
}

/** Octets one behind the other, in memory of their own. */
export function joined(parts: readonly Uint8Array[]): Uint8Array {
  const whole = new Uint8Array(parts.reduce((sum, part) => sum + part.length, 0));
  let at = 0;
  for (const part of parts) {
    whole.set(part, at);
    at += part.length;
  }
  return whole;
}

/** A number left-padded with zeros to a length; undefined if it is longer than that. */
export function padded(number: Uint8Array, length: number): Uint8Array | undefined {
  if (number.length > length) return undefined;
  const whole = new Uint8Array(length);
  whole.set(number, length - number.length);
  return whole;
}

/** The octets that base64url stands for; undefined where anything but its one right spelling stands (PROTOCOL §1.4). */
export function fromBase64url(text: string): Uint8Array | undefined {
  const octets = Buffer.from(text, "base64url");
  return octets.toString("base64url") === text ? new Uint8Array(octets) : undefined;
}

/** The octets that base64 as in key files and `authorized_keys` stands for; padding may be left out. */
export function fromBase64(text: string): Uint8Array | undefined {
  const octets = Buffer.from(text, "base64");
  const right = octets.toString("base64");
  return text === right || text === right.replace(/=+$/, "") ? new Uint8Array(octets) : undefined;
}
