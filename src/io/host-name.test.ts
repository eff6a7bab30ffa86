import assert from "node:assert/strict";
import test from "node:test";
import { canonicalHost, canonicalName } from "./host-name.ts";

test("O05 T16 every spelling of a host has one canonical form", () => {
  const spellings: Record<string, readonly string[]> = {
    "example.org": ["example.org", "EXAMPLE.org", "example.org.", "Example.Org.", "ｅxample.org", "example。org"],
    "xn--bcher-kva.de": ["bücher.de", "BÜCHER.DE.", "xn--bcher-kva.de", "XN--BCHER-KVA.de", "bu\u0308cher.de"],
    "127.0.0.1": [
      "127.0.0.1",
      "127.1",
      "0x7f.0.0.1",
      "2130706433",
      "0177.0.0.1",
      "127.0.0.1.",
      "[::ffff:127.0.0.1]",
      "[::FFFF:7f00:1]",
    ],
    "::1": ["[::1]", "[0:0:0:0:0:0:0:1]", "[0::0001]"],
    "2001:db8::1:0:0:1": ["[2001:db8::1:0:0:1]", "[2001:DB8:0:0:1::1]", "[2001:0db8:0000:0000:0001:0000:0000:0001]"],
    "fe80::1%my_if": ["fe80::1%my_if", "[FE80:0::1%my_if]"],
    my_container: ["my_container", "MY_CONTAINER"],
    // Names that every object has are names like any other.
    ["__proto__"]: ["__proto__", "__PROTO__."],
  };
  for (const [canonical, forms] of Object.entries(spellings)) {
    for (const form of forms) assert.equal(canonicalHost(form)?.text, canonical, form);
  }
});

test("O05 an address is told from a name, and is no name in any spelling", () => {
  const types = { name: ["a.example", "localhost"], ipv4: ["127.0.0.1", "127.1", "１.2.3.4"], ipv6: ["::1", "[::1]"] };
  for (const [type, texts] of Object.entries(types)) {
    for (const text of texts) {
      assert.equal(canonicalHost(text)?.type, type, text);
      assert.equal(canonicalName(text), type === "name" ? text : undefined, text);
    }
  }
});

test("what is no host has no spelling, and nothing is thrown", () => {
  const wrong = [
    "",
    ".",
    "a..b",
    ".a",
    "a..",
    "a b",
    "a\0b",
    "a/b",
    "a:80",
    "[a]",
    "[::1",
    "[127.0.0.1]",
    "::g",
    "::1%",
    "::1%a%b",
    "1.2.3.4.5",
    "foo.1",
    "foo.0x7f",
    "%61",
    "-a",
    "a-",
    "*.example.org",
    "a\u202eb",
    "\ud800",
  ];
  const long = ["a".repeat(64), "a.".repeat(128), "ü".repeat(300), "\u00ad".repeat(60_000)];
  for (const text of [...wrong, ...long]) assert.equal(canonicalHost(text), undefined, JSON.stringify(text));
  assert.equal(canonicalName(`${"a.".repeat(126)}a.`)?.length, 253);
});
