import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtemp, rm } from "node:fs/promises";
import { connect, createServer, type Server, type Socket } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { buffer } from "node:stream/consumers";
import test, { type TestContext } from "node:test";
import { setTimeout as delay } from "node:timers/promises";
import type { Announcer } from "../announce/announcer.ts";
import { type Endpoint, endpointText } from "../endpoint.ts";
import { type Log, silentLog } from "../log.ts";
import type { Balance } from "../schema.ts";
import { FakeTalk, RecordingLog } from "./fake-talk.test.ts";
import { TcpService } from "./tcp.ts";

/** A back end that echoes, unless told otherwise. */
async function backEnd(
  t: TestContext,
  serve: (socket: Socket) => void = (socket) => socket.pipe(socket),
  at: Endpoint = ANY_PORT,
) {
  const sockets = new Set<Socket>();
  const server = createServer({ allowHalfOpen: true }, (socket) => {
    sockets.add(socket.on("error", () => {}).once("close", () => sockets.delete(socket)));
    serve(socket);
  });
  server.listen(at.type === "unix" ? { path: at.path } : { host: at.host, port: at.port });
  await once(server, "listening");
  const close = async (): Promise<void> => {
    if (!server.listening) return;
    server.close();
    for (const socket of sockets) socket.destroy();
    await once(server, "close");
  };
  t.after(close);
  return { server, sockets, close, endpoint: at.type === "unix" ? at : addressOf(server) };
}

const ANY_PORT: Endpoint = { type: "tcp", host: "127.0.0.1", port: 0 };

function addressOf(server: Server): Endpoint {
  const address = server.address();
  assert.ok(typeof address === "object" && address !== null);
  return { type: "tcp", host: address.address, port: address.port };
}

/** A port on which nobody listens: one that was free a moment ago. */
async function nobody(t: TestContext): Promise<Endpoint> {
  const { endpoint, close } = await backEnd(t);
  await close();
  return endpoint;
}

/** A back end that does not accept: once its queue is full, TCP connections to it hang and Unix ones are turned away. */
async function stuck(t: TestContext, at: Endpoint): Promise<Endpoint> {
  const where = at.type === "unix" ? { path: at.path } : { host: at.host, port: at.port };
  const program = `
    const server = require("node:net").createServer().listen(${JSON.stringify({ ...where, backlog: 1 })}, () => {
      require("node:fs").writeSync(1, JSON.stringify(server.address()));
      Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0);
    });`;
  const child = spawn(process.execPath, ["--eval", program], { stdio: ["ignore", "pipe", "inherit"] });
  t.after(async () => {
    child.kill("SIGKILL");
    await once(child, "exit");
  });
  const [said] = await once(child.stdout, "data");
  const address = JSON.parse(String(said));
  const endpoint: Endpoint = at.type === "unix" ? at : { type: "tcp", host: address.address, port: address.port };
  // Two fill the queue; of those behind them nothing is heard.
  for (let caller = 0; caller < 2; caller++) {
    const socket = connect(at.type === "unix" ? { path: at.path } : { host: address.address, port: address.port });
    socket.on("error", () => {}); // it ends with its peer
    t.after(() => socket.destroy());
    await once(socket, "connect");
  }
  return endpoint;
}

interface Options {
  readonly balance?: Balance;
  readonly checkIntervalMs?: number;
  readonly connectMs?: number;
  readonly log?: Log;
  readonly announcer?: Announcer;
}

function tcp(t: TestContext, targets: readonly Endpoint[], options: Options = {}): TcpService {
  const { balance = "least-streams", checkIntervalMs, connectMs = 5_000, log = silentLog, announcer } = options;
  const service = new TcpService(
    "wiki",
    { type: "tcp", targets, balance, checkIntervalMs, announce: undefined },
    { connectMs, log, announcer },
  );
  t.after(() => service[Symbol.dispose]());
  return service;
}

async function unixPath(t: TestContext): Promise<Endpoint> {
  const folder = await mkdtemp(join(tmpdir(), "fived-tcp-"));
  t.after(() => rm(folder, { recursive: true, force: true }));
  return { type: "unix", path: join(folder, "s") };
}

