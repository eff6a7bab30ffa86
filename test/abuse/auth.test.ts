/**
 * Group C of the abuse cases, and what of B, D and L concerns an identity and what it is bound to (PROTOCOL §4.6). What costs equal work is
 * shown where the work is done (`src/server/auth`), what the client does in `src/client/auth`.
 * @module
 */
import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { generateKeyPairSync, type KeyObject } from "node:crypto";
import fs from "node:fs/promises";
import test from "node:test";
import { TLSSocket } from "node:tls";
import {
  keyFingerprint,
  type PublicKey,
  pubkeyMessage,
  publicKeyOf,
  signOctets,
  sshsigOctets,
} from "../../src/identity/index.ts";
import { openUsers } from "../../src/server/auth/users.ts";
import { silentLog } from "../../src/server/log.ts";
import { Code } from "../../src/wire/index.ts";
import { eventually } from "../support/deadline.ts";
import { needs } from "../support/needs.ts";
import { backEnd, Victim } from "../support/victim.ts";
import { data, Enemy, EnemySession, open } from "./enemy.ts";

const TLS = { tls: {} };
const SUCCESS = "Authentication as alice successful";
const REFUSED = "- 403 refused";

/** A key, and the line of it that a user store has. */
function newKey(): { readonly secret: KeyObject; readonly line: string } {
  const { privateKey: secret } = generateKeyPairSync("ed25519");
  const { type, blob } = publicOf(secret);
  return { secret, line: `${type} ${Buffer.from(blob).toString("base64")}` };
}

function publicOf(secret: KeyObject): PublicKey {
  const key = publicKeyOf(secret);
  assert.ok(key);
  return key;
}

/** An AUTH line with a key, made for a connection, a host and a name. */
function pubkeyLine(secret: KeyObject, enemy: Enemy, user: string, host = ""): string {
  const { socket } = enemy;
  assert.ok(socket instanceof TLSSocket);
  const binding = socket.exportKeyingMaterial(32, "EXPORTER-Channel-Binding", Buffer.alloc(0));
  const message = pubkeyMessage({ binding, host, user });
  assert.ok(message);
  const signature = signOctets(secret, sshsigOctets(message));
  assert.ok(signature);
  const words = [user, keyFingerprint(publicOf(secret).blob), Buffer.from(signature).toString("base64url")];
  return `AUTH pubkey ${words.join(" ")}\r\n`;
}

/** Says a password in the form for programs; the last line of the answer. */
async function password(enemy: Enemy, user: string, secret: string): Promise<string> {
  enemy.say(`AUTH up ${user}\r\n`);
  for (const expected of [/^\+ SUCCESS <up>$/, /^\* Enter Password:/]) {
    const line = await enemy.line();
    if (!expected.test(line)) return line;
  }
  enemy.say(`${secret}\r\n`);
  return await enemy.line();
}

/** The result of an AUTH line that says all there is to say. */
async function result(enemy: Enemy, line: string): Promise<string> {
  enemy.say(line);
  const first = await enemy.line();
  return first.startsWith("+ SUCCESS <") ? await enemy.line() : first;
}

/** Whether a list shows the service that is alice's. */
async function seesHers(enemy: Enemy): Promise<boolean> {
  enemy.say("LIST hers\r\n");
  const shown = (await enemy.line()) === "hers";
  if (shown) assert.equal(await enemy.line(), "");
  return shown;
}

