import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { createSecretKey, generateKeyPairSync, type KeyObject } from "node:crypto";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import test, { type TestContext } from "node:test";
import { FivedError } from "./errors.ts";
import { fingerprintOf, hostKeyOf } from "./host-key.ts";

const KINDS: readonly (readonly [type: string, make: () => KeyObject])[] = [
  ["ssh-ed25519", () => generateKeyPairSync("ed25519").publicKey],
  ["ecdsa-sha2-nistp256", () => generateKeyPairSync("ec", { namedCurve: "P-256" }).publicKey],
  ["ecdsa-sha2-nistp384", () => generateKeyPairSync("ec", { namedCurve: "P-384" }).publicKey],
  ["ecdsa-sha2-nistp521", () => generateKeyPairSync("ec", { namedCurve: "P-521" }).publicKey],
  ["ssh-rsa", () => generateKeyPairSync("rsa", { modulusLength: 2048 }).publicKey],
];

for (const [type, make] of KINDS) {
  test(`ssh-keygen reads a ${type} key and prints the same fingerprint`, (t) => {
    if (lacksSshKeygen(t)) return;
    const key = hostKeyOf(make());
    assert.equal(key.type, type);
    const folder = mkdtempSync(join(tmpdir(), "fived-host-key-"));
    try {
      const file = join(folder, "key.pub");
      writeFileSync(file, `${key.type} ${Buffer.from(key.blob).toString("base64")} test\n`);
      const [, printed] = execFileSync("ssh-keygen", ["-lf", file], { encoding: "utf8" }).split(" ");
      assert.equal(printed, fingerprintOf(key));
    } finally {
      rmSync(folder, { recursive: true });
    }
  });
}

for (const [type, make] of KINDS) {
  if (type === "ssh-ed25519") continue; // ssh-keygen -m PKCS8 cannot import ed25519
  test(`a ${type} key is what ssh-keygen makes of its PKCS8 form`, (t) => {
    if (lacksSshKeygen(t)) return;
    const publicKey = make();
    const folder = mkdtempSync(join(tmpdir(), "fived-host-key-"));
    try {
      const file = join(folder, "key.pem");
      writeFileSync(file, publicKey.export({ type: "spki", format: "pem" }));
      const [kind, blob] = execFileSync("ssh-keygen", ["-i", "-m", "PKCS8", "-f", file], { encoding: "utf8" }).split(
        /\s/,
      );
      assert.equal(kind, type);
      assert.equal(blob, Buffer.from(hostKeyOf(publicKey).blob).toString("base64"));
    } finally {
      rmSync(folder, { recursive: true });
    }
  });
}

test("kinds OpenSSH has no name for are refused with a code and the way out", () => {
  const keys = [
    generateKeyPairSync("ed448").publicKey,
    generateKeyPairSync("ec", { namedCurve: "secp256k1" }).publicKey,
    generateKeyPairSync("rsa-pss", { modulusLength: 2048 }).publicKey,
    createSecretKey(Buffer.alloc(32)),
  ];
  for (const key of keys) {
    assert.throws(
      () => hostKeyOf(key),
      (error) =>
        error instanceof FivedError && error.code === "HOST_KEY_UNSUPPORTED" && /give the server/.test(error.message),
    );
  }
});

function lacksSshKeygen(t: TestContext): boolean {
  const { FIVED_TEST_STRICT } = process.env;
  try {
    execFileSync("ssh-keygen", ["-lf", "/dev/null"], { stdio: "ignore" });
  } catch (error) {
    if (error instanceof Error && "code" in error && error.code === "ENOENT") {
      if (FIVED_TEST_STRICT === "1") throw new Error("ssh-keygen is missing: install openssh-client");
      t.skip("needs ssh-keygen (openssh-client)");
      return true;
    }
  }
  return false;
}
