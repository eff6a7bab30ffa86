/**
 * `fived login` and `fived logout`, and whom the other verbs sign in as, towards a server by script.
 * @module
 */
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import fs from "node:fs/promises";
import path from "node:path";
import { text } from "node:stream/consumers";
import test, { type TestContext } from "node:test";
import { type Script, type Scripted, scripted } from "../support/scripted-server.ts";
import { type Home, home, repository } from "./command.ts";

const SUCCESS = "Authentication as alice successful";

/** Asks whoever is no nobody for a password; what the password is does not matter to the client. */
const passwords: Script = (line, on) => {
  if (line.startsWith("AUTH up ")) return ["+ SUCCESS <up>", "* Enter Password:"];
  if (on.lines.at(-2)?.startsWith("AUTH up ")) return [line === "correct horse" ? SUCCESS : "- 403 refused"];
  return line.startsWith("AUTH") ? ["- 403 refused"] : undefined;
};

interface Setting {
  readonly server: Scripted;
  readonly mine: Home;
  readonly flags: readonly string[];
  readonly env: NodeJS.ProcessEnv;
  /** Whom each connection has asked to be, `-` for nobody. */
  users(): readonly string[];
}

async function setting(t: TestContext, answer: string, script = passwords): Promise<Setting> {
  const mine = await home();
  t.after(() => mine[Symbol.asyncDispose]());
  const server = await scripted(t, script, { serve: listing });
  const askpass = path.join(mine.folder, "askpass");
  await fs.writeFile(askpass, `#!/bin/sh\nprintf '%s\\n' "$1" >>"$0.asked"\necho '${answer}'\n`, { mode: 0o700 });
  return {
    server,
    mine,
    flags: ["-o", `UserKnownHostsFile=${server.options.knownHosts}`],
    env: { FIVED_ASKPASS: askpass },
    users: () => server.heard.map(({ lines }) => lines.find((line) => line.startsWith("AUTH"))?.split(" ")[2] ?? "-"),
  };
}

/** Every stream is a list that names one service. */
function listing(channel: { write(octets: Uint8Array): boolean; close(): void }): void {
  channel.write(Buffer.from("wiki\r\n\r\n"));
  channel.close();
}

test("login says as whom, and list signs in as that user until logout", async (t) => {
  const { server, mine, flags, env, users } = await setting(t, "correct horse");
  const login = await mine.fived(["login", `alice@${server.address}`, ...flags], { env });
  assert.deepEqual(
    [login.code, login.stdout.toString(), login.stderr],
    [0, `signed in at ${server.address} as alice (up)\n`, ""],
  );
  assert.equal(await fs.readFile(path.join(mine.folder, "askpass.asked"), "utf8"), "Enter Password:\n");
  const file = path.join(mine.folder, "state", "fived", "logins.yaml");
  assert.equal((await fs.stat(file)).mode & 0o777, 0o600);
  assert.doesNotMatch(await fs.readFile(file, "utf8"), /correct|horse/);
  assert.equal((await mine.fived(["list", server.address, ...flags], { env })).stdout.toString(), "wiki\n");
  assert.equal((await mine.fived(["logout", server.address])).code, 0);
  assert.equal((await mine.fived(["logout", server.address])).code, 1);
  assert.equal((await mine.fived(["list", server.address, ...flags], { env })).code, 0);
  assert.deepEqual(users(), ["alice", "alice", "-"]);
});

test("-l, -o User and the address name the user, in this order, and login without any takes the one of this computer", async (t) => {
  const { server, mine, flags, env, users } = await setting(t, "correct horse");
  const list = (...args: readonly string[]) => mine.fived(["list", ...args, ...flags], { env });
  await list(`carol@${server.address}`, "-l", "alice", "-o", "User=bob");
  await list(`carol@${server.address}`, "-o", "User=bob");
  await list(`carol@${server.address}`);
  await list(server.address);
  await mine.fived(["login", server.address, ...flags, "--json"], { env });
  assert.deepEqual(users().slice(0, 4), ["alice", "bob", "carol", "-"]);
  const local = users().at(-1);
  await mine.fived(["login", server.address, ...flags], { env });
  assert.equal(users().at(-1), local);
  assert.notEqual(local, "-");
});

