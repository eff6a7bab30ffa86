import assert from "node:assert/strict";
import { once } from "node:events";
import fs from "node:fs/promises";
import path from "node:path";
import type { Duplex } from "node:stream";
import test from "node:test";
import fc from "fast-check";
import { effort, seed } from "../../../test/sim/seed.ts";
import { within } from "../../../test/support/deadline.ts";
import { type Script, type Scripted, scripted } from "../../../test/support/scripted-server.ts";
import { FivedError } from "../../io/index.ts";
import { parseAddress } from "../address.ts";
import { connect } from "../connect.ts";
import type { ConnectOptions } from "../dial.ts";
import { pinName } from "../known-hosts.ts";
import { ANSWER_MS } from "./conversation.ts";
import { AuthExchange, QUESTIONS_MAX, TOLD_MAX } from "./exchange.ts";
import { type Logins, loginsIn, loginsInMemory } from "./logins.ts";
import type { AuthOptions } from "./options.ts";
import type { AuthClaim, Signer } from "./signer.ts";

fc.configureGlobal({ seed, numRuns: 300 * effort });

const SUCCESS = "Authentication as alice successful";

/** A key whose signature shows what it was made for. */
function signer(name: string, claims: AuthClaim[] = []): Signer {
  return {
    fingerprint: name,
    comment: `the key ${name}`,
    async authWords(claim) {
      claims.push(claim);
      return `${claim.user} ${name} ${Buffer.from(claim.binding).toString("base64url")}.${claim.host}`;
    },
  };
}

/** A server that takes these keys, made for its own exporter and the default host, and this password. */
function taking({ keys = [], password }: { keys?: readonly string[]; password?: string }): Script {
  return (line, on) => {
    const [word, mechanism, name, key = "", signature] = line.split(" ");
    if (line === "MULTIPLEX") return undefined;
    if (word !== "AUTH")
      return on.lines.at(-2) === "AUTH up alice" ? [line === password ? SUCCESS : "- 403 Refused"] : ["+ SUCCESS"];
    if (mechanism === "up" && password !== undefined) return ["+ SUCCESS <up>", "* Enter Password: "];
    const right = signature === `${Buffer.from(on.binding).toString("base64url")}.`;
    return name === "alice" && right && keys.includes(key) ? ["+ SUCCESS <pubkey>", SUCCESS] : ["- 403 Refused"];
  };
}

test("a key is tried after the other on one connection, and the session belongs to whom the server says", async (t) => {
  const server = await scripted(t, taking({ keys: ["third"] }));
  const claims: AuthClaim[] = [];
  const auth = { user: "alice", signers: ["first", "second", "third"].map((name) => signer(name, claims)) };
  await using session = await connect(server.address, { ...server.options, auth });
  assert.equal(await session.identity, "alice");
  assert.equal(await echoed(session.open("echo")), "hello");
  const [heard] = server.heard;
  assert.deepEqual(
    [server.heard.length, heard?.lines.map((line) => line.split(" ", 4).join(" "))],
    [1, ["AUTH pubkey alice first", "AUTH pubkey alice second", "AUTH pubkey alice third", "MULTIPLEX"]],
  );
  assert.deepEqual(claims[0], { user: "alice", host: "", binding: heard?.binding });
});

test("after three refusals another connection is made, and after six keys there is no more", async (t) => {
  const server = await scripted(t, taking({ keys: ["k5"] }));
  const keys = (count: number, letter = "k"): Signer[] =>
    Array.from({ length: count }, (_, at) => signer(`${letter}${at + 1}`));
  const auth = { user: "alice", signers: keys(5), logins: loginsInMemory() };
  await using session = await connect(server.address, { ...server.options, auth });
  assert.equal(await session.identity, "alice");
  assert.deepEqual(
    server.heard.map(({ lines }) => lines.filter((line) => line !== "MULTIPLEX").length),
    [3, 2],
  );
  const said: string[] = [];
  const many = { ...auth, signers: keys(20, "x"), logins: loginsInMemory() };
  const error = await failing(
    connect(server.address, { ...server.options, auth: many, log: (line) => said.push(line) }),
  );
  assert.equal(error.code, "AUTH_REFUSED");
  assert.equal(error.status, 403);
  assert.equal(server.heard.flatMap(({ lines }) => lines).filter((line) => line.includes("AUTH")).length, 5 + 6);
  assert.match(said.join("\n"), /14 more keys were not tried.*IdentitiesOnly/);
});

