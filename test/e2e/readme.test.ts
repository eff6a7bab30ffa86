/**
 * The README, run: every file in it is written, every command executed, every answer compared. It has a network namespace of its own, where
 * the ports are free that the README names; a server is stopped where a reader would stop it, when the next one starts.
 * @module
 */
import assert from "node:assert/strict";
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import fs from "node:fs/promises";
import os from "node:os";
import path from "node:path";
import readline from "node:readline";
import { text } from "node:stream/consumers";
import test from "node:test";
import { repository } from "./command.ts";

/** These run until they are stopped; the reader knows by this line that they are ready. */
const RUNNERS: readonly { readonly command: RegExp; readonly isServer: boolean; readonly ready: RegExp }[] = [
  { command: /^npm start\b/, isServer: true, ready: /^Try, in another terminal:$/ },
  { command: /^npx fived serve\b/, isServer: true, ready: /^fived: service / },
  { command: /^npx fived forward\b/, isServer: false, ready: /^fived: \S+ -> / },
  { command: /^npx fived proxy\b/, isServer: false, ready: /^fived: SOCKS and HTTP on / },
];

const TOOLS = ["unshare", "nsenter", "ip", "curl", "nc"];

test("every file and command of the README works as written", { skip: await whyNot() }, async (t) => {
  await using reader = await readerOf("README.md");
  let ran = 0;
  for (const block of blocks(await fs.readFile(path.join(repository, "README.md"), "utf8"))) {
    switch (block.language) {
      case "sh":
        for (const command of block.body.split("\n")) ran += await reader.run(command);
        break;
      case "console":
        for (const { command, answer } of transcript(block.body)) ran += await reader.run(command, answer);
        break;
      case "ts":
      case "yaml": {
        const [, name] = /^(?:\/\/|#) (\S+)\n/.exec(block.body) ?? [];
        assert.ok(name !== undefined, `a file begins with a comment that names it: ${block.body}`);
        await fs.writeFile(path.join(reader.folder, name), block.body);
        break;
      }
      case "":
        break; // A drawing or a piece of another program's configuration.
      default:
        assert.fail(`the README has a block of ${block.language}, which nobody runs`);
    }
  }
  t.diagnostic(`${ran} commands`);
  assert.ok(ran >= 10, `ran ${ran} commands only`);
});

test("the README names only files that exist", async () => {
  const page = await fs.readFile(path.join(repository, "README.md"), "utf8");
  const links = [...page.matchAll(/\]\(([^):#]+)\)/g)].map(([, link = ""]) => link);
  assert.ok(links.length > 0);
  for (const link of links) await fs.access(path.join(repository, link));
});

interface Reader extends AsyncDisposable {
  readonly folder: string;
  /** Runs a command as the reader would and compares the answer; answers how many commands it ran. */
  run(command: string, answer?: string): Promise<number>;
}

async function readerOf(page: string): Promise<Reader> {
  const folder = await fs.mkdtemp(path.join(os.tmpdir(), "fived-readme-"));
  // A folder in which `npx fived` and `import … from "fived"` mean this checkout, as they do in the checkout itself.
  await fs.mkdir(path.join(folder, "node_modules", ".bin"), { recursive: true });
  await fs.symlink(repository, path.join(folder, "node_modules", "fived"));
  await fs.symlink(path.join(repository, "bin", "fived.js"), path.join(folder, "node_modules", ".bin", "fived"));
  await fs.symlink(process.execPath, path.join(folder, "node_modules", ".bin", "node"));
  const env = {
    ...process.env,
    XDG_CONFIG_HOME: path.join(folder, "config"),
    XDG_STATE_HOME: path.join(folder, "state"),
    FIVED_MANAGER: path.join(folder, "run", "manager.sock"),
    npm_config_update_notifier: "false",
  };
  const network = spawn("unshare", ["--net", "sh", "-c", "ip link set lo up && echo up && exec cat"]);
  assert.match(String(await once(network.stdout, "data")), /^up/);
  const inside = (command: string, cwd = folder) =>
    spawn("nsenter", [`--net=/proc/${network.pid}/ns/net`, "sh", "-c", command], { cwd, env, detached: true });

  // What the README says listens on port 3000 of the reader's computer.
  const web = inside(
    `exec node -e 'require("http").createServer((q, a) => a.end("port 3000\\n")).listen(3000, () => console.log("up"))'`,
  );
  await once(web.stdout, "data");
  const running = new Map<ChildProcess, boolean>([[web, false]]);

  async function stop(isDue: (isServer: boolean) => boolean): Promise<void> {
    for (const [child, isServer] of running) {
      if (!isDue(isServer)) continue;
      running.delete(child);
      const ended = once(child, "exit");
      if (child.pid !== undefined && child.exitCode === null) process.kill(-child.pid, "SIGINT");
      await ended;
    }
  }

  async function start(command: string, { isServer, ready }: (typeof RUNNERS)[number]): Promise<readonly string[]> {
    if (isServer) await stop((each) => each);
    const child = inside(command, command.startsWith("npm start") ? repository : folder);
    running.set(child, isServer);
    const complaints = text(child.stderr);
    const said: string[] = [];
    for await (const line of readline.createInterface({ input: child.stdout })) {
      said.push(line);
      if (ready.test(line)) {
        child.stdout.resume();
        return said;
      }
    }
    throw new Error(`${command} ended before it was ready: ${said.join("\n")}\n${await complaints}`);
  }

  return {
    folder,
    async run(line, answer) {
      // Installing and testing is what CI does with this very line; here the rest of it counts.
      if (line === "npm ci && npm test") return 0;
      const command = line.replace(/^npm ci && /, "").replaceAll("server.example.org", "127.0.0.1");
      const runner = RUNNERS.find((each) => each.command.test(command));
      if (runner !== undefined) {
        const said = await start(command, runner);
        if (answer !== undefined) assert.equal(said.join("\n"), answer, `$ ${line}`);
        return 1;
      }
      const child = inside(command);
      child.stdin.end();
      const [out, err] = await Promise.all([text(child.stdout), text(child.stderr), once(child, "close")]);
      assert.equal(child.exitCode, 0, `${page}: $ ${line}\n${out}${err}`);
      if (answer !== undefined) assert.equal(out.replaceAll("\r", "").trim(), answer, `${page}: $ ${line}\n${err}`);
      return 1;
    },
    async [Symbol.asyncDispose]() {
      await stop(() => true);
      await once(inside("npx fived down").stderr.resume(), "close"); // the session manager outlives what has started it
      network.stdin.end();
      await once(network, "exit");
      await fs.rm(folder, { recursive: true, force: true });
    },
  };
}

interface Block {
  readonly language: string;
  readonly body: string;
}

function blocks(page: string): readonly Block[] {
  return [...page.matchAll(/^```(\w*)\n(.*?)\n```$/gms)].map(([, language = "", body = ""]) => ({ language, body }));
}

/** `$ command` lines, and what is answered up to the next one. */
function transcript(body: string): readonly { readonly command: string; readonly answer: string }[] {
  return body
    .split(/^\$ /m)
    .filter((part) => part !== "")
    .map((part) => {
      const [command = "", ...answer] = part.trimEnd().split("\n");
      return { command, answer: answer.join("\n") };
    });
}

async function whyNot(): Promise<string | false> {
  if (process.getuid?.() !== 0) return "a network namespace needs root";
  for (const tool of TOOLS) {
    const child = spawn("sh", ["-c", `command -v ${tool}`], { stdio: "ignore" });
    const [code] = await once(child, "exit");
    if (code !== 0) return `${tool} is not installed`;
  }
  return false;
}
