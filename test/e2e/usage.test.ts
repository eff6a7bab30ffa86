/**
 * What the command line says of itself: version, help, wrong use, completions.
 * @module
 */
import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import fs from "node:fs/promises";
import path from "node:path";
import test from "node:test";
import { promisify } from "node:util";
import { home, repository } from "./command.ts";

const VERBS = ["demo", "serve", "check", "user", "invite", "pam-helper", "list", "connect", "forward", "completion"];

test("--version prints the version of the package", async () => {
  await using mine = await home();
  const { version } = JSON.parse(await fs.readFile(path.join(repository, "package.json"), "utf8"));
  const { code, stdout, stderr } = await mine.fived(["--version"]);
  assert.deepEqual({ code, stdout: stdout.toString(), stderr }, { code: 0, stdout: `${version}\n`, stderr: "" });
});

test("npx fived in the checkout runs the checkout's own command", async () => {
  const { version } = JSON.parse(await fs.readFile(path.join(repository, "package.json"), "utf8"));
  const { stdout } = await promisify(execFile)("npx", ["fived", "--version"], { cwd: repository });
  assert.equal(stdout, `${version}\n`);
});

test("help goes to standard output and names every verb", async () => {
  await using mine = await home();
  const { code, stdout } = await mine.fived(["--help"]);
  assert.equal(code, 0);
  for (const verb of VERBS) assert.match(stdout.toString(), new RegExp(`^ {2}${verb}\\b`, "m"));
});

test("wrong use is said on standard error and ends with 2", async () => {
  await using mine = await home();
  const wrong: readonly (readonly [readonly string[], RegExp])[] = [
    [[], /^Usage: fived/],
    [["nosuch"], /^fived: unknown command 'nosuch'/],
    [["lsit"], /Did you mean list\?/],
    [["list"], /^fived: missing required argument 'address'/],
    [["list", "--nosuch", "localhost"], /^fived: unknown option '--nosuch'/],
    [["list", "localhost", "-o", "Nosuch=1"], /^fived: .*Known are StrictHostKeyChecking=/],
    [
      ["list", "localhost", "-o", "StrictHostKeyChecking=perhaps"],
      /^fived: .*Write StrictHostKeyChecking=yes\|accept-new/,
    ],
    [["connect", "localhost"], /^fived: Cannot connect to localhost: say which service, as in localhost\/echo/],
    [["forward"], /^fived: Cannot forward nothing/],
    [["forward", "x=localhost/web"], /^fived: .*"x" is no place to listen on/],
    [["forward", "0=localhost"], /^fived: Cannot forward to localhost: say which service/],
    [["serve", "-c", "file", "web=3000"], /^fived: Cannot serve a file and targets at once/],
    [["user"], /^Usage: fived user/],
    [["user", "nosuch"], /^fived: unknown command 'nosuch'/],
    [["user", "add"], /^fived: missing required argument 'name'/],
    [["user", "add", "alice", "--password", "secret"], /^fived: unknown option '--password'/],
    [["user", "remove", "alice", "bob"], /^fived: too many arguments/],
    [["invite"], /^fived: missing required argument 'name'/],
    [["invite", "bob", "--expires", "31d"], /^fived: .*Write a duration from 1m to 30d/],
    [["invite", "bob", "--expires", "1e3h"], /^fived: .*Write a duration from 1m to 30d/],
    [["pam-helper"], /^fived: required option '--socket <path>' not specified/],
    [["pam-helper", "--socket"], /^fived: option '--socket <path>' argument missing/],
    [["pam-helper", "/run/x"], /^fived: required option '--socket <path>' not specified/],
    [["completion", "tcsh"], /Allowed choices are bash, zsh, fish/],
  ];
  for (const [args, said] of wrong) {
    const { code, stdout, stderr } = await mine.fived(args);
    assert.match(stderr, said);
    assert.deepEqual({ args, code, stdout: stdout.toString() }, { args, code: 2, stdout: "" });
  }
});

test("fived's own failure ends with 255 and one line that names the value", async () => {
  await using mine = await home();
  const { code, stderr } = await mine.fived(["list", "not an address"]);
  assert.equal(code, 255);
  assert.match(stderr, /^fived: Cannot use the address "not an address": .*\n$/);
  const key = await mine.fived(["list", "localhost", "-i", "/nosuch/key"]);
  assert.equal(key.code, 255);
  const helper = await mine.fived(["pam-helper", "--socket", "x", "--service", "../passwd"]);
  assert.equal(helper.code, 255);
  assert.match(helper.stderr, /^fived: Cannot ask PAM as the service "..\/passwd": expected the name of a file .*\n$/);
  assert.match(key.stderr, /^fived: Cannot use the key file \/nosuch\/key: /);
});

test("bash completes verbs, flags and fixed values", async () => {
  await using mine = await home();
  const { stdout } = await mine.fived(["completion", "bash"]);
  const script = path.join(mine.folder, "completion.bash");
  const asking = `COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _fived; echo "\${COMPREPLY[*]}"`;
  await fs.writeFile(script, `${stdout}\n${asking}\n`);
  const complete = async (...words: readonly string[]) => {
    const answer = await promisify(execFile)("bash", [script, "fived", ...words]);
    return answer.stdout.trim().split(" ");
  };
  assert.deepEqual(await complete("co"), ["connect", "completion"]);
  assert.deepEqual(await complete("completion", ""), ["bash", "zsh", "fish", "-h", "--help"]);
  assert.deepEqual(await complete("serve", "--st"), ["--state"]);
  assert.deepEqual(await complete("user", "re"), ["remove"]);
  assert.deepEqual(await complete("pam-helper", "--s"), ["--socket", "--service"]);
  assert.deepEqual(await complete("user", "add", "alice", "--gr"), ["--group"]);
});

test("zsh and fish get every verb", async () => {
  await using mine = await home();
  for (const shell of ["zsh", "fish"]) {
    const { code, stdout } = await mine.fived(["completion", shell]);
    assert.equal(code, 0);
    for (const verb of VERBS) assert.match(stdout.toString(), new RegExp(`\\b${verb}\\b`));
  }
});
