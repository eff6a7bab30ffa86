/**
 * People and their rights, with the commands that everybody has: invited, joined, seen by the services, and turned out again.
 * @module
 */
import assert from "node:assert/strict";
import { once } from "node:events";
import fs from "node:fs/promises";
import path from "node:path";
import test, { type TestContext } from "node:test";
import { within } from "../support/deadline.ts";
import { needs } from "../support/needs.ts";
import { type Home, home, type Running } from "./command.ts";

const SERVICES = `
services:
  open: { exec: [/bin/echo, open], allow: [anyone] }
  hers: { exec: [/usr/bin/env], allow: [alice] }
  crew: { exec: [/bin/cat], allow: [crew] }
`;

/** A server with users, and the state folder that its commands work on. */
interface House {
  readonly mine: Home;
  readonly server: Running;
  /** `127.0.0.1:40123` */
  readonly address: string;
  /** Runs an administrator's command. */
  admin(args: string, input?: string): Promise<string>;
  /** Writes another configuration and has it read. */
  reload(yaml: string): Promise<void>;
}

async function house(t: TestContext, yaml = `roles: { crew: [bob] }${SERVICES}`): Promise<House> {
  const mine = await home();
  t.after(() => mine[Symbol.asyncDispose]());
  const state = path.join(mine.folder, "server");
  const file = path.join(mine.folder, "fived.yaml");
  const write = (text: string): Promise<void> => fs.writeFile(file, `listen: [tcp://127.0.0.1:0]\n${text}`);
  await write(yaml);
  await fs.mkdir(state, { mode: 0o700 });
  const server = mine.start(["serve", "-c", file, "--state", state]);
  const [, address = ""] = await server.line(/listening on tcp:\/\/(\S+)/);
  return {
    mine,
    server,
    address,
    async admin(args, input = "") {
      const done = await mine.fived(args.split(" "), { input, env: { FIVED_STATE: state, FIVED_CONFIG: file } });
      assert.equal(done.code, 0, done.stderr);
      return done.stdout.toString().trim();
    },
    async reload(text) {
      await write(text);
      server.child.kill("SIGHUP");
      await server.complains(/reloaded/);
    },
  };
}

/** Names of the services that a person sees. */
async function seen(guest: Home, address: string, ...flags: readonly string[]): Promise<readonly string[]> {
  const { code, stdout, stderr } = await guest.fived(["list", address, ...flags]);
  assert.equal(code, 0, stderr);
  const names = stdout.toString().trim().split("\n");
  return names.filter((name) => name !== name.toUpperCase());
}

async function person(t: TestContext): Promise<Home> {
  const guest = await home();
  t.after(() => guest[Symbol.asyncDispose]());
  return guest;
}

async function joined(t: TestContext, { admin, address }: House, name: string): Promise<Home> {
  const guest = await person(t);
  const invite = await admin(`invite ${name} --host ${address}`);
  const { code, stdout, stderr } = await guest.fived(["join", "-o", "BatchMode=yes"], { input: `${invite}\n` });
  assert.equal(code, 0, stderr);
  assert.match(stdout.toString(), new RegExp(`^joined ${address} as ${name}, with the key `));
  return guest;
}

test("who was invited joins without a question, and sees and uses from then on what is his", async (t) => {
  const at = await house(t);
  const bob = await joined(t, at, "bob");
  const strict = ["-o", "StrictHostKeyChecking=yes"];
  assert.deepEqual(await seen(bob, at.address, ...strict), ["open", "crew"]);
  const said = await bob.fived(["connect", at.address, "crew", ...strict], { input: "hello\n" });
  assert.equal(said.stdout.toString(), "hello\n", said.stderr);
  const hers = await bob.fived(["connect", at.address, "hers", ...strict]);
  const none = await bob.fived(["connect", at.address, "none", ...strict]);
  assert.deepEqual([hers.code, hers.stderr.replaceAll("hers", "none")], [none.code, none.stderr]);
  const keys = await fs.readdir(path.join(bob.folder, "state", "fived", "keys"));
  assert.equal(keys.length, 1);
  const { mode } = await fs.stat(path.join(bob.folder, "state", "fived", "keys", keys[0] ?? ""));
  assert.equal(mode & 0o777, 0o600);
  assert.equal((await bob.fived(["logout", at.address])).code, 0);
  assert.deepEqual(await seen(bob, at.address, ...strict), ["open"]);
});

