import assert from "node:assert/strict";
import { createHash, createHmac } from "node:crypto";
import test from "node:test";
import fc from "fast-check";
import {
  INVITE_CHARACTERS_MAX,
  INVITE_PREFIX,
  type Invite,
  inviteKey,
  inviteProof,
  isUserName,
  parseInvite,
  printInvite,
  proveInvite,
} from "./invite.ts";

const invite: Invite = {
  address: "[2001:db8::1]:1079",
  fingerprint: `SHA256:${Buffer.alloc(32, 7).toString("base64").replace(/=+$/, "")}`,
  secret: new Uint8Array(32).fill(9),
  user: "alice",
  expires: 1_900_000_000_000,
};

const invites = fc.record(
  {
    address: fc.stringMatching(/^[\x21-\x7e]{1,270}$/),
    fingerprint: fc
      .uint8Array({ minLength: 32, maxLength: 32 })
      .map((hash) => `SHA256:${Buffer.from(hash).toString("base64").replace(/=+$/, "")}`),
    secret: fc.uint8Array({ minLength: 32, maxLength: 32 }),
    user: fc.stringMatching(/^[a-z0-9][a-z0-9._-]{0,63}$/),
    expires: fc.nat({ max: 2 ** 31 - 1 }).map((seconds) => seconds * 1_000),
  },
  { noNullPrototype: true },
);

test("an invite that was printed is read as it was, blanks around it notwithstanding", () => {
  assert.deepEqual(parseInvite(printInvite(invite)), invite);
  assert.deepEqual(parseInvite(` ${printInvite(invite)}\n`), invite);
  fc.assert(
    fc.property(invites, (each) => {
      assert.deepEqual(parseInvite(printInvite(each)), each);
    }),
  );
});

test("an invite that was cut, lengthened or changed in its form is none", () => {
  const text = printInvite(invite);
  for (let length = 0; length < text.length; length++)
    assert.deepEqual(parseInvite(text.slice(0, length)), { code: "INVITE_BAD" }, `cut at ${length}`);
  for (const wrong of [
    `${text}A`,
    `${text}=`,
    text.toUpperCase(),
    text.replace("fived-invite:", "fived-invite:/"),
    `${text}\0`,
    text.replace(INVITE_PREFIX, INVITE_PREFIX.repeat(2)),
    `${text.slice(0, 40)} ${text.slice(40)}`,
    "a".repeat(INVITE_CHARACTERS_MAX + 1),
    " ".repeat(1_000_000) + text,
  ])
    assert.deepEqual(parseInvite(wrong), { code: "INVITE_BAD" });
});

test("octet by octet, whatever is put into an invite is either refused or another well-formed invite", () => {
  const octets = Buffer.from(printInvite(invite).slice(INVITE_PREFIX.length), "base64url");
  for (let at = 0; at < octets.length; at++)
    for (const value of [0, 1, 0x20, 0x7f, 0x80, 0xff]) {
      const changed = Buffer.from(octets);
      changed[at] = value;
      const read = parseInvite(INVITE_PREFIX + changed.toString("base64url"));
      if ("code" in read) continue;
      assert.ok(isUserName(read.user));
      assert.equal(read.secret.length, 32);
      assert.equal(printInvite(read), INVITE_PREFIX + changed.toString("base64url"));
    }
});

test("any text is an invite or INVITE_BAD, and what is read prints to the same text", () => {
  const text = fc.oneof(
    fc.string({ unit: "binary" }),
    fc.uint8Array({ maxLength: 700 }).map((octets) => INVITE_PREFIX + Buffer.from(octets).toString("base64url")),
    fc
      .uint8Array({ minLength: 74, maxLength: 200 })
      .map((octets) => INVITE_PREFIX + Buffer.from([1, 0, 0, ...octets]).toString("base64url")),
  );
  fc.assert(
    fc.property(text, (each) => {
      const read = parseInvite(each);
      if (!("code" in read)) assert.equal(printInvite(read), each.trim());
    }),
  );
});

test("a non-canonical base64 of the same octets is refused, so that an invite has one text", () => {
  const text = printInvite({ ...invite, user: "a" }); // leaves bits behind the last octet
  const last = text.at(-1) ?? "";
  const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
  const same = [...alphabet].filter((letter) => {
    const other = text.slice(0, -1) + letter;
    return Buffer.from(other.slice(13), "base64url").equals(Buffer.from(text.slice(13), "base64url"));
  });
  assert.ok(same.length > 1, "this length leaves no spare bits");
  for (const letter of same)
    assert.equal("code" in parseInvite(text.slice(0, -1) + letter), letter !== last, `ends in ${letter}`);
});

test("parts that are none cannot be printed", () => {
  const wrong: readonly Partial<Invite>[] = [
    { user: "" },
    { user: "Alice" },
    { user: "a".repeat(65) },
    { user: "-a" },
    { user: "а" },
    { address: "" },
    { address: "a b" },
    { address: "a".repeat(271) },
    { fingerprint: "SHA256:short" },
    { fingerprint: "MD5:00" },
    { fingerprint: `${invite.fingerprint}=` },
    { secret: new Uint8Array(31) },
    { expires: -1_000 },
    { expires: 1.5 },
    { expires: Number.NaN },
  ];
  for (const part of wrong) assert.throws(() => printInvite({ ...invite, ...part }), RangeError);
});

test("a proof is the HMAC that PROTOCOL §4.6 writes down, and another one for every other connection, host, name and secret", () => {
  const binding = new Uint8Array(32).fill(3);
  const claim = { binding, host: "example.org", user: "alice" };
  const key = createHash("sha256").update("fived-invite-v1\0").update(invite.secret).digest();
  const message = Buffer.concat([
    Buffer.from("fived-invite-v1\0"),
    binding,
    Buffer.from([11]),
    Buffer.from("example.org"),
    Buffer.from([5]),
    Buffer.from("alice"),
  ]);
  const proof = inviteProof(invite.secret, claim);
  assert.equal(proof, createHmac("sha256", key).update(message).digest("base64url"));
  assert.equal(proof.length, 43);
  assert.deepEqual(inviteKey(invite.secret), key);
  assert.equal(Buffer.from(proveInvite(key, claim)).toString("base64url"), proof);
  const others = [
    inviteProof(new Uint8Array(32), claim),
    inviteProof(invite.secret, { ...claim, binding: new Uint8Array(32) }),
    inviteProof(invite.secret, { ...claim, host: "" }),
    inviteProof(invite.secret, { ...claim, user: "bob" }),
    inviteProof(invite.secret, { binding, host: "example.orgalice", user: "" }),
    inviteProof(invite.secret, { binding, host: "", user: "example.orgalice" }),
  ];
  assert.equal(new Set([proof, ...others]).size, 7);
});
