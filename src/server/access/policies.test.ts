import assert from "node:assert/strict";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import test, { type TestContext } from "node:test";
import fc from "fast-check";
import type { FivedError } from "../../io/index.ts";
import { identityOf, STRANGER } from "../backends/fake-talk.test.ts";
import type { Caller } from "../service.ts";
import { Access, type Guarded } from "./access.ts";
import { checkPolicies, Policies } from "./policies.ts";

async function written(t: TestContext, text: string): Promise<string> {
  const folder = await mkdtemp(join(tmpdir(), "fived-policies-"));
  t.after(() => rm(folder, { recursive: true, force: true }));
  const file = join(folder, "policies.cedar");
  await writeFile(file, text);
  return file;
}

async function policies(t: TestContext, text: string): Promise<Policies> {
  return await Policies.load(await written(t, text));
}

const ALICE: Caller = {
  ...STRANGER,
  user: "alice",
  roles: ["ops"],
  identity: identityOf("alice", { groups: ["staff"] }),
  peer: "10.1.2.3:4711",
};

function question(caller: Partial<Caller>, service = "db", granted = true, host?: string) {
  return { caller: { ...ALICE, ...caller }, host, service, granted };
}

test("without a word in them policies say what allow says", async (t) => {
  const empty = await policies(t, "// nothing\n");
  assert.equal(empty.allows(question({})), true);
  assert.equal(empty.allows(question({}, "db", false)), false);
});

test("a forbid narrows: the network, the second factor, the age of the login, TLS, the mechanism", async (t) => {
  const cases: readonly (readonly [string, Partial<Caller>, Partial<Caller>])[] = [
    [
      'context has address && context.address.isInRange(ip("10.0.0.0/8"))',
      { peer: "10.1.2.3:1" },
      { peer: "192.0.2.1:1" },
    ],
    [
      'context has address && context.address.isInRange(ip("2001:db8::/32"))',
      { peer: "[2001:db8::7]:1" },
      { peer: "unix:" },
    ],
    ["context.secondFactor", { identity: identityOf("alice", { secondFactor: true }) }, {}],
    ["context.authAge < 28800", {}, { identity: identityOf("alice", { at: Date.now() - 8 * 3_600_000 }) }],
    ["context.secure", { secure: true }, { secure: false }],
    ['context.mechanism == "pubkey"', {}, { identity: identityOf("alice", { mechanism: "up" }) }],
    ["context.signedIn", {}, { user: undefined, identity: undefined, roles: [] }],
    ['principal in Role::"ops"', {}, { roles: [] }],
    ['principal in Group::"staff"', {}, { identity: identityOf("alice") }],
    [
      "context.weekday >= 1 && context.weekday <= 7 && context.hour <= 23 && context.minute <= 59",
      {},
      { user: undefined },
    ],
  ];
  for (const [condition, allowed, denied] of cases.slice(0, -1)) {
    const each = await policies(t, `forbid(principal, action, resource) unless { ${condition} };`);
    assert.equal(each.allows(question(allowed)), true, condition);
    assert.equal(each.allows(question(denied)), false, condition);
  }
  const [always] = cases.at(-1) ?? [""];
  assert.equal(
    (await policies(t, `forbid(principal, action, resource) unless { ${always} };`)).allows(question({})),
    true,
  );
});

test("a permit widens, for the services and hosts that it names", async (t) => {
  const some = await policies(
    t,
    `permit(principal == User::"alice", action, resource == Service::"db");
permit(principal, action, resource in Host::"git.example.org");`,
  );
  assert.equal(some.allows(question({}, "db", false)), true);
  assert.equal(some.allows(question({}, "wiki", false)), false);
  assert.equal(some.allows(question({}, "wiki", false, "git.example.org")), true);
  assert.equal(some.allows(question({ user: "bob" }, "db", false)), false);
});

test("a policy that cannot be evaluated denies, also where another permits", async (t) => {
  const overflow = await policies(
    t,
    "forbid(principal, action, resource) when { context.authAge + 9223372036854775807 + context.hour + 1 < 0 };",
  );
  assert.equal(overflow.allows(question({ identity: identityOf("alice", { at: 0 }) })), false);
});

test("what is wrong in a file is told with its place, and is not served", async (t) => {
  const cases: readonly (readonly [string, RegExp])[] = [
    ["permit(principal, action resource);", /^1:26 .*unexpected token/],
    [
      "\n\nforbid(principal, action, resource) when { context.adress == 1 };",
      /^3:44 attribute `adress`.*did you mean `address`/,
    ],
    ['permit(principal, action, resource) when { resource.name like "db*" };', /^1:\d+ attribute `name`/],
    ['permit(principal, action, resource == Servise::"db");', /^1:\d+ .*Servise/],
    ["permit(principal == ?principal, action, resource);", /^1:1 templates/],
    ["// Zürich\npermit(principal, action, resource) when { context.x };", /^2:\d+ /],
  ];
  for (const [text, expected] of cases) {
    const file = await written(t, text);
    const [problem] = await checkPolicies(file);
    assert.ok(problem !== undefined, text);
    assert.match(`${problem.line}:${problem.column} ${problem.message}`, expected);
    await assert.rejects(Policies.load(file), (error: FivedError) => {
      return error.code === "CONFIGURATION_BAD" && error.message.includes(`${file}:${problem.line}:${problem.column}`);
    });
  }
  assert.equal((await checkPolicies("/nonexistent/p.cedar")).length, 1);
});

