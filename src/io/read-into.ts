/**
 * Reading a socket into memory of our own choice. Node documents this for sockets it opens (`onread`); accepted sockets and TLS over an
 * existing socket have the same machinery behind the same own properties, without a way to ask for it. Where those properties are absent
 * (another runtime), ordinary "data" events do the same, with a copy more.
 * @module
 */
import { Socket } from "node:net";
import type { Readable } from "node:stream";

/** Takes what a socket gives. */
export interface Reader {
  /** Where the next octets go. Asked once at the start and after each {@link Reader.read}. */
  into(): Uint8Array;
  /**
   * Octets have arrived at the start of what {@link Reader.into} gave, or (`elsewhere`) in memory that is the reader's to keep.
   * @returns false to stop reading until the socket is resumed
   */
  read(bytes: number, elsewhere?: Uint8Array): boolean;
}

/** The undocumented own properties of net.Socket, the same since Node 12. */
interface Machinery {
  readonly buffer: symbol;
  readonly callback: symbol;
  readonly generate: symbol;
}

let machinery: Machinery | null | undefined;

function findMachinery(socket: Socket): Machinery | null {
  const symbols = Object.getOwnPropertySymbols(socket);
  const find = (name: string): symbol | undefined => symbols.find((symbol) => symbol.description === name);
  const buffer = find("kBuffer");
  const callback = find("kBufferCb");
  const generate = find("kBufferGen");
  if (buffer === undefined || callback === undefined || generate === undefined) return null;
  return { buffer, callback, generate };
}

/** A socket that is read into our memory. */
export interface Reading {
  /** Starts again after {@link Reader.read} has said to stop: asks for memory anew. */
  resume(): void;
}

/**
 * From now on what a socket (or another readable) gives goes to `reader`; its "end", "close" and "error" events stay as they are.
 * What had been read before must have been taken by the caller.
 */
export function readInto(source: Readable, reader: Reader): Reading {
  if (source instanceof Socket && machinery === undefined) machinery = findMachinery(source);
  const handle: unknown = Reflect.get(source, "_handle");
  const useUserBuffer: unknown =
    typeof handle === "object" && handle !== null ? Reflect.get(handle, "useUserBuffer") : undefined;
  if (!(source instanceof Socket) || typeof useUserBuffer !== "function" || !machinery) {
    source.on("data", (chunk: Buffer) => {
      if (!reader.read(chunk.length, chunk)) source.pause();
    });
    source.resume();
    return { resume: () => source.resume() };
  }
  const { buffer, callback, generate } = machinery;
  Reflect.set(source, callback, (bytes: number) => reader.read(bytes));
  Reflect.set(source, generate, () => reader.into());
  const resume = (): void => {
    if (source.destroyed) return;
    const first = reader.into();
    Reflect.set(source, buffer, first);
    useUserBuffer.call(handle, first);
    source.resume();
  };
  resume();
  return { resume };
}
