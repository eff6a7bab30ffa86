import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { createHash } from "node:crypto";
import { mkdir, mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import test, { type TestContext } from "node:test";
import { type ErrorCode, FivedError, fingerprintOf, type HostKey } from "../io/index.ts";
import { parseAddress } from "./address.ts";
import { knownHosts, type Lookup, type PinStore } from "./known-hosts.ts";
import { type HostKeyChecking, judge, type Pki, trustWith, type Verdict } from "./trust.ts";

const KEY = key(1);
const OTHER = key(2);
const ADDRESS = parseAddress("example.org");
const SELF_SIGNED: Pki = { type: "invalid", reason: "DEPTH_ZERO_SELF_SIGNED_CERT" };
const VALID: Pki = { type: "valid" };
const NO_SAY: Pki = { type: "none" };
const CERTIFICATES: readonly Pki[] = [VALID, SELF_SIGNED, NO_SAY];

test("O01 O02 every policy gives every finding its own verdict, whatever certification authorities say", () => {
  const place = { file: "/kh", line: 7, keyType: OTHER.type, fingerprint: fingerprintOf(OTHER) };
  const lookups: Record<Lookup["type"], Lookup> = {
    pinned: { type: "pinned", pin: place },
    revoked: { type: "revoked", pin: place },
    changed: { type: "changed", pins: [place] },
    damaged: { type: "damaged", file: "/kh", line: 7 },
    unknown: { type: "unknown" },
  };
  const table: Record<Lookup["type"], Record<HostKeyChecking, string>> = {
    pinned: { yes: "pinned", "accept-new": "pinned", ask: "pinned", off: "pinned" },
    revoked: {
      yes: "HOST_KEY_REVOKED",
      "accept-new": "HOST_KEY_REVOKED",
      ask: "HOST_KEY_REVOKED",
      off: "HOST_KEY_REVOKED",
    },
    changed: { yes: "HOST_KEY_CHANGED", "accept-new": "HOST_KEY_CHANGED", ask: "HOST_KEY_CHANGED", off: "off" },
    damaged: {
      yes: "KNOWN_HOSTS_UNREADABLE",
      "accept-new": "KNOWN_HOSTS_UNREADABLE",
      ask: "KNOWN_HOSTS_UNREADABLE",
      off: "KNOWN_HOSTS_UNREADABLE",
    },
    unknown: { yes: "HOST_KEY_UNKNOWN", "accept-new": "pin", ask: "ask", off: "off" },
  };
  for (const found of ["pinned", "revoked", "changed", "damaged", "unknown"] as const) {
    for (const checking of ["yes", "accept-new", "ask", "off"] as const) {
      for (const pki of CERTIFICATES) {
        const verdict: Verdict = judge(checking, {
          name: "example.org",
          key: KEY,
          pki,
          lookup: lookups[found],
          file: "/kh",
        });
        const told: string =
          verdict.type === "refuse" ? verdict.code : verdict.type === "trust" ? verdict.grounds : verdict.type;
        const expected: string = found === "unknown" && pki.type === "valid" ? "pki" : table[found][checking];
        assert.equal(told, expected, `${found} ${checking} ${pki.type}`);
        if (verdict.type === "trust") assert.equal(verdict.warnings.length, told === "off" ? 1 : 0);
      }
    }
  }
});

test("O01 an unknown server is refused without a terminal, with its fingerprint and the way out, and nothing is kept", async (t) => {
  const pins = await store(t);
  for (const checking of ["yes", "ask"] as const) {
    const error = await refusal(
      trustWith({ checking, pins }).decide({ address: ADDRESS, key: KEY, pki: SELF_SIGNED }),
      "HOST_KEY_UNKNOWN",
    );
    assert.ok(error.message.includes(fingerprintOf(KEY)));
    assert.ok(error.message.includes("-o StrictHostKeyChecking=accept-new"));
    assert.ok(error.message.includes("DEPTH_ZERO_SELF_SIGNED_CERT"));
  }
  assert.equal((await pins.find("example.org", KEY)).type, "unknown");
});

test("O01 accept-new keeps an unknown server's key, says so once, and marks that nobody said yes", async (t) => {
  const pins = await store(t);
  const trust = trustWith({ checking: "accept-new", pins });
  const first = await trust.decide({ address: ADDRESS, key: KEY, pki: SELF_SIGNED });
  assert.equal(first.grounds, "accepted-new");
  assert.match(first.warnings.join(), new RegExp(`is new: its key ${fingerprintOf(KEY).replaceAll("+", "\\+")}`));
  assert.deepEqual(await trust.decide({ address: ADDRESS, key: KEY, pki: SELF_SIGNED }), {
    grounds: "accepted-new",
    asked: false,
    warnings: [],
  });
  const later = trustWith({ checking: "yes", pins });
  assert.deepEqual(await later.decide({ address: ADDRESS, key: KEY, pki: SELF_SIGNED }), {
    grounds: "pinned",
    asked: false,
    warnings: [],
  });
});

test("O01 on a terminal the user is asked with the fingerprint; yes keeps the key and no refuses", async (t) => {
  const pins = await store(t);
  const asked: string[] = [];
  const answering = (answer: boolean) =>
    trustWith({ pins, ask: async (question) => asked.push(question) > 0 && answer }); // ask is the default
  await refusal(answering(false).decide({ address: ADDRESS, key: KEY, pki: NO_SAY }), "HOST_KEY_UNKNOWN");
  assert.equal((await pins.find("example.org", KEY)).type, "unknown");
  assert.deepEqual(await answering(true).decide({ address: ADDRESS, key: KEY, pki: NO_SAY }), {
    grounds: "pinned",
    asked: true,
    warnings: [],
  });
  assert.equal((await pins.find("example.org", KEY)).type, "pinned");
  assert.equal(asked.length, 2);
  for (const question of asked) assert.ok(question.includes(fingerprintOf(KEY)));
});

test("a server valid by PKI is trusted under every policy and gets no pin", async (t) => {
  const pins = await store(t);
  for (const checking of ["yes", "accept-new", "ask", "off"] as const) {
    const trusted = await trustWith({ checking, pins }).decide({ address: ADDRESS, key: KEY, pki: VALID });
    assert.deepEqual(trusted, { grounds: "pki", asked: false, warnings: [] });
  }
  assert.equal((await pins.find("example.org", KEY)).type, "unknown");
});

test("O02 a changed key is a hard stop under yes, accept-new and ask, PKI or not, and nobody is asked", async (t) => {
  const pins = await store(t);
  await pins.pin("example.org", OTHER);
  const before = await readFile(pins.file, "utf8");
  const ask = () => assert.fail("asked");
  for (const checking of ["yes", "accept-new", "ask"] as const) {
    for (const pki of [VALID, SELF_SIGNED]) {
      const error = await refusal(
        trustWith({ checking, pins, ask }).decide({ address: ADDRESS, key: KEY, pki }),
        "HOST_KEY_CHANGED",
      );
      for (const part of [fingerprintOf(KEY), fingerprintOf(OTHER), `${pins.file}:1`])
        assert.ok(error.message.includes(part), part);
      assert.ok(error.message.endsWith(`ssh-keygen -R 'example.org' -f ${pins.file}`));
    }
  }
  assert.equal(await readFile(pins.file, "utf8"), before);
});

test("O02 the command in the message, run in a shell, makes the server new again", async (t) => {
  const { FIVED_TEST_STRICT } = process.env;
  const folder = join(await temporaryFolder(t), "it's a folder");
  await mkdir(folder);
  const pins = knownHosts(join(folder, "known_hosts"));
  const address = parseAddress("example.org:22");
  await trustWith({ checking: "accept-new", pins }).decide({ address, key: OTHER, pki: SELF_SIGNED });
  const error = await refusal(trustWith({ pins }).decide({ address, key: KEY, pki: SELF_SIGNED }), "HOST_KEY_CHANGED");
  const command = /ssh-keygen -R .*$/.exec(error.message)?.[0] ?? "";
  try {
    execFileSync("sh", ["-c", command], { stdio: "ignore" });
  } catch (cause) {
    if (FIVED_TEST_STRICT === "1" || (cause instanceof Error && "status" in cause && cause.status !== 127)) throw cause;
    return t.skip("needs ssh-keygen (openssh-client)");
  }
  assert.equal((await pins.find("[example.org]:22", KEY)).type, "unknown");
});

test("O02 off goes on with a changed or unknown key, warns with both fingerprints and writes nothing", async (t) => {
  const pins = await store(t);
  const trust = trustWith({ checking: "off", pins });
  const unknown = await trust.decide({ address: ADDRESS, key: KEY, pki: SELF_SIGNED });
  assert.equal(unknown.grounds, "off");
  assert.ok(unknown.warnings.join().includes(fingerprintOf(KEY)));
  assert.equal((await pins.find("example.org", KEY)).type, "unknown");
  await pins.pin("example.org", OTHER);
  const changed = await trust.decide({ address: ADDRESS, key: KEY, pki: SELF_SIGNED });
  assert.equal(changed.grounds, "off");
  for (const each of [KEY, OTHER]) assert.ok(changed.warnings.join().includes(fingerprintOf(each)));
  assert.equal((await pins.find("example.org", KEY)).type, "changed");
});

test("O02 a revoked key is refused under every policy", async (t) => {
  const pins = await store(t);
  await writeFile(pins.file, `@revoked * ${KEY.type} ${Buffer.from(KEY.blob).toString("base64")}\n`);
  for (const checking of ["yes", "accept-new", "ask", "off"] as const) {
    await refusal(trustWith({ checking, pins }).decide({ address: ADDRESS, key: KEY, pki: VALID }), "HOST_KEY_REVOKED");
  }
});

test("an unreadable pin file refuses every server under every policy, PKI or not", async (t) => {
  const pins = knownHosts(await temporaryFolder(t)); // a folder is no file
  for (const checking of ["yes", "accept-new", "ask", "off"] as const) {
    await refusal(
      trustWith({ checking, pins }).decide({ address: ADDRESS, key: KEY, pki: VALID }),
      "KNOWN_HOSTS_UNREADABLE",
    );
  }
});

test("accept-new fails where the key cannot be kept: else every contact would be a first one", async (t) => {
  const pins = await store(t);
  const unwritable: PinStore = {
    ...pins,
    pin: async () => Promise.reject(new FivedError("STATE_UNUSABLE", "no room")),
  };
  await refusal(
    trustWith({ checking: "accept-new", pins: unwritable }).decide({ address: ADDRESS, key: KEY, pki: SELF_SIGNED }),
    "STATE_UNUSABLE",
  );
});

test("O05 the pin of an IP address does not vouch for a name that leads there, nor the other way round", async (t) => {
  const pins = await store(t);
  const trust = trustWith({ checking: "yes", pins });
  await pins.pin("192.0.2.1", KEY);
  await refusal(trust.decide({ address: ADDRESS, key: KEY, pki: SELF_SIGNED }), "HOST_KEY_UNKNOWN");
  await pins.pin("example.org", KEY);
  await refusal(trust.decide({ address: parseAddress("192.0.2.2"), key: KEY, pki: NO_SAY }), "HOST_KEY_UNKNOWN");
});

test("connections that meet one new server at once are one question", async (t) => {
  const pins = await store(t);
  const terminal = terminalOf();
  const trust = trustWith({ pins, ask: terminal.ask });
  const waiting = [1, 2, 3].map(() => trust.decide({ address: ADDRESS, key: KEY, pki: SELF_SIGNED }));
  const com = parseAddress("example.com");
  const elsewhere = refusal(trust.decide({ address: com, key: KEY, pki: SELF_SIGNED }), "HOST_KEY_UNKNOWN");
  const [one, two] = [await terminal.question(), await terminal.question()];
  for (const { text, answer } of [one, two]) answer(text.includes('"example.org"'));
  for (const trusted of await Promise.all(waiting)) assert.equal(trusted.grounds, "pinned");
  await elsewhere;
  assert.equal(terminal.count, 2);
});

test("a look into the file that took longer than a question and its answer is taken again", async (t) => {
  const pins = await store(t);
  const held = Promise.withResolvers<void>();
  const slow: PinStore["find"][] = [
    async (name, presented) => {
      const found = await pins.find(name, presented);
      await held.promise;
      return found;
    },
  ];
  const terminal = terminalOf();
  const find: PinStore["find"] = (...args) => (slow.shift() ?? pins.find)(...args);
  const trust = trustWith({ pins: { ...pins, find }, ask: terminal.ask });
  const late = trust.decide({ address: ADDRESS, key: KEY, pki: SELF_SIGNED });
  const asking = trust.decide({ address: ADDRESS, key: KEY, pki: SELF_SIGNED });
  (await terminal.question()).answer(true);
  await asking;
  held.resolve();
  assert.equal((await late).grounds, "pinned");
  assert.equal(terminal.count, 1);
});

test("a no is the answer for everybody who waited with the same key, and O02 another key is then asked for anew", async (t) => {
  const pins = await store(t);
  const terminal = terminalOf();
  const trust = trustWith({ pins, ask: terminal.ask });
  const decide = () => refusal(trust.decide({ address: ADDRESS, key: KEY, pki: SELF_SIGNED }), "HOST_KEY_UNKNOWN");
  const asking = decide();
  const first = await terminal.question();
  const waiting = decide();
  const other = trust.decide({ address: ADDRESS, key: OTHER, pki: SELF_SIGNED });
  first.answer(false);
  await Promise.all([asking, waiting]);
  const second = await terminal.question();
  assert.ok(second.text.includes(fingerprintOf(OTHER)));
  second.answer(true);
  assert.equal((await other).grounds, "pinned");
});

test("O02 who waited with another key than the one that was accepted is stopped", async (t) => {
  const pins = await store(t);
  const terminal = terminalOf();
  const trust = trustWith({ pins, ask: terminal.ask });
  const first = trust.decide({ address: ADDRESS, key: KEY, pki: SELF_SIGNED });
  const question = await terminal.question();
  const second = refusal(trust.decide({ address: ADDRESS, key: OTHER, pki: SELF_SIGNED }), "HOST_KEY_CHANGED");
  question.answer(true);
  assert.equal((await first).grounds, "pinned");
  await second;
});

test("who gives up waiting is told so, and the question stays for the others", async (t) => {
  const pins = await store(t);
  const terminal = terminalOf();
  const trust = trustWith({ pins, ask: terminal.ask });
  const caller = new AbortController();
  const impatient = refusal(trust.decide({ address: ADDRESS, key: KEY, pki: SELF_SIGNED }, caller.signal), "ABORTED");
  const question = await terminal.question();
  const patient = trust.decide({ address: ADDRESS, key: KEY, pki: SELF_SIGNED });
  caller.abort();
  await impatient;
  question.answer(true);
  assert.equal((await patient).grounds, "pinned");
  assert.equal(terminal.count, 1);
});

test("a terminal that fails fails who asked, and the next one asks again", async (t) => {
  const pins = await store(t);
  const answers = [() => Promise.reject(new Error("hung up")), () => Promise.resolve(true)];
  const trust = trustWith({ pins, ask: () => answers.shift()?.() ?? assert.fail("asked too often") });
  await assert.rejects(trust.decide({ address: ADDRESS, key: KEY, pki: SELF_SIGNED }), /hung up/);
  assert.equal((await trust.decide({ address: ADDRESS, key: KEY, pki: SELF_SIGNED })).grounds, "pinned");
});

/** A terminal whose questions a test sees and answers. */
function terminalOf() {
  const questions: { readonly text: string; readonly answer: (yes: boolean) => void }[] = [];
  const readers: ((question: (typeof questions)[number]) => void)[] = [];
  const terminal = {
    count: 0,
    ask(text: string): Promise<boolean> {
      const { promise, resolve } = Promise.withResolvers<boolean>();
      terminal.count += 1;
      const reader = readers.shift();
      if (reader === undefined) questions.push({ text, answer: resolve });
      else reader({ text, answer: resolve });
      return promise;
    },
    async question(): Promise<(typeof questions)[number]> {
      return questions.shift() ?? (await new Promise((resolve) => readers.push(resolve)));
    },
  };
  return terminal;
}

async function refusal(decision: Promise<unknown>, code: ErrorCode): Promise<FivedError> {
  const error = await decision.then(
    () => assert.fail(`trusted, expected ${code}`),
    (reason: unknown) => reason,
  );
  assert.ok(error instanceof FivedError && error.code === code, String(error));
  return error;
}

function key(seed: number): HostKey {
  const field = (octets: Uint8Array) => Buffer.concat([Uint8Array.of(0, 0, 0, octets.length), octets]);
  const type = "ssh-ed25519";
  return {
    type,
    blob: Buffer.concat([field(Buffer.from(type)), field(createHash("sha256").update(`${seed}`).digest())]),
  };
}

async function store(t: TestContext): Promise<PinStore> {
  return knownHosts(join(await temporaryFolder(t), "known_hosts"));
}

async function temporaryFolder(t: TestContext): Promise<string> {
  const folder = await mkdtemp(join(tmpdir(), "fived-trust-"));
  t.after(() => rm(folder, { recursive: true }));
  return folder;
}
