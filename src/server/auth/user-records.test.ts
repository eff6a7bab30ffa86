import assert from "node:assert/strict";
import test from "node:test";
import fc from "fast-check";
import { hashOfNothing, printPasswordHash } from "./password-hash.ts";
import {
  type InviteRecord,
  parseRecords,
  printRecords,
  printTotp,
  type Records,
  type UserRecord,
} from "./user-records.ts";

const HASH = printPasswordHash(hashOfNothing({ memoryKiB: 64, passes: 1, lanes: 1 }));
const KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIOMqqnkVzrm0SdG6UOoqKLsabgH5C9okWi0dh2l9GKJl laptop";
const ALICE = `{"user":"alice","groups":["staff"],"roles":["ops"],"password":"${HASH}","totp":"JBSWY3DPEHPK3PXPJBSWY3DPEHPK3PXP","keys":["${KEY}"]}`;
const BOB = `{"invite":"bob","roles":["guest"],"key":"${Buffer.alloc(32, 5).toString("base64url")}","expires":"2026-01-31T12:00:00.000Z"}`;

function read(text: string): Records {
  const records = parseRecords(text);
  assert.ok(!("code" in records), "code" in records ? records.message : "");
  return records;
}

test("what a store holds is read, and printed as the same text", () => {
  const text = `${ALICE}\n${BOB}\n`;
  const records = read(text);
  const alice = records.users.get("alice");
  assert.deepEqual(alice?.user.groups, ["staff"]);
  assert.deepEqual(alice?.user.roles, ["ops"]);
  assert.deepEqual(alice?.user.keys, [KEY]);
  assert.equal(Buffer.from(alice?.user.totp ?? []).toString("latin1"), "Hello!\xde\xad\xbe\xefHello!\xde\xad\xbe\xef");
  assert.equal(records.invites.get("bob")?.expires, Date.UTC(2026, 0, 31, 12));
  assert.equal(printRecords(records), text);
  assert.equal(printRecords(read("")), "");
});

test("a change of one user changes one line, and leaves the others as somebody has written them", () => {
  const records = read(`{ "user": "zoe", "groups": [] }\n\n${ALICE}\r\n`.replace("\r", ""));
  const draft = { users: new Map(records.users), invites: new Map(records.invites) };
  const alice = draft.users.get("alice");
  assert.ok(alice);
  draft.users.set("alice", { ...alice, user: { ...alice.user, roles: [] } });
  assert.equal(printRecords(draft), `${ALICE.replace('"roles":["ops"],', "")}\n{ "user": "zoe", "groups": [] }\n`);
});

test("lines that were read before are the same records again, wherever they stand now", () => {
  const before = read(`${ALICE}\n${BOB}\n`);
  const after = parseRecords(`${BOB}\n{"user":"carol"}\n${ALICE}`, before);
  assert.ok(!("code" in after));
  assert.equal(after.users.get("alice"), before.users.get("alice"));
  assert.equal(after.invites.get("bob"), before.invites.get("bob"));
  const twice = parseRecords(`${ALICE}\n${ALICE}\n`, before);
  assert.ok("code" in twice && twice.line === 2 && /stands there twice/.test(twice.message));
});

test("of a line that says something else than its writer meant, the line and the reason are told", () => {
  const cases: readonly (readonly [string, RegExp])[] = [
    ["alice", /JSON object/],
    ["null", /JSON object/],
    ["[]", /JSON object/],
    ['"alice"', /JSON object/],
    ['{"user":"alice"', /JSON object/],
    ["{}", /expected the name/],
    ['{"user":7}', /expected a string as user/],
    ['{"user":null}', /expected a string as user/],
    ['{"user":""}', /is no name/],
    ['{"user":"Alice"}', /is no name/],
    ['{"user":"a b"}', /is no name/],
    ['{"user":"-a"}', /is no name/],
    [`{"user":"${"a".repeat(65)}"}`, /is no name/],
    ['{"user":"а"}', /is no name/],
    ['{"user":"alice","disabled":true}', /unknown field "disabled"/],
    ['{"user":"alice","__proto__":{"roles":["ops"]}}', /unknown field "__proto__"/],
    ['{"user":"alice","invite":"alice"}', /./],
    ['{"user":"alice","groups":"staff"}', /expected strings as groups/],
    ['{"user":"alice","groups":["a b"]}', /groups: "a b" is no name/],
    ['{"user":"alice","roles":[7]}', /expected strings as roles/],
    ['{"user":"alice","roles":{"0":"ops","length":1}}', /expected strings as roles/],
    [`{"user":"alice","groups":${JSON.stringify(Array(129).fill("g"))}}`, /there are 129, the limit is 128/],
    ['{"user":"alice","password":"secret"}', /expected an argon2id hash/],
    ['{"user":"alice","totp":"JBSW"}', /16 to 64 octets in base32/],
    ['{"user":"alice","totp":"jbswy3dpehpk3pxpjbswy3dpehpk3pxp"}', /16 to 64 octets in base32/],
    ['{"user":"alice","keys":[""]}', /key 1 is no line/],
    ['{"user":"alice","keys":["ssh-ed25519 AAAA\\nssh-ed25519 BBBB"]}', /key 1 is no line/],
    [`{"user":"alice","keys":["${"a".repeat(8_193)}"]}`, /key 1 is no line/],
    [`{"user":"alice","keys":${JSON.stringify(Array(65).fill(KEY))}}`, /there are 65 keys, the limit is 64/],
    ['{"invite":"bob"}', /32 octets in base64url as key/],
    ['{"invite":"bob","key":"AAAA","expires":"2026-01-31T12:00:00Z"}', /32 octets/],
    [BOB.replace("2026-01-31T12:00:00.000Z", "soon"), /expected a time/],
    [BOB.replace('"key"', '"password"'), /./],
    [ALICE.replace("alice", "alice\\u0000"), /is no name/],
  ];
  for (const [line, said] of cases) {
    const answer = parseRecords(`{"user":"first"}\n\n${line}\n`);
    assert.ok("code" in answer, line);
    assert.deepEqual([answer.code, answer.line], ["USERS_UNREADABLE", 3], line);
    assert.match(answer.message, said, line);
  }
});

