/**
 * Sessions that move to another computer: two homes, each with a session manager of its own, and nothing between them but a token.
 * @module
 */
import assert from "node:assert/strict";
import fs from "node:fs/promises";
import test, { type TestContext } from "node:test";
import { parseDetached } from "../../src/client/index.ts";
import { hashOfFile, writeBulk } from "../support/bulk.ts";
import { eventually, within } from "../support/deadline.ts";
import { client, fived } from "../support/fived.ts";
import { Lab } from "../support/lab.ts";
import type { Program } from "../support/program.ts";

const MEGABYTES = 30;
const NEW = ["-o", "StrictHostKeyChecking=accept-new"];

/** A computer with a home and a session manager. */
interface Computer {
  readonly lab: Lab;
  readonly env: NodeJS.ProcessEnv;
  /** Starts a command there; its standard streams may be files. */
  start(command: readonly string[], files?: { readonly from?: string; readonly to?: string }): Program;
}

async function computer(t: TestContext): Promise<Computer> {
  const lab = await Lab.open(t);
  const env = { FIVED_MANAGER: lab.path("run", "manager.sock") };
  lab.defer(async () => void (await lab.run(fived("down"), { env })));
  return {
    ...{ lab, env },
    start(command, { from, to } = {}) {
      const redirected = `exec "$@"${from === undefined ? "" : ` <'${from}'`}${to === undefined ? "" : ` >'${to}'`}`;
      return lab.start(["sh", "-c", redirected, "sh", ...command], { env });
    },
  };
}

interface World {
  readonly here: Computer;
  readonly there: Computer;
  readonly address: string;
  /** A large file, and its hash. */
  readonly source: string;
  readonly hash: string;
}

async function world(t: TestContext): Promise<World> {
  const [here, there] = [await computer(t), await computer(t)];
  const { lab } = here;
  const source = lab.path("source");
  const hash = await writeBulk(source, MEGABYTES);
  const allow = ["anyone"];
  const configuration = {
    listen: ["tcp://127.0.0.1:0"],
    services: {
      // The rest comes when the test says so.
      bulk: {
        exec: [
          "sh",
          "-c",
          `head -c 3000000 ${source}; until [ -e ${source}.more ]; do sleep 0.05; done; tail -c +3000001 ${source}`,
        ],
        allow,
      },
      // It takes its time.
      keep: { exec: ["sh", "-c", `: >${source}.kept; ${slowly(`${source}.kept`)}; echo kept`], allow },
      shell: { exec: ["sh"], allow },
    },
    sessions: { detach: { anonymous: 4 } },
  };
  const settings = await lab.write("fived.yaml", JSON.stringify(configuration));
  const server = lab.start(fived("serve", "-c", settings, "--state", lab.path("server")));
  const [, address = ""] = await server.hears(/listening on tcp:\/\/(\S+)/);
  return { here, there, address, source, hash };
}

/** Shell: half a megabyte of standard input at a time, behind what the file has. */
function slowly(file: string): string {
  return `while had=$(stat -c %s ${file}); head -c 500000 >>${file}; [ $(stat -c %s ${file}) -gt $had ]; do sleep 0.05; done`;
}

async function detached({ here, address }: World): Promise<string> {
  const { status, stdout, stderr } = await here.lab.run(fived("detach", address), { env: here.env });
  assert.equal(status, 0, stderr);
  assert.match(stdout.toString(), /^fived-session:[\w-]+\n$/);
  return stdout.toString();
}