test("a key that was taken before travels with MULTIPLEX, OPEN and the first octets in one flight", async (t) => {
  const server = await scripted(t, taking({ keys: ["mine"] }));
  const logins = loginsInMemory();
  const auth = { user: "alice", signers: [signer("other"), signer("mine")], logins };
  assert.equal(await echoed(connect(server.address, "echo", { ...server.options, auth })), "hello");
  assert.deepEqual(await way(logins, server), { mechanism: "pubkey", key: "mine", host: "", ahead: true });
  // From now on nothing is answered before everything is there: whoever waits for an answer, waits in vain.
  const strict = await scripted(t, taking({ keys: ["mine"] }), { hold: /MULTIPLEX.*hello/s });
  await logins.keep(serverName(strict), "alice", { mechanism: "pubkey", key: "mine", host: "", ahead: true });
  assert.equal(await echoed(connect(strict.address, "echo", { ...strict.options, auth: { ...auth } })), "hello");
  assert.deepEqual(
    strict.heard[0]?.lines.map((line) => line.split(" ")[0]),
    ["AUTH", "MULTIPLEX"],
  );
});

test("a key that was taken before and is refused costs every stream, none is served twice, and the next attempt is careful", async (t) => {
  const server = await scripted(t, taking({ keys: ["new"] }));
  const logins = loginsInMemory();
  await logins.keep(serverName(server), "alice", { mechanism: "pubkey", key: "old", host: "", ahead: true });
  const auth = { user: "alice", signers: [signer("old"), signer("new")], logins };
  const stream = connect(server.address, "echo", { ...server.options, auth });
  stream.write("hello");
  let delivered = 0;
  stream.on("data", () => delivered++);
  const [error]: unknown[] = await within(once(stream, "error"), "the refusal");
  assert.ok(error instanceof FivedError);
  assert.deepEqual([error.code, error.status, delivered], ["AUTH_REFUSED", 403, 0]);
  assert.deepEqual(
    server.heard.map(({ requests }) => requests),
    [["echo"]],
    "granted to nobody, and asked for once",
  );
  assert.equal(await echoed(connect(server.address, "echo", { ...server.options, auth })), "hello");
  assert.deepEqual(
    server.heard[1]?.lines.map((line) => line.split(" ", 4).join(" ")),
    ["AUTH pubkey alice old", "AUTH pubkey alice new", "MULTIPLEX"],
  );
  assert.equal((await way(logins, server))?.ahead, true, "and the one after that ahead again, with the new key");
});

test("a question where there was none before ends what was sent ahead, and is answered the next time", async (t) => {
  const script: Script = (line, on) => {
    if (line === "123456" && on.lines.length === 2) return [SUCCESS];
    return line.startsWith("AUTH") ? ["+ SUCCESS <pubkey>", "* Enter Code: "] : ["- 501 Ill-formed"];
  };
  const server = await scripted(t, script);
  const logins = loginsInMemory();
  await logins.keep(serverName(server), "alice", { mechanism: "pubkey", key: "mine", host: "", ahead: true });
  const auth = { user: "alice", signers: [signer("mine")], logins, password: async () => "123456" };
  await using session = await connect(server.address, { ...server.options, auth });
  const error = await failing(session.identity);
  assert.equal(error.code, "AUTH_REFUSED");
  assert.match(error.message, /Enter Code: /);
  await failing(session.closed);
  await using next = await connect(server.address, { ...server.options, auth });
  assert.equal(await next.identity, "alice");
  assert.equal((await way(logins, server))?.ahead, false, "whoever is asked is never ahead");
});

test("AUTH inside the flight is for the host that was in force when the key was taken", async (t) => {
  const hosts = new Set(["git.example.org"]);
  const script: Script = (line) => {
    const [word, name = ""] = line.split(" ");
    if (word === "HOST") return hosts.has(name) ? ["+ SUCCESS"] : ["- 404 No such host"];
    return word === "AUTH" ? ["+ SUCCESS <pubkey>", SUCCESS] : undefined;
  };
  const server = await scripted(t, script);
  for (const [host, force] of [
    ["git.example.org", "git.example.org"],
    ["www.example.org", ""],
  ] as const) {
    const claims: AuthClaim[] = [];
    const address = `fived://${server.address}?host=${host}`;
    const options: ConnectOptions = { ...server.options, strictHostKeyChecking: "accept-new" };
    const auth = { user: "alice", signers: [signer("mine", claims)], logins: loginsInMemory() };
    for (let times = 0; times < 2; times++) {
      await using session = await connect(address, { ...options, auth });
      assert.equal(await session.identity, "alice");
    }
    assert.deepEqual(
      claims.map((claim) => claim.host),
      [force, force],
    );
  }
});

