/**
 * LIST: what the caller may use here (paper section 3.1.1, PROTOCOL §4.1), and HELP, which is LIST and then the end (§4.2).
 * @module
 */
import { isServiceName } from "../../wire/index.ts";
import type { Next, Service, Talk } from "../service.ts";
import { BUILT_IN_WORDS } from "../words.ts";

/** Names are said in pieces of about this size, so that 100,000 of them need no more memory than ten. */
const PIECE_BYTES = 8 * 1_024;

/** Names the built-in words and the services the caller may use; with a name, that name if it is among them. */
export const list: Service = {
  word: "LIST",
  async serve(talk): Promise<Next> {
    const [name, ...more] = talk.args;
    if (more.length > 0 || (name !== undefined && !isServiceName(name)))
      talk.refuse(501, "LIST takes one name, or none");
    else await sayNames(talk, name);
    return "lines";
  },
};

/** LIST, then close: what plain RFC 1078 clients ask for. */
export const help: Service = {
  word: "HELP",
  async serve(talk): Promise<Next> {
    await sayNames(talk, undefined);
    return "closed";
  },
};

async function sayNames(talk: Talk, name: string | undefined): Promise<void> {
  if (name !== undefined) {
    const found = talk.directory.find(name) ?? (await talk.directory.farNames(name))[0];
    talk.say(found === undefined ? "" : `${found}\r\n`);
    return;
  }
  let piece = "";
  // Asked for first: between two lines of a list nobody is kept waiting.
  const far = await talk.directory.farNames();
  for (const each of allNames(talk, far)) {
    piece += `${each}\r\n`;
    if (piece.length < PIECE_BYTES) continue;
    if (!talk.say(piece.slice(0, -2))) await talk.taken();
    piece = "";
  }
  talk.say(piece);
}

function* allNames(talk: Talk, far: readonly string[]): Iterable<string> {
  yield* BUILT_IN_WORDS;
  yield* talk.directory.names();
  yield* far;
}
