import assert from "node:assert/strict";
import { once } from "node:events";
import fs from "node:fs/promises";
import { connect as connectSocket, createServer, type Server, type Socket } from "node:net";
import os from "node:os";
import path from "node:path";
import { buffer, text } from "node:stream/consumers";
import test, { type TestContext } from "node:test";
import fc from "fast-check";
import { serveSetUp } from "../../../test/conformance/set-up.ts";
import { effort, seed } from "../../../test/sim/seed.ts";
import { eventually, within } from "../../../test/support/deadline.ts";
import { portOf } from "../../../test/support/lab.ts";
import { scripted, WELCOME } from "../../../test/support/scripted-server.ts";
import type { FivedError } from "../../io/index.ts";
import { Code, encodeLine } from "../../wire/index.ts";
import type { ClientChoices } from "../choices.ts";
import type { Computer } from "../watch.ts";
import { type Asked, ManagerClient } from "./client.ts";
import { forwardThrough } from "./forward.ts";
import { type ManagerOptions, type ManagerStatus, startManager } from "./manager.ts";
import { HELLO } from "./messages.ts";

/** A manager with a person's files, and programs of his. */
interface Running {
  readonly socket: string;
  readonly folder: string;
  readonly choices: ClientChoices;
  readonly logged: string[];
  readonly stopped: Promise<void>;
  program(): Promise<ManagerClient>;
  end(): Promise<void>;
}

async function running(t: TestContext, options: Partial<ManagerOptions> = {}): Promise<Running> {
  const folder = await fs.mkdtemp(path.join(os.tmpdir(), "fived-manager-"));
  const socket = path.join(folder, "run", "manager.sock");
  const logged: string[] = [];
  const manager = await startManager({ socket, log: (line) => logged.push(line), lookMs: 20, ...options });
  const programs: ManagerClient[] = [];
  t.after(async () => {
    for (const program of programs) await program[Symbol.asyncDispose]();
    await manager[Symbol.asyncDispose]();
    await fs.rm(folder, { recursive: true });
  });
  return {
    socket,
    folder,
    logged,
    stopped: manager.stopped,
    choices: {
      knownHosts: path.join(folder, "known_hosts"),
      strictHostKeyChecking: "accept-new",
      identityFiles: [],
      keysFolder: path.join(folder, "ssh"),
      loginsFile: path.join(folder, "logins.yaml"),
    },
    async program() {
      const program = await ManagerClient.connect(socket);
      assert.ok(program !== undefined);
      programs.push(program);
      return program;
    },
    async end() {
      await manager[Symbol.asyncDispose]();
    },
  };
}

const nobody: Asked = { tries: 1, log() {} };

/** What the manager holds at an address, once it is as wanted. */
async function holds(
  program: ManagerClient,
  wanted: (session: ManagerStatus["sessions"][number]) => boolean,
): Promise<void> {
  await eventually(async () => {
    const { sessions } = await program.status();
    assert.ok(sessions.some(wanted), JSON.stringify(sessions));
  }, "the manager to hold what was wanted");
}

// ---- sharing ----------------------------------------------------------------------------------------------------------------------

test("programs that ask for the same share one session", async (t) => {
  const { program, choices } = await running(t);
  const server = await scripted(t, WELCOME);
  const [one, other] = [await program(), await program()];
  for (const each of [one, other, one]) {
    const stream = each.open({ address: server.address, service: "echo", choices }, nobody);
    stream.end("hello");
    assert.equal(await text(stream), "hello");
  }
  assert.equal(server.heard.length, 1);
  assert.equal(server.heard[0]?.requests.length, 3);
  const { sessions } = await other.status();
  assert.deepEqual(
    sessions.map(({ address, state, connections, streams }) => ({ address, state, connections, streams })),
    [{ address: server.address, state: "ready", connections: 1, streams: 0 }],
  );
});

test("other choices are another session, and the agent of a terminal is none", async (t) => {
  const { program, choices, folder } = await running(t);
  const server = await scripted(t, WELCOME);
  const one = await program();
  const list = async (with_: ClientChoices): Promise<void> => {
    const stream = one.open({ address: server.address, service: "echo", choices: with_ }, nobody);
    stream.end();
    await text(stream);
  };
  await list(choices);
  await list({ ...choices, agent: path.join(folder, "agent"), careful: true });
  assert.equal(server.heard.length, 1);
  await list({ ...choices, connectTimeoutMs: 9_000 });
  assert.equal(server.heard.length, 2);
});

