import assert from "node:assert/strict";
import { generateKeyPairSync } from "node:crypto";
import fs from "node:fs/promises";
import path from "node:path";
import test, { type TestContext } from "node:test";
import { Lab } from "../../../test/support/lab.ts";
import { needs } from "../../../test/support/needs.ts";
import { publicKeyOf } from "../../identity/index.ts";
import { KEYS_BYTES_MAX } from "./authorized-keys.ts";
import { keyFiles } from "./key-files.ts";

function newKey(): string {
  const key = publicKeyOf(generateKeyPairSync("ed25519").publicKey);
  assert.ok(key);
  return `${key.type} ${Buffer.from(key.blob).toString("base64")}\n`;
}

async function setUp(t: TestContext) {
  const lab = await Lab.open(t);
  const folder = await lab.makeFolder("keys");
  const logged: string[] = [];
  const keysOf = keyFiles(path.join(folder, "%u.pub"), { log: (line) => void logged.push(line) });
  const count = async (name: string) => (await keysOf(name)).logins.size;
  return { lab, folder, logged, count, file: path.join(folder, "alice.pub") };
}

test("keys are read from the file of the user, and again when it has changed", async (t) => {
  const { file, count, logged } = await setUp(t);
  assert.equal(await count("alice"), 0, "no file");
  await fs.writeFile(file, newKey(), { mode: 0o644 });
  assert.equal(await count("alice"), 1);
  assert.equal(await count("bob"), 0);
  await fs.appendFile(file, newKey());
  assert.equal(await count("alice"), 2);
  await fs.writeFile(file, "rubbish\n");
  assert.equal(await count("alice"), 0);
  assert.equal(await count("alice"), 0);
  assert.deepEqual(logged.length, 1, "said once for each version of the file");
  assert.match(logged[0] ?? "", /^Line 1 of .*alice\.pub grants nothing: /);
  await fs.rm(file);
  assert.equal(await count("alice"), 0);
});

test("a file that others could have written counts for nothing, and counts again when that is mended", async (t) => {
  const { file, folder, count, logged } = await setUp(t);
  await fs.writeFile(file, newKey());
  for (const [what, bad, good] of [
    [file, 0o664, 0o644],
    [file, 0o646, 0o600],
    [folder, 0o777, 0o755],
    [folder, 0o775, 0o700],
    [path.dirname(folder), 0o777, 0o711],
  ] as const) {
    await fs.chmod(what, bad);
    assert.equal(await count("alice"), 0, `${what} ${bad.toString(8)}`);
    assert.match(logged.at(-1) ?? "", /others may write/);
    await fs.chmod(what, good);
    assert.equal(await count("alice"), 1, `${what} ${good.toString(8)}`);
  }
  // Where the sticky bit is set, as in /tmp, others cannot replace what is there.
  await fs.chmod(folder, 0o1777);
  assert.equal(await count("alice"), 1);
});

test("a folder of somebody else's on the way counts for nothing", { skip: needs("root") }, async (t) => {
  const { file, folder, count, logged } = await setUp(t);
  await fs.writeFile(file, newKey());
  await fs.chown(file, 12_345, 12_345);
  assert.equal(await count("alice"), 1, "the user's own");
  await fs.chown(folder, 12_345, 12_345);
  assert.equal(await count("alice"), 1, "in the user's own");
  await fs.chown(folder, 54_321, 12_345);
  assert.equal(await count("alice"), 0);
  assert.match(logged.at(-1) ?? "", /belongs to somebody else/);
});

test("what is no file of keys counts for nothing, and holds nobody up", async (t) => {
  const { lab, file, count, logged } = await setUp(t);
  await fs.mkdir(file);
  assert.equal(await count("alice"), 0);
  assert.match(logged.at(-1) ?? "", /not a regular file/);
  await fs.rmdir(file);
  assert.equal((await lab.run(["mkfifo", file])).status, 0);
  assert.equal(await count("alice"), 0);
  await fs.rm(file);
  await fs.writeFile(file, newKey() + "#".repeat(KEYS_BYTES_MAX));
  assert.equal(await count("alice"), 0);
  assert.match(logged.at(-1) ?? "", /larger than/);
});

test("a link counts by what it leads to", async (t) => {
  const { lab, file, count, logged } = await setUp(t);
  const open = await lab.makeFolder("open");
  await fs.writeFile(path.join(open, "keys"), newKey());
  await fs.symlink(path.join(open, "keys"), file);
  assert.equal(await count("alice"), 1);
  await fs.chmod(open, 0o777);
  assert.equal(await count("alice"), 0);
  assert.match(logged.at(-1) ?? "", /others may write in .*open/);
  await fs.rm(path.join(open, "keys"));
  assert.equal(await count("alice"), 0, "a link that leads nowhere");
});

test("a pattern that is one file for everybody, or no absolute path, is refused at once", () => {
  const log = () => {};
  for (const pattern of ["/etc/keys", "keys/%u", "/etc/%h/keys/%u", "/etc/%%u", "/etc/%u/%", ""])
    assert.throws(() => keyFiles(pattern, { log }), /%u/, pattern);
  keyFiles("/etc/100%%/%u/keys", { log });
});
