import assert from "node:assert/strict";
import test from "node:test";
import { canonicalHost, isDefaultHost } from "./host-name.ts";

test("one host has one spelling, whatever case, final dot or alphabet was used", () => {
  for (const name of ["FIVED.Test.", "fived.test", "fived.TEST"]) assert.equal(canonicalHost(name), "fived.test");
  for (const name of ["bücher.example", "BÜCHER.example", "xn--bcher-kva.example", "ｂücher.example"]) {
    assert.equal(canonicalHost(name), "xn--bcher-kva.example");
  }
  assert.equal(canonicalHost("__proto__"), "__proto__");
});

test("what is no host name has no spelling, and nothing is thrown", () => {
  const wrong = [
    "",
    ".",
    "a..b",
    ".a",
    "a b",
    "a\0b",
    "a/b",
    "a:80",
    "[::1]",
    "::1",
    "127.0.0.1",
    "1.2.3",
    "0x7f.1",
    "%61",
    "-a",
    "a-",
  ];
  for (const name of [...wrong, "a".repeat(64), "a.".repeat(128), "\ud800", "ü".repeat(300), "a\u202eb"]) {
    assert.equal(canonicalHost(name), undefined, JSON.stringify(name));
  }
});

test("addresses and localhost mean the default host", () => {
  for (const name of ["127.0.0.1", "::1", "[::1]", "localhost", "LOCALHOST."]) assert.ok(isDefaultHost(name), name);
  for (const name of ["a.example", "", "[a]", "localhost.example"]) assert.ok(!isDefaultHost(name), name);
});
