/**
 * People of the operating system sign in with their own passwords: `fived serve` and `fived pam-helper` with the real PAM, the real
 * `pam_unix` and a user of this computer, whom the test makes and takes away.
 * @module
 */
import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { randomBytes } from "node:crypto";
import { once } from "node:events";
import fs from "node:fs/promises";
import path from "node:path";
import test, { type TestContext } from "node:test";
import { within } from "../support/deadline.ts";
import { needs } from "../support/needs.ts";
import { type Home, home, type Running } from "./command.ts";

const skip = needs("root", "useradd");
const PASSWORD = "correct horse 7";

/** Somebody of this computer. */
interface Person {
  readonly name: string;
  /** A group that he is in. */
  readonly group: string;
  /** The service of PAM that knows him. */
  readonly service: string;
}

async function person(t: TestContext): Promise<Person> {
  const name = `fived-${randomBytes(4).toString("hex")}`;
  const group = `${name}-crew`;
  const file = `/etc/pam.d/${name}`;
  execFileSync("groupadd", [group]);
  t.after(() => execFileSync("groupdel", [group]));
  execFileSync("useradd", ["--no-create-home", "--groups", group, "--shell", "/bin/false", name], { stdio: "ignore" });
  t.after(() => execFileSync("userdel", [name], { stdio: "ignore" }));
  execFileSync("chpasswd", { input: `${name}:${PASSWORD}\n` });
  await fs.writeFile(file, "auth required pam_unix.so\naccount required pam_unix.so\n");
  t.after(() => fs.rm(file));
  return { name, group, service: name };
}

interface Setting {
  readonly mine: Home;
  readonly server: Running;
  readonly address: string;
  /** Signs in with that password, to a server whose key is known. */
  login(user: string, password: string): ReturnType<Home["fived"]>;
}

async function setting(t: TestContext, { group }: Person, up: string): Promise<Setting> {
  const mine = await home();
  t.after(() => mine[Symbol.asyncDispose]());
  const file = path.join(mine.folder, "fived.yaml");
  await fs.writeFile(
    file,
    `listen: ["tcp://127.0.0.1:0"]
auth: { mechanisms: [up], up: ${up} }
roles: { crew: ["group:${group}"] }
services:
  env: { exec: [/usr/bin/env], allow: [crew] }
  others: { exec: [/bin/cat], allow: [nobody-of-that-name] }
`,
  );
  const server = mine.start(["serve", "-c", file, "--state", path.join(mine.folder, "server")]);
  const [, address = ""] = await server.line(/listening on tcp:\/\/(\S+)/);
  const pinned = await mine.fived(["list", address, "-o", "StrictHostKeyChecking=accept-new"]);
  assert.equal(pinned.code, 0, pinned.stderr);
  const askpass = path.join(mine.folder, "askpass");
  await fs.writeFile(askpass, '#!/bin/sh\nprintf \'%s\\n\' "$1" >>"$0.asked"\nprintf \'%s\\n\' "$PASSWORD"\n', {
    mode: 0o700,
  });
  return {
    mine,
    server,
    address,
    login: (user, PASSWORD) =>
      mine.fived(["login", `${user}@${address}`], { env: { FIVED_ASKPASS: askpass, PASSWORD } }),
  };
}

test("a user of this computer signs in with his password, and has the rights of his groups", { skip }, async (t) => {
  const who = await person(t);
  const { mine, server, address, login } = await setting(t, who, `{ pam: ${who.service} }`);
  const wrong = await login(who.name, "incorrect horse");
  assert.equal(wrong.code, 255);
  assert.match(wrong.stderr, /neither|refuses/);
  const right = await login(who.name, PASSWORD);
  assert.deepEqual([right.code, right.stdout.toString()], [0, `signed in at ${address} as ${who.name} (up)\n`]);
  const asked = await fs.readFile(path.join(mine.folder, "askpass.asked"), "utf8");
  assert.match(asked, /^(Password:\n)+$/);
  const env = { FIVED_ASKPASS: path.join(mine.folder, "askpass"), PASSWORD };
  const seen = await mine.fived(["list", address], { env });
  assert.match(seen.stdout.toString(), /^env$/m);
  assert.doesNotMatch(seen.stdout.toString(), /others/);
  const said = await mine.fived(["connect", address, "env"], { env });
  assert.match(said.stdout.toString(), new RegExp(`^FIVED_USER=${who.name}$`, "m"));
  assert.match(said.stdout.toString(), /^FIVED_ROLES=(.*,)?crew(,|$)/m);
  assert.match(said.stdout.toString(), /^FIVED_MECHANISM=up$/m);
  assert.doesNotMatch(server.stderr(), /horse/);
  const expired = execFileSync("chage", ["--expiredate", "1", who.name]);
  assert.equal(expired.length, 0);
  assert.equal((await login(who.name, PASSWORD)).code, 255);
  assert.equal((await server.stop()).code, 0);
});

