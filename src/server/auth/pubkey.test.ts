import assert from "node:assert/strict";
import { generateKeyPairSync, type KeyObject } from "node:crypto";
import fs from "node:fs/promises";
import path from "node:path";
import test from "node:test";
import fc from "fast-check";
import { callsIn, WorkCounter } from "../../../test/abuse/counted-work.ts";
import { seed } from "../../../test/sim/seed.ts";
import { Lab } from "../../../test/support/lab.ts";
import { needs } from "../../../test/support/needs.ts";
import { certify, keygen, makeKey, SecurityKey } from "../../../test/support/ssh-keys.ts";
import {
  keyFingerprint,
  type PublicKey,
  pubkeyMessage,
  publicKeyOf,
  readPrivateKey,
  signOctets,
  sshString,
  sshsigOctets,
} from "../../identity/index.ts";
import { keyFiles } from "./key-files.ts";
import type { Exchange, Finding, User, Users } from "./mechanism.ts";
import { PubkeyMechanism, type PubkeyOptions } from "./pubkey.ts";

fc.configureGlobal({ seed, numRuns: 300 });

const skip = needs("ssh-keygen");
const binding = new Uint8Array(32).fill(7);

/** Somebody with a key, and what he says. */
class Client {
  readonly publicKey: PublicKey;
  readonly #sign: (octets: Uint8Array) => Uint8Array | undefined;

  constructor(publicKey: PublicKey | undefined, sign: (octets: Uint8Array) => Uint8Array | undefined) {
    assert.ok(publicKey);
    this.publicKey = publicKey;
    this.#sign = sign;
  }

  static with(secret: KeyObject): Client {
    return new Client(publicKeyOf(secret), (octets) => signOctets(secret, octets));
  }

  static async fromFile(file: string): Promise<Client> {
    const read = readPrivateKey(await fs.readFile(file));
    assert.ok(read.type === "key");
    return Client.with(read.key);
  }

  get line(): string {
    return `${this.publicKey.type} ${Buffer.from(this.publicKey.blob).toString("base64")}`;
  }

  /** What stands behind `AUTH pubkey`. */
  words(
    user: string,
    { host = "", cb = binding }: { readonly host?: string; readonly cb?: Uint8Array } = {},
  ): string[] {
    const message = pubkeyMessage({ binding: cb, host, user });
    const made = message && this.#sign(sshsigOctets(message));
    assert.ok(made);
    return [user, keyFingerprint(this.publicKey.blob), Buffer.from(made).toString("base64url")];
  }
}

function exchange(initial: readonly string[], more: Partial<Exchange> & { readonly answers?: readonly string[] } = {}) {
  const { answers = [], ...rest } = more;
  const questions: string[] = [];
  const it: Exchange = {
    form: "programs",
    initial,
    binding,
    host: "",
    address: "192.0.2.7",
    certificate: undefined,
    signal: new AbortController().signal,
    async ask(question) {
      questions.push(question);
      return Buffer.from(answers[questions.length - 1] ?? "", "latin1");
    },
    tell() {},
    ...rest,
  };
  return { ...it, questions };
}

function user(name: string, keys: readonly string[], more: Partial<User> = {}): User {
  return { name, groups: [], roles: [], totp: undefined, keys, ...more };
}

function store(...all: readonly User[]): Users {
  const byName = new Map(all.map((each) => [each.name, each]));
  return {
    find: (name) => byName.get(name),
    verify: async () => undefined,
    onChange: () => () => {},
    [Symbol.dispose]() {},
  };
}

/** A certificate as answers. */
function lines(certificate: Uint8Array, size = 1_024): string[] {
  const text = Buffer.from(certificate).toString("base64url");
  return Array.from({ length: Math.ceil(text.length / size) }, (_, at) => text.slice(at * size, (at + 1) * size));
}

const alice = Client.with(generateKeyPairSync("ed25519").privateKey);
const mallory = Client.with(generateKeyPairSync("ed25519").privateKey);

function attempt(
  options: PubkeyOptions,
  initial: readonly string[],
  more: Parameters<typeof exchange>[1] = {},
): Promise<Finding | undefined> {
  return new PubkeyMechanism(options).authenticate(exchange(initial, more));
}

