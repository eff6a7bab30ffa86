import assert from "node:assert/strict";
import test from "node:test";
import fc from "fast-check";
import {
  hashOfNothing,
  PASSWORD_COST,
  PasswordHasher,
  parsePasswordHash,
  printPasswordHash,
  WAITING_MAX,
} from "./password-hash.ts";

const CHEAP = { memoryKiB: 64, passes: 1, lanes: 1 };
const octets = (text: string) => Buffer.from(text);

test("a hash is read as it was printed, and is that password's alone", async () => {
  const hasher = new PasswordHasher();
  const hash = await hasher.hash(octets("correct horse"), CHEAP);
  assert.ok(hash);
  const read = parsePasswordHash(printPasswordHash(hash));
  assert.ok(read);
  assert.deepEqual(
    { ...read, salt: [...read.salt], tag: [...read.tag] },
    { ...hash, salt: [...hash.salt], tag: [...hash.tag] },
  );
  assert.equal(await hasher.verify(read, octets("correct horse")), true);
  for (const wrong of ["", "correct horse ", "Correct horse", "\xff"])
    assert.equal(await hasher.verify(read, octets(wrong)), false);
});

test("two hashes of one password differ, and ours are what RFC 9106 recommends in the form of PHC", async () => {
  const hasher = new PasswordHasher();
  const [one, other] = await Promise.all([hasher.hash(octets("a"), CHEAP), hasher.hash(octets("a"), CHEAP)]);
  assert.ok(one && other);
  assert.notDeepEqual(one.salt, other.salt);
  assert.notDeepEqual(one.tag, other.tag);
  assert.match(
    printPasswordHash(hashOfNothing(PASSWORD_COST)),
    /^\$argon2id\$v=19\$m=65536,t=3,p=4\$[A-Za-z0-9+/]{22}\$[A-Za-z0-9+/]{43}$/,
  );
});

test("a hash that another program made verifies", async () => {
  // Of the reference implementation's own suite (phc-winner-argon2, src/test.c).
  const kept = parsePasswordHash(
    "$argon2id$v=19$m=256,t=2,p=1$c29tZXNhbHQ$nf65EOgLrQMR/uIPnA4rEsF5h7TKyQwu9U1bMCHGi/4",
  );
  assert.ok(kept);
  const hasher = new PasswordHasher();
  assert.equal(await hasher.verify(kept, octets("password")), true);
  assert.equal(await hasher.verify(kept, octets("passwore")), false);
});

test("what is no hash of ours is none: other variants and versions, costs out of bounds, sloppy base64", () => {
  const salt = "c29tZXNhbHQxMjM0";
  const tag = "nf65EOgLrQMR/uIPnA4rEsF5h7TKyQwu9U1bMCHGi/4";
  assert.ok(parsePasswordHash(`$argon2id$v=19$m=1024,t=2,p=2$${salt}$${tag}`));
  for (const text of [
    "",
    "$",
    "password",
    `$argon2i$v=19$m=1024,t=2,p=2$${salt}$${tag}`,
    `$argon2d$v=19$m=1024,t=2,p=2$${salt}$${tag}`,
    `$argon2id$v=16$m=1024,t=2,p=2$${salt}$${tag}`,
    `$argon2id$m=1024,t=2,p=2$${salt}$${tag}`,
    `$argon2id$v=19$t=2,m=1024,p=2$${salt}$${tag}`,
    `$argon2id$v=19$m=01024,t=2,p=2$${salt}$${tag}`,
    `$argon2id$v=19$m=-1024,t=2,p=2$${salt}$${tag}`,
    `$argon2id$v=19$m=1e3,t=2,p=2$${salt}$${tag}`,
    `$argon2id$v=19$m=1024,t=0,p=2$${salt}$${tag}`,
    `$argon2id$v=19$m=15,t=2,p=2$${salt}$${tag}`,
    `$argon2id$v=19$m=1048577,t=2,p=2$${salt}$${tag}`,
    `$argon2id$v=19$m=1024,t=33,p=2$${salt}$${tag}`,
    `$argon2id$v=19$m=1024,t=2,p=17$${salt}$${tag}`,
    `$argon2id$v=19$m=9999999999,t=9999999999,p=9999999999$${salt}$${tag}`,
    `$argon2id$v=19$m=1024,t=2,p=2$${salt}=$${tag}`,
    `$argon2id$v=19$m=1024,t=2,p=2$c2FsdA$${tag}`,
    `$argon2id$v=19$m=1024,t=2,p=2$${salt}$c2hvcnQ`,
    `$argon2id$v=19$m=1024,t=2,p=2$${salt}$${tag}$`,
    `$argon2id$v=19$m=1024,t=2,p=2$${salt}$${tag}\n`,
    `$argon2id$v=19$m=1024,t=2,p=2$${salt}$${tag.slice(0, -1)}5`, // bits behind the last octet
    `$argon2id$v=19$m=1024,t=2,p=2$${salt}$${"A".repeat(300)}`,
    "$2b$12$abcdefghijklmnopqrstuv",
  ])
    assert.equal(parsePasswordHash(text), undefined, text);
});

test("octet by octet, whatever stands in a hash, reading it ends in a hash within bounds or in none", () => {
  const text = printPasswordHash(hashOfNothing(PASSWORD_COST));
  for (let at = 0; at < text.length; at++)
    for (let code = 0; code < 256; code++) check(text.slice(0, at) + String.fromCharCode(code) + text.slice(at + 1));
  for (let length = 0; length < text.length; length++) check(text.slice(0, length));
  fc.assert(fc.property(fc.string({ unit: "binary", maxLength: 300 }), check));

  function check(changed: string): void {
    const read = parsePasswordHash(changed);
    if (read === undefined) return;
    assert.equal(printPasswordHash(read), changed);
    assert.ok(read.memoryKiB >= 8 * read.lanes && read.memoryKiB <= 1_048_576 && read.passes <= 32 && read.lanes <= 16);
  }
});

test("A04 a flood of passwords computes two at a time, lets 64 wait, and does not even begin with the rest", async () => {
  const hasher = new PasswordHasher();
  const kept = hashOfNothing(CHEAP);
  const flood = Array.from({ length: 2 + WAITING_MAX + 100 }, () => hasher.hash(octets("guess"), CHEAP));
  const hashes = await Promise.all(flood);
  assert.equal(hashes.filter((hash) => hash !== undefined).length, 2 + WAITING_MAX);
  assert.ok(hashes.slice(2 + WAITING_MAX).every((hash) => hash === undefined));
  assert.equal(await hasher.verify(kept, octets("guess")), false);
  assert.ok(await hasher.hash(octets("later"), CHEAP), "there is room again");
});

test("a computation that fails frees its place", async () => {
  const hasher = new PasswordHasher();
  const impossible = { ...hashOfNothing(CHEAP), memoryKiB: 1 };
  for (let at = 0; at < 5; at++) await assert.rejects(hasher.verify(impossible, octets("x")));
  assert.ok(await hasher.hash(octets("x"), CHEAP));
});
