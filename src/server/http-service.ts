/**
 * A web server as a service: what `server.listen(port)` is for TCP, {@link listen} is for a name. The server, and the framework on it, stay as they are.
 * @module
 */
import type { IncomingMessage, Server } from "node:http";
import type { Duplex } from "node:stream";
import { type HandledService, service, type Visitor } from "./define.ts";

const visitors = new WeakMap<Duplex, Visitor>();

/**
 * A service whose streams are connections of an `http.Server`, which listens nowhere itself.
 * @example
 * export default listen("web", http.createServer((request, response) => response.end(`Hello ${visitorOf(request)?.user}`)));
 */
export function listen(name: string, server: Server): HandledService {
  return service(name, (stream, visitor) => {
    visitors.set(stream, visitor);
    // What http.Server sets on a socket has no meaning on a stream.
    const none = (): Duplex => stream;
    server.emit("connection", Object.assign(stream, { setNoDelay: none, setKeepAlive: none, setTimeout: none }));
  });
}

/** Who has opened the connection of a request; undefined where that is no stream of ours. */
export function visitorOf({ socket }: Pick<IncomingMessage, "socket">): Visitor | undefined {
  return visitors.get(socket);
}
