/**
 * `fived serve` and `fived check` as an administrator has them: announcements, signals, reload, mistakes in the configuration.
 * @module
 */
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import fs from "node:fs/promises";
import net from "node:net";
import path from "node:path";
import test from "node:test";
import { complaints, type Home, home, type Running, repository } from "./command.ts";

const LISTEN = ["--listen", "tcp://127.0.0.1:0"];
const TRUST = ["-o", "StrictHostKeyChecking=accept-new"];

async function addressOf(server: Running): Promise<string> {
  const [, address = ""] = await server.line(/^fived: listening on tcp:\/\/(\S+) {2}key SHA256:[A-Za-z0-9+/]{43}$/);
  return address;
}

async function configured(mine: Home, services: string): Promise<string> {
  const file = path.join(mine.folder, "fived.yaml");
  await fs.writeFile(file, `listen: [tcp://127.0.0.1:0]\nservices:\n${services}`);
  return file;
}

async function namesAt(mine: Home, address: string): Promise<readonly string[]> {
  const { stdout, stderr } = await mine.fived(["list", address, ...TRUST]);
  assert.equal(complaints(stderr), "");
  return stdout
    .toString()
    .trim()
    .split("\n")
    .filter((name) => name !== name.toUpperCase());
}

test("serve says on standard output where it listens, with which key, and what it serves", async () => {
  await using mine = await home();
  const server = mine.start(["serve", "web=3000", "date=exec:date -u", ...LISTEN]);
  await addressOf(server);
  assert.equal((await server.line(/^fived: service web .*/))[0], "fived: service web -> 127.0.0.1:3000  allow: anyone");
  assert.match((await server.line(/^fived: service date .*/))[0], /-> exec:\S*date -u {2}allow: anyone$/);
  assert.deepEqual(await server.stop(), { code: 0, signal: null });
});

test("serve --json says the same for machines", async () => {
  await using mine = await home();
  const server = mine.start(["serve", "web=3000", "--json", ...LISTEN]);
  const [listening] = await server.line(/.*/);
  const { event, address, fingerprint } = JSON.parse(listening);
  assert.equal(event, "listening");
  assert.match(address, /^tcp:\/\/127\.0\.0\.1:\d+$/);
  assert.match(fingerprint, /^SHA256:/);
  const [service] = await server.line(/.*/);
  assert.deepEqual(JSON.parse(service), { event: "service", service: "web", to: "127.0.0.1:3000", allow: ["anyone"] });
});

test("the host key outlives the server, in the folder that --state names", async () => {
  await using mine = await home();
  const keys: string[] = [];
  for (let run = 0; run < 2; run++) {
    const server = mine.start(["serve", "web=3000", "--state", path.join(mine.folder, "elsewhere"), ...LISTEN]);
    keys.push((await server.line(/key (SHA256:\S+)/))[1] ?? "");
    await server.stop();
  }
  assert.equal(keys[0], keys[1]);
  assert.ok((await fs.readdir(path.join(mine.folder, "elsewhere"))).length > 0);
});

test("SIGHUP reads the configuration again; one with a mistake changes nothing and is logged", async () => {
  await using mine = await home();
  const file = await configured(mine, "  one: { exec: [date], allow: [anyone] }\n");
  const server = mine.start(["serve", "-c", file]);
  const address = await addressOf(server);
  assert.deepEqual(await namesAt(mine, address), ["one"]);

  await configured(mine, "  two: { exec: [date], allow: [anyone] }\n");
  server.child.kill("SIGHUP");
  await server.complains(/reloaded the configuration/);
  assert.deepEqual(await namesAt(mine, address), ["two"]);

  await configured(mine, "  three: { exec: [no-such-program] }\n");
  server.child.kill("SIGHUP");
  await server.complains(/cannot reload the configuration/);
  assert.match(server.stderr(), /no-such-program/);
  assert.deepEqual(await namesAt(mine, address), ["two"]);
  assert.deepEqual(await server.stop(), { code: 0, signal: null });
});

test("SIGTERM and SIGINT end with status 0 when nothing is under way", async () => {
  await using mine = await home();
  for (const signal of ["SIGTERM", "SIGINT"] as const) {
    const server = mine.start(["serve", "web=3000", ...LISTEN]);
    await addressOf(server);
    assert.deepEqual(await server.stop(signal), { code: 0, signal: null });
  }
});

