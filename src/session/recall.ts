/**
 * What a peer that has lost its memory has to know of the streams that it has opened (PROTOCOL §4.8, `recall`): from what we know of them, and from the part of our log
 * that comes again.
 * @module
 */
import { readDataHeader } from "../wire/index.ts";
import type { RecalledStream, Recollection, SessionState } from "./state.ts";
import type { Stream } from "./stream.ts";

/** Window of a stream that goes on, at least; it grows as any other's. */
const WINDOW_BYTES = 256 * 1_024;

/** What of a stream is in the part of our log that comes again. */
interface Again {
  /** Offset of its first octet, and behind its last. */
  readonly from: number;
  readonly to: number;
}

/**
 * Streams of the peer's that are open, and those that are over here while some of what was said on them comes again.
 * @param log frames that come again, in log order
 */
export function recollected(streams: Iterable<Stream>, log: readonly Uint8Array[]): RecalledStream[] {
  const again = new Map<number, Again>();
  for (const frame of log) {
    const data = readDataHeader(frame);
    if (data === undefined) continue;
    again.set(data.stream, {
      from: again.get(data.stream)?.from ?? data.offset,
      to: data.offset + data.octets,
    });
  }
  const told: RecalledStream[] = [];
  for (const stream of streams) {
    if (!stream.openedByPeer || stream.over) continue;
    const { id, received, granted, sent, credit, ending, finished } = stream;
    const coming = again.get(id);
    again.delete(id);
    told.push({
      ...{ id, sent: received, credit: granted, received: coming?.from ?? sent, granted: credit },
      ...{ ended: finished, finished: ending === "sent" && coming === undefined },
    });
  }
  // Over at this end: all that the peer has said was received, and only what comes again is left to be heard.
  for (const [id, { from, to }] of again)
    if (id % 2 === 1) told.push({ id, sent: 0, credit: 0, received: from, granted: to, ended: true, finished: false });
  return told.sort((one, other) => one.id - other.id);
}

/**
 * The session that goes on, at the end that has lost its memory.
 * @param counts octets of its log that its peer has received, and where the peer's log goes on
 */
export function recalledState(
  { nextStream, lastTaken, limit, peer, streams }: Recollection,
  { received, base }: { readonly received: number; readonly base: number },
): SessionState {
  return {
    sent: received,
    received: base,
    limit,
    ...{ nextStream, lastTaken, peer, reset: [] },
    streams: streams.map((stream) => ({
      ...stream,
      request: new Uint8Array(0),
      window: Math.max(WINDOW_BYTES, stream.granted - stream.received),
    })),
  };
}
