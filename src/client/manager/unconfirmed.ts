/**
 * What a program has said on a stream and the server has not confirmed: kept where it does not go with the manager.
 * @module
 */

/** Octets of one stream, counted from its beginning. */
export class Unconfirmed {
  readonly #pieces: Uint8Array[] = [];
  /** Index of the first piece that is kept: the array is cut now and then. */
  #first = 0;
  #from = 0;
  #end = 0;

  /** Octets kept. */
  get bytes(): number {
    return this.#end - this.#from;
  }

  /** Keeps a piece behind all others; its memory is ours. */
  add(piece: Uint8Array): void {
    if (piece.length === 0) return;
    this.#pieces.push(piece);
    this.#end += piece.length;
  }

  /** The server has so many octets: pieces that lie before that are forgotten. */
  confirm(octets: number): void {
    for (let piece = this.#pieces[this.#first]; piece !== undefined; piece = this.#pieces[this.#first]) {
      if (this.#from + piece.length > octets) break;
      this.#from += piece.length;
      this.#pieces[this.#first] = NOTHING; // not kept alive by the array
      this.#first++;
    }
    if (this.#first > 64 && this.#first * 2 > this.#pieces.length) {
      this.#pieces.splice(0, this.#first);
      this.#first = 0;
    }
  }

  /** Everything from that octet on; undefined where some of it is not here, or was never said. */
  since(octets: number): readonly Uint8Array[] | undefined {
    if (octets < this.#from || octets > this.#end) return undefined;
    const pieces: Uint8Array[] = [];
    let at = this.#from;
    for (let index = this.#first; index < this.#pieces.length; index++) {
      const piece = this.#pieces[index] ?? NOTHING;
      const behind = at + piece.length;
      if (behind > octets) pieces.push(at < octets ? piece.subarray(octets - at) : piece);
      at = behind;
    }
    return pieces;
  }
}

const NOTHING = new Uint8Array(0);
