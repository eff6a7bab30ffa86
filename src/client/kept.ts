/**
 * What has to outlive the process that holds a session, so that another can go on with it: its ticket, and where it is good.
 * @module
 */
import type { Ticket } from "../identity/index.ts";
import type { Reached } from "./resume.ts";

/** A session that can be gone on with. */
export interface KeptSession {
  /** Where its server is. */
  readonly address: string;
  /** `SHA256:…` of the server's key. */
  readonly fingerprint: string;
  readonly ticket: Ticket;
  /** For how long the server keeps it without a connection, in milliseconds. */
  readonly ttlMs: number;
  /** Where it was reached last, if that was TCP of our own. */
  readonly reached: Reached | undefined;
  /** Who the server says we are. */
  readonly identity: string | undefined;
}

/** Where they are kept. */
export interface TicketKeeper {
  /** Resolves when it would be found after a crash; the ticket that was there before is of no use from then on. */
  keep(session: KeptSession): Promise<void>;
  /** The session is over, or somebody else's. */
  forget(sid: Uint8Array): void;
}

/** A session's name among those of this person. */
export function nameOf(sid: Uint8Array): string {
  return Buffer.from(sid).toString("base64url");
}
