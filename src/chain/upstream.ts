/**
 * The way to other session servers. The client that it is made of is loaded when the first is configured: most servers have none.
 * @module
 */
import type { FarServer, Upstream } from "../server/index.ts";

/** The way to other session servers. */
export const upstream: Upstream = {
  to(hop, log): FarServer {
    const held = import("./held-server.ts").then(({ HeldServer }) => new HeldServer(hop, log));
    held.catch(() => {}); // whoever wants a session is told
    return {
      session: async () => (await held).session(),
      retire: () => void held.then((server) => server.retire()).catch(() => {}), // what could not be made has no sessions
      async [Symbol.asyncDispose]() {
        await held.then((server) => server[Symbol.asyncDispose]()).catch(() => {});
      },
    };
  },
};
