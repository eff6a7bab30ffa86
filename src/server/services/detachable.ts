/**
 * DETACHABLE: the session outlives its connections, for whoever holds the ticket that this hands out (paper section 3.1.6, PROTOCOL §4.7).
 * @module
 */
import { detachableLine } from "../../identity/index.ts";
import type { Service } from "../service.ts";

/** Makes a session detachable; a refusal changes nothing. */
export const detachable: Service = {
  word: "DETACHABLE",
  serve(talk) {
    const [ttl, ...more] = talk.args;
    if (more.length > 0 || (ttl !== undefined && !/^[1-9]\d{0,9}$/.test(ttl))) {
      talk.refuse(501, "DETACHABLE takes a number of seconds, or nothing");
      return "lines";
    }
    const answer = talk.detaching.detachable(ttl === undefined ? undefined : Number(ttl));
    if ("code" in answer) talk.refuse(answer.code, answer.text);
    else talk.say(detachableLine(answer));
    return "lines";
  },
};
