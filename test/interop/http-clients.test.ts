/**
 * HTTP over services with what Node's programs use: `http.request` with {@link FivedAgent}, undici's `fetch` with {@link fivedConnector}, and an
 * `http.Server` that listens for a name.
 * @module
 */
import assert from "node:assert/strict";
import { once } from "node:events";
import http from "node:http";
import { text } from "node:stream/consumers";
import test, { type TestContext } from "node:test";
import { type ConnectOptions, FivedAgent, FivedError, fivedConnector } from "../../src/index.ts";
import { serve } from "../support/fived.ts";
import { Lab } from "../support/lab.ts";

const MODULE = `import { createServer } from "node:http";
import { listen, visitorOf } from "fived";
const server = createServer((request, response) => {
  if (request.url === "/big") return void response.end("x".repeat(1_000_000));
  response.end(\`\${request.method} \${request.headers.host} \${request.url} \${visitorOf(request)?.user}\\n\`);
});
export default listen("web", server);
`;

async function web(t: TestContext): Promise<{ readonly address: string; readonly connect: ConnectOptions }> {
  const lab = await Lab.open(t);
  const file = await lab.write("web.ts", MODULE);
  const { address } = await serve(lab, { services: { web: { module: file } } });
  return { address, connect: { knownHosts: lab.path("known_hosts"), strictHostKeyChecking: "accept-new" } };
}

async function get(agent: http.Agent, path: string): Promise<string> {
  const [response] = (await once(http.get(`http://wiki${path}`, { agent }), "response")) as [http.IncomingMessage];
  return await text(response);
}

test("http.request with a FivedAgent: one after the other, many at once, and a body of a megabyte", async (t) => {
  const { address, connect } = await web(t);
  const agent = new FivedAgent(address, "web", { connect });
  t.after(() => agent.destroy());
  assert.equal(await get(agent, "/one"), "GET wiki /one undefined\n");
  assert.equal(await get(agent, "/two"), "GET wiki /two undefined\n");
  const many = await Promise.all(Array.from({ length: 20 }, (_, index) => get(agent, `/${index}`)));
  assert.deepEqual(
    many,
    Array.from({ length: 20 }, (_, index) => `GET wiki /${index} undefined\n`),
  );
  assert.equal((await get(agent, "/big")).length, 1_000_000);
});

test("a service that is not there is the error of the request", async (t) => {
  const { address, connect } = await web(t);
  const agent = new FivedAgent(address, "absent", { connect });
  t.after(() => agent.destroy());
  await assert.rejects(get(agent, "/"), (error) => error instanceof FivedError && error.code === "SERVICE_REFUSED");
});

test("what undici asks of a connector it gets: fetch", async (t) => {
  const { address, connect } = await web(t);
  const { Agent, fetch } = await import("undici");
  const dispatcher = new Agent({ connect: fivedConnector(address, "web", connect) });
  t.after(() => dispatcher.destroy());
  const response = await fetch("http://wiki/fetched", { dispatcher });
  assert.equal(await response.text(), "GET wiki /fetched undefined\n");
  const big = await fetch("http://wiki/big", { dispatcher });
  assert.equal((await big.text()).length, 1_000_000);
});