test("a user in the address signs in, and where there is nothing to sign in with that is told", async (t) => {
  const server = await scripted(t, taking({}));
  for (const options of [server.options, { ...server.options, tls: "off" as const }]) {
    const error = await failing(connect(`alice@${server.address}`, options));
    assert.equal(error.code, "AUTH_IMPOSSIBLE");
    assert.match(error.message, /as alice: /);
  }
  const error = await failing(connect(server.address, { ...server.options, auth: {} }));
  assert.equal(error.code, "ADDRESS_BAD");
});

test("two people never share a session, however alike what they said looks", async (t) => {
  const server = await scripted(t, taking({ keys: ["a", "b"] }));
  const logins = loginsInMemory();
  const of = (key: string): AuthOptions => ({ user: "alice", signers: async () => [signer(key)], logins });
  const streams = ["a", "b"].map((key) => connect(server.address, "echo", { ...server.options, auth: of(key) }));
  assert.deepEqual(await Promise.all(streams.map((stream) => echoed(stream))), ["hello", "hello"]);
  assert.equal(server.heard.length, 2);
});

test("a password is asked for in the server's words, answered as octets, and the octets are wiped", async (t) => {
  const server = await scripted(t, taking({ password: "correct horse" }));
  const octets = Buffer.from("correct horse");
  const asked: unknown[] = [];
  const auth: AuthOptions = {
    user: "alice",
    logins: loginsInMemory(),
    async password(question, shown) {
      asked.push(question, shown);
      return octets;
    },
  };
  await using session = await connect(server.address, { ...server.options, auth });
  assert.equal(await session.identity, "alice");
  assert.deepEqual(asked, ["Enter Password: ", false]);
  assert.ok(octets.every((octet) => octet === 0));
  assert.deepEqual(server.heard[0]?.lines.slice(0, 2), ["AUTH up alice", "correct horse"]);
});

test("questions shown and hidden and what is only told come as they are, without controls", async (t) => {
  const script: Script = (line, on) => {
    if (line === "AUTH up alice")
      return ["+ SUCCESS <up>", "! \x1b]0;owned\x07 welcome", "? \x9b2J\u00e2\u0080\u00ae\u00c3\u00bc: "];
    return on.lines.length === 2 ? ["* PIN: "] : on.lines.length === 3 ? [SUCCESS] : undefined;
  };
  const server = await scripted(t, script);
  const heard: string[] = [];
  const auth: AuthOptions = {
    user: "alice",
    logins: loginsInMemory(),
    async password(question, shown) {
      heard.push(`${shown} ${question}`);
      return shown ? "blue" : "";
    },
  };
  await using session = await connect(server.address, { ...server.options, auth, log: (line) => heard.push(line) });
  assert.equal(await session.identity, "alice");
  assert.deepEqual(heard, ["the server says: ?]0;owned? welcome", "true \ufffd2J?ü: ", "false PIN: "]);
  assert.deepEqual(server.heard[0]?.lines.slice(1, 3), ["blue", ""]);
});

test("a password is tried as often as was allowed, on two connections if need be, and 429 is the end of it", async (t) => {
  const server = await scripted(t, taking({ password: "right" }));
  const answers = ["a", "b", "c", "right"];
  const auth = {
    user: "alice",
    logins: loginsInMemory(),
    passwordTries: 4,
    password: async () => answers.shift() ?? "",
  };
  await using session = await connect(server.address, { ...server.options, auth });
  assert.equal(await session.identity, "alice");
  assert.deepEqual(
    server.heard.map(({ lines }) => lines.filter((line) => line !== "MULTIPLEX").length),
    [6, 2],
  );
  const closed = await scripted(t, (line) => (line.startsWith("AUTH") ? ["- 429 Too many, try later"] : "close"));
  const error = await failing(connect(closed.address, { ...closed.options, auth }));
  assert.deepEqual([error.code, error.status, closed.heard.length], ["AUTH_REFUSED", 429, 1]);
});

