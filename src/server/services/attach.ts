/**
 * ATTACH: a new connection of a session that is there, for whoever proves to hold its ticket (paper section 3.1.7, PROTOCOL §4.8).
 * @module
 */
import { parseAttach } from "../../identity/index.ts";
import type { Service } from "../service.ts";

/** Attaches the connection to a session. All of it happens in one turn: between what is answered and the frames behind it nothing may change. */
export const attach: Service = {
  word: "ATTACH",
  serve(talk) {
    const request = parseAttach(talk.args);
    if (request === undefined) {
      talk.refuse(501, "not a request to attach");
      return "closed";
    }
    const answer = talk.detaching.attach(request);
    if ("code" in answer) {
      talk.refuse(answer.code, answer.text);
      return "closed";
    }
    for (const line of answer) talk.say(line);
    return "frames";
  },
};