test("a stream under way is given time at SIGTERM, and a second signal ends at once", async () => {
  await using mine = await home();
  const server = mine.start(["serve", "cat=exec:cat", ...LISTEN]);
  const address = await addressOf(server);
  const client = mine.start(["connect", address, "cat", ...TRUST]);
  client.child.stdin.write("before\n");
  await client.line(/^before$/);
  server.child.kill("SIGTERM");
  await server.complains(/draining/);
  client.child.stdin.write("after\n");
  await client.line(/^after$/);
  // A signal within a moment of the first counts as its copy (npx and the launcher pass Ctrl-C on); so again until it is a second one.
  const again = setInterval(() => server.child.kill("SIGTERM"), 100);
  const [code] = await once(server.child, "exit");
  clearInterval(again);
  assert.equal(code, 128 + 15);
});

test("serve ends with the shell that npx has put in between, which passes no signal on", async () => {
  await using mine = await home();
  const command = `"${process.execPath}" "${path.join(repository, "bin", "fived.js")}" serve web=3000 ${LISTEN.join(" ")}; true`;
  const env = { ...process.env, npm_execpath: "npm", XDG_STATE_HOME: mine.folder };
  const shell = spawn("sh", ["-c", command], { env, stdio: ["ignore", "pipe", "ignore"] });
  await once(shell.stdout, "data");
  shell.kill("SIGTERM");
  // Only the server still holds this pipe.
  await once(shell.stdout.resume(), "close");
});

test("S10 SIGUSR1 opens no inspector", async () => {
  await using mine = await home();
  const server = mine.start(["serve", "web=3000", ...LISTEN]);
  const address = await addressOf(server);
  server.child.kill("SIGUSR1");
  assert.deepEqual(await namesAt(mine, address), ["web"]);
  assert.doesNotMatch(server.stderr(), /Debugger listening/);
  await server.stop();
});

test("a taken port is said in one line", async () => {
  await using mine = await home();
  const taken = net.createServer().listen(0, "127.0.0.1").unref();
  await once(taken, "listening");
  const address = taken.address();
  const port = typeof address === "object" && address !== null ? address.port : 0;
  const { code, stderr } = await mine.fived(["serve", "web=3000", "--listen", `tcp://127.0.0.1:${port}`]);
  taken.close();
  assert.equal(code, 255);
  assert.match(stderr, new RegExp(`^fived: Cannot .*127\\.0\\.0\\.1:${port}.*\n$`));
});

test("check is silent about nothing: every mistake with file, line and column, and status 1", async () => {
  await using mine = await home();
  const file = await configured(mine, "  web: { to: 99999, allow: [anyone] }\n  xyz: { exec: [date] }\n");
  const { code, stdout } = await mine.fived(["check", "-c", file]);
  assert.equal(code, 1);
  assert.match(stdout.toString(), /^\S+fived\.yaml:3:\d+: error: services\.web\.to.*99999.*$/m);
  const json = await mine.fived(["check", "-c", file, "--json"]);
  assert.equal(json.code, 1);
  const answer = JSON.parse(json.stdout.toString());
  assert.equal(answer.ok, false);
  assert.equal(answer.problems[0].line, 3);
});

test("check warns of a service that nobody may use, and that is no failure", async () => {
  await using mine = await home();
  const file = await configured(mine, "  web: { to: 3000 }\n");
  const { code, stdout } = await mine.fived(["check", "-c", file]);
  assert.equal(code, 0);
  assert.match(stdout.toString(), /^\S+fived\.yaml:3:\d+: warning: services\.web.*$/m);
  const good = await configured(mine, "  web: { to: 3000, allow: [anyone] }\n");
  assert.deepEqual((await mine.fived(["check", "-c", good])).stdout.toString(), `${good}: ok\n`);
});

test("a configuration that cannot be served is said with every mistake, and fived ends with 255", async () => {
  await using mine = await home();
  const file = await configured(mine, "  web: { to: 99999, allow: [anyone] }\n  LIST: { to: 1, allow: [anyone] }\n");
  const { code, stderr } = await mine.fived(["serve", "-c", file]);
  assert.equal(code, 255);
  assert.match(stderr, /^fived: Cannot use .*fived\.yaml:/);
  assert.match(stderr, /fived\.yaml:3:/);
  assert.match(stderr, /fived\.yaml:4:/);
});
