/**
 * `fived user` and `fived invite` as an administrator has them: what they print, what they refuse, and what is in the store afterwards.
 * @module
 */
import assert from "node:assert/strict";
import { execFileSync, spawn } from "node:child_process";
import fs from "node:fs/promises";
import path from "node:path";
import { text } from "node:stream/consumers";
import test, { type TestContext } from "node:test";
import { TOTP, URI } from "otpauth";
import { type Invite, inviteProof, parseInvite } from "../../src/identity/index.ts";
import { InviteMechanism } from "../../src/server/auth/invites.ts";
import { openUsers, type UserStore } from "../../src/server/auth/users.ts";
import { silentLog } from "../../src/server/log.ts";
import { scripted } from "../support/exchange.ts";
import { needs } from "../support/needs.ts";
import { type Home, home, repository } from "./command.ts";

const KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIOMqqnkVzrm0SdG6UOoqKLsabgH5C9okWi0dh2l9GKJl laptop";

/** The store that the commands of this home change. */
async function storeOf(t: TestContext, mine: Home): Promise<UserStore> {
  const store = await openUsers({ folder: path.join(mine.folder, "state"), log: silentLog });
  t.after(() => store[Symbol.dispose]());
  return store;
}

/** A home whose commands all keep their state in `state`. */
async function administered(): Promise<{
  readonly mine: Home;
  run(args: string, input?: string | Uint8Array): ReturnType<Home["fived"]>;
}> {
  const mine = await home();
  const env = { FIVED_STATE: path.join(mine.folder, "state") };
  await fs.mkdir(env.FIVED_STATE, { mode: 0o700 });
  await fs.writeFile(path.join(mine.folder, "alice.pub"), `# hers\n${KEY}\nno-pty ${KEY}2\n\n`);
  return {
    mine,
    run: (args, input = "") =>
      mine.fived(
        args.split(" ").map((word) => (word === "''" ? "" : word)),
        { input, env },
      ),
  };
}

async function did(run: ReturnType<Home["fived"]>): Promise<string> {
  const { code, stdout, stderr } = await run;
  assert.deepEqual({ code, stderr }, { code: 0, stderr: "" });
  return stdout.toString();
}

test("a user is added with a password from standard input, changed, listed and removed", async (t) => {
  const { mine, run } = await administered();
  await using _mine = mine;
  assert.equal(
    await did(run("user add alice --group staff -g admins --role ops --key alice.pub", "correct horse\n")),
    "",
  );
  await did(run("user add bob --no-password"));
  const store = await storeOf(t, mine);
  assert.deepEqual(store.find("alice"), {
    name: "alice",
    groups: ["staff", "admins"],
    roles: ["ops"],
    keys: [KEY, `no-pty ${KEY}2`],
    totp: undefined,
  });
  assert.ok(await store.verify("alice", Buffer.from("correct horse")));
  assert.equal(await did(run("user list")), "alice\nbob\n");
  assert.deepEqual(JSON.parse(await did(run("user list --json"))), {
    users: [
      {
        name: "alice",
        groups: ["staff", "admins"],
        roles: ["ops"],
        keys: [KEY, `no-pty ${KEY}2`],
        password: true,
        secondFactor: false,
      },
      { name: "bob", groups: [], roles: [], keys: [], password: false, secondFactor: false },
    ],
    invites: [],
  });
  await did(run("user passwd bob", "eins\r\nzwei\r\n"));
  await did(run("user passwd alice --no-password"));
  await did(run("user set bob -g guests -k alice.pub"));
  await did(run("user set alice --role '' --key ''"));
  const after = await storeOf(t, mine);
  assert.ok(await after.verify("bob", Buffer.from("eins")));
  assert.equal(await after.verify("alice", Buffer.from("correct horse")), undefined);
  assert.deepEqual(after.find("bob")?.groups, ["guests"]);
  assert.equal(after.find("bob")?.keys.length, 2);
  assert.deepEqual(
    [after.find("alice")?.groups, after.find("alice")?.roles, after.find("alice")?.keys],
    [["staff", "admins"], [], []],
  );
  await did(run("user remove alice"));
  assert.equal(await did(run("user list")), "bob\n");
});

