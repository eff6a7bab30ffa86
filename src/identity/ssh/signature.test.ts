import assert from "node:assert/strict";
import { generateKeyPairSync, type KeyObject, sign } from "node:crypto";
import test from "node:test";
import fc from "fast-check";
import { seed } from "../../../test/sim/seed.ts";
import { mangled } from "../../../test/support/mangled.ts";
import { SecurityKey } from "../../../test/support/ssh-keys.ts";
import { joined, mpint, string } from "./fields.ts";
import { nobodysKey } from "./nobody.ts";
import { publicKeyOf } from "./public-key.ts";
import { meets, NO_DEMANDS, parseSignature, type Signature, signOctets, suits, verifySignature } from "./signature.ts";

fc.configureGlobal({ seed, numRuns: 300 });

const octets = Buffer.from("what is signed");
const pairs: Readonly<Record<string, KeyObject>> = {
  "ssh-ed25519": generateKeyPairSync("ed25519").privateKey,
  "ecdsa-sha2-nistp256": generateKeyPairSync("ec", { namedCurve: "P-256" }).privateKey,
  "ecdsa-sha2-nistp384": generateKeyPairSync("ec", { namedCurve: "P-384" }).privateKey,
  "ecdsa-sha2-nistp521": generateKeyPairSync("ec", { namedCurve: "P-521" }).privateKey,
  "rsa-sha2-512": generateKeyPairSync("rsa", { modulusLength: 2048 }).privateKey,
};

function publicKey(secret: KeyObject | undefined) {
  const key = secret && publicKeyOf(secret);
  assert.ok(key);
  return key;
}

function read(blob: Uint8Array | undefined): Signature {
  const signature = blob && parseSignature(blob);
  assert.ok(signature);
  return signature;
}

for (const [algorithm, secret] of Object.entries(pairs))
  test(`what is signed with ${algorithm} verifies, and nothing else does`, () => {
    const key = publicKey(secret);
    const blob = signOctets(secret, octets);
    const signature = read(blob);
    assert.equal(signature.algorithm, algorithm);
    assert.equal(verifySignature(key, octets, signature), true);
    assert.equal(verifySignature(key, Buffer.from("something else"), signature), false);
    for (const spoilt of mangled(blob ?? octets)) {
      const wrong = parseSignature(spoilt);
      if (wrong !== undefined) assert.equal(verifySignature(key, octets, wrong), false);
    }
  });

test("A13 an algorithm that does not suit the key's type is never verified", () => {
  for (const secret of Object.values(pairs)) {
    const signature = read(signOctets(secret, octets));
    for (const other of Object.values(pairs).filter((each) => each !== secret)) {
      assert.equal(suits(publicKey(other), signature), false);
      assert.equal(verifySignature(publicKey(other), octets, signature), false);
    }
  }
});

test("RSA with SHA-256 counts, with SHA-1 it does not, and neither does a signature that is shorter than the modulus", () => {
  const secret = pairs["rsa-sha2-512"];
  assert.ok(secret);
  const made = (algorithm: string, hash: string) => joined([string(algorithm), string(sign(hash, octets, secret))]);
  assert.equal(verifySignature(publicKey(secret), octets, read(made("rsa-sha2-256", "sha256"))), true);
  assert.equal(parseSignature(made("ssh-rsa", "sha1")), undefined);
  assert.equal(verifySignature(publicKey(secret), octets, read(made("rsa-sha2-512", "sha1"))), false);
  // One in 256 begins with a zero, which may not be left out.
  let signature = sign("sha512", octets, secret);
  let signed = octets;
  for (let round = 0; signature[0] !== 0; round++) {
    signed = Buffer.from(`round ${round}`);
    signature = sign("sha512", signed, secret);
  }
  const short = read(joined([string("rsa-sha2-512"), string(signature.subarray(1))]));
  assert.equal(verifySignature(publicKey(secret), signed, short), false);
  assert.equal(
    verifySignature(publicKey(secret), signed, read(joined([string("rsa-sha2-512"), string(signature)]))),
    true,
  );
});

