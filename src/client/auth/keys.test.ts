import assert from "node:assert/strict";
import { createPrivateKey } from "node:crypto";
import { once } from "node:events";
import fs from "node:fs/promises";
import { createServer } from "node:net";
import path from "node:path";
import test, { type TestContext } from "node:test";
import { Lab } from "../../../test/support/lab.ts";
import { needs } from "../../../test/support/needs.ts";
import { certify, keygen, makeKey, SecurityKey } from "../../../test/support/ssh-keys.ts";
import vectors from "../../../test/vectors/proofs.json" with { type: "json" };
import {
  parsePublicKeyLine,
  parseSignature,
  pubkeyMessage,
  signOctets,
  sshString,
  sshsigOctets,
  sshU32,
  verifySignature,
} from "../../identity/index.ts";
import { authWords, type SshKey, type SshKeysOptions, signerOf, sshKeys } from "./keys.ts";

const skip = needs("ssh-keygen", "ssh-agent", "ssh-add");
const octets = Buffer.from("what is signed");
const claim = { binding: new Uint8Array(32).fill(7), host: "git.example.org", user: "alice" };

async function setUp(t: TestContext) {
  const lab = await Lab.open(t);
  const folder = await lab.makeFolder(".ssh");
  const agent = lab.path("agent");
  const logged: string[] = [];
  const options: SshKeysOptions = { folder, agent, log: (line) => void logged.push(line) };
  await lab.start(["ssh-agent", "-D", "-a", agent]).hears(/SSH_AUTH_SOCK/);
  const add = async (file: string) => {
    const { status, stderr } = await lab.run(["ssh-add", "-q", file], { env: { SSH_AUTH_SOCK: agent } });
    assert.equal(status, 0, stderr);
  };
  return { lab, folder, options, logged, add };
}

/** Each signer must sign what it says it does. */
async function comments(all: readonly SshKey[]): Promise<string[]> {
  for (const { key, sign, comment } of all) {
    const signature = parseSignature(await sign(octets));
    assert.ok(signature && verifySignature(key, octets, signature), comment);
  }
  return all.map(({ comment, certificate }) => `${path.basename(comment)}${certificate ? " certificate" : ""}`);
}

async function first(options: SshKeysOptions): Promise<SshKey> {
  const [signer] = await sshKeys(options);
  assert.ok(signer);
  return signer;
}

test("keys come in ssh's order: those of the agent, then the folder's, best first", { skip }, async (t) => {
  const { lab, options, add, logged } = await setUp(t);
  for (const name of [".ssh/id_rsa", ".ssh/id_ed25519", ".ssh/other"]) await makeKey(lab, name);
  await add((await makeKey(lab, "in-agent")).file);
  assert.deepEqual(await comments(await sshKeys(options)), ["in-agent", "id_ed25519", "id_rsa"]);
  assert.deepEqual(await comments(await sshKeys({ ...options, identitiesOnly: true })), ["id_ed25519", "id_rsa"]);
  assert.deepEqual(await comments(await sshKeys({ ...options, agent: undefined })), ["id_ed25519", "id_rsa"]);
  assert.deepEqual(logged, [], "that a file of the folder is not there is not worth a line");
});

test("files that are named come first, and the folder is left alone; IdentitiesOnly leaves the agent's others out", {
  skip,
}, async (t) => {
  const { lab, options, add } = await setUp(t);
  await makeKey(lab, ".ssh/id_ed25519");
  await add((await makeKey(lab, "in-agent")).file);
  const named = await makeKey(lab, "named");
  const second = await makeKey(lab, "second");
  const identityFiles = [named.file, second.file];
  assert.deepEqual(await comments(await sshKeys({ ...options, identityFiles })), ["named", "second", "in-agent"]);
  const only = { ...options, identityFiles, identitiesOnly: true };
  assert.deepEqual(await comments(await sshKeys(only)), ["named", "second"]);
});

test("a key that the agent has is used through it: its file may be locked, or gone, or be the public half", {
  skip,
}, async (t) => {
  const { lab, options, add } = await setUp(t);
  const { file } = await makeKey(lab, "key");
  await add(file);
  const only = { ...options, identitiesOnly: true };
  await keygen(lab, "-q", "-p", "-f", file, "-N", "secret", "-P", "", "-a", "1");
  assert.deepEqual(await comments(await sshKeys({ ...only, identityFiles: [file] })), ["key"]);
  await fs.rename(`${file}.pub`, lab.path("elsewhere.pub"));
  assert.deepEqual(
    await comments(await sshKeys({ ...only, identityFiles: [file] })),
    ["key"],
    "no public half beside it",
  );
  assert.deepEqual(await comments(await sshKeys({ ...only, identityFiles: [lab.path("elsewhere.pub")] })), [
    "elsewhere.pub",
  ]);
  await fs.rm(file);
  await fs.rename(lab.path("elsewhere.pub"), `${file}.pub`);
  assert.deepEqual(await comments(await sshKeys({ ...only, identityFiles: [file] })), ["key"], "no private half");
  const both = await sshKeys({ ...options, identityFiles: [file, file] });
  assert.deepEqual(await comments(both), ["key"], "once, and not again as the agent's");
});