test("several organisations are held at once, and one is ended without the others", async (t) => {
  const { program, choices } = await running(t);
  const servers = [await scripted(t, WELCOME), await scripted(t, WELCOME)];
  const one = await program();
  for (const { address } of servers) {
    const stream = one.open({ address, service: "echo", choices }, nobody);
    stream.end("x");
    await text(stream);
  }
  assert.equal((await one.status()).sessions.length, 2);
  assert.equal(await one.end(servers[0]?.address ?? ""), 1);
  assert.equal(await one.end(servers[0]?.address ?? ""), 0);
  assert.deepEqual(
    (await one.status()).sessions.map(({ address }) => address),
    [servers[1]?.address],
  );
});

// ---- streams ----------------------------------------------------------------------------------------------------------------------

test("a stream's octets pass whole both ways, each direction with its own end", async (t) => {
  const { program, choices } = await running(t);
  const server = await scripted(t, WELCOME);
  const stream = (await program()).open({ address: server.address, service: "echo", choices }, nobody);
  const sent = Buffer.alloc(3_000_000, "0123456789abcdef\n");
  stream.end(sent);
  const closed = once(stream, "close");
  assert.deepEqual(await buffer(stream), sent);
  await closed;
  assert.equal(stream.errored, null);
});

test("a service that ends first still hears what comes after", async (t) => {
  const heard = Promise.withResolvers<string>();
  const server = await scripted(t, WELCOME, {
    serve(channel) {
      channel.write(encodeLine("+ SUCCESS"));
      const duplex = channel.duplex(new Uint8Array(0));
      duplex.end("bye");
      heard.resolve(text(duplex));
    },
  });
  const { program, choices } = await running(t);
  const stream = (await program()).open({ address: server.address, service: "any", choices }, nobody);
  // Reading to the end with an iterator would destroy the other direction as well.
  let said = "";
  stream.on("data", (octets) => {
    said += String(octets);
  });
  await within(once(stream, "end"), "the service's end");
  assert.equal(said, "bye");
  stream.end("late");
  assert.equal(await within(heard.promise, "the octets"), "late");
});

test("a stream that is cut is never taken for one that has ended", async (t) => {
  for (const [code, name] of [
    [Code.DENIED, "DENIED"],
    [Code.UNAVAILABLE, "UNAVAILABLE"],
  ] as const) {
    const server = await scripted(t, WELCOME, {
      serve(channel) {
        channel.write(encodeLine("+ SUCCESS"));
        channel.write(Buffer.from("half of "));
        setImmediate(() => channel.reset(code));
      },
    });
    const { program, choices } = await running(t);
    const stream = (await program()).open({ address: server.address, service: "any", choices }, nobody);
    let ended = false;
    stream.on("end", () => {
      ended = true;
    });
    stream.resume();
    const [error] = await within(once(stream, "error"), "the cut");
    assert.equal((error as FivedError).code, "STREAM_RESET");
    assert.equal((error as FivedError).reason, name);
    assert.equal(ended, false);
  }
});

test("a refusal tells what the server has said, and a place where nobody is what failed", async (t) => {
  const { program, choices } = await running(t);
  const { server } = await serveSetUp(t, { services: [{ name: "echo", allow: "anyone", does: "echo" }] });
  const address = (server.addresses[0] ?? "").replace("tcp://", "");
  const one = await program();
  const refused = one.open({ address, service: "nope", choices }, nobody);
  const [error] = await within(once(refused, "error"), "the refusal");
  assert.equal((error as FivedError).code, "SERVICE_REFUSED");
  assert.equal((error as FivedError).status, 404);
  const port = await closedPort();
  const nowhere = one.open({ address: `127.0.0.1:${port}`, service: "echo", choices }, nobody);
  const [failed] = await within(once(nowhere, "error"), "the failure");
  assert.equal((failed as FivedError).code, "CONNECT_FAILED");
  const nonsense = one.open({ address: "not an address!", service: "echo", choices }, nobody);
  const [bad] = await within(once(nonsense, "error"), "the complaint");
  assert.equal((bad as FivedError).code, "ADDRESS_BAD");
  assert.deepEqual(await one.list(address, "echo", choices, nobody), ["echo"]);
});

