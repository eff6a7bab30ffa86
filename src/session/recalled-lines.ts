/**
 * What a client that attaches with `recall` is told behind ATTACHED (PROTOCOL §4.8), as lines: first of the session, then of each stream. They are true as far as the
 * connection is the one that ATTACHED was proved on. Pure.
 * @module
 */
import type { RecalledStream, Recollection } from "./state.ts";

/** Streams that are told of. A server that allows more keeps such a session for those who remember it. */
export const RECALLED_STREAMS_MAX = 10_000;
const STREAM_MAX = 0xffff_ffff;

/** The lines, without CRLF. */
export function recalledLines({ nextStream, lastTaken, limit, peer, streams }: Recollection): string[] {
  const { payload, credit, window } = peer;
  const numbers = [nextStream, lastTaken ?? "-", limit, payload, peer.streams, credit, window, streams.length];
  return [`+ RECALLED ${numbers.join(" ")}`, ...streams.map(streamLine)];
}

function streamLine({ id, sent, credit, received, granted, ended, finished }: RecalledStream): string {
  return `+ STREAM ${id} ${sent} ${credit} ${received} ${granted} ${ended ? "c" : "-"}${finished ? "s" : "-"}`;
}

/** Reads the lines as they come. */
export class RecallReader {
  #session: Omit<Recollection, "streams"> | undefined;
  #left = 0;
  readonly #streams: RecalledStream[] = [];

  /** What was told, once {@link RecallReader.push} has said that it is complete. */
  get told(): Recollection | undefined {
    return this.#session === undefined || this.#left > 0 ? undefined : { ...this.#session, streams: this.#streams };
  }

  /** Takes the next line: whether more follow, all has been told, or it makes no sense. */
  push(line: string): "more" | "complete" | "nonsense" {
    if (this.#session === undefined) return this.#begin(line);
    const stream = streamIn(line);
    const isNext = stream !== undefined && stream.id > (this.#streams.at(-1)?.id ?? 0);
    if (!isNext || this.#left === 0 || stream.id >= this.#session.nextStream) return "nonsense";
    this.#streams.push(stream);
    this.#left--;
    return this.#left > 0 ? "more" : "complete";
  }

  #begin(line: string): "more" | "complete" | "nonsense" {
    const words = /^\+ RECALLED (\d+) (\d+|-) (\d+) (\d+) (\d+) (\d+) (\d+) (\d+)$/.exec(line);
    if (words === null) return "nonsense";
    const [nextStream = 0, limit = 0, payload = 0, most = 0, credit = 0, window = 0, count = 0] = words
      .filter((_, at) => at !== 0 && at !== 2)
      .map(Number);
    const lastTaken = words[2] === "-" ? undefined : Number(words[2]);
    const isSane =
      [limit, payload, most, credit, window, lastTaken ?? 0].every(Number.isSafeInteger) &&
      nextStream % 2 === 1 &&
      nextStream <= STREAM_MAX + 2 &&
      count <= RECALLED_STREAMS_MAX;
    if (!isSane) return "nonsense";
    this.#session = { nextStream, lastTaken, limit, peer: { payload, streams: most, credit, window } };
    this.#left = count;
    return count > 0 ? "more" : "complete";
  }
}

function streamIn(line: string): RecalledStream | undefined {
  const words = /^\+ STREAM (\d+) (\d+) (\d+) (\d+) (\d+) ([c-])([s-])$/.exec(line);
  if (words === null) return undefined;
  const [id = 0, sent = 0, credit = 0, received = 0, granted = 0] = words.slice(1, 6).map(Number);
  const [ended, finished] = [words[6] === "c", words[7] === "s"];
  const isSane =
    [sent, credit, received, granted].every(Number.isSafeInteger) &&
    id % 2 === 1 &&
    id <= STREAM_MAX &&
    sent <= credit &&
    received <= granted;
  return isSane ? { id, sent, credit, received, granted, ended, finished } : undefined;
}