test("an invite is good once, for its server, and until its time", async (t) => {
  const at = await house(t);
  const invite = await at.admin(`invite bob --host ${at.address}`);
  const join = async (text: string) => await (await person(t)).fived(["join", text, "-o", "BatchMode=yes"]);
  assert.equal((await join(invite)).code, 0);
  const again = await join(invite);
  assert.equal(again.code, 255);
  assert.match(
    again.stderr,
    /^fived: Cannot join \S+ as bob: the invite was used, withdrawn, or has ended; ask for another invite$/m,
  );
  const cut = await join(invite.slice(0, -4));
  assert.match(cut.stderr, /^fived: Cannot join: that is no invite; copy all of /);
  const other = await house(t);
  const impostor = await other.admin(`invite bob --host ${at.address}`);
  const refused = await join(impostor);
  assert.equal(refused.code, 255);
  assert.match(refused.stderr, /SHA256:\S+(?:.|\n)*SHA256:/, "both fingerprints");
});

test("join with -i enrols a key one has, and with an unknown file nothing", {
  skip: needs("ssh-keygen"),
}, async (t) => {
  const at = await house(t);
  const guest = await person(t);
  const file = path.join(guest.folder, "id_test");
  const { execFileSync } = await import("node:child_process");
  execFileSync("ssh-keygen", ["-q", "-t", "ecdsa", "-N", "", "-f", file]);
  const invite = await at.admin(`invite bob --host ${at.address}`);
  const missing = await guest.fived(["join", invite, "-i", `${file}.none`]);
  assert.equal(missing.code, 255);
  assert.match(missing.stderr, /Cannot use the key file/);
  const { code, stderr } = await guest.fived(["join", invite, "-i", file]);
  assert.equal(code, 0, stderr);
  assert.deepEqual(await seen(guest, at.address), ["open", "crew"]);
  assert.deepEqual(
    JSON.parse(await at.admin("user list --json")).users[0].keys[0].split(" ")[0],
    "ecdsa-sha2-nistp256",
  );
});

test("a person signs in with a key of ~/.ssh by naming himself, and with a password where he has none", async (t) => {
  const at = await house(t);
  await at.admin("user add alice", "correct horse\n");
  const guest = await person(t);
  const askpass = path.join(guest.folder, "askpass");
  await fs.writeFile(askpass, "#!/bin/sh\necho 'correct horse'\n", { mode: 0o700 });
  const env = { FIVED_ASKPASS: askpass };
  // A server that nobody has compared is told no password without a word.
  const first = ["list", `alice@${at.address}`, "-o", "StrictHostKeyChecking=accept-new"];
  const unknown = await guest.fived(first, { env });
  assert.equal(unknown.code, 255);
  assert.match(unknown.stderr, /nobody is there to say that it may be told a password/);
  const login = await guest.fived(["login", `alice@${at.address}`], { env });
  assert.equal(login.stdout.toString(), `signed in at ${at.address} as alice (up)\n`, login.stderr);
  const hers = await guest.fived(["connect", at.address, "hers"], { env });
  assert.match(hers.stdout.toString(), /^FIVED_USER=alice$/m);
  assert.match(hers.stdout.toString(), /^FIVED_MECHANISM=up$/m);
});

/** A stream to a service that repeats, held open; and when it ended. */
async function held(guest: Home, address: string): Promise<{ readonly running: Running; ended(): Promise<unknown> }> {
  const running = guest.start(["connect", address, "crew", "-o", "StrictHostKeyChecking=yes"]);
  running.child.stdin.write("still here\n");
  await running.line(/^still here$/);
  const exit = once(running.child, "exit");
  return {
    running,
    ended: () => within(exit, "the end of a stream whose right was withdrawn"),
  };
}

