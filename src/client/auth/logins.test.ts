import assert from "node:assert/strict";
import fs from "node:fs/promises";
import os from "node:os";
import path from "node:path";
import test from "node:test";
import { loginsIn } from "./logins.ts";

test("what another process has written is seen at once, though the file is not read for every question", async (t) => {
  const folder = await fs.mkdtemp(path.join(os.tmpdir(), "fived-logins-"));
  t.after(() => fs.rm(folder, { recursive: true }));
  const file = path.join(folder, "logins.yaml");
  const [ours, another] = [loginsIn(file), loginsIn(file)];
  assert.equal((await ours.find("a.example")).user, undefined);
  for (const user of ["alice", "bob", "carol"]) {
    await another.keep("a.example", user, { mechanism: "up", host: "", ahead: false }, "stay");
    assert.equal((await ours.find("a.example")).user, user);
  }
  await fs.rm(file);
  assert.equal((await ours.find("a.example")).user, undefined);
});