test("O01 no password for a server that nobody vouches for, nor without a yes for one that was new a moment ago", async (t) => {
  const server = await scripted(t, taking({ password: "secret" }));
  const knownHosts = path.join(server.folder, "nobody-is-known");
  let passwords = 0;
  const auth = () => ({
    user: "alice",
    logins: loginsInMemory(),
    async password() {
      passwords++;
      return "secret";
    },
  });
  for (const strictHostKeyChecking of ["off", "accept-new"] as const) {
    const error = await failing(connect(server.address, { knownHosts, strictHostKeyChecking, auth: auth() }));
    assert.equal(error.code, "AUTH_IMPOSSIBLE");
  }
  const questions: string[] = [];
  const asking = (answer: boolean): ConnectOptions => ({
    knownHosts: `${knownHosts}-${answer}`,
    strictHostKeyChecking: "accept-new",
    ask: async (question) => {
      questions.push(question);
      return answer;
    },
    auth: auth(),
  });
  assert.equal((await failing(connect(server.address, asking(false)))).code, "ABORTED");
  assert.equal(passwords, 0);
  assert.ok(
    server.heard.every(({ lines }) => lines.length === 0),
    "not even the name was told",
  );
  await using session = await connect(server.address, asking(true));
  assert.equal(await session.identity, "alice");
  assert.equal(questions.length, 2);
  assert.match(questions[0] ?? "", /is new, and nobody has compared its key/);
});

test("A12 where a key was used before, no password is asked for without a word", async (t) => {
  const server = await scripted(t, taking({ password: "secret" }));
  let passwords = 0;
  const logins = loginsInMemory();
  await logins.keep(serverName(server), "alice", { mechanism: "pubkey", key: "mine", host: "", ahead: false });
  const auth: AuthOptions = {
    user: "alice",
    logins,
    signers: [signer("mine")],
    async password() {
      passwords++;
      return "secret";
    },
  };
  assert.equal((await failing(connect(server.address, { ...server.options, auth }))).code, "AUTH_IMPOSSIBLE");
  const questions: string[] = [];
  const ask = (answer: boolean) => async (question: string) => {
    questions.push(question);
    return answer;
  };
  assert.equal((await failing(connect(server.address, { ...server.options, ask: ask(false), auth }))).code, "ABORTED");
  assert.equal(passwords, 0);
  assert.match(questions[0] ?? "", /has taken a key/);
  // Nor for another user of the same server, nor after a password was allowed once.
  const { signers: _, ...bob } = { ...auth, user: "bob" };
  assert.equal((await failing(connect(server.address, { ...server.options, auth: bob }))).code, "AUTH_IMPOSSIBLE");
  await using allowed = await connect(server.address, { ...server.options, ask: ask(true), auth });
  assert.equal(await allowed.identity, "alice");
  assert.equal(
    (await failing(connect(server.address, { ...server.options, auth: { ...auth } }))).code,
    "AUTH_IMPOSSIBLE",
  );
  // Whoever asks for passwords alone has said so.
  await using chosen = await connect(server.address, { ...server.options, auth: { ...auth, mechanisms: ["up"] } });
  assert.equal(await chosen.identity, "alice");
});

test("A12 a key that has become useless because no agent runs is no reason for a password either", async (t) => {
  const server = await scripted(t, taking({ password: "secret" }));
  const logins = loginsInMemory();
  await logins.keep(serverName(server), "alice", { mechanism: "pubkey", key: "mine", host: "", ahead: true });
  const broken: Signer = { ...signer("mine"), authWords: () => Promise.reject(new Error("no agent")) };
  const said: string[] = [];
  const auth = { user: "alice", logins, signers: [broken], password: async () => "secret" };
  const error = await failing(connect(server.address, { ...server.options, auth, log: (line) => said.push(line) }));
  assert.equal(error.code, "AUTH_IMPOSSIBLE");
  assert.match(said.join("\n"), /cannot use the key the key mine: no agent/);
});

test("A01 nothing but the success of an exchange that was taken up is one", async (t) => {
  const impostors: readonly (readonly string[])[] = [
    [SUCCESS],
    ["+ SUCCESS"],
    ["+ SUCCESS <up>", SUCCESS],
    ["+ SUCCESS <pubkey>", "Authentication as alice successful "],
    ["+ SUCCESS <pubkey>", "authentication as alice successful"],
    ["+ SUCCESS <pubkey>", "Authentication as alice bob successful"],
    ["+ SUCCESS <pubkey>", "+ SUCCESS <pubkey>"],
    ["+ SUCCESS <pubkey>", ""],
    ["+ SUCCESS <pubkey>", SUCCESS, SUCCESS],
    ["IDENTITY alice"],
  ];
  for (const lines of impostors) {
    const server = await scripted(t, (line) => (line.startsWith("AUTH") ? lines : undefined));
    for (const ahead of [false, true]) {
      const logins = loginsInMemory();
      if (ahead) await logins.keep(serverName(server), "alice", { mechanism: "pubkey", key: "mine", host: "", ahead });
      const auth = { user: "alice", logins, signers: [signer("mine")] };
      const attempt = connect(server.address, { ...server.options, auth }).then(async (session) => {
        await using over = session;
        if (lines.length === 3) await over.closed; // the second success stands where the answer to MULTIPLEX belongs
        return await over.identity;
      });
      const error = await failing(attempt);
      assert.equal(error.code, "PROTOCOL_ERROR", `${lines}: ${error.message}`);
    }
  }
});

