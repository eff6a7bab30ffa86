/**
 * The way to other session servers, as this room sees it: something that opens sessions there and streams on them. What it is made of is a
 * client's business, and this room imports none: whoever starts a server hands a way in (chain/).
 * @module
 */
import type { Duplex } from "node:stream";
import type { Log } from "./log.ts";
import type { HopSettings } from "./schema.ts";

/** Opens ways to other session servers. */
export interface Upstream {
  /** A way to the server, as one user or as nobody. Opens nothing yet. */
  to(hop: Hop, log: Log): FarServer;
}

/** Another session server, and who we are there. */
export interface Hop {
  /** `[user@]host[:port]`, as `parseFarServer` writes it. */
  readonly server: string;
  readonly settings: HopSettings;
  /** Folder of what this server has to remember. */
  readonly state: string;
}

/** A way to one server as one user. Its session is opened when it is needed, kept, and opened again when it was lost. */
export interface FarServer extends AsyncDisposable {
  /** A session that takes one more stream; rejects with a `FivedError` that says why there is none. */
  session(): Promise<FarSession>;
  /** Opens no more streams; sessions end with their last one. */
  retire(): void;
}

/** A session with another server. */
export interface FarSession {
  /** The exporter of its connection, which what is said of callers is bound to. */
  readonly binding: Uint8Array;
  /**
   * Opens a service there. Rejects with a `FivedError`: SERVICE_REFUSED with the other server's code, SESSION_LOST where nobody answered,
   * STREAM_RESET with the reason REFUSED where the session takes no more streams after all.
   * @param via the line VIA, said before all others
   */
  open(service: string, via: string, signal: AbortSignal): Promise<Duplex>;
  /** What may be used there; with a name, that one if it may be. Rejects as {@link FarSession.open} does. */
  list(via: string, service?: string): Promise<readonly string[]>;
}
