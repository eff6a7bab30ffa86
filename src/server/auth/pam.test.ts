import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import fs from "node:fs/promises";
import path from "node:path";
import test, { type TestContext } from "node:test";
import { eventually, within } from "../../../test/support/deadline.ts";
import { type ScriptedExchange, scripted } from "../../../test/support/exchange.ts";
import { needs } from "../../../test/support/needs.ts";
import { PAM_USER, pamFolder } from "../../../test/support/pam.ts";
import { createLog, type Log } from "../log.ts";
import type { Exchange } from "./mechanism.ts";
import { type PamOptions, PamPasswords } from "./pam.ts";
import { PAM_ATTEMPTS_MAX, PAM_SILENT_MS_MAX, pamProblem } from "./pam-process.ts";
import { PAM_TEXT_BYTES_MAX } from "./pam-protocol.ts";

const skip = needs("gcc", "pam-wrapper");
/** The service that most tests have: a password, somebody who may sign in. */
const ORDINARY = ["auth required matrix", "account required matrix"];
const BOB = { user: "bob", groups: [], roles: [] };

interface Pam {
  readonly passwords: PamPasswords;
  /** What was logged, a JSON object each. */
  readonly lines: readonly string[];
}

/** PAM by a service of these lines, which refuses at once unless said otherwise. */
async function pam(
  t: TestContext,
  lines: readonly string[],
  options: Pick<PamOptions, "silentMs" | "refusalMs"> = { refusalMs: 0 },
): Promise<Pam> {
  const made = await pamFolder(t);
  const said: string[] = [];
  const log: Log = createLog({ level: "debug", json: true, write: (line) => void said.push(line) });
  return {
    passwords: new PamPasswords({ ...(await made.write("fived-test", ...lines)), log, ...options }),
    lines: said,
  };
}

/** Signs in as bob, and answers in this way. */
async function bob({ passwords }: Pam, answers: readonly string[] = [PAM_USER.password]) {
  const exchange = scripted(answers, { initial: ["bob"] });
  return { exchange, finding: await passwords.authenticate("bob", exchange) };
}

/** Whether a process of that number is there, and no zombie. */
async function runs(pid: number): Promise<boolean> {
  const status = await fs.readFile(`/proc/${pid}/stat`, "utf8").catch(() => "");
  return status !== "" && !/\) [ZX] /.test(status);
}

async function gone(...pids: readonly number[]): Promise<void> {
  await eventually(
    async () => {
      for (const pid of pids) assert.equal(await runs(pid), false);
    },
    `the end of ${pids.join(" and ")}`,
  );
}

test("the right password signs in, a wrong one does not, and answers are wiped", { skip }, async (t) => {
  const mine = await pam(t, ORDINARY);
  const right = await bob(mine);
  assert.deepEqual(right.finding, BOB);
  assert.deepEqual(right.exchange.asked, [{ question: "Password: ", answer: "hidden" }]);
  const wrong = await bob(mine, ["guess"]);
  assert.equal(wrong.finding, undefined);
  assert.deepEqual(wrong.exchange.asked, right.exchange.asked);
  for (const { exchange } of [right, wrong]) {
    assert.equal(exchange.given.length, 1);
    assert.ok(exchange.given.every((octets) => octets.every((octet) => octet === 0)));
  }
  assert.match(mine.lines.join(""), /"user":"bob","reason":"Authentication failure","msg":"PAM refuses somebody"/);
  assert.doesNotMatch(mine.lines.join(""), /secret|guess/);
});

test("several questions and messages pass through, in their order, also in one call of a module", {
  skip,
}, async (t) => {
  const mine = await pam(t, ["auth required odd batch", "auth required matrix verbose", "account required odd"]);
  const { finding, exchange } = await bob(mine, ["1234", "5678", PAM_USER.password]);
  assert.deepEqual(finding, BOB);
  assert.deepEqual(exchange.asked, [
    { question: "Token: ", answer: "shown" },
    { question: "PIN: ", answer: "hidden" },
    { question: "Password: ", answer: "hidden" },
  ]);
  assert.deepEqual(exchange.told, ["Two things", "Careful", "Authentication succeeded"]);
  const other = await bob(mine, ["1234", "1234", PAM_USER.password]);
  assert.equal(other.finding, undefined);
});

