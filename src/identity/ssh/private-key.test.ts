import assert from "node:assert/strict";
import { generateKeyPairSync } from "node:crypto";
import fs from "node:fs/promises";
import test from "node:test";
import fc from "fast-check";
import { seed } from "../../../test/sim/seed.ts";
import { Lab } from "../../../test/support/lab.ts";
import { mangled } from "../../../test/support/mangled.ts";
import { needs } from "../../../test/support/needs.ts";
import { KINDS, keygen, makeKey, SecurityKey } from "../../../test/support/ssh-keys.ts";
import { bcryptPbkdf } from "./bcrypt-pbkdf.ts";
import { joined, string, u32 } from "./fields.ts";
import { KEY_FILE_BYTES_MAX, readPrivateKey } from "./private-key.ts";
import { parseSignature, signOctets, verifySignature } from "./signature.ts";

fc.configureGlobal({ seed, numRuns: 300 });

const skip = needs("ssh-keygen");
const passphrase = Buffer.from("correct horse");
const octets = Buffer.from("what is signed");

function armoured(blob: Uint8Array): Buffer {
  const lines =
    Buffer.from(blob)
      .toString("base64")
      .match(/.{1,70}/g) ?? [];
  const text = ["-----BEGIN OPENSSH PRIVATE KEY-----", ...lines, "-----END OPENSSH PRIVATE KEY-----", ""];
  return Buffer.from(text.join("\n"));
}

/** The octets inside OpenSSH's armour. */
function unarmoured(file: Uint8Array): Buffer {
  return Buffer.from(
    Buffer.from(file)
      .toString()
      .replace(/^-----.*$/gm, ""),
    "base64",
  );
}

for (const [type, kind] of Object.entries(KINDS))
  for (const form of ["RFC4716", "PKCS8", "PEM"])
    test(`a key file of ssh-keygen is read: ${type} as ${form}, open and encrypted`, { skip }, async (t) => {
      const lab = await Lab.open(t);
      const { file, publicKey } = await makeKey(lab, "key", [...kind, "-a", "1", "-m", form]);
      const open = readPrivateKey(await fs.readFile(file));
      assert.ok(open.type === "key", JSON.stringify(open));
      assert.deepEqual(open.publicKey.blob, publicKey.blob);
      const signature = parseSignature(signOctets(open.key, octets) ?? octets);
      assert.ok(signature && verifySignature(publicKey, octets, signature));

      await keygen(lab, "-q", "-p", "-f", file, "-N", passphrase.toString(), "-P", "", "-a", "1", "-m", form);
      const shut = await fs.readFile(file);
      const asked = readPrivateKey(shut);
      // ssh-keygen writes Ed25519 in its own form whatever it is asked for.
      const isOwn = shut.includes("OPENSSH");
      assert.ok(asked.type === "encrypted");
      assert.deepEqual(
        asked.publicKey?.blob,
        isOwn ? publicKey.blob : undefined,
        "OpenSSH's form shows the public half",
      );
      assert.deepEqual(readPrivateKey(shut, Buffer.from("wrong")), { type: "wrong-passphrase" });
      const unlocked = readPrivateKey(shut, passphrase);
      assert.ok(unlocked.type === "key", JSON.stringify(unlocked));
      assert.deepEqual(unlocked.publicKey.blob, publicKey.blob);
      if (isOwn) assert.equal(unlocked.comment, "key");
    });

test("an encrypted key with the cipher of old opens, one with a cipher that is not known says what to do", {
  skip,
}, async (t) => {
  const lab = await Lab.open(t);
  const { file, publicKey } = await makeKey(lab, "old", ["-t", "ed25519", "-Z", "aes256-cbc", "-a", "2"], "old");
  const opened = readPrivateKey(await fs.readFile(file), Buffer.from("old"));
  assert.ok(opened.type === "key");
  assert.deepEqual(opened.publicKey.blob, publicKey.blob);
  const other = await makeKey(lab, "new", ["-t", "ed25519", "-Z", "chacha20-poly1305@openssh.com"], "new");
  const unusable = readPrivateKey(await fs.readFile(other.file), Buffer.from("new"));
  assert.ok(unusable.type === "unusable");
  assert.match(unusable.why, /chacha20.*ssh-add/);
});