test("a stream is accepted when its back end is connected, and bytes and half-close pass both ways", async (t) => {
  for (const at of [ANY_PORT, await unixPath(t)]) {
    const { endpoint } = await backEnd(t, undefined, at);
    const talk = new FakeTalk();
    assert.equal(await tcp(t, [endpoint]).serve(talk), "bytes");
    assert.deepEqual(talk.said, ["+ SUCCESS"]);
    const { input, output, endsWithOutput } = talk.backEnd;
    assert.equal(endsWithOutput, false);
    input.end("question");
    assert.equal(String(await buffer(output)), "question", "it still answers after our half-close");
  }
});

test("a name is looked up", async (t) => {
  const { endpoint } = await backEnd(t);
  assert.ok(endpoint.type === "tcp");
  const talk = new FakeTalk();
  assert.equal(await tcp(t, [{ ...endpoint, host: "localhost" }]).serve(talk), "bytes");
  talk.backEnd.destroy();
});

test("a back end that is not there is a 502 that names the service and not the address", async (t) => {
  const talk = new FakeTalk();
  const log = new RecordingLog();
  const endpoint = await nobody(t);
  assert.equal(await tcp(t, [endpoint], { log }).serve(talk), "closed");
  assert.deepEqual(talk.said, ["- 502 wiki: back end refused the connection"]);
  assert.equal((await log.seen("back end is down")).target, endpointText(endpoint));

  const lost = new FakeTalk();
  assert.equal(await tcp(t, [await unixPath(t)]).serve(lost), "closed");
  assert.deepEqual(lost.said, ["- 502 wiki: back end cannot be reached"]);
});

test("a back end that is down is left alone for a while: opens are refused without a connection", async (t) => {
  const log = new RecordingLog();
  const service = tcp(t, [await nobody(t)], { log });
  const storm = Array.from({ length: 50 }, () => new FakeTalk());
  await Promise.all(storm.map((talk) => service.serve(talk)));
  const later = new FakeTalk();
  assert.equal(await service.serve(later), "closed");
  assert.deepEqual(later.said, ["- 502 wiki: no back end is up"]);
  assert.equal(log.events.length, 1, "and it is told once");
  assert.equal(service.pool.targets[0]?.backoffMs, 100, "a storm is one failure");
});

test("a back end that comes back is used again after its time", async (t) => {
  const gone = await nobody(t);
  const log = new RecordingLog();
  const service = tcp(t, [gone], { log });
  await service.serve(new FakeTalk());
  await backEnd(t, undefined, gone);
  let talk = new FakeTalk();
  while ((await service.serve(talk)) === "closed") {
    await delay(20);
    talk = new FakeTalk();
  }
  assert.deepEqual(talk.said, ["+ SUCCESS"]);
  await log.seen("back end is up again");
  talk.backEnd.destroy();
});

test("a connection that hangs is a 504", async (t) => {
  const talk = new FakeTalk();
  const service = tcp(t, [await stuck(t, ANY_PORT)], { connectMs: 100 });
  const started = performance.now();
  assert.equal(await service.serve(talk), "closed");
  assert.deepEqual(talk.said, ["- 504 wiki: back end did not answer in time"]);
  assert.ok(performance.now() - started < 2_000);
});

test("a Unix socket whose queue is full is waited for, and then a 504", async (t) => {
  const talk = new FakeTalk();
  const service = tcp(t, [await stuck(t, await unixPath(t))], { connectMs: 100 });
  assert.equal(await service.serve(talk), "closed");
  assert.deepEqual(talk.said, ["- 504 wiki: back end did not answer in time"]);
});

test("a caller who leaves takes the attempt along, and its slot is free when the attempt is gone", async (t) => {
  const service = tcp(t, [await stuck(t, ANY_PORT)]);
  const talk = new FakeTalk();
  const answer = service.serve(talk);
  assert.equal(service.pool.targets[0]?.streams, 1);
  talk.abort();
  assert.equal(await answer, "closed");
  assert.equal(service.pool.targets[0]?.streams, 0);
  assert.deepEqual(talk.said, []);

  const late = new FakeTalk();
  late.abort();
  assert.equal(await service.serve(late), "closed");
});

