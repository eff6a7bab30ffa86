/**
 * The audit (docs/audit.md): one JSON object a line for each sign-in, refusal, stream that is opened and stream that is over. Unlike the log
 * it is for those who ask, later, who did what; its fields are part of what fived promises. It holds no payload and no secret.
 * @module
 */
import { closeSync, openSync } from "node:fs";
import pino from "pino";
import { FivedError } from "../io/index.ts";
import type { Log } from "./log.ts";
import type { AuditSettings } from "./schema.ts";
import type { Caller } from "./service.ts";

/** What happened, besides when and to whom. */
export type AuditEvent =
  | { readonly event: "sign-in"; readonly mechanism: string; readonly secondFactor: boolean }
  | { readonly event: "sign-in-refused"; readonly mechanism: string; readonly claimed: string | undefined }
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
  readonly #out: ReturnType<typeof pino.destination>;
  #failed = false;

  constructor(settings: AuditSettings, log: Log) {
    this.#settings = settings;
    const { file } = settings;
    if (file !== "stderr") tryToOpen(file);
    const dest = file === "stderr" ? 2 : file;
    this.#out = pino.destination({ dest, append: true, mode: 0o600, sync: false, maxLength: PENDING_BYTES_MAX });
    const failed = (error?: unknown): void => {
      if (!this.#failed) log.error({ file, error }, "cannot write the audit");
      this.#failed = true;
    };
    this.#out.on("error", failed);
    this.#out.on("drop", () => failed(new Error(`more than ${PENDING_BYTES_MAX} octets wait to be written`)));
    this.#out.on("drain", () => {
      this.#failed = false;
    });
  }

  get refuses(): boolean {
    return this.#failed && this.#settings.onFailure === "refuse";
  }

  record({ session, user, peer }: Caller, event: AuditEvent): void {
    const claimed = event.event === "sign-in-refused" ? { claimed: event.claimed?.slice(0, CLAIMED_MAX) } : {};
    this.#out.write(
      `${JSON.stringify({ time: new Date().toISOString(), session, peer, user, ...event, ...claimed })}\n`,
    );
  }

  [Symbol.dispose](): void {
    this.#out.flushSync();
    if (this.#settings.file !== "stderr") this.#out.end();
  }
}

/** The destination opens its file in its own time, and says nothing when it cannot: that is better known at the start. */
function tryToOpen(file: string): void {
  try {
    closeSync(openSync(file, "a", 0o600));
  } catch (cause) {
    const why = cause instanceof Error ? cause.message : String(cause);
    throw new FivedError("CONFIGURATION_BAD", `Cannot write the audit ${file}: ${why}`, { cause });
  }
}
