/**
 * Redis through a session: many small requests, pipelined and from many clients at once, and a subscription that stays open.
 * @module
 */
import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import test, { type TestContext } from "node:test";
import { forward, serve } from "../support/fived.ts";
import { Lab } from "../support/lab.ts";
import { needs } from "../support/needs.ts";
import { startRedis } from "../support/redis.ts";

const skip = needs("redis-server", "redis-cli");

test("redis-cli stores and reads, five million random octets too", { skip }, async (t) => {
  const { cli } = await redis(t);
  const value = randomBytes(5_000_000);
  assert.equal((await cli(["set", "small", "word"])).toString(), "OK\n");
  assert.equal((await cli(["get", "small"])).toString(), "word\n");
  assert.equal((await cli(["-x", "set", "large"], value)).toString(), "OK\n");
  assert.ok((await cli(["get", "large"])).subarray(0, -1).equals(value));
});

test("redis-cli pours in ten thousand commands in one go", { skip }, async (t) => {
  const { cli } = await redis(t);
  const commands = Array.from({ length: 10_000 }, (_, i) => `SET key:${i} ${i}\r\n`).join("");
  assert.match((await cli(["--pipe"], commands)).toString(), /errors: 0, replies: 10000\n/);
  assert.equal((await cli(["dbsize"])).toString(), "10000\n");
});

test("a subscriber hears at once what somebody else publishes", { skip }, async (t) => {
  const { lab, port, cli } = await redis(t);
  const subscriber = lab.start(["redis-cli", "-p", port, "subscribe", "news"]);
  await subscriber.hears(/subscribe\nnews\n1\n/);
  assert.equal((await cli(["publish", "news", "hello"])).toString(), "1\n");
  await subscriber.hears(/message\nnews\nhello\n/);
});

for (const pipeline of [1, 16]) {
  test(`redis-benchmark ends with every answer, fifty clients with ${pipeline} requests under way each`, {
    skip,
  }, async (t) => {
    const { lab, port, cli } = await redis(t);
    const requests = 20_000;
    const command = [
      "redis-benchmark",
      "-p",
      port,
      "-n",
      `${requests}`,
      "-P",
      `${pipeline}`,
      "-t",
      "set,incr",
      "--csv",
    ];
    const { status, stdout, stderr } = await lab.run(command);
    assert.equal(status, 0, stderr);
    assert.match(stdout.toString(), /"SET","\d/);
    assert.match(stdout.toString(), /"INCR","\d/);
    // Every INCR was done once, whatever the fifty connections did to each other.
    assert.equal((await cli(["get", "counter:__rand_int__"])).toString(), `${requests}\n`);
  });
}

/** redis-server as the service `cache`, a forward to it, and redis-cli. */
async function redis(t: TestContext) {
  const lab = await Lab.open(t);
  const backEnd = await startRedis(lab);
  const server = await serve(lab, { services: { cache: { to: `tcp://127.0.0.1:${backEnd}` } } });
  const [port] = await forward(lab, server, "cache");
  return {
    lab,
    port: `${port}`,
    async cli(args: readonly string[], input: string | Uint8Array = ""): Promise<Buffer> {
      const { status, stdout, stderr } = await lab.run(["redis-cli", "-p", `${port}`, ...args], { input });
      assert.equal(status, 0, stderr);
      return stdout;
    },
  };
}
