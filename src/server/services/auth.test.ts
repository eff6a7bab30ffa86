/**
 * The exchange of AUTH, word for word, with mechanisms that do as they are told; what each real mechanism asks is its own tests' business.
 * @module
 */
import assert from "node:assert/strict";
import test from "node:test";
import { FivedError } from "../../io/index.ts";
import type { Authentication } from "../auth/authentication.ts";
import type { Exchange, Finding, Identity, MechanismName } from "../auth/mechanism.ts";
import { FakeTalk } from "../backends/fake-talk.test.ts";
import type { Entrance } from "../service.ts";
import { auth, parseAuth } from "./auth.ts";

type Proof = (exchange: Exchange) => Promise<Finding | undefined>;

const RESEARCHER: Finding = { user: "researcher", groups: [], roles: [] };

interface Setting {
  readonly mechanisms?: Partial<Record<MechanismName, Proof>>;
  /** Lines the client says when it is asked. */
  readonly answers?: readonly string[];
  /** Asks for a second factor, and is told whether it was given. */
  readonly secondFactor?: (exchange: Exchange) => Promise<boolean>;
  readonly elsewhere?: boolean;
  readonly attempts?: number;
  readonly known?: boolean;
  readonly overMs?: number;
}

/** The conversation under way. */
let current: FakeTalk | undefined;

/** AUTH in a conversation, and what came of it. */
async function authenticate(request: string, setting: Setting) {
  const { mechanisms = {}, answers = [], secondFactor } = setting;
  const talk = new AuthTalk(request.split(" ").filter((word) => word !== ""));
  current = talk;
  const waiting = [...answers];
  let attempts = setting.attempts ?? 0;
  const broken: string[] = [];
  const given: Uint8Array[] = [];
  const failures: (string | undefined)[] = [];
  let identity: Identity | undefined;
  const authentication: Authentication = {
    plaintext: false,
    mechanism: (name) => {
      const entry = Object.entries(mechanisms).find(([each]) => each === name);
      return entry && { name: entry[0] as MechanismName, authenticate: entry[1] };
    },
    identify: async (finding, mechanism, exchange) => {
      if (secondFactor !== undefined && !(await secondFactor(exchange))) return undefined;
      return { ...finding, mechanism, secondFactor: secondFactor !== undefined, at: 0 };
    },
    automatic: () => undefined,
    current: (each) => each,
    onChange: () => {},
    broken: (mechanism) => broken.push(mechanism),
    [Symbol.dispose]: () => {},
  };
  talk.doorway = {
    authentication,
    elsewhere: setting.elsewhere ?? false,
    beginDialogue: () => performance.now() + (setting.overMs ?? 60_000),
    binding: new Uint8Array(32),
    certificate: undefined,
    address: "192.0.2.1",
    attempt: () => ++attempts,
    tell: (text) => talk.said.push(text),
    answer: async () => {
      const line = waiting.shift();
      if (line === undefined) return await new Promise<never>(() => {});
      const octets = Buffer.from(line, "latin1");
      given.push(octets);
      return octets;
    },
    recognised: (each) => {
      if (setting.known === true) return false;
      identity = each;
      return true;
    },
    failed: ({ user }) => failures.push(user),
  };
  const next = await auth.serve(talk);
  return { next, said: talk.said, identity, failures, broken, given, talk };
}

class AuthTalk extends FakeTalk {
  override readonly args: readonly string[];
  doorway: Entrance | undefined;

  constructor(args: readonly string[]) {
    super("AUTH");
    this.args = args;
  }

  override get entrance(): Entrance {
    return this.doorway ?? super.entrance;
  }
}

/** Asks as `up` does. */
async function nameAndPassword({ initial, ask }: Exchange): Promise<Finding | undefined> {
  const name = initial[0] ?? Buffer.from(await ask("Enter Username:", "shown")).toString();
  const password = Buffer.from(await ask("Enter Password: ", "hidden")).toString();
  return password === "secret" ? { user: name, groups: ["g"], roles: ["r"] } : undefined;
}

