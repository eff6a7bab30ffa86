/**
 * Several connections of one session (paper section 3.1.8), over networks of their own: the client is a program, as a computer's network is a process's.
 * @module
 */
import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import path from "node:path";
import test, { type TestContext } from "node:test";
import { writeBulk } from "../support/bulk.ts";
import { fived } from "../support/fived.ts";
import { Lab } from "../support/lab.ts";
import { needs } from "../support/needs.ts";
import { Network, SERVER } from "../support/network.ts";
import type { Program } from "../support/program.ts";

const skip = needs("root", "ip", "nsenter", "unshare");
const MEGABYTES = 20;

interface World {
  readonly lab: Lab;
  readonly network: Network;
  readonly hash: string;
  /** Runs a program in TypeScript at the client's; what it needs is in scope: `session`, `download` and `told`. */
  run(lines: string): Program;
  /** Octets that the client's computer has received over a path. */
  received(path: number): Promise<number>;
}

async function world(t: TestContext): Promise<World> {
  const lab = await Lab.open(t);
  const network = await Network.open(lab);
  await network.lay(1);
  await network.lay(2);
  const source = lab.path("source");
  const hash = await writeBulk(source, MEGABYTES);
  const settings = await lab.write(
    "fived.yaml",
    JSON.stringify({
      listen: ["tcp://0.0.0.0:1078"],
      services: {
        bulk: { exec: ["cat", source], allow: ["anyone"] },
        late: { exec: ["sh", "-c", `sleep 1; cat ${source}`], allow: ["anyone"] },
        echo: { exec: ["cat"], allow: ["anyone"] },
      },
      sessions: { connections: 3, detach: { anonymous: 4 } },
    }),
  );
  const server = lab.start(network.atServer(fived("serve", "-c", settings, "--state", lab.path("server"))));
  await server.hears(/listening on/);
  const client = path.join(import.meta.dirname, "../../src/client/index.ts");
  let programs = 0;
  return {
    ...{ lab, network, hash },
    run(lines) {
      const file = lab.path(`client-${programs++}.ts`);
      const text = `import { createHash } from "node:crypto";
import { once } from "node:events";
import { createInterface } from "node:readline";
import { connect } from ${JSON.stringify(client)};
const answers = createInterface({ input: process.stdin })[Symbol.asyncIterator]();
const told = async (text: string) => {
  console.log(text);
  await answers.next();
};
const session = await connect("${SERVER}", { knownHosts: ${JSON.stringify(lab.path("known_hosts"))}, strictHostKeyChecking: "accept-new" });
const download = async (path?: string) => {
  const hash = createHash("sha256");
  for await (const octets of session.open("bulk", path === undefined ? {} : { path })) hash.update(octets);
  return hash.digest("hex");
};
const first = session.open("echo");
first.write("x");
await once(first, "data");
const add = (name: string, number: number, more = {}) => session.addPath({ name, localAddress: \`10.78.\${number}.2\`, ...more });
${lines}
process.exit();
`;
      return startWritten(lab, network, file, text);
    },
    async received(number) {
      const { stdout } = await lab.run(
        network.atClient(["ip", "-json", "-statistics", "link", "show", `path${number}`]),
      );
      return Number(JSON.parse(stdout.toString())[0].stats64.rx.bytes);
    },
  };
}

function startWritten(lab: Lab, network: Network, file: string, text: string): Program {
  const quoted = Buffer.from(text).toString("base64");
  const command = ["sh", "-c", `echo ${quoted} | base64 -d >'${file}' && exec '${process.execPath}' '${file}'`];
  return lab.start(network.atClient(command));
}

test("a download uses both connections, and comes whole", { skip }, async (t) => {
  const { run, received, hash } = await world(t);
  const program = run(`await add("other", 1);
await told("added");
console.log(await download());`);
  await program.hears(/added\n/);
  const before = [await received(1), await received(2)];
  program.says("\n");
  await program.hears(new RegExp(hash));
  const after = [await received(1), await received(2)];
  for (const at of [0, 1]) {
    const octets = (after[at] ?? 0) - (before[at] ?? 0);
    assert.ok(octets > MEGABYTES * 100_000, `${octets} octets over path ${at + 1}`);
  }
  assert.equal(await program.ended, 0, program.complained);
});

