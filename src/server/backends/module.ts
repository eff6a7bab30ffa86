/**
 * Services that are a module: a file anywhere whose default export was made by `service()`. The file imports "fived" and gets this very
 * package, wherever it lies: whoever writes ten lines need not set up a project around them.
 *
 * A file that has not changed since it was loaded is the same module after a reload, with what it remembers; one that has is loaded
 * anew. What it imports itself is loaded once, as Node does.
 * @module
 */
import { stat } from "node:fs/promises";
import { registerHooks } from "node:module";
import { pathToFileURL } from "node:url";
import { FivedError } from "../../io/index.ts";
import { type Handler, handle } from "../define.ts";
import { asGuest } from "../guest.ts";
import type { Log } from "../log.ts";
import type { Service } from "../service.ts";

/** A module that has not said what it exports after this long waits for something that may never come. */
const LOAD_MS = 10_000;

/** Loads a module and makes a service of it under the name of the configuration; throws `CONFIGURATION_BAD`. */
export async function loadModule(word: string, file: string, log: Log): Promise<Service> {
  const loaded = serviceIn(await importFresh(file));
  if (loaded === undefined)
    throw bad(file, 'its default export is no service; write export default service("name", …)');
  const { handler, service } = loaded;
  return {
    word,
    serve(talk) {
      const failed = (error: unknown): void => {
        log.error({ service: word, session: talk.caller.session, file, error }, "a service failed");
      };
      return handler === undefined ? asGuest(failed, () => service.serve(talk)) : handle(handler, talk, failed);
    },
  };
}

interface Loaded {
  readonly service: Pick<Service, "serve">;
  /** The function it was made of, so that its exceptions can be heard. */
  readonly handler: Handler | undefined;
}

/** What a module exports, told by its shape: it may come from another copy of this package. */
function serviceIn(namespace: object): Loaded | undefined {
  const exported: unknown = Reflect.get(namespace, "default");
  if (!isService(exported)) return undefined;
  return {
    service: exported,
    handler: "handler" in exported && isHandler(exported.handler) ? exported.handler : undefined,
  };
}

function isService(value: unknown): value is Pick<Service, "serve"> {
  return typeof value === "object" && value !== null && "serve" in value && typeof value.serve === "function";
}

function isHandler(value: unknown): value is Handler {
  return typeof value === "function";
}

/** How often a file could not be loaded: Node remembers a failure under its URL, and what was missing may be there now. */
const FAILURES = new Map<string, number>();

async function importFresh(file: string): Promise<object> {
  resolveOurselves();
  const deadline = new AbortController();
  try {
    const { mtimeMs, size } = await stat(file);
    const url = pathToFileURL(file);
    url.search = `fived=${mtimeMs}-${size}-${FAILURES.get(file) ?? 0}`;
    const late = new Promise<never>((_resolve, reject) => {
      const timer = setTimeout(() => reject(new Error(`it was not loaded after ${LOAD_MS / 1_000} s`)), LOAD_MS);
      deadline.signal.addEventListener("abort", () => clearTimeout(timer));
    });
    return await Promise.race([importIt(url), late]);
  } catch (cause) {
    FAILURES.set(file, (FAILURES.get(file) ?? 0) + 1);
    throw bad(file, cause instanceof Error ? cause.message : String(cause), cause);
  } finally {
    deadline.abort();
  }
}

async function importIt(url: URL): Promise<object> {
  const namespace: unknown = await import(url.href);
  if (typeof namespace !== "object" || namespace === null) throw new Error("Invariant: a module is an object");
  return namespace;
}

function bad(file: string, why: string, cause?: unknown): FivedError {
  return new FivedError("CONFIGURATION_BAD", `Cannot load ${file}: ${why}`, { cause });
}

/** This package's own entry, beside us in the sources and in what is published. */
const ENTRY = new URL(import.meta.url.endsWith(".ts") ? "../../index.ts" : "../../index.js", import.meta.url).href;

let hooked = false;

/** From now on "fived" means this package everywhere in this process, and a service file needs no package.json to be an ES module. */
function resolveOurselves(): void {
  if (hooked) return;
  hooked = true;
  registerHooks({
    resolve(specifier, context, next) {
      if (specifier === "fived") return next(ENTRY, context);
      const resolved = next(specifier, context);
      if (resolved.format || !specifier.includes("?fived=")) return resolved;
      // Node would find out by itself, but only after a warning about its cost.
      return { ...resolved, format: specifier.includes(".ts?fived=") ? "module-typescript" : "module" };
    },
  });
}
