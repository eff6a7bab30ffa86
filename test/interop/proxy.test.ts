/**
 * `fived proxy` with programs that people have: curl in every way it speaks to a proxy, torsocks, and browsers' names under `.localhost`.
 * @module
 */
import assert from "node:assert/strict";
import { once } from "node:events";
import http from "node:http";
import net from "node:net";
import test, { type TestContext } from "node:test";
import { fived, type Server, serve } from "../support/fived.ts";
import { Lab } from "../support/lab.ts";
import { needs } from "../support/needs.ts";
import type { Program } from "../support/program.ts";

const skip = needs("curl");

interface World {
  readonly lab: Lab;
  readonly server: Server;
  readonly port: number;
  readonly proxy: Program;
}

/** A web server, a session server before it, and the proxy; `manager` says whether the proxy uses one. */
async function world(t: TestContext, args: readonly string[] = [], policies: readonly object[] = []): Promise<World> {
  const lab = await Lab.open(t);
  const web = http.createServer((request, response) => {
    request.setEncoding("utf8");
    let body = "";
    request.on("data", (part) => {
      body += part;
    });
    request.on("end", () => response.end(`${request.method} ${request.headers.host} ${request.url} ${body}\n`));
  });
  web.on("upgrade", (_, socket) => {
    socket.write("HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: echo\r\n\r\n");
    socket.pipe(socket);
    socket.on("error", () => {}); // whoever is asked leaves without a word
  });
  web.listen(0, "127.0.0.1");
  await once(web, "listening");
  lab.defer(async () => {
    web.closeAllConnections();
    web.close();
  });
  const webPort = (web.address() as net.AddressInfo).port;
  const server = await serve(lab, {
    services: { web: { to: `tcp://127.0.0.1:${webPort}` }, down: { to: "tcp://127.0.0.1:1" }, cat: { exec: ["cat"] } },
  });
  const folder = lab.path("config", "fived");
  await lab.run(["mkdir", "-p", folder]);
  await lab.write("config/fived/config.yaml", JSON.stringify({ names: { lab: server.address }, policies }));
  const proxy = lab.start(fived("proxy", "--listen", "0", "-o", "StrictHostKeyChecking=accept-new", ...args));
  const [, port = ""] = await proxy.hears(/^fived: SOCKS and HTTP on 127\.0\.0\.1:(\d+)\n/);
  return { lab, server, port: Number(port), proxy };
}

async function curl(
  { lab }: World,
  ...args: readonly string[]
): Promise<{ readonly status: number; readonly out: string }> {
  const { status, stdout } = await lab.run(["curl", "-sS", "-m", "20", ...args]);
  return { status, out: stdout.toString() };
}

test("curl reaches a service through SOCKS 5, 4a, CONNECT, a proxied GET, and the name alone", { skip }, async (t) => {
  const here = await world(t);
  const { port } = here;
  const url = "http://web.lab.localhost/a?b";
  for (const proxy of ["socks5h", "socks4a", "http"])
    assert.equal(
      (await curl(here, "-x", `${proxy}://127.0.0.1:${port}`, url)).out,
      "GET web.lab.localhost /a?b \n",
      proxy,
    );
  const tunnelled = await curl(here, "-p", "-x", `http://127.0.0.1:${port}`, url);
  assert.equal(tunnelled.out, "GET web.lab.localhost /a?b \n");
  const posted = await curl(here, "-x", `http://127.0.0.1:${port}`, "-d", "some body", url);
  assert.equal(posted.out, "POST web.lab.localhost /a?b some body\n");
  const named = await curl(here, `http://web.lab.localhost:${port}/named`);
  assert.equal(named.out, `GET web.lab.localhost:${port} /named \n`);
  const withUser = await curl(here, "-x", `socks5h://me:secret@127.0.0.1:${port}`, url);
  assert.equal(withUser.out, "GET web.lab.localhost /a?b \n");
});

test("what fails is the reply that fits: refused, unknown, by a policy, and no place to go", { skip }, async (t) => {
  const here = await world(t, [], [{ match: "ads.example", policy: "refuse" }]);
  const socks = `socks5h://127.0.0.1:${here.port}`;
  const web = `http://127.0.0.1:${here.port}`;
  const status = async (...args: readonly string[]): Promise<string> =>
    (await curl(here, "-o", "/dev/null", "-w", "%{http_code}", ...args)).out;
  assert.equal((await curl(here, "-x", socks, "http://down.lab.localhost/")).status, 97);
  assert.equal((await curl(here, "-x", socks, "http://absent.lab.localhost/")).status, 97);
  assert.equal((await curl(here, "-x", socks, "http://ads.example/")).status, 97);
  assert.equal(await status("-x", web, "http://down.lab.localhost/"), "502");
  assert.equal(await status("-x", web, "http://ads.example/"), "403");
  assert.equal(await status(`${web}/`), "400");
  assert.match((await curl(here, "-x", web, "http://absent.lab.localhost/")).out, /absent/);
  await here.proxy.logs(/ads\.example:80: Cannot connect to ads\.example:80: a policy/);
});