test("an answer is octets: empty, the longest, and all that a line may have", { skip }, async (t) => {
  const mine = await pam(t, ["auth required odd questions 3", "account required odd"]);
  const all = Buffer.from(
    Array.from({ length: 255 }, (_, at) => at + 1).filter((octet) => octet !== 10 && octet !== 13),
  );
  const exchange = scripted(["", Buffer.alloc(1_024, 0x61), all], { initial: ["bob"] });
  assert.deepEqual(await mine.passwords.authenticate("bob", exchange), BOB);
  assert.equal(exchange.asked.length, 3);
});

test("PAM is told from where, and that it is fived", { skip }, async (t) => {
  const mine = await pam(t, ["auth required odd items", "account required odd"]);
  const { exchange } = await bob(mine, []);
  assert.deepEqual(exchange.told, ["192.0.2.1 fived"]);
  const local: Exchange = { ...scripted([]), address: undefined };
  assert.deepEqual(await mine.passwords.authenticate("bob", local), BOB);
});

test("A05 somebody whose account is over is refused without a word, while who is let in is told about his", {
  skip,
}, async (t) => {
  const mine = await pam(t, ["auth required matrix", "account required odd expired"]);
  const { finding, exchange } = await bob(mine);
  assert.deepEqual([finding, exchange.told], [undefined, []]);
  const soon = await pam(t, ["auth required matrix", "account required odd soon"]);
  assert.deepEqual((await bob(soon)).exchange.told, ["Your account ends soon"]);
  assert.match(mine.lines.join(""), /"reason":"User account has expired"/);
});

test("somebody whom PAM calls otherwise has that name, unless it could be another provider's", { skip }, async (t) => {
  const renamed = await pam(t, ["auth required odd rename carol", "account required odd"]);
  assert.deepEqual((await bob(renamed, [])).finding, { ...BOB, user: "carol" });
  for (const name of ["carol@p.example", "DOMAIN\\carol", "Carol"]) {
    const mine = await pam(t, [`auth required odd rename ${name}`, "account required odd"]);
    assert.equal((await bob(mine, [])).finding, undefined, name);
  }
});

test("a name that is none never comes to PAM", { skip }, async (t) => {
  const { passwords } = await pam(t, ORDINARY);
  for (const name of ["", "-x", "a b", "../etc/passwd", "Bob", "bob@p.example", "b".repeat(65)])
    await assert.rejects(passwords.authenticate(name, scripted(["secret"])), /Invariant/, name);
});

test("A05 an unknown user is asked the same and refused at the same time as a wrong password", { skip }, async (t) => {
  // The module wants 9 s to pass after a failure: fived has one delay for all.
  for (const lines of [ORDINARY, ["auth required odd slow", "account required odd"]]) {
    const { passwords } = await pam(t, lines, {});
    const measured = async (name: string, at: number) => {
      let answeredAt = 0;
      const exchange = scripted(["guess"], { initial: [name], address: `192.0.2.${at}` });
      const timed: ScriptedExchange = {
        ...exchange,
        async ask(...question) {
          const octets = await exchange.ask(...question);
          answeredAt = performance.now();
          return octets;
        },
      };
      assert.equal(await passwords.authenticate(name, timed), undefined);
      assert.deepEqual(exchange.asked, [{ question: "Password: ", answer: "hidden" }]);
      return performance.now() - answeredAt;
    };
    const times = async (name: string) => {
      const all = await Promise.all([1, 2, 3, 4, 5].map((at) => measured(name, at)));
      return all.sort((one, other) => one - other)[2] ?? 0;
    };
    const [wrong, unknown] = [await times("bob"), await times("nobody-of-that-name")];
    assert.ok(wrong >= 1_990 && wrong < 4_000, `${wrong} ms`);
    assert.ok(Math.abs(unknown / wrong - 1) < 0.05, `${unknown} ms beside ${wrong} ms`);
  }
});

