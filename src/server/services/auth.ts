/**
 * AUTH: who somebody is (paper section 3.1.2, PROTOCOL §4.6). Here are the words of the exchange and its bounds; what counts as proof is the
 * mechanisms' business (`auth/`), what an identity may do is decided elsewhere.
 *
 * ```
 *   AUTH up,pubkey            + SUCCESS <up>          for people: questions without CRLF
 *   AUTH up alice             + SUCCESS <up>          for programs: ?, * and ! mark the lines
 *   AUTH pubkey alice fp sig                          all is said: the result is the answer
 *        \________________________ Authentication as alice successful | - 403 | - 429, closed
 * ```
 * @module
 */
import { FivedError } from "../../io/index.ts";
import {
  type Exchange,
  type Finding,
  type Identity,
  type Mechanism,
  type MechanismName,
  QUESTIONS_MAX,
} from "../auth/mechanism.ts";
import type { Next, Service, Talk } from "../service.ts";
import { ATTEMPTS_MAX } from "../standing.ts";

/** Octets of a question or of something told (PROTOCOL §4.6.1). */
const TEXT_BYTES_MAX = 4_000;
/** Mechanisms one may ask for in one line: more than there are. */
const MECHANISMS_MAX = 16;
/** The same for whatever was wrong (abuse case A05). */
const REFUSED = "refused";

/** Finds out who the caller is, and lets what he does next be done as him. */
export const auth: Service = {
  word: "AUTH",
  async serve(talk): Promise<Next> {
    const asked = parseAuth(talk.args);
    if (asked === undefined) {
      talk.refuse(501, "AUTH takes a list of mechanisms, or one and its first line");
      return "lines";
    }
    const { entrance } = talk;
    if (entrance.elsewhere) {
      talk.refuse(421, "AUTH is for the session's own host");
      return "lines";
    }
    const mechanism = asked.mechanisms.map((name) => entrance.authentication.mechanism(name)).find((each) => !!each);
    if (mechanism === undefined) {
      talk.refuse(403, REFUSED);
      return "lines";
    }
    const attempt = entrance.attempt();
    if (attempt > ATTEMPTS_MAX) {
      talk.refuse(429, "too many attempts");
      return "closed";
    }
    return await new Dialogue(talk, mechanism, asked.initial).hold(attempt === ATTEMPTS_MAX);
  },
};

/** What an AUTH line asks for; undefined if it is ill-formed. Mechanisms nobody knows are skipped later. */
export function parseAuth(
  args: readonly string[],
): { readonly mechanisms: readonly string[]; readonly initial: readonly string[] } | undefined {
  const [list = "", ...initial] = args;
  const bare = list.startsWith("<") && list.endsWith(">") ? list.slice(1, -1) : list;
  const mechanisms = bare.split(",");
  if (mechanisms.length > MECHANISMS_MAX || !mechanisms.every((name) => /^[A-Za-z0-9-]{1,32}$/.test(name)))
    return undefined;
  return initial.length > 0 && mechanisms.length > 1 ? undefined : { mechanisms, initial };
}

/** Mechanisms of which the first line, where it came along, is answered by the result, or by the mechanism's own line. */
const RESULT_ONLY: ReadonlySet<MechanismName> = new Set(["pubkey", "cert", "ext"]);
/** Mechanisms that ask for all they need. */
const ASKS_ALL: ReadonlySet<MechanismName> = new Set(["up", "cert"]);
/** Names that may be said in a line, and told to back ends. */
const USER = /^[\x21-\x7e]{1,255}$/;

class Dialogue {
  readonly #talk: Talk;
  readonly #mechanism: Mechanism;
  readonly #form: Exchange["form"];
  #initial: readonly string[];
  #announced = false;
  #questions = 0;
  readonly #abort = new AbortController();

  constructor(talk: Talk, mechanism: Mechanism, initial: readonly string[]) {
    this.#talk = talk;
    this.#mechanism = mechanism;
    this.#initial = initial;
    this.#form = mechanism.name === "up" && initial.length === 0 ? "people" : "programs";
  }

