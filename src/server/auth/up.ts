/**
 * The mechanism `up` (paper section 3.1.2, PROTOCOL §4.6.1): a name, and then whatever the one who knows passwords asks. What a password
 * is compared with is a {@link PasswordSource}'s business.
 * @module
 */
import { randomBytes } from "node:crypto";
import { isUserName } from "../../identity/index.ts";
import type { Exchange, Finding, Mechanism } from "./mechanism.ts";
import type { PasswordSource } from "./password-source.ts";

/** The question, as in the paper's transcript. */
const QUESTION = "Enter Username: ";

/** User name and password. */
export class PasswordMechanism implements Mechanism {
  readonly name = "up";
  readonly #source: PasswordSource;

  constructor(source: PasswordSource) {
    this.#source = source;
  }

  async authenticate(exchange: Exchange): Promise<Finding | undefined> {
    const name = await nameOf(exchange);
    const nobody = nobodysName(); // made in any case: the same work for all
    return await this.#source.authenticate(isUserName(name) ? name : nobody, exchange);
  }
}

/**
 * Stands for what is no name in form: well-formed, so that it can be said to any source, and nobody's. What follows is then what follows
 * for an unknown user, whoever knows the passwords (abuse case A05).
 */
function nobodysName(): string {
  return `x${randomBytes(15).toString("hex")}`; // 31 characters: some systems take no more than 32
}

/** The name on the AUTH line, or else the answer to the first question. More than a name on the line is none. */
async function nameOf(exchange: Exchange): Promise<string> {
  const [given, ...more] = exchange.initial;
  if (given !== undefined) return more.length === 0 ? given : "";
  const answer = await exchange.ask(QUESTION, "shown");
  const name = Buffer.from(answer).toString("latin1");
  // Some type the password where the name belongs.
  answer.fill(0);
  return name;
}
