import assert from "node:assert/strict";
import { execFileSync, spawn } from "node:child_process";
import { once } from "node:events";
import {
  chmod,
  chown,
  lstat,
  mkdtemp,
  readdir,
  readFile,
  rm,
  stat,
  symlink,
  utimes,
  writeFile,
} from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import test, { type TestContext } from "node:test";
import { needs } from "../../test/support/needs.ts";
import { lockFile, privateFileVersion, readPrivateFile, replacePrivateFile } from "./private-file.ts";

/** Somebody who is nobody here. */
const STRANGER = 61_234;

async function folder(t: TestContext): Promise<string> {
  const made = await mkdtemp(join(tmpdir(), "fived-private-"));
  t.after(() => rm(made, { recursive: true, force: true }));
  return made;
}

test("what is written is read, by its owner alone, and leaves nothing beside it", async (t) => {
  const at = await folder(t);
  const file = join(at, "users");
  assert.equal(await readPrivateFile(file, 100), undefined);
  assert.equal(await privateFileVersion(file), undefined);
  await replacePrivateFile(file, "one");
  const one = await readPrivateFile(file, 100);
  assert.equal(one?.content.toString(), "one");
  assert.equal(one?.version, await privateFileVersion(file));
  assert.equal((await stat(file)).mode & 0o777, 0o600);
  await replacePrivateFile(file, "two");
  assert.notEqual(await privateFileVersion(file), one?.version);
  assert.deepEqual(await readdir(at), ["users"]);
});

test("a file that others may read or replace, that is no plain file, or that is too large is not read", async (t) => {
  const at = await folder(t);
  const file = join(at, "users");
  await writeFile(file, "12345", { mode: 0o600 });
  await assert.rejects(readPrivateFile(file, 4), /it is 5 bytes long, the limit is 4/);
  for (const mode of [0o640, 0o604, 0o620, 0o602, 0o666]) {
    await chmod(file, mode);
    await assert.rejects(
      readPrivateFile(file, 100),
      /others may read or change it \(mode 0[0-7]{3}\); run: chmod 0600/,
    );
  }
  await chmod(file, 0o600);
  await chmod(at, 0o770);
  await assert.rejects(readPrivateFile(file, 100), /others may replace it .*run: chmod 0750/);
  await chmod(at, 0o700);
  await assert.rejects(readPrivateFile(at, 100), /it is no plain file/);
  const link = join(at, "link");
  await symlink(file, link);
  await assert.rejects(readPrivateFile(link, 100), /symbolic link/);
  const fifo = join(at, "fifo");
  execFileSync("mkfifo", ["-m", "600", fifo]);
  await assert.rejects(readPrivateFile(fifo, 100), /it is no plain file/);
});

test("a file that cannot be replaced stays as it was, and nothing is left beside it", async (t) => {
  const at = await folder(t);
  await assert.rejects(replacePrivateFile(join(at, "no", "users"), "x"), /ENOENT/);
  const taken = join(at, "taken");
  execFileSync("mkdir", ["-p", join(taken, "full")]);
  await assert.rejects(replacePrivateFile(taken, "x"));
  assert.deepEqual(await readdir(at), ["taken"]);
});

test("root writes for whoever the folder or the old file belongs to, and reads what is theirs", {
  skip: needs("root"),
}, async (t) => {
  const at = await folder(t);
  await chown(at, STRANGER, STRANGER);
  const file = join(at, "users");
  for (const content of ["one", "two"]) {
    await replacePrivateFile(file, content);
    assert.deepEqual([(await stat(file)).uid, (await stat(file)).gid], [STRANGER, STRANGER]);
    assert.equal((await readPrivateFile(file, 100))?.content.toString(), content);
  }
  await chown(at, 0, 0);
  await assert.rejects(readPrivateFile(file, 100), /it belongs to user 61234, expected a file of user 0/);
});

test("who owns the folder cannot have root write through a link of his", { skip: needs("root") }, async (t) => {
  const [at, roots] = [await folder(t), await folder(t)];
  await chown(at, STRANGER, STRANGER);
  const victim = join(roots, "victim");
  await writeFile(victim, "", { mode: 0o600 });
  const file = join(at, "users");
  await symlink(victim, file);
  await assert.rejects(readPrivateFile(file, 100), /symbolic link/);
  await replacePrivateFile(file, "x");
  assert.equal(await readFile(victim, "utf8"), "");
  assert.ok((await lstat(file)).isFile());
  await symlink(victim, join(at, "users.lock"));
  await assert.rejects(lockFile(join(at, "users.lock"), AbortSignal.abort()), { name: "AbortError" });
});

test("a lock has one holder at a time, in one process and in several", async (t) => {
  const at = await folder(t);
  const count = join(at, "count");
  await writeFile(count, "0");
  const program = `
    const { lockFile } = await import(${JSON.stringify(new URL("./private-file.ts", import.meta.url).href)});
    const { readFile, writeFile } = await import("node:fs/promises");
    await Promise.all(Array.from({ length: 10 }, async () => {
      await using held = await lockFile(${JSON.stringify(`${count}.lock`)});
      const before = Number(await readFile(${JSON.stringify(count)}, "utf8"));
      await new Promise((resolve) => setImmediate(resolve));
      await held.stillHeld();
      await writeFile(${JSON.stringify(count)}, String(before + 1));
    }));`;
  const writers = [0, 1, 2].map(() =>
    spawn(process.execPath, ["--input-type=module", "--eval", program], { stdio: ["ignore", "inherit", "inherit"] }),
  );
  const codes = await Promise.all(writers.map(async (writer) => (await once(writer, "exit"))[0]));
  assert.deepEqual(codes, [0, 0, 0]);
  assert.equal(await readFile(count, "utf8"), "30");
  assert.deepEqual(await readdir(at), ["count"]);
});

test("a lock whose holder has died is broken, once, and the late holder notices", async (t) => {
  const at = await folder(t);
  const path = join(at, "users.lock");
  const late = await lockFile(path);
  await late.stillHeld();
  const longAgo = new Date(Date.now() - 60_000);
  await utimes(path, longAgo, longAgo);
  const waiting = Promise.all(
    [0, 1, 2, 3].map(async () => {
      await using held = await lockFile(path);
      await held.stillHeld();
    }),
  );
  await waiting;
  await assert.rejects(late.stillHeld(), /took .*users\.lock away/);
  await using mine = await lockFile(path);
  await late[Symbol.asyncDispose]();
  await mine.stillHeld(); // the late one did not take it along
});

test("whoever waits for a lock can give up", async (t) => {
  const path = join(await folder(t), "users.lock");
  await using _held = await lockFile(path);
  const giveUp = new AbortController();
  const waiting = lockFile(path, giveUp.signal);
  giveUp.abort();
  await assert.rejects(waiting, { name: "AbortError" });
});
