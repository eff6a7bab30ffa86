/**
 * HOST: the same service names reach other back ends under another virtual host, whatever their protocol (paper section 2, PROTOCOL §4.5).
 * @module
 */
import { assertNever } from "../../wire/index.ts";
import type { Service } from "../service.ts";

/** Goes to a virtual host; a refusal leaves the caller where it is. */
export const host: Service = {
  word: "HOST",
  serve(talk) {
    const [name, ...more] = talk.args;
    if (name === undefined || more.length > 0) {
      talk.refuse(501, "HOST takes one name");
      return "lines";
    }
    const outcome = talk.directory.enter(name);
    switch (outcome) {
      case "entered":
        talk.accept();
        break;
      case "unknown":
        talk.refuse(404, "no such host");
        break;
      case "misdirected":
        talk.refuse(421, "misdirected: that host is not for this connection, connect to it by its name");
        break;
      default:
        assertNever(outcome);
    }
    return "lines";
  },
};
