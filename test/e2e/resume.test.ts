/**
 * Sessions that outlive their connections, with real processes: nothing is lost or doubled, whatever happens in between.
 * @module
 */
import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import { once } from "node:events";
import fs from "node:fs/promises";
import test from "node:test";
import { setTimeout as pause } from "node:timers/promises";
import { attach, type ConnectOptions, connect } from "../../src/client/index.ts";
import { Random, seed } from "../sim/seed.ts";
import { hashOfFile, writeBulk } from "../support/bulk.ts";
import { eventually, within } from "../support/deadline.ts";
import { client } from "../support/fived.ts";
import { Lab } from "../support/lab.ts";
import { needs } from "../support/needs.ts";
import { Relay } from "../support/relay.ts";
import { backEnd, Victim } from "../support/victim.ts";

const MEGABYTES = 64;
const CUTS = 1_000;
/** Octets between two cuts, both ways together: on average so many that the cuts are spread over the transfer. */
const BETWEEN_BYTES = 220_000;
/** So many times one end is not told, and has to find out. */
const UNTOLD = 4;
/** What a client may hold more of than it did after a fifth of the cuts. */
const RSS_KIB_MORE_MAX = 32 * 1_024;
/** What the server may hold more of when all is over. */
const SERVER_MORE_MAX = 8 * 1_024 * 1_024;

test("D27 connections are cut 1,000 times under 64 MB each way", async (t) => {
  const echo = await backEnd(t, (socket) => socket.pipe(socket));
  const victim = await Victim.start(t, {
    services: { echo: { to: echo } },
    sessions: { detach: { anonymous: 4, attaches: 1_000_000 } },
    limits: { unauthenticated: { spareLoopback: true } },
  });
  await t.test("every octet once, both ways, and neither end grows", async (t) => {
    const before = await victim.usage();
    const random = new Random(seed);
    const relay = await Relay.to(t, victim.at);
    const [said, heard] = [victim.lab.path("said"), victim.lab.path("heard")];
    const hash = await writeBulk(said, MEGABYTES);
    const command = client("connect", `127.0.0.1:${relay.port}`, "echo");
    const shell = 'said=$1; heard=$2; shift 2; exec "$@" <"$said" >"$heard"';
    let cuts = 0;
    let next = 1_000_000 + random.between(0, BETWEEN_BYTES); // the ticket has come by then
    let early = Promise.resolve(0);
    relay.passed = () => {
      if (relay.relayed < next || cuts >= CUTS) return;
      next = relay.relayed + random.between(0, BETWEEN_BYTES);
      cuts++;
      if (cuts % (CUTS / UNTOLD) !== 0) relay.cut();
      else relay.forget(random.pick(["client", "server"]));
      if (cuts === CUTS / 5) early = residentKib(program.pid);
      if (cuts === CUTS) late = residentKib(program.pid);
    };
    let late = Promise.resolve(0);
    const program = victim.lab.start(["sh", "-c", shell, "sh", said, heard, ...command]);
    assert.equal(await within(program.ended, "the end of the transfer", { ms: 60_000 }), 0, program.complained);
    assert.equal(cuts, CUTS, `${relay.relayed} octets went through`);
    assert.equal((await fs.stat(heard)).size, MEGABYTES * 1_000_000);
    assert.equal(await hashOfFile(heard), hash);
    const more = (await late) - (await early);
    assert.ok(more < RSS_KIB_MORE_MAX, `the client has grown by ${more} KiB`);
    // Not what is resident, as that is: a thousand TLS connections leave the allocator in pieces.
    await eventually(async () => {
      const held = (await victim.usage()).heap - before.heap;
      assert.ok(held < SERVER_MORE_MAX, `the server holds ${held} octets more`);
    }, "the server to let go");
    await victim.serves();
    t.diagnostic(`${relay.accepted} connections; the client grew by ${more} KiB between the first cuts and the last`);
  });
});

async function residentKib(pid: number): Promise<number> {
  const [, kib] = /VmRSS:\s+(\d+) kB/.exec(await fs.readFile(`/proc/${pid}/status`, "utf8")) ?? [];
  return Number(kib);
}

const MEBIBYTE = 1024 * 1024;
/** Three times what it takes the server to give up a connection: see the configuration. */
const STOPPED_MS = 2_700;