const kinds: Readonly<Record<string, () => Client>> = {
  "ssh-ed25519": () => Client.with(generateKeyPairSync("ed25519").privateKey),
  "ecdsa-sha2-nistp256": () => Client.with(generateKeyPairSync("ec", { namedCurve: "P-256" }).privateKey),
  "ecdsa-sha2-nistp384": () => Client.with(generateKeyPairSync("ec", { namedCurve: "P-384" }).privateKey),
  "ecdsa-sha2-nistp521": () => Client.with(generateKeyPairSync("ec", { namedCurve: "P-521" }).privateKey),
  "rsa-sha2-512": () => Client.with(generateKeyPairSync("rsa", { modulusLength: 2048 }).privateKey),
  "rsa-sha2-512 with 4,096 bits": () => Client.with(generateKeyPairSync("rsa", { modulusLength: 4096 }).privateKey),
  "sk-ssh-ed25519@openssh.com": () => token(new SecurityKey("ed25519")),
  "sk-ecdsa-sha2-nistp256@openssh.com": () => token(new SecurityKey("ecdsa")),
};

function token(key: SecurityKey, flags = 1): Client {
  return new Client(key.publicKey, (octets) => key.sign(octets, flags));
}

for (const [kind, make] of Object.entries(kinds))
  test(`a key of a user proves who he is, in one line: ${kind}`, async () => {
    const client = make();
    const users = store(user("alice", [client.line], { groups: ["staff"], roles: ["ops"] }));
    const words = client.words("alice", { host: "git.example.org" });
    assert.ok(["AUTH", "pubkey", ...words].join(" ").length <= 1_024, "fits a line");
    assert.deepEqual(await attempt({ users }, words, { host: "git.example.org" }), {
      user: "alice",
      groups: ["staff"],
      roles: ["ops"],
      ofStore: true,
      key: keyFingerprint(client.publicKey.blob),
    });
  });

test("A13 a signature for another host or user is refused, and so is one of a type that is not the key's", async () => {
  const users = store(user("alice", [alice.line]), user("bob", []));
  const words = alice.words("alice", { host: "git.example.org" });
  assert.ok(await attempt({ users }, words, { host: "git.example.org" }));
  assert.equal(await attempt({ users }, words), undefined, "another host");
  assert.equal(await attempt({ users }, words.with(0, "bob"), { host: "git.example.org" }), undefined, "another user");
  const ecdsa = Client.with(generateKeyPairSync("ec", { namedCurve: "P-256" }).privateKey);
  const theirs = ecdsa.words("alice");
  assert.equal(await attempt({ users }, theirs.with(1, keyFingerprint(alice.publicKey.blob))), undefined);
});

test("T19 a signature for another connection is refused, and without TLS there is none to sign for", async () => {
  const users = store(user("alice", [alice.line]));
  const words = alice.words("alice", { cb: new Uint8Array(32).fill(8) });
  assert.equal(await attempt({ users }, words), undefined);
  assert.equal(await attempt({ users }, alice.words("alice"), { binding: undefined }), undefined);
  assert.equal(await attempt({ users }, alice.words("alice"), { binding: new Uint8Array(0) }), undefined);
});

test("A05 an unknown user, an unknown key and a wrong signature are the same work, whatever the key", async (t) => {
  const lab = await Lab.open(t);
  const folder = await lab.makeFolder("keys");
  for (const [kind, make] of Object.entries(kinds)) {
    const client = make();
    const other = make();
    await fs.writeFile(path.join(folder, "carol"), `${client.line}\n`);
    const users = store(user("alice", [client.line]), user("bob", []));
    const keysOf = keyFiles(path.join(folder, "%u"), { log: () => assert.fail("nothing to say") });
    const mechanism = new PubkeyMechanism({ users, keysOf });
    const at = exchange([]);
    const wrong = (name: string) => client.words(name, { cb: new Uint8Array(32) });
    const cases = {
      "a wrong signature": wrong("alice"),
      "a wrong signature, for a key in a file": wrong("carol"),
      "an unknown user": wrong("nobody"),
      "an unknown user, who signs well": client.words("nobody"),
      "a user without keys": client.words("bob"),
      "a key that is not his": other.words("alice"),
      "a key that is not his, in a file": other.words("carol"),
    };
    await using counter = await WorkCounter.start("/src/");
    const work = async (initial: readonly string[]) => {
      const attempt = () => mechanism.authenticate({ ...at, initial });
      for (let round = 0; round < 3; round++) assert.equal(await attempt(), undefined);
      return await counter.during(attempt);
    };
    const first = await work(cases["a wrong signature"]);
    assert.ok(callsIn(first) > 20, "counted something");
    for (const [name, words] of Object.entries(cases)) assert.deepEqual(await work(words), first, `${kind}: ${name}`);
    assert.ok(await mechanism.authenticate({ ...at, initial: client.words("alice") }));
    assert.ok(await mechanism.authenticate({ ...at, initial: client.words("carol") }));
  }
});