test("when an address refuses the next one is tried, and the caller knows nothing of it", async (t) => {
  const { endpoint } = await backEnd(t);
  const service = tcp(t, [await nobody(t), await nobody(t), endpoint], { balance: "first" });
  const talk = new FakeTalk();
  assert.equal(await service.serve(talk), "bytes");
  assert.deepEqual(talk.said, ["+ SUCCESS"]);
  talk.backEnd.destroy();
});

test("an address that hangs leaves time for the others", async (t) => {
  const { endpoint } = await backEnd(t);
  const service = tcp(t, [await stuck(t, ANY_PORT), endpoint], { balance: "first", connectMs: 500 });
  const talk = new FakeTalk();
  assert.equal(await service.serve(talk), "bytes");
  const next = new FakeTalk();
  const started = performance.now();
  assert.equal(await service.serve(next), "bytes", "and is passed over from then on");
  assert.ok(performance.now() - started < 100);
  talk.backEnd.destroy();
  next.backEnd.destroy();
});

test("streams count where they are until their socket is closed", async (t) => {
  const [a, b] = [await backEnd(t), await backEnd(t)];
  const service = tcp(t, [a.endpoint, b.endpoint]);
  const talks = Array.from({ length: 6 }, () => new FakeTalk());
  for (const talk of talks) await service.serve(talk);
  const streams = () => service.pool.targets.map((target) => target.streams);
  assert.deepEqual(streams(), [3, 3]);
  const [first] = talks;
  assert.ok(first !== undefined);
  const closed = once(first.backEnd.output, "close");
  first.backEnd.destroy();
  await closed;
  assert.deepEqual(streams().toSorted(), [2, 3]);
  for (const talk of talks) talk.backEnd.destroy();
});

test("a stream that breaks off is a reset to its back end, not an end", async (t) => {
  const { endpoint, server } = await backEnd(t, (socket) => socket.resume());
  const accepted = once(server, "connection");
  const talk = new FakeTalk();
  await tcp(t, [endpoint]).serve(talk);
  const [socket] = await accepted;
  const broken = once(socket, "end").then(
    () => "ended",
    (error: unknown) => error,
  );
  talk.backEnd.destroy();
  assert.equal(Reflect.get(Object(await broken), "code"), "ECONNRESET");

  const unix = await backEnd(t, (other) => other.resume(), await unixPath(t));
  const plain = new FakeTalk();
  await tcp(t, [unix.endpoint]).serve(plain);
  const closed = once(plain.backEnd.output, "close");
  plain.backEnd.destroy();
  await closed;
});

test("a stream that breaks off while its caller's end is on its way lets go of its back end", async (t) => {
  const { endpoint } = await backEnd(t, (socket) => socket.resume());
  const talk = new FakeTalk();
  const service = tcp(t, [endpoint]);
  await service.serve(talk);
  const closed = once(talk.backEnd.output, "close");
  talk.backEnd.input.end();
  talk.backEnd.destroy();
  await closed;
  assert.equal(service.pool.targets[0]?.streams, 0);
});

test("a back end that breaks off does not harm the server, whether at once or later", async (t) => {
  const { endpoint } = await backEnd(t, (socket) => socket.once("data", () => socket.resetAndDestroy()));
  const talk = new FakeTalk();
  await tcp(t, [endpoint]).serve(talk);
  const closed = new Promise((resolve) => talk.backEnd.output.once("close", resolve)); // nobody here listens to "error"
  talk.backEnd.input.write("x");
  await closed;

  const rude = await backEnd(t, (socket) => socket.resetAndDestroy());
  const refused = new FakeTalk();
  await tcp(t, [rude.endpoint]).serve(refused);
  assert.match(refused.said.join(), /^(- 502 wiki: back end refused the connection|\+ SUCCESS)$/);
});

test("checks find out that a back end is down, and that it is up again, without a caller", async (t) => {
  const gone = await nobody(t);
  const log = new RecordingLog();
  const service = tcp(t, [gone], { log, checkIntervalMs: 10 });
  await log.seen("back end is down");
  assert.equal(service.pool.targets[0]?.up, false);
  await backEnd(t, undefined, gone);
  await log.seen("back end is up again");
  assert.equal(service.pool.targets[0]?.up, true);
  assert.equal(service.pool.targets[0]?.streams, 0, "checks are no streams");
});

