/**
 * The protocol typed by a person: with netcat in plaintext on loopback, with openssl inside TLS. What is typed here is what the paper and
 * the documentation show, and nothing but the terminal's part is ours.
 * @module
 */
import assert from "node:assert/strict";
import fs from "node:fs/promises";
import test, { type TestContext } from "node:test";
import { eventually } from "../support/deadline.ts";
import { connect, serve } from "../support/fived.ts";
import { Lab } from "../support/lab.ts";
import { needs } from "../support/needs.ts";
import { startNginx } from "../support/nginx.ts";
import type { Program } from "../support/program.ts";

const netcat = needs("nc");
const openssl = needs("openssl");

test("the paper's LIST, typed over netcat: built-in words in capitals, then the services, then an empty line", {
  skip: netcat,
}, async (t) => {
  const { nc } = await table(t);
  const person = nc();
  person.says("LIST\n");
  const [listing] = await person.hears(/^(?:\S+\r\n)+\r\n/);
  const names = listing.trimEnd().split("\r\n");
  assert.deepEqual(names.slice(0, 5), ["LIST", "HELP", "TLS", "MULTIPLEX", "HOST"]);
  assert.deepEqual(
    names.filter((name) => name !== name.toUpperCase()),
    ["greet", "echo", "count", "keep"],
  );
});

test("LIST of one name, HOST, and an unknown service, in one conversation over netcat", { skip: netcat }, async (t) => {
  const { nc } = await table(t);
  const person = nc();
  person.says("LIST greet\n");
  await person.hears(/^greet\r\n\r\n/);
  person.says("list GREET\n");
  await person.hears(/^greet\r\n\r\n/);
  person.says("HOST other.example.test\n");
  await person.hears(/^\+ SUCCESS\r\n/);
  person.says("HOST nowhere.example.test\n");
  await person.hears(/^- 404 [ -~]+\r\n/);
  person.says("LIST elsewhere\n");
  await person.hears(/^elsewhere\r\n\r\n/);
  person.says("greet\n");
  assert.match(await closing(person), /^- 404 [ -~]+\r\n$/);
  assert.equal(await person.ended, 0);
});

test("HELP over netcat lists and hangs up", { skip: netcat }, async (t) => {
  const { nc } = await table(t);
  const person = nc();
  person.says("HELP\n");
  assert.match(await closing(person), /^LIST\r\nHELP\r\n(?:\S+\r\n)*\r\n$/);
  assert.equal(await person.ended, 0);
});

test("a service over netcat is the person's until it ends; nothing typed is a command any more", {
  skip: netcat,
}, async (t) => {
  const { nc } = await table(t);
  const person = nc("-N");
  person.says("echo\n");
  await person.hears(/^\+ SUCCESS\r\n/);
  person.says("LIST\n");
  await person.hears(/^LIST\r\n$/);
  assert.equal(await closing(person), "");
  assert.equal(await person.ended, 0);
});

test("another protocol on our port gets one refusal and no service", { skip: netcat }, async (t) => {
  const { nc } = await table(t);
  const browser = nc();
  browser.says("GET / HTTP/1.1\nHost: 127.0.0.1\n\n");
  assert.match(await closing(browser), /^- 500 [ -~]+\r\n$/);
});

test("TLS over netcat: the server says + and waits for a handshake, and what is none ends the connection", {
  skip: netcat,
}, async (t) => {
  const { nc } = await table(t);
  const person = nc();
  person.says("TLS\n");
  await person.hears(/^\+ SUCCESS\r\n/);
  person.says("greet\n");
  // At most an alert, in octets that nobody types; never the service.
  assert.doesNotMatch(await closing(person), /\+ SUCCESS|hello/);
});

test("a web page by hand: the name of the service, then HTTP", { skip: netcat || needs("nginx") }, async (t) => {
  const lab = await Lab.open(t);
  const nginx = await startNginx(lab);
  const server = await serve(lab, { services: { web: { to: `tcp://127.0.0.1:${nginx.port}` } } });
  const person = lab.start(["nc", "-C", "127.0.0.1", `${server.port}`]);
  person.says("web\n");
  await person.hears(/^\+ SUCCESS\r\n/);
  person.says("GET / HTTP/1.0\n\n");
  assert.match(await closing(person), /^HTTP\/1\.1 200 OK\r\n.*\r\n\r\nsite one\n$/s);
});