test("session-or-direct goes directly where no session server is, and never past one that refuses", {
  skip,
}, async (t) => {
  const here = await world(t, [], [{ match: "127.0.0.1", policy: "session-or-direct" }]);
  const plain = http.createServer((_, response) => response.end("direct\n"));
  plain.listen(0, "127.0.0.1");
  await once(plain, "listening");
  t.after(() => plain.close());
  const { port } = plain.address() as net.AddressInfo;
  const socks = `socks5h://127.0.0.1:${here.port}`;
  // Nothing listens at the session layer's own port of this computer; where something does, this test cannot be made.
  assert.equal((await curl(here, "-x", socks, `http://127.0.0.1:${port}/`)).out, "direct\n");
  const other = await curl(here, "-x", socks, `http://127.0.0.2:${port}/`);
  assert.equal(other.status, 97, "a host that no rule names is for a session alone");
});

test("bytes pass both ways at once, each direction ends by itself, and another protocol may follow HTTP", async (t) => {
  const here = await world(t);
  const socket = net.connect({ port: here.port, host: "127.0.0.1", allowHalfOpen: true });
  // CONNECT, and what is for the service in the same packet, and the end.
  socket.end("CONNECT cat.lab.localhost:7 HTTP/1.1\r\nhost: x\r\n\r\nearly words");
  socket.setEncoding("utf8");
  let said = "";
  for await (const part of socket) said += part;
  assert.equal(said, "HTTP/1.1 200 OK\r\n\r\nearly words");

  const upgrade = http.request({
    port: here.port,
    headers: { host: `web.lab.localhost:${here.port}`, connection: "upgrade", upgrade: "echo" },
  });
  upgrade.end();
  const [, echo] = (await once(upgrade, "upgrade")) as [unknown, net.Socket];
  echo.write("over and over");
  assert.equal(String((await once(echo, "data"))[0]), "over and over");
  echo.destroy();
});

test("Tor's question for a name gets an address that leads there", async (t) => {
  const here = await world(t);
  const ask = async (...octets: readonly Buffer[]): Promise<Buffer> => {
    const socket = net.connect(here.port, "127.0.0.1");
    socket.write(Buffer.concat([Buffer.of(5, 1, 0), ...octets]));
    const parts: Buffer[] = [];
    socket.on("data", (part) => parts.push(part));
    await once(socket, "end");
    return Buffer.concat(parts).subarray(2);
  };
  const name = "cat.lab.localhost";
  const resolved = await ask(Buffer.of(5, 0xf0, 0, 3, name.length), Buffer.from(name), Buffer.of(0, 0));
  assert.equal(resolved.toString("hex"), "05000001c61200010000");
  const back = await ask(Buffer.of(5, 0xf1, 0, 1, 198, 18, 0, 1, 0, 0));
  assert.equal(back.toString("latin1", 5, 5 + name.length), name);
  const unknown = await ask(Buffer.of(5, 0xf1, 0, 1, 198, 18, 0, 9, 0, 0));
  assert.equal(unknown[1], 4);
  const socket = net.connect({ port: here.port, host: "127.0.0.1", allowHalfOpen: true });
  socket.end(Buffer.concat([Buffer.of(5, 1, 0, 5, 1, 0, 1, 198, 18, 0, 1, 0, 7), Buffer.from("by address")]));
  const parts: Buffer[] = [];
  for await (const part of socket) parts.push(part);
  assert.equal(Buffer.concat(parts).toString("latin1", 12), "by address");
});

test("through the session manager it is the same", { skip }, async (t) => {
  const lab = await Lab.open(t);
  const env = { FIVED_MANAGER: lab.path("run", "manager.sock") };
  lab.defer(async () => void (await lab.run(fived("down"), { env })));
  const server = await serve(lab, { services: { hello: { exec: ["echo", "hello"] } } });
  const args = ["--listen", "0", "--name", `lab=${server.address}`, "-o", "StrictHostKeyChecking=accept-new"];
  const proxy = lab.start(fived("proxy", ...args), { env });
  const [, port = ""] = await proxy.hears(/on 127\.0\.0\.1:(\d+)\n/);
  const said = async (): Promise<string> => {
    const { stdout } = await lab.run([
      "curl",
      "-sS",
      "-m",
      "20",
      "-x",
      `socks5h://127.0.0.1:${port}`,
      "telnet://hello.lab.localhost:23",
    ]);
    return stdout.toString();
  };
  assert.equal(await said(), "hello\n");
  const status = JSON.parse((await lab.run(fived("status", "--json"), { env })).stdout.toString());
  assert.equal(status.sessions.length, 1);
  // A manager that has ended is followed by another.
  process.kill(status.pid, "SIGKILL");
  assert.equal(await said(), "hello\n");
});
