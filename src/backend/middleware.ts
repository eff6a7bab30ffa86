/**
 * Middleware for programs that speak HTTP behind a service with `announce: http`: `request.fived` says who is calling, as an assertion proves
 * it. The other `Fived-` fields are not looked at: whoever reaches the program without the session server could set them. For Express and
 * all that takes its middleware, and for Fastify; neither is needed to load this file.
 * @module
 */
import type { IncomingMessage, ServerResponse } from "node:http";
import { FivedError } from "../io/index.ts";
import { type VerifierOptions, verifier } from "./assertions.ts";

/** Who is calling. */
export interface FivedCaller {
  readonly user: string;
  readonly roles: readonly string[];
  /** Identifier of the session, as in the server's log. */
  readonly session: string;
  /** How the user was recognised: `pubkey`, `cert`, `ext` or `up`. */
  readonly mechanism: string;
  readonly secondFactor: boolean;
  /** Virtual host that was asked; undefined for the default host. */
  readonly host: string | undefined;
}

/** What is expected of a caller. */
export interface FivedIdentityOptions extends VerifierOptions {
  /**
   * Let through, with `request.fived` undefined, who comes without an assertion: who has not signed in. One that is not to be believed is
   * a 401 in any case. False if left out: then no assertion is a 401, too.
   */
  readonly optional?: boolean;
}

/** A request that went through the middleware. */
interface Told extends IncomingMessage {
  fived?: FivedCaller | undefined;
}

/** What becomes of a request: who is calling, or an answer in place of the program's. */
type Judgement = FivedCaller | undefined | { readonly status: 401 | 503; readonly text: string };

/**
 * Middleware for Express.
 * @example
 * app.use(fivedIdentity({ keys: "/run/fived/jwks.json", audience: "wiki" }));
 * app.get("/", (request, response) => response.send(`Hello ${request.fived.user}`));
 */
export function fivedIdentity(
  options: FivedIdentityOptions,
): (request: IncomingMessage, response: ServerResponse, next: (error?: unknown) => void) => void {
  const judge = judgeOf(options);
  return (request: Told, response, next) => {
    judge(request).then((judgement) => {
      if (judgement === undefined || "user" in judgement) {
        request.fived = judgement;
        return next();
      }
      response.writeHead(judgement.status, { "content-type": "text/plain", "cache-control": "no-store" });
      response.end(`${judgement.text}\n`);
    }, next);
  };
}

/** What the plugin uses of Fastify. */
interface FastifyLike {
  decorateRequest(name: string, value: undefined): unknown;
  addHook(
    name: "onRequest",
    hook: (
      request: { readonly raw: IncomingMessage; fived?: FivedCaller | undefined },
      reply: { code(status: number): { header(name: string, value: string): { send(text: string): unknown } } },
    ) => Promise<unknown>,
  ): unknown;
}

/** Options as Fastify hands them over. */
export type FivedFastifyOptions = FivedIdentityOptions;

/**
 * Plugin for Fastify.
 * @example
 * await app.register(fivedFastify, { keys: "/run/fived/jwks.json", audience: "wiki" });
 * app.get("/", async (request) => `Hello ${request.fived.user}`);
 */
export async function fivedFastify(app: FastifyLike, options: FivedFastifyOptions): Promise<void> {
  const judge = judgeOf(options);
  app.decorateRequest("fived", undefined);
  app.addHook("onRequest", async (request, reply) => {
    const judgement = await judge(request.raw);
    if (judgement === undefined || "user" in judgement) request.fived = judgement;
    else return reply.code(judgement.status).header("cache-control", "no-store").send(`${judgement.text}\n`);
    return undefined;
  });
}

// The routes of the whole program are asked for it, not those of a plugin's own scope (`skip-override` of Fastify's plugins).
Object.assign(fivedFastify, { [Symbol.for("skip-override")]: true, [Symbol.for("fastify.display-name")]: "fived" });

function judgeOf(options: FivedIdentityOptions): (request: IncomingMessage) => Promise<Judgement> {
  const verify = verifier(options);
  return async (request) => {
    // Of two fields with one name nobody knows which is meant, and Node joins them into one that is none.
    const token = request.headers["fived-assertion"];
    if (token === undefined) return options.optional === true ? undefined : NOBODY;
    try {
      const { user, roles, session, mechanism, secondFactor, host } = await verify(String(token));
      return { user, roles, session, mechanism, secondFactor, host };
    } catch (error) {
      if (!(error instanceof FivedError)) throw error;
      return error.code === "KEYS_UNAVAILABLE" ? NO_KEYS : UNBELIEVED;
    }
  };
}

const NOBODY = { status: 401, text: "Sign in: this service is for users of its session server." } as const;
const UNBELIEVED = { status: 401, text: "Who you are is not to be believed." } as const;
const NO_KEYS = { status: 503, text: "Who you are cannot be found out now." } as const;
