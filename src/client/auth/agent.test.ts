import assert from "node:assert/strict";
import { once } from "node:events";
import fs from "node:fs/promises";
import { createServer, type Socket } from "node:net";
import test, { type TestContext } from "node:test";
import { Lab } from "../../../test/support/lab.ts";
import { needs } from "../../../test/support/needs.ts";
import { certify, KINDS, makeKey } from "../../../test/support/ssh-keys.ts";
import { parseSignature, sshString, sshU32, verifySignature } from "../../identity/index.ts";
import { ANSWER_BYTES_MAX, agentKeys, agentSign, agentSocket } from "./agent.ts";

const skip = needs("ssh-keygen", "ssh-agent", "ssh-add");
const octets = Buffer.from("what is signed");

/** An agent of OpenSSH's that ends with the test. */
async function startAgent(lab: Lab): Promise<string> {
  const socket = lab.path("agent");
  const agent = lab.start(["ssh-agent", "-D", "-a", socket]);
  await agent.hears(/SSH_AUTH_SOCK/);
  return socket;
}

/** Something that listens where an agent should, and does as it likes with each connection. */
async function startImpostor(t: TestContext, act: (socket: Socket) => void): Promise<string> {
  const lab = await Lab.open(t);
  const server = createServer((socket) => {
    socket.on("error", () => {});
    t.after(() => socket.destroy());
    socket.once("data", () => act(socket));
  }).listen(lab.path("agent"));
  await once(server, "listening");
  t.after(() => server.close());
  return lab.path("agent");
}

function message(...parts: readonly Uint8Array[]): Buffer {
  const content = Buffer.concat(parts);
  return Buffer.concat([sshU32(content.length), content]);
}

test("an agent lists its keys and certificates, and signs with each", { skip }, async (t) => {
  const lab = await Lab.open(t);
  const socket = await startAgent(lab);
  assert.deepEqual(await agentKeys(socket), []);
  const authority = await makeKey(lab, "ca");
  for (const [name, kind] of Object.entries(KINDS)) {
    const key = await makeKey(lab, name, kind);
    await certify(lab, authority, key, "-n", "alice");
    const added = await lab.run(["ssh-add", "-q", key.file], { env: { SSH_AUTH_SOCK: socket } });
    assert.equal(added.status, 0, added.stderr);
    const keys = await agentKeys(socket);
    const [bare, certified] = keys.slice(-2);
    assert.ok(bare && certified);
    assert.deepEqual(bare.blob, key.publicKey.blob);
    assert.equal(bare.comment, name);
    for (const { blob } of [bare, certified]) {
      const signature = parseSignature(await agentSign(socket, blob, octets));
      assert.ok(signature && verifySignature(key.publicKey, octets, signature), name);
      if (name === "ssh-rsa") assert.equal(signature.algorithm, "rsa-sha2-512");
    }
  }
});

test("an agent that refuses to sign is told from one that is not there", { skip }, async (t) => {
  const lab = await Lab.open(t);
  const socket = await startAgent(lab);
  const { publicKey } = await makeKey(lab, "key");
  await assert.rejects(agentSign(socket, publicKey.blob, octets), { code: "AGENT_FAILED", message: /refused to sign/ });
  await assert.rejects(agentKeys(lab.path("nothing")), { code: "AGENT_FAILED", message: /ENOENT/ });
  await fs.writeFile(lab.path("file"), "");
  await assert.rejects(agentKeys(lab.path("file")), { code: "AGENT_FAILED" });
});

test("answers that are none end the attempt: too long, empty, cut, other than asked for, with a wrong count", async (t) => {
  const key = [sshString("blob"), sshString("comment")];
  const answers: readonly Uint8Array[] = [
    sshU32(ANSWER_BYTES_MAX + 1),
    sshU32(0xffff_ffff),
    sshU32(0),
    Buffer.alloc(2),
    message(Uint8Array.of(5)),
    message(Uint8Array.of(12)),
    message(Uint8Array.of(12), sshU32(2), ...key),
    message(Uint8Array.of(12), sshU32(0xffff_ffff), ...key),
    message(Uint8Array.of(12), sshU32(1), ...key, Buffer.alloc(1)),
    message(Uint8Array.of(14), sshU32(1), ...key),
  ];
  for (const answer of answers) {
    const socket = await startImpostor(t, (peer) => peer.end(answer));
    await assert.rejects(agentKeys(socket), { code: "AGENT_FAILED" }, Buffer.from(answer).toString("hex"));
    await assert.rejects(agentSign(socket, octets, octets), { code: "AGENT_FAILED" });
  }
});

test("an answer is the same however it is cut, and comments show no controls", async (t) => {
  const answer = message(Uint8Array.of(12), sshU32(1), sshString("blob"), sshString("a\x1b[31mb"));
  const socket = await startImpostor(t, (peer) => {
    const say = (at: number): void => {
      if (at < answer.length) peer.write(answer.subarray(at, at + 1), () => setImmediate(say, at + 1));
    };
    say(0);
  });
  const [only] = await agentKeys(socket);
  assert.equal(Buffer.from(only?.blob ?? []).toString(), "blob");
  assert.equal(only?.comment, "a?[31mb");
});

test("an agent that never answers, and one that is not waited for any more", async (t) => {
  const socket = await startImpostor(t, () => {});
  await assert.rejects(agentKeys(socket, { ms: 20 }), { code: "TIMEOUT" });
  await assert.rejects(agentSign(socket, octets, octets, { ms: 20 }), { code: "TIMEOUT" });
  await assert.rejects(agentKeys(socket, { signal: AbortSignal.abort() }), { code: "ABORTED" });
  const abort = new AbortController();
  const waiting = agentSign(socket, octets, octets, { signal: abort.signal });
  setImmediate(() => abort.abort());
  await assert.rejects(waiting, { code: "ABORTED" });
});

test("the agent is where ssh finds it", () => {
  assert.equal(agentSocket({ SSH_AUTH_SOCK: "/run/agent" }), "/run/agent");
  assert.equal(agentSocket({ SSH_AUTH_SOCK: "" }, "linux"), undefined);
  assert.equal(agentSocket({}, "linux"), undefined);
  assert.equal(agentSocket({}, "win32"), "\\\\.\\pipe\\openssh-ssh-agent");
});
