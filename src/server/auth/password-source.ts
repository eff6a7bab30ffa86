/**
 * Who knows passwords: the user store (`store-passwords.ts`) or the operating system. Both carry on a dialogue with whoever signs in, for
 * which the mechanism `up` gives them the name.
 * @module
 */
import type { Exchange, Finding } from "./mechanism.ts";

/** Something that knows passwords. */
export interface PasswordSource {
  /**
   * Asks what it needs to know, usually `Enter Password: `, and finds out whether that is the person; undefined otherwise. The name is
   * well-formed (`isUserName`). Asks and works the same for one it does not know (abuse case A05). Wipes the answers.
   */
  authenticate(name: string, dialogue: Exchange): Promise<Finding | undefined>;
}
