/**
 * redis-server as a back end, with nothing on disk.
 * @module
 */
import { freePort, type Lab } from "./lab.ts";

/** Starts redis-server, and says on which port. */
export async function startRedis(lab: Lab): Promise<number> {
  const port = await freePort();
  const redis = lab.start([
    "redis-server",
    "--port",
    `${port}`,
    "--bind",
    "127.0.0.1",
    "--save",
    "",
    "--appendonly",
    "no",
  ]);
  await redis.hears(/Ready to accept connections/);
  return port;
}
