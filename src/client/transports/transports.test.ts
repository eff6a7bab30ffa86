import assert from "node:assert/strict";
import { once } from "node:events";
import { createServer as createHttpServer, type IncomingMessage } from "node:http";
import { connect as connectSocket, createServer, type Server } from "node:net";
import { type Duplex, duplexPair } from "node:stream";
import { text } from "node:stream/consumers";
import test, { type TestContext } from "node:test";
import { createWebSocketStream, WebSocketServer } from "ws";
import { portOf } from "../../../test/support/lab.ts";
import { type Scripted, scripted, WELCOME } from "../../../test/support/scripted-server.ts";
import { FivedError } from "../../io/index.ts";
import { parseAddress } from "../address.ts";
import { connect } from "../connect.ts";
import { isTransport, transportFor } from "./index.ts";
import { tcp } from "./tcp.ts";
import type { Transport } from "./transport.ts";
import { unix } from "./unix.ts";

const forever = new AbortController().signal;

/** A session over that transport, in TLS with the server whose key is pinned, and a stream that gives back what it gets. */
async function echoes(server: Scripted, transport: string | Transport): Promise<void> {
  await using session = await connect(server.address, { ...server.options, transport });
  const stream = session.open("echo");
  const big = "x".repeat(300_000);
  stream.end(big);
  assert.equal((await text(stream)).length, big.length);
}

async function listening(t: TestContext, server: Server): Promise<number> {
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  t.after(() => void server.close());
  return portOf(server);
}

/** A WebSocket behind which a session server is; what asked for it. */
async function webSocket(
  t: TestContext,
  server: Scripted,
): Promise<{ readonly url: string; readonly asked: string[] }> {
  const asked: string[] = [];
  const sockets = new WebSocketServer({ noServer: true, handleProtocols: () => "fived.v1" });
  const http = createHttpServer((_, response) => response.writeHead(404).end());
  http.on("upgrade", (request, socket, head) => {
    asked.push(`${request.url} ${request.headers["sec-websocket-protocol"]}`);
    sockets.handleUpgrade(request, socket, head, (web) => {
      const stream = createWebSocketStream(web);
      const onward = connectSocket(at(server));
      stream.on("error", () => {}).pipe(onward);
      onward.on("error", () => {}).pipe(stream);
    });
  });
  t.after(() => sockets.close());
  return { url: `ws://127.0.0.1:${await listening(t, http)}/.well-known/fived`, asked };
}

function at(server: Scripted): { readonly host: string; readonly port: number } {
  const address = parseAddress(server.address);
  assert.ok(address.type === "tcp");
  return { host: "127.0.0.1", port: address.port };
}

async function failing(attempt: Promise<unknown>, code: string, message: RegExp): Promise<void> {
  await assert.rejects(attempt, (error) => {
    assert.ok(error instanceof FivedError, String(error));
    assert.equal(error.code, code, error.message);
    assert.match(error.message, message);
    return true;
  });
}

test("another transport is one object with one function: a session over memory", async (t) => {
  const server = await scripted(t, WELCOME);
  const inMemory: Transport = {
    name: "memory",
    async open() {
      const [ours, theirs] = duplexPair();
      const onward = connectSocket(at(server));
      theirs.on("error", () => {}).pipe(onward);
      onward.on("error", () => {}).pipe(theirs);
      return ours;
    },
  };
  await echoes(server, inMemory);
  const [{ lines = [] } = {}] = server.heard;
  assert.ok(lines.includes("MULTIPLEX"));
});

test("a session over a command's standard input and output", async (t) => {
  const server = await scripted(t, WELCOME);
  const relay = `${process.execPath} -e 'const s=require("net").connect(%p,"127.0.0.1").on("error",()=>{});process.stdin.pipe(s).pipe(process.stdout)'`;
  await echoes(server, `exec:${relay}`);
});