test("C: who somebody is", async (t) => {
  const key = newKey();
  const echo = await backEnd(t, (socket) => socket.pipe(socket));
  const says = (text: string) => backEnd(t, (socket) => socket.end(text));
  const victim = await Victim.start(t, {
    services: {
      echo: { to: echo },
      who: { exec: ["/bin/sh", "-c", 'read line; echo "user=$FIVED_USER"'] },
      hers: { to: echo, allow: ["alice"] },
    },
    hosts: {
      "a.example": { services: { hers: { to: await says("a"), allow: ["alice"] } } },
      "b.example": { services: { hers: { to: await says("b"), allow: ["alice"] } } },
    },
    users: [{ name: "alice", password: "secret", keys: [key.line] }],
    limits: { unauthenticated: { spareLoopback: true }, penalties: { spareLoopback: true } },
  });

  await victim.survives(t, "A01 a client that says it is authenticated is not", async () => {
    const claims = [
      SUCCESS,
      "+ SUCCESS",
      "+ SUCCESS <up>",
      `! ${SUCCESS}`,
      "AUTH",
      "AUTH success",
      "AUTH <>",
      "200 OK",
    ];
    for (const claim of claims) {
      await using enemy = await Enemy.approach(victim.at, TLS);
      enemy.say(`${claim}\r\n`);
      assert.match(await enemy.line(), /^- (?:403|404|50[01]) /, claim);
    }
    await using enemy = await Enemy.approach(victim.at, TLS);
    assert.equal(await password(enemy, "alice", SUCCESS), REFUSED);
    assert.equal(await seesHers(enemy), false);
    await using session = await EnemySession.approach(victim.at, TLS);
    session.say(open(1, "AUTH up alice"), data(1, 0, `${SUCCESS}\r\nhers\r\n`));
    await session.hears(1, /- 403 refused\r\n- 404 [ -~]+\r\n$/);
  });

  await victim.survives(t, "L06 nobody has the name of what every object has", async () => {
    for (const name of ["__proto__", "constructor", "toString", "hasOwnProperty"]) {
      await using enemy = await Enemy.approach(victim.at, TLS);
      assert.equal(await password(enemy, name, "secret"), REFUSED, name);
      assert.match(await result(enemy, `AUTH ${name}\r\n`), /^- (?:403|501) /);
    }
  });

  await victim.survives(t, "L15 what somebody claims to be is one line of the log, with controls escaped", async () => {
    await using enemy = await Enemy.approach(victim.at, TLS);
    const name = '\u001b[2J{"level":"info","user":"root"}\u0085';
    enemy.say("AUTH up\r\n");
    await enemy.until(() => enemy.said.endsWith("Enter Username: "), "the question");
    enemy.said = "";
    enemy.say(`${name}\r\n`);
    await enemy.until(() => enemy.said.endsWith("Enter Password: "), "the question");
    enemy.said = "";
    enemy.say("x\r\n");
    assert.equal(await enemy.line(), REFUSED);
    enemy.say(`AUTH up \u001b[31mroot"}\r\n`);
    assert.match(await enemy.line(), /^- 50\d /);
    const lines = victim.log(); // each of them is JSON
    assert.ok(lines.every((line) => line["user"] !== "root"));
    assert.ok(!/[^\n -~]/.test(victim.program.complained), "no control in any line");
  });

  await victim.survives(t, "A11 a stream from before AUTH keeps what it had, and gains nothing", async () => {
    await using session = await EnemySession.approach(victim.at, TLS);
    session.say(open(1, "who"), open(3, "hers"));
    await session.hears(1, /^\+ SUCCESS\r\n$/);
    await session.hears(3, /^- 404 /);
    // A conversation that began as nobody's stays nobody's, also while it is still lines.
    session.say(open(5, "LIST hers"));
    await session.hears(5, /^\r\n$/);
    session.say(open(7, "AUTH up alice"), data(7, 0, "secret\r\n"));
    await session.hears(7, new RegExp(`${SUCCESS}\r\n$`));
    session.say(data(5, 0, "LIST hers\r\nhers\r\n"));
    await session.hears(5, /^\r\n\r\n- 404 /);
    session.say(data(1, 0, "go\r\n", true));
    await session.hears(1, /user=\n$/);
    session.say(open(9, "who"), data(9, 0, "go\r\n", true), open(11, "hers"), data(11, 0, "still"));
    await session.hears(9, /user=alice\n$/);
    await session.hears(11, /^\+ SUCCESS\r\nstill$/);
    // Twice is once too often: an identity is never changed.
    session.say(open(13, "AUTH up alice"));
    await session.hears(13, /^- 503 /);
  });

  await victim.survives(
    t,
    "A13 T19 a signature that somebody in the middle passes on is one for another connection",
    async () => {
      await using victims = await Enemy.approach(victim.at, TLS);
      const line = pubkeyLine(key.secret, victims, "alice");
      await using enemy = await Enemy.approach(victim.at, TLS);
      assert.equal(await result(enemy, line), REFUSED);
      assert.equal(await seesHers(enemy), false);
      assert.equal(await result(victims, line), SUCCESS);
      // Nor is it one for another host, user or form.
      for (const other of [pubkeyLine(key.secret, enemy, "alice", "a.example"), pubkeyLine(key.secret, enemy, "bob")]) {
        assert.equal(await result(enemy, other), REFUSED);
      }
      assert.equal(await result(enemy, pubkeyLine(key.secret, enemy, "alice")), SUCCESS);
    },
  );

  await victim.survives(
    t,
    "H02 AUTH fixes the host: HOST of another is refused behind it, and its services with it",
    async () => {
      await using enemy = await Enemy.approach(victim.at, TLS);
      enemy.say("HOST a.example\r\n");
      assert.equal(await enemy.line(), "+ SUCCESS");
      assert.equal(await result(enemy, pubkeyLine(key.secret, enemy, "alice", "a.example")), SUCCESS);
      for (const name of ["b.example", "localhost"]) {
        enemy.say(`HOST ${name}\r\n`);
        assert.match(await enemy.line(), /^- 421 /, name);
      }
      enemy.say("HOST a.example\r\nhers\r\n");
      assert.deepEqual([await enemy.line(), await enemy.line()], ["+ SUCCESS", "+ SUCCESS"]);
      assert.equal(await enemy.rest(), "a");
      // In a session AUTH is for its own host, whatever host a stream is at.
      await using session = await EnemySession.approach(victim.at, TLS);
      session.say(open(1, "HOST a.example"), data(1, 0, "AUTH up alice\r\n"));
      await session.hears(1, /^\+ SUCCESS\r\n- 421 /);
    },
  );

  await victim.survives(t, "T07 AUTH in the clear is refused before a word of it is looked at", async () => {
    for (const line of ["AUTH up alice", "AUTH up", "AUTH __proto__", "AUTH pubkey alice x y", "AUTH"]) {
      await using enemy = await Enemy.approach(victim.at);
      enemy.say(`${line}\r\n`);
      assert.match(await enemy.line(), /^- 530 /, line);
    }
  });

  await victim.survives(t, "A11 who is gone from the store has no session and no stream any more", async () => {
    await using enemy = await Enemy.approach(victim.at, TLS);
    assert.equal(await password(enemy, "alice", "secret"), SUCCESS);
    await using session = await EnemySession.on(enemy);
    session.say(open(1, "hers"), open(3, "echo"));
    await session.hears(1, /^\+ SUCCESS/);
    await session.hears(3, /^\+ SUCCESS/);
    using store = await openUsers({ folder: victim.lab.path("server"), log: silentLog });
    await store.remove("alice");
    assert.equal(await session.over(), Code.DENIED);
    await using again = await Enemy.approach(victim.at, TLS);
    assert.equal(await password(again, "alice", "secret"), REFUSED);
  });
});

