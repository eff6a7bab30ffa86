/**
 * Rules of PROTOCOL.md that a transcript cannot show, of a real server: how it closes, what HOST and SNI mean to one another, what TLS
 * demands, how long it waits, and what becomes of streams when it is told something else, or to stop.
 * @module
 */
import assert from "node:assert/strict";
import { once } from "node:events";
import test from "node:test";
import { setTimeout as pause } from "node:timers/promises";
import { connect as connectTls, TLSSocket } from "node:tls";
import { Code } from "../../src/wire/index.ts";
import { within } from "../support/deadline.ts";
import { freePort } from "../support/lab.ts";
import { CARRIERS, Connection, type Conversation, multiplex, Stream } from "./by-hand.ts";
import { type Served, type ServiceSetUp, type SetUp, serveSetUp } from "./set-up.ts";

const echo: ServiceSetUp = { name: "echo", allow: "anyone", does: "echo" };
const ONE: SetUp = { services: [echo] };

function line(text: string): Uint8Array {
  return Buffer.from(`${text}\r\n`);
}

/** Says a line, and gives the answer's first. */
async function answer(conversation: Conversation, text: string): Promise<string> {
  await conversation.say(line(text));
  return await conversation.ear.line();
}

/** The services that LIST shows there. */
async function listed(conversation: Conversation): Promise<string[]> {
  await conversation.say(line("LIST"));
  const lines: string[] = [];
  for (let each = await conversation.ear.line(); each !== ""; each = await conversation.ear.line()) lines.push(each);
  return lines.filter((name) => name !== name.toUpperCase());
}

// ---- closing ----------------------------------------------------------------------------------------------------------------------

for (const [carrier, open] of Object.entries(CARRIERS))
  test(`§3.7: a refusal is heard, though the client goes on talking, over ${carrier}`, async (t) => {
    const { at } = await serveSetUp(t, ONE);
    await using conversation = await open(at, "whole");
    // More than fits any buffer on the way, and than the credit of a stream: the server reads and drops it, or says that it reads no more.
    const payload = Buffer.alloc(60_000, "LIST\r\n");
    await conversation.say(Buffer.concat([line("nonexistent"), payload]));
    assert.match(await conversation.ear.line(), /^- 404 /);
    await conversation.over();
  });

test("§3.1: a line without an end is refused, and the connection is closed in order while it still comes", async (t) => {
  const { at } = await serveSetUp(t, ONE);
  for (const carrier of ["bare plaintext", "TLS in-band"] as const) {
    await using connection = await CARRIERS[carrier](at, "whole");
    await connection.say(Buffer.alloc(1_025, "a"));
    assert.match(await connection.ear.line(), /^- 500 /);
    // Within the second for which the server listens on: nothing of it may turn the end that we have not read yet into a reset.
    for (let times = 0; times < 5; times++) {
      await connection.say(Buffer.alloc(16_384, "a"));
      await pause(20);
    }
    await connection.over();
  }
});

test("§3.7: who does not follow is cut off after a second", async (t) => {
  const { at } = await serveSetUp(t, ONE);
  await using connection = await Connection.open(at);
  await connection.say(line("nonexistent"));
  const start = performance.now();
  await once(connection.socket, "end");
  // Writing is how one learns that the other has gone for good.
  const gone = new Promise((resolve) => connection.socket.once("close", resolve));
  const talk = setInterval(() => connection.socket.write("x"), 50);
  await within(gone, "the end").finally(() => clearInterval(talk));
  assert.ok(performance.now() - start > 900);
});

// ---- HOST -------------------------------------------------------------------------------------------------------------------------

const HOSTS: SetUp = {
  services: [{ name: "of-default", allow: "anyone", does: "echo" }],
  hosts: {
    "a.example": { services: [{ name: "of-a", allow: "anyone", does: "echo" }] },
    "b.example": { services: [{ name: "of-b", allow: "anyone", does: "echo" }] },
    "apart.example": { services: [{ name: "of-apart", allow: "anyone", does: "echo" }], apart: true },
    "also.apart.example": { services: [], apart: true },
  },
};