test("a command that ends says how in the error, and one that hangs is ended when the time is over", async (t) => {
  const server = await scripted(t, WELCOME);
  const over = (transport: string): Promise<unknown> =>
    connect(server.address, { ...server.options, transport, connectTimeoutMs: 300 });
  await failing(over("exec:sh -c 'exit 7'"), "CONNECT_FAILED", /sh -c 'exit 7'" ended with 7/);
  await failing(over("exec:/no/such/program"), "CONNECT_FAILED", /ended with 127/);
  await failing(over("exec:sleep 1000"), "TIMEOUT", /no TLS within 300 ms/);
});

test("a session over a WebSocket, and through a proxy that the environment names", async (t) => {
  const server = await scripted(t, WELCOME);
  const web = await webSocket(t, server);
  await echoes(server, web.url);
  assert.deepEqual(web.asked, ["/.well-known/fived fived.v1"]);

  const connected: string[] = [];
  const proxy = createHttpServer();
  proxy.on("connect", (request: IncomingMessage, client: Duplex) => {
    connected.push(`${request.url} ${request.headers["proxy-authorization"]}`);
    if (request.url?.startsWith("refused.")) return void client.end("HTTP/1.1 403 Forbidden\r\n\r\n");
    const onward = connectSocket(Number(new URL(web.url).port), "127.0.0.1");
    client.write("HTTP/1.1 200 OK\r\n\r\n");
    client.on("error", () => {}).pipe(onward);
    onward.on("error", () => {}).pipe(client);
  });
  process.env["HTTP_PROXY"] = `http://me:secret@127.0.0.1:${await listening(t, proxy)}`;
  t.after(() => delete process.env["HTTP_PROXY"]);
  const through = web.url.replace("127.0.0.1", "behind.example");
  await echoes(server, through);
  const basic = `Basic ${Buffer.from("me:secret").toString("base64")}`;
  assert.deepEqual(connected, [`behind.example:${new URL(web.url).port} ${basic}`]);
  const refused = web.url.replace("127.0.0.1", "refused.example");
  await failing(connect(server.address, { ...server.options, transport: refused }), "CONNECT_FAILED", /proxy .* 403/);
});

test("what is no WebSocket is an error that says so", async (t) => {
  const server = await scripted(t, WELCOME);
  const http = createHttpServer((_, response) => response.writeHead(404).end());
  const url = `ws://127.0.0.1:${await listening(t, http)}/`;
  await failing(connect(server.address, { ...server.options, transport: url }), "CONNECT_FAILED", /WebSocket .*404/);
});

test("a session over MPTCP", async (t) => {
  const server = await scripted(t, WELCOME);
  await echoes(server, "mptcp");
  const closed = createServer();
  const port = await listening(t, closed);
  closed.close();
  await once(closed, "close");
  const { mptcp } = await import("./mptcp.ts");
  await failing(mptcp.open(parseAddress(`127.0.0.1:${port}`), forever), "CONNECT_FAILED", /nothing listens/);
  await failing(mptcp.open(parseAddress(`[::1]:${port}`), forever), "CONNECT_FAILED", /./);
});

test("S09 where nothing listens, where the name has no address, and where nobody answers, the error says which", async (t) => {
  const closed = createServer();
  const port = await listening(t, closed);
  closed.close();
  await once(closed, "close");
  await failing(tcp.open(parseAddress(`127.0.0.1:${port}`), forever), "CONNECT_FAILED", /nothing listens there/);
  await failing(
    tcp.open(parseAddress("no-such-name.invalid"), forever),
    "RESOLVE_FAILED",
    /no-such-name.invalid has no/,
  );
  await failing(unix.open(parseAddress("unix:/no/such/socket"), forever), "CONNECT_FAILED", /ENOENT/);
  await failing(
    connect("no-such-name.invalid", { tls: "off" }).then((session) => text(session.open("x"))),
    "RESOLVE_FAILED",
    /./,
  );
});

test("transports are read as they are written, and nothing else is one", async () => {
  for (const written of ["tcp", "mptcp", "ws://x/y", "wss://x:1/y?z", "exec:nc %h %p"]) assert.ok(isTransport(written));
  for (const written of ["", "udp", "http://x", "ws://", "exec:", "wss://x/#y"])
    assert.ok(!isTransport(written), written);
  assert.equal((await transportFor(parseAddress("unix:/x"), undefined)).name, "unix");
  assert.equal((await transportFor(parseAddress("x"), undefined)).name, "tcp");
});

test("without TLS there is only what ends one direction at a time", async (t) => {
  const server = await scripted(t, WELCOME);
  const session = await connect(server.address, { tls: "off", transport: "exec:cat" });
  await failing(text(session.open("echo")), "CONNECT_FAILED", /transport command/);
});
