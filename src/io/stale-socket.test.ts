import assert from "node:assert/strict";
import { once } from "node:events";
import fs from "node:fs/promises";
import { createServer } from "node:net";
import os from "node:os";
import path from "node:path";
import test from "node:test";
import { removeStale } from "./stale-socket.ts";

test("a socket that nobody answers goes, and nothing else does", async (t) => {
  const folder = await fs.mkdtemp(path.join(os.tmpdir(), "fived-stale-"));
  t.after(() => fs.rm(folder, { recursive: true, force: true }));
  const [live, stale, file, link] = ["live", "stale", "file", "link"].map((name) => path.join(folder, name));
  assert.ok(live && stale && file && link);
  const server = createServer((socket) => void socket.destroy()).listen(live);
  await once(server, "listening");
  // A second name outlives the socket, which its maker removes by the first.
  const dead = createServer().listen(path.join(folder, "first"));
  await once(dead, "listening");
  await fs.link(path.join(folder, "first"), stale);
  await new Promise((closed) => dead.close(closed));
  await fs.writeFile(file, "somebody's");
  await fs.symlink(stale, link);
  for (const each of [live, file, link, stale, path.join(folder, "none")]) await removeStale(each);
  assert.deepEqual((await fs.readdir(folder)).sort(), ["file", "link", "live"]);
  assert.equal(await fs.readFile(file, "utf8"), "somebody's");
  await new Promise((closed) => server.close(closed));
});
