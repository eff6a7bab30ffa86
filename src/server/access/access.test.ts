import assert from "node:assert/strict";
import test from "node:test";
import fc from "fast-check";
import { identityOf, STRANGER } from "../backends/fake-talk.test.ts";
import type { Caller } from "../service.ts";
import { Access, type Guarded } from "./access.ts";

const ROLES = new Map([
  ["ops", ["alice", "bob@p.example"]],
  ["staff", ["group:staff"]],
  ["2", ["carol"]],
]);

function guarded(name: string, ...allow: readonly string[]): Guarded {
  return { name, audience: { names: new Set(allow) } };
}

test("who may use a service: anyone, everyone signed in, a user, a role, a group; nobody by a role that nobody defines", () => {
  const access = new Access(ROLES, undefined);
  const cases: readonly (readonly [readonly string[], Partial<Caller>, boolean])[] = [
    [[], { user: "alice" }, false],
    [["anyone"], {}, true],
    [["everyone-signed-in"], {}, false],
    [["everyone-signed-in"], { user: "mallory" }, true],
    [["alice"], { user: "alice" }, true],
    [["alice"], {}, false],
    [["alice"], { user: "Alice" }, false],
    [["ops"], { user: "alice" }, true],
    [["ops"], { user: "bob@p.example" }, true],
    [["ops"], { user: "bob" }, false],
    [["ops"], { user: "ops" }, false],
    [["ops"], { user: "mallory", roles: ["ops"] }, true],
    [["undefined-role"], { user: "mallory", roles: ["undefined-role"] }, false],
    [["staff"], { user: "group:staff" }, false],
    [["group:staff"], { user: "group:staff" }, false],
    [["group:staff"], { user: "dave", identity: identityOf("dave", { groups: ["staff"] }) }, true],
    [["staff"], { user: "staff" }, false],
    [["staff"], { user: "mallory", roles: ["group:staff"] }, false],
    [["2"], { user: "carol" }, true],
    [["__proto__"], { user: "mallory", roles: ["__proto__"] }, false],
    [["mallory", "ops"], { user: "alice" }, true],
  ];
  for (const [allow, who, expected] of cases) {
    const caller = { ...STRANGER, ...who };
    assert.equal(access.allows(guarded("x", ...allow), "x", undefined, caller), expected, JSON.stringify([allow, who]));
  }
});

test("roles are those of the configuration, by name and by group, and those that came along", () => {
  const access = new Access(ROLES, undefined);
  assert.deepEqual(access.rolesOf(identityOf("alice", { groups: ["staff"], roles: ["on-call"] })), [
    "on-call",
    "ops",
    "staff",
  ]);
  assert.deepEqual(access.rolesOf(identityOf("group:staff")), []);
});

test("LIST shows exactly what may be used, whoever asks", () => {
  const names = ["anyone", "everyone-signed-in", "alice", "carol", "ops", "staff", "group:staff", "nobody"];
  fc.assert(
    fc.property(
      fc.array(fc.subarray(names), { maxLength: 20 }),
      fc.option(fc.constantFrom("alice", "carol", "mallory"), { nil: undefined }),
      fc.subarray(["staff", "other"]),
      (allows, user, groups) => {
        const access = new Access(ROLES, undefined);
        const identity = user === undefined ? undefined : identityOf(user, { groups });
        const roles = identity === undefined ? [] : access.rolesOf(identity);
        const caller: Caller = { ...STRANGER, user, identity, roles };
        const services = allows.map((allow, index) => guarded(`s${index}`, ...allow));
        const listed = [...access.usable(services, undefined, caller)];
        assert.deepEqual(
          listed,
          services.filter((service) => access.allows(service, service.name, undefined, caller)),
        );
      },
    ),
  );
});
