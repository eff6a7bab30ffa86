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
  /**
   * Where the next octets go. Asked at the start, after each {@link Reader.read} and by {@link Reading.renew}. What was given when reading
   * stopped is where it goes on; a TLS socket fills it even before that, with what it had decrypted already.
   */
  into(): Uint8Array;
  /**
   * Octets have arrived at the start of what {@link Reader.into} gave, or (`elsewhere`) in memory that is the reader's to keep.
   * @returns false to stop reading until {@link Reading.resume}
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
  /** Goes on after {@link Reader.read} has said to stop, or the socket was paused. */
  resume(): void;
  /**
   * Asks for other memory before anything was read into the last. Rarely: for every time Node keeps 48 octets until the socket closes.
   */
  renew(): void;
}

/**
 * From now on what a socket (or another readable) gives goes to `reader`, beginning with what it has read before; its "end", "close" and
 * "error" events stay as they are.
 */
export function readInto(source: Readable, reader: Reader): Reading {
  if (source instanceof Socket && machinery === undefined) machinery = findMachinery(source);
  let goOn = true;
  for (let before: unknown = source.read(); before instanceof Uint8Array; before = source.read())
    goOn = reader.read(before.length, before);
  const handle: unknown = Reflect.get(source, "_handle");
  const useUserBuffer: unknown =
    typeof handle === "object" && handle !== null ? Reflect.get(handle, "useUserBuffer") : undefined;
  if (!(source instanceof Socket) || typeof useUserBuffer !== "function" || !machinery) {
    source.on("data", (chunk: Buffer) => {
      if (!reader.read(chunk.length, chunk)) source.pause();
    });
    if (goOn) source.resume();
    else source.pause();
    return { resume: () => source.resume(), renew: () => {} };
  }
  const { buffer, callback, generate } = machinery;
  Reflect.set(source, callback, (bytes: number) => reader.read(bytes));
  Reflect.set(source, generate, () => reader.into());
  const resume = (): void => {
    if (!source.destroyed) source.resume();
  };
  const renew = (): void => {
    if (source.destroyed) return;
    const memory = reader.into();
    Reflect.set(source, buffer, memory);
    useUserBuffer.call(handle, memory);
  };
  renew();
  if (goOn) resume();
  else source.pause();
  return { resume, renew };
}
