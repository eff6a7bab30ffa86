/**
 * Virtual hosts: the same name of a service leads elsewhere under another host. Here the host comes from a line typed by hand, from SNI,
 * or from the name that a user of `fived` dials; HOST inside a single stream is the conformance tests' part.
 * @module
 */
import assert from "node:assert/strict";
import test, { type TestContext } from "node:test";
import { client, serve, withHosts } from "../support/fived.ts";
import { Lab } from "../support/lab.ts";
import { needs } from "../support/needs.ts";

const openssl = needs("openssl");
const names = needs("namespaces");

test("HOST, typed over openssl, makes the same service lead to another back end", { skip: openssl }, async (t) => {
  const { lab, server } = await hosts(t);
  for (const [host, motd] of [
    ["one.example.test", "this is one"],
    ["two.example.test", "this is two"],
    ["TWO.Example.Test.", "this is two"],
    ["localhost", "this is the default host"],
  ] as const) {
    const person = lab.start(handTyped(server.address));
    person.says(`HOST ${host}\n`);
    await person.hears(/^\+ SUCCESS\r\n/);
    person.says("motd\n");
    assert.equal(await person.rest(), `+ SUCCESS\r\n${motd}\n`, host);
  }
});

test("the name in SNI selects the host by itself", { skip: openssl }, async (t) => {
  const { lab, server } = await hosts(t);
  for (const [name, motd] of [
    ["two.example.test", "this is two"],
    ["TWO.example.test", "this is two"],
    ["unknown.example.test", "this is the default host"],
  ] as const) {
    const person = lab.start([...handTyped(server.address), "-servername", name]);
    person.says("motd\n");
    assert.equal(await person.rest(), `+ SUCCESS\r\n${motd}\n`, name);
  }
});

test("fived connect to a name gets that host's service for the whole session", { skip: names }, async (t) => {
  const { at } = await hosts(t);
  assert.equal(await at("connect", "one.example.test", "motd"), "this is one\n");
  assert.equal(await at("connect", "two.example.test", "motd"), "this is two\n");
  assert.equal(await at("connect", "Two.Example.Test", "motd"), "this is two\n");
});

test("fived connect to a name that is no host of the server, or to an address, gets the default host", {
  skip: names,
}, async (t) => {
  const { at } = await hosts(t);
  for (const name of ["other.example.test", "127.0.0.1", "localhost"]) {
    assert.equal(await at("connect", name, "motd"), "this is the default host\n", name);
  }
});

test("fived list shows a host's own services, and none of another host", { skip: names }, async (t) => {
  const { at } = await hosts(t);
  const services = async (name: string) =>
    (await at("list", name)).split("\n").filter((word) => word !== word.toUpperCase());
  assert.deepEqual(await services("one.example.test"), ["motd", "only-one"]);
  assert.deepEqual(await services("two.example.test"), ["motd"]);
  assert.deepEqual(await services("other.example.test"), ["motd", "only-default"]);
});

test("a service of another host is as unknown as one that does not exist", { skip: names }, async (t) => {
  const { lab, dial, at } = await hosts(t);
  await at("list", "two.example.test"); // Pins the key, which is said once.
  const refusal = async (service: string) => {
    const { status, stderr } = await lab.run(await dial("connect", "two.example.test", service));
    assert.equal(status, 255);
    return stderr.replaceAll(service, "SERVICE");
  };
  assert.equal(await refusal("only-one"), await refusal("nowhere"));
});

/** A server with a default host and two others, and a user for whom their names resolve to it. */
async function hosts(t: TestContext) {
  const lab = await Lab.open(t);
  const say = (text: string) => ({ exec: ["echo", text] });
  const server = await serve(lab, {
    services: { motd: say("this is the default host"), "only-default": say("default") },
    hosts: {
      "one.example.test": { services: { motd: say("this is one"), "only-one": say("one") } },
      "two.example.test": { services: { motd: say("this is two") } },
    },
  });
  const known = ["one.example.test", "two.example.test", "other.example.test", "localhost"];
  const dial = (verb: "list" | "connect", name: string, ...service: readonly string[]) =>
    withHosts(
      lab,
      Object.fromEntries(known.map((each) => [each, "127.0.0.1"])),
      client(verb, `${name}:${server.port}`, ...service),
    );
  return {
    lab,
    server,
    dial,
    async at(...args: Parameters<typeof dial>): Promise<string> {
      const { status, stdout, stderr } = await lab.run(await dial(...args));
      assert.equal(status, 0, stderr);
      return stdout.toString();
    },
  };
}

function handTyped(address: string): readonly string[] {
  return ["openssl", "s_client", "-connect", address, "-alpn", "fived/1", "-crlf", "-nocommands", "-quiet"];
}