test("A06 a module that hangs is given up, ended with what it has started, and others sign in meanwhile", {
  skip,
}, async (t) => {
  const hanging = await pam(t, ["auth required odd hang"], { silentMs: 3_000, refusalMs: 0 });
  const others = await pam(t, ORDINARY);
  const exchange = scripted([], { initial: ["bob"] });
  const attempt = hanging.passwords.authenticate("bob", exchange);
  assert.deepEqual((await bob(others)).finding, BOB);
  assert.equal(await attempt, undefined);
  assert.equal(PAM_SILENT_MS_MAX, 20_000, "what it is where nobody says otherwise");
  assert.match(hanging.lines.join(""), /"reason":"it was silent for 3 s","msg":"PAM cannot be asked"/);
  const pids = (exchange.told[0] ?? "").split(" ").map(Number);
  assert.equal(pids.length, 2);
  await gone(...pids);
});

test("A06 at most 16 attempts run at once, half of them of one source, and a slot is free when its attempt is over", {
  skip,
}, async (t) => {
  const mine = await pam(t, ["auth required odd questions 1", "account required odd"]);
  const leave = new AbortController();
  const asked = new Set<string>();
  const allAsked = Promise.withResolvers<void>();
  const waiting = Array.from({ length: PAM_ATTEMPTS_MAX }, (_, at) => {
    const address = `192.0.2.${1 + (at % 2)}`;
    const exchange: Exchange = {
      ...scripted([], { address, signal: leave.signal }),
      async ask() {
        asked.add(`${at}`);
        if (asked.size === PAM_ATTEMPTS_MAX) allAsked.resolve();
        await once(leave.signal, "abort");
        throw new Error("the peer is gone");
      },
    };
    return mine.passwords.authenticate("bob", exchange);
  });
  const settled = Promise.allSettled(waiting);
  await within(allAsked.promise, "16 questions");
  const late = scripted(["x"], { address: "198.51.100.1" });
  assert.equal(await mine.passwords.authenticate("bob", late), undefined);
  assert.deepEqual(late.asked, []);
  assert.match(mine.lines.join(""), /"reason":"16 attempts run already, 0 of them from there"/);
  leave.abort();
  for (const { status } of await settled) assert.equal(status, "rejected");
  assert.deepEqual((await bob(mine, ["x"])).finding, BOB);

  const source = new AbortController();
  const eight = Array.from({ length: PAM_ATTEMPTS_MAX / 2 }, (_, at) =>
    mine.passwords.authenticate("bob", {
      ...scripted([], { address: `2001:db8::${at}`, signal: source.signal }),
      ask: async () => Promise.reject(await once(source.signal, "abort")),
    }),
  );
  const over = Promise.allSettled(eight);
  assert.equal(await mine.passwords.authenticate("bob", scripted(["x"], { address: "2001:db8::ff" })), undefined);
  assert.deepEqual((await bob(mine, ["x"])).finding, BOB);
  source.abort();
  await over;
});

test("A07 a module that asks or tells without end is ended, and a question of a megabyte is cut", {
  skip,
}, async (t) => {
  const asking = await pam(t, ["auth required odd questions 10000", "account required odd"]);
  const patient = Array.from({ length: 200 }, () => "x");
  assert.equal((await bob(asking, patient)).finding, undefined);
  const exchange = scripted(patient.slice(0, 16), { initial: ["bob"] });
  await assert.rejects(asking.passwords.authenticate("bob", exchange), /asked once too often/);
  const telling = await pam(t, ["auth required odd tell 10000", "account required odd"]);
  const told = await bob(telling, []);
  assert.equal(told.finding, undefined);
  assert.ok(told.exchange.told.length < 100);
  assert.match(telling.lines.join(""), /"reason":"it says too much"/);
  const few = await pam(t, ["auth required odd tell 64", "account required odd"]);
  assert.equal((await bob(few, [])).exchange.told.length, 64);
  const long = await pam(t, ["auth required odd long", "account required odd"]);
  const cut = await bob(long, ["secret"]);
  assert.deepEqual(cut.finding, BOB);
  assert.equal(cut.exchange.asked[0]?.question.length, PAM_TEXT_BYTES_MAX);
});