test("a certificate beside a key goes first, and so does one that the agent has", { skip }, async (t) => {
  const { lab, options, add, logged } = await setUp(t);
  const authority = await makeKey(lab, "ca");
  const key = await makeKey(lab, ".ssh/id_ecdsa", ["-t", "ecdsa"]);
  const blob = await certify(lab, authority, key, "-n", "alice");
  const found = await sshKeys({ ...options, agent: undefined });
  assert.deepEqual(await comments(found), ["id_ecdsa certificate", "id_ecdsa"]);
  assert.deepEqual(found[0]?.certificate?.blob, new Uint8Array(blob));
  await add(key.file);
  assert.deepEqual((await comments(await sshKeys(options))).sort(), ["id_ecdsa", "id_ecdsa certificate"]);
  assert.deepEqual(await comments(await sshKeys({ ...options, identitiesOnly: true })), [
    "id_ecdsa certificate",
    "id_ecdsa",
  ]);
  // One that counts for nothing today would only cost an attempt.
  await certify(lab, authority, key, "-n", "alice", "-V", "-2h:-1h");
  assert.deepEqual(await comments(await sshKeys({ ...options, agent: undefined })), ["id_ecdsa"]);
  assert.match(logged.at(-1) ?? "", /id_ecdsa-cert\.pub is passed over/);
  const other = await makeKey(lab, "other");
  await certify(lab, authority, other, "-n", "alice");
  await fs.copyFile(lab.path("other-cert.pub"), lab.path(".ssh/id_ecdsa-cert.pub"));
  assert.deepEqual(await comments(await sshKeys({ ...options, agent: undefined })), ["id_ecdsa"], "another key's");
});

test("a passphrase is asked for when the key is used, three times at most, and is wiped", { skip }, async (t) => {
  const { lab, options } = await setUp(t);
  const { file, publicKey } = await makeKey(lab, ".ssh/id_ed25519", ["-t", "ed25519", "-a", "1"], "secret");
  const given: Uint8Array[] = [];
  const answering = (...answers: readonly string[]) => ({
    ...options,
    passphrase: async (asked: string) => {
      assert.equal(asked, file);
      const answer = answers[given.length];
      if (answer === undefined) return undefined;
      given.push(Buffer.from(answer));
      return given.at(-1);
    },
  });
  const signer = await first(answering("wrong", "secret"));
  assert.deepEqual(signer.key.blob, publicKey.blob);
  assert.equal(given.length, 0, "nothing is asked before it is used");
  for (let times = 0; times < 2; times++) {
    const signature = parseSignature(await signer.sign(octets));
    assert.ok(signature && verifySignature(publicKey, octets, signature));
  }
  assert.equal(given.length, 2, "not again");
  for (const each of given) assert.deepEqual([...new Set(each)], [0], "wiped");
  given.length = 0;
  const hopeless = await first(answering("a", "b", "c", "secret"));
  await assert.rejects(hopeless.sign(octets), { code: "KEY_UNUSABLE", message: /wrong 3 times/ });
  const silent = await first(options);
  await assert.rejects(silent.sign(octets), { code: "KEY_UNUSABLE", message: /encrypted; add it.*ssh-add/ });
});

test("an old form without a public half asks at once where it was named, and is passed over where it was not", {
  skip,
}, async (t) => {
  const { lab, options, logged } = await setUp(t);
  const { file } = await makeKey(lab, ".ssh/id_rsa", ["-t", "rsa", "-b", "2048", "-m", "PEM"], "secret");
  await fs.rm(`${file}.pub`);
  const asking = { ...options, passphrase: async () => Buffer.from("secret") };
  assert.deepEqual(await comments(await sshKeys({ ...asking, identityFiles: [file] })), ["id_rsa"]);
  assert.deepEqual(await sshKeys(asking), []);
  assert.match(logged.at(-1) ?? "", /id_rsa: it is encrypted/);
});

test("a file that was named and cannot be used says why; others are passed over", { skip }, async (t) => {
  const { lab, options, logged } = await setUp(t);
  const { file } = await makeKey(lab, ".ssh/id_ed25519");
  const why = async (name: string, message: RegExp) =>
    await assert.rejects(sshKeys({ ...options, identityFiles: [name] }), { code: "KEY_UNUSABLE", message });
  await why(lab.path("nothing"), /nothing: .*ENOENT/);
  await why(lab.folder, /EISDIR|not a regular|EINVAL/);
  await why(await lab.write("rubbish", "rubbish"), /may read it/);
  await fs.chmod(lab.path("rubbish"), 0o600);
  await why(lab.path("rubbish"), /no private key/);
  await fs.chmod(file, 0o640);
  await why(file, /others may read it.*chmod 600/);
  assert.deepEqual(await sshKeys(options), []);
  assert.match(logged.at(-1) ?? "", /others may read it/);
  await fs.chmod(file, 0o600);
  await why(`${file}.pub`, /public key, and no ssh-agent/);
  assert.equal((await lab.run(["mkfifo", "-m", "600", lab.path("fifo")])).status, 0);
  await why(lab.path("fifo"), /fifo/);
  await fs.writeFile(lab.path("long"), "x".repeat(100_000), { mode: 0o600 });
  await why(lab.path("long"), /too large/);
});

