/**
 * The demonstration's service `whoami`: what a service is told about its caller, as one line of JSON.
 * @module
 */
import { service } from "../../server/index.ts";

export default service("whoami", (stream, { user, roles, host, peer, secure }) => {
  stream.end(`${JSON.stringify({ user: user ?? "nobody", roles, host: host ?? "default", peer, secure })}\n`);
});
