import assert from "node:assert/strict";
import fs from "node:fs/promises";
import os from "node:os";
import path from "node:path";
import test, { type TestContext } from "node:test";
import { parseAddress } from "./address.ts";
import { type PathRule, personalPaths } from "./path-rules.ts";

/** The rules for a session at an address, of a configuration with this text. */
async function rulesIn(
  t: TestContext,
  text: string | undefined,
  address = "example.org",
): Promise<readonly PathRule[]> {
  const folder = await fs.mkdtemp(path.join(os.tmpdir(), "fived-rules-"));
  t.after(() => fs.rm(folder, { recursive: true }));
  const before = process.env["XDG_CONFIG_HOME"];
  process.env["XDG_CONFIG_HOME"] = folder;
  await fs.mkdir(path.join(folder, "fived"));
  if (text !== undefined) await fs.writeFile(path.join(folder, "fived", "config.yaml"), text);
  try {
    return await personalPaths(parseAddress(address));
  } finally {
    if (before === undefined) delete process.env["XDG_CONFIG_HOME"];
    else process.env["XDG_CONFIG_HOME"] = before;
  }
}

test("rules are read for the sessions that they are for", async (t) => {
  const text = `names: { lab: example.org }
paths:
  - { name: fat, from: 192.0.2.7, services: [backup], reserved: true, hosts: [example.org] }
  - { name: web, via: "wss://gate.example.org/fived" }
  - { name: main, services: [shell] }
`;
  const web = { name: "web", transport: "wss://gate.example.org/fived" };
  const main = { name: "main", services: ["shell"] };
  const fat = { name: "fat", localAddress: "192.0.2.7", services: ["backup"], reserved: true };
  assert.deepEqual(await rulesIn(t, text), [fat, web, main]);
  assert.deepEqual(await rulesIn(t, text, "other.example:2078"), [web, main]);
  for (const none of [undefined, "", "names: {}", "paths:\n"]) assert.deepEqual(await rulesIn(t, none), []);
});

test("what cannot be used says where, and what was expected", async (t) => {
  for (const [text, message] of [
    ["paths: fat", /paths: /],
    ["paths: [{ from: 192.0.2.7 }]", /paths\.0\.name: /],
    ["paths: [{ name: a/b }]", /paths\.0\.name: expected a name of letters/],
    ["paths: [{ name: fat, from: eth0 }]", /paths\.0\.from: expected an IP address/],
    ["paths: [{ name: fat, via: carrier-pigeon }]", /paths\.0\.via: expected a transport/],
    ["paths: [{ name: fat, services: [a b] }]", /paths\.0\.services\.0: expected names of services/],
    ["paths: [{ name: fat, speed: 9 }]", /paths\.0: .*speed/],
    ["paths: [{ name: fat }, { name: fat }]", /paths: expected each name once/],
    ["paths: [", /config\.yaml: /],
  ] as const)
    await assert.rejects(rulesIn(t, text), { code: "CONFIGURATION_BAD", message });
});
