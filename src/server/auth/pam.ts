/**
 * Passwords, and whatever else is asked for, as the operating system's PAM has them. A process of its own asks PAM, one for each attempt:
 * started here where the server is root, or by `fived pam-helper`, which is, at the other end of a socket.
 *
 * ```
 *   Exchange ── PamPasswords ──────────── socketpair ─────────────── pam-attempt ── libpam
 *                     └──── unix socket ── pam-helper ── socketpair ── pam-attempt ── libpam
 * ```
 *
 * Nothing native, and nothing that can hang, is in this process.
 * @module
 */
import { setTimeout as pause } from "node:timers/promises";
import { isUserName } from "../../identity/index.ts";
import { FivedError } from "../../io/index.ts";
import type { Log } from "../log.ts";
import { sourceOf } from "../source.ts";
import type { Exchange, Finding } from "./mechanism.ts";
import type { PamLink } from "./pam-link.ts";
import {
  PAM_ATTEMPT_MS_MAX,
  PAM_ATTEMPTS_MAX,
  PAM_SILENT_MS_MAX,
  type PamService,
  startAttempt,
} from "./pam-process.ts";
import { type PamMessage, printFrame, printRequest } from "./pam-protocol.ts";
import { connectHelper } from "./pam-socket.ts";
import type { PasswordSource } from "./password-source.ts";

/** Attempts of one source at once: whoever leaves his questions unanswered leaves half of all attempts to others. */
const ATTEMPTS_PER_SOURCE_MAX = PAM_ATTEMPTS_MAX / 2;
/** What counts as one source, as at the door (PROTOCOL §9.5). */
const SOURCE = { ipv4Prefix: 32, ipv6Prefix: 56 };
/**
 * A refusal comes so long after the last answer, in milliseconds, whatever PAM did meanwhile: an unknown user is refused when a wrong
 * password is (abuse case A05). As long as PAM's own delay, which it replaces; what takes longer is the module's own affair.
 */
const REFUSAL_MS = 2_000;

/** How PAM is asked, and for how long. */
export interface PamOptions extends PamService {
  /** Socket of `fived pam-helper`; without it the process is started here. */
  readonly helper?: string;
  readonly log: Log;
  /** A PAM that says nothing for so long hangs; {@link PAM_SILENT_MS_MAX} unless said otherwise. */
  readonly silentMs?: number;
  /** How long after the last answer a refusal comes; {@link REFUSAL_MS} unless said otherwise. */
  readonly refusalMs?: number;
}

/** What PAM found, or why it found nobody. */
type Outcome = Extract<PamMessage, { type: "found" | "refused" | "broken" }>;

/** PAM as something that knows passwords. */
export class PamPasswords implements PasswordSource {
  readonly #options: PamOptions;
  readonly #log: Log;
  /** Attempts that run, by source. */
  readonly #running = new Map<string, number>();

  constructor(options: PamOptions) {
    this.#options = options;
    this.#log = options.log;
  }

  async authenticate(name: string, dialogue: Exchange): Promise<Finding | undefined> {
    if (!isUserName(name)) throw new Error("Invariant: only well-formed names are asked about");
    let answeredAt = performance.now();
    const outcome = await this.#attempt(name, dialogue, () => {
      answeredAt = performance.now();
    });
    if (dialogue.signal.aborted) throw new FivedError("ABORTED", "Cannot go on with AUTH: the peer is gone");
    const finding = this.#judge(name, outcome);
    const { refusalMs = REFUSAL_MS } = this.#options;
    if (finding === undefined)
      await pause(Math.max(0, answeredAt + refusalMs - performance.now()), undefined, dialogue);
    return finding;
  }

  /** One attempt, if one more may run. Rejects when the dialogue does; all else is an outcome. */
  async #attempt(name: string, dialogue: Exchange, answered: () => void): Promise<Outcome> {
    const source = sourceOf(dialogue.address, SOURCE);
    const ofSource = this.#running.get(source) ?? 0;
    const all = [...this.#running.values()].reduce((sum, count) => sum + count, 0);
    if (all >= PAM_ATTEMPTS_MAX || ofSource >= ATTEMPTS_PER_SOURCE_MAX)
      return { type: "broken", why: `${all} attempts run already, ${ofSource} of them from there` };
    this.#running.set(source, ofSource + 1);
    try {
      const link = await this.#open().catch((error: Error) => error);
      if (link instanceof Error) return { type: "broken", why: link.message };
      return await this.#converse(link, name, dialogue, answered);
    } finally {
      const left = (this.#running.get(source) ?? 1) - 1;
      if (left === 0) this.#running.delete(source);
      else this.#running.set(source, left);
    }
  }

  async #open(): Promise<PamLink<PamMessage>> {
    const { helper } = this.#options;
    return helper === undefined ? await startAttempt(this.#options) : await connectHelper(helper);
  }

  async #converse(link: PamLink<PamMessage>, name: string, dialogue: Exchange, answered: () => void): Promise<Outcome> {
    const { address, signal } = dialogue;
    const { silentMs = PAM_SILENT_MS_MAX } = this.#options;
    const over = AbortSignal.any([signal, AbortSignal.timeout(PAM_ATTEMPT_MS_MAX)]);
    const leave = (): void => link.destroy(signal.aborted ? "the conversation is gone" : "it took too long");
    over.addEventListener("abort", leave, { once: true });
    if (over.aborted) leave();
    try {
      const first = await link.next(silentMs);
      if (first?.type !== "ready") return first?.type === "broken" ? first : lost(link);
      link.send(printRequest({ user: name, ...(address === undefined ? {} : { address }) }));
      for (;;) {
        const message = await link.next(silentMs);
        if (message === undefined) return lost(link);
        switch (message.type) {
          case "ready":
            return lost(link);
          case "ask": {
            const answer = await dialogue.ask(message.text, message.shown ? "shown" : "hidden");
            answered();
            link.send(printFrame(answer));
            answer.fill(0);
            break;
          }
          case "tell":
            dialogue.tell(message.text);
            break;
          default:
            return message;
        }
      }
    } finally {
      over.removeEventListener("abort", leave);
      link.destroy("the attempt is over");
    }
  }

  #judge(user: string, outcome: Outcome): Finding | undefined {
    switch (outcome.type) {
      case "broken":
        this.#log.error({ user, reason: outcome.why }, "PAM cannot be asked");
        return undefined;
      case "refused":
        this.#log.info({ user, reason: outcome.why }, "PAM refuses somebody");
        return undefined;
      case "found":
        // A name such as alice@p.example would be somebody of another provider's.
        if (isUserName(outcome.user)) return { user: outcome.user, groups: outcome.groups, roles: [] };
        this.#log.warn({ user: outcome.user }, "PAM finds somebody whose name cannot be used");
        return undefined;
    }
  }
}

/** A module said nothing that could be understood, or nothing at all. */
function lost(link: PamLink<PamMessage>): Outcome {
  return { type: "broken", why: link.why ?? "it says something out of turn" };
}
