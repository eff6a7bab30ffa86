import assert from "node:assert/strict";
import test from "node:test";
import { endpointText, farUser, parseEndpoint, parseFarServer, parseFarTarget } from "./endpoint.ts";

test("an address is read in each of its forms", () => {
  const read = (text: string) => parseEndpoint(text, "/etc/fived");
  assert.deepEqual(read("3000"), { type: "tcp", host: "127.0.0.1", port: 3000 });
  assert.deepEqual(read("0"), { type: "tcp", host: "127.0.0.1", port: 0 });
  assert.deepEqual(read("DB.example.:5432"), { type: "tcp", host: "db.example", port: 5432 });
  assert.deepEqual(read("tcp://10.0.0.1:80"), { type: "tcp", host: "10.0.0.1", port: 80 });
  assert.deepEqual(read("tcp://[2001:DB8::1]:80"), { type: "tcp", host: "2001:db8::1", port: 80 });
  assert.deepEqual(read("[fe80::1%eth0]:80"), { type: "tcp", host: "fe80::1%eth0", port: 80 });
  assert.deepEqual(read("localhost:80"), { type: "tcp", host: "localhost", port: 80 });
  assert.deepEqual(read("unix:/run/x.sock"), { type: "unix", path: "/run/x.sock" });
  assert.deepEqual(read("unix:x.sock"), { type: "unix", path: "/etc/fived/x.sock" });
  assert.deepEqual(read("unix:///run/x.sock"), { type: "unix", path: "/run/x.sock" });
});

test("what is no address is not guessed at", () => {
  // biome-ignore format: a list of words
  const wrong = [
    "", ":80", "host", "host:", "host:65536", "host:-1", "host:8e1", "host:80 ", " host:80", "tcp://", "tcp://:80", "tcp://host",
    "tcp://host:80/path", "http://host:80", "user@host:80", "[::1]", "[127.0.0.1]:80", "[host]:80", "::1:80", "1.2.3:80", "1.2.3.256:80",
    "a..b:80", "-a:80", "%31:80", "unix:", "unix:a\0b", `unix:/${"x".repeat(107)}`, `${"a".repeat(64)}:80`, "a,b:80",
  ];
  for (const text of wrong) assert.equal(parseEndpoint(text, "/"), undefined, JSON.stringify(text));
});

test("an address is written as it can be read again", () => {
  for (const text of ["tcp://127.0.0.1:80", "tcp://[::1]:80", "unix:/run/x"]) {
    const endpoint = parseEndpoint(text, "/");
    assert.ok(endpoint !== undefined);
    assert.equal(endpointText(endpoint), text);
  }
});

test("a service behind another server is read in its one form", () => {
  const read = (text: string) => parseFarTarget(text);
  const far = (server: string, service: string | undefined) => ({ type: "far", server, service });
  assert.deepEqual(read("fived://Other.Example./Wiki"), far("other.example", "Wiki"));
  assert.deepEqual(read("fived://gateway@other.example:1078/wiki"), far("gateway@other.example", "wiki"));
  assert.deepEqual(read("fived://[::1]:7/wiki"), far("[::1]:7", "wiki"));
  assert.deepEqual(read("fived://127.0.0.1:65535/*"), far("127.0.0.1:65535", undefined));
  assert.deepEqual([farUser("gateway@x"), farUser("x")], ["gateway", undefined]);
  // biome-ignore format: a list of words
  const wrong = [
    "", "fived://", "fived://other.example", "fived://other.example/", "fived:///wiki", "fived://other.example/wiki/x", "fived://@x/wiki",
    "fived://a:b@x/wiki", "fived://a@b@x/wiki", "fived://x:0/wiki", "fived://x:65536/wiki", "fived://x:/wiki", "fived://x/wi ki",
    "fived://x/wiki?host=y", "fived://x/wiki#y", "fived://[x]/wiki", "fived://x/**", "http://x/wiki", "fived://a b@x/wiki", "fived://-x/wiki",
  ];
  for (const text of wrong) assert.equal(read(text), undefined, JSON.stringify(text));
  for (const text of ["gateway@other.example", "other.example:7", "[::1]", "127.0.0.1"])
    assert.equal(parseFarServer(text), text);
});