test("a slow reader slows the service, and only that stream", async (t) => {
  const { program, choices } = await running(t);
  let taken = 0;
  const chunk = Buffer.alloc(65_536);
  const server = await scripted(t, WELCOME, {
    serve(channel, request) {
      channel.write(encodeLine("+ SUCCESS"));
      const duplex = channel.duplex(new Uint8Array(0));
      duplex.on("error", () => {});
      if (request === "echo") return void duplex.pipe(duplex);
      const fill = (): void => {
        while (!duplex.destroyed && duplex.write(chunk)) taken += chunk.length;
        taken += chunk.length;
      };
      duplex.on("drain", fill).resume();
      fill();
    },
  });
  const one = await program();
  const slow = one.open({ address: server.address, service: "flood", choices }, nobody);
  await within(once(slow, "connect"), "the flood");
  const echo = async (): Promise<void> => {
    const stream = one.open({ address: server.address, service: "echo", choices }, nobody);
    stream.end("still");
    assert.equal(await text(stream), "still");
  };
  let before = -1;
  await eventually(async () => {
    await echo();
    const last = before;
    before = taken;
    assert.equal(taken, last, "the flood goes on");
  }, "the flood to stand still");
  assert.ok(taken < 16 * 1_024 * 1_024, `${taken} octets were taken for a reader that reads nothing`);
  slow.destroy();
});

test("a program that leaves takes its streams with it, and no others", async (t) => {
  const { program, choices } = await running(t);
  const server = await scripted(t, WELCOME);
  const [one, other] = [await program(), await program()];
  const request = { address: server.address, service: "echo", choices };
  const mine = one.open(request, nobody);
  const theirs = other.open(request, nobody);
  await Promise.all([once(mine, "connect"), once(theirs, "connect")]);
  await holds(other, ({ streams }) => streams === 2);
  mine.on("error", () => {});
  mine.destroy();
  await one[Symbol.asyncDispose]();
  await holds(other, ({ streams }) => streams === 1);
  theirs.end("still here");
  assert.equal(await text(theirs), "still here");
});

test("streams of a manager that ends are lost, and not ended", async (t) => {
  const { program, choices, end } = await running(t);
  const server = await scripted(t, WELCOME);
  const stream = (await program()).open({ address: server.address, service: "echo", choices }, nobody);
  await once(stream, "connect");
  let ended = false;
  stream.on("end", () => {
    ended = true;
  });
  stream.resume();
  const lost = once(stream, "error");
  await end();
  const [error] = await within(lost, "the loss");
  assert.ok(["SESSION_LOST", "STREAM_RESET"].includes((error as FivedError).code), String(error));
  assert.equal(ended, false);
});

// ---- questions --------------------------------------------------------------------------------------------------------------------

test("whoever opens a session is asked what it needs, and is who he says afterwards", async (t) => {
  const { server } = await serveSetUp(t, {
    services: [{ name: "mine", allow: "alice", does: "echo" }],
    users: [{ name: "alice", password: "secret" }],
  });
  const address = (server.addresses[0] ?? "").replace("tcp://", "");
  const { program, choices } = await running(t);
  const asked: string[] = [];
  const alice: Asked = {
    tries: 1,
    log() {},
    async confirm(question) {
      asked.push(question);
      return true;
    },
    async ask(question) {
      asked.push(question);
      return Buffer.from("secret");
    },
  };
  const own: ClientChoices = { ...choices, strictHostKeyChecking: "ask", user: "alice" };
  const [one, other] = [await program(), await program()];
  assert.equal(await one.login(address, own, alice), "alice");
  assert.equal(asked.length, 2, "asked for the server's key, and for the password");
  // Nobody has to be asked again, and nobody else can be.
  const stream = other.open({ address, service: "mine", choices: own }, nobody);
  stream.end("hello");
  assert.equal(await text(stream), "hello");
  const { sessions } = await other.status();
  assert.equal(sessions[0]?.identity, "alice");
  // Who is nobody has no part in it.
  const anonymous = other.open({ address, service: "mine", choices }, nobody);
  const [error] = await within(once(anonymous, "error"), "the refusal");
  assert.equal((error as FivedError).code, "SERVICE_REFUSED");
});

