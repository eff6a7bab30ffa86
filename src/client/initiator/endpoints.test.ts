import assert from "node:assert/strict";
import test from "node:test";
import { drawn, ENDPOINTS_MAX, type Endpoint, endpointsOf, NotOffered } from "./endpoints.ts";
import type { Names, Srv } from "./names.ts";
import type { Svcb } from "./svcb.ts";

/** A name service of a test: what is not there is no name, or has no records. */
interface World {
  readonly addresses?: Readonly<Record<string, readonly string[]>>;
  readonly srv?: Readonly<Record<string, readonly Srv[]>>;
  readonly svcb?: Readonly<Record<string, readonly Svcb[]>>;
  /** Milliseconds until records come. */
  readonly recordsMs?: number;
  /** Milliseconds until addresses of IPv6 come. */
  readonly sixMs?: number;
}

function namesIn(
  { addresses = {}, srv = {}, svcb = {}, recordsMs = 0, sixMs = 0 }: World,
  asked: string[] = [],
): Names {
  const after = (ms: number): Promise<void> =>
    ms === 0 ? Promise.resolve() : new Promise((done) => setTimeout(done, ms));
  return {
    async addresses(host, family) {
      asked.push(`${family === 6 ? "AAAA" : "A"} ${host}`);
      if (family === 6) await after(sixMs);
      const found = (addresses[host] ?? []).filter((address) => address.includes(":") === (family === 6));
      if (found.length === 0) throw Object.assign(new Error(`no ${host}`), { code: "ENOTFOUND" });
      return found;
    },
    async srv(name) {
      asked.push(`SRV ${name}`);
      await after(recordsMs);
      return srv[name] ?? [];
    },
    async svcb(name) {
      asked.push(`SVCB ${name}`);
      await after(recordsMs);
      return svcb[name] ?? [];
    },
  };
}

async function found(host: string, names: Names, port = 1078): Promise<readonly string[]> {
  const all: Endpoint[] = [];
  const over = new AbortController();
  for await (const endpoint of endpointsOf({ host, port, isDefaultPort: port === 1078 }, names, over.signal))
    all.push(endpoint);
  over.abort();
  return all.map((endpoint) => `${endpoint.host} ${endpoint.port}`);
}

function record(priority: number, target: string, rest: Partial<Svcb> = {}): Svcb {
  return { priority, target, port: undefined, hints: [], usable: true, ...rest };
}

test("an address needs no name service", async () => {
  const asked: string[] = [];
  assert.deepEqual(await found("192.0.2.1", namesIn({}, asked)), ["192.0.2.1 1078"]);
  assert.deepEqual(await found("::1", namesIn({}, asked), 99), ["::1 99"]);
  assert.deepEqual(asked, []);
});

test("localhost, and the names under it, are this computer, and no name server hears of them", async () => {
  const asked: string[] = [];
  const names = namesIn({ addresses: { localhost: ["127.0.0.1", "::1"] } }, asked);
  assert.deepEqual(await found("localhost", names), ["::1 1078", "127.0.0.1 1078"]);
  assert.deepEqual(await found("web.localhost", names), ["::1 1078", "127.0.0.1 1078"]);
  assert.deepEqual(
    asked.filter((each) => !each.endsWith(" localhost")),
    [],
  );
});

test("a name without records: its own addresses, both families in turns, IPv6 first; all is asked for at once", async () => {
  const asked: string[] = [];
  const addresses = { "example.org": ["192.0.2.1", "192.0.2.2", "2001:db8::1"] };
  const order = await found("example.org", namesIn({ addresses }, asked));
  assert.deepEqual(order, ["2001:db8::1 1078", "192.0.2.1 1078", "192.0.2.2 1078"]);
  assert.deepEqual(asked.sort(), [
    "A example.org",
    "AAAA example.org",
    "SRV _fived._tcp.example.org",
    "SVCB _fived.example.org",
  ]);
});

test("SRV: by priority, targets with their own port, and the name's own addresses are of no matter", async () => {
  const addresses = {
    "example.org": ["192.0.2.1"],
    "one.example.net": ["198.51.100.1"],
    "two.example.net": ["198.51.100.2", "2001:db8::2"],
  };
  const srv = {
    "_fived._tcp.example.org": [
      { priority: 20, weight: 0, target: "one.example.net", port: 443 },
      { priority: 10, weight: 5, target: "two.example.net", port: 2078 },
    ],
  };
  assert.deepEqual(await found("example.org", namesIn({ addresses, srv })), [
    "2001:db8::2 2078",
    "198.51.100.2 2078",
    "198.51.100.1 443",
  ]);
});

