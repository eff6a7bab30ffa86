/**
 * The guides in docs/ against the server: every policy in them passes the check, and the audit has the events and fields that its page tells.
 * @module
 */
import assert from "node:assert/strict";
import fs from "node:fs/promises";
import path from "node:path";
import test from "node:test";
import { parse } from "yaml";
import { eventually } from "../support/deadline.ts";
import { home, repository } from "./command.ts";

async function page(name: string): Promise<string> {
  return await fs.readFile(path.join(repository, "docs", name), "utf8");
}

/** The blocks of a language. */
function blocks(text: string, language: string): readonly string[] {
  return [...text.matchAll(/^```(\w+)\n(.*?)\n```$/gms)].flatMap(([, of, body = ""]) =>
    of === language ? [body] : [],
  );
}

test("every policy of docs/policies.md is one", async () => {
  await using mine = await home();
  const policies = blocks(await page("policies.md"), "cedar");
  assert.ok(policies.length >= 5);
  await fs.writeFile(path.join(mine.folder, "all.cedar"), policies.join("\n"));
  await fs.writeFile(path.join(mine.folder, "fived.yaml"), "policies: all.cedar\n");
  const { code, stdout, stderr } = await mine.fived(["check", "-c", "fived.yaml"]);
  assert.equal(code, 0, `${stdout}${stderr}`);
  await fs.writeFile(path.join(mine.folder, "all.cedar"), policies.join("\n").replace("authAge", "authAgo"));
  const wrong = await mine.fived(["check", "-c", "fived.yaml"]);
  assert.equal(wrong.code, 1);
  assert.match(`${wrong.stdout}${wrong.stderr}`, /all\.cedar:\d+:\d+: .*authAgo/);
});

test("the audit has the events and fields of docs/audit.md, and survives being rotated", async () => {
  const text = await page("audit.md");
  for (const block of blocks(text, "yaml")) assert.ok("audit" in parse(block));
  await using mine = await home();
  const file = path.join(mine.folder, "audit.jsonl");
  const configuration = path.join(mine.folder, "fived.yaml");
  await fs.writeFile(
    configuration,
    `listen: [tcp://127.0.0.1:0]\naudit: { file: ${file}, onFailure: refuse }\nservices:\n  hers: { exec: [/bin/cat], allow: [alice] }\n`,
  );
  const state = path.join(mine.folder, "server");
  const server = mine.start(["serve", "-c", configuration, "--state", state]);
  const [, address = ""] = await server.line(/listening on tcp:\/\/(\S+)/);
  const env = { FIVED_STATE: state, FIVED_CONFIG: configuration };
  const invite = await mine.fived(["invite", "alice", "--host", address], { env });
  assert.equal((await mine.fived(["join"], { input: invite.stdout })).code, 0);
  assert.equal((await mine.fived(["connect", address, "hers"], { input: "hello" })).stdout.toString(), "hello");
  assert.equal((await mine.fived(["connect", address, "none"])).code, 255);
  assert.equal((await mine.fived(["join"], { input: invite.stdout })).code, 255);
  const lines = async (name: string): Promise<readonly Record<string, unknown>[]> =>
    (await fs.readFile(name, "utf8"))
      .trim()
      .split("\n")
      .map((line) => JSON.parse(line));
  const events = await eventually(async () => {
    const found = await lines(file);
    assert.ok(found.some(({ event }) => event === "close"));
    return found;
  }, "the end of a stream in the audit");
  const documented = new Map(
    [...text.matchAll(/^\| `([a-z-]+)` \| [^|]+ \| (.*) \|$/gm)].map(([, event, fields = ""]) => [event, fields]),
  );
  documented.delete("event"); // the head of the table
  assert.deepEqual([...documented.keys()].sort(), [...new Set(events.map(({ event }) => event))].sort());
  for (const { event, ...fields } of events) {
    for (const field of ["time", "session", "peer"]) assert.equal(typeof fields[field], "string");
    for (const field of Object.keys(fields))
      assert.ok(
        ["time", "session", "peer", "user"].includes(field) || documented.get(String(event))?.includes(`\`${field}\``),
        `${event} has ${field}`,
      );
  }
  const closed = events.find(({ event }) => event === "close");
  assert.deepEqual(
    [closed?.["user"], closed?.["received"], closed?.["sent"], closed?.["why"]],
    ["alice", 5, 5, "ended"],
  );
  await fs.rename(file, `${file}.1`);
  server.child.kill("SIGHUP");
  await server.complains(/reloaded/);
  assert.equal((await mine.fived(["connect", address, "hers"], { input: "again" })).stdout.toString(), "again");
  await eventually(
    async () => assert.ok((await lines(file)).some(({ event }) => event === "close")),
    "lines in the new file",
  );
});
