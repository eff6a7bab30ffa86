import assert from "node:assert/strict";
import test from "node:test";
import { endpointText, parseEndpoint } from "./endpoint.ts";

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