  /** From `+ SUCCESS` to the result. */
  async hold(isLast: boolean): Promise<Next> {
    const { entrance } = this.#talk;
    const late = Promise.withResolvers<never>();
    const stop = (error: FivedError): void => {
      late.reject(error);
      this.#abort.abort();
    };
    const timer = setTimeout(() => stop(tooSlow()), entrance.beginDialogue() - performance.now());
    const leave = (): void => stop(new FivedError("ABORTED", "Cannot go on with AUTH: the peer is gone"));
    this.#talk.signal.addEventListener("abort", leave, { once: true });
    late.promise.catch(() => {}); // heard of only while somebody waits
    try {
      const identity = await Promise.race([this.#findOut(), late.promise]);
      if (identity !== undefined && entrance.recognised(identity)) {
        this.#announce();
        this.#talk.say(`Authentication as ${identity.user} successful`);
        return "lines";
      }
      this.#failed();
      this.#talk.refuse(isLast ? 429 : 403, isLast ? "too many attempts" : REFUSED);
      return isLast ? "closed" : "lines";
    } catch (error) {
      if (!(error instanceof FivedError)) throw error;
      this.#failed();
      if (error.code === "TIMEOUT") this.#talk.refuse(408, "the dialogue took too long");
      return error.code === "PROTOCOL_ERROR" ? "lines" : "closed"; // what cannot be read as an answer is no request either
    } finally {
      clearTimeout(timer);
      this.#talk.signal.removeEventListener("abort", leave);
      this.#abort.abort();
    }
  }

  #failed(): void {
    this.#talk.entrance.failed({ mechanism: this.#mechanism.name, user: this.#initial[0] });
  }

  async #findOut(): Promise<Identity | undefined> {
    const { name } = this.#mechanism;
    const isAnnounced = this.#initial.length === 0 || !RESULT_ONLY.has(name);
    if (isAnnounced) this.#announce();
    if (this.#initial.length === 0 && !ASKS_ALL.has(name)) this.#initial = wordsOf(await this.#answer());
    const exchange = this.#exchange();
    const finding = await this.#attempt(exchange);
    if (finding === undefined || !USER.test(finding.user)) return undefined;
    return await this.#talk.entrance.authentication.identify(finding, name, exchange);
  }

  /** What goes wrong in a mechanism proves nothing about anybody. */
  async #attempt(exchange: Exchange): Promise<Finding | undefined> {
    try {
      return await this.#mechanism.authenticate(exchange);
    } catch (error) {
      if (error instanceof FivedError && (error.code === "TIMEOUT" || error.code === "ABORTED")) throw error;
      this.#talk.entrance.authentication.broken(this.#mechanism.name, error);
      return undefined;
    }
  }

  #exchange(): Exchange {
    const { entrance, host } = this.#talk;
    return {
      form: this.#form,
      initial: this.#initial,
      binding: entrance.binding,
      host: host ?? "",
      address: entrance.address,
      certificate: entrance.certificate,
      signal: this.#abort.signal,
      ask: (question, answer) => this.#ask(question, answer),
      tell: (text) => this.#tell(text),
    };
  }

  #announce(): void {
    if (this.#announced) return;
    this.#announced = true;
    this.#say(`+ SUCCESS <${this.#mechanism.name}>`);
  }

  #ask(question: string, answer: "shown" | "hidden"): Promise<Uint8Array> {
    if (++this.#questions > QUESTIONS_MAX)
      throw new FivedError("PROTOCOL_ERROR", `Cannot ask more than ${QUESTIONS_MAX} questions`);
    this.#announce();
    const text = printable(question);
    if (this.#form === "people") this.#talk.entrance.tell(`${text.replace(/:? *$/, "")}: `);
    else this.#say(`${answer === "shown" ? "?" : "*"} ${text}`);
    return this.#answer();
  }

  #tell(text: string): void {
    this.#announce();
    this.#say(this.#form === "people" ? printable(text) : `! ${printable(text)}`);
  }

  #say(line: string): void {
    this.#talk.entrance.tell(`${line}\r\n`);
  }

  async #answer(): Promise<Uint8Array> {
    const octets = await this.#talk.entrance.answer();
    if (!octets.some((octet) => octet === 0 || octet === 0x0a || octet === 0x0d)) return octets;
    octets.fill(0);
    throw new FivedError("PROTOCOL_ERROR", "Cannot take an answer with control octets");
  }
}

/** One line of what a module of PAM, or a user store, wants to have said. */
function printable(text: string): string {
  const line = text.replace(/[\p{Cc}\p{Zl}\p{Zp}]+/gu, " ").trim();
  const octets = Buffer.from(line);
  return octets.length <= TEXT_BYTES_MAX ? line : octets.toString("utf8", 0, TEXT_BYTES_MAX - 3);
}

function wordsOf(line: Uint8Array): string[] {
  const text = Buffer.from(line).toString("latin1");
  return text.split(" ").filter((word) => word !== "");
}

function tooSlow(): FivedError {
  return new FivedError("TIMEOUT", "Cannot go on with AUTH: it took too long");
}
