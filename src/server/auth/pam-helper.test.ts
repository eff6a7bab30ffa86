import assert from "node:assert/strict";
import { once } from "node:events";
import fs from "node:fs/promises";
import { connect, createServer, type Socket } from "node:net";
import path from "node:path";
import test, { type TestContext } from "node:test";
import { eventually, within } from "../../../test/support/deadline.ts";
import { scripted } from "../../../test/support/exchange.ts";
import { isRoot, needs } from "../../../test/support/needs.ts";
import { PAM_USER, type PamFolder, pamFolder } from "../../../test/support/pam.ts";
import { createLog, type Log } from "../log.ts";
import type { Exchange } from "./mechanism.ts";
import { PamPasswords } from "./pam.ts";
import { servePam } from "./pam-helper.ts";
import { PAM_ATTEMPTS_MAX } from "./pam-process.ts";
import { PamMessageReader, printFrame, printMessage, printRequest } from "./pam-protocol.ts";

const skip = needs("gcc", "pam-wrapper");
const BOB = { user: "bob", groups: [], roles: [] };
const ORDINARY = ["auth required matrix", "account required matrix"];

interface Heard {
  readonly log: Log;
  readonly lines: string[];
}

function heard(): Heard {
  const lines: string[] = [];
  return { lines, log: createLog({ level: "debug", json: true, write: (line) => void lines.push(line) }) };
}

interface Setting {
  readonly made: PamFolder;
  readonly socket: string;
  readonly passwords: PamPasswords;
  /** What the server logged, and what the helper did. */
  readonly server: Heard;
  readonly helper: Heard;
}

/** A helper that asks PAM by these lines, and a server's side of it. */
async function helped(t: TestContext, lines: readonly string[], silentMs?: number): Promise<Setting> {
  const made = await pamFolder(t);
  const socket = path.join(made.folder, "pam.sock");
  const [server, helper] = [heard(), heard()];
  const service = await made.write("fived-test", ...lines);
  const running = await servePam({
    ...service,
    socket,
    log: helper.log,
    ...(silentMs === undefined ? {} : { silentMs }),
  });
  t.after(() => running[Symbol.asyncDispose]());
  return { made, socket, passwords: served(socket, server.log), server, helper };
}

function served(socket: string, log: Log): PamPasswords {
  return new PamPasswords({ service: "fived-test", helper: socket, log, refusalMs: 0 });
}

function bob(passwords: PamPasswords, answers: readonly string[] = [PAM_USER.password]) {
  return passwords.authenticate("bob", scripted(answers, { initial: ["bob"] }));
}

/** A folder with a helper in it that does with each connection as the test says. */
async function lying(t: TestContext, act: (socket: Socket) => void): Promise<{ readonly socket: string }> {
  const made = await fs.mkdtemp("/tmp/fived-pam-");
  t.after(() => fs.rm(made, { recursive: true, force: true }));
  const socket = path.join(made, "pam.sock");
  const connections = new Set<Socket>();
  const server = createServer((connection) => {
    connection.on("error", () => {});
    connections.add(connection);
    act(connection);
  }).listen(socket);
  await once(server, "listening");
  t.after(async () => {
    for (const connection of connections) connection.destroy();
    await new Promise((closed) => server.close(closed));
  });
  return { socket };
}

test("through the helper the right password signs in, a wrong one does not, and longer conversations pass through", {
  skip,
}, async (t) => {
  const mine = await helped(t, ["auth required odd batch", "auth required matrix verbose", "account required matrix"]);
  const exchange = scripted(["1234", "5678", PAM_USER.password], { initial: ["bob"] });
  assert.deepEqual(await mine.passwords.authenticate("bob", exchange), BOB);
  assert.deepEqual(
    exchange.asked.map(({ question }) => question),
    ["Token: ", "PIN: ", "Password: "],
  );
  assert.deepEqual(exchange.told, ["Two things", "Careful", "Authentication succeeded"]);
  assert.ok(exchange.given.every((octets) => octets.every((octet) => octet === 0)));
  assert.equal(await bob(mine.passwords, ["1234", "5678", "guess"]), undefined);
  assert.match(mine.server.lines.join(""), /"reason":"Authentication failure","msg":"PAM refuses somebody"/);
  assert.doesNotMatch([...mine.server.lines, ...mine.helper.lines].join(""), /secret|guess/);
});

test("the socket is for its group alone from the first moment on, and goes with the helper", { skip }, async (t) => {
  const made = await pamFolder(t);
  const socket = path.join(made.folder, "pam.sock");
  const umask = process.umask(0);
  try {
    const helper = await servePam({ ...(await made.write("fived-test", ...ORDINARY)), socket, log: heard().log });
    assert.equal((await fs.stat(socket)).mode & 0o777, 0o660);
    assert.equal(process.umask(), 0);
    await helper[Symbol.asyncDispose]();
    await assert.rejects(fs.stat(socket), { code: "ENOENT" });
  } finally {
    process.umask(umask);
  }
});