test("numbers of an ECDSA signature have one spelling: no zeros before them, not negative, not zero, not too long", () => {
  const ecdsa = (...numbers: readonly Uint8Array[]) =>
    parseSignature(joined([string("ecdsa-sha2-nistp256"), string(joined(numbers))]));
  const one = mpint(Uint8Array.of(1));
  assert.ok(ecdsa(one, one));
  assert.equal(ecdsa(one), undefined);
  assert.equal(ecdsa(one, one, one), undefined);
  assert.equal(ecdsa(one, string(Uint8Array.of(0, 1))), undefined);
  assert.equal(ecdsa(one, string(Uint8Array.of(0x80))), undefined);
  assert.equal(ecdsa(one, string("")), undefined);
  assert.equal(ecdsa(one, mpint(Buffer.alloc(33, 1))), undefined);
});

for (const kind of ["ed25519", "ecdsa"] as const)
  test(`a security key (${kind}) has to be touched, and to know by whom where that is asked`, () => {
    const token = new SecurityKey(kind);
    const touched = read(token.sign(octets, 1));
    assert.equal(verifySignature(token.publicKey, octets, touched), true);
    assert.equal(verifySignature(token.publicKey, octets, touched, { touch: true, verification: true }), false);
    const untouched = read(token.sign(octets, 0));
    assert.equal(verifySignature(token.publicKey, octets, untouched), false, "touch is asked for by default");
    assert.equal(verifySignature(token.publicKey, octets, untouched, NO_DEMANDS), true);
    const verified = read(token.sign(octets, 5));
    assert.equal(verifySignature(token.publicKey, octets, verified, { touch: true, verification: true }), true);
    // What it asserts is signed with the rest.
    const forged: Signature = { ...untouched, token: { flags: 1, counter: untouched.token?.counter ?? 0 } };
    assert.equal(meets(forged, { touch: true, verification: false }), true);
    assert.equal(verifySignature(token.publicKey, octets, forged), false);
    const recounted: Signature = { ...touched, token: { flags: 1, counter: 99 } };
    assert.equal(verifySignature(token.publicKey, octets, recounted), false);
    const elsewhere = new SecurityKey(kind, "ssh:elsewhere");
    assert.equal(verifySignature(elsewhere.publicKey, octets, touched), false);
    for (const spoilt of mangled(token.sign(octets))) {
      const wrong = parseSignature(spoilt);
      if (wrong !== undefined) assert.equal(verifySignature(token.publicKey, octets, wrong), false);
    }
  });

test("a key that nobody has suits each signature that some key could have made, and verifies none", () => {
  const blobs = [
    ...Object.values(pairs).map((secret) => signOctets(secret, octets)),
    new SecurityKey("ed25519").sign(octets),
    new SecurityKey("ecdsa").sign(octets),
    ...[257, 300, 512].map((bytes) => joined([string("rsa-sha2-512"), string(Buffer.alloc(bytes, 1))])),
  ];
  for (const blob of blobs) {
    const signature = read(blob);
    const key = nobodysKey(signature);
    assert.ok(key);
    assert.equal(suits(key, signature), true);
    assert.equal(verifySignature(key, octets, signature, NO_DEMANDS), false);
    assert.equal(nobodysKey(signature), key, "made once");
  }
  for (const bytes of [0, 255, 513])
    assert.equal(nobodysKey(read(joined([string("rsa-sha2-512"), string(Buffer.alloc(bytes, 1))]))), undefined);
});

test("whatever octets come, a signature is read or not, and nothing is thrown", () => {
  fc.assert(fc.property(fc.uint8Array({ maxLength: 1_100 }), (blob) => parseSignature(blob) === undefined));
  const algorithms = [...Object.keys(pairs), "sk-ssh-ed25519@openssh.com", "sk-ecdsa-sha2-nistp256@openssh.com"];
  fc.assert(
    fc.property(
      fc.constantFrom(...algorithms),
      fc.uint8Array({ maxLength: 600 }),
      fc.uint8Array(),
      (name, inner, rest) => {
        for (const blob of [joined([string(name), string(inner), rest]), joined([string(name), inner])]) {
          const signature = parseSignature(blob);
          const key = signature && nobodysKey(signature);
          if (signature !== undefined && key !== undefined)
            assert.equal(verifySignature(key, octets, signature, NO_DEMANDS), false);
        }
      },
    ),
  );
});
