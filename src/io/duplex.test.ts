import assert from "node:assert/strict";
import { once } from "node:events";
import { addAbortSignal, type Duplex, finished, PassThrough, Readable } from "node:stream";
import { buffer, text } from "node:stream/consumers";
import { pipeline } from "node:stream/promises";
import test from "node:test";
import { setImmediate as pause } from "node:timers/promises";
import { INITIAL_CREDIT_BYTES } from "../session/index.ts";
import { Code } from "../wire/index.ts";
import { BareChannel } from "./bare-channel.ts";
import { type Channel, nobody } from "./channel.ts";
import { ChannelDuplex } from "./duplex.ts";
import { FivedError } from "./errors.ts";
import { connected, digest, digestOf, gone, NOTHING, noise, type Pair, pair, stream } from "./pair.test.ts";

/** A channel seen as a stream at both its ends. */
interface Duplexes extends AsyncDisposable {
  readonly near: Duplex;
  readonly far: Duplex;
  readonly channels: { readonly near: Channel; readonly far: Channel };
}

/** What a stream can be the end of. */
const KINDS = ["tcp", "tls", "bare tcp", "bare tls"] as const;
type Kind = (typeof KINDS)[number];

async function duplexes(kind: Kind): Promise<Duplexes> {
  if (kind === "tcp" || kind === "tls") {
    const session = await pair({ transport: kind });
    const channels = await stream(session);
    const [near, far] = [channels.near.duplex(NOTHING), channels.far.duplex(NOTHING)];
    return {
      near,
      far,
      channels,
      async [Symbol.asyncDispose]() {
        near.destroy();
        far.destroy();
        await Promise.all([session.client.idle(), session.server.idle()]);
        await session[Symbol.asyncDispose]();
      },
    };
  }
  const sockets = await connected(kind === "bare tcp" ? "tcp" : "tls");
  const channels = { near: new BareChannel(sockets.near), far: new BareChannel(sockets.far) };
  const [near, far] = [channels.near.duplex(NOTHING), channels.far.duplex(NOTHING)];
  return {
    near,
    far,
    channels,
    async [Symbol.asyncDispose]() {
      near.destroy();
      far.destroy();
      await Promise.all([gone(sockets.near), gone(sockets.far)]);
    },
  };
}

for (const kind of KINDS) {
  test(`an answer that is ended behind an ended question arrives whole over ${kind}`, async () => {
    await using ends = await duplexes(kind);
    const answer = noise(3_000_000);
    ends.far.on("error", () => assert.fail("nothing went wrong"));
    void text(ends.far).then((question) => {
      assert.equal(question, "question");
      ends.far.end(answer);
    });
    ends.near.end("question");
    assert.equal(await digestOf(ends.near), digest(answer));
    await Promise.all([gone(ends.near), gone(ends.far)]);
    assert.equal(ends.near.errored, null);
    assert.equal(ends.far.errored, null);
  });
}
