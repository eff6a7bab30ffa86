/**
 * The package as npm would publish it: what is in it, and that it works in an empty folder where it is the only thing installed.
 * Its dependencies come from npm's cache, where `npm ci` has put them, and otherwise from the registry.
 * @module
 */
import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import fs from "node:fs/promises";
import os from "node:os";
import path from "node:path";
import test, { after, before } from "node:test";
import { promisify } from "node:util";
import { type Package, pack } from "../../scripts/pack.ts";

const repository = path.join(import.meta.dirname, "..", "..");
const run = promisify(execFile);
let folder = "";
let packed: Package;

before(async () => {
  folder = await fs.mkdtemp(path.join(os.tmpdir(), "fived-pack-"));
  packed = await pack(folder);
});
after(() => fs.rm(folder, { recursive: true }));

test("the package holds what its users need, and nothing of its making", () => {
  for (const needed of [
    "bin/fived.js",
    "dist/index.js",
    "dist/index.d.ts",
    "dist/cli/main.js",
    "README.md",
    "LICENSE",
    "CHANGELOG.md",
  ]) {
    assert.ok(packed.files.includes(needed), `${needed} is missing`);
  }
  const unwanted = packed.files.filter((file) =>
    /\.test\.|\.tsbuildinfo$|^(src|test|scripts|bench|node_modules)\//.test(file),
  );
  assert.deepEqual(unwanted, []);
});

test("packing leaves package.json as it was", async () => {
  const copy = path.join(folder, "checkout");
  assert.equal(
    await fs.readFile(path.join(copy, "package.json"), "utf8"),
    await fs.readFile(path.join(repository, "package.json"), "utf8"),
  );
  await assert.rejects(fs.access(path.join(copy, ".package.json.full")), { code: "ENOENT" });
});

test("a packing that was cut short is put right by the next one", async () => {
  const broken = await fs.mkdtemp(path.join(folder, "broken-"));
  await fs.writeFile(path.join(broken, ".package.json.full"), '{ "name": "whole" }');
  await fs.writeFile(path.join(broken, "package.json"), '{ "name": "half" }');
  const manifest = path.join(repository, "scripts", "manifest.ts");
  await run(process.execPath, [manifest, "restore"], { cwd: broken });
  assert.equal(await fs.readFile(path.join(broken, "package.json"), "utf8"), '{ "name": "whole" }');
});

test("installed from its tarball into an empty folder, the command and the library work, without the pinned runtimes", async () => {
  const home = path.join(folder, "home");
  await fs.mkdir(home);
  await fs.writeFile(path.join(home, "package.json"), '{ "name": "home", "private": true, "type": "module" }');
  await run("npm", ["install", "--prefer-offline", "--no-audit", "--no-fund", packed.tarball], { cwd: home });
  const installed = await fs.readdir(path.join(home, "node_modules"));
  assert.deepEqual(
    installed.filter((name) => name.startsWith("node-linux-")),
    [],
  );

  const { version } = JSON.parse(await fs.readFile(path.join(repository, "package.json"), "utf8"));
  const command = path.join(home, "node_modules", ".bin", "fived");
  const { stdout } = await run(process.execPath, [command, "--version"]);
  assert.equal(stdout, `${version}\n`);

  const program =
    'import { connect, serve, service } from "fived"; console.log(typeof connect, typeof serve, typeof service);';
  await fs.writeFile(path.join(home, "program.js"), program);
  const library = await run(process.execPath, ["program.js"], { cwd: home });
  assert.equal(library.stdout, "function function function\n");
});