test("S05 processes that are stopped for longer than it takes to be dead, and whose session can be attached to", async (t) => {
  const echo = await backEnd(t, (socket) => socket.pipe(socket));
  const victim = await Victim.start(t, {
    services: { echo: { to: echo } },
    sessions: { detach: { anonymous: 4 } },
    limits: { keepalive: { interval: "300ms", misses: 2 }, unauthenticated: { spareLoopback: true } },
  });

  await victim.survives(t, "a client is parked, and goes on when it can: not an octet is lost", async () => {
    const [said, heard] = [victim.lab.path("said"), victim.lab.path("heard")];
    const hash = await writeBulk(said, 8);
    const relay = await Relay.to(t, victim.at);
    const command = client("connect", `127.0.0.1:${relay.port}`, "echo");
    const program = victim.lab.start(["sh", "-c", 'heard=$1; shift; exec "$@" >"$heard"', "sh", heard, ...command]);
    const octets = await fs.readFile(said);
    program.says(octets.subarray(0, MEBIBYTE));
    await eventually(async () => assert.ok((await fs.stat(heard)).size > 0), "the first octets");
    program.signal("SIGSTOP");
    const parked = () => victim.log().some(({ msg }) => msg === "session detached");
    await eventually(async () => assert.ok(parked()), "the server to give the connection up");
    program.says(octets.subarray(MEBIBYTE));
    program.hangsUp();
    program.signal("SIGCONT");
    assert.equal(await within(program.ended, "the end of the transfer", { ms: 20_000 }), 0, program.complained);
    assert.equal(await hashOfFile(heard), hash);
    assert.ok(relay.accepted >= 2, "over another connection");
  });

  await victim.survives(t, "a server is asked again until it can answer, and gives up nobody", async () => {
    await using session = await connect(`127.0.0.1:${victim.at.port}`, {
      knownHosts: victim.lab.path("known_hosts"),
      strictHostKeyChecking: "accept-new",
    });
    const stream = session.open("echo");
    const said = randomBytes(8 * MEBIBYTE);
    const heard: Buffer[] = [];
    const over = new Promise<void>((resolve, reject) => stream.once("end", resolve).once("error", reject));
    stream.on("data", (octets: Buffer) => heard.push(octets));
    stream.write(said.subarray(0, MEBIBYTE));
    await eventually(async () => assert.ok(heard.length > 0), "the first octets");
    stream.end(said.subarray(MEBIBYTE));
    victim.program.signal("SIGSTOP");
    await pause(STOPPED_MS); // nothing happens in a process that is stopped: only time passes
    victim.program.signal("SIGCONT");
    await within(over, "everything to come through");
    assert.ok(Buffer.concat(heard).equals(said));
  });
});

test("who has signed in with a certificate goes on with it, and nobody else does", {
  skip: needs("openssl"),
}, async (t) => {
  const lab = await Lab.open(t);
  const folder = await lab.makeFolder("certificates");
  const openssl = async (...args: readonly string[]): Promise<void> => {
    const { status, stderr } = await lab.run(["openssl", ...args], { cwd: folder });
    assert.equal(status, 0, stderr);
  };
  const curve = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"];
  await fs.writeFile(`${folder}/client.ext`, "extendedKeyUsage=clientAuth\n");
  await openssl("req", "-x509", ...curve, "-keyout", "ca.key", "-out", "ca.pem", "-subj", "/CN=ca", "-days", "2");
  for (const file of ["alice", "again"]) {
    await openssl("req", ...curve, "-keyout", `${file}.key`, "-out", `${file}.csr`, "-subj", "/CN=alice");
    const issuer = ["-CA", "ca.pem", "-CAkey", "ca.key", "-extfile", "client.ext", "-days", "2"];
    await openssl("x509", "-req", "-in", `${file}.csr`, ...issuer, "-out", `${file}.pem`);
  }
  await fs.chmod(`${folder}/ca.key`, 0o600);
  const echo = await backEnd(t, (socket) => socket.pipe(socket));
  const victim = await Victim.start(t, {
    services: { echo: { to: echo, allow: ["alice"] } },
    users: [{ name: "alice" }],
    auth: { mechanisms: ["cert"] },
    tls: { certificate: `${folder}/ca.pem`, key: `${folder}/ca.key`, clientCa: `${folder}/ca.pem` },
    limits: { unauthenticated: { spareLoopback: true } },
  });
  const relay = await Relay.to(t, victim.at);
  const options = (file: string): ConnectOptions => ({
    knownHosts: victim.lab.path("known_hosts"),
    strictHostKeyChecking: "accept-new",
    certificate: { certificate: `${folder}/${file}.pem`, key: `${folder}/${file}.key` },
    auth: { user: "alice", mechanisms: ["cert"] },
  });
  await using session = await connect(`127.0.0.1:${relay.port}`, options("alice"));
  const stream = session.open("echo");
  const echoed = async (word: string): Promise<void> => {
    const heard = within(once(stream, "data"), "an echo");
    stream.write(word);
    assert.equal(String((await heard)[0]), word);
  };
  await echoed("one");
  for (const word of ["two", "three"]) {
    relay.cut();
    await echoed(word);
  }
  const token = await session.detach().finally(() => stream.on("error", () => {}));
  await assert.rejects(attach(token, options("again")), { code: "SESSION_LOST", message: /\(403\)/ });
  const { session: elsewhere, streams } = await attach(token, options("alice"));
  await using _elsewhere = elsewhere;
  const [first] = streams;
  assert.ok(first !== undefined);
  first.stream.write("four");
  assert.equal(String((await within(once(first.stream, "data"), "an echo"))[0]), "four");
  first.stream.on("error", () => {}); // it ends with its session
});
