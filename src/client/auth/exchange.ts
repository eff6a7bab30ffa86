/**
 * The server's lines in an exchange of AUTH in its form for programs, as values (PROTOCOL §4.6, §4.6.1; abuse cases A01, A07). Pure: what is
 * answered, by whom and on what terms is `authenticate.ts`'s business.
 *
 *     AUTH … ─► "+ SUCCESS <mechanism>" ─► ( "? …" │ "* …" │ "! …" )* ─► "Authentication as … successful" │ "- code …"
 * @module
 */
import { parseReply } from "../../wire/index.ts";

/** Questions in one exchange: more is no login but a way to keep somebody busy (A07). */
export const QUESTIONS_MAX = 16;
/** Lines in one exchange that only tell something: a screen of it. */
export const TOLD_MAX = 32;

/** What a line of the server means. */
export type Step =
  /** The mechanism is taken; more follows. */
  | { readonly type: "more" }
  | { readonly type: "ask"; readonly question: string; readonly shown: boolean }
  | { readonly type: "tell"; readonly text: string }
  | { readonly type: "identity"; readonly identity: string }
  | { readonly type: "refused"; readonly code: number | undefined; readonly text: string }
  /** The server says what it must not; the end of a sentence says what. */
  | { readonly type: "error"; readonly why: string };

/** What stands behind a server may name people as it likes, in one printable word. */
const SUCCESSFUL = /^Authentication as ([\x21-\x7e]{1,255}) successful$/;

/** Reads one exchange, line by line. */
export class AuthExchange {
  readonly #taken: string;
  #isTaken = false;
  #questions = 0;
  #told = 0;

  /** @param mechanism the one that was asked for */
  constructor(mechanism: string) {
    this.#taken = `+ SUCCESS <${mechanism}>`;
  }

  /** What the next line means. */
  read(line: string): Step {
    if (line.startsWith("-")) {
      const reply = parseReply(line);
      return reply.type === "refused"
        ? { type: "refused", code: reply.code, text: displayable(reply.text) }
        : wrong("its refusal cannot be read");
    }
    if (!this.#isTaken) {
      if (line.toLowerCase() !== this.#taken.toLowerCase()) return wrong("its answer to AUTH is none");
      this.#isTaken = true;
      return { type: "more" };
    }
    const identity = SUCCESSFUL.exec(line)?.[1];
    if (identity !== undefined) return { type: "identity", identity };
    const text = displayable(line.slice(2));
    switch (line.slice(0, 2)) {
      case "? ":
      case "* ":
        if (++this.#questions > QUESTIONS_MAX) return wrong(`it asks more than ${QUESTIONS_MAX} questions`);
        return { type: "ask", question: text, shown: line.startsWith("?") };
      case "! ":
        if (++this.#told > TOLD_MAX) return wrong(`it tells more than ${TOLD_MAX} things`);
        return { type: "tell", text };
      default:
        return wrong("its line belongs to no exchange of AUTH");
    }
  }
}

function wrong(why: string): Step {
  return { type: "error", why };
}

/** The line's octets as text that moves nothing on a terminal and turns no line around (A07). */
function displayable(octets: string): string {
  const text = Buffer.from(octets, "latin1").toString("utf8");
  return text.replace(/[\p{C}\p{Zl}\p{Zp}]/gu, "?");
}
