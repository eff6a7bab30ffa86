import assert from "node:assert/strict";
import { createSocket, type RemoteInfo } from "node:dgram";
import { once } from "node:events";
import { createServer } from "node:net";
import test, { type TestContext } from "node:test";
import { type Answer, AUTHORITATIVE_ANSWER, decode, encode, type Packet, streamDecode, streamEncode } from "dns-packet";
import { namesOf } from "./names.ts";

/** What a name server says to a query; nothing where it is silent. */
type Serve = (query: Packet, over: "udp" | "tcp") => readonly Buffer[] | Packet | undefined;

const NXDOMAIN = 3;
const SERVFAIL = 2;
const TRUNCATED = 1 << 9;

interface NameServer {
  readonly where: string;
  readonly asked: readonly string[];
}

async function nameServer(t: TestContext, serve: Serve): Promise<NameServer> {
  const asked: string[] = [];
  const packets = (query: Packet, over: "udp" | "tcp"): readonly (Buffer | Packet)[] => {
    asked.push(`${over} ${query.questions?.[0]?.type} ${query.questions?.[0]?.name}`);
    const said = serve(query, over);
    return said === undefined ? [] : "length" in said ? said : [said];
  };
  const tcp = createServer((socket) => {
    socket.on("error", () => {});
    socket.once("data", (octets) => {
      for (const said of packets(streamDecode(octets), "tcp"))
        socket.write(Buffer.isBuffer(said) ? said : streamEncode(said));
    });
  });
  tcp.listen(0, "127.0.0.1");
  await once(tcp, "listening");
  const address = tcp.address();
  assert.ok(typeof address === "object" && address !== null);
  const udp = createSocket("udp4", (octets: Buffer, { port, address: host }: RemoteInfo) => {
    for (const said of packets(decode(octets), "udp"))
      udp.send(Buffer.isBuffer(said) ? said : encode(said), port, host);
  });
  udp.bind(address.port, "127.0.0.1");
  await once(udp, "listening");
  t.after(() => {
    udp.close();
    tcp.close();
  });
  return { where: `127.0.0.1:${address.port}`, asked };
}

function reply(query: Packet, answers: readonly Answer[], flags = AUTHORITATIVE_ANSWER): Packet {
  return { type: "response", id: query.id, flags, questions: query.questions ?? [], answers: [...answers] };
}

function srv(name: string, target: string, port = 1078): Answer {
  return { type: "SRV", name, ttl: 60, data: { priority: 1, weight: 2, port, target } };
}

const forever = new AbortController().signal;

test("records SRV and SVCB are read, behind an alias too", async (t) => {
  const server = await nameServer(t, (query) => {
    const [question] = query.questions ?? [];
    if (question?.type !== "SRV") {
      const data = Buffer.from("0001000003000201bb", "hex");
      return reply(query, [{ type: "UNKNOWN_64", name: "_fived.example.org", data } as unknown as Answer]);
    }
    return reply(query, [
      { type: "CNAME", name: "_fived._tcp.example.org", data: "alias.example.net" },
      srv("alias.example.net", "One.Example.NET"),
      srv("somebody.else", "evil.example"),
      srv("alias.example.net", "."),
    ]);
  });
  const names = namesOf(() => [server.where]);
  assert.deepEqual(await names.srv("_fived._tcp.example.org", forever), [
    { priority: 1, weight: 2, port: 1078, target: "one.example.net" },
    { priority: 1, weight: 2, port: 1078, target: "" },
  ]);
  assert.deepEqual(await names.svcb("_fived.example.org", forever), [
    { priority: 1, target: "", port: 443, hints: [], usable: true },
  ]);
  assert.deepEqual(server.asked, ["udp SRV _fived._tcp.example.org", "udp UNKNOWN_64 _fived.example.org"]);
});

test("an answer that was cut is asked for again over TCP", async (t) => {
  const server = await nameServer(t, (query, over) =>
    over === "udp" ? reply(query, [], TRUNCATED) : reply(query, [srv("long.example", "one.example")]),
  );
  assert.equal((await namesOf(() => [server.where]).srv("long.example", forever))[0]?.target, "one.example");
  assert.deepEqual(server.asked, ["udp SRV long.example", "tcp SRV long.example"]);
});

test("S09 what is no answer to the question is passed over", async (t) => {
  const server = await nameServer(t, (query) => {
    const good = reply(query, [srv("example.org", "good.example")]);
    const elsewhere = { ...good, questions: [{ type: "SRV" as const, name: "other.example" }] };
    return [
      Buffer.from("nonsense"),
      Buffer.alloc(0),
      encode({ ...good, id: ((query.id ?? 0) + 1) & 0xffff, answers: [srv("example.org", "evil.example")] }),
      encode({ ...elsewhere, answers: [srv("example.org", "evil.example")] }),
      encode({ ...query, type: "query" }),
      encode(good),
    ];
  });
  assert.deepEqual(
    (await namesOf(() => [server.where]).srv("example.org", forever)).map(({ target }) => target),
    ["good.example"],
  );
});

test("S09 a name that is not there has no records; a server at a loss, or none at all, is the next one's turn", async (t) => {
  const absent = await nameServer(t, (query) => reply(query, [], NXDOMAIN));
  assert.deepEqual(await namesOf(() => [absent.where]).srv("no.example", forever), []);
  assert.equal(absent.asked.length, 1);
  const lost = await nameServer(t, (query) => reply(query, [], SERVFAIL));
  const closed = await nameServer(t, () => undefined);
  const good = await nameServer(t, (query) => reply(query, [srv("example.org", "good.example")]));
  const nobody = `127.0.0.1:1`;
  const found = await namesOf(() => [nobody, lost.where, good.where, closed.where]).srv("example.org", forever);
  assert.equal(found[0]?.target, "good.example");
  assert.deepEqual(closed.asked, []);
  assert.deepEqual(await namesOf(() => [lost.where, nobody]).srv("example.org", forever), []);
  assert.deepEqual(await namesOf(() => []).srv("example.org", forever), []);
});

test("S09 whoever waits for a silent name server can be done with it", async (t) => {
  const caller = new AbortController();
  const silent = await nameServer(t, () => {
    caller.abort(new Error("enough"));
    return undefined;
  });
  await assert.rejects(namesOf(() => [silent.where]).srv("example.org", caller.signal), /enough/);
});

test("addresses are those of the system", async () => {
  const names = namesOf(() => []);
  assert.deepEqual(await names.addresses("localhost", 4), ["127.0.0.1"]);
  await assert.rejects(names.addresses("no-such-name.invalid", 4));
});