async function inTls({ at }: Served, sni?: string): Promise<Connection> {
  const connection = await Connection.open(at);
  await connection.secure(sni === undefined ? {} : { sni });
  return connection;
}

test("§2.2: SNI selects a host whatever its case and final dot, and any other name the default host", async (t) => {
  const served = await serveSetUp(t, HOSTS);
  for (const [sni, services, names] of [
    ["a.example", ["of-a"], "a.example"],
    ["A.eXample", ["of-a"], "a.example"],
    ["apart.example", ["of-apart"], "apart.example"],
    ["nowhere.example", ["of-default"], "a.example"],
    ["localhost", ["of-default"], "a.example"],
    [undefined, ["of-default"], "a.example"],
  ] as const) {
    await using connection = await inTls(served, sni);
    assert.deepEqual(await listed(connection), services, sni);
    assert.ok(connection.socket instanceof TLSSocket);
    assert.ok(connection.socket.getPeerX509Certificate()?.checkHost(names) !== undefined, `${sni} is shown ${names}`);
  }
});

test("§4.5: HOST moves within the host group of the one that SNI named, and outside it is 421 and changes nothing", async (t) => {
  const served = await serveSetUp(t, HOSTS);
  await using connection = await inTls(served, "a.example");
  assert.equal(await answer(connection, "HOST a.example"), "+ SUCCESS");
  assert.equal(await answer(connection, "HOST B.example."), "+ SUCCESS");
  assert.deepEqual(await listed(connection), ["of-b"]);
  assert.match(await answer(connection, "HOST apart.example"), /^- 421 /);
  assert.deepEqual(await listed(connection), ["of-b"]);
  assert.match(await answer(connection, "HOST nowhere.example"), /^- 404 /);
  assert.deepEqual(await listed(connection), ["of-b"]);
  assert.equal(await answer(connection, "HOST 192.0.2.7"), "+ SUCCESS");
  assert.deepEqual(await listed(connection), ["of-default"]);
  await using apart = await inTls(served, "apart.example");
  for (const name of ["a.example", "localhost", "[::1]", "also.apart.example"])
    assert.match(await answer(apart, `HOST ${name}`), /^- 421 /, name);
  assert.equal(await answer(apart, "HOST apart.example"), "+ SUCCESS");
});

test("§4.5: where SNI named no host, HOST is free", async (t) => {
  const served = await serveSetUp(t, HOSTS);
  for (const open of [() => inTls(served), () => inTls(served, "nowhere.example"), () => Connection.open(served.at)]) {
    await using connection = await open();
    for (const [name, service] of [
      ["a.example", "of-a"],
      ["apart.example", "of-apart"],
      ["localhost", "of-default"],
    ] as const) {
      assert.equal(await answer(connection, `HOST ${name}`), "+ SUCCESS");
      assert.deepEqual(await listed(connection), [service]);
    }
  }
});

test("§4.5: in a stream HOST holds for that stream, within the host group of the session", async (t) => {
  const served = await serveSetUp(t, HOSTS);
  await using connection = await inTls(served, "a.example");
  const frames = await multiplex(connection);
  const [first, second] = [1, 3].map((id) => new Stream(connection, frames, id, "whole"));
  assert.ok(first !== undefined && second !== undefined);
  assert.equal(await answer(first, "HOST b.example"), "+ SUCCESS");
  assert.deepEqual(await listed(first), ["of-b"]);
  assert.deepEqual(await listed(second), ["of-a"]);
  assert.match(await answer(second, "HOST apart.example"), /^- 421 /);
  assert.equal(await answer(second, "of-a"), "+ SUCCESS");
  assert.match(await answer(first, "of-a"), /^- 404 /);
  await first.over();
});

