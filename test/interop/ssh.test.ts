/**
 * ssh with `fived connect` as its ProxyCommand, and what people run over ssh: commands, terminals, scp, sftp, git.
 * @module
 */
import assert from "node:assert/strict";
import fs from "node:fs/promises";
import test, { type TestContext } from "node:test";
import { hashOfFile, writeBulk } from "../support/bulk.ts";
import { client, serve } from "../support/fived.ts";
import { Lab } from "../support/lab.ts";
import { needs } from "../support/needs.ts";
import { startSshd } from "../support/sshd.ts";

const skip = needs("sshd", "ssh", "scp", "unshare");

test("ssh runs a command: input, output, errors and exit status come through", { skip }, async (t) => {
  const { lab, ssh } = await box(t);
  const ended = await lab.run([...ssh, "box", "cat; echo complaint >&2; exit 5"], { input: "from here\n" });
  assert.equal(ended.stdout.toString(), "from here\n");
  // In front of it fived has said that it pinned the server's key.
  assert.match(ended.stderr, /\ncomplaint\n$/);
  assert.equal(ended.status, 5);
});

// An sshd that is not root may make no terminal its user's own, unless /dev/pts is mounted for that.
test("a terminal works: a shell on a pty, interrupted with Ctrl-C, left with exit", {
  skip: skip || needs("root"),
}, async (t) => {
  const { lab, ssh } = await box(t);
  const shell = lab.start([...ssh, "-tt", "box", "env -u ENV PS1='ready> ' sh -i"]);
  await shell.hears(/ready> /);
  shell.says("tty\r");
  await shell.hears(/\n\/dev\/pts\/\d+\r\n.*ready> /s);
  // The quotes tell what the terminal echoes from what the command says.
  shell.says("sh -c 'echo go''ing; exec sleep 1000'\r");
  await shell.hears(/going\r\n/);
  shell.says("\x03");
  await shell.hears(/ready> /);
  shell.says("exit 3\r");
  assert.equal(await shell.ended, 3);
});

test("scp and sftp carry 20 MB up and down unchanged", { skip }, async (t) => {
  const { lab, config } = await box(t);
  const hash = await writeBulk(lab.path("here"), 20);
  // -O is scp's own protocol; without it scp speaks that of sftp.
  for (const options of [[], ["-O"]]) {
    for (const [from, to] of [
      [lab.path("here"), `box:${lab.path("there")}`],
      [`box:${lab.path("there")}`, lab.path("back")],
    ] as const) {
      const { status, stderr } = await lab.run(["scp", "-q", "-F", config, ...options, from, to]);
      assert.equal(status, 0, stderr);
    }
    assert.equal(await hashOfFile(lab.path("back")), hash);
    await Promise.all([fs.rm(lab.path("there")), fs.rm(lab.path("back"))]);
  }
  const batch = `put ${lab.path("here")} ${lab.path("there")}\nget ${lab.path("there")} ${lab.path("back")}\n`;
  const { status, stderr } = await lab.run(["sftp", "-q", "-F", config, "-b", "-", "box"], { input: batch });
  assert.equal(status, 0, stderr);
  assert.equal(await hashOfFile(lab.path("back")), hash);
});

test("git clones, pushes and fetches over that ssh", { skip: skip || needs("git") }, async (t) => {
  const { lab, ssh } = await box(t);
  const env = {
    GIT_SSH_COMMAND: ssh.join(" "),
    GIT_CONFIG_GLOBAL: await lab.write(
      "gitconfig",
      "[user]\nname = A\nemail = a@example.test\n[init]\ndefaultBranch = main\n",
    ),
    GIT_CONFIG_NOSYSTEM: "1",
  };
  const git = async (...args: readonly string[]) => {
    const { status, stdout, stderr } = await lab.run(["git", ...args], { env });
    assert.equal(status, 0, `git ${args.join(" ")}: ${stderr}`);
    return stdout.toString();
  };
  await git("init", "--quiet", "--bare", lab.path("there.git"));
  await git("clone", "--quiet", `box:${lab.path("there.git")}`, "one");
  const hash = await writeBulk(lab.path("one", "bulk"), 10);
  await git("-C", "one", "add", "bulk");
  await git("-C", "one", "commit", "--quiet", "-m", "ten megabytes");
  await git("-C", "one", "push", "--quiet", "origin", "HEAD:main");
  await git("clone", "--quiet", "--branch", "main", `box:${lab.path("there.git")}`, "two");
  assert.equal(await hashOfFile(lab.path("two", "bulk")), hash);
  assert.equal(await git("-C", "two", "rev-parse", "HEAD"), await git("-C", "one", "rev-parse", "HEAD"));
});

/** sshd as the service `ssh`, and an ssh that knows it as `box`. */
async function box(t: TestContext) {
  const lab = await Lab.open(t);
  const sshd = await startSshd(lab);
  const server = await serve(lab, { services: { ssh: { to: `tcp://127.0.0.1:${sshd.port}` } } });
  const config = await lab.write(
    "ssh_config",
    `Host box
    ProxyCommand ${client("connect", server.address, "ssh").join(" ")}
    IdentityFile ${sshd.identity}
    IdentitiesOnly yes
    IdentityAgent none
    UserKnownHostsFile ${lab.path("ssh_known_hosts")}
    StrictHostKeyChecking accept-new
    LogLevel ERROR
    `,
  );
  return { lab, config, ssh: ["ssh", "-F", config] };
}