test("a helper takes the place of one that died, and of nothing else", { skip }, async (t) => {
  const mine = await helped(t, ORDINARY);
  const options = { ...(await mine.made.write("fived-test", ...ORDINARY)), log: heard().log };
  await assert.rejects(servePam({ ...options, socket: mine.socket }), { code: "LISTEN_FAILED" });
  assert.deepEqual(await bob(mine.passwords), BOB);
  const file = path.join(mine.made.folder, "file");
  await fs.writeFile(file, "somebody's");
  await assert.rejects(servePam({ ...options, socket: file }), { code: "LISTEN_FAILED" });
  assert.equal(await fs.readFile(file, "utf8"), "somebody's");
  // A second name of a socket outlives its server.
  const stale = path.join(mine.made.folder, "stale");
  const dead = createServer().listen(path.join(mine.made.folder, "first"));
  await once(dead, "listening");
  await fs.link(path.join(mine.made.folder, "first"), stale);
  await new Promise((closed) => dead.close(closed));
  await using _helper = await servePam({ ...options, socket: stale });
  assert.deepEqual(await bob(served(stale, heard().log)), BOB);
});

test("a helper that could not ask PAM, or whose folder others may write to, does not start", { skip }, async (t) => {
  const made = await pamFolder(t);
  const service = await made.write("fived-test", ...ORDINARY);
  const socket = path.join(made.folder, "pam.sock");
  const { log } = heard();
  await assert.rejects(servePam({ ...service, service: "nosuch", socket, log }), {
    code: "CONFIGURATION_BAD",
    message: `Cannot ask PAM as the service "nosuch": there is no file ${path.join(made.folder, "nosuch")}`,
  });
  await assert.rejects(servePam({ ...service, service: "../x", socket, log }), { code: "CONFIGURATION_BAD" });
  await assert.rejects(servePam({ ...service, socket: path.join(made.folder, "none", "x"), log }), {
    code: "LISTEN_FAILED",
  });
  await fs.chmod(made.folder, 0o770);
  await assert.rejects(servePam({ ...service, socket, log }), { code: "LISTEN_FAILED", message: /chmod go-w/ });
});

test("a server believes no socket that somebody else could have made", { skip: skip || needs("root") }, async (t) => {
  const mine = await helped(t, ORDINARY);
  const refused = async (why: RegExp) => {
    assert.equal(await bob(mine.passwords), undefined);
    assert.match(mine.server.lines.at(-1) ?? "", why);
  };
  await fs.chmod(mine.made.folder, 0o777);
  await refused(/others may write to the folder/);
  await fs.chmod(mine.made.folder, 0o700);
  await fs.chown(mine.made.folder, 65_534, 0);
  await refused(/the folder \S+ belongs to user 65534, expected root/);
  await fs.chown(mine.made.folder, 0, 0);
  await fs.chown(mine.socket, 65_534, 0);
  await refused(/pam\.sock belongs to user 65534, expected root/);
  await fs.chown(mine.socket, 0, 0);
  assert.deepEqual(await bob(mine.passwords), BOB);
  await fs.rename(mine.socket, `${mine.socket}.away`);
  await refused(/ENOENT/);
  await fs.writeFile(mine.socket, "");
  await refused(/is no socket/);
});

test("A06 a module that hangs is ended by the helper, also when the server has left", { skip }, async (t) => {
  const mine = await helped(t, ["auth required odd hang"], 3_000);
  const exchange = scripted([], { initial: ["bob"] });
  assert.equal(await mine.passwords.authenticate("bob", exchange), undefined);
  assert.match(mine.helper.lines.join(""), /"reason":"it was silent for 3 s"/);
  assert.match(mine.server.lines.join(""), /"reason":"it was silent for 3 s"/);
  const leave = new AbortController();
  const told = Promise.withResolvers<string>();
  const leaving: Exchange = { ...scripted([], { signal: leave.signal }), tell: told.resolve };
  const attempt = assert.rejects(mine.passwords.authenticate("bob", leaving), { code: "ABORTED" });
  const pids = [...(exchange.told[0] ?? "").split(" "), ...(await within(told.promise, "what it tells")).split(" ")];
  leave.abort();
  await attempt;
  assert.equal(pids.length, 4);
  await eventually(
    async () => {
      for (const pid of pids) {
        const status = await fs.readFile(`/proc/${pid}/stat`, "utf8").catch(() => ") Z ");
        assert.match(status, /\) [ZX] /);
      }
    },
    `the end of ${pids.join(", ")}`,
  );
});

