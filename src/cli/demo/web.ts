/**
 * The demonstration's service `web`: Node's own web server, which gets its connections from a session instead of a port.
 * @module
 */
import http from "node:http";
import { service } from "../../server/index.ts";

const server = http.createServer((_request, response) => {
  response.end("<h1>It came through a session</h1>\n");
});

export default service("web", (stream) => {
  server.emit("connection", stream);
});
