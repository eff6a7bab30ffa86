/**
 * The audit (docs/audit.md): one JSON object a line for each sign-in, refusal, stream that is opened and stream that is over. Unlike the log
 * it is for those who ask, later, who did what; its fields are part of what fived promises. It holds no payload and no secret.
 * @module
 */
import { closeSync, openSync, write, writeSync } from "node:fs";
import { FivedError } from "../io/index.ts";
import type { Log } from "./log.ts";
import type { AuditSettings } from "./schema.ts";
import type { Caller, Through } from "./service.ts";

/** What happened, besides when and to whom. */
export type AuditEvent =
  | { readonly event: "sign-in"; readonly mechanism: string; readonly secondFactor: boolean }
  | { readonly event: "sign-in-refused"; readonly mechanism: string; readonly claimed: string | undefined }
  | { readonly event: "vouching-refused"; readonly issuer: string | undefined; readonly reason: string }
  | { readonly event: "attach"; readonly from: string; readonly mode: string }
  | { readonly event: "attach-refused"; readonly reason: string }
  | { readonly event: "refused"; readonly service: string; readonly host: string | undefined; readonly code: number }
  | { readonly event: "open"; readonly service: string; readonly host: string | undefined }
  | {
      readonly event: "close";
      readonly service: string;
      readonly host: string | undefined;
      /** Octets from the caller, and to him. */
      readonly received: number;
      readonly sent: number;
      readonly ms: number;
      /** `ended`, `broken off` or `access withdrawn`. */
      readonly why: string;
    };

/** Takes what happened. */
export interface Audit extends Disposable {
  /** Lines cannot be written, and the administrator wants nothing to happen then. */
  readonly refuses: boolean;
  record(caller: Caller, event: AuditEvent): void;
}

/** Nobody keeps an audit. */
export const noAudit: Audit = { refuses: false, record() {}, [Symbol.dispose]() {} };

/** Octets that wait for a slow disk. */
const PENDING_BYTES_MAX = 4 * 1024 * 1024;
/** Characters of what a stranger claims to be: it may be a whole line. */
const CLAIMED_MAX = 128;

/** Begins to write, under the name that the file has now: a reload after logrotate writes to the new one. Throws `CONFIGURATION_BAD` where that is not possible. */
export function openAudit(settings: AuditSettings | undefined, log: Log): Audit {
  return settings === undefined ? noAudit : new AuditFile(settings, log);
}

class AuditFile implements Audit {
  readonly #settings: AuditSettings;
  readonly #log: Log;
  readonly #fd: number;
  /** Lines that are not being written yet. */
  #pending: string[] = [];
  /** Octets of a write that the system did not take, to be written before them. */
  #rest: Buffer = Buffer.alloc(0);
  #pendingBytes = 0;
  #writing = false;
  #failed = false;
  #over = false;

  constructor(settings: AuditSettings, log: Log) {
    this.#settings = settings;
    this.#log = log;
    this.#fd = settings.file === "stderr" ? 2 : openForLines(settings.file);
  }

  get refuses(): boolean {
    return this.#failed && this.#settings.onFailure === "refuse";
  }

  record({ session, user, peer, through }: Caller, event: AuditEvent): void {
    const claimed = event.event === "sign-in-refused" ? { claimed: event.claimed?.slice(0, CLAIMED_MAX) } : {};
    const claimedIssuer = event.event === "vouching-refused" ? { issuer: event.issuer?.slice(0, CLAIMED_MAX) } : {};
    const who = { time: new Date().toISOString(), session, peer, user, ...(through && { via: viaOf(through) }) };
    const line = `${JSON.stringify({ ...who, ...event, ...claimed, ...claimedIssuer })}\n`;
    if (this.#over) return;
    if (this.#pendingBytes > PENDING_BYTES_MAX) return this.#fail(new Error("too many lines wait to be written"));
    this.#pending.push(line);
    this.#pendingBytes += line.length;
    if (!this.#writing) this.#write();
  }

  /** Writes what waits, together. What cannot be written is lost, and told. */
  #write(): void {
    const octets = this.#take();
    this.#writing = true;
    const done = (error: Error | null, written: number): void => {
      this.#writing = false;
      if (error !== null) this.#fail(error);
      else this.#failed = false;
      if (error === null) this.#rest = octets.subarray(written);
      if (this.#over) this.#close();
      else if (this.#pending.length > 0 || this.#rest.length > 0) this.#write();
    };
    write(this.#fd, octets, done);
  }

  #take(): Buffer {
    const octets = Buffer.concat([this.#rest, Buffer.from(this.#pending.join(""))]);
    this.#rest = Buffer.alloc(0);
    this.#pending = [];
    this.#pendingBytes = 0;
    return octets;
  }

  #fail(error: Error): void {
    if (!this.#failed) this.#log.error({ file: this.#settings.file, error }, "cannot write the audit");
    this.#failed = true;
  }

  [Symbol.dispose](): void {
    this.#over = true;
    if (!this.#writing) this.#close();
  }

  #close(): void {
    try {
      writeSync(this.#fd, this.#take());
    } catch (error) {
      this.#fail(error instanceof Error ? error : new Error(String(error)));
    }
    if (this.#fd !== 2) closeSync(this.#fd);
  }
}

/** How a stream came, for those who ask later at both servers. */
function viaOf({ hops, hop, issuer, session }: Through) {
  return { hops, user: hop?.user, issuer, session };
}

/** Opens a file to add lines to it. */
function openForLines(file: string): number {
  try {
    return openSync(file, "a", 0o600);
  } catch (cause) {
    const why = cause instanceof Error ? cause.message : String(cause);
    throw new FivedError("CONFIGURATION_BAD", `Cannot write the audit ${file}: ${why}`, { cause });
  }
}