test("T07 where AUTH may be in the clear, the identity ends where TLS begins", async (t) => {
  const victim = await Victim.start(t, {
    auth: { plaintext: true },
    services: { hers: { to: await backEnd(t, (socket) => socket.pipe(socket)), allow: ["alice"] } },
    users: [{ name: "alice", password: "secret" }],
    limits: { unauthenticated: { spareLoopback: true }, penalties: { spareLoopback: true } },
  });
  await using enemy = await Enemy.approach(victim.at);
  assert.equal(await password(enemy, "alice", "secret"), SUCCESS);
  assert.equal(await seesHers(enemy), true);
  enemy.say("TLS\r\n");
  assert.equal(await enemy.line(), "+ SUCCESS");
  await using secure = await enemy.secure();
  assert.equal(await seesHers(secure), false);
});

test("A03 3,000 dialogues that reach their deadline together are over together, and no descriptor is left", async (t) => {
  const victim = await Victim.start(t, {
    auth: { plaintext: true },
    users: [{ name: "alice", password: "secret" }],
    limits: {
      betweenLines: "2s",
      unauthenticated: { spareLoopback: true },
      penalties: { spareLoopback: true },
    },
  });
  const { descriptors } = await victim.usage();
  const enemies = await Promise.all(Array.from({ length: 3_000 }, () => Enemy.approach(victim.at)));
  t.after(() => {
    for (const enemy of enemies) enemy.socket.destroy();
  });
  for (const enemy of enemies) enemy.say("AUTH up alice\r\n");
  await Promise.all(
    enemies.map((enemy) => enemy.until(() => enemy.said.includes("* Enter Password:"), "the question")),
  );
  const ends = await Promise.all(
    enemies.map(async (enemy) => {
      assert.match(await enemy.rest(), /\r\n- 408 [ -~]+\r\n$/);
      enemy.socket.end();
    }),
  );
  assert.equal(ends.length, enemies.length);
  await victim.serves();
  await eventually(async () => {
    const left = (await victim.usage()).descriptors - descriptors;
    assert.ok(left <= 0, `${left} descriptors are left`);
  }, "the descriptors that the dialogues took");
});

