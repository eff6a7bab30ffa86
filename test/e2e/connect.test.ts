/**
 * `fived connect`, `fived list` and `fived forward` as people and scripts use them: every byte, both ends, refusals, trust.
 * @module
 */
import assert from "node:assert/strict";
import { createHash, randomBytes } from "node:crypto";
import { once } from "node:events";
import fs from "node:fs/promises";
import http from "node:http";
import net from "node:net";
import path from "node:path";
import { text } from "node:stream/consumers";
import test from "node:test";
import { complaints, type Home, home, type Running } from "./command.ts";

const TRUST = ["-o", "StrictHostKeyChecking=accept-new"];

interface Served extends AsyncDisposable {
  readonly mine: Home;
  readonly server: Running;
  readonly address: string;
}

async function served(...targets: readonly string[]): Promise<Served> {
  const mine = await home();
  const server = mine.start(["serve", ...targets, "--listen", "tcp://127.0.0.1:0"]);
  const [, address = ""] = await server.line(/listening on tcp:\/\/(\S+)/);
  return { mine, server, address, [Symbol.asyncDispose]: () => mine[Symbol.asyncDispose]() };
}

test("connect carries binary data of many megabytes to a service and back", async () => {
  await using at = await served("cat=exec:cat");
  const input = randomBytes(5_000_000);
  const { code, stdout, stderr } = await at.mine.fived(["connect", at.address, "cat", ...TRUST], { input });
  assert.deepEqual({ code, stderr: complaints(stderr) }, { code: 0, stderr: "" });
  assert.equal(sha256(stdout), sha256(input));
});

test("the end of standard input half-closes: the service hears it, and can still answer", async () => {
  await using at = await served("count=exec:wc -c");
  const { code, stdout } = await at.mine.fived(["connect", `${at.address}/count`, ...TRUST], { input: "12345" });
  assert.equal(code, 0);
  assert.equal(stdout.toString().trim(), "5");
});

test("the end of the service closes standard output while standard input still flows", async () => {
  await using backEnd = await listening(net.createServer({ allowHalfOpen: true }));
  await using at = await served(`half=${backEnd.port}`);
  const client = at.mine.start(["connect", at.address, "half", ...TRUST]);
  client.child.stdin.write("a");
  const [socket] = await once(backEnd.server, "connection");
  socket.end("goodbye");
  assert.equal(await text(client.child.stdout), "goodbye"); // Returns only when the descriptor is closed.
  client.child.stdin.end("b");
  assert.equal(await text(socket), "ab");
  const [code] = await once(client.child, "exit");
  assert.equal(code, 0);
});

test("a program that has ended ends connect, whatever standard input still holds open", async () => {
  await using at = await served("date=exec:date");
  const client = at.mine.start(["connect", at.address, "date", ...TRUST]);
  const [code] = await once(client.child, "exit"); // Its standard input was never closed.
  assert.equal(code, 0);
});

test("a reader that leaves early ends connect without a word", async () => {
  await using at = await served("yes=exec:yes");
  const client = at.mine.start(["connect", at.address, "yes", ...TRUST]);
  await once(client.child.stdout, "data");
  client.child.stdout.destroy();
  const [code] = await once(client.child, "exit");
  assert.equal(code, 0);
  assert.equal(complaints(client.stderr()), "");
});

test("a reader that does not read stops the service, and loses nothing", async () => {
  await using backEnd = await listening(net.createServer());
  await using at = await served(`bulk=${backEnd.port}`);
  const client = at.mine.start(["connect", at.address, "bulk", ...TRUST]);
  const [socket] = await once(backEnd.server, "connection");
  const sent = randomBytes(64 * 1024);
  const total = 48 * 1024 * 1024;
  let written = 0;
  let stalled = false;
  client.child.stdout.pause();
  while (written < total && !stalled) {
    written += sent.length;
    if (socket.write(sent)) continue;
    stalled = (await Promise.race([once(socket, "drain"), idle(500)])) === "idle";
  }
  assert.ok(stalled, `took ${written} bytes that nobody had read`);
  socket.end();
  let got = 0;
  for await (const part of client.child.stdout) got += part.length;
  assert.equal(got, written);
});

test("a service that refuses or does not exist ends with 255 and the reason", async () => {
  await using at = await served(`down=${await closedPort()}`);
  const unknown = await at.mine.fived(["connect", at.address, "nosuch", ...TRUST]);
  assert.equal(unknown.code, 255);
  assert.match(complaints(unknown.stderr), /^fived: Cannot .*nosuch.*\n$/);
  const down = await at.mine.fived(["connect", at.address, "down", ...TRUST]);
  assert.equal(down.code, 255);
  assert.match(complaints(down.stderr), /^fived: Cannot .*down.*\n$/);
});

test("a server that is not there ends with 255 and its address", async () => {
  await using mine = await home();
  const port = await closedPort();
  const { code, stderr } = await mine.fived(["list", `127.0.0.1:${port}`]);
  assert.equal(code, 255);
  assert.match(stderr, new RegExp(`^fived: Cannot .*127\\.0\\.0\\.1:${port}.*\n$`));
});

test("list prints a name a line, answers for one name by its status, and speaks JSON", async () => {
  await using at = await served("web=3000", "date=exec:date");
  const all = await at.mine.fived(["list", at.address, ...TRUST]);
  const names = all.stdout.toString().split("\n");
  assert.deepEqual(names.slice(-3), ["web", "date", ""]);
  const one = await at.mine.fived(["list", at.address, "WEB"]);
  assert.deepEqual({ code: one.code, stdout: one.stdout.toString() }, { code: 0, stdout: "web\n" });
  const none = await at.mine.fived(["list", `${at.address}/nosuch`]);
  assert.deepEqual({ code: none.code, stdout: none.stdout.toString() }, { code: 1, stdout: "" });
  const json = await at.mine.fived(["list", at.address, "date", "--json"]);
  assert.deepEqual(JSON.parse(json.stdout.toString()), { address: at.address, services: ["date"] });
});

