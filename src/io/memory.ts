/**
 * Memory that bulk data is read into and written from, so that no octet is copied on its way: slabs of four frames, pooled, and one
 * scratch area that all quiet sockets share (an idle socket owns no buffer).
 *
 * A slab is used again when nobody holds it: not the reader that fills it, not the session whose log points into it, not a socket that
 * still has to write from it. Each of them holds and releases; the last one returns it to the pool.
 * @module
 */
import { HEADER_BYTES, PAYLOAD_BYTES_MAX } from "../wire/index.ts";

/** Room for one whole frame. */
export const SLOT_BYTES = HEADER_BYTES + PAYLOAD_BYTES_MAX;
/** Four frames: larger ones fall out of the second-level cache, smaller ones cost a system call more per octet. */
export const SLAB_BYTES = 4 * SLOT_BYTES;
/** Slabs kept for reuse, 8 MiB: beyond that the peak is over and the collector may have them. */
const POOL_MAX = 32;

/** A piece of memory with holders. */
export class Slab {
  readonly bytes: Uint8Array<ArrayBuffer>;
  #holders = 1;

  constructor() {
    this.bytes = new Uint8Array(Buffer.allocUnsafeSlow(SLAB_BYTES).buffer);
    slabs.set(this.bytes.buffer, this);
  }

  /** True when only its reader holds it: nothing that was read into it is still needed. */
  get spent(): boolean {
    return this.#holders === 1;
  }

  hold(): void {
    this.#holders++;
  }

  release(): void {
    this.#holders--;
    if (this.#holders > 0) return;
    if (this.#holders < 0) throw new Error("A slab was released more often than held"); // else two would write into it
    if (pool.length < POOL_MAX) pool.push(this);
    else slabs.delete(this.bytes.buffer);
  }

  /** Counts a first holder for a slab out of the pool. */
  reuse(): this {
    this.#holders = 1;
    return this;
  }
}

const slabs = new Map<ArrayBufferLike, Slab>();
const pool: Slab[] = [];

/** A slab with the caller as its one holder. */
export function takeSlab(): Slab {
  return pool.pop()?.reuse() ?? new Slab();
}

/** Slabs in use: 0 when nothing is under way. */
export function slabsHeld(): number {
  return slabs.size - pool.length;
}

/** The slab some bytes lie in, if any. */
export function slabOf(bytes: Uint8Array): Slab | undefined {
  return slabs.get(bytes.buffer);
}

/** Where quiet sockets read: what arrives here is handled or copied before control returns to the event loop. */
export const scratch: Uint8Array<ArrayBuffer> = new Uint8Array(Buffer.allocUnsafeSlow(SLOT_BYTES).buffer);

/** True when bytes lie in {@link scratch}, and so will be overwritten. */
export function isScratch(bytes: Uint8Array): boolean {
  return bytes.buffer === scratch.buffer;
}