test("§4.4: a session has the host of the conversation that became it", async (t) => {
  const served = await serveSetUp(t, HOSTS);
  await using connection = await Connection.open(served.at);
  assert.equal(await answer(connection, "HOST apart.example"), "+ SUCCESS");
  const frames = await multiplex(connection);
  assert.deepEqual(await listed(new Stream(connection, frames, 1, "whole")), ["of-apart"]);
  assert.match(await answer(new Stream(connection, frames, 3, "whole"), "HOST a.example"), /^- 421 /);
});

test("§4.3: TLS in-band forgets the host that was named in the clear", async (t) => {
  const served = await serveSetUp(t, HOSTS);
  await using connection = await Connection.open(served.at);
  assert.equal(await answer(connection, "HOST a.example"), "+ SUCCESS");
  assert.equal(await answer(connection, "TLS"), "+ SUCCESS");
  await connection.secure();
  assert.deepEqual(await listed(connection), ["of-default"]);
});

// ---- TLS --------------------------------------------------------------------------------------------------------------------------

for (const band of ["from the first octet", "in-band"] as const) {
  test(`§2.2: TLS ${band} without ALPN ends behind the handshake, without a reply`, async (t) => {
    const { at } = await serveSetUp(t, ONE);
    await using connection = await Connection.open(at);
    if (band === "in-band") assert.equal(await answer(connection, "TLS"), "+ SUCCESS");
    await connection.secure({ alpn: [] });
    await connection.say(line("LIST"));
    await connection.ear.lost();
    assert.equal(connection.ear.rest().length, 0);
  });

  test(`§2.2: TLS ${band} with the ALPN of another protocol gets the alert for that`, async (t) => {
    const { at } = await serveSetUp(t, ONE);
    await using connection = await Connection.open(at);
    if (band === "in-band") assert.equal(await answer(connection, "TLS"), "+ SUCCESS");
    await assert.rejects(connection.secure({ alpn: ["h2", "http/1.1"] }), {
      code: "ERR_SSL_TLSV1_ALERT_NO_APPLICATION_PROTOCOL",
    });
  });
}

test("§2.1: inside TLS the first octet of a handshake begins a line, and none that is a request", async (t) => {
  const { at } = await serveSetUp(t, ONE);
  await using connection = await CARRIERS["TLS from the first octet"](at, "whole");
  assert.match(await answer(connection, "\x16\x03\x01"), /^- 501 /);
  await connection.over();
});

test("§2.2: nothing older than TLS 1.3 is spoken", async (t) => {
  const { at } = await serveSetUp(t, ONE);
  const socket = connectTls({ ...at, rejectUnauthorized: false, ALPNProtocols: ["fived/1"], maxVersion: "TLSv1.2" });
  await assert.rejects(once(socket, "secureConnect"), { code: "ERR_SSL_TLSV1_ALERT_PROTOCOL_VERSION" });
});

test("§4.3: what follows the TLS line in segments of its own is never read as a line (T02)", async (t) => {
  const { at } = await serveSetUp(t, ONE);
  for (const waitMs of [0, 1, 5, 20]) {
    await using connection = await Connection.open(at);
    await connection.say(line("TLS"));
    await pause(waitMs);
    await connection.say(line("LIST"));
    await connection.ear.lost();
    const said = connection.ear.rest().toString("latin1");
    // Either it was there in time to be refused, or it is the first record of a handshake, and none.
    assert.doesNotMatch(said, /LIST|MULTIPLEX|echo/);
    assert.match(said, /^(?:- 554 [ -~]+\r\n$|\+ SUCCESS\r\n)/);
  }
});

// ---- deadlines --------------------------------------------------------------------------------------------------------------------

test("§3.6: the time for the first line begins with the connection, not with its first octet", async (t) => {
  const { at } = await serveSetUp(t, ONE, { limits: { firstLine: "1500ms" } });
  await using connection = await Connection.open(at);
  const start = performance.now();
  await pause(1_200);
  await connection.say(Buffer.from("LIS"));
  assert.match(await connection.ear.line(), /^- 408 /);
  assert.ok(performance.now() - start < 2_600, "one deadline, not one each");
  await connection.over();
});

