/**
 * What lies behind a service: programs, TCP and Unix sockets, some of them down, some of them ending first. Each end of each direction has to
 * come through by itself.
 * @module
 */
import assert from "node:assert/strict";
import { once } from "node:events";
import net from "node:net";
import { text } from "node:stream/consumers";
import test from "node:test";
import { eventually, within } from "../support/deadline.ts";
import { client, connect, forward, list, serve } from "../support/fived.ts";
import { freePort, Lab, portOf } from "../support/lab.ts";
import { needs } from "../support/needs.ts";

test("a pipe through fived connect into a program behaves like a pipe into the program", async (t) => {
  const lab = await Lab.open(t);
  const { address } = await serve(lab, {
    services: { cat: { exec: ["cat"] }, count: { exec: ["wc", "-c"] }, silent: { exec: ["true"] } },
  });
  const big = Buffer.alloc(10_000_000, "0123456789");
  assert.equal((await connect(lab, address, "cat", "x")).text, "x");
  assert.ok((await connect(lab, address, "cat", big)).stdout.equals(big), "cat gave back something else");
  assert.equal((await connect(lab, address, "count", big)).text, "10000000\n");
  const silent = await connect(lab, address, "silent");
  assert.equal(silent.text, "");
  assert.equal(silent.status, 0);
});

test("netcat through fived forward ends its half, and still gets the answer", { skip: needs("nc") }, async (t) => {
  const lab = await Lab.open(t);
  const server = await serve(lab, { services: { count: { exec: ["wc", "-c"] } } });
  const [port] = await forward(lab, server, "count");
  const { status, stdout } = await lab.run(["nc", "-N", "127.0.0.1", `${port}`], { input: "12345" });
  assert.equal(stdout.toString(), "5\n");
  assert.equal(status, 0);
});

test("a TCP back end hears the caller's end before it has answered, and answers then", async (t) => {
  const lab = await Lab.open(t);
  const backEnd = await listening(lab, async (socket) => {
    const question = await text(socket);
    socket.end(`you said ${question.length} octets`);
  });
  const { address } = await serve(lab, { services: { patient: { to: `tcp://127.0.0.1:${portOf(backEnd)}` } } });
  assert.equal((await connect(lab, address, "patient", "x".repeat(300_000))).text, "you said 300000 octets");
});

test("a TCP back end that ends first still hears the rest of what the caller says", async (t) => {
  const lab = await Lab.open(t);
  const heard = Promise.withResolvers<string>();
  const backEnd = await listening(lab, async (socket) => {
    socket.end("that is all from me\n");
    heard.resolve(await text(socket));
  });
  const { address } = await serve(lab, { services: { terse: { to: `tcp://127.0.0.1:${portOf(backEnd)}` } } });
  const caller = lab.start(client("connect", address, "terse"));
  assert.equal(await caller.rest(), "that is all from me\n");
  caller.says("but I have ");
  caller.says("something to add");
  caller.hangsUp();
  assert.equal(await within(heard.promise, "the back end to hear the rest"), "but I have something to add");
  assert.equal(await caller.ended, 0);
});

test("a back end that resets its connection is a failure, not an end", async (t) => {
  const lab = await Lab.open(t);
  const backEnd = await listening(lab, async (socket) => {
    await once(socket, "data");
    socket.resetAndDestroy();
  });
  const { address } = await serve(lab, { services: { rude: { to: `tcp://127.0.0.1:${portOf(backEnd)}` } } });
  const { status, stderr } = await connect(lab, address, "rude", "hello");
  assert.equal(status, 255, stderr);
  assert.notEqual(stderr, "");
});

test("a program that has exited ends the stream, whatever the caller still holds open", async (t) => {
  const lab = await Lab.open(t);
  const { address } = await serve(lab, { services: { brief: { exec: ["echo", "bye"] } } });
  const caller = lab.start(client("connect", address, "brief"));
  assert.equal(await caller.rest(), "bye\n");
  assert.equal(await caller.ended, 0);
});

test("a program sees PATH, LANG and what begins with FIVED_, and nothing else of the server's environment", async (t) => {
  const lab = await Lab.open(t);
  const { address } = await serve(
    lab,
    { services: { environment: { exec: ["env"] } } },
    { SECRET: "of the server", LD_LIBRARY_PATH: "/nowhere", NODE_OPTIONS: "--no-deprecation" },
  );
  const lines = (await connect(lab, address, "environment")).text.trimEnd().split("\n");
  const unexpected = lines.filter((line) => !/^(?:PATH|LANG|FIVED_[A-Z_]+)=/.test(line));
  assert.deepEqual(unexpected, []);
  assert.ok(
    lines.some((line) => line.startsWith("PATH=/")),
    lines.join("\n"),
  );
});

