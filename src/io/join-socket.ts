/**
 * A program's socket and a stream that is a Duplex, joined.
 * @module
 */
import type { Socket } from "node:net";
import type { Duplex } from "node:stream";

/** Joins them: each direction ends by itself, and what is cut on one side is cut on the other. "error" is the caller's to hear. */
export function joinSocket(socket: Socket, stream: Duplex): void {
  socket.pipe(stream);
  stream.pipe(socket);
  stream.once("close", () => {
    if (!stream.readableEnded) cut(socket);
    else if (!stream.writableFinished) socket.unpipe(stream).resume();
  });
  socket.once("close", () => {
    if (!socket.readableEnded || !stream.readableEnded) stream.destroy();
  });
  socket.resume();
}

/** Only TCP knows a reset; of anything else Node throws at the wish for one. */
function cut(socket: Socket): void {
  if (socket.remoteAddress === undefined) socket.destroy();
  else socket.resetAndDestroy();
}