test("SRV with the target . says that there is no server", async () => {
  const addresses = { "example.org": ["192.0.2.1"] };
  const srv = { "_fived._tcp.example.org": [{ priority: 0, weight: 0, target: "", port: 0 }] };
  await assert.rejects(found("example.org", namesIn({ addresses, srv })), NotOffered);
});

test("within a priority the weights decide how often a target comes first", () => {
  const srv = (target: string, weight: number, priority = 0): Srv => ({ priority, weight, target, port: 1 });
  const records = [srv("last", 100, 1), srv("heavy", 30), srv("light", 10), srv("never first", 0)];
  const order = (at: number): readonly string[] => drawn(records, () => at).map(({ target }) => target);
  assert.deepEqual(order(0), ["never first", "light", "heavy", "last"]);
  assert.deepEqual(order(0.1)[0], "light");
  assert.deepEqual(order(0.9)[0], "heavy");
  assert.deepEqual(order(0.999).at(-1), "last");
});

test("SVCB comes before SRV: by priority, with hints, its own port, and without what is not for us", async () => {
  const addresses = { "example.org": ["192.0.2.1"], "one.example.net": ["198.51.100.1", "198.51.100.9"] };
  const srv = { "_fived._tcp.example.org": [{ priority: 0, weight: 0, target: "srv.example.net", port: 1 }] };
  const svcb = {
    "_fived.example.org": [
      record(2, ""),
      record(1, "one.example.net", { port: 443, hints: ["198.51.100.9", "2001:db8::9"] }),
      record(3, "two.example.net", { usable: false }),
    ],
  };
  assert.deepEqual(await found("example.org", namesIn({ addresses, srv, svcb })), [
    "2001:db8::9 443",
    "198.51.100.9 443",
    "198.51.100.1 443",
    "192.0.2.1 1078",
  ]);
  assert.deepEqual(
    await found(
      "example.org",
      namesIn({ addresses, svcb: { "_fived.example.org": [record(1, "", { usable: false })] } }),
    ),
    ["192.0.2.1 1078"],
    "none for us is as none at all",
  );
});

test("SVCB that is an alias is followed, but not for ever; another port has a name of its own, and no SRV", async () => {
  const asked: string[] = [];
  const addresses = { "example.org": ["192.0.2.1"], "pool.example.net": ["198.51.100.1"] };
  const svcb = {
    "_2078._fived.example.org": [record(0, "pool.example.net")],
    "pool.example.net": [record(1, "")],
    "_fived.example.org": [record(0, "_fived.example.org")],
  };
  assert.deepEqual(await found("example.org", namesIn({ addresses, svcb }, asked), 2078), ["198.51.100.1 2078"]);
  assert.ok(!asked.some((each) => each.startsWith("SRV")));
  assert.deepEqual(await found("example.org", namesIn({ addresses, svcb })), ["192.0.2.1 1078"]);
});

test("records that are late do not hold up addresses, and come behind them", async () => {
  const addresses = { "example.org": ["192.0.2.1"], "one.example.net": ["198.51.100.1"] };
  const srv = { "_fived._tcp.example.org": [{ priority: 0, weight: 0, target: "one.example.net", port: 443 }] };
  assert.deepEqual(await found("example.org", namesIn({ addresses, srv, recordsMs: 400 })), [
    "192.0.2.1 1078",
    "198.51.100.1 443",
  ]);
});

test("a family that is late comes behind the other", async () => {
  const addresses = { "example.org": ["192.0.2.1", "2001:db8::1"] };
  assert.deepEqual(await found("example.org", namesIn({ addresses, sixMs: 200 })), [
    "192.0.2.1 1078",
    "2001:db8::1 1078",
  ]);
});

test("S09 of a thousand addresses sixteen are tried", async () => {
  const many = Array.from({ length: 1_000 }, (_, index) => `10.0.${index >> 8}.${index & 255}`);
  const order = await found("example.org", namesIn({ addresses: { "example.org": many } }));
  assert.equal(order.length, ENDPOINTS_MAX);
});

test("S09 a name without an address is the system's error", async () => {
  await assert.rejects(found("example.org", namesIn({})), { code: "ENOTFOUND" });
});
