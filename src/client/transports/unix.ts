/**
 * A Unix socket on this computer.
 * @module
 */
import { connect } from "node:net";
import { connected } from "./tcp.ts";
import { noConnection, type Transport } from "./transport.ts";

/** Where the address is a path. */
export const unix: Transport = {
  name: "unix",
  async open(address, signal) {
    if (address.type !== "unix") throw noConnection(address, "it is no path of a Unix socket");
    try {
      return await connected(connect({ path: address.path, allowHalfOpen: true }), signal);
    } catch (error) {
      signal.throwIfAborted();
      const code = error instanceof Error && "code" in error ? error.code : undefined;
      const why =
        code === "ECONNREFUSED"
          ? "nothing listens there; is the session server running?"
          : error instanceof Error
            ? error.message
            : String(error);
      throw noConnection(address, why, error);
    }
  },
};