test("an agent that is not there is passed over, unless nobody waits any more", { skip }, async (t) => {
  const { lab, options, logged } = await setUp(t);
  await makeKey(lab, ".ssh/id_ed25519");
  const without = { ...options, agent: lab.path("nothing") };
  assert.deepEqual(await comments(await sshKeys(without)), ["id_ed25519"]);
  assert.match(logged.at(-1) ?? "", /Cannot use the ssh-agent/);
  await assert.rejects(sshKeys({ ...options, signal: AbortSignal.abort() }), { code: "ABORTED" });
});

test("a signature that no server could accept is not sent: of another key, or with SHA-1", async (t) => {
  const lab = await Lab.open(t);
  const key = new SecurityKey("ed25519").publicKey;
  const wrong = new SecurityKey("ed25519").sign(octets);
  const server = createServer((peer) => {
    peer.on("error", () => {});
    peer.once("data", (request) => {
      const list = [Uint8Array.of(12), sshU32(1), sshString(key.blob), sshString("token")];
      const content = Buffer.concat(request[4] === 11 ? list : [Uint8Array.of(14), sshString(wrong)]);
      peer.end(Buffer.concat([sshU32(content.length), content]));
    });
  }).listen(lab.path("agent"));
  await once(server, "listening");
  t.after(() => server.close());
  const signer = await first({ folder: lab.folder, agent: lab.path("agent") });
  await assert.rejects(signer.sign(octets), { code: "KEY_UNUSABLE", message: /cannot be verified/ });
});

test("the words behind AUTH are those of the vectors", async () => {
  for (const vector of vectors.pubkey) {
    const der = Buffer.from(`302e020100300506032b657004220420${vector.privateKeySeed}`, "hex");
    const secret = createPrivateKey({ key: der, format: "der", type: "pkcs8" });
    const { key } = parsePublicKeyLine(vector.publicKey) ?? {};
    assert.ok(key);
    const sign = async (signed: Uint8Array) => signOctets(secret, signed) ?? octets;
    const found: SshKey = { key, certificate: undefined, comment: "", sign };
    const named = { binding: Buffer.from(vector.cb, "hex"), host: vector.host, user: vector.user };
    assert.equal(["AUTH", "pubkey", ...(await authWords(found, named))].join(" "), vector.line);
    const signer = signerOf(found);
    assert.equal(`AUTH pubkey ${await signer.authWords(named)}`, vector.line);
    assert.equal(signer.fingerprint, vector.line.split(" ")[3]);
    assert.equal(signer.answer?.("certificate 1/1"), undefined);
  }
});

test("a certificate follows in lines, and the last word says how many", { skip }, async (t) => {
  const { lab, options } = await setUp(t);
  const authority = await makeKey(lab, "ca", ["-t", "rsa", "-b", "4096"]);
  const key = await makeKey(lab, ".ssh/id_rsa", ["-t", "rsa", "-b", "4096"]);
  const blob = await certify(lab, authority, key, "-n", "alice");
  const signer = await first(options);
  const words = await authWords(signer, claim);
  const lines = Number(words[3]?.replace("cert:", ""));
  const { answer, fingerprint } = signerOf(signer);
  assert.ok(lines > 1 && answer);
  const answers = Array.from({ length: lines }, (_, at) => answer(`certificate ${at + 1}/${lines}`) ?? "");
  assert.ok(answers.every(({ length }) => length > 0 && length <= 1_024));
  assert.equal(answers.join(""), Buffer.from(blob).toString("base64url"));
  for (const other of [
    `certificate 0/${lines}`,
    `certificate ${lines + 1}/${lines}`,
    "certificate 1/1",
    "Enter Password:",
  ])
    assert.equal(answer(other), undefined, other);
  assert.ok(["AUTH", "pubkey", ...words].join(" ").length <= 1_024);
  assert.notEqual(fingerprint, words[1], "apart from the bare key");
  const signature = parseSignature(Buffer.from(words[2] ?? "", "base64url"));
  assert.ok(signature && verifySignature(key.publicKey, sshsigOctets(pubkeyMessage(claim) ?? octets), signature));
  await assert.rejects(authWords(signer, { ...claim, user: "al ice" }), /Invariant/);
});