test("checks end when the service is disposed, streams do not", async (t) => {
  let connections = 0;
  const { endpoint, server } = await backEnd(t, (socket) => {
    connections++;
    socket.pipe(socket);
  });
  const service = tcp(t, [endpoint], { checkIntervalMs: 5 });
  const talk = new FakeTalk();
  await service.serve(talk);
  while (connections < 3) await once(server, "connection");
  service[Symbol.dispose]();
  await delay(20);
  const before = connections;
  await delay(50);
  assert.equal(connections, before);
  talk.backEnd.input.end("still here");
  assert.equal(String(await buffer(talk.backEnd.output)), "still here");
});

/** Says something before the caller does. */
function announcing(say: (talk: FakeTalk) => Promise<string>): Announcer {
  return {
    greeting: Buffer.from("nobody\n"),
    async announce(talk) {
      assert.ok(talk instanceof FakeTalk);
      return { preamble: Buffer.from(await say(talk)), wrap: (backEnd) => backEnd };
    },
  };
}

test("a back end is told who is calling before anything that he says", async (t) => {
  for (const at of [ANY_PORT, await unixPath(t)]) {
    const { endpoint } = await backEnd(t, undefined, at);
    for (const say of [async () => "alice\n", () => delay(20, "alice\n")]) {
      const talk = new FakeTalk();
      const serving = tcp(t, [endpoint], { announcer: announcing(say) }).serve(talk);
      assert.deepEqual(talk.said, []);
      assert.equal(await serving, "bytes");
      assert.deepEqual(talk.said, ["+ SUCCESS"]);
      talk.backEnd.input.end("question");
      assert.equal(String(await buffer(talk.backEnd.output)), "alice\nquestion");
    }
  }
});

test("a caller who cannot be announced is refused, and not taken for nobody", async (t) => {
  const log = new RecordingLog();
  let bytes = 0;
  const { endpoint, server } = await backEnd(t, (socket) => socket.on("data", (chunk) => (bytes += chunk.length)));
  const announcer = announcing(() => Promise.reject(new Error("no key")));
  const service = tcp(t, [endpoint], { announcer, log });
  const talk = new FakeTalk();
  const [[socket]] = await Promise.all([once(server, "connection"), service.serve(talk)]);
  if (!socket.readableEnded) await once(socket, "end");
  assert.deepEqual(talk.said, ["- 502 wiki: back end cannot be told who is calling"]);
  assert.equal(talk.spliced, undefined);
  assert.equal(bytes, 0);
  await log.seen("cannot announce a caller");
  assert.equal(service.pool.targets[0]?.up, true, "it is not the back end's fault");
});

test("a caller who leaves while he is being announced leaves nothing behind", async (t) => {
  const { endpoint, server } = await backEnd(t);
  const named = Promise.withResolvers<string>();
  const service = tcp(t, [endpoint], { announcer: announcing(() => named.promise) });
  const talk = new FakeTalk();
  const serving = service.serve(talk);
  const [socket] = await once(server, "connection");
  const left = once(socket.resume(), "end");
  talk.abort();
  assert.equal(await serving, "closed");
  await left;
  named.resolve("alice\n");
  await named.promise;
  assert.deepEqual([talk.said, talk.spliced], [[], undefined]);
  assert.equal(service.pool.targets[0]?.streams, 0);
});

test("a back end that leaves while its caller is being announced is passed over", async (t) => {
  const rude = await backEnd(t, (socket) => socket.resetAndDestroy());
  const kind = await backEnd(t);
  const say = () => delay(50, "alice\n");
  const talk = new FakeTalk();
  const service = tcp(t, [rude.endpoint, kind.endpoint], { balance: "first", announcer: announcing(say) });
  assert.equal(await service.serve(talk), "bytes");
  talk.backEnd.input.end("x");
  assert.equal(String(await buffer(talk.backEnd.output)), "alice\nx");
});

test("checks say that nobody is calling, and the back end hears all of it", async (t) => {
  const heard = Promise.withResolvers<string>();
  const { endpoint } = await backEnd(t, (socket) => {
    buffer(socket).then((all) => heard.resolve(String(all)), heard.reject);
  });
  const service = tcp(t, [endpoint], { checkIntervalMs: 5, announcer: announcing(async () => "alice\n") });
  assert.equal(await heard.promise, "nobody\n");
  assert.equal(service.pool.targets[0]?.up, true);
});
