import assert from "node:assert/strict";
import { generateKeyPairSync } from "node:crypto";
import fs from "node:fs/promises";
import test from "node:test";
import fc from "fast-check";
import { seed } from "../../../test/sim/seed.ts";
import { Lab } from "../../../test/support/lab.ts";
import { mangled } from "../../../test/support/mangled.ts";
import { needs } from "../../../test/support/needs.ts";
import { certify, KINDS, makeKey, SecurityKey } from "../../../test/support/ssh-keys.ts";
import { authorityFingerprint, type Certificate, checkCertificate, parseCertificate } from "./certificate.ts";
import { joined, string, u32 } from "./fields.ts";
import { readPrivateKey } from "./private-key.ts";
import { keyFingerprint, publicKeyOf } from "./public-key.ts";
import { signOctets } from "./signature.ts";

fc.configureGlobal({ seed, numRuns: 300 });

const skip = needs("ssh-keygen");
const now = Date.now();
const ALICE = { at: now, principals: ["alice"] };

function read(blob: Uint8Array): Certificate {
  const certificate = parseCertificate(blob);
  assert.ok(certificate);
  return certificate;
}

/** A certificate of our own making, for what ssh-keygen does not make. */
function made(parts: {
  readonly kind?: number;
  readonly critical?: readonly Uint8Array[];
  readonly principals?: readonly string[];
  readonly validBefore?: Uint8Array;
}): Uint8Array {
  const authority = generateKeyPairSync("ed25519").privateKey;
  const subject = publicKeyOf(generateKeyPairSync("ed25519").publicKey);
  assert.ok(subject);
  const type = "ssh-ed25519";
  const fields = [
    ...[string(`${type}-cert-v01@openssh.com`), string("nonce"), subject.blob.subarray(string(type).length)],
    ...[u32(0), u32(7), u32(parts.kind ?? 1), string("id\x1b[31m")],
    string(joined((parts.principals ?? ["alice"]).map(string))),
    ...[u32(0), u32(0), parts.validBefore ?? Buffer.alloc(8, 0xff)],
    string(joined(parts.critical ?? [])),
    ...[string(""), string(""), string(publicKeyOf(authority)?.blob ?? "")],
  ];
  const signature = signOctets(authority, joined(fields));
  assert.ok(signature);
  return joined([...fields, string(signature)]);
}

for (const [type, kind] of Object.entries(KINDS))
  test(`a certificate that ssh-keygen made for and with ${type} says who it is for`, { skip }, async (t) => {
    const lab = await Lab.open(t);
    const authority = await makeKey(lab, "ca", kind);
    const key = await makeKey(lab, "key", kind);
    const blob = await certify(lab, authority, key, "-n", "alice,ops", "-z", "42", "-V", "-1h:+1h");
    const certificate = read(blob);
    assert.deepEqual(certificate.key.blob, key.publicKey.blob);
    assert.equal(authorityFingerprint(certificate), keyFingerprint(authority.publicKey.blob));
    assert.deepEqual(certificate.principals, ["alice", "ops"]);
    assert.equal(certificate.serial, 42n);
    assert.equal(certificate.keyId, "test");
    assert.equal(checkCertificate(certificate, ALICE), undefined);
    assert.equal(checkCertificate(certificate, { ...ALICE, principals: ["bob", "ops"] }), undefined);
    assert.match(checkCertificate(certificate, { ...ALICE, principals: ["bob"] }) ?? "", /other names/);
    assert.match(checkCertificate(certificate, { ...ALICE, at: now - 7_200_000 }) ?? "", /not valid yet/);
    assert.match(checkCertificate(certificate, { ...ALICE, at: now + 7_200_000 }) ?? "", /expired/);
    for (const octets of mangled(blob, type === "ssh-ed25519" ? undefined : [0x80]))
      assert.equal(parseCertificate(octets), undefined, "no octet of it can be changed");
  });