for (const [carrier, open] of Object.entries(CARRIERS))
  test(`§3.6: further lines have their own deadline, over ${carrier}`, async (t) => {
    const { at } = await serveSetUp(t, ONE, { limits: { firstLine: "10s", betweenLines: "300ms" } });
    await using conversation = await open(at, "whole");
    assert.deepEqual(await listed(conversation), ["echo"]);
    const start = performance.now();
    // Single octets do not count.
    for (const octet of "HEL") {
      await conversation.say(Buffer.from(octet));
      await pause(50);
    }
    assert.match(await conversation.ear.line(), /^- 408 /);
    assert.ok(performance.now() - start >= 290);
    await conversation.over();
  });

test("§3.6: a joined conversation has no deadline for lines", async (t) => {
  const { at } = await serveSetUp(t, ONE, { limits: { firstLine: "100ms", betweenLines: "100ms" } });
  await using connection = await Connection.open(at);
  assert.equal(await answer(connection, "echo"), "+ SUCCESS");
  await pause(300);
  assert.equal(await answer(connection, "still here"), "still here");
});

test("§3.6: a handshake that does not go on is cut off", async (t) => {
  const { at } = await serveSetUp(t, ONE, { limits: { handshake: "200ms" } });
  for (const band of ["from the first octet", "in-band"] as const) {
    await using connection = await Connection.open(at);
    if (band === "in-band") assert.equal(await answer(connection, "TLS"), "+ SUCCESS");
    await connection.say(Buffer.from([0x16, 3, 1]));
    await connection.ear.lost();
    assert.equal(connection.ear.rest().length, 0, band);
  }
});

// ---- other services, and the end --------------------------------------------------------------------------------------------------

const OTHERS: SetUp = {
  services: [echo, { name: "other", allow: "anyone", does: "echo" }],
  hosts: { "a.example": { services: [echo] } },
};

/** A stream of each kind, in use. */
async function inUse(served: Served, service: string): Promise<readonly Conversation[]> {
  const conversations: Conversation[] = [];
  for (const open of Object.values(CARRIERS)) {
    const conversation = await open(served.at, "whole");
    assert.equal(await answer(conversation, service), "+ SUCCESS");
    conversations.push(conversation);
  }
  return conversations;
}

async function disposeOf(conversations: readonly Conversation[]): Promise<void> {
  for (const conversation of conversations) await conversation[Symbol.asyncDispose]();
}

test("§4.11: a stream whose caller may no longer use its service is cut, and no other is", async (t) => {
  const served = await serveSetUp(t, OTHERS);
  const using = await inUse(served, "ECHO");
  const others = await inUse(served, "other");
  t.after(() => disposeOf([...using, ...others]));
  await served.reload({ ...OTHERS, services: [{ ...echo, allow: "ops" }, ...OTHERS.services.slice(1)] });
  for (const conversation of using) {
    const why = await conversation.ear.lost();
    if (conversation instanceof Stream) assert.equal(why?.message, `RESET ${Code.DENIED}`);
    // Inside TLS a cut is an end without close_notify, and Node does not tell it from one with it.
    if (conversation instanceof Connection && !(conversation.socket instanceof TLSSocket))
      assert.match(`${why?.message}`, /ECONNRESET/);
  }
  await goOn(others);
});

test("§4.11: a service that is no longer offered lets those finish who are there", async (t) => {
  const served = await serveSetUp(t, OTHERS);
  const using = await inUse(served, "ECHO");
  t.after(() => disposeOf(using));
  await served.reload({ ...OTHERS, services: OTHERS.services.slice(1) });
  await goOn(using);
});

async function goOn(conversations: readonly Conversation[]): Promise<void> {
  for (const conversation of conversations) {
    assert.equal(await answer(conversation, "still here"), "still here");
    await conversation.end();
    await conversation.over();
  }
}