test("without a terminal an unknown key is refused; accept-new pins it, and from then on it is known", async () => {
  await using at = await served("web=3000");
  const refused = await at.mine.fived(["list", at.address]);
  assert.equal(refused.code, 255);
  assert.match(refused.stderr, /SHA256:/);
  assert.equal((await at.mine.fived(["list", at.address, ...TRUST])).code, 0);
  assert.equal((await at.mine.fived(["list", at.address])).code, 0);
  const pins = await fs.readFile(path.join(at.mine.folder, "config", "fived", "known_hosts"), "utf8");
  assert.match(pins, /^\[127\.0\.0\.1\]:\d+ \S+ \S+/m);
});

test("a changed key is refused with both fingerprints", async () => {
  await using at = await served("web=3000");
  assert.equal((await at.mine.fived(["list", at.address, ...TRUST])).code, 0);
  await at.server.stop();
  const other = at.mine.start([
    "serve",
    "web=3000",
    "--listen",
    `tcp://${at.address}`,
    "--state",
    path.join(at.mine.folder, "other"),
  ]);
  await other.line(/listening on/);
  const { code, stderr } = await at.mine.fived(["list", at.address, ...TRUST]);
  assert.equal(code, 255);
  assert.equal(new Set(stderr.match(/SHA256:[A-Za-z0-9+/]{43}/g)).size, 2);
});

test("UserKnownHostsFile names another file of pins", async () => {
  await using at = await served("web=3000");
  const pins = path.join(at.mine.folder, "pins");
  assert.equal((await at.mine.fived(["list", at.address, ...TRUST, "-o", `userknownhostsfile=${pins}`])).code, 0);
  assert.match(await fs.readFile(pins, "utf8"), /127\.0\.0\.1/);
});

test("Tls=in-band and Tls=off reach the same service on the same port", async () => {
  await using at = await served("cat=exec:cat");
  for (const tls of ["in-band", "off"]) {
    const { code, stdout, stderr } = await at.mine.fived(["connect", at.address, "cat", ...TRUST, "-o", `Tls=${tls}`], {
      input: "x",
    });
    assert.deepEqual(
      { tls, code, stdout: stdout.toString(), stderr: complaints(stderr) },
      { tls, code: 0, stdout: "x", stderr: "" },
    );
  }
});

test("forward gives programs that know nothing of fived a port", async () => {
  const answer = http.createServer((request, response) => response.end(`you asked for ${request.url}`));
  await using web = await listening(answer);
  await using at = await served(`web=${web.port}`, "cat=exec:cat");
  const forward = at.mine.start(["forward", `0=${at.address}/web`, "-L", `127.0.0.1:0=${at.address}/cat`, ...TRUST]);
  const [, port] = await forward.line(/^fived: 127\.0\.0\.1:(\d+) -> \S+\/web$/);
  await forward.line(/^fived: 127\.0\.0\.1:(\d+) -> \S+\/cat$/);
  const answers = await Promise.all(
    Array.from({ length: 20 }, async (_, number) => (await fetch(`http://127.0.0.1:${port}/${number}`)).text()),
  );
  assert.deepEqual(
    answers,
    Array.from({ length: 20 }, (_, number) => `you asked for /${number}`),
  );
  assert.deepEqual(await forward.stop(), { code: 0, signal: null });
});

test("forward can listen on a Unix socket, which goes when it ends", async () => {
  await using at = await served("cat=exec:cat");
  const file = path.join(at.mine.folder, "cat.sock");
  const forward = at.mine.start(["forward", `unix:${file}=${at.address}/cat`, ...TRUST]);
  await forward.line(/^fived: unix:.*cat\.sock -> /);
  const socket = net.connect(file);
  socket.end("through a file");
  assert.equal(await text(socket), "through a file");
  assert.deepEqual(await forward.stop("SIGINT"), { code: 0, signal: null });
  await assert.rejects(fs.access(file), { code: "ENOENT" });
});

test("-v says what happens on standard error, and nothing of it on standard output", async () => {
  await using at = await served("cat=exec:cat");
  const { code, stdout, stderr } = await at.mine.fived(["connect", at.address, "cat", "-v", ...TRUST], { input: "x" });
  assert.deepEqual({ code, stdout: stdout.toString() }, { code: 0, stdout: "x" });
  assert.match(stderr, /^fived: connected to \S+\/cat$/m);
});

/** A back end on a free port, which goes with its connections when the test is over. */
async function listening(
  server: net.Server,
): Promise<{ readonly server: net.Server; readonly port: number } & AsyncDisposable> {
  const sockets = new Set<net.Socket>();
  server.on("connection", (socket) => {
    sockets.add(socket);
    socket.on("error", () => {}); // Whoever uses it sees what is missing.
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  const address = server.address();
  if (address === null || typeof address === "string") throw new Error("Invariant: a TCP server has a port");
  return {
    server,
    port: address.port,
    async [Symbol.asyncDispose]() {
      server.close();
      for (const socket of sockets) socket.destroy();
    },
  };
}

/** A port where nothing listens: it was free a moment ago. */
async function closedPort(): Promise<number> {
  await using taken = await listening(net.createServer());
  return taken.port;
}

/** Nothing happened for that long: the only way to see that something does not happen. */
function idle(ms: number): Promise<"idle"> {
  return new Promise((resolve) => setTimeout(resolve, ms, "idle"));
}

function sha256(bytes: Uint8Array): string {
  return createHash("sha256").update(bytes).digest("hex");
}