test("A05 a key of another type or size than the signature's is the same work as no key", async () => {
  const clients = Object.values(kinds).map((make) => make());
  const mechanism = new PubkeyMechanism({
    users: store(
      user(
        "alice",
        clients.map(({ line }) => line),
      ),
    ),
  });
  const at = exchange([]);
  await using counter = await WorkCounter.start("/src/");
  for (const signer of clients) {
    const counts: number[] = [];
    for (const fingerprint of [...clients.map(({ publicKey }) => keyFingerprint(publicKey.blob)), "A".repeat(43)]) {
      const words = signer.words("alice", { cb: new Uint8Array(32) }).with(1, fingerprint);
      const act = () => mechanism.authenticate({ ...at, initial: words });
      for (let round = 0; round < 3; round++) assert.equal(await act(), undefined);
      counts.push(callsIn(await counter.during(act)));
    }
    assert.equal(new Set(counts).size, 1, `${signer.publicKey.type}: ${counts.join(" ")}`);
  }
});

test("whatever is said, nothing is thrown and nobody is let in", async () => {
  const mechanism = new PubkeyMechanism({ users: store(user("alice", [alice.line])) });
  const words = alice.words("alice");
  const [name = "", fingerprint = "", signature = ""] = words;
  const wrong: readonly (readonly string[])[] = [
    ...[[], [name], [name, fingerprint], [...words, ""], [...words, "x"], [...words, "cert:1", "x"]],
    ...[
      [...words, "cert:0"],
      [...words, "cert:13"],
      [...words, "cert:01"],
      [...words, "cert:1"],
      [...words, "cert:"],
    ],
    ...["Alice", "alice ", "alice\0", "аlice", "", "..", "-alice", "alice@p", "a/b", "__proto__", "x".repeat(65)].map(
      (bad) => words.with(0, bad),
    ),
    ...[words.with(1, `${fingerprint}=`), words.with(1, ""), words.with(1, fingerprint.slice(1))],
    ...[words.with(2, `${signature}=`), words.with(2, signature.slice(1)), words.with(2, ""), words.with(2, "A")],
  ];
  for (const each of wrong) assert.equal(await mechanism.authenticate(exchange(each)), undefined, each.join(" "));
  for (let at = 0; at < signature.length; at++) {
    const other = signature[at] === "A" ? "B" : "A";
    const changed = signature.slice(0, at) + other + signature.slice(at + 1);
    assert.equal(await mechanism.authenticate(exchange(words.with(2, changed))), undefined);
    assert.equal(await mechanism.authenticate(exchange(words.with(2, signature.slice(0, at)))), undefined);
  }
  await fc.assert(
    fc.asyncProperty(fc.array(fc.string()), fc.array(fc.string()), async (initial, answers) => {
      assert.equal(await mechanism.authenticate(exchange(initial, { answers })), undefined);
      assert.equal(await mechanism.authenticate(exchange([...words, ...initial, "x"], { answers })), undefined);
      assert.equal(await mechanism.authenticate(exchange([...words, "cert:2"], { answers })), undefined);
    }),
  );
});

test("an exchange that breaks off in the middle of it is over", async () => {
  const mechanism = new PubkeyMechanism({ users: store(user("alice", [alice.line])) });
  const gone = new Error("gone");
  const at = exchange([...alice.words("alice"), "cert:2"], { ask: () => Promise.reject(gone) });
  await assert.rejects(mechanism.authenticate(at), gone);
});