test("a stream keeps to its connection, both ways; moved, it goes over the other", { skip }, async (t) => {
  const { run, received, hash } = await world(t);
  const program = run(`await add("fat", 1, { reserved: true });
await told("added");
console.log(await download());
await told("main");
console.log(await download("fat"));
await told("fat");
console.log(session.move(first, "fat"), session.move(first, "none"), session.move(first, undefined));
console.log(session.removePath("fat"), session.removePath("fat"));
console.log(await download());`);
  await program.hears(/added\n/);
  const counts = async (): Promise<readonly [number, number]> => [await received(1), await received(2)];
  const start = await counts();
  program.says("\n");
  await program.hears(new RegExp(`${hash}\nmain\n`));
  const main = await counts();
  assert.ok(main[0] - start[0] < MEGABYTES * 20_000, `${main[0] - start[0]} octets over a connection for others`);
  assert.ok(main[1] - start[1] > MEGABYTES * 1_000_000);
  program.says("\n");
  await program.hears(new RegExp(`${hash}\nfat\n`));
  const fat = await counts();
  assert.ok(fat[0] - main[0] > MEGABYTES * 1_000_000);
  assert.ok(fat[1] - main[1] < MEGABYTES * 20_000, `${fat[1] - main[1]} octets over the other connection`);
  program.says("\n");
  await program.hears(new RegExp(`true false true\ntrue false\n${hash}\n`));
  assert.equal(await program.ended, 0, program.complained);
});

test("the address of one of two connections goes: the other one carries on, and it comes back", { skip }, async (t) => {
  const { network, run, hash } = await world(t);
  const program = run(`await add("other", 1);
const all = download();
await told("on its way");
console.log(await all);
first.write("y");
console.log(String((await once(first, "data"))[0]));
await told("waiting");
for (;;) try { await add("other", 1); } catch (error) { if (/called "other"/.test(error.message)) break; await new Promise((go) => setTimeout(go, 100)); }
console.log("back");`);
  await program.hears(/on its way\n/);
  await network.fell(1);
  program.says("\n");
  await program.hears(new RegExp(`${hash}\ny\nwaiting\n`));
  await network.raise(1);
  program.says("\n");
  await program.hears(/back\n/);
  assert.equal(await program.ended, 0, program.complained);
});

for (const manager of ["the session manager", "no session manager"]) {
  test(`rules in config.yaml say which services keep to which connection: ${manager}`, { skip }, async (t) => {
    const { lab, network, received, hash } = await world(t);
    const rules = [{ name: "fat", from: "10.78.1.2", services: ["late"], reserved: true, hosts: [SERVER] }];
    await lab.run(["mkdir", "-p", lab.path("config", "fived")]);
    await lab.write("config/fived/config.yaml", JSON.stringify({ paths: rules }));
    const env = { FIVED_MANAGER: manager === "no session manager" ? "off" : lab.path("run", "manager.sock") };
    const command = (...args: readonly string[]) => network.atClient(fived(...args));
    lab.defer(async () => void (await lab.run(command("down"), { env })));
    // The stream is there before the connection, which takes longer: it moves when that has come.
    const script = `(echo x; sleep 1; cat "$2") | "$3" "$4" connect -o StrictHostKeyChecking=accept-new ${SERVER} "$5" >"$1"`;
    const [node = "", bin = ""] = fived();
    const transfer = async (service: string): Promise<void> => {
      const out = lab.path(`out-${service}`);
      await lab.run(network.atClient(["sh", "-c", script, "sh", out, lab.path("source"), node, bin, service]), { env });
    };
    const before = [await received(1), await received(2)];
    await transfer("echo");
    const between = [await received(1), await received(2)];
    assert.ok((between[0] ?? 0) - (before[0] ?? 0) < MEGABYTES * 50_000, "what keeps to nothing uses what is for all");
    assert.ok((between[1] ?? 0) - (before[1] ?? 0) > MEGABYTES * 900_000);
    const bulk = await lab.run(command("connect", SERVER, "late"), { env });
    assert.equal(createHash("sha256").update(bulk.stdout).digest("hex"), hash, bulk.stderr);
    const after = [await received(1), await received(2)];
    assert.ok((after[0] ?? 0) - (between[0] ?? 0) > MEGABYTES * 900_000, `${after} ${between}`);
  });
}