test("LIST and a service typed inside TLS, over openssl", { skip: openssl }, async (t) => {
  const { tls } = await table(t);
  const person = tls();
  person.says("LIST\n");
  await person.hears(/^LIST\r\n(?:\S+\r\n)*greet\r\n(?:\S+\r\n)*\r\n/);
  person.says("greet\n");
  assert.equal(await closing(person), "+ SUCCESS\r\nhello\n");
  assert.equal(await person.ended, 0);
});

test("a conversation with a service inside TLS, over openssl", { skip: openssl }, async (t) => {
  const { tls } = await table(t);
  const person = tls();
  person.says("echo\n");
  await person.hears(/^\+ SUCCESS\r\n/);
  for (const line of ["one", "Q", "R", "two"]) {
    person.says(`${line}\n`);
    await person.hears(new RegExp(`^${line}\r\n`));
  }
});

test("when openssl ends its half of TLS, the service hears the end of its input", { skip: openssl }, async (t) => {
  const { lab, tls } = await table(t);
  const person = tls("-no_ign_eof");
  person.says("keep\n");
  await person.hears(/^\+ SUCCESS\r\n/);
  person.says("last words\n");
  person.hangsUp();
  assert.equal(await person.ended, 0);
  const kept = () => fs.readFile(lab.path("kept"), "utf8");
  assert.equal(await eventually(kept, "the service to have heard the end"), "last words\r\n");
});

test("openssl without ALPN is disconnected before a line is read", { skip: openssl }, async (t) => {
  const { lab, server } = await table(t);
  const stranger = lab.start(["openssl", "s_client", "-connect", server.address, "-crlf", "-nocommands", "-quiet"]);
  stranger.says("LIST\ngreet\n");
  assert.equal(await stranger.rest(), "");
});

test("openssl with another protocol in ALPN is refused in the handshake", { skip: openssl }, async (t) => {
  const { lab, server } = await table(t);
  const command = ["openssl", "s_client", "-connect", server.address, "-alpn", "h2,http/1.1"];
  const { status, stderr } = await lab.run(command);
  assert.equal(status, 1);
  assert.match(stderr, /alert no application protocol/);
});

test("a client that knows no TLS newer than 1.2 is refused in the handshake", { skip: openssl }, async (t) => {
  const { lab, server } = await table(t);
  const command = ["openssl", "s_client", "-connect", server.address, "-alpn", "fived/1", "-tls1_2"];
  const { status, stderr } = await lab.run(command);
  assert.equal(status, 1);
  assert.match(stderr, /alert protocol version/);
});

test("what people typed has cost nobody else anything: our own client is served as before", {
  skip: netcat || openssl,
}, async (t) => {
  const { lab, server, nc, tls } = await table(t);
  for (const person of [nc(), tls()]) {
    person.says("NONSENSE?\n");
    assert.match(await closing(person), /^- 501 [ -~]+\r\n$/);
  }
  const { text, status } = await connect(lab, server.address, "greet");
  assert.equal(text, "hello\n");
  assert.equal(status, 0);
});

/** A server with a few services, and a person who may sit down before netcat or openssl. */
async function table(t: TestContext) {
  const lab = await Lab.open(t);
  const server = await serve(lab, {
    services: {
      greet: { exec: ["echo", "hello"] },
      echo: { exec: ["cat"] },
      count: { exec: ["wc", "-c"] },
      // Whole or not at all: the file is there when the input has ended.
      keep: { exec: ["sh", "-c", `cat >${lab.path("part")} && mv ${lab.path("part")} ${lab.path("kept")}`] },
    },
    hosts: { "other.example.test": { services: { elsewhere: { exec: ["echo", "elsewhere"] } } } },
  });
  return {
    lab,
    server,
    nc: (...options: readonly string[]): Program => lab.start(["nc", "-C", ...options, "127.0.0.1", `${server.port}`]),
    tls: (...options: readonly string[]): Program =>
      lab.start([
        ...["openssl", "s_client", "-connect", server.address, "-alpn", "fived/1"],
        ...["-crlf", "-nocommands", "-quiet", ...options],
      ]),
  };
}

/** What is said until the server closes. netcat stays for the person until she has nothing more to say, but it leaves only with the server. */
function closing(person: Program): Promise<string> {
  person.hangsUp();
  return person.rest();
}