test("§4.11: a service of the same name at another host is another service", async (t) => {
  const served = await serveSetUp(t, OTHERS);
  await using connection = await Connection.open(served.at);
  assert.equal(await answer(connection, "HOST a.example"), "+ SUCCESS");
  assert.equal(await answer(connection, "echo"), "+ SUCCESS");
  await served.reload({ ...OTHERS, services: [] });
  assert.equal(await answer(connection, "still here"), "still here");
  await served.reload({ ...OTHERS, hosts: { "a.example": { services: [{ ...echo, allow: "ops" }] } } });
  assert.ok((await connection.ear.lost()) instanceof Error);
});

test("an address that stays is listened at all the time, whatever else is said of it, and however often", async (t) => {
  const listen = { url: `tcp://127.0.0.1:${await freePort()}`, plaintext: false };
  const served = await serveSetUp(t, ONE, { listen });
  await using connection = await Connection.open(served.at);
  await served.reload({ services: [] }, { listen: { ...listen, plaintext: true } });
  const both = { listen: [listen, { url: "unix:socket", plaintext: false }] };
  await Promise.all([served.reload(OTHERS, both), served.reload(OTHERS, both)]);
  assert.equal(served.server.addresses.length, 2);
  assert.deepEqual(await listed(connection), ["echo", "other"]);
  await using another = await Connection.open(served.at);
  assert.equal(await answer(another, "other"), "+ SUCCESS");
});

test("§9.3: a server that is told to stop does not wait for handshakes", async (t) => {
  const served = await serveSetUp(t, ONE);
  await using stalled = await Connection.open(served.at);
  await stalled.say(Buffer.from([0x16, 3, 1]));
  await using begun = await Connection.open(served.at);
  assert.equal(await answer(begun, "TLS"), "+ SUCCESS");
  const start = performance.now();
  await within(served.server.drain(20_000), "the end of the server");
  assert.ok(performance.now() - start < 5_000);
});

test("§9.3: a server that is told to stop says GOAWAY, ends what is idle at once, and gives streams their time", async (t) => {
  const served = await serveSetUp(t, ONE);
  await using silent = await Connection.open(served.at);
  await using idle = await Connection.open(served.at);
  assert.deepEqual(await listed(idle), ["echo"]);
  await using empty = await Connection.open(served.at);
  const nothing = await multiplex(empty);
  await nothing.settings.promise;
  await using busy = await CARRIERS["bare plaintext"](served.at, "whole");
  assert.equal(await answer(busy, "echo"), "+ SUCCESS");
  await using connection = await Connection.open(served.at);
  const frames = await multiplex(connection);
  const stream = new Stream(connection, frames, 1, "whole");
  assert.equal(await answer(stream, "echo"), "+ SUCCESS");
  const drained = served.server.drain(5_000);
  await idle.over();
  await silent.ear.lost();
  await empty.over();
  assert.deepEqual([nothing.ended, frames.ended], [Code.NO_ERROR, undefined]);
  assert.deepEqual(await frames.goaway.promise, { lastStream: 1, code: Code.NO_ERROR });
  // Streams that are open go on; another one was not taken up, and may be asked for elsewhere.
  const late = new Stream(connection, frames, 3, "whole");
  await late.say(line("echo"));
  assert.equal(await frames.reset(3), Code.REFUSED);
  for (const conversation of [stream, busy]) {
    assert.equal(await answer(conversation, "still here"), "still here");
    await conversation.end();
    await conversation.over();
  }
  await connection.over();
  assert.equal(frames.ended, Code.NO_ERROR);
  await within(drained, "the end of the server");
  await assert.rejects(Connection.open(served.at), { code: "ECONNREFUSED" });
});

test("§9.3: streams that do not end in time are cut, and their callers learn that", async (t) => {
  const served = await serveSetUp(t, ONE);
  await using connection = await Connection.open(served.at);
  const frames = await multiplex(connection);
  const stream = new Stream(connection, frames, 1, "whole");
  assert.equal(await answer(stream, "echo"), "+ SUCCESS");
  await within(served.server.drain(200), "the end of the server");
  await connection.ear.lost();
  assert.equal(frames.ended, Code.UNAVAILABLE);
});
