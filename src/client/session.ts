/**
 * A session from the client's end, as its users see it: opened once, then any number of streams to services by name. `open-session.ts` opens one.
 * @module
 */
import type { Duplex } from "node:stream";
import type { ChannelDuplex, FivedError, Splice } from "../io/index.ts";
import type { Transport } from "./transports/transport.ts";

/** Another connection of a session (paper section 3.1.8). */
export interface PathOptions {
  /** What streams call it by. */
  readonly name: string;
  /** Address of this computer that it starts from. */
  readonly localAddress?: string | undefined;
  /** How octets get there, as in {@link ConnectOptions}; as the session was opened, if left out. */
  readonly transport?: string | Transport | undefined;
  /** Only streams that are moved to it go over it; false, and left out: others too, wherever they come soonest. */
  readonly reserved?: boolean | undefined;
  readonly signal?: AbortSignal;
}

/** The connection with which a session was opened, or the last one that it was attached over. */
export const MAIN_PATH = "main";

/** What may be said of a stream when it is opened. */
export interface OpenOptions {
  /** Virtual host for this stream alone, of the same certificate as the session's. */
  readonly host?: string;
  readonly signal?: AbortSignal;
  /** Name of the connection that it goes over, as long as that one lasts; whichever is good, if left out. */
  readonly path?: string;
}

/** A session with a server. */
export interface Session extends AsyncDisposable {
  /**
   * Opens a stream to a service. It can be written at once; "connect" is emitted when the service has accepted, "error" with
   * SERVICE_REFUSED when it has not.
   */
  open(service: string, options?: OpenOptions): Duplex;
  /** Names of what may be used, built-in words first; with a name, that name if it may be used. */
  list(service?: string): Promise<string[]>;
  /**
   * Another connection beside those that the session has: streams share them all, or keep to one. Rejects with DETACH_IMPOSSIBLE where the server keeps no session of
   * ours, with SESSION_LOST and status 507 where it has enough connections, and as dialling does.
   */
  addPath(options: PathOptions): Promise<void>;
  /**
   * Takes the session from this process and gives the token with which another goes on with it, see {@link attach}: a secret, good once. Its streams end here with SUPERSEDED,
   * behind all that has come for them. Rejects with DETACH_IMPOSSIBLE where that is not to be had; it goes on here then.
   */
  detach(): Promise<string>;
  /** Leaves a connection; what it carried goes over the others. False where there is none of that name. */
  removePath(name: string): boolean;
  /** Moves a stream to a connection, or with undefined to whichever is good. False where there is no such connection, or no such stream. */
  move(stream: Duplex, path: string | undefined): boolean;
  /** Opens no more streams, and ends when the last one is over. */
  close(): Promise<void>;
  /** Resolves when the session is over, rejects with SESSION_LOST when it was lost, and with AUTH_REFUSED when signing in failed. */
  readonly closed: Promise<void>;
  /** Resolves with who the server says we are, or with undefined where nobody signed in; rejects as {@link Session.closed} does. */
  readonly identity: Promise<string | undefined>;
}

/** A stream that is opened for a caller of ours. */
export interface Through {
  /** The line VIA (PROTOCOL §4.12), said before all others; a refusal of it is one of the whole. */
  readonly via?: string;
}

/** What is told of a stream to who can go on with it when this process is killed. */
export interface Keeping {
  /** The server has so many of his octets: he need not keep them. Told now and then. */
  confirmed(octets: number): void;
  /** It is over; and where it has ended in peace, the server has all of it. */
  gone(): void;
}

/** A stream that was joined to something, where the session can be gone on with by another process. */
export interface Joined {
  readonly stream: number;
  /** The name of the session, where its ticket is kept already. */
  readonly name: string | undefined;
  /** And once it is; undefined where there is none. */
  readonly kept: Promise<string | undefined>;
  /** Whoever keeps the stream's octets has had so many taken by the application, counted from its beginning. */
  took(octets: number): void;
}

/** A {@link Session} as the rest of this room, and a session server that opens streams for its callers, see it. */
export interface ServiceOpener extends Session {
  /** As {@link Session.open}, on a Duplex that was handed out before there was a session. */
  openOn(duplex: ChannelDuplex, service: string, options: OpenOptions & Through): void;
  /** As {@link Session.list}. */
  list(service?: string, through?: Through): Promise<string[]>;
  /** The exporter of the connection (PROTOCOL §2.2); undefined without TLS. */
  readonly binding: Uint8Array | undefined;
  /**
   * Joins a stream to something connected. `answered` hears of a refusal, or of undefined when the service has accepted, and how many octets it has
   * said so with.
   * @param keeping whoever is behind `to` can go on with the stream without this process, by what is returned
   */
  join(
    service: string,
    to: Splice,
    answered: (error: FivedError | undefined, octets: number) => void,
    options?: { readonly host?: string | undefined; readonly keeping?: Keeping },
  ): Joined | undefined;
  /** How it is now. */
  readonly status: SessionStatus;
  /** One more stream may be opened now. */
  readonly openable: boolean;
  /** The server has left a question unanswered for seconds; streams that are open may still come back. */
  readonly isSilent: boolean;
  /** Asks the server for a sign of life. */
  probe(): void;
  /** Resolves when the server has told how many streams it allows. */
  readonly heard: Promise<void>;
  /** It has. */
  readonly isHeard: boolean;
}

/** A session, for people to look at. */
export interface SessionStatus {
  /** Streams that are open. */
  readonly streams: number;
  /** Octets that were said and not acknowledged yet. */
  readonly queuedBytes: number;
  /** In milliseconds; undefined before the first measurement, and without MULTIPLEX. */
  readonly roundTripMs: number | undefined;
  readonly connections: number;
  /** It has lost its connection, or doubts it, and looks for another. */
  readonly isAttaching: boolean;
}