test("L06 names of JavaScript's own are users like any other, or no names", () => {
  const records = read(
    '{"user":"constructor"}\n{"user":"tostring"}\n{"user":"hasownproperty","roles":["__proto__"]}\n',
  );
  assert.deepEqual([...records.users.keys()], ["constructor", "tostring", "hasownproperty"]);
  assert.equal(records.users.get("valueof"), undefined);
  assert.equal(Reflect.get({}, "roles"), undefined);
});

const name = fc.stringMatching(/^[a-z0-9][a-z0-9._-]{0,63}$/);
const names = fc.array(fc.stringMatching(/^[A-Za-z0-9_][A-Za-z0-9._+-]{0,10}$/), { maxLength: 4 });
const userRecord: fc.Arbitrary<UserRecord> = fc.record({
  user: fc.record({
    name,
    groups: names,
    roles: names,
    keys: fc.array(
      fc
        .string({ unit: "binary", maxLength: 50 })
        .filter((line) => /^\P{Cc}*[^\p{Cc}\s]\P{Cc}*$/u.test(line) && line.isWellFormed()),
      { maxLength: 3 },
    ),
    totp: fc.option(fc.uint8Array({ minLength: 16, maxLength: 64 }), { nil: undefined }),
  }),
  password: fc.option(
    fc.record({
      memoryKiB: fc.integer({ min: 128, max: 1_048_576 }),
      passes: fc.integer({ min: 1, max: 32 }),
      lanes: fc.integer({ min: 1, max: 16 }),
      salt: fc.uint8Array({ minLength: 8, maxLength: 64 }),
      tag: fc.uint8Array({ minLength: 16, maxLength: 64 }),
    }),
    { nil: undefined },
  ),
});
const inviteRecord: fc.Arbitrary<InviteRecord> = fc.record({
  user: name,
  groups: names,
  roles: names,
  key: fc.uint8Array({ minLength: 32, maxLength: 32 }),
  expires: fc.nat(),
});

test("whatever a store may hold survives being printed and read", () => {
  fc.assert(
    fc.property(fc.array(userRecord, { maxLength: 5 }), fc.array(inviteRecord, { maxLength: 3 }), (users, invites) => {
      const text = printRecords({
        users: new Map(users.map((each) => [each.user.name, each])),
        invites: new Map(invites.map((each) => [each.user, each])),
      });
      const records = read(text);
      // Printed anew from values, not from the lines that were kept.
      const copied = {
        users: new Map([...records.users].map(([key, each]) => [key, { ...each }])),
        invites: new Map([...records.invites].map(([key, each]) => [key, { ...each }])),
      };
      assert.equal(printRecords(copied), text);
    }),
  );
});

test("octet by octet, whatever is put into a store's text, it is understood or it is not, and nothing is thrown", () => {
  const text = `${ALICE}\n${BOB}\n`;
  for (let at = 0; at < text.length; at++) {
    parseRecords(text.slice(0, at));
    for (const octet of ["\0", '"', "{", "}", "\\", "\n", "a", "[", "7", "\ufffd", "\u2028"])
      parseRecords(text.slice(0, at) + octet + text.slice(at + 1));
  }
  fc.assert(fc.property(fc.string({ unit: "binary" }), (any) => void parseRecords(any)));
  fc.assert(fc.property(fc.json(), (any) => void parseRecords(any)));
  fc.assert(
    fc.property(
      fc.dictionary(
        fc.constantFrom("user", "invite", "keys", "groups", "password", "totp", "key", "expires"),
        fc.jsonValue(),
      ),
      (any) => void parseRecords(JSON.stringify(any)),
    ),
  );
});

test("a secret of any length is the base32 that authenticator programs take", () => {
  assert.equal(printTotp(Buffer.from("12345678901234567890")), "GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ");
});
