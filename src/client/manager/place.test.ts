import assert from "node:assert/strict";
import fs from "node:fs/promises";
import os from "node:os";
import path from "node:path";
import test, { type TestContext } from "node:test";
import { checkPlace, managerSocket, preparePlace } from "./place.ts";

async function folder(t: TestContext): Promise<string> {
  const made = await fs.mkdtemp(path.join(os.tmpdir(), "fived-place-"));
  t.after(() => fs.rm(made, { recursive: true }));
  return made;
}

test("the socket is where the person's runtime folder is, or where FIVED_MANAGER says", () => {
  assert.equal(managerSocket({ XDG_RUNTIME_DIR: "/run/user/7" }), "/run/user/7/fived/manager.sock");
  assert.equal(managerSocket({ FIVED_MANAGER: "/elsewhere/m", XDG_RUNTIME_DIR: "/run/user/7" }), "/elsewhere/m");
  assert.equal(managerSocket({ FIVED_MANAGER: "off", XDG_RUNTIME_DIR: "/run/user/7" }), undefined);
  const own = path.join(os.tmpdir(), `fived-${process.getuid?.()}`, "manager.sock");
  assert.equal(managerSocket({}), own);
  assert.equal(managerSocket({ XDG_RUNTIME_DIR: "relative" }), own);
});

test("FIVED_MANAGER that is neither a path nor off is refused, not passed over", () => {
  for (const wrong of ["on", "relative/path"])
    assert.throws(() => managerSocket({ FIVED_MANAGER: wrong }), { code: "STATE_UNUSABLE", message: /FIVED_MANAGER/ });
});

test("a missing folder is made for us alone", async (t) => {
  const socket = path.join(await folder(t), "fived", "manager.sock");
  await preparePlace(socket);
  assert.equal((await fs.stat(path.dirname(socket))).mode & 0o777, 0o700);
  await checkPlace(socket);
});

test("a folder that others may enter, that is another's, a link or no folder is refused", async (t) => {
  const made = await folder(t);
  await fs.chmod(made, 0o755);
  await assert.rejects(preparePlace(path.join(made, "s")), { code: "STATE_UNUSABLE", message: /others may enter/ });
  await fs.chmod(made, 0o700);
  await fs.symlink(made, path.join(made, "link"));
  await assert.rejects(checkPlace(path.join(made, "link", "s")), { code: "STATE_UNUSABLE", message: /no folder/ });
  await fs.writeFile(path.join(made, "file"), "");
  await assert.rejects(preparePlace(path.join(made, "file", "s")), { code: "STATE_UNUSABLE" });
  await assert.rejects(checkPlace(path.join(made, "missing", "s")), { code: "STATE_UNUSABLE" });
  if (process.getuid?.() === 0) {
    await fs.chown(made, 12_345, 12_345);
    await assert.rejects(checkPlace(path.join(made, "s")), {
      code: "STATE_UNUSABLE",
      message: /belongs to user 12345/,
    });
  }
});