test("what cannot be done ends with 255, says why in one line, and changes nothing", async () => {
  const { mine, run } = await administered();
  await using _mine = mine;
  await did(run("user add alice", "secret"));
  const users = path.join(mine.folder, "state", "users");
  const before = await fs.readFile(users, "utf8");
  await fs.writeFile(path.join(mine.folder, "private"), "-----BEGIN OPENSSH PRIVATE KEY-----\nb3BlbnNzaC1rZXktdjEA\n");
  await fs.writeFile(path.join(mine.folder, "empty"), "# nothing\n");
  await fs.writeFile(path.join(mine.folder, "weak.pub"), `${KEY}\nssh-dss AAAAB3NzaC1kc3MAAACB\n`);
  await fs.writeFile(path.join(mine.folder, "command.pub"), `command="date" ${KEY}\n`);
  const wrong: readonly (readonly [args: string, said: RegExp, input?: string])[] = [
    ["user add alice", /Cannot add "alice": there is a user of that name/, "x\n"],
    ["user add Alice", /"Alice" as the name of a user: a name has 1 to 64/, "x\n"],
    ["user add bob", /standard input has no line/, ""],
    ["user add bob", /standard input has no line/, "\n"],
    ["user add bob", /more than 1024 octets/, `${"x".repeat(1_025)}\n`],
    ["user add bob", /NUL, CR or LF/, "a\0b\n"],
    ["user add bob --key nosuch.pub", /Cannot use the keys in nosuch.pub: ENOENT/, "x\n"],
    ["user add bob --key private", /it is a private key; name the file beside it that ends in \.pub/, "x\n"],
    ["user add bob --key empty", /Cannot use the keys in empty: there is none/, "x\n"],
    ["user add bob --key weak.pub", /Cannot use the keys in weak\.pub: line 2: /, "x\n"],
    ["user add bob --key command.pub", /Cannot use the keys in command\.pub: line 1: /, "x\n"],
    ["user add bob --group a/b", /these groups: "a\/b" is no name/, "x\n"],
    ["user remove bob", /Cannot find "bob": there is no user of that name/],
    ["user passwd bob", /Cannot find "bob"/, "x\n"],
    ["user totp bob", /Cannot find "bob"/],
    ["user set bob -g x", /Cannot find "bob"/],
    ["invite bob", /no server has made its key in .*start it once/],
    ["invite bob --host nosuch/web", /write host\[:port\] and nothing else/],
    ["invite bob --host alice@nosuch", /write host\[:port\] and nothing else/],
  ];
  for (const [args, said, input] of wrong) {
    const { code, stdout, stderr } = await run(args, input);
    assert.match(stderr, said, args);
    assert.match(stderr, /^fived: [^\n]*\n$/, args);
    assert.deepEqual({ args, code, stdout: stdout.toString() }, { args, code: 255, stdout: "" });
  }
  assert.equal(await fs.readFile(users, "utf8"), before);
});

test("A09 a password of 1,024 octets, whatever they are, is taken as it is, and appears nowhere", async (t) => {
  const { mine, run } = await administered();
  await using _mine = mine;
  const password = Buffer.from(Array.from({ length: 1_024 }, (_, at) => 1 + ((at * 37) % 255))).map((octet) =>
    octet === 10 || octet === 13 ? 32 : octet,
  );
  assert.equal(await did(run("user add alice", Buffer.concat([password, Buffer.from("\n")]))), "");
  const store = await storeOf(t, mine);
  assert.ok(await store.verify("alice", password));
  assert.equal((await fs.readFile(store.file)).includes(Buffer.from(password.subarray(0, 16))), false);
});

test("a second factor is printed for an authenticator program, once", async (t) => {
  const { mine, run } = await administered();
  await using _mine = mine;
  await did(run("user add alice --no-password"));
  const url = (await did(run("user totp alice --issuer example.org"))).trim();
  const read = URI.parse(url);
  assert.ok(read instanceof TOTP);
  assert.deepEqual([read.issuer, read.label], ["example.org", "alice"]);
  const store = await storeOf(t, mine);
  assert.deepEqual(store.find("alice")?.totp, Uint8Array.from(read.secret.bytes));
  const again = await run("user totp alice");
  assert.equal(again.code, 255);
  assert.match(again.stderr, /there is one already.*--off takes it away first/);
  await did(run("user totp alice --off"));
  assert.notEqual((await did(run("user totp alice"))).trim(), url);
});

test("an invite names the server, its key and the user, and makes that user of whoever redeems it", async (t) => {
  const { mine, run } = await administered();
  await using _mine = mine;
  const server = mine.start([
    "serve",
    "web=3000",
    "--listen",
    "tcp://127.0.0.1:0",
    "--state",
    path.join(mine.folder, "state"),
  ]);
  const [, key] = await server.line(/listening on \S+ {2}key (SHA256:\S+)/);
  await server.stop();
  const before = Date.now();
  const invite = await invitation(
    run("invite bob --host [2001:DB8::1]:1079 --expires 2h --group guests --role reader"),
  );
  assert.deepEqual([invite.address, invite.fingerprint, invite.user], ["[2001:db8::1]:1079", key, "bob"]);
  assert.ok(invite.expires >= before + 7_200_000 && invite.expires <= Date.now() + 7_201_000);
  const listed = JSON.parse(await did(run("user list --json")));
  assert.deepEqual(listed.invites, [
    { name: "bob", groups: ["guests"], roles: ["reader"], expires: new Date(invite.expires).toISOString() },
  ]);
  const store = await storeOf(t, mine);
  const mechanism = new InviteMechanism({ store, log: silentLog, isKey: () => true });
  const binding = new Uint8Array(32).fill(1);
  const exchange = scripted([KEY], {
    initial: ["bob", inviteProof(invite.secret, { binding, host: "", user: "bob" })],
    binding,
  });
  const bob = { user: "bob", groups: ["guests"], roles: ["reader"], ofStore: true };
  assert.deepEqual(await mechanism.authenticate(exchange), bob);
  assert.equal(await did(run("user list")), "bob\n");

  const again = await invitation(run("invite bob"));
  assert.equal(again.address, "127.0.0.1");
  await did(run("user remove bob"));
  assert.deepEqual(JSON.parse(await did(run("user list --json"))), { users: [], invites: [] });
});