test("a line's options narrow it: address, time, what cannot be honoured; roles add up", async () => {
  const at = Date.UTC(2030, 0, 1);
  const logged: string[] = [];
  const via = (line: string, more: Partial<PubkeyOptions> = {}, address: string | undefined = "192.0.2.7") =>
    attempt(
      {
        users: store(user("alice", [line], { roles: ["ops"] })),
        now: () => at,
        log: (text) => void logged.push(text),
        ...more,
      },
      alice.words("alice"),
      { address },
    );
  assert.ok(await via(`from="192.0.2.0/24" ${alice.line}`));
  assert.equal(await via(`from="198.51.100.0/24" ${alice.line}`), undefined);
  assert.match(logged.pop() ?? "", /of alice was proved, and refused: line 1 is not for its address/);
  assert.ok(await via(`expiry-time="20300102Z" ${alice.line}`));
  assert.equal(await via(`expiry-time="20300101Z" ${alice.line}`), undefined, "the second itself is too late");
  assert.match(logged.pop() ?? "", /line 1 has expired/);
  assert.equal(await via(`command="x" ${alice.line}`), undefined);
  assert.match(logged.pop() ?? "", /^Line 1 of the keys of alice grants nothing: .*command/);
  assert.equal(await via(`cert-authority ${alice.line}`), undefined, "an authority's own key is no login");
  assert.deepEqual((await via(`fived-roles="night,ops" ${alice.line}`))?.roles, ["ops", "night"]);
});

test("from= grants nothing to who has no address, as over a Unix socket", async () => {
  const users = store(user("alice", [`from="*" ${alice.line}`]));
  assert.equal(await attempt({ users }, alice.words("alice"), { address: undefined }), undefined);
});

test("of several lines with the same key the first that grants counts", async () => {
  const keys = [
    `from="::1",fived-roles="a" ${alice.line}`,
    `fived-roles="b" ${alice.line}`,
    `fived-roles="c" ${alice.line}`,
  ];
  assert.deepEqual((await attempt({ users: store(user("alice", keys)) }, alice.words("alice")))?.roles, ["b"]);
});

test("a security key has to be touched unless its line says otherwise, and more where its line says so", async () => {
  const key = new SecurityKey("ed25519");
  const via = (options: string, flags: number) =>
    attempt({ users: store(user("alice", [`${options} ${token(key).line}`])) }, token(key, flags).words("alice"));
  assert.ok(await via("", 1));
  assert.equal(await via("", 0), undefined);
  assert.equal(await via("", 4), undefined);
  assert.ok(await via("no-touch-required", 0));
  assert.equal(await via("verify-required", 1), undefined);
  assert.ok(await via("verify-required", 5));
});

test("a withdrawn key and a removed user are gone with the next attempt", async () => {
  let known: User | undefined = user("alice", [alice.line]);
  const users: Users = { ...store(), find: () => known };
  const mechanism = new PubkeyMechanism({ users });
  assert.ok(await mechanism.authenticate(exchange(alice.words("alice"))));
  known = user("alice", [mallory.line]);
  assert.equal(await mechanism.authenticate(exchange(alice.words("alice"))), undefined);
  assert.ok(await mechanism.authenticate(exchange(mallory.words("alice"))));
  known = undefined;
  assert.equal(await mechanism.authenticate(exchange(mallory.words("alice"))), undefined);
});

test("keys in files let their users in, whether the store knows them or not", async (t) => {
  const lab = await Lab.open(t);
  const folder = await lab.makeFolder("keys");
  await fs.writeFile(path.join(folder, "alice"), `fived-roles="night" ${alice.line}\n`);
  const keysOf = keyFiles(path.join(folder, "%u"), { log: () => {} });
  const words = alice.words("alice");
  assert.deepEqual(await attempt({ keysOf }, words), { user: "alice", groups: [], roles: ["night"] });
  const users = store(user("alice", [], { groups: ["staff"] }));
  const found = { user: "alice", groups: ["staff"], roles: ["night"], ofStore: true };
  assert.deepEqual(await attempt({ keysOf, users }, words), found);
  assert.equal(await attempt({ keysOf, stillKnown: () => false }, words), undefined);
  assert.ok(await attempt({ keysOf, users, stillKnown: () => false }, words), "whom the store has is known");
  assert.equal(await attempt({ keysOf }, mallory.words("alice")), undefined);
});

