/**
 * Group B of the abuse cases at the server's end: TLS asked for in the band, and TLS itself (PROTOCOL §2.2, §4.3). What a client has to
 * bear (T03, T04, T17) is src/client's own test; what needs AUTH or client certificates (T07, T18, T19) comes with those words.
 * @module
 */
import assert from "node:assert/strict";
import { connect as connectSocket } from "node:net";
import test from "node:test";
import { type ConnectionOptions, connect as connectTls, type TLSSocket } from "node:tls";
import { within } from "../support/deadline.ts";
import { backEnd, Victim } from "../support/victim.ts";
import { Enemy } from "./enemy.ts";
import { clientHello, RawTls } from "./raw-tls.ts";

/** What stands behind TLS in the clear: whatever of it is obeyed would have been obeyed for anybody on the way. */
const INJECTED = [
  "AUTH up\r\nmallory\r\n",
  "echo\r\nstolen",
  "LIST\r\n",
  "HOST git.example\r\n",
  "MULTIPLEX\r\n",
  "x",
  "\n",
];

/** OpenSSL's alert in a record of its own. */
const ALERT_HANDSHAKE = 21;

test("B: TLS asked for in the band, and TLS itself", async (t) => {
  let connections = 0;
  const echo = await backEnd(t, (socket) => {
    connections++;
    socket.pipe(socket);
  });
  const victim = await Victim.start(t, {
    services: { echo: { to: echo } },
    hosts: {
      "git.example": { services: { "git-only": { to: echo } } },
      "fived.test": {
        services: { "test-only": { to: echo } },
        tls: { certificate: "own/host.pem", key: "own/host.key" },
      },
    },
    certificates: { own: ["fived.test"] },
    limits: { unauthenticated: { spareLoopback: true } },
  });

  await victim.survives(
    t,
    "T01 plaintext in one segment with TLS: 554, no handshake, and nothing of it is parsed",
    async () => {
      const before = { connections, events: victim.log().length };
      for (const injected of INJECTED) {
        await using enemy = await Enemy.approach(victim.at);
        enemy.say(`TLS\r\n${injected}`);
        assert.match(await enemy.rest(), /^- 554 [ -~]+\r\n$/, JSON.stringify(injected));
      }
      assert.equal(connections, before.connections);
      assert.ok(!victim.program.complained.includes("mallory"));
    },
  );

  await victim.survives(
    t,
    "T02 plaintext behind TLS, cut anywhere: 554, or a record that TLS refuses; never a line",
    async () => {
      const before = connections;
      for (const injected of INJECTED) {
        const octets = `TLS\r\n${injected}`;
        for (let cut = 1; cut < octets.length; cut++) {
          await using enemy = await Enemy.approach(victim.at);
          enemy.say(octets.slice(0, cut));
          // The rest in another segment; or, in every second case, only when the server has answered, if it has anything to answer.
          if (cut % 2 === 0 && cut >= 5) await enemy.until(() => enemy.said !== "", "an answer");
          else await new Promise((resolve) => setImmediate(resolve));
          enemy.say(octets.slice(cut));
          enemy.socket.end();
          await enemy.over();
          assertNotParsed(enemy.said, octets);
        }
        await using enemy = await Enemy.approach(victim.at);
        for (const octet of octets) {
          enemy.say(octet);
          await new Promise((resolve) => setImmediate(resolve));
        }
        enemy.socket.end();
        await enemy.over();
        assertNotParsed(enemy.said, octets);
      }
      assert.equal(connections, before);
    },
  );

  await victim.survives(
    t,
    "T06 what was said before TLS counts for nothing after it: HOST has to be said again",
    async () => {
      await using plain = await Enemy.approach(victim.at);
      plain.say("HOST git.example\r\nLIST git-only\r\n");
      assert.equal(await plain.line(), "+ SUCCESS");
      assert.deepEqual([await plain.line(), await plain.line()], ["git-only", ""]);
      plain.say("TLS\r\n");
      assert.equal(await plain.line(), "+ SUCCESS");
      await using secured = await plain.secure();
      secured.say("LIST git-only\r\nLIST echo\r\n");
      assert.deepEqual([await secured.line(), await secured.line(), await secured.line()], ["", "echo", ""]);
    },
  );

  await victim.survives(t, "T10 nothing older than TLS 1.3, and no cipher but those of TLS 1.3", async () => {
    for (const version of ["TLSv1", "TLSv1.1", "TLSv1.2"] as const) {
      const refused = handshake(victim, { minVersion: "TLSv1", maxVersion: version, ciphers: "ALL:@SECLEVEL=0" });
      await assert.rejects(refused, /alert protocol version|wrong version|unsupported protocol/i, version);
    }
    const socket = await handshake(victim, {});
    assert.equal(socket.getProtocol(), "TLSv1.3");
    assert.match(socket.getCipher().name, /^TLS_/);
    socket.destroy();
    // SSL 2 has no record header: its hello is the first octets of a line. SSL 3 has one, and a version that nobody speaks.
    await using ssl2 = await Enemy.approach(victim.at);
    ssl2.say(`\x80\x2e\x01\x00\x02${"\0".repeat(40)}\r\n`);
    assert.match(await ssl2.rest(), /^- 501 /);
    await using ssl3 = await Enemy.approach(victim.at);
    ssl3.say(`\x16\x03\x00\x00\x2d\x01\x00\x00\x29\x03\x00${"r".repeat(32)}\x00\x00\x02\x00\x0a\x01\x00`);
    await ssl3.over();
    assert.equal(ssl3.said.charCodeAt(0), ALERT_HANDSHAKE);
  });

  await victim.survives(t, "T11 without ALPN, or for another protocol, no line is read, in the band too", async () => {
    const before = connections;
    for (const alpn of [["h2"], ["http/1.1"], ["fived/2", "FIVED/1", "fived/1\0"]]) {
      await assert.rejects(Enemy.approach(victim.at, { tls: { alpn } }), /ECONNRESET|no_application_protocol|SSL/i);
    }
    for (const inBand of [false, true]) {
      await using plain = await Enemy.approach(victim.at);
      if (inBand) {
        plain.say("TLS\r\n");
        assert.equal(await plain.line(), "+ SUCCESS");
      }
      await using enemy = await plain.secure({ alpn: [] });
      enemy.say("LIST\r\necho\r\nstolen");
      await enemy.over();
      assert.equal(enemy.said, "", "without a reply");
    }
    assert.equal(connections, before);
  });

  await victim.survives(
    t,
    "T12 KeyUpdates without end: a second of processor time, and the connection is gone",
    async () => {
      await using tls = await RawTls.handshake(victim.at);
      tls.say("LIST fellow\r\n");
      await tls.hears(/fellow\r\n\r\n/);
      // Made before they are sent: making one costs as much as bearing it.
      const storm = Buffer.concat(Array.from({ length: KEY_UPDATES }, () => tls.keyUpdate()));
      const before = await victim.usage();
      for (let at = 0; at < storm.length && tls.enemy.end === "open"; at += PIECE_BYTES) {
        if (!tls.enemy.say(storm.subarray(at, at + PIECE_BYTES)))
          await tls.enemy.until(() => !tls.enemy.socket.writableNeedDrain || tls.enemy.end !== "open", "room");
      }
      await tls.enemy.over();
      const after = await victim.usage();
      assert.ok(after.heap - before.heap < 1024 * 1024, "nothing is kept of it");
      assert.match(victim.program.complained, /too many records without data/);
    },
  );

  await victim.survives(t, "T12 a KeyUpdate now and then is TLS as it should be", async () => {
    await using tls = await RawTls.handshake(victim.at);
    for (let round = 1; round <= 200; round++) {
      tls.enemy.say(tls.keyUpdate());
      tls.say("LIST fellow\r\n");
      await tls.hears(new RegExp(`^(?:fellow\\r\\n\\r\\n){${round}}$`));
    }
  });

  await victim.survives(
    t,
    "T14 tickets allow no early data, and what is sent early all the same is not obeyed",
    async () => {
      const before = connections;
      await using first = await RawTls.handshake(victim.at);
      first.say("LIST fellow\r\n");
      await first.hears(/fellow\r\n\r\n/);
      for (const ticket of first.tickets) {
        assert.ok(!ticket.extensions.has(EARLY_DATA));
        await using second = await RawTls.handshake(victim.at, { resume: { ticket, earlyData: "echo\r\nearly" } });
        assert.ok(!second.encryptedExtensions.has(EARLY_DATA), "early data is not taken");
        if (!second.established) continue; // ending the handshake is right, too
        second.say("LIST fellow\r\nHELP x\r\n");
        await second.hears(/^fellow\r\n\r\n- 500 /);
      }
      assert.equal(connections, before);
    },
  );

  await victim.survives(t, "T15 whatever stands in SNI, nobody dies of it", async () => {
    const names = [
      Buffer.alloc(0),
      Buffer.alloc(255, "a"),
      Buffer.alloc(60_000, "a"),
      Buffer.from("a\0b"),
      Buffer.from("git.example\0.fived.test"),
      Buffer.from("127.0.0.1"),
      Buffer.from("::1"),
      Buffer.from("[::1]"),
      Buffer.from("__proto__"),
      Buffer.from("constructor"),
      Buffer.from("."),
      Buffer.from("a..b"),
      Buffer.from("xn--"),
      Buffer.from("*.example"),
      Buffer.from("\u001b[2J"),
      Buffer.from([0xff, 0xfe, 0x80]),
      Buffer.from("git.example\r\nLIST"),
    ];
    for (const sni of names) {
      await using tls = await RawTls.handshake(victim.at, { sni });
      if (!tls.established) continue; // an alert is an answer
      tls.say("LIST git-only\r\nLIST fellow\r\n");
      await tls.hears(/^\r\nfellow\r\n\r\n$/); // the default host's services, and no other's
    }
  });

  await victim.survives(t, "T16 a name in SNI is the same in any case, and with a final dot", async () => {
    const seen = new Set<string>();
    for (const sni of ["fived.test", "FIVED.Test", "Fived.Test.", "fived.test."]) {
      const socket = await handshake(victim, { servername: sni });
      seen.add(socket.getPeerX509Certificate()?.fingerprint256 ?? "");
      socket.write("LIST test-only\r\nHELP x\r\n");
      let said = "";
      for await (const octets of socket) said += String(octets);
      assert.match(said, /^test-only\r\n\r\n/, sni);
    }
    assert.equal(seen.size, 1);
  });

  await victim.survives(
    t,
    "T17 who resumes under another name is at that name's host, with that name's services",
    async () => {
      const first = await handshake(victim, { servername: "git.example" });
      first.write("LIST git-only\r\n");
      const session = await within(new Promise<Buffer>((resolve) => first.once("session", resolve)), "a ticket");
      first.destroy();
      const second = await handshake(victim, { servername: "fived.test", session });
      second.write("LIST git-only\r\nLIST test-only\r\nHELP x\r\n");
      let said = "";
      for await (const octets of second) said += String(octets);
      assert.match(said, /^\r\ntest-only\r\n\r\n/);
    },
  );
});