test("an invite goes by the configuration: its address, its certificates, its store", {
  skip: needs("openssl"),
}, async () => {
  const { mine, run } = await administered();
  await using _mine = mine;
  const certificate = (name: string) =>
    execFileSync(
      "openssl",
      `req -x509 -newkey ed25519 -nodes -days 2 -subj /CN=${name} -keyout ${name}.key -out ${name}.pem`.split(" "),
      { cwd: mine.folder, stdio: "ignore" },
    );
  for (const name of ["main", "git"]) certificate(name);
  const config = path.join(mine.folder, "fived.yaml");
  await fs.writeFile(
    config,
    `listen: ["unix:/tmp/x.sock", "tcp://0.0.0.0:2000"]
tls: { certificate: main.pem, key: main.key }
hosts: { git.example.org: { tls: { certificate: git.pem, key: git.key } } }
auth: { up: { store: people } }
`,
  );
  const main = await invitation(run(`invite bob -c ${config}`));
  assert.match(main.address, /:2000$/);
  const git = await invitation(run(`invite carol -c ${config} --host git.example.org`));
  const other = await invitation(run(`invite dave -c ${config} --host other.example.org`));
  assert.notEqual(git.fingerprint, main.fingerprint);
  assert.equal(other.fingerprint, main.fingerprint);
  const text = await fs.readFile(path.join(mine.folder, "state", "people"), "utf8");
  assert.equal(text.split("\n").length, 4);
});

test("at a terminal a password is typed twice, unseen, and the list is a table", {
  skip: needs("openssl"),
}, async (t) => {
  const { mine } = await administered();
  await using _mine = mine;
  const differing = await typed(mine, "user add alice", ["correct horse\r", "correct hose\r"]);
  assert.match(differing, /New password for alice: \nThe same again: \n/);
  assert.match(differing, /the two are not the same; try again\nended with 255\n$/);
  const screen = await typed(mine, "user add alice -g staff", ["correct horse\r", "correct horse\r"]);
  assert.match(screen, /ended with 0\n$/);
  assert.doesNotMatch(differing + screen, /correct|horse|hose/);
  assert.ok(await (await storeOf(t, mine)).verify("alice", Buffer.from("correct horse")));
  const table = await typed(mine, "user list", []);
  assert.match(table, /^USER {3}GROUPS {2}ROLES {2}SIGNS IN BY\nalice {2}staff {10}password\nended with 0\n$/);
});

/** The invite that was printed, alone on its line. */
async function invitation(running: ReturnType<Home["fived"]>): Promise<Invite> {
  const { code, stdout, stderr } = await running;
  assert.deepEqual({ code, stderr }, { code: 0, stderr: "" });
  assert.match(stdout.toString(), /^fived-invite:[A-Za-z0-9_-]+\n$/);
  const read = parseInvite(stdout.toString());
  assert.ok(!("code" in read));
  return read;
}

/** Runs a command at a terminal where somebody answers each question that ends in a colon; answers all that was on the screen. */
async function typed(mine: Home, args: string, answers: readonly string[]): Promise<string> {
  const command = `'${process.execPath}' '${path.join(repository, "bin", "fived.js")}' ${args}; echo "ended with $?"`;
  const child = spawn("script", ["--quiet", "--echo", "never", "--return", "--command", command, "/dev/null"], {
    env: { ...process.env, FIVED_STATE: path.join(mine.folder, "state"), NO_COLOR: "1" },
  });
  const left = [...answers];
  let seen = 0;
  let shown = "";
  child.stdout.on("data", (part: Buffer) => {
    shown += part;
    for (let at = shown.indexOf(": ", seen); at >= 0 && left.length > 0; at = shown.indexOf(": ", seen)) {
      seen = at + 2;
      child.stdin.write(left.shift() ?? "");
    }
  });
  const screen = (await text(child.stdout)).replaceAll("\r", "");
  child.stdin.end();
  return screen;
}
