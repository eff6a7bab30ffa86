/**
 * TCPMUX, RFC 1078, which the paper's protocol descends from: our server with a client that speaks nothing else, and our client with
 * inetutils-inetd, which was written long before us.
 * @module
 */
import assert from "node:assert/strict";
import net from "node:net";
import { text } from "node:stream/consumers";
import test, { type TestContext } from "node:test";
import { within } from "../support/deadline.ts";
import { client, serve } from "../support/fived.ts";
import { type Inetd, startInetd } from "../support/inetd.ts";
import { Lab } from "../support/lab.ts";
import { needs } from "../support/needs.ts";

const skip = needs("inetutils-inetd", "namespaces", "ip", "nsenter");

test("a client of RFC 1078 is served: name CRLF, a line that begins with +, then the service", async (t) => {
  const ask = await ourServer(t);
  const answer = await ask("greet\r\n");
  assert.match(answer, /^\+[ -~]*\r\nhello\n$/);
});

test("service names are not case sensitive, as RFC 1078 has it", async (t) => {
  const ask = await ourServer(t);
  for (const name of ["GREET", "Greet", "gReEt"]) assert.match(await ask(`${name}\r\n`), /^\+[ -~]*\r\nhello\n$/, name);
});

test("an unknown service gets one line that begins with -, and then the connection ends", async (t) => {
  const ask = await ourServer(t);
  assert.match(await ask("nosuch\r\n"), /^-[ -~]*\r\n$/);
});

test("HELP lists the services, one a line, and then the connection ends", async (t) => {
  const ask = await ourServer(t);
  for (const help of ["HELP\r\n", "help\r\n"]) {
    const names = (await ask(help)).split("\r\n");
    assert.ok(names.includes("greet") && names.includes("count"), names.join());
  }
});

test("what the client sends behind the name belongs to the service, and so does its end", async (t) => {
  const ask = await ourServer(t);
  assert.match(await ask("count\r\n12345", "end"), /^\+[ -~]*\r\n5\n$/);
});

test("our client uses a service that inetd answers + for", { skip }, async (t) => {
  const { lab, inetd } = await theirServer(t);
  const { status, stdout, stderr } = await lab.run(asked(inetd, "today"));
  assert.equal(status, 0, stderr);
  assert.match(stdout.toString(), /^20\d\d-\d\d-\d\d\n$/);
});

test("our client uses a service that says its own +", { skip }, async (t) => {
  const { lab, inetd } = await theirServer(t);
  const { status, stdout, stderr } = await lab.run(asked(inetd, "daytime"));
  assert.equal(status, 0, stderr);
  assert.equal(stdout.toString(), "the time of day\n");
});

test("what our client pipes in reaches a service of inetd whole, and its end too", { skip }, async (t) => {
  const { lab, inetd } = await theirServer(t);
  const { status, stdout, stderr } = await lab.run(asked(inetd, "count"), { input: Buffer.alloc(1_000_000) });
  assert.equal(status, 0, stderr);
  assert.equal(stdout.toString(), "1000000\n");
});

test("our client reports a refusal of inetd, by inetd itself or by a service, and exits with 255", {
  skip,
}, async (t) => {
  const { lab, inetd } = await theirServer(t);
  for (const [name, reason] of [
    ["nosuch", /nosuch.*Service not available/],
    ["closed", /closed.*come back tomorrow/],
  ] as const) {
    const { status, stdout, stderr } = await lab.run(asked(inetd, name));
    assert.equal(status, 255, stderr);
    assert.equal(stdout.toString(), "");
    assert.match(stderr, reason);
  }
});

/** Our server on plain loopback, and a client of RFC 1078: what came back until the server ended. */
async function ourServer(t: TestContext): Promise<(request: string, then?: "end") => Promise<string>> {
  const lab = await Lab.open(t);
  const { port } = await serve(lab, {
    services: { greet: { exec: ["echo", "hello"] }, count: { exec: ["wc", "-c"] } },
  });
  return async (request, then) => {
    const socket = net.connect({ port, host: "127.0.0.1", allowHalfOpen: true });
    try {
      socket.write(request);
      if (then === "end") socket.end();
      return await within(text(socket), `the end of the answer to ${request.trim()}`);
    } finally {
      socket.destroy();
    }
  };
}

async function theirServer(t: TestContext) {
  const lab = await Lab.open(t);
  const inetd = await startInetd(lab, [
    "tcpmux/+today stream tcp nowait root /bin/date date +%F",
    "tcpmux/daytime stream tcp nowait root /bin/sh sh -c \"printf '+here it comes\\r\\n'; echo the time of day\"",
    "tcpmux/+count stream tcp nowait root /usr/bin/wc wc -c",
    "tcpmux/closed stream tcp nowait root /bin/echo echo -e -come back tomorrow\\r",
  ]);
  return { lab, inetd };
}

/** Our client in the network of inetd, set to what a server of RFC 1078 understands. */
function asked(inetd: Inetd, service: string): readonly string[] {
  return inetd.inside(client("connect", "-o", "Tls=off", "-o", "Pipeline=no", inetd.address, service));
}
