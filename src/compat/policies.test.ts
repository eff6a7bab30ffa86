import assert from "node:assert/strict";
import fs from "node:fs";
import path from "node:path";
import test from "node:test";
import { printAddress } from "../client/index.ts";
import { BY_CODE, BY_STATUS } from "./answers.ts";
import { Placeholders } from "./placeholders.ts";
import { readPolicies } from "./policies.ts";

const rules = [
  { match: "ads.example.org", policy: "refuse" },
  { match: "*.example.org", policy: "session", at: "alice@example.org", services: { 443: "web" } },
  { match: "example.org", policy: "session-or-direct", services: { 80: "home" } },
  { match: "*.lan", policy: "direct" },
];

function way(host: string, port: number, otherwise?: "direct"): string {
  const { policy, session } = readPolicies(rules, new Map([["lab", "127.0.0.1:4000"]]), otherwise).wayTo(host, port);
  return session === undefined ? policy : `${policy} ${session.service} at ${printAddress(session.address)}`;
}

test("a name under .localhost says service and host, by no rule", () => {
  assert.equal(way("Wiki.Example.org.localhost", 8505), "session wiki at example.org");
  assert.equal(way("wiki.lab.localhost", 80), "session wiki at 127.0.0.1:4000");
  assert.equal(way("wiki.127.0.0.1.localhost", 80), "session wiki at 127.0.0.1");
  assert.throws(() => way("wiki.localhost", 80), { code: "ADDRESS_BAD" });
});

test("the first rule that fits decides, and a host that none names is for a session alone", () => {
  assert.equal(way("ads.example.org", 80), "refuse");
  assert.equal(way("wiki.example.org", 443), "session wiki at alice@example.org");
  assert.equal(way("a.b.example.org", 443), "session web at alice@example.org");
  assert.equal(way("example.org", 80), "session-or-direct home at example.org");
  assert.equal(way("example.org", 22), "session-or-direct ssh at example.org");
  assert.equal(way("example.org", 7777), "session-or-direct port-7777 at example.org");
  assert.equal(way("printer.lan", 80), "direct");
  assert.equal(way("other.example", 5432), "session postgresql at other.example");
  assert.equal(way("other.example", 5432, "direct"), "direct");
  assert.throws(() => way("a b", 80), { code: "ADDRESS_BAD" });
});

test("a rule with a mistake is refused, and where it is said", () => {
  for (const [wrong, where] of [
    ["no list", /policies: /],
    [["x"], /policies\[0\]: /],
    [[{ match: "*.X.org", policy: "session" }], /policies\[0\]\.match/],
    [[{ match: "x", policy: "perhaps" }], /policies\[0\]\.policy/],
    [[{ match: "x", policy: "session", to: "y" }], /policies\[0\]\.to/],
    [[{ match: "x", policy: "session", services: { http: "web" } }], /services/],
  ] as const)
    assert.throws(() => readPolicies(wrong), { code: "CONFIGURATION_BAD", message: where });
});

test("what a failure becomes is what docs/errors.md says", () => {
  const page = fs.readFileSync(path.join(import.meta.dirname, "../../docs/errors.md"), "utf8");
  const row = (code: string): { readonly socks: number; readonly http: number } | undefined => {
    const cells = new RegExp(`^\\| \`${code}\` \\|.*$`, "m").exec(page)?.[0].split(" | ").slice(-4);
    return cells === undefined ? undefined : { socks: Number(cells[1]), http: Number(cells[2]) };
  };
  for (const [code, answer] of [...Object.entries(BY_CODE), ...Object.entries(BY_STATUS)])
    assert.deepEqual(answer, row(code), code);
});

test("an address stands for one name for ever", () => {
  const placeholders = new Placeholders();
  assert.equal(placeholders.addressOf("one"), "198.18.0.1");
  assert.equal(placeholders.addressOf("two"), "198.18.0.2");
  assert.equal(placeholders.addressOf("one"), "198.18.0.1");
  assert.equal(placeholders.nameOf("198.18.0.2"), "two");
  assert.equal(placeholders.nameOf("192.0.2.1"), undefined);
  for (let name = 2; name < 65_536; name++) placeholders.addressOf(String(name));
  assert.equal(placeholders.nameOf("198.19.0.0"), "65535");
  assert.equal(placeholders.addressOf("one too many"), undefined);
});