test("A07 a server that asks and asks, tells and tells, or says lines without end is left", async (t) => {
  const cases: readonly (readonly [string, number])[] = [
    ["? more", QUESTIONS_MAX],
    ["! more", 1],
    [`? ${"x".repeat(5_000)}`, 0],
  ];
  for (const [line, answers] of cases) {
    const server = await scripted(t, (_, on) => {
      return [
        ...(on.lines.length === 1 ? ["+ SUCCESS <up>"] : []),
        ...(line.startsWith("!") ? Array(TOLD_MAX + 1).fill(line) : [line]),
      ];
    });
    let asked = 0;
    const auth = {
      user: "alice",
      logins: loginsInMemory(),
      async password() {
        asked++;
        return "";
      },
    };
    const error = await failing(connect(server.address, { ...server.options, auth }));
    assert.equal(error.code, "PROTOCOL_ERROR");
    assert.equal(asked, line.startsWith("!") ? 0 : answers);
  }
});

test("an answer that would be two lines, or none that fits, is not sent", async (t) => {
  for (const answer of ["a\r\nLIST", "a\nb", "a\0b", "x".repeat(1_025)]) {
    const server = await scripted(t, taking({ password: "secret" }));
    const auth = { user: "alice", logins: loginsInMemory(), password: async () => answer };
    const error = await failing(connect(server.address, { ...server.options, auth }));
    assert.equal(error.code, "AUTH_IMPOSSIBLE");
    assert.deepEqual(server.heard[0]?.lines, ["AUTH up alice"]);
  }
});

test("a server that leaves in the middle, does not know AUTH, or is told to stop is each told apart", async (t) => {
  const leaving = await scripted(t, (_, on) => (on.lines.length === 1 ? ["+ SUCCESS <up>", "* Password: "] : "close"));
  const auth = () => ({ user: "alice", logins: loginsInMemory(), password: async () => "secret" });
  assert.equal((await failing(connect(leaving.address, { ...leaving.options, auth: auth() }))).code, "SESSION_LOST");
  const without = await scripted(t, () => ["- 500 Not this protocol"]);
  const error = await failing(connect(without.address, { ...without.options, auth: auth() }));
  assert.deepEqual([error.code, error.status], ["AUTH_REFUSED", 500]);
  assert.match(error.message, /may know no AUTH/);
  const called = new AbortController();
  const silent = await scripted(t, () => {
    called.abort();
    return undefined;
  });
  const off = connect(silent.address, { ...silent.options, auth: auth(), signal: called.signal });
  assert.equal((await failing(off)).code, "ABORTED");
});

test("a server that says nothing is given up", async (t) => {
  t.mock.timers.enable({ apis: ["setTimeout"] });
  const server = await scripted(t, () => {
    setImmediate(() => t.mock.timers.tick(ANSWER_MS));
    return undefined;
  });
  const auth = { user: "alice", logins: loginsInMemory(), signers: [signer("mine")] };
  const error = await failing(connect(server.address, { ...server.options, auth }));
  assert.equal(error.code, "TIMEOUT");
});

test("whatever a server says, an exchange ends in one of its ways and shows no control", () => {
  const lineOf = fc.oneof(
    fc.string({ unit: "binary", maxLength: 40 }).map((text) => text.replace(/[\r\n]/g, "")),
    fc
      .tuple(
        fc.constantFrom("+ SUCCESS <up>", "? ", "* ", "! ", "- ", "- 403 ", "Authentication as ", SUCCESS),
        fc.string({ unit: "binary", maxLength: 20 }),
      )
      .map(([head, rest]) => head + rest),
  );
  fc.assert(
    fc.property(fc.array(lineOf, { maxLength: 60 }), (lines) => {
      const exchange = new AuthExchange("up");
      for (const [at, line] of lines.entries()) {
        const step = exchange.read(line);
        if (step.type === "identity") assert.ok(at > 0 && /^[\x21-\x7e]+$/.test(step.identity));
        if (step.type === "ask") assert.doesNotMatch(step.question, /\p{C}/u);
        if (step.type === "tell" || step.type === "refused") assert.doesNotMatch(step.text, /\p{C}/u);
        if (step.type === "identity" || step.type === "refused" || step.type === "error") return;
        assert.ok(at <= 1 + QUESTIONS_MAX + TOLD_MAX);
      }
    }),
  );
});