test("the key of a passphrase is the one that OpenBSD's bcrypt_pbkdf makes", () => {
  const made = bcryptPbkdf(Buffer.from("password"), Buffer.from("salt"), 12, 32);
  assert.equal(Buffer.from(made).toString("hex").slice(0, 32), "1ae42c05d487bc02f64921a4ebe4ea93");
});

test("what is no private key says why", { skip }, async (t) => {
  const why = (file: Uint8Array) => {
    const read = readPrivateKey(file);
    assert.ok(read.type === "unusable", JSON.stringify(read));
    return read.why;
  };
  assert.match(why(Buffer.alloc(KEY_FILE_BYTES_MAX + 1)), /too large/);
  assert.match(why(Buffer.from("ssh-ed25519 AAAA")), /no private key/);
  assert.match(why(Buffer.from("-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n")), /damaged/);
  assert.match(why(armoured(Buffer.from("openssh-key-v1\0"))), /damaged/);
  assert.match(why(Buffer.from("-----BEGIN OPENSSH PRIVATE KEY-----\nAAAA")), /damaged/);
  const weak = generateKeyPairSync("rsa", { modulusLength: 1024 }).privateKey;
  assert.match(why(Buffer.from(weak.export({ type: "pkcs8", format: "pem" }))), /too weak/);
  const head = [Buffer.from("openssh-key-v1\0"), string("none"), string("none"), string("")];
  const token = new SecurityKey("ed25519").publicKey.blob;
  assert.match(why(armoured(joined([...head, u32(1), string(token), string("")]))), /security key.*ssh-add/);
  assert.match(why(armoured(joined([...head, u32(2), string(token), string("")]))), /more than one/);
  // A public half that is another key's would make us sign what nobody can verify.
  const lab = await Lab.open(t);
  const one = unarmoured(await fs.readFile((await makeKey(lab, "one")).file));
  const other = await makeKey(lab, "other");
  const swapped = Buffer.concat([one.subarray(0, 43), other.publicKey.blob, one.subarray(43 + 51)]);
  assert.equal(readPrivateKey(armoured(one)).type, "key");
  assert.match(why(armoured(swapped)), /damaged/);
});

test("work that a file asks for is bounded", () => {
  const publicBlob = generateKeyPairSync("ed25519").publicKey.export({ format: "jwk" }).x ?? "";
  const key = joined([string("ssh-ed25519"), string(Buffer.from(publicBlob, "base64url"))]);
  const options = joined([string("salt"), u32(0xffff_ffff)]);
  const fields = [
    string("aes256-ctr"),
    string("bcrypt"),
    string(options),
    u32(1),
    string(key),
    string(Buffer.alloc(64)),
  ];
  const read = readPrivateKey(armoured(joined([Buffer.from("openssh-key-v1\0"), ...fields])), passphrase);
  assert.equal(read.type, "unusable");
});

test("whatever octets come, a key file is read or not, and nothing is thrown", { skip }, async (t) => {
  const lab = await Lab.open(t);
  for (const name of ["ssh-ed25519", "ecdsa-sha2-nistp256", "ssh-rsa"]) {
    const { file, publicKey } = await makeKey(lab, name, KINDS[name]);
    const blob = unarmoured(await fs.readFile(file));
    for (const wrong of mangled(blob, name === "ssh-ed25519" ? undefined : [0x01])) {
      const read = readPrivateKey(armoured(wrong));
      if (read.type === "key") assert.deepEqual(read.publicKey.blob, publicKey.blob);
    }
  }
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 2_000 }), (junk) => {
      for (const file of [junk, armoured(junk), armoured(joined([Buffer.from("openssh-key-v1\0"), junk]))])
        assert.notEqual(readPrivateKey(file, passphrase).type, "key");
    }),
  );
});