test("a wrong password is told to whoever gave it, and the next one is asked again", async (t) => {
  const { server } = await serveSetUp(t, {
    services: [{ name: "mine", allow: "alice", does: "echo" }],
    users: [{ name: "alice", password: "secret" }],
  });
  const address = (server.addresses[0] ?? "").replace("tcp://", "");
  const { program, choices } = await running(t);
  const one = await program();
  const own: ClientChoices = { ...choices, strictHostKeyChecking: "ask", user: "alice" };
  await assert.rejects(one.login(address, own, { ...whoSays("wrong"), confirm: async () => true }), {
    code: "AUTH_REFUSED",
  });
  await assert.rejects(one.login(address, own, nobody), { code: "AUTH_IMPOSSIBLE" });
  assert.equal(await one.login(address, own, whoSays("secret")), "alice");
});

function whoSays(password: string): Asked {
  return { tries: 1, log() {}, ask: async () => Buffer.from(password) };
}

test("when somebody who is being asked leaves, whoever waits with him is asked", async (t) => {
  const { server } = await serveSetUp(t, {
    services: [{ name: "mine", allow: "alice", does: "echo" }],
    users: [{ name: "alice", password: "secret" }],
  });
  const address = (server.addresses[0] ?? "").replace("tcp://", "");
  const { program, choices } = await running(t);
  const own: ClientChoices = { ...choices, strictHostKeyChecking: "ask", user: "alice" };
  const [one, other] = [await program(), await program()];
  const isAsked = Promise.withResolvers<void>();
  const leaving = one.login(address, own, {
    ...whoSays("secret"),
    confirm() {
      isAsked.resolve();
      return new Promise(() => {});
    },
  });
  leaving.catch(() => {});
  await within(isAsked.promise, "the question");
  const waiting = other.login(address, own, { ...whoSays("secret"), confirm: async () => true });
  await holds(other, ({ state }) => state === "connecting");
  await one[Symbol.asyncDispose]();
  assert.equal(await within(waiting, "the other one's turn"), "alice");
});

// ---- keeping ----------------------------------------------------------------------------------------------------------------------

test("a session that is lost is opened again before anybody asks", async (t) => {
  const { program, choices, logged } = await running(t);
  const server = await scripted(t, WELCOME);
  const one = await program();
  const stream = one.open({ address: server.address, service: "echo", choices }, nobody);
  stream.end("x");
  await text(stream);
  server.heard[0]?.socket.destroy();
  await eventually(async () => assert.equal(server.heard.length, 2), "another connection");
  await holds(one, ({ state, trouble }) => state === "ready" && trouble === undefined);
  assert.ok(logged.length > 0, "the loss is in the log");
});

