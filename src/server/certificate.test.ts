import assert from "node:assert/strict";
import { generateKeyPairSync, X509Certificate } from "node:crypto";
import { once } from "node:events";
import { chmod, chown, mkdtemp, readdir, readFile, rm, stat, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import test, { type TestContext } from "node:test";
import { connect, createServer } from "node:tls";
import { loadCertificate, ownCertificate } from "./certificate.ts";

async function temporaryFolder(t: TestContext): Promise<string> {
  const folder = await mkdtemp(join(tmpdir(), "fived-certificate-"));
  t.after(() => rm(folder, { recursive: true, force: true }));
  return folder;
}

test("the first start makes a key and a certificate for the given names, the second finds them", async (t) => {
  const state = join(await temporaryFolder(t), "deep", "state");
  const first = await ownCertificate(state, ["git.example.org", "::1", "127.0.0.1", "localhost"]);
  const second = await ownCertificate(state, ["localhost", "git.example.org"]);
  assert.deepEqual(second, first);

  const leaf = new X509Certificate(await readFile(join(state, "host.pem")));
  assert.equal(leaf.subject, "CN=git.example.org");
  assert.equal(leaf.issuer, leaf.subject);
  assert.equal(leaf.publicKey.asymmetricKeyType, "ed25519");
  assert.equal(leaf.ca, false);
  assert.ok(leaf.verify(leaf.publicKey));
  for (const name of ["git.example.org", "localhost"]) assert.equal(leaf.checkHost(name), name);
  for (const address of ["::1", "127.0.0.1"]) assert.ok(leaf.checkIP(address));
  const years = (leaf.validToDate.getTime() - leaf.validFromDate.getTime()) / (365 * 24 * 3600e3);
  assert.ok(years > 9.9 && years < 10.1);
  assert.equal((await stat(join(state, "host.key"))).mode & 0o777, 0o600);
  assert.equal((await stat(state)).mode & 0o777, 0o700);
  assert.match(first.fingerprint, /^SHA256:[A-Za-z0-9+/]{43}$/);
  assert.deepEqual((await readdir(state)).sort(), ["host.key", "host.pem"]);
});

test("a new name or a spoilt certificate changes the certificate, never the key that clients have pinned", async (t) => {
  const state = await temporaryFolder(t);
  const first = await ownCertificate(state, ["a.example"]);
  const renamed = await ownCertificate(state, ["a.example", "b.example"]);
  assert.equal(renamed.fingerprint, first.fingerprint);
  assert.notEqual(renamed.group, first.group);
  await writeFile(join(state, "host.pem"), "spoilt");
  const mended = await ownCertificate(state, ["a.example"]);
  assert.equal(mended.fingerprint, first.fingerprint);

  const other = await ownCertificate(await temporaryFolder(t), ["a.example"]);
  await writeFile(join(state, "host.pem"), Buffer.from(String(other.context.cert)));
  assert.equal((await ownCertificate(state, ["a.example"])).fingerprint, first.fingerprint);
});

test("servers that start at the same moment agree on one key", async (t) => {
  const state = await temporaryFolder(t);
  const certificates = await Promise.all(Array.from({ length: 8 }, () => ownCertificate(state, ["a.example"])));
  assert.equal(new Set(certificates.map(({ fingerprint }) => fingerprint)).size, 1);
  assert.deepEqual((await readdir(state)).sort(), ["host.key", "host.pem"]);
});

test("loading the X.509 library leaves nothing behind in the global Reflect", async (t) => {
  await ownCertificate(await temporaryFolder(t), []);
  assert.ok(!("getMetadata" in Reflect) && !("getOwnMetadata" in Reflect));
});

test("a key that others can read, or that is no key, is refused and left as it is", async (t) => {
  const state = await temporaryFolder(t);
  await ownCertificate(state, ["a.example"]);
  const file = join(state, "host.key");
  const before = await readFile(file);
  await chmod(file, 0o644);
  await assert.rejects(ownCertificate(state, ["a.example"]), {
    code: "STATE_UNUSABLE",
    message: `Cannot use the key ${file}: others may read or change it (mode 0644); run: chmod 0600 ${file}`,
  });
  await chmod(file, 0o600);
  assert.deepEqual(await readFile(file), before);
  await writeFile(file, "");
  await assert.rejects(ownCertificate(state, ["a.example"]), {
    code: "STATE_UNUSABLE",
    message: /it is not a PEM private key$/,
  });
  assert.deepEqual(await readFile(file), Buffer.alloc(0));
});

test("a state folder that others may write to is refused", async (t) => {
  const state = await temporaryFolder(t);
  await chmod(state, 0o777);
  await assert.rejects(ownCertificate(state, []), { code: "STATE_UNUSABLE", message: /chmod 0755/ });
  assert.deepEqual(await readdir(state), []);
  const file = join(state, "file");
  await writeFile(file, "");
  await chmod(state, 0o700);
  await assert.rejects(ownCertificate(file, []), { code: "STATE_UNUSABLE", message: /Cannot use the state folder/ });
});

test("a key of another user is refused", async (t) => {
  if (process.geteuid?.() !== 0) {
    assert.notEqual(process.env["FIVED_TEST_STRICT"], "1", "needs root");
    return t.skip("needs root to give a file away");
  }
  const state = await temporaryFolder(t);
  await ownCertificate(state, ["a.example"]);
  await chown(join(state, "host.key"), 12_345, 12_345);
  await assert.rejects(ownCertificate(state, ["a.example"]), {
    code: "STATE_UNUSABLE",
    message: /it belongs to user 12345, expected a key of user 0$/,
  });
});

test("configured files are loaded, and each way in which they are wrong is named", async (t) => {
  const folder = await temporaryFolder(t);
  const own = await ownCertificate(folder, ["a.example"]);
  const files = { certificate: join(folder, "host.pem"), key: join(folder, "host.key") };
  const loaded = await loadCertificate(files);
  assert.equal(loaded.fingerprint, own.fingerprint);
  assert.equal(loaded.context.ca, undefined);
  assert.ok((await loadCertificate({ ...files, clientCa: files.certificate })).context.ca !== undefined);

  const other = join(folder, "other.key");
  const { privateKey } = generateKeyPairSync("ec", { namedCurve: "P-256" });
  await writeFile(other, privateKey.export({ type: "pkcs8", format: "pem" }), { mode: 0o640 });
  await assert.rejects(loadCertificate({ ...files, key: other }), {
    code: "CONFIGURATION_BAD",
    message: `Cannot use the certificate ${files.certificate}: it does not belong to the key ${other}`,
  });
  await chmod(other, 0o644);
  await assert.rejects(loadCertificate({ ...files, key: other }), { message: /chmod 0640/ });
  const locked = join(folder, "locked.key");
  const encrypted = privateKey.export({ type: "pkcs8", format: "pem", cipher: "aes-256-cbc", passphrase: "x" });
  await writeFile(locked, encrypted, { mode: 0o600 });
  await assert.rejects(loadCertificate({ ...files, key: locked }), { message: /it is encrypted/ });
  await assert.rejects(loadCertificate({ ...files, key: join(folder, "none") }), { message: /there is no such file$/ });
  await assert.rejects(loadCertificate({ ...files, certificate: other }), { message: /it is not a PEM certificate$/ });
  await assert.rejects(loadCertificate({ ...files, clientCa: locked }), { message: /it is not a PEM certificate$/ });
  await assert.rejects(loadCertificate({ ...files, certificate: folder }), { code: "CONFIGURATION_BAD" });
});

test("TLS with the certificate is 1.3 and AES-128-GCM, and a client that trusts it verifies the name", async (t) => {
  const { context } = await ownCertificate(await temporaryFolder(t), ["a.example"]);
  const server = createServer(context, (socket) => socket.end());
  server.on("tlsClientError", () => {});
  t.after(() => server.close());
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  const address = server.address();
  assert.ok(typeof address === "object" && address !== null);
  const { port } = address;
  const client = connect({ host: "127.0.0.1", port, servername: "a.example", ca: [String(context.cert)] });
  await once(client, "secureConnect");
  assert.equal(client.authorized, true);
  assert.equal(client.getProtocol(), "TLSv1.3");
  assert.equal(client.getCipher().name, "TLS_AES_128_GCM_SHA256");
  client.destroy();

  const old = connect({ host: "127.0.0.1", port, maxVersion: "TLSv1.2", rejectUnauthorized: false });
  await assert.rejects(once(old, "secureConnect"));
});