test("A08 a process that is killed, crashes or says what it must not fails its own attempt, and the next one works", {
  skip,
}, async (t) => {
  const killed = await pam(t, ["auth required odd pid", "account required odd"]);
  const exchange: Exchange = {
    ...scripted([]),
    async ask(question) {
      process.kill(Number.parseInt(question, 10), "SIGKILL");
      return Buffer.from("secret");
    },
  };
  assert.equal(await killed.passwords.authenticate("bob", exchange), undefined);
  assert.deepEqual((await bob(killed, ["x"])).finding, BOB);

  const wrong: readonly (readonly [module: string, answers: readonly string[], why: RegExp])[] = [
    ["odd crash", ["secret"], /it ended without a result|ECONNRESET/],
    ["odd garbage {}", [], /it says what nobody understands/],
    ['odd garbage {"type":"ready"}', [], /it says something out of turn/],
    ["odd style", [], /"reason":"(Authentication failure|Conversation error)"/],
  ];
  for (const [module, answers, why] of wrong) {
    const mine = await pam(t, [`auth required ${module}`, "account required odd"]);
    assert.equal((await bob(mine, answers)).finding, undefined, module);
    assert.match(mine.lines.join(""), why, module);
  }
});

test("A08 the process ends with the conversation", { skip }, async (t) => {
  const hanging = await pam(t, ["auth required odd hang"]);
  const leave = new AbortController();
  const told = Promise.withResolvers<string>();
  const exchange: Exchange = { ...scripted([], { signal: leave.signal }), tell: told.resolve };
  const attempt = assert.rejects(hanging.passwords.authenticate("bob", exchange), { code: "ABORTED" });
  const pids = (await within(told.promise, "what it tells")).split(" ").map(Number);
  leave.abort();
  await attempt;
  await gone(...pids);
  const already: Exchange = scripted([], { signal: AbortSignal.abort() });
  await assert.rejects(hanging.passwords.authenticate("bob", already), { code: "ABORTED" });
});

test("A08 the process ends with the server, also when nobody had the time to end it", { skip }, async (t) => {
  const made = await pamFolder(t);
  const service = await made.write("fived-test", "auth required odd hang");
  const server = `
    import { startAttempt } from ${JSON.stringify(import.meta.resolve("./pam-process.ts"))};
    import { printRequest } from ${JSON.stringify(import.meta.resolve("./pam-protocol.ts"))};
    const link = await startAttempt(${JSON.stringify(service)});
    await link.next(30_000);
    link.send(printRequest({ user: "bob" }));
    console.log((await link.next(30_000)).text);
  `;
  const child = spawn(process.execPath, ["--input-type=module", "--eval", server], {
    stdio: ["ignore", "pipe", "inherit"],
  });
  t.after(() => child.kill("SIGKILL"));
  const [line] = await within(once(child.stdout, "data"), "the numbers of the processes");
  const [attempt = 0, started = 0] = String(line).trim().split(" ").map(Number);
  t.after(() => process.kill(started, "SIGKILL")); // what a module has started is nobody's then
  assert.ok(await runs(attempt));
  child.kill("SIGKILL");
  await gone(attempt);
});

test("what is missing for PAM is found before anybody signs in", { skip }, async (t) => {
  const made = await pamFolder(t);
  const service = await made.write("fived-test", ...ORDINARY);
  assert.equal(await pamProblem(service), undefined);
  assert.equal(
    await pamProblem({ ...service, service: "nosuch" }),
    `there is no file ${path.join(made.folder, "nosuch")}`,
  );
  assert.match(
    (await pamProblem({ service: "fived-no-such-service" })) ?? "",
    /^there is no file \/etc\/pam\.d\/fived-no/,
  );
  for (const name of ["../passwd", "", "a/b", "a b"])
    assert.equal(await pamProblem({ service: name }), "expected the name of a file in /etc/pam.d");
});
