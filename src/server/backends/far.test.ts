import assert from "node:assert/strict";
import { once } from "node:events";
import { type Duplex, duplexPair } from "node:stream";
import test from "node:test";
import { otherKey } from "../../../test/support/vouchings.ts";
import { FivedError } from "../../io/index.ts";
import { Vouchings } from "../announce/vouchings.ts";
import type { FarSession } from "../upstream.ts";
import { FakeTalk, identityOf, RecordingLog } from "./fake-talk.test.ts";
import { FarService, farName } from "./far.ts";

/** What a far server does when a stream is opened, one after the other; the last one again and again. */
type Act = () => Duplex | Promise<Duplex>;

interface Setting {
  readonly word?: string;
  readonly service?: string | undefined;
  readonly vouchings?: Vouchings;
  readonly session?: () => Promise<FarSession>;
  readonly connectMs?: number;
  readonly names?: readonly string[];
}

function far(acts: readonly Act[], setting: Setting = {}) {
  const { word = "wiki", connectMs = 5_000, vouchings, names = [] } = setting;
  const asked: string[] = [];
  const log = new RecordingLog();
  let at = 0;
  const session: FarSession = {
    binding: Buffer.alloc(32, 7),
    async open(service, via) {
      asked.push(`${via} ${service}`);
      const act = acts[Math.min(at++, acts.length - 1)];
      if (act === undefined) throw new Error("nothing was expected");
      return await act();
    },
    async list(via, service) {
      asked.push(`${via} LIST ${service ?? ""}`.trim());
      return names;
    },
  };
  const server = {
    session: setting.session ?? (async () => session),
    retire() {},
    async [Symbol.asyncDispose]() {},
  };
  const target = {
    type: "far",
    server: "far.example",
    service: "service" in setting ? setting.service : "wiki",
  } as const;
  return { asked, log, service: new FarService(word, target, { far: server, vouchings, connectMs, log }) };
}

const fails = (error: unknown) => (): never => {
  throw error;
};
const refuses = (status: number | undefined) =>
  fails(new FivedError("SERVICE_REFUSED", `the server says "secret text ${status}"`, { status }));

test("a stream is joined when the other server has taken it up", async () => {
  const [near, there] = duplexPair();
  const { service, asked } = far([() => near]);
  const talk = new FakeTalk("wiki");
  assert.equal(await service.serve(talk), "bytes");
  assert.deepEqual(talk.said, ["+ SUCCESS"]);
  assert.deepEqual(asked, ["VIA 1 wiki"]);
  const { input, output } = talk.backEnd;
  input.write("x");
  assert.equal(String((await once(there, "data"))[0]), "x");
  talk.backEnd.destroy();
  assert.ok(output.destroyed);
});

test("each refusal there becomes one of ours, and nothing of its text is told", async () => {
  const lost = new FivedError("SESSION_LOST", "secret text");
  const cases: readonly (readonly [Act, RegExp])[] = [
    [refuses(404), /^- 404 no such service$/],
    [refuses(403), /^- 502 wiki: other server cannot be told who is calling$/],
    [refuses(502), /^- 502 wiki: other server refuses$/],
    [refuses(507), /^- 502 /],
    [refuses(500), /^- 502 /],
    [refuses(undefined), /^- 502 /],
    [refuses(504), /^- 504 wiki: other server did not answer in time$/],
    [refuses(408), /^- 504 /],
    [refuses(508), /^- 508 wiki: the way to it goes through too many servers$/],
    [fails(lost), /^- 502 wiki: other server cannot be reached$/],
    [fails(new FivedError("TIMEOUT", "secret text")), /^- 504 /],
    [fails(new FivedError("STREAM_RESET", "secret text", { reason: "CALM" })), /^- 502 wiki: other server refuses$/],
    [fails(new Error("secret text")), /^- 502 /],
  ];
  for (const code of ["RESOLVE_FAILED", "CONNECT_FAILED", "TLS_FAILED", "HOST_KEY_CHANGED", "AUTH_REFUSED"] as const) {
    const session = fails(new FivedError(code, "secret text"));
    const { service } = far([], { session: async () => session() });
    const talk = new FakeTalk("wiki");
    assert.equal(await service.serve(talk), "closed");
    assert.deepEqual(talk.said, ["- 502 wiki: other server cannot be reached"]);
  }
  for (const [act, said] of cases) {
    const { service, log } = far([act]);
    const talk = new FakeTalk("wiki");
    assert.equal(await service.serve(talk), "closed");
    assert.match(talk.said.join("|"), said);
    assert.doesNotMatch(talk.said.join("|"), /secret/);
    assert.equal(log.events.length, said.source.includes("404") ? 0 : 1, String(said));
  }
});

test("a session that was lost is tried once more, and one that is full is no reason to give up", async () => {
  const [near] = duplexPair();
  const lost = fails(new FivedError("SESSION_LOST", "lost"));
  const full = fails(new FivedError("STREAM_RESET", "full", { reason: "REFUSED" }));
  for (const [acts, good] of [
    [[lost, () => near], true],
    [[lost, lost, () => near], false],
    [[...Array.from({ length: 20 }, () => full), lost, () => near], true],
    [[full], false],
  ] as const) {
    const { service, asked } = far(acts);
    const talk = new FakeTalk("wiki");
    assert.equal(await service.serve(talk), good ? "bytes" : "closed");
    assert.ok(asked.length <= 32);
  }
});

