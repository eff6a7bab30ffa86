/**
 * The door of `chain/`: a session server that is a client of others. It puts the two rooms together that know nothing of each other.
 * @module
 */
import { type Configuration, type ServeOptions, type SessionServer, serve as serveNear } from "../server/index.ts";
import { upstream } from "./upstream.ts";

/**
 * Starts a session server; rejects with LISTEN_FAILED, CONFIGURATION_BAD or STATE_UNUSABLE.
 * @example
 * await using server = await serve(await loadConfiguration("/etc/fived/fived.yaml"));
 */
export function serve(
  configuration: Configuration,
  options: Omit<ServeOptions, "upstream"> = {},
): Promise<SessionServer> {
  return serveNear(configuration, { ...options, upstream });
}
