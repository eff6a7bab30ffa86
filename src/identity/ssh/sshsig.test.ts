import assert from "node:assert/strict";
import { createPrivateKey } from "node:crypto";
import fs from "node:fs/promises";
import test from "node:test";
import { Lab } from "../../../test/support/lab.ts";
import { needs } from "../../../test/support/needs.ts";
import { KINDS, makeKey } from "../../../test/support/ssh-keys.ts";
import vectors from "../../../test/vectors/proofs.json" with { type: "json" };
import { FieldReader, joined, string, u32 } from "./fields.ts";
import { readPrivateKey } from "./private-key.ts";
import { keyFingerprint, parsePublicKey, parsePublicKeyLine } from "./public-key.ts";
import { parseSignature, signOctets, verifySignature } from "./signature.ts";
import { pubkeyMessage, SSHSIG_NAMESPACE, sshsigOctets } from "./sshsig.ts";

const skip = needs("ssh-keygen");
const claim = { binding: new Uint8Array(32).fill(7), host: "git.example.org", user: "alice" };

/** OpenSSH's armour around a signature (PROTOCOL.sshsig). */
function armour(key: Uint8Array, signature: Uint8Array): string {
  const fields = [string(key), string(SSHSIG_NAMESPACE), string(""), string("sha512"), string(signature)];
  const blob = joined([Buffer.from("SSHSIG"), u32(1), ...fields]);
  const lines =
    Buffer.from(blob)
      .toString("base64")
      .match(/.{1,70}/g) ?? [];
  return ["-----BEGIN SSH SIGNATURE-----", ...lines, "-----END SSH SIGNATURE-----", ""].join("\n");
}

function unarmoured(text: string) {
  const reader = new FieldReader(Buffer.from(text.replace(/^-----.*$/gm, ""), "base64"));
  assert.equal(Buffer.from(reader.take(6)).toString(), "SSHSIG");
  assert.equal(reader.u32(), 1);
  const key = parsePublicKey(reader.string());
  assert.equal(reader.name(), SSHSIG_NAMESPACE);
  reader.string();
  assert.equal(reader.name(), "sha512");
  const signature = parseSignature(reader.string());
  assert.ok(reader.done && key && signature);
  return { key, signature };
}

for (const vector of vectors.pubkey)
  test(`the message, what is signed and the line are those of the vector: ${vector.name}`, () => {
    const hex = (octets: Uint8Array | undefined) => Buffer.from(octets ?? []).toString("hex");
    const message = pubkeyMessage({ binding: Buffer.from(vector.cb, "hex"), host: vector.host, user: vector.user });
    assert.ok(message);
    assert.equal(hex(message), vector.message);
    assert.equal(hex(sshsigOctets(message)), vector.signed);
    const seed = Buffer.from(`302e020100300506032b657004220420${vector.privateKeySeed}`, "hex");
    const made = signOctets(createPrivateKey({ key: seed, format: "der", type: "pkcs8" }), sshsigOctets(message));
    const { key } = parsePublicKeyLine(vector.publicKey) ?? {};
    assert.ok(made && key);
    const words = [keyFingerprint(key.blob), Buffer.from(made).toString("base64url")];
    assert.equal(["AUTH", "pubkey", vector.user, ...words].join(" "), vector.line);
  });

for (const [type, kind] of Object.entries(KINDS))
  test(`ssh-keygen verifies what we sign, and we what it signs: ${type}`, { skip }, async (t) => {
    const lab = await Lab.open(t);
    const { file, line, publicKey } = await makeKey(lab, "key", kind);
    const message = pubkeyMessage(claim);
    assert.ok(message);
    const read = readPrivateKey(await fs.readFile(file));
    assert.ok(read.type === "key");
    const made = signOctets(read.key, sshsigOctets(message));
    assert.ok(made);
    await lab.write("signature", armour(publicKey.blob, made));
    await lab.write("allowed", `alice ${line}\n`);
    const verify = [
      "ssh-keygen",
      "-Y",
      "verify",
      "-f",
      "allowed",
      "-I",
      "alice",
      "-n",
      "fived-auth",
      "-s",
      "signature",
    ];
    const verified = await lab.run(verify, { input: message });
    assert.equal(verified.status, 0, verified.stderr);
    const other = await lab.run(verify.with(8, "file"), { input: message });
    assert.notEqual(other.status, 0, "another namespace is another signature");

    const signed = await lab.run(["ssh-keygen", "-Y", "sign", "-f", file, "-n", "fived-auth"], { input: message });
    assert.equal(signed.status, 0, signed.stderr);
    const theirs = unarmoured(signed.stdout.toString());
    assert.deepEqual(theirs.key.blob, publicKey.blob);
    assert.equal(verifySignature(theirs.key, sshsigOctets(message), theirs.signature), true);
    assert.equal(verifySignature(theirs.key, sshsigOctets(message, "file"), theirs.signature), false);
  });

test("A13 a signature for one connection, host or user is none for another", () => {
  const messages = [
    claim,
    { ...claim, binding: new Uint8Array(32).fill(8) },
    { ...claim, host: "" },
    { ...claim, user: "alicf" },
    // Lengths are signed too: nothing can move from one field to the next.
    { ...claim, host: "git.example.orga", user: "lice" },
  ].map((each) => Buffer.from(pubkeyMessage(each) ?? []).toString("hex"));
  assert.equal(new Set(messages).size, messages.length);
});

test("claims that have no right form have no message", () => {
  for (const wrong of [
    { binding: new Uint8Array(31) },
    { binding: new Uint8Array(0) },
    { host: "h".repeat(256) },
    { user: "u".repeat(256) },
    { user: "al ice" },
    { user: "al\0ice" },
    { host: "mün.example" },
  ])
    assert.equal(pubkeyMessage({ ...claim, ...wrong }), undefined);
});