test("who is removed loses his streams within a second, with a reason, and is nobody from then on", async (t) => {
  const at = await house(t);
  const bob = await joined(t, at, "bob");
  const stream = await held(bob, at.address);
  await at.admin("user remove bob");
  await stream.ended();
  assert.match(stream.running.stderr(), /DENIED|withdrawn/);
  const { code, stderr } = await bob.fived(["list", at.address]);
  assert.equal(code, 255);
  assert.match(stderr, /the server refuses what it took before/);
});

test("a grant that a reload takes away cuts the streams that had it, also for who signed in before an earlier reload", async (t) => {
  const at = await house(t);
  const bob = await joined(t, at, "bob");
  const stream = await held(bob, at.address);
  await at.reload(`roles: { crew: [bob, carol] }${SERVICES}`);
  stream.running.child.stdin.write("and now\n");
  await stream.running.line(/^and now$/);
  await at.admin("user add carol --no-password");
  await at.reload(`roles: { crew: [carol] }${SERVICES}`);
  await stream.ended();
  assert.match(stream.running.stderr(), /DENIED|withdrawn/);
  assert.deepEqual(await seen(bob, at.address), ["open"], "he is still somebody, with less");
});

test("a client certificate signs in whom it names and nobody else, and one of another authority nobody", {
  skip: needs("openssl"),
}, async (t) => {
  const guest = await person(t);
  const openssl = async (...args: readonly string[]) => {
    const { execFileSync } = await import("node:child_process");
    execFileSync("openssl", args, { cwd: guest.folder, stdio: "ignore" });
  };
  await fs.writeFile(path.join(guest.folder, "client.ext"), "extendedKeyUsage=clientAuth\n");
  for (const authority of ["ca", "evil"]) {
    const made = [`${authority}.key`, "-out", `${authority}.pem`, "-subj", `/CN=${authority}`, "-days", "2", "-nodes"];
    await openssl("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-keyout", ...made);
    const asked = [`${authority}-alice.key`, "-out", "alice.csr", "-subj", "/CN=alice", "-nodes"];
    await openssl("req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-keyout", ...asked);
    const issuer = ["-CA", `${authority}.pem`, "-CAkey", `${authority}.key`, "-extfile", "client.ext", "-days", "2"];
    await openssl("x509", "-req", "-in", "alice.csr", ...issuer, "-out", `${authority}-alice.pem`);
  }
  await fs.chmod(path.join(guest.folder, "ca.key"), 0o600);
  const tls = ["certificate: ca.pem", "key: ca.key", "clientCa: ca.pem"].map((line) =>
    line.replace(": ", `: ${guest.folder}/`),
  );
  const at = await house(t, `tls: { ${tls.join(", ")} }\nauth: { mechanisms: [cert] }\n${SERVICES}`);
  const shown = (authority: string): readonly string[] => [
    ...["-o", "StrictHostKeyChecking=accept-new", "-o", "BatchMode=yes", "-l", "alice"],
    ...["-o", `TlsCertificate=${guest.folder}/${authority}-alice.pem`],
    ...["-o", `TlsKey=${guest.folder}/${authority}-alice.key`],
  ];
  const names = ["open", "hers"];
  assert.deepEqual(await seen(guest, at.address, ...shown("ca")), names, "waiting for the answer to AUTH");
  assert.deepEqual(await seen(guest, at.address, ...shown("ca")), names, "in one flight");
  const refused = await guest.fived(["list", at.address, ...shown("evil")]);
  assert.equal(refused.code, 255);
  const bob = await guest.fived(["list", at.address, ...shown("ca"), "-l", "bob"]);
  assert.match(bob.stderr, /Cannot sign in at \S+ as alice|Cannot sign in at \S+ as bob/);
  const missing = await guest.fived(["list", at.address, "-o", "TlsCertificate=/none", "-l", "alice"]);
  assert.match(missing.stderr, /^fived: Cannot use the certificate \/none with the key \/none: /m);
});