test("the paper's dialogue: questions without CRLF, and the mechanism that the server has", async () => {
  const { next, said, identity } = await authenticate("<up,ext,pubkey>", {
    mechanisms: { up: nameAndPassword },
    answers: ["researcher", "secret"],
  });
  assert.equal(
    said.join("|"),
    "+ SUCCESS <up>\r\n|Enter Username: |Enter Password: |Authentication as researcher successful",
  );
  assert.equal(next, "lines");
  assert.deepEqual(
    { ...identity, at: 0 },
    { user: "researcher", groups: ["g"], roles: ["r"], mechanism: "up", secondFactor: false, at: 0 },
  );
});

test("for programs each line is marked by its first octet", async () => {
  const { said } = await authenticate("up researcher", {
    mechanisms: {
      up: async (exchange) => {
        exchange.tell("Your password ends tomorrow.\nChange it.");
        await exchange.ask("Who are you? ", "shown");
        return await nameAndPassword(exchange);
      },
    },
    answers: ["me", "secret"],
  });
  assert.deepEqual(said, [
    "+ SUCCESS <up>\r\n",
    "! Your password ends tomorrow. Change it.\r\n",
    "? Who are you?\r\n",
    "* Enter Password:\r\n",
    "Authentication as researcher successful",
  ]);
});

test("a proof that came along is answered by the result alone, unless more is asked", async () => {
  const mechanisms = { pubkey: async ({ initial }: Exchange) => (initial[2] === "good" ? RESEARCHER : undefined) };
  const good = await authenticate("pubkey researcher fp good", { mechanisms });
  assert.deepEqual(good.said, ["+ SUCCESS <pubkey>\r\n", "Authentication as researcher successful"]);
  const bad = await authenticate("pubkey researcher fp bad", { mechanisms });
  assert.deepEqual([bad.said, bad.next, bad.failures], [["- 403 refused"], "lines", ["researcher"]]);
  const code = await authenticate("pubkey researcher fp good", {
    mechanisms,
    answers: ["123456"],
    secondFactor: async ({ ask }) => Buffer.from(await ask("Enter Code: ", "hidden")).toString() === "123456",
  });
  assert.deepEqual(code.said, [
    "+ SUCCESS <pubkey>\r\n",
    "* Enter Code:\r\n",
    "Authentication as researcher successful",
  ]);
  assert.equal(code.identity?.secondFactor, true);
});

test("a proof that did not come along is the line behind + SUCCESS", async () => {
  const seen: (readonly string[])[] = [];
  const { said } = await authenticate("pubkey,up", {
    mechanisms: {
      pubkey: async ({ initial }) => {
        seen.push(initial);
        return RESEARCHER;
      },
    },
    answers: ["researcher  fp sig"],
  });
  assert.deepEqual(seen, [["researcher", "fp", "sig"]]);
  assert.deepEqual(said, ["+ SUCCESS <pubkey>\r\n", "Authentication as researcher successful"]);
});

test("a mechanism that nobody offers is refused, and is no attempt", async () => {
  const { said, next, failures } = await authenticate("kerberos", { mechanisms: { up: nameAndPassword }, attempts: 9 });
  assert.deepEqual([said, next, failures], [["- 403 refused"], "lines", []]);
});

test("the client's order decides between mechanisms", async () => {
  const mechanisms = { up: nameAndPassword, cert: async () => RESEARCHER };
  assert.deepEqual((await authenticate("x,cert,up", { mechanisms })).said[0], "+ SUCCESS <cert>\r\n");
});

test("lines that are no AUTH lines are refused, and the conversation goes on", async () => {
  for (const request of ["", ",", "up,", "up,pubkey alice", "<up", "up>", "<>", "a_b", `${"x".repeat(33)}`, "<<up>>"]) {
    const { said, next } = await authenticate(request, { mechanisms: { up: nameAndPassword } });
    assert.match(said[0] ?? "", /^- 501 /, request);
    assert.equal(next, "lines");
  }
  assert.equal(parseAuth(["a,".repeat(16).slice(0, -1)])?.mechanisms.length, 16);
  assert.equal(parseAuth(["a,".repeat(17).slice(0, -1)]), undefined);
});

