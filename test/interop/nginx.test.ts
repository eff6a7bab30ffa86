/**
 * The web through a session: curl, which knows nothing of fived, fetches from nginx, which knows nothing of it either.
 * @module
 */
import assert from "node:assert/strict";
import fs from "node:fs/promises";
import path from "node:path";
import test, { type TestContext } from "node:test";
import { hashOfFile, writeBulk } from "../support/bulk.ts";
import { forward, serve } from "../support/fived.ts";
import { Lab } from "../support/lab.ts";
import { needs } from "../support/needs.ts";
import { startNginx } from "../support/nginx.ts";

const skip = needs("nginx", "curl");

test("curl fetches a small page through a forward", { skip }, async (t) => {
  const { url, curl } = await website(t);
  assert.equal(await curl(`${url}/`), "site one\n");
});

test("curl keeps one forwarded connection alive for several requests", { skip }, async (t) => {
  const { url, curl } = await website(t);
  const made = await curl("-w", "%{num_connects} ", ...[1, 2, 3].flatMap(() => ["-o", "/dev/null", `${url}/`]));
  assert.equal(made, "1 0 0 ");
});

test("the virtual hosts of HTTP stay apart: what curl says in Host reaches nginx", { skip }, async (t) => {
  const { port, curl } = await website(t);
  const named = (name: string) => curl("--resolve", `${name}:${port}:127.0.0.1`, `http://${name}:${port}/`);
  assert.equal(await named("one.test"), "site one\n");
  assert.equal(await named("two.test"), "site two\n");
});

test("100 MB come down as they are", { skip }, async (t) => {
  const { lab, url, root, curl } = await website(t);
  const hash = await writeBulk(path.join(root, "bulk"), 100);
  await curl("-o", lab.path("down"), `${url}/bulk`);
  assert.equal(await hashOfFile(lab.path("down")), hash);
});

test("50 MB go up as they are", { skip }, async (t) => {
  const { lab, url, root, curl } = await website(t);
  const hash = await writeBulk(lab.path("up"), 50);
  const status = await curl("-T", lab.path("up"), "-w", "%{http_code}", `${url}/upload/bulk`);
  assert.equal(status, "201");
  assert.equal(await hashOfFile(path.join(root, "upload", "bulk")), hash);
});

test("forty downloads at once arrive whole, though one anonymous session may have only eight streams", {
  skip,
}, async (t) => {
  const { lab, url, root, curl } = await website(t);
  const hash = await writeBulk(path.join(root, "piece"), 1);
  await lab.makeFolder("got");
  await curl(
    "--parallel",
    "--parallel-immediate",
    "--parallel-max",
    "40",
    "-o",
    lab.path("got", "#1"),
    `${url}/piece?[1-40]`,
  );
  const got = await fs.readdir(lab.path("got"));
  assert.equal(got.length, 40);
  const hashes = await Promise.all(got.map((name) => hashOfFile(lab.path("got", name))));
  assert.deepEqual(new Set(hashes), new Set([hash]));
});

/** nginx as the service `web`, a forward to it, and curl. */
async function website(t: TestContext) {
  const lab = await Lab.open(t);
  const nginx = await startNginx(lab);
  const server = await serve(lab, { services: { web: { to: `tcp://127.0.0.1:${nginx.port}` } } });
  const [port] = await forward(lab, server, "web");
  return {
    lab,
    port,
    root: nginx.root,
    url: `http://127.0.0.1:${port}`,
    async curl(...args: readonly string[]): Promise<string> {
      const { status, stdout, stderr } = await lab.run(["curl", "-sS", "--fail", "-q", ...args]);
      assert.equal(status, 0, stderr);
      return stdout.toString();
    },
  };
}
