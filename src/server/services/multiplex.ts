/**
 * MULTIPLEX: the connection carries a session of many streams from here on (paper section 3.1.4, PROTOCOL §4.4 and §6).
 * @module
 */
import type { Service } from "../service.ts";

/** Turns the connection into a session's. */
export const multiplex: Service = {
  word: "MULTIPLEX",
  serve(talk) {
    talk.accept();
    return "frames";
  },
};