test("a certificate of an authority of ours lets in whom it names, over as many lines as it takes", {
  skip,
}, async (t) => {
  const lab = await Lab.open(t);
  const authority = await makeKey(lab, "ca", ["-t", "rsa", "-b", "4096"]);
  const key = await makeKey(lab, "key", ["-t", "rsa", "-b", "4096"]);
  const client = await Client.fromFile(key.file);
  const names = Array.from({ length: 150 }, (_, index) => `role-${index}`);
  const answers = lines(await certify(lab, authority, key, "-n", ["alice", ...names].join(",")));
  assert.ok(answers.length >= 4, `${answers.length} lines`);
  const userCa = [authority.publicKey];
  const words = [...client.words("alice"), `cert:${answers.length}`];
  const at = exchange(words, { answers });
  assert.deepEqual(await new PubkeyMechanism({ userCa }).authenticate(at), { user: "alice", groups: [], roles: [] });
  assert.deepEqual(at.questions[1], `certificate 2/${answers.length}`);
  assert.equal(await attempt({ userCa }, [...client.words("bob"), `cert:${answers.length}`], { answers }), undefined);
  assert.equal(await attempt({ userCa: [] }, words, { answers }), undefined, "an authority of somebody else's");
  assert.equal(await attempt({ userCa: [key.publicKey] }, words, { answers }), undefined);
  assert.equal(await attempt({ userCa }, client.words("alice")), undefined, "the bare key");
  assert.equal(await attempt({ userCa }, words, { answers: answers.toReversed() }), undefined);
  const stolen = [...mallory.words("alice"), `cert:${answers.length}`];
  assert.equal(await attempt({ userCa }, stolen, { answers }), undefined, "somebody else's certificate");
  const forged = stolen.with(1, keyFingerprint(client.publicKey.blob));
  assert.equal(await attempt({ userCa }, forged, { answers }), undefined);
});

test("a certificate does not outlive its user", { skip }, async (t) => {
  const lab = await Lab.open(t);
  const authority = await makeKey(lab, "ca");
  const key = await makeKey(lab, "key");
  const client = await Client.fromFile(key.file);
  const answers = lines(await certify(lab, authority, key, "-n", "alice"));
  const words = [...client.words("alice"), `cert:${answers.length}`];
  const via = (options: PubkeyOptions) => attempt({ userCa: [authority.publicKey], ...options }, words, { answers });
  assert.deepEqual((await via({ users: store(user("alice", [], { groups: ["staff"] })) }))?.groups, ["staff"]);
  assert.equal(await via({ users: store(user("bob", [])) }), undefined);
  assert.ok(await via({ users: store(user("bob", [])), stillKnown: (name) => name === "alice" }));
  assert.equal(await via({ stillKnown: () => false }), undefined);
});

test("what a certificate demands is demanded: times, addresses, a finger; what is not understood lets nobody in", {
  skip,
}, async (t) => {
  const lab = await Lab.open(t);
  const authority = await makeKey(lab, "ca");
  const key = await makeKey(lab, "key");
  const client = await Client.fromFile(key.file);
  const via = async (
    args: readonly string[],
    more: Parameters<typeof exchange>[1] & { readonly now?: number } = {},
  ) => {
    const answers = lines(await certify(lab, authority, key, "-n", "alice", ...args));
    const options = { userCa: [authority.publicKey], now: () => more.now ?? Date.now() };
    return await attempt(options, [...client.words("alice"), `cert:${answers.length}`], { answers, ...more });
  };
  assert.ok(await via(["-V", "-1h:+1h"]));
  assert.equal(await via(["-V", "-1h:+1h"], { now: Date.now() + 7_200_000 }), undefined);
  assert.ok(await via(["-O", "source-address=192.0.2.0/24"]));
  assert.equal(await via(["-O", "source-address=198.51.100.0/24"]), undefined);
  assert.equal(await via(["-O", "source-address=192.0.2.0/24"], { address: undefined }), undefined);
  assert.equal(await via(["-O", "force-command=x"]), undefined);
  assert.equal(await via(["-h"]), undefined);
});