test("LIST shows exactly what may be used, with policies too", async (t) => {
  const some = await policies(
    t,
    `permit(principal in Role::"ops", action, resource == Service::"s3");
forbid(principal, action, resource == Service::"s1") unless { context.secondFactor };
forbid(principal, action, resource in Host::"b.example") unless { principal in Group::"staff" };`,
  );
  fc.assert(
    fc.property(
      fc.array(fc.subarray(["anyone", "alice", "ops"]), { maxLength: 6 }),
      fc.constantFrom("alice", "bob"),
      fc.boolean(),
      fc.constantFrom(undefined, "b.example"),
      (allows, user, secondFactor, host) => {
        const access = new Access(new Map([["ops", ["alice"]]]), some);
        const identity = identityOf(user, { secondFactor });
        const caller: Caller = { ...STRANGER, user, identity, roles: access.rolesOf(identity) };
        const services: Guarded[] = allows.map((allow, index) => ({
          name: `s${index}`,
          audience: { names: new Set(allow) },
        }));
        assert.deepEqual(
          [...access.usable(services, host, caller)],
          services.filter((service) => access.allows(service, service.name, host, caller)),
        );
      },
    ),
    { numRuns: 50 },
  );
});

test("L08 a name that is forbidden costs the evaluations of one that is not there", async (t) => {
  const some = await policies(
    t,
    `forbid(principal, action, resource == Service::"secret");
permit(principal == User::"carol", action, resource == Service::"other");`,
  );
  let access = new Access(new Map(), some);
  const work = (service: Guarded | undefined, asked: string): number => {
    const before = some.evaluations;
    assert.equal(access.allows(service, asked, undefined, ALICE), false);
    return some.evaluations - before;
  };
  const secret: Guarded = { name: "secret", audience: { names: new Set(["alice"]) } };
  const ungranted: Guarded = { name: "other", audience: { names: new Set(["bob"]) } };
  const closed: Guarded = { name: "closed", audience: { names: new Set(["bob"]) } };
  const asks = [
    () => work(undefined, "nonexistent"),
    () => work(secret, "secret"),
    () => work(ungranted, "other"),
    () => work(closed, "closed"),
  ];
  // Whichever is asked for first finds out what holds for all that no policy names.
  for (const first of asks) {
    access = new Access(new Map(), some);
    assert.equal(first(), 2);
    assert.equal(first(), 0);
  }
  for (const again of [1, 0]) {
    access = again === 1 ? new Access(new Map(), some) : access;
    if (again === 1) work(undefined, "before");
    for (const ask of asks) assert.equal(ask(), again);
  }
});

test("a decision holds for a second, so that a clock's part in it is never older", async (t) => {
  const some = await policies(t, "forbid(principal, action, resource) when { context.authAge > 10 };");
  let now = 0;
  const access = new Access(new Map(), some, () => now);
  const service: Guarded = { name: "a", audience: { names: new Set(["anyone"]) } };
  for (const at of [0, 999, 1_000, 1_500, 2_000]) {
    now = at;
    access.allows(service, "a", undefined, ALICE);
  }
  assert.equal(some.evaluations, 3);
});

test("a decision of policies that read no clock is made once for who somebody is", async (t) => {
  const some = await policies(t, "forbid(principal, action, resource) unless { context.secondFactor };");
  let now = 0;
  const access = new Access(new Map(), some, () => now);
  const service: Guarded = { name: "a", audience: { names: new Set(["anyone"]) } };
  for (const at of [0, 1_000, 1e9]) {
    now = at;
    assert.equal(access.allows(service, "a", undefined, ALICE), false);
  }
  assert.equal(some.evaluations, 2, "for all, and by name");
  const surer = { ...ALICE, identity: identityOf("alice", { secondFactor: true }) };
  assert.equal(access.allows(service, "a", undefined, surer), true);
});

test("what a policy reads is told to it, however it asks", async (t) => {
  const conditions = [
    'if context.secure then [context.mechanism].contains("pubkey") else false',
    '[principal in Role::"ops", principal in Group::"staff"].contains(true)',
    'principal is User in Group::"staff"',
    'principal in [Group::"x", Group::"staff"] && resource in Host::"git.example.org"',
    'resource == Service::"db" && resource in [Host::"git.example.org"]',
    'context.address.isInRange(ip("10.0.0.0/8")) || context.hour > 24',
    'context.now > datetime("2020-01-01") && context.weekday > 0 && context.minute >= 0',
  ];
  for (const condition of conditions) {
    const guarded = condition.startsWith("context.address") ? `context has address && (${condition})` : condition;
    const some = await policies(t, `forbid(principal, action, resource) unless { ${guarded} };`);
    assert.equal(some.allows(question({ secure: true }, "db", true, "git.example.org")), true, condition);
  }
});

test("streams to many services that no policy names cost one evaluation", async (t) => {
  const some = await policies(
    t,
    'forbid(principal, action, resource == Service::"db") unless { context.secondFactor };',
  );
  const access = new Access(new Map(), some);
  const anyone = { names: new Set(["anyone"]) };
  for (const name of ["a", "b", "c", "d"])
    assert.equal(access.allows({ name, audience: anyone }, name, undefined, ALICE), true);
  assert.equal(some.evaluations, 1);
  assert.equal(access.allows({ name: "db", audience: anyone }, "db", undefined, ALICE), false);
});
