import assert from "node:assert/strict";
import { generateKeyPairSync } from "node:crypto";
import test from "node:test";
import fc from "fast-check";
import { seed } from "../../../test/sim/seed.ts";
import { Lab } from "../../../test/support/lab.ts";
import { mangled } from "../../../test/support/mangled.ts";
import { needs } from "../../../test/support/needs.ts";
import { KINDS, keygen, makeKey, SecurityKey } from "../../../test/support/ssh-keys.ts";
import { joined, mpint, string } from "./fields.ts";
import { keyFingerprint, parsePublicKey, parsePublicKeyLine, publicKeyOf } from "./public-key.ts";

fc.configureGlobal({ seed, numRuns: 300 });

const skip = needs("ssh-keygen");

for (const [type, kind] of Object.entries(KINDS))
  test(`a key of type ${type} is what ssh-keygen says it is`, { skip }, async (t) => {
    const lab = await Lab.open(t);
    const { file, line, publicKey } = await makeKey(lab, "key", kind);
    assert.equal(publicKey.type, type);
    assert.equal(parsePublicKeyLine(`  ${line}\r\n`)?.comment, "key");
    const shown = /SHA256:(\S+)/.exec(await keygen(lab, "-l", "-f", file))?.[1] ?? "";
    assert.equal(keyFingerprint(publicKey.blob), Buffer.from(shown, "base64").toString("base64url"));
    assert.deepEqual(publicKeyOf(publicKey.key)?.blob, publicKey.blob, "there and back");
  });

test("keys of security keys are read", () => {
  for (const kind of ["ed25519", "ecdsa"] as const) {
    const { publicKey } = new SecurityKey(kind, "ssh:fived.example");
    assert.equal(Buffer.from(publicKey.application).toString(), "ssh:fived.example");
    assert.deepEqual(parsePublicKey(publicKey.blob)?.blob, publicKey.blob);
  }
});

test("weak RSA keys are none: too short, too long, even, or with an exponent that signs nothing or costs too much", () => {
  const good = generateKeyPairSync("rsa", { modulusLength: 2048 }).publicKey.export({ format: "jwk" });
  const modulus = Buffer.from(good.n ?? "", "base64url");
  const rsa = (n: Uint8Array, e: Uint8Array) => parsePublicKey(joined([string("ssh-rsa"), mpint(e), mpint(n)]));
  const exponent = Uint8Array.of(1, 0, 1);
  const long = (bytes: number) =>
    Buffer.concat([modulus, modulus, modulus])
      .subarray(0, bytes)
      .fill(1, bytes - 1);
  assert.ok(rsa(modulus, exponent));
  assert.ok(rsa(long(512), exponent));
  assert.equal(rsa(long(128), exponent), undefined, "1,024 bits");
  assert.equal(
    rsa(Buffer.concat([[0x7f], long(255)].map((part) => Buffer.from(part))), exponent),
    undefined,
    "2,047 bits",
  );
  assert.equal(rsa(long(513), exponent), undefined, "4,104 bits");
  assert.equal(
    rsa(
      modulus.map((octet, at) => (at === 255 ? octet & 0xfe : octet)),
      exponent,
    ),
    undefined,
    "even",
  );
  assert.equal(rsa(modulus, Uint8Array.of(1)), undefined, "1");
  assert.equal(rsa(modulus, Uint8Array.of(1, 0, 0)), undefined, "an even exponent");
  assert.equal(rsa(modulus, Buffer.alloc(256, 0xff)), undefined, "a long exponent");
});

test("points that lie on no curve, or are compressed, are no keys", () => {
  const key = publicKeyOf(generateKeyPairSync("ec", { namedCurve: "P-256" }).publicKey);
  assert.ok(key);
  const off = key.blob.map((octet, at, { length }) => (at === length - 1 ? octet ^ 1 : octet));
  assert.equal(parsePublicKey(off), undefined);
  const point = key.blob.subarray(-65);
  const compressed = joined([Uint8Array.of(2), point.subarray(1, 33)]);
  const head = [string("ecdsa-sha2-nistp256"), string("nistp256")];
  assert.ok(parsePublicKey(joined([...head, string(point)])));
  assert.equal(parsePublicKey(joined([...head, string(compressed)])), undefined);
  const misnamed = [string("ecdsa-sha2-nistp256"), string("nistp384")];
  assert.equal(parsePublicKey(joined([...misnamed, string(point)])), undefined);
});

test("kinds of keys that SSH or we do not know are none", () => {
  for (const { publicKey } of [
    generateKeyPairSync("ed448"),
    generateKeyPairSync("ec", { namedCurve: "secp256k1" }),
    generateKeyPairSync("rsa", { modulusLength: 1024 }),
  ])
    assert.equal(publicKeyOf(publicKey), undefined);
  assert.equal(parsePublicKeyLine("ssh-dss AAAAB3NzaC1kc3M="), undefined);
});

test("a line whose type is not that of its key, or whose base64 is not the one right spelling, is no key", () => {
  const key = publicKeyOf(generateKeyPairSync("ed25519").publicKey);
  assert.ok(key);
  const base64 = Buffer.from(key.blob).toString("base64");
  assert.ok(parsePublicKeyLine(`ssh-ed25519 ${base64}`));
  assert.equal(parsePublicKeyLine(`ssh-rsa ${base64}`), undefined);
  assert.equal(parsePublicKeyLine(`ssh-ed25519 ${base64.slice(0, 20)}!${base64.slice(20)}`), undefined);
  assert.equal(parsePublicKeyLine(`ssh-ed25519 ${base64.slice(0, -4)}`), undefined);
  assert.equal(parsePublicKeyLine(base64), undefined);
});

test("whatever octets come, a key is read whole or not at all", () => {
  const keys = [
    publicKeyOf(generateKeyPairSync("ed25519").publicKey),
    publicKeyOf(generateKeyPairSync("ec", { namedCurve: "P-521" }).publicKey),
    publicKeyOf(generateKeyPairSync("rsa", { modulusLength: 2048 }).publicKey),
    new SecurityKey("ecdsa").publicKey,
    new SecurityKey("ed25519").publicKey,
  ];
  for (const key of keys) {
    assert.ok(key);
    for (const octets of mangled(key.blob)) {
      const read = parsePublicKey(octets);
      if (read !== undefined) assert.deepEqual(read.blob, octets, "all of it is the key");
    }
  }
  fc.assert(fc.property(fc.uint8Array({ maxLength: 3_000 }), (octets) => parsePublicKey(octets) === undefined));
  fc.assert(fc.property(fc.string(), (line) => parsePublicKeyLine(line) === undefined));
  fc.assert(
    fc.property(fc.array(fc.uint8Array({ maxLength: 300 })), (fields) => {
      for (const type of ["ssh-ed25519", "ssh-rsa", "ecdsa-sha2-nistp256", "sk-ssh-ed25519@openssh.com"])
        parsePublicKey(joined([string(type), ...fields.map(string)]));
    }),
  );
});