/** A way to a server that can fall silent, as one does when a computer moves. */
async function relay(t: TestContext, port: number): Promise<{ port: number; hold(): void; go(): void; close(): void }> {
  const pairs = new Set<readonly [Socket, Socket]>();
  const server: Server = createServer((near) => {
    const far = connectSocket({ port, host: "127.0.0.1" });
    pairs.add([near, far]);
    for (const socket of [near, far]) socket.on("error", () => {});
    near.on("data", (octets) => far.write(octets));
    far.on("data", (octets) => near.write(octets));
    near.once("close", () => far.destroy());
    far.once("close", () => near.destroy());
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  t.after(() => {
    server.close();
    for (const pair of pairs) for (const socket of pair) socket.destroy();
  });
  const each = (act: (socket: Socket) => void): void => {
    for (const pair of pairs) for (const socket of pair) act(socket);
  };
  return {
    port: portOf(server),
    hold: () => each((socket) => socket.pause()),
    go: () => each((socket) => socket.resume()),
    close: () => server.close(),
  };
}

test("after sleep a server is asked at once; one that is silent gets no new streams, and keeps those it has", async (t) => {
  let ahead = 0;
  const computer: Computer = {
    wallClock: () => performance.now() + ahead,
    monotonic: () => performance.now(),
    addresses: () => [],
  };
  const { program, choices, logged } = await running(t, { computer });
  const server = await scripted(t, WELCOME);
  const way = await relay(t, Number(server.address.split(":")[1]));
  const address = `127.0.0.1:${way.port}`;
  const one = await program();
  const old = one.open({ address, service: "echo", choices }, nobody);
  await once(old, "connect");
  way.hold();
  ahead += 3_600_000;
  await eventually(async () => assert.ok(logged.some((line) => /slept/.test(line))), "the sleep to be noticed");
  await eventually(async () => assert.equal(server.heard.length, 2), "another session, with nobody asking for one");
  const fresh = one.open({ address, service: "echo", choices }, nobody);
  fresh.end("fresh");
  assert.equal(await text(fresh), "fresh");
  way.go();
  old.end("old");
  assert.equal(await text(old), "old");
});

test("a computer that has moved tries at once what it was waiting for", async (t) => {
  let at = "192.0.2.1";
  const computer: Computer = { wallClock: () => 0, monotonic: () => 0, addresses: () => [at] };
  const { program, choices } = await running(t, { computer });
  const server = await scripted(t, WELCOME);
  const way = await relay(t, Number(server.address.split(":")[1]));
  const address = `127.0.0.1:${way.port}`;
  const one = await program();
  const stream = one.open({ address, service: "echo", choices }, nobody);
  stream.end("x");
  await text(stream);
  way.close();
  server.heard[0]?.socket.destroy();
  await holds(one, ({ state }) => state === "waiting");
  at = "198.51.100.1";
  await holds(one, ({ trouble }) => /nothing listens/.test(trouble ?? ""));
});

test("a manager that was started on demand ends when nobody has used it for a while", async (t) => {
  const { stopped } = await running(t, { idleMs: 30, lookMs: 10 });
  await within(stopped, "the end");
});

test("a manager in use does not", async (t) => {
  const { stopped, program } = await running(t, { idleMs: 30, lookMs: 10 });
  const one = await program();
  let over = false;
  void stopped.then(() => {
    over = true;
  });
  for (let asked = 0; asked < 200; asked++) await one.status();
  assert.equal(over, false);
  await one[Symbol.asyncDispose]();
  await within(stopped, "the end");
});

test("told to stop, it stops", async (t) => {
  const { stopped, program, end } = await running(t);
  const one = await program();
  const gone = one.stop();
  await within(stopped, "the wish");
  await end();
  await within(gone, "the end");
});

// ---- forwards ---------------------------------------------------------------------------------------------------------------------

function broken(error: unknown): void {
  assert.fail(`the forward is broken: ${error}`);
}

test("a program listens by way of the manager, which shows it as long as both are there", async (t) => {
  const { program, choices, folder } = await running(t);
  const server = await scripted(t, WELCOME);
  const [one, other] = [await program(), await program()];
  const bind = { path: path.join(folder, "echo.sock") };
  await leftBehind(bind.path); // by a program that has died
  const request = { bind, address: server.address, service: "echo", choices };
  const forward = await forwardThrough(one, request, nobody, broken);
  assert.equal(forward.address, `unix:${bind.path}`);
  await eventually(async () => assert.deepEqual((await other.status()).forwards, [forward.address]), "it to be shown");
  const local = connectSocket({ path: bind.path, allowHalfOpen: true });
  local.end("through a forward");
  assert.equal(await text(local), "through a forward");
  await assert.rejects(forwardThrough(other, request, nobody, broken), { code: "LISTEN_FAILED" });
  await forward[Symbol.asyncDispose]();
  await eventually(async () => assert.deepEqual((await other.status()).forwards, []), "the end of the forward");
  const again = await forwardThrough(other, request, nobody, broken);
  await again[Symbol.asyncDispose]();
});

// ---- its socket -------------------------------------------------------------------------------------------------------------------

test("a manager that nobody can find any more ends, once nobody uses it", async (t) => {
  const { program, stopped, socket } = await running(t);
  const one = await program();
  await fs.rm(socket);
  assert.equal((await one.status()).pid, process.pid, "whoever is there may stay");
  await one[Symbol.asyncDispose]();
  await within(stopped, "its end");
});

/** A Unix socket whose program is gone. */
async function leftBehind(file: string): Promise<void> {
  const server = createServer().listen(`${file}.first`);
  await once(server, "listening");
  await fs.link(`${file}.first`, file);
  await new Promise((resolve) => server.close(resolve));
}

async function closedPort(): Promise<number> {
  const server = createServer().listen(0, "127.0.0.1");
  await once(server, "listening");
  const port = portOf(server);
  await new Promise((resolve) => server.close(resolve));
  return port;
}

test("a second manager is refused, and the first goes on", async (t) => {
  const { socket, program } = await running(t);
  await assert.rejects(startManager({ socket, log() {} }), { code: "LISTEN_FAILED", message: /one runs already/ });
  assert.equal((await (await program()).status()).pid, process.pid);
});

test("of many that start at once one runs", async (t) => {
  const folder = await fs.mkdtemp(path.join(os.tmpdir(), "fived-manager-"));
  const socket = path.join(folder, "manager.sock");
  const started = await Promise.allSettled(Array.from({ length: 5 }, () => startManager({ socket, log() {} })));
  t.after(async () => {
    for (const each of started) if (each.status === "fulfilled") await each.value[Symbol.asyncDispose]();
    await fs.rm(folder, { recursive: true });
  });
  assert.equal(started.filter(({ status }) => status === "fulfilled").length, 1);
});

test("a stale socket is no manager, and the next manager takes its place", async (t) => {
  const folder = await fs.mkdtemp(path.join(os.tmpdir(), "fived-manager-"));
  t.after(() => fs.rm(folder, { recursive: true }));
  const socket = path.join(folder, "manager.sock");
  await leftBehind(socket);
  assert.equal(await ManagerClient.connect(socket), undefined);
  await using _manager = await startManager({ socket, log() {} });
  await using program = await ManagerClient.connect(socket);
  assert.equal(program?.pid, process.pid);
});

test("what answers and is no manager is an error, and never passed over", async (t) => {
  const folder = await fs.mkdtemp(path.join(os.tmpdir(), "fived-manager-"));
  const socket = path.join(folder, "manager.sock");
  const sockets: Socket[] = [];
  let answer = "HTTP/1.1 400 Bad Request\r\n\r\n";
  const server = createServer((connection) => {
    sockets.push(connection);
    connection.on("error", () => {}).write(answer);
  }).listen(socket);
  await once(server, "listening");
  t.after(async () => {
    for (const each of sockets) each.destroy();
    server.close();
    await fs.rm(folder, { recursive: true });
  });
  await assert.rejects(ManagerClient.connect(socket), { code: "PROTOCOL_ERROR" });
  answer = `${JSON.stringify({ hello: "fived-manager/99", token: "t", pid: 1 })}\n`;
  await assert.rejects(ManagerClient.connect(socket), { code: "PROTOCOL_ERROR", message: /fived down/ });
  await fs.chmod(folder, 0o755);
  await assert.rejects(ManagerClient.connect(socket), { code: "STATE_UNUSABLE" });
});

test("one that hangs up without a word is asked again: it may be ending, and another may take its place", async (t) => {
  const folder = await fs.mkdtemp(path.join(os.tmpdir(), "fived-manager-"));
  t.after(() => fs.rm(folder, { recursive: true }));
  const socket = path.join(folder, "manager.sock");
  let asked = 0;
  let hangUp = (connection: Socket): void => void connection.destroy();
  const ending = createServer((connection) => {
    asked++;
    hangUp(connection);
  }).listen(socket);
  await once(ending, "listening");
  await assert.rejects(ManagerClient.connect(socket), { code: "PROTOCOL_ERROR" });
  assert.ok(asked > 1);
  hangUp = (connection) => {
    ending.close();
    connection.destroy();
  };
  assert.equal(await ManagerClient.connect(socket), undefined);
});

/** Says octets to a manager and waits until it hangs up. */
async function hungUpOn(socket: string, octets: Uint8Array | string): Promise<void> {
  const connection = connectSocket({ path: socket });
  connection.on("error", () => {}).resume();
  const closed = once(connection, "close");
  connection.write(octets);
  await within(closed, `the manager to hang up on ${String(octets).slice(0, 60)}`);
}

test("a program that talks nonsense loses its connection, and nothing else happens", async (t) => {
  const { socket, program, choices } = await running(t);
  const server = await scripted(t, WELCOME);
  const one = await program();
  const stream = one.open({ address: server.address, service: "echo", choices }, nobody);
  await once(stream, "connect");
  const hello = `${JSON.stringify({ hello: HELLO })}\n`;
  const open = { do: "open", address: server.address, service: "echo", choices };
  for (const octets of [
    "GET / HTTP/1.1\r\n\r\n",
    "{}\n",
    `${"x".repeat(70_000)}`,
    `${JSON.stringify({ data: "guessed", id: 1 })}\n`,
    `${hello}nonsense\n`,
    `${hello}${hello}`,
    `${hello}${JSON.stringify({ id: 1, ...open, choices: { ...choices, unknown: 1 } })}\n`,
    // The same number twice.
    `${hello}${`${JSON.stringify({ id: 1, ...open })}\n`.repeat(2)}`,
    // More requests than a program may have.
    hello + Array.from({ length: 2_100 }, (_, id) => `${JSON.stringify({ id: id + 1, ...open })}\n`).join(""),
  ])
    await hungUpOn(socket, octets);
  stream.end("untouched");
  assert.equal(await text(stream), "untouched");
});

test("octets at random never end it", async (t) => {
  const { socket, program } = await running(t);
  const hello = `${JSON.stringify({ hello: HELLO })}\n`;
  const line = fc
    .record({
      id: fc.constantFrom(1, 2, -1, "1"),
      do: fc.constantFrom("open", "list", "login", "listening", "goOn", "took", "answer", "leave", "end", "x"),
      address: fc.constantFrom("", "::", "127.0.0.1:1", "unix:/nowhere", 5),
      service: fc.constantFrom("a", "", null),
      choices: fc.constantFrom({}, null, { knownHosts: "k", identityFiles: [], keysFolder: "f", loginsFile: "l" }),
      bind: fc.constantFrom({ path: "" }, { host: "127.0.0.1", port: 0 }),
      bytes: fc.nat(4),
    })
    .map((message) => `${JSON.stringify(message)}\n`);
  await fc.assert(
    fc.asyncProperty(fc.array(fc.oneof(line, fc.string()), { maxLength: 8 }), async (lines) => {
      const connection = connectSocket({ path: socket });
      connection.on("error", () => {}).resume();
      connection.write(hello + lines.join(""));
      connection.end();
      await within(once(connection, "close"), `the end of ${JSON.stringify(lines)}`);
    }),
    { seed, numRuns: 60 * effort },
  );
  assert.equal((await (await program()).status()).pid, process.pid);
});

test("the octets of a stream are taken only from the program that has asked for it", async (t) => {
  const { socket, program, choices } = await running(t);
  const server = await scripted(t, WELCOME);
  const victim = await program();
  const stream = victim.open({ address: server.address, service: "echo", choices }, nobody);
  await once(stream, "connect");
  // Another program knows its own token, and not that of the victim.
  const thief = connectSocket({ path: socket });
  thief.write(`${JSON.stringify({ hello: HELLO })}\n`);
  const [line] = (await once(thief, "data")) as [Buffer];
  const { token } = JSON.parse(line.toString()) as { token: string };
  await hungUpOn(socket, `${JSON.stringify({ data: `${token}x`, id: 1 })}\n`);
  const stolen = connectSocket({ path: socket });
  stolen.write(`${JSON.stringify({ data: token, id: 1 })}\nmine now`);
  thief.destroy();
  await within(once(stolen.resume(), "close"), "the thief to be hung up on");
  stream.end("mine");
  assert.equal(await text(stream), "mine");
});

// ---- managers that are lost -----------------------------------------------------------------------------------------------------

test("a stream whose managers end again and again is not begun for ever", async (t) => {
  const folder = await fs.mkdtemp(path.join(os.tmpdir(), "fived-lost-"));
  t.after(() => fs.rm(folder, { recursive: true }));
  await fs.chmod(folder, 0o700);
  const socket = path.join(folder, "manager.sock");
  let lost = 0;
  // It greets, and is gone with the first request.
  const server = createServer((program) => {
    program
      .on("error", () => {})
      .once("data", () => {
        program.write(`${JSON.stringify({ hello: HELLO, token: "t", pid: 1 })}\n`);
        program.once("data", () => {
          lost++;
          program.destroy();
        });
      });
  }).listen(socket);
  t.after(() => server.close());
  await once(server, "listening");
  const client = await ManagerClient.connect(socket);
  const choices = { knownHosts: "k", identityFiles: [], keysFolder: "s", loginsFile: "l" };
  const request = { address: "example.org", service: "echo", choices };
  const stream = client?.open(request, nobody);
  const [error] = await within(once(stream ?? assert.fail("there is none"), "error"), "its end");
  assert.match(String(error), /it ends again and again/);
  assert.equal(lost, 21);
});
