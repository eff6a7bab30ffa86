/**
 * Passwords of the embedded user store, as a source for the mechanism `up`.
 * @module
 */
import type { Exchange, Finding, Users } from "./mechanism.ts";
import type { PasswordSource } from "./password-source.ts";

/** The question, as in the paper's transcript. */
const QUESTION = "Enter Password: ";

/** Asks for the one password that the store has of a user. */
export class StorePasswords implements PasswordSource {
  readonly #users: Users;

  constructor(users: Users) {
    this.#users = users;
  }

  async authenticate(name: string, dialogue: Exchange): Promise<Finding | undefined> {
    const password = await dialogue.ask(QUESTION, "hidden");
    try {
      const user = await this.#users.verify(name, password);
      return user && { user: user.name, groups: user.groups, roles: user.roles, ofStore: true };
    } finally {
      password.fill(0);
    }
  }
}