test("a wrong password, -o BatchMode=yes and a list of mechanisms without passwords each end with 255 and nothing served", async (t) => {
  const { server, mine, flags, env } = await setting(t, "wrong");
  const wrong = await mine.fived(["list", `alice@${server.address}`, ...flags], { env });
  assert.equal(wrong.code, 255);
  assert.match(wrong.stderr, /Cannot sign in at .* as alice: the server accepts neither the password/);
  for (const option of ["BatchMode=yes", "PreferredAuthentications=pubkey"]) {
    const { code, stderr } = await mine.fived(["list", `alice@${server.address}`, "-o", option, ...flags], { env });
    assert.equal(code, 255);
    assert.match(stderr, /there is no key, and nobody to ask/);
  }
  assert.ok(server.heard.every(({ requests }) => requests.length === 0));
  const unknown = await mine.fived(["list", server.address, "-o", "PreferredAuthentications=pubkey,kerberos"]);
  assert.equal(unknown.code, 2);
});

test("O01 a password is not told to a server that was accepted a moment ago, where nobody can be asked", async (t) => {
  const { server, mine, env } = await setting(t, "correct horse");
  const args = ["login", `alice@${server.address}`, "-o", "StrictHostKeyChecking=accept-new"];
  const { code, stderr } = await mine.fived(args, { env });
  assert.equal(code, 255);
  assert.match(stderr, /is new, and nobody has compared its key/);
  await assert.rejects(fs.stat(path.join(mine.folder, "askpass.asked")));
});

test("at a terminal a password is asked for up to three times, and no key of it is shown", async (t) => {
  const { server, mine, flags } = await setting(t, "");
  const shown = await typed(
    mine,
    ["login", `alice@${server.address}`, ...flags],
    ["wrong\r", "lost it\u0015x\u007fcorrect horsé\u007fe\r"],
  );
  assert.match(shown, /Enter Password: \n.*refuses that; try again\nEnter Password: \n/);
  assert.match(shown, /signed in at \S+ as alice \(up\)\nended with 0\n$/);
  assert.doesNotMatch(shown, /wrong|lost|horse/);
});

test("at a terminal Ctrl-C at the question ends the command, and Ctrl-D on an empty line does", async (t) => {
  const { server, mine, flags } = await setting(t, "");
  const args = ["login", `alice@${server.address}`, ...flags];
  assert.match(await typed(mine, args, ["x\u0003"]), /ended with 130\n$/);
  assert.match(await typed(mine, args, ["\u0004"]), /was not answered\nended with 255\n$/);
});

/** Runs a command at a terminal where somebody types the next answer whenever a question stands there; gives all that was on the screen. */
async function typed({ environment: env }: Home, args: readonly string[], answers: readonly string[]): Promise<string> {
  const command = [process.execPath, path.join(repository, "bin", "fived.js"), ...args]
    .map((word) => `'${word}'`)
    .join(" ");
  const child = spawn(
    "script",
    [
      "--quiet",
      "--echo",
      "never",
      "--return",
      "--command",
      `trap : INT; ${command}; echo "ended with $?"`,
      "/dev/null",
    ],
    { env },
  );
  const screen = text(child.stdout);
  const left = [...answers];
  let seen = "";
  child.stdout.on("data", (part) => {
    seen += part;
    if (!/: $/.test(seen)) return;
    seen = "";
    const answer = left.shift();
    if (answer !== undefined) child.stdin.write(answer);
  });
  const shown = (await screen).replaceAll("\r", "");
  child.stdin.end();
  return shown;
}