test("B: handshakes that take their time", async (t) => {
  const victim = await Victim.start(t, { limits: { handshake: "500ms", unauthenticated: { spareLoopback: true } } });

  await victim.survives(t, "T08 a handshake that does not go on is over when its time is", async () => {
    const hello = clientHello();
    const ways: Readonly<Record<string, (enemy: Enemy) => Promise<void>>> = {
      "one octet of a record": async (enemy) => void enemy.say(hello.subarray(0, 1)),
      "all but one octet": async (enemy) => void enemy.say(hello.subarray(0, -1)),
      "a whole ClientHello and nothing behind it": async (enemy) => void enemy.say(hello),
      "in the band, and nothing": async (enemy) => {
        enemy.say("TLS\r\n");
        assert.equal(await enemy.line(), "+ SUCCESS");
      },
    };
    for (const [way, begin] of Object.entries(ways)) {
      await using enemy = await Enemy.approach(victim.at);
      const start = performance.now();
      await begin(enemy);
      await enemy.over();
      assert.ok(performance.now() - start > 300, `${way}: not before its time`);
    }
    await using slow = await Enemy.approach(victim.at);
    let octets = 0;
    const trickle = setInterval(() => {
      if (slow.end === "open") slow.say(hello.subarray(octets, ++octets));
    }, 20);
    await slow.over().finally(() => clearInterval(trickle));
    assert.ok(octets < hello.length, "it had not even said hello");
  });
});

/** In a storm of them; more only take longer to make. */
const KEY_UPDATES = 20_000;
/** Octets that are written at once. */
const PIECE_BYTES = 16 * 1_024;
/** Type of the extension. */
const EARLY_DATA = 42;

/** What came must be a refusal, or an acceptance with at most an alert behind it. */
function assertNotParsed(said: string, octets: string): void {
  if (/^- 554 [ -~]+\r\n$/.test(said)) return;
  const accepted = "+ SUCCESS\r\n";
  assert.ok(said.startsWith(accepted), JSON.stringify([octets, said]));
  const behind = said.slice(accepted.length);
  assert.ok(behind === "" || behind.charCodeAt(0) === ALERT_HANDSHAKE, JSON.stringify([octets, said]));
}

/** A TLS client of Node's. */
function handshake(victim: Victim, options: ConnectionOptions): Promise<TLSSocket> {
  const socket = connectTls({
    socket: connectSocket(victim.at),
    rejectUnauthorized: false,
    ALPNProtocols: ["fived/1"],
    ...options,
  });
  return within(
    new Promise((resolve, reject) => socket.once("secureConnect", () => resolve(socket)).once("error", reject)),
    "a handshake",
  );
}