test("the same trouble is told once, until it is over", async () => {
  const [near] = duplexPair();
  const { service, log } = far([refuses(502), refuses(502), () => near, refuses(502)]);
  for (let round = 0; round < 4; round++) await service.serve(new FakeTalk("wiki"));
  assert.equal(log.events.length, 2);
});

test("K06 what has come through eight servers is not passed on", async () => {
  for (const [hops, good] of [
    [1, true],
    [7, true],
    [8, false],
  ] as const) {
    const [near] = duplexPair();
    const { service, asked } = far([() => near], { names: ["wiki"] });
    const talk = new FakeTalk("wiki", { through: { hops } });
    assert.equal(await service.serve(talk), good ? "bytes" : "closed");
    assert.deepEqual(asked, good ? [`VIA ${hops + 1} wiki`] : []);
    if (!good) assert.match(talk.said.join("|"), /^- 508 /);
    if (!good) assert.deepEqual(await service.names(talk.caller, talk.signal), []);
  }
});

test("who leaves while the stream is being opened is waited for no longer, and who waits too long hears so", async () => {
  const never = new Promise<Duplex>(() => {});
  const leaving = new FakeTalk("wiki");
  const left = far([() => never]).service.serve(leaving);
  leaving.abort();
  assert.equal(await left, "closed");
  assert.deepEqual(leaving.said, []);
  const early = new FakeTalk("wiki");
  early.abort();
  assert.equal(await far([() => never]).service.serve(early), "closed");
  const waiting = new FakeTalk("wiki");
  assert.equal(await far([() => never], { connectMs: 20 }).service.serve(waiting), "closed");
  assert.match(waiting.said.join("|"), /^- 504 /);
  const noSession = far([], { connectMs: 20, session: () => new Promise(() => {}) });
  const dialling = new FakeTalk("wiki");
  assert.equal(await noSession.service.serve(dialling), "closed");
  assert.match(dialling.said.join("|"), /^- 504 /);
});

test("the caller is told as he is, or not at all", async () => {
  const vouchings = new Vouchings({ keys: { current: otherKey("k1") }, issuer: "a.example" });
  const [near] = duplexPair();
  const { service, asked } = far([() => near], { vouchings });
  const alice = { user: "alice", roles: ["ops"], identity: identityOf("alice") };
  await service.serve(new FakeTalk("wiki", alice));
  await service.serve(new FakeTalk("wiki", {}));
  assert.match(asked[0] ?? "", /^VIA 1 [\w-]+\.[\w-]+\.[\w-]+ wiki$/);
  assert.equal(asked[1], "VIA 1 - wiki");
  assert.ok((asked[0] ?? "").length < 700);
  for (const who of [
    { ...alice, user: "Alice Liddell" },
    { ...alice, user: "Alice" },
    { ...alice, user: "alice@B.example" },
    { ...alice, user: "alice@a@b" },
    {
      ...alice,
      user: `${"a".repeat(64)}@${"b".repeat(60)}.${"c".repeat(60)}.${"d".repeat(60)}.example`,
      roles: ["x".repeat(200)],
    },
    { ...alice, roles: Array.from({ length: 60 }, (_, n) => `a-role-with-a-name-${n}`) },
  ]) {
    const talk = new FakeTalk("wiki", who);
    assert.equal(await service.serve(talk), "closed");
    assert.deepEqual(talk.said, ["- 502 wiki: other server cannot be told who is calling"]);
  }
  assert.equal(asked.length, 2, "nothing was opened for them");
});

test("K07 names under a suffix are those of the other server, and never words of the protocol", async () => {
  assert.equal(farName("*.far", "Wiki.FAR"), "wiki");
  assert.equal(farName("*", "wiki"), "wiki");
  assert.equal(farName("*.far", "a.b.far"), "a.b");
  for (const name of [
    "wiki",
    ".far",
    "far",
    "wiki.far2",
    "-x.far",
    "list.far",
    "LIST.far",
    "attach.far",
    "via.far",
    "",
  ])
    assert.equal(farName("*.far", name), undefined, name);
  const [near] = duplexPair();
  const names = ["Wiki", "LIST", "db", "x".repeat(62), "bad name", ""];
  const { service, asked } = far([() => near], { word: "*.far", service: undefined, names });
  assert.equal(await service.serve(new FakeTalk("WIKI.far")), "bytes");
  const evil = new FakeTalk("auth.far");
  assert.equal(await service.serve(evil), "closed");
  assert.deepEqual(evil.said, ["- 404 no such service"]);
  const { caller, signal } = new FakeTalk();
  assert.deepEqual(await service.names(caller, signal), ["Wiki.far", "db.far"]);
  assert.deepEqual(await service.names(caller, signal, "list.far"), []);
  await service.names(caller, signal, "db.far");
  assert.deepEqual(asked, ["VIA 1 wiki", "VIA 1 LIST", "VIA 1 LIST db"]);
});