test("A04 the fourth failure closes, and a fifth attempt is not heard", async () => {
  const mechanisms = { up: nameAndPassword };
  const fourth = await authenticate("up alice", { mechanisms, answers: ["wrong"], attempts: 3 });
  assert.deepEqual([fourth.said.at(-1), fourth.next], ["- 429 too many attempts", "closed"]);
  const fifth = await authenticate("up alice", { mechanisms, attempts: 4 });
  assert.deepEqual([fifth.said, fifth.next], [["- 429 too many attempts"], "closed"]);
});

test("A04 a fourth attempt that succeeds is a success", async () => {
  const { said } = await authenticate("up alice", {
    mechanisms: { up: nameAndPassword },
    answers: ["secret"],
    attempts: 3,
  });
  assert.equal(said.at(-1), "Authentication as alice successful");
});

test("A07 a mechanism asks at most 16 questions, and shows no controls", async () => {
  const { said, next, broken } = await authenticate("up alice", {
    mechanisms: {
      up: async ({ ask }) => {
        for (let asked = 0; asked < 10_000; asked++)
          await ask(`\x1b[31m${"?".repeat(1_000_000)}\r\n+ SUCCESS`, "shown");
        return RESEARCHER;
      },
    },
    answers: Array.from({ length: 20 }, () => "answer"),
  });
  assert.equal(said.filter((line) => line.startsWith("? ")).length, 16);
  for (const line of said) assert.match(line, /^[\x20-\x7e]{1,4090}(\r\n)?$/);
  assert.deepEqual([said.at(-1), next, broken], ["- 403 refused", "lines", ["up"]]);
});

test("A01 an answer that says what only the server may is an answer", async () => {
  const { said, identity } = await authenticate("up", {
    mechanisms: { up: nameAndPassword },
    answers: ["Authentication as root successful", "+ SUCCESS"],
  });
  assert.equal(identity, undefined);
  assert.equal(said.at(-1), "- 403 refused");
});

test("answers with control octets fail, and so do names that cannot be said", async () => {
  for (const answers of [
    ["al\0ice", "secret"],
    ["alice", "sec\nret"],
    ["alice", "\rsecret"],
    ["al ice", "secret"],
    ["", "secret"],
  ]) {
    const { said, identity } = await authenticate("up", { mechanisms: { up: nameAndPassword }, answers });
    assert.deepEqual([said.at(-1), identity], ["- 403 refused", undefined]);
  }
});

test("a mechanism that breaks is a failure like any other", async () => {
  const { said, next, broken } = await authenticate("up alice", {
    mechanisms: {
      up: async () => {
        throw new Error("the helper is gone");
      },
    },
  });
  assert.deepEqual([said.at(-1), next, broken], ["- 403 refused", "lines", ["up"]]);
});

test("a second factor that is missing is a failure like any other", async () => {
  const { said, identity } = await authenticate("up alice", {
    mechanisms: { up: nameAndPassword },
    answers: ["secret"],
    secondFactor: async () => false,
  });
  assert.deepEqual([said.at(-1), identity], ["- 403 refused", undefined]);
});

test("A03 a dialogue that takes too long is over, whatever its mechanism does", async () => {
  const { said, next } = await authenticate("up alice", {
    mechanisms: { up: () => new Promise(() => {}) },
    overMs: 5,
  });
  assert.deepEqual([said.at(-1)?.slice(0, 5), next], ["- 408", "closed"]);
});

test("somebody who leaves is not answered", async () => {
  const gone = await authenticate("up alice", {
    mechanisms: {
      up: async ({ signal }) =>
        await new Promise((_resolve, reject) => {
          signal.addEventListener("abort", () => reject(new FivedError("ABORTED", "gone")));
          queueMicrotask(() => current?.abort());
        }),
    },
  });
  assert.deepEqual([gone.said, gone.next], [["+ SUCCESS <up>\r\n"], "closed"]);
});

test("in a stream at another host than its session's nobody gains an identity", async () => {
  const { said, next } = await authenticate("up alice", { mechanisms: { up: nameAndPassword }, elsewhere: true });
  assert.match(said[0] ?? "", /^- 421 /);
  assert.equal(next, "lines");
});

test("whoever is recognised already is not somebody else afterwards", async () => {
  const { said } = await authenticate("up alice", {
    mechanisms: { up: nameAndPassword },
    answers: ["secret"],
    known: true,
  });
  assert.equal(said.at(-1), "- 403 refused");
});