test("a file goes on at the very octet, on another computer", async (t) => {
  const all = await world(t);
  const { here, there, address, source, hash } = all;
  const [first, second] = [here.lab.path("first"), there.lab.path("second")];
  const program = here.start(client("connect", address, "bulk"), { to: first });
  await eventually(async () => assert.equal((await fs.stat(first)).size, 3_000_000), "the beginning");
  const token = await detached(all);
  assert.equal(await within(program.ended, "the command to end"), 255);
  assert.match(program.complained, /the session was detached, and can be attached to elsewhere/);
  await fs.writeFile(`${source}.more`, "");
  const file = await there.lab.write("token", token);
  const listed = await there.lab.run(fived("attach", "--list", file), { env: there.env });
  assert.match(listed.stdout.toString(), /^1 bulk, 0 octets sent \(0 B\), 3000011 received \(2\.9 MiB\)\n$/);
  const other = there.start(fived("attach", ...NEW, file), { to: second });
  assert.equal(await within(other.ended, "the rest"), 0, other.complained);
  await fs.appendFile(first, await fs.readFile(second));
  assert.equal(await hashOfFile(first), hash);
  // It was good once.
  await assert.rejects(fs.stat(file), { code: "ENOENT" });
  const again = await there.lab.run(fived("attach", ...NEW), { env: there.env, input: token });
  assert.equal(again.status, 255);
  assert.match(again.stderr, /Cannot go on with the session at \S+: the server \w+ .* \(4(03|10)\)/);
});

test("a file that is sent goes on where the service has stopped", async (t) => {
  const all = await world(t);
  const { here, there, address, source, hash } = all;
  const program = here.start(client("connect", address, "keep"), { from: source });
  await eventually(async () => assert.ok((await fs.stat(`${source}.kept`)).size > 2_000_000), "the beginning");
  const token = await detached(all);
  assert.equal(await within(program.ended, "the command to end"), 255);
  const file = await there.lab.write("token", token);
  const other = there.start(fived("attach", ...NEW, "--skip", file), { from: source });
  assert.equal(await within(other.ended, "the rest"), 0, other.complained);
  assert.equal(other.said, "kept\n");
  assert.equal(await hashOfFile(`${source}.kept`), hash);
});

test("a shell is left, gone on with elsewhere, and left again", async (t) => {
  const all = await world(t);
  const { here, there, address } = all;
  const program = here.start(client("connect", address, "shell"));
  program.says("X=5; echo ready\n");
  await program.hears(/ready\n/);
  const file = await there.lab.write("token", await detached(all));
  const other = there.start(fived("attach", ...NEW, file));
  other.says("echo $X; X=6; echo there\n");
  await other.hears(/5\nthere\n/);
  other.signal("SIGTERM");
  assert.equal(await within(other.ended, "the command to end"), 0, other.complained);
  assert.match(other.complained, /detached; go on with it: fived attach/);
  assert.doesNotMatch(other.complained, /lost|over a new connection/, "nothing was lost");
  assert.equal((await fs.stat(file)).mode & 0o777, 0o600);
  const { expires } = await parseDetached(await fs.readFile(file, "utf8"), Date.now());
  assert.ok(expires > Date.now() + 600_000, "it is kept as long as the first time");
  // From standard input this time: the token is its first line.
  const { status, stdout, stderr } = await there.lab.run(fived("attach", ...NEW), {
    env: there.env,
    input: `${(await fs.readFile(file, "utf8")).trim()}\necho $X; exit\n`,
  });
  assert.equal(status, 0, stderr);
  assert.equal(stdout.toString(), "6\n");
});

test("what cannot be detached is told, and goes on", async (t) => {
  const all = await world(t);
  const { here, address } = all;
  const nothing = await here.lab.run(fived("detach", address), { env: here.env });
  assert.equal(nothing.status, 255);
  assert.match(nothing.stderr, /Cannot detach .*: no session manager runs/);
  const program = here.start(client("connect", address, "shell"));
  program.says("echo ready\n");
  await program.hears(/ready\n/);
  const elsewhere = await here.lab.run(fived("detach", "127.0.0.1:9"), { env: here.env });
  assert.match(elsewhere.stderr, /nothing is open there/);
  program.says("echo still\n");
  await program.hears(/still\n/);
  for (const token of ["", "fived-session:", "fived-session:e30", "fived-invite:AAAA"]) {
    const refused = await here.lab.run(fived("attach", ...NEW), { env: here.env, input: token });
    assert.equal(refused.status, 255);
    assert.match(refused.stderr, /^fived: Cannot attach: this is no token of a detached session/);
  }
});