test("A06 the helper starts no more than 16 processes, whoever asks", { skip }, async (t) => {
  const mine = await helped(t, ["auth required odd questions 1", "account required odd"]);
  const first = async () => {
    const socket = connect(mine.socket);
    socket.on("error", () => {});
    t.after(() => socket.destroy());
    const reader = new PamMessageReader();
    const [chunk] = await once(socket, "data");
    reader.push(chunk);
    return { socket, message: reader.next() };
  };
  const held = await Promise.all(Array.from({ length: PAM_ATTEMPTS_MAX }, first));
  for (const { message } of held) assert.deepEqual(message, { type: "ready" });
  const late = await first();
  assert.deepEqual(late.message, { type: "broken", why: "16 attempts run already" });
  const closed = held.map(({ socket }) => once(socket, "close"));
  for (const { socket } of held) socket.destroy();
  await Promise.all(closed);
  await eventually(async () => assert.deepEqual(await bob(mine.passwords, ["x"]), BOB), "a free slot");
});

test("A08 the helper passes on no name that is none, nor anything out of turn", { skip }, async (t) => {
  const mine = await helped(t, ORDINARY);
  const answered = async (...said: readonly Uint8Array[]) => {
    const socket = connect(mine.socket);
    const reader = new PamMessageReader();
    socket.on("data", (chunk) => reader.push(chunk));
    for (const octets of said) socket.write(octets);
    await once(socket, "close");
    const messages: unknown[] = [];
    for (let next = reader.next(); next !== undefined; next = reader.next()) messages.push(next);
    return messages;
  };
  const unreadable = [{ type: "ready" }, { type: "broken", why: "the request cannot be read" }];
  for (const user of ["bob@p.example", "../bob", "-bob", "Bob", ""])
    assert.deepEqual(await answered(printRequest({ user })), unreadable, user);
  assert.deepEqual(await answered(printFrame(Buffer.from("bob"))), unreadable);
  assert.deepEqual(await answered(Buffer.from([0xff, 0xff])), []);
  assert.deepEqual(await bob(mine.passwords), BOB);
});

test("A08 a helper that is killed, says garbage or answers out of turn signs nobody in, and the next one does", {
  skip,
}, async (t) => {
  const ready = printMessage({ type: "ready" });
  const found = printMessage({ type: "found", user: "bob", groups: [] });
  const refused = printMessage({ type: "refused", why: "no" });
  const wrong: readonly (readonly Uint8Array[])[] = [
    [],
    [found],
    [Buffer.from("+ SUCCESS\n")],
    [ready, ready, found],
    [ready, Buffer.from('{"type":"found","user":"bob","groups":[]}')],
    [ready, Buffer.from('{"type":"found","user":"bob"}\n'), found],
    [ready, printMessage({ type: "found", user: "alice@p.example", groups: [] })],
    [ready, refused, found],
    [ready, printMessage({ type: "broken", why: "x" }), found],
    [ready, Buffer.alloc(200_000, 0x20)],
  ];
  for (const said of wrong) {
    const { log, lines } = heard();
    const { socket } = await lying(t, (connection) => {
      for (const octets of said) connection.write(octets);
      connection.end();
    });
    assert.equal(await bob(served(socket, log)), undefined);
    assert.equal(lines.length, 1);
  }
  const asks = printMessage({ type: "ask", text: "Password: ", shown: false });
  const dying = await lying(t, (connection) => {
    connection.write(Buffer.concat([ready, asks]));
    connection.on("data", (chunk) => chunk.includes("secret") && connection.destroy());
  });
  const { log, lines } = heard();
  assert.equal(await bob(served(dying.socket, log)), undefined);
  assert.match(lines.join(""), /it ended without a result|ECONNRESET/);
  const mine = await helped(t, ORDINARY);
  assert.deepEqual(await bob(mine.passwords), BOB);
});

test("a server that may not write to the socket signs nobody in", { skip: skip || needs("root") }, async (t) => {
  const mine = await helped(t, ORDINARY);
  await fs.chmod(mine.made.folder, 0o755);
  assert.ok(isRoot());
  const groups = process.getgroups?.() ?? [];
  process.setgroups?.([]);
  process.setegid?.(65_534);
  process.seteuid?.(65_534);
  try {
    assert.equal(await bob(mine.passwords), undefined);
  } finally {
    process.seteuid?.(0);
    process.setegid?.(0);
    process.setgroups?.(groups);
  }
  assert.match(mine.server.lines.join(""), /EACCES/);
});