test("A05 with the real PAM an unknown user, a wrong password and an expired account look the same and take as long", {
  skip,
}, async (t) => {
  const who = await person(t);
  const { mine, login } = await setting(t, who, `{ pam: ${who.service} }`);
  const tried = async (user: string, password: string) => {
    const from = performance.now();
    const { code, stderr } = await login(user, password);
    assert.equal(code, 255);
    return { said: stderr.replaceAll(user, "USER"), ms: performance.now() - from };
  };
  const wrong = await tried(who.name, "guess");
  const unknown = await tried("nobody-of-that-name", "guess");
  execFileSync("chage", ["--expiredate", "1", who.name]);
  const expired = await tried(who.name, PASSWORD);
  for (const { said, ms } of [unknown, expired]) {
    assert.equal(said, wrong.said);
    assert.ok(ms > 2_000 && Math.abs(ms - wrong.ms) < 1_500, `${ms} ms beside ${wrong.ms} ms`);
  }
  const asked = await fs.readFile(path.join(mine.folder, "askpass.asked"), "utf8");
  assert.equal(new Set(asked.trim().split("\n")).size, 1);
});

test("A08 through fived pam-helper it is the same, and a helper that was killed is replaced by the next one", {
  skip,
}, async (t) => {
  const who = await person(t);
  const { mine, server, address, login } = await setting(t, who, `{ pam: ${who.service}, helper: run/pam.sock }`);
  const socket = path.join(mine.folder, "run", "pam.sock");
  await server.complains(/the helper that asks PAM is not there/);
  await fs.mkdir(path.dirname(socket), { mode: 0o750 });
  const started = async (): Promise<Running> => {
    const helper = mine.start(["pam-helper", "--socket", socket, "--service", who.service]);
    await helper.line(/asking PAM as "fived-\w+" for whoever may write to \S+\/run\/pam\.sock$/);
    return helper;
  };
  assert.equal((await login(who.name, PASSWORD)).code, 255);
  const first = await started();
  const right = await login(who.name, PASSWORD);
  assert.deepEqual([right.code, right.stdout.toString()], [0, `signed in at ${address} as ${who.name} (up)\n`]);
  const second = await mine.fived(["pam-helper", "--socket", socket, "--service", who.service]);
  assert.equal(second.code, 255);
  assert.match(second.stderr, /^fived: Cannot listen on \S+: .*EADDRINUSE/);
  first.child.kill("SIGKILL");
  await within(once(first.child, "exit"), "the end of the helper");
  assert.equal((await login(who.name, PASSWORD)).code, 255);
  const third = await started();
  assert.equal((await login(who.name, PASSWORD)).code, 0);
  assert.deepEqual(await third.stop(), { code: 0, signal: null });
  await assert.rejects(fs.stat(socket), { code: "ENOENT" });
  assert.doesNotMatch(server.stderr() + first.stderr() + third.stderr(), /horse/);
});

test("fived check and fived serve say in which line PAM is asked for that is not there", async () => {
  await using mine = await home();
  const file = path.join(mine.folder, "fived.yaml");
  await fs.writeFile(file, "auth:\n  up: { pam: fived-no-such-service }\n");
  const checked = await mine.fived(["check", "-c", file]);
  assert.equal(checked.code, 1);
  assert.match(
    checked.stdout.toString(),
    /fived\.yaml:2:14: error: auth\.up\.pam: .* no file \/etc\/pam\.d\/fived-no-such/,
  );
  const served = await mine.fived(["serve", "-c", file]);
  assert.equal(served.code, 255);
  assert.match(served.stderr, /2:14 auth\.up\.pam/);
});
