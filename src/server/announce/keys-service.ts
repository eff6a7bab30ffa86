/**
 * A service that answers HTTP with the public keys of our assertions, so that back ends which cannot read the file in the state folder
 * fetch them: through a forward, or from a listener of their own organisation. Nothing else is served, and nothing in it is secret.
 * @module
 */
import { createServer, type IncomingMessage, type ServerResponse } from "node:http";
import type { Next, Service, Talk } from "../service.ts";
import type { AnnounceKeys } from "./keys.ts";

/** Where the set is (RFC 8615); at `/` too, as there is nothing else. */
const PATHS: ReadonlySet<string> = new Set(["/.well-known/jwks.json", "/"]);
/** How long the set may be kept: the next key is in it long before it is used, so this only bounds how long a withdrawn one is believed. */
const KEEP_SECONDS = 300;
/** Time for a request; a caller that is slower is cut. */
const REQUEST_MS = 10_000;

/** Answers with the keys there are when it is asked. */
export class KeysService implements Service {
  readonly word: string;
  readonly #keys: AnnounceKeys;
  readonly #server = createServer({ maxHeaderSize: 8_192 }, (request, response) => this.#answer(request, response));

  constructor(word: string, keys: AnnounceKeys) {
    this.word = word;
    this.#keys = keys;
  }

  serve(talk: Talk): Next {
    talk.accept();
    const stream = talk.stream();
    stream.on("error", () => {}); // a caller who is gone is no news
    const timer = setTimeout(() => stream.destroy(), REQUEST_MS).unref();
    stream.once("close", () => clearTimeout(timer));
    this.#server.emit("connection", stream);
    return "bytes";
  }

  #answer(request: IncomingMessage, response: ServerResponse): void {
    response.shouldKeepAlive = false;
    if (!PATHS.has(request.url?.split("?")[0] ?? "")) return void response.writeHead(404).end();
    if (request.method !== "GET" && request.method !== "HEAD")
      return void response.writeHead(405, { allow: "GET, HEAD" }).end();
    response.writeHead(200, { "content-type": "application/jwk-set+json", "cache-control": `max-age=${KEEP_SECONDS}` });
    response.end(JSON.stringify(this.#keys.jwks));
  }
}