test("an authority in somebody's own lines certifies keys for him alone, or for the names that the line has", {
  skip,
}, async (t) => {
  const lab = await Lab.open(t);
  const authority = await makeKey(lab, "ca");
  const key = await makeKey(lab, "key");
  const client = await Client.fromFile(key.file);
  const answers = lines(await certify(lab, authority, key, "-n", "alice,night"));
  const via = (line: string, name = "alice") =>
    attempt({ users: store(user(name, [line])) }, [...client.words(name), `cert:${answers.length}`], { answers });
  assert.deepEqual((await via(`cert-authority,fived-roles="x" ${authority.line}`))?.roles, ["x"]);
  assert.equal(await via(`cert-authority ${authority.line}`, "bob"), undefined);
  assert.ok(await via(`cert-authority,principals="night" ${authority.line}`, "bob"));
  assert.equal(await via(`cert-authority,principals="day" ${authority.line}`), undefined);
  assert.equal(await via(`cert-authority,from="::1" ${authority.line}`), undefined);
  assert.equal(await via(authority.line), undefined, "without the option it is a key and no authority");
});

test("a certificate of a security key, and one by a security key", { skip }, async (t) => {
  const lab = await Lab.open(t);
  const authority = await makeKey(lab, "ca");
  const key = new SecurityKey("ecdsa");
  await lab.write("sk.pub", `${token(key).line}\n`);
  const certified = async (...args: readonly string[]) => {
    await keygen(lab, "-q", "-s", authority.file, "-I", "sk", "-n", "alice", ...args, lab.path("sk.pub"));
    const line = await fs.readFile(lab.path("sk-cert.pub"), "latin1");
    return lines(Buffer.from(line.split(" ")[1] ?? "", "base64"));
  };
  const via = (answers: readonly string[], flags: number) =>
    attempt({ userCa: [authority.publicKey] }, [...token(key, flags).words("alice"), `cert:${answers.length}`], {
      answers,
    });
  const plain = await certified();
  assert.ok(await via(plain, 1));
  assert.equal(await via(plain, 0), undefined);
  const verified = await certified("-O", "verify-required");
  assert.equal(await via(verified, 1), undefined);
  assert.ok(await via(verified, 5));
  assert.equal(await via(await certified("-O", "no-touch-required"), 0), undefined, "extensions permit nothing here");
});

test("A05 a certificate of somebody else's authority is the same work for everybody", { skip }, async (t) => {
  const lab = await Lab.open(t);
  const authority = await makeKey(lab, "ca");
  const key = await makeKey(lab, "key");
  const client = await Client.fromFile(key.file);
  const answers = lines(await certify(lab, authority, key, "-n", "alice,bob,nobody"));
  const mechanism = new PubkeyMechanism({ users: store(user("alice", [client.line]), user("bob", [])), userCa: [] });
  await using counter = await WorkCounter.start("/src/");
  const works = [];
  for (const name of ["alice", "bob", "nobody"]) {
    const words = [...client.words(name), `cert:${answers.length}`];
    const act = () => mechanism.authenticate(exchange(words, { answers }));
    for (let round = 0; round < 3; round++) assert.equal(await act(), undefined);
    works.push(await counter.during(act));
  }
  assert.deepEqual(works[1], works[2]);
  assert.deepEqual(works[0], works[2]);
});

test("T19 a weak RSA key in somebody's lines is no key", async () => {
  const weak = generateKeyPairSync("rsa", { modulusLength: 1024 }).privateKey;
  const { n = "", e = "" } = weak.export({ format: "jwk" });
  const number = (text: string) => sshString(Buffer.concat([Uint8Array.of(0), Buffer.from(text, "base64url")]));
  const exponent = sshString(Buffer.from(e, "base64url"));
  const blob = Buffer.concat([sshString("ssh-rsa"), exponent, number(n)]);
  const logged: string[] = [];
  const users = store(user("alice", [`ssh-rsa ${blob.toString("base64")}`]));
  const words = alice.words("alice").with(1, keyFingerprint(blob));
  assert.equal(await attempt({ users, log: (line) => void logged.push(line) }, words), undefined);
  assert.match(logged[0] ?? "", /grants nothing: it has no key.*strong enough/);
});
