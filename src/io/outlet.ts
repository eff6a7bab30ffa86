/**
 * Writing to a socket once a turn: pieces are gathered, neighbours in memory joined, small ones put together, and all of it given to the
 * kernel in one call. Slabs are held until the octets are out of our hands.
 * @module
 */
import type { Writable } from "node:stream";
import { isScratch, SLAB_BYTES, type Slab, slabOf, takeSlab } from "./memory.ts";

/** Pieces up to this size are put together: copying them is cheaper than another vector entry. */
const SMALL_BYTES = 2_048;
/** While a sink is behind, pieces below this are copied out of their slab: else single octets could keep whole slabs in use. */
const HOLD_BYTES_MIN = 32 * 1_024;

/** Gathers what is to be written to one socket or pipe. */
export class Outlet {
  readonly #to: Writable;
  readonly #written: (bytes: number) => void;
  #pieces: Uint8Array[] = [];
  #held: Slab[] = [];
  #bytes = 0;

  /** @param written is told of octets that are out of our hands: at once where the kernel took them at once */
  constructor(to: Writable, written: (bytes: number) => void) {
    this.#to = to;
    this.#written = written;
  }

  /** Octets gathered and not yet flushed. */
  get gathered(): number {
    return this.#bytes;
  }

  /** Octets gathered, or given to the stream and not yet out of our hands. */
  get backlog(): number {
    return this.#bytes + this.#to.writableLength;
  }

  /** Adds a piece for the next flush. Memory that will be overwritten is copied; slabs are held; anything else is kept as it is. */
  add(bytes: Uint8Array): void {
    this.#bytes += bytes.length;
    const slab = slabOf(bytes);
    if (slab === undefined) {
      this.#pieces.push(isScratch(bytes) ? bytes.slice() : bytes);
      return;
    }
    if (bytes.length < HOLD_BYTES_MIN && this.#to.writableLength > 0) {
      this.#pieces.push(bytes.slice());
      return;
    }
    const last = this.#pieces.at(-1);
    if (last !== undefined && last.buffer === bytes.buffer && last.byteOffset + last.length === bytes.byteOffset)
      this.#pieces[this.#pieces.length - 1] = new Uint8Array(last.buffer, last.byteOffset, last.length + bytes.length);
    else this.#pieces.push(bytes);
    slab.hold();
    this.#held.push(slab);
  }

  /** Something given to the stream is not out of our hands. */
  get writing(): boolean {
    return this.#to.writableLength > 0;
  }

  /** Gives what was gathered to the socket; with `limit`, no more than so many octets, in one piece of their own. */
  flush(limit = Number.POSITIVE_INFINITY): void {
    if (this.#bytes === 0) return;
    if (limit < this.#bytes) return this.#write([this.#cut(limit)], [], limit);
    const pieces = joinSmall(this.#pieces);
    const held = this.#held;
    const bytes = this.#bytes;
    this.#pieces = [];
    this.#held = [];
    this.#bytes = 0;
    this.#write(pieces, held, bytes);
  }

  /**
   * Gives what was gathered to the socket in one piece, a slab of it at the most: for TLS, which encrypts one piece where it lies, but
   * would put several together in memory that it has to ask for.
   */
  flushAsOne(): void {
    if (this.#pieces.length < 2 || this.#bytes <= SMALL_BYTES) return this.flush();
    const slab = takeSlab();
    let bytes = 0;
    let at = 0;
    for (
      let piece = this.#pieces[0];
      piece !== undefined && bytes + piece.length <= SLAB_BYTES;
      piece = this.#pieces[++at]
    ) {
      slab.bytes.set(piece, bytes);
      bytes += piece.length;
    }
    if (at === 0) {
      slab.release();
      return this.flush(this.#pieces[0]?.length); // one piece larger than a slab
    }
    this.#pieces.splice(0, at);
    this.#bytes -= bytes;
    if (this.#bytes === 0) this.#letGo();
    this.#write([slab.bytes.subarray(0, bytes)], [slab], bytes);
  }

  #letGo(): void {
    for (const slab of this.#held) slab.release();
    this.#held = [];
  }

  /** The first octets, which leave what is gathered. All of it is copied, but for what was left by the cut before. */
  #cut(bytes: number): Uint8Array {
    const [first] = this.#pieces;
    const isCopied = first !== undefined && this.#pieces.length === 1 && this.#held.length === 0;
    const all = isCopied ? first : Buffer.concat(this.#pieces, this.#bytes);
    this.#letGo();
    this.#pieces = [all.subarray(bytes)];
    this.#bytes -= bytes;
    return all.subarray(0, bytes);
  }

  #write(pieces: Uint8Array[], held: readonly Slab[], bytes: number): void {
    let done = false;
    const finish = (): void => {
      if (done) return;
      done = true;
      for (const slab of held) slab.release();
      this.#written(bytes);
    };
    const last = pieces.pop();
    if (last === undefined || this.#to.destroyed || !this.#to.writable) return finish();
    if (pieces.length > 0) this.#to.cork();
    for (const piece of pieces) this.#to.write(piece);
    this.#to.write(last, finish); // after an error too: the socket's own "error" and "close" say the rest
    if (pieces.length > 0) this.#to.uncork();
    if (this.#to.writableLength === 0) finish();
  }

  /** Drops what was gathered. */
  drop(): void {
    this.#letGo();
    this.#pieces = [];
    this.#bytes = 0;
  }
}

function joinSmall(pieces: Uint8Array[]): Uint8Array[] {
  if (pieces.length < 2) return pieces;
  const joined: Uint8Array[] = [];
  let run: Uint8Array[] = [];
  let runBytes = 0;
  const endRun = (): void => {
    const [only] = run;
    if (only !== undefined) joined.push(run.length === 1 ? only : Buffer.concat(run, runBytes));
    run = [];
    runBytes = 0;
  };
  for (const piece of pieces) {
    if (piece.length > SMALL_BYTES) {
      endRun();
      joined.push(piece);
    } else {
      run.push(piece);
      runBytes += piece.length;
    }
  }
  endRun();
  return joined;
}