test("A04 who guesses has four tries a connection and is then refused at the door, for all names; others are not", async (t) => {
  const names = Array.from({ length: 100 }, (_, index) => `user-${index}`);
  const victim = await Victim.start(t, {
    users: [{ name: "alice", password: "secret" }, ...names.map((name) => ({ name, password: "hunter2" }))],
    limits: { unauthenticated: { spareLoopback: true } },
  });
  let judged = 0;
  let refusedAtTheDoor = 0;
  for (let guess = 0; guess < 1_000; ) {
    const enemy = await Enemy.approach(victim.at, { from: "127.0.0.9", ...TLS }).catch(() => undefined);
    if (enemy === undefined) {
      refusedAtTheDoor++;
      guess++;
      continue;
    }
    await using _leaves = enemy;
    for (let tries = 1; tries <= 4; tries++, guess++) {
      const answer = await password(enemy, names[guess % names.length] ?? "", `guess-${guess}`);
      judged++;
      assert.match(answer, tries < 4 ? /^- 403 / : /^- 429 /);
    }
    assert.equal(await enemy.rest(), "");
  }
  assert.equal(judged, 4);
  assert.equal(refusedAtTheDoor, 996);
  await using other = await Enemy.approach(victim.at, { from: "127.0.0.10", ...TLS });
  assert.equal(await password(other, "alice", "secret"), SUCCESS);
  assert.equal(victim.log().filter(({ msg }) => msg === "sign-in refused").length, 4);
});

test("T18 a client certificate that does not count fails as any wrong proof; a chain too long ends the handshake", {
  skip: needs("openssl"),
}, async (t) => {
  const folder = await fs.mkdtemp("/tmp/fived-t18-");
  t.after(() => fs.rm(folder, { recursive: true, force: true }));
  const openssl = (...args: readonly string[]) => execFileSync("openssl", args, { cwd: folder, stdio: "pipe" });
  const ec = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"];
  for (const ca of ["ca", "evil"])
    openssl("req", "-x509", ...ec, "-keyout", `${ca}.key`, "-out", `${ca}.pem`, "-subj", `/CN=${ca}`, "-days", "2");
  await fs.writeFile(`${folder}/index.txt`, "");
  const authority =
    "database=index.txt\nnew_certs_dir=.\nrand_serial=yes\npolicy=p\ndefault_md=sha256\nunique_subject=no";
  await fs.writeFile(`${folder}/ca.cnf`, `[ca]\ndefault_ca=d\n[d]\n${authority}\n[p]\ncommonName=supplied\n`);
  const issue = async (name: string, ca: string, usage: string, year: number) => {
    await fs.writeFile(`${folder}/ext`, `extendedKeyUsage=${usage}\n`);
    openssl("req", ...ec, "-keyout", `${name}.key`, "-out", `${name}.csr`, "-subj", "/CN=alice");
    const by = ["-config", "ca.cnf", "-cert", `${ca}.pem`, "-keyfile", `${ca}.key`, "-extfile", "ext", "-notext"];
    const time = ["-startdate", "20200101000000Z", "-enddate", `${year}0101000000Z`];
    openssl("ca", "-batch", ...by, ...time, "-in", `${name}.csr`, "-out", `${name}.pem`);
  };
  await issue("good", "ca", "clientAuth", 2049);
  await issue("expired", "ca", "clientAuth", 2021);
  await issue("unknown", "evil", "clientAuth", 2049);
  await issue("server", "ca", "serverAuth", 2049);
  const pem = (name: string) => fs.readFile(`${folder}/${name}`, "utf8");
  // One authority's certificate over and over is a chain nobody needs.
  await fs.writeFile(`${folder}/long.pem`, (await pem("good.pem")) + (await pem("ca.pem")).repeat(120));
  await fs.copyFile(`${folder}/good.key`, `${folder}/long.key`);
  const victim = await Victim.start(t, {
    auth: { mechanisms: ["cert"] },
    tls: { certificate: `${folder}/ca.pem`, key: `${folder}/ca.key`, clientCa: `${folder}/ca.pem` },
    services: { hers: { to: await backEnd(t, (socket) => socket.pipe(socket)), allow: ["alice"] } },
    limits: { unauthenticated: { spareLoopback: true }, penalties: { spareLoopback: true } },
  });
  const shown = async (name: string) => ({ cert: await pem(`${name}.pem`), key: await pem(`${name}.key`) });
  for (const [name, answer] of [
    ["good", SUCCESS],
    ["expired", REFUSED],
    ["unknown", REFUSED],
    ["server", REFUSED],
  ] as const) {
    await using enemy = await Enemy.approach(victim.at, { tls: await shown(name) });
    assert.equal(await result(enemy, "AUTH cert\r\n"), answer, name);
  }
  await using without = await Enemy.approach(victim.at, TLS);
  assert.equal(await result(without, "AUTH cert alice\r\n"), REFUSED);
  await using long = await Enemy.approach(victim.at, { tls: await shown("long") });
  long.say("LIST hers\r\n");
  await long.over();
  assert.equal(long.said, "", "nobody was answered");
  await victim.serves();
});