test("logins are kept in a file of mode 0600, several at once, and read back", async (t) => {
  const folder = await fs.mkdtemp(path.join(process.env["TMPDIR"] ?? "/tmp", "fived-logins-"));
  t.after(() => fs.rm(folder, { recursive: true, force: true }));
  const file = path.join(folder, "state", "logins.yaml");
  const logins = loginsIn(file);
  assert.deepEqual(await logins.find("example.org"), { user: undefined, ways: new Map() });
  const way = { mechanism: "pubkey", key: "abc", host: "", ahead: true } as const;
  const names = ["example.org", "[example.org]:1079", "unix:/run/x", "__proto__", "2001:db8::1", "no", "1e3", "~"];
  await Promise.all(names.map((name) => loginsIn(file).keep(name, "alice", way, name === "no" ? undefined : "stay")));
  for (const name of names) {
    const { user, ways } = await loginsIn(file).find(name);
    assert.deepEqual([user, ways.get("alice")], [name === "no" ? undefined : "alice", way], name);
  }
  assert.equal((await fs.stat(file)).mode & 0o777, 0o600);
  const before = await fs.stat(file);
  await logins.keep("example.org", "alice", way, "stay");
  assert.equal((await fs.stat(file)).ino, before.ino, "what is known already is not written again");
  await logins.keep("example.org", "alice", { mechanism: "up", host: "", ahead: false });
  assert.deepEqual(
    (await logins.find("example.org")).ways.get("alice")?.key,
    "abc",
    "a password makes no key forgotten",
  );
  assert.equal(await logins.forget("example.org"), true);
  assert.equal(await logins.forget("example.org"), false);
  assert.deepEqual(await fs.readdir(path.dirname(file)), ["logins.yaml"], "nothing is left beside it");
});

test("A12 a file of logins that cannot be read is an error, and never an empty one", async (t) => {
  const folder = await fs.mkdtemp(path.join(process.env["TMPDIR"] ?? "/tmp", "fived-logins-"));
  t.after(() => fs.rm(folder, { recursive: true, force: true }));
  const file = path.join(folder, "logins.yaml");
  const texts = [
    "servers: [",
    "servers: []",
    "- 1",
    "servers: { a: 1 }",
    "servers: { a: { ways: { b: { mechanism: none, host: '', ahead: true } } } }",
    "servers: { a: { user: 'x y', ways: {} } }",
    "servers: { a: { ways: { b: { mechanism: up, host: '' } } } }",
    "a: &a [1]\nservers: { a: *a }",
    `servers: {} # ${"x".repeat(1_048_576)}`,
  ];
  for (const text of texts) {
    await fs.writeFile(file, text);
    assert.equal((await failing(loginsIn(file).find("a"))).code, "STATE_UNUSABLE", text.slice(0, 60));
    const way = { mechanism: "up", host: "", ahead: false } as const;
    assert.equal((await failing(loginsIn(file).keep("a", "b", way))).code, "STATE_UNUSABLE");
    assert.equal(await fs.readFile(file, "utf8"), text);
  }
  await fs.rm(file);
  await fs.mkdir(file);
  assert.equal((await failing(loginsIn(file).find("a"))).code, "STATE_UNUSABLE");
});

function serverName({ address }: Scripted): string {
  return pinName(parseAddress(address));
}

async function way(logins: Logins, server: Scripted) {
  return (await logins.find(serverName(server))).ways.get("alice");
}

async function echoed(stream: Duplex): Promise<string> {
  stream.write("hello");
  const [chunk]: unknown[] = await within(once(stream, "data"), "the echo");
  stream.end();
  await within(once(stream.resume(), "close"), "the end");
  return String(chunk);
}

async function failing(attempt: Promise<unknown>): Promise<FivedError> {
  const error = await within(attempt, "the failure").then(
    () => assert.fail("went on"),
    (reason: unknown) => reason,
  );
  assert.ok(error instanceof FivedError, String(error));
  return error;
}