test("what ssh-keygen can demand in a certificate is understood, or makes it count for nothing", {
  skip,
}, async (t) => {
  const lab = await Lab.open(t);
  const authority = await makeKey(lab, "ca");
  const key = await makeKey(lab, "key");
  const made = async (...args: readonly string[]) => read(await certify(lab, authority, key, "-n", "alice", ...args));
  const from = await made("-O", "source-address=192.0.2.0/24,2001:db8::/32");
  assert.equal(from.sourceAddress, "192.0.2.0/24,2001:db8::/32");
  assert.equal(checkCertificate(from, ALICE), undefined);
  assert.equal((await made("-O", "verify-required")).verifyRequired, true);
  const forced = await made("-O", "force-command=/bin/true");
  assert.match(checkCertificate(forced, ALICE) ?? "", /demands force-command/);
  const unknown = await made("-O", "critical:new@example.org=x");
  assert.match(checkCertificate(unknown, ALICE) ?? "", /demands new@example.org/);
  const extended = await made("-O", "extension:login@example.org=x");
  assert.equal(checkCertificate(extended, ALICE), undefined, "extensions are passed over");
});

test("a certificate of a host, of nobody, or of an authority that did not sign it stands for nobody", {
  skip,
}, async (t) => {
  const lab = await Lab.open(t);
  const authority = await makeKey(lab, "ca");
  const key = await makeKey(lab, "key");
  const host = read(await certify(lab, authority, key, "-h", "-n", "alice"));
  assert.match(checkCertificate(host, ALICE) ?? "", /no user's/);
  const nobody = read(await certify(lab, authority, key));
  assert.match(checkCertificate(nobody, ALICE) ?? "", /other names/);
  const blob = await certify(lab, authority, key, "-n", "alice");
  const other = await makeKey(lab, "other");
  const secret = readPrivateKey(await fs.readFile(other.file));
  assert.ok(secret.type === "key");
  const signed = blob.subarray(0, blob.length - 4 - 83);
  const forged = signOctets(secret.key, signed);
  assert.ok(forged);
  assert.ok(blob.length === signed.length + string(forged).length, "only the signature is replaced");
  assert.equal(parseCertificate(joined([signed, string(forged)])), undefined);
});

test("certificates that ssh-keygen does not make are judged by what they say", () => {
  assert.equal(checkCertificate(read(made({})), ALICE), undefined);
  assert.equal(read(made({})).keyId, "id?[31m", "what goes to the log has no controls");
  assert.match(checkCertificate(read(made({ kind: 3 })), ALICE) ?? "", /no user's/);
  assert.match(checkCertificate(read(made({ validBefore: Buffer.alloc(8) })), ALICE) ?? "", /expired/);
  const twice = [
    string("source-address"),
    string(string("192.0.2.1")),
    string("source-address"),
    string(string("::/0")),
  ];
  assert.equal(parseCertificate(made({ critical: twice })), undefined, "which of two would count?");
  const bare = [string("source-address"), string("")];
  assert.equal(parseCertificate(made({ critical: bare })), undefined);
  const many = Array.from({ length: 257 }, (_, index) => `u${index}`);
  assert.equal(parseCertificate(made({ principals: many })), undefined);
  assert.ok(parseCertificate(made({ principals: many.slice(1) })));
  assert.equal(parseCertificate(made({ principals: ["alice", "b b"] })), undefined);
});

test("whatever octets come, a certificate is read or not, and nothing is thrown", () => {
  fc.assert(fc.property(fc.uint8Array({ maxLength: 2_000 }), (octets) => parseCertificate(octets) === undefined));
  const key = new SecurityKey("ed25519").publicKey.blob;
  fc.assert(
    fc.property(fc.array(fc.uint8Array({ maxLength: 100 }), { maxLength: 14 }), (fields) => {
      for (const type of ["ssh-ed25519", "sk-ssh-ed25519", "ssh-rsa"])
        parseCertificate(joined([string(`${type}-cert-v01@openssh.com`), string("n"), ...fields.map(string), key]));
    }),
  );
});