test("arguments of a program are no shell's business", async (t) => {
  const lab = await Lab.open(t);
  const { address } = await serve(lab, {
    services: { literal: { exec: ["printf", "%s|", "$HOME", "a b", "; id", "*"] } },
  });
  assert.equal((await connect(lab, address, "literal")).text, "$HOME|a b|; id|*|");
});

test("the server listens on a Unix socket, for fived and for netcat", { skip: needs("nc") }, async (t) => {
  const lab = await Lab.open(t);
  const path = lab.path("door");
  const { address } = await serve(lab, { listen: [`unix:${path}`], services: { greet: { exec: ["echo", "hello"] } } });
  assert.equal(address, `unix:${path}`);
  assert.ok((await list(lab, address)).includes("greet"));
  assert.equal((await connect(lab, address, "greet")).text, "hello\n");
  const byHand = await lab.run(["nc", "-N", "-U", path], { input: "greet\r\n" });
  assert.equal(byHand.stdout.toString(), "+ SUCCESS\r\nhello\n");
});

test("a back end may listen on a Unix socket", async (t) => {
  const lab = await Lab.open(t);
  const path = lab.path("back");
  await listening(lab, async (socket) => void socket.end(`${(await text(socket)).toUpperCase()}!`), path);
  const { address } = await serve(lab, { services: { shout: { to: `unix:${path}` } } });
  assert.equal((await connect(lab, address, "shout", "hello")).text, "HELLO!");
});

test("of two back ends one is down, and nobody notices", async (t) => {
  const lab = await Lab.open(t);
  const backEnd = await listening(lab, async (socket) => void socket.end("alive\n"));
  const { address } = await serve(lab, {
    services: { pair: { to: [`tcp://127.0.0.1:${await freePort()}`, `tcp://127.0.0.1:${portOf(backEnd)}`] } },
  });
  for (let i = 0; i < 6; i++) {
    const { status, text: output } = await connect(lab, address, "pair");
    assert.equal(output, "alive\n");
    assert.equal(status, 0);
  }
});

test("a back end that is down is a 502 that names the service, by hand and in fived's complaint", async (t) => {
  const lab = await Lab.open(t);
  const { address, port } = await serve(lab, { services: { ledger: { to: `tcp://127.0.0.1:${await freePort()}` } } });
  const socket = net.connect({ port, host: "127.0.0.1" });
  socket.write("ledger\r\n");
  assert.match(await within(text(socket), "the refusal"), /^- 502 [ -~]*ledger[ -~]*\r\n$/);
  const { status, text: output, stderr } = await connect(lab, address, "ledger");
  assert.equal(status, 255);
  assert.equal(output, "");
  assert.match(stderr, /502/);
  assert.match(stderr, /ledger/);
});

test("a session lives on when one of its services is down, and the service works when its back end is back", async (t) => {
  const lab = await Lab.open(t);
  const port = await freePort();
  const server = await serve(lab, { services: { ledger: { to: `tcp://127.0.0.1:${port}` }, echo: { exec: ["cat"] } } });
  const [ledger = 0, echo = 0] = await forward(lab, server, "ledger", "echo");
  const living = net.connect({ port: echo, host: "127.0.0.1" });
  living.write("before");
  await within(once(living, "data"), "the echo before");
  const ask = () => within(text(net.connect({ port: ledger, host: "127.0.0.1" })), "an answer");
  // Only the program at this forwarded port learns of it.
  await assert.rejects(ask, { code: "ECONNRESET" });
  living.write("after");
  await within(once(living, "data"), "the echo after");
  await listening(lab, async (socket) => void socket.end("back again"), port);
  // The server leaves an address that failed alone for a moment.
  assert.equal(await eventually(ask, "the back end to be asked again"), "back again");
  living.destroy();
});

/** A back end in this process, which ends with the test. */
async function listening(
  lab: Lab,
  serveOne: (socket: net.Socket) => Promise<void>,
  where: number | string = 0,
): Promise<net.Server> {
  const sockets = new Set<net.Socket>();
  const server = net.createServer({ allowHalfOpen: true }, (socket) => {
    sockets.add(socket);
    // The caller's failures are what some tests are about; here they only end the conversation.
    socket.on("error", () => {});
    socket.once("close", () => sockets.delete(socket));
    serveOne(socket).catch(() => socket.destroy());
  });
  await new Promise<void>((resolve) => {
    if (typeof where === "string") server.listen(where, resolve);
    else server.listen(where, "127.0.0.1", resolve);
  });
  lab.defer(async () => {
    for (const socket of sockets) socket.destroy();
    await server[Symbol.asyncDispose]();
  });
  return server;
}
