import assert from "node:assert/strict";
import { execFileSync, spawn } from "node:child_process";
import { createHash, createHmac } from "node:crypto";
import { once } from "node:events";
import {
  chmod,
  lstat,
  mkdir,
  mkdtemp,
  readdir,
  readFile,
  rm,
  stat,
  symlink,
  truncate,
  utimes,
  writeFile,
} from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import test, { type TestContext } from "node:test";
import fc from "fast-check";
import { FivedError, fingerprintOf, type HostKey } from "../io/index.ts";
import { parseAddress } from "./address.ts";
import { KNOWN_HOSTS_BYTES_MAX, knownHosts, pinName, search } from "./known-hosts.ts";

test("the plain name stands for the default port, the bracketed one for others", () => {
  const cases: readonly (readonly [string, string])[] = [
    ["alice@Example.org./wiki", "example.org"],
    ["example.org:22", "[example.org]:22"],
    ["192.0.2.1", "192.0.2.1"],
    ["[2001:DB8::1]", "2001:db8::1"],
    ["[2001:db8::1]:22", "[2001:db8::1]:22"],
    ["localhost:2000", "[localhost]:2000"],
    ["fived://127.0.0.1:22/?host=git.example.org", "[git.example.org]:22"],
    ["unix:/run/fived.sock", "unix:/run/fived.sock"],
    ["unix:/Run/a b,*", "unix:/%52un/a%20b%2c%2a"],
  ];
  for (const [address, expected] of cases) assert.equal(pinName(parseAddress(address)), expected, address);
});

test("a line names a server plainly, in a list, by pattern or hashed, and not by what it negates", () => {
  const cases: readonly (readonly [hosts: string, name: string, found: boolean])[] = [
    ["example.org", "example.org", true],
    ["EXAMPLE.org", "example.org", true],
    ["example.org", "[example.org]:22", false],
    ["[example.org]:22", "[example.org]:22", true],
    ["[example.org]:22", "example.org", false],
    ["a.test,example.org,192.0.2.1", "example.org", true],
    ["a.test,example.org,192.0.2.1", "192.0.2.1", true],
    ["*.example.org", "wiki.example.org", true],
    ["*.example.org", "example.org", false],
    ["w?ki.example.org", "wiki.example.org", true],
    ["*.example.org,!secret.example.org", "secret.example.org", false],
    ["!secret.example.org,*.example.org", "secret.example.org", false],
    ["!secret.example.org,*.example.org", "wiki.example.org", true],
    ["!secret.example.org", "wiki.example.org", false],
    ["*a*a*a*a*a*a*a*a*a*a*b", "a".repeat(200), false],
    [hashed("example.org"), "example.org", true],
    [hashed("example.org"), "example.com", false],
    [hashed("[example.org]:22"), "[example.org]:22", true],
    [hashed("example.org").replace("|1|", "|2|"), "example.org", false],
    ["|1|", "example.org", false],
  ];
  for (const [hosts, name, found] of cases) {
    const lookup = search(`${hosts} ${text(KEY)}\n`, "f", name, KEY);
    assert.equal(lookup.type, found ? "pinned" : "unknown", `${hosts} ${name}`);
  }
});

test("O05 the pin of an IP address never stands for a name", () => {
  for (const hosts of ["192.0.2.1", "10.*", "10.?.*", "[10.*]:22"]) {
    assert.equal(search(`${hosts} ${text(KEY)}\n`, "f", "10.0.example.org", KEY).type, "unknown", hosts);
    assert.equal(search(`${hosts} ${text(KEY)}\n`, "f", "[10.0.example.org]:22", KEY).type, "unknown", hosts);
  }
  assert.equal(search(`10.* ${text(KEY)}\n`, "f", "10.0.0.7", KEY).type, "pinned");
  assert.equal(search(`[10.*]:22 ${text(KEY)}\n`, "f", "[10.0.0.7]:22", KEY).type, "pinned");
  assert.equal(search(`*,!10.* ${text(KEY)}\n`, "f", "10.0.example.org", KEY).type, "unknown");
});

test("a known name with another key is told as changed, with the place of what was known", () => {
  const lookup = search(
    `# first line\nexample.org ${text(OTHER)}\nexample.org ${text(THIRD)}\n`,
    "f",
    "example.org",
    KEY,
  );
  assert.deepEqual(lookup, {
    type: "changed",
    pins: [
      { file: "f", line: 2, keyType: "ssh-ed25519", fingerprint: fingerprintOf(OTHER) },
      { file: "f", line: 3, keyType: "ssh-rsa", fingerprint: fingerprintOf(THIRD) },
    ],
  });
});

test("a pin counts wherever it stands among other keys of the name", () => {
  const lookup = search(`example.org ${text(OTHER)}\nexample.org ${text(KEY)} a comment\r\n`, "f", "example.org", KEY);
  assert.equal(lookup.type === "pinned" && lookup.pin.line, 2);
});

test("O02 a revoked key is revoked wherever else it is pinned", () => {
  const pinned = `example.org ${text(KEY)}\n`;
  const revoked = `@revoked * ${text(KEY)}\n`;
  assert.equal(search(pinned + revoked, "f", "example.org", KEY).type, "revoked");
  assert.equal(search(revoked + pinned, "f", "example.org", KEY).type, "revoked");
  assert.equal(search(revoked + pinned, "f", "example.org", OTHER).type, "changed");
  assert.equal(search(revoked, "f", "example.org", OTHER).type, "unknown");
});

test("a certificate authority's line matches no TLS key, and lines of no known kind are passed over", () => {
  for (const line of [
    `@cert-authority * ${text(KEY)}`,
    `@future * ${text(KEY)}`,
    `# * ${text(KEY)}`,
    "",
    "\t  ",
    "|1|x|y z",
  ]) {
    assert.equal(search(`${line}\n`, "f", "example.org", KEY).type, "unknown", line);
  }
});

test("a line that names the server and holds no readable key is damage, not a new server", () => {
  const whole = text(OTHER);
  const lines = [
    "example.org",
    "example.org ssh-ed25519",
    `example.org ${whole.slice(0, 40)}`,
    `example.org ssh-rsa ${whole.slice(12)}`,
    `example.org ${whole}!`,
  ];
  for (const line of [...lines, "example.org 1024 35 1234567", `@revoked example.org ${whole.slice(0, 40)}`]) {
    assert.deepEqual(search(`\n${line}\n`, "f", "example.org", KEY), { type: "damaged", file: "f", line: 2 }, line);
    assert.equal(search(`\n${line}\n`, "f", "example.com", KEY).type, "unknown", line);
  }
  assert.equal(search(`example.org ssh-ed\nexample.org ${text(KEY)}\n`, "f", "example.org", KEY).type, "pinned");
  assert.equal(search(`example.org ${text(KEY)}\n@revoked * ssh-ed\n`, "f", "example.org", KEY).type, "damaged");
});

test("a pin is written so that a reader finds it, in a file and a folder that are ours alone", async (t) => {
  const folder = await temporaryFolder(t);
  const store = knownHosts(join(folder, "config", "fived", "known_hosts"));
  assert.equal((await store.find("example.org", KEY)).type, "unknown");
  assert.equal((await store.pin("example.org", KEY)).type, "pinned");
  assert.equal((await store.find("example.org", KEY)).type, "pinned");
  assert.equal((await store.find("example.org", OTHER)).type, "changed");
  assert.equal((await stat(store.file)).mode & 0o777, 0o600);
  assert.equal((await stat(join(folder, "config", "fived"))).mode & 0o777, 0o700);
  assert.equal(await readFile(store.file, "utf8"), `example.org ${text(KEY)}\n`);
  assert.deepEqual(await readdir(join(folder, "config", "fived")), ["known_hosts"]);
});

test("what stood in the file before a pin stands there afterwards, octet for octet", async (t) => {
  const store = knownHosts(join(await temporaryFolder(t), "known_hosts"));
  const before = Buffer.concat([
    Buffer.from(`# comment\r\n\r\n@cert-authority *.example.org ${text(OTHER)}\n|1|odd line\n`),
    Buffer.from([0xff, 0xfe, 0x00, 0x80]),
  ]);
  await writeFile(store.file, before);
  await store.pin("example.org", KEY);
  assert.deepEqual(await readFile(store.file), Buffer.concat([before, Buffer.from(`\nexample.org ${text(KEY)}\n`)]));
});

test("a symbolic link stays one, and what it points to gets the pin", async (t) => {
  const folder = await temporaryFolder(t);
  await mkdir(join(folder, "dotfiles"));
  await writeFile(join(folder, "dotfiles", "kh"), "# mine\n");
  await symlink(join("dotfiles", "kh"), join(folder, "known_hosts"));
  await knownHosts(join(folder, "known_hosts")).pin("example.org", KEY);
  assert.ok((await lstat(join(folder, "known_hosts"))).isSymbolicLink());
  assert.equal(await readFile(join(folder, "dotfiles", "kh"), "utf8"), `# mine\nexample.org ${text(KEY)}\n`);
});

test("many pins at once are all kept", async (t) => {
  const store = knownHosts(join(await temporaryFolder(t), "known_hosts"));
  const all = Array.from({ length: 20 }, (_, i) => `host-${i}.test`);
  await Promise.all(all.map((name) => store.pin(name, KEY)));
  for (const name of all) assert.equal((await store.find(name, KEY)).type, "pinned", name);
});

test("pins of several processes at once are all kept", async (t) => {
  const store = knownHosts(join(await temporaryFolder(t), "known_hosts"));
  const script = `
    const { knownHosts } = await import(${JSON.stringify(new URL("./known-hosts.ts", import.meta.url).href)});
    const [file, who, blob] = process.argv.slice(1);
    const key = { type: "ssh-ed25519", blob: Buffer.from(blob, "base64") };
    for (let i = 0; i < 8; i++) await knownHosts(file).pin(who + i + ".test", key);`;
  const children = ["a", "b", "c"].map((who) =>
    spawn(
      process.execPath,
      ["--input-type=module", "-e", script, store.file, who, Buffer.from(KEY.blob).toString("base64")],
      {
        stdio: ["ignore", "ignore", "inherit"],
      },
    ),
  );
  for (const [code] of await Promise.all(children.map((child) => once(child, "exit")))) assert.equal(code, 0);
  for (const who of ["a", "b", "c"]) {
    for (let i = 0; i < 8; i++) assert.equal((await store.find(`${who}${i}.test`, KEY)).type, "pinned", `${who}${i}`);
  }
});

test("of two keys pinned at once for one name the first stays, and the second hears of it", async (t) => {
  const store = knownHosts(join(await temporaryFolder(t), "known_hosts"));
  const answers = await Promise.all([store.pin("example.org", KEY), store.pin("example.org", OTHER)]);
  assert.deepEqual(answers.map((answer) => answer.type).sort(), ["changed", "pinned"]);
  assert.equal((await readFile(store.file, "utf8")).split("\n").length, 2);
});

test("pinning what is pinned writes nothing", async (t) => {
  const store = knownHosts(join(await temporaryFolder(t), "known_hosts"));
  await store.pin("example.org", KEY);
  const before = (await stat(store.file)).ino;
  assert.equal((await store.pin("example.org", KEY)).type, "pinned");
  assert.equal((await stat(store.file)).ino, before);
});

test("a lock whose holder died is broken, and a live one is waited for until the caller gives up", async (t) => {
  const store = knownHosts(join(await temporaryFolder(t), "known_hosts"));
  await writeFile(`${store.file}.lock`, "");
  const caller = new AbortController();
  const waiting = store.pin("example.org", KEY, caller.signal);
  caller.abort();
  await assert.rejects(waiting, (error) => error instanceof FivedError && error.code === "ABORTED");
  assert.equal((await store.find("example.org", KEY)).type, "unknown");
  const longAgo = new Date(Date.now() - 60_000);
  await utimes(`${store.file}.lock`, longAgo, longAgo);
  assert.equal((await store.pin("example.org", KEY)).type, "pinned");
});

test("a file that cannot be read is a refusal, never a file without the name", async (t) => {
  const folder = await temporaryFolder(t);
  await mkdir(join(folder, "directory"));
  execFileSync("mkfifo", [join(folder, "fifo")]);
  await symlink("nowhere", join(folder, "dangling"));
  await symlink("loop", join(folder, "loop"));
  await writeFile(join(folder, "huge"), "");
  await truncate(join(folder, "huge"), KNOWN_HOSTS_BYTES_MAX + 1);
  const files = ["directory", "fifo", "dangling", "loop", "huge", "huge/below-a-file"].map((name) =>
    join(folder, name),
  );
  for (const file of [...files, "/dev/null"]) {
    await assert.rejects(knownHosts(file).find("example.org", KEY), unreadable(file));
  }
  for (const name of ["directory", "fifo", "dangling", "huge"]) {
    await assert.rejects(knownHosts(join(folder, name)).pin("example.org", KEY), unreadable(name));
  }
});

test("a file without the right to read it is a refusal", async (t) => {
  const store = knownHosts(join(await temporaryFolder(t), "known_hosts"));
  await store.pin("example.org", KEY);
  await chmod(store.file, 0);
  await asNobody(() => assert.rejects(store.find("example.org", KEY), unreadable(store.file)));
});

/** Root may read everything: as root the check runs with the rights of somebody else. */
async function asNobody(check: () => Promise<void>): Promise<void> {
  const root = process.geteuid?.() === 0;
  if (root) process.seteuid?.("nobody");
  try {
    await check();
  } finally {
    if (root) process.seteuid?.(0);
  }
}

test("a folder that cannot be written is told with the file and the way out", async (t) => {
  const folder = await temporaryFolder(t);
  await writeFile(join(folder, "file"), "");
  await assert.rejects(
    knownHosts(join(folder, "file", "known_hosts")).pin("example.org", KEY),
    (error) =>
      error instanceof FivedError && error.code === "STATE_UNUSABLE" && /make the file writable/.test(error.message),
  );
});

test("ssh-keygen finds, prints, hashes and removes what we wrote, and we read what it leaves", async (t) => {
  if (lacksSshKeygen(t)) return;
  const store = knownHosts(join(await temporaryFolder(t), "known_hosts"));
  const sshKeygen = (...args: string[]) =>
    execFileSync("ssh-keygen", [...args, "-f", store.file], { encoding: "utf8", stdio: ["ignore", "pipe", "ignore"] });
  const names = [
    "example.org",
    "[example.org]:22",
    "2001:db8::1",
    "[2001:db8::1]:22",
    "unix:/run/fived.sock",
    "xn--bcher-kva.de",
  ];
  for (const name of names) await store.pin(name, KEY);

  for (const name of names)
    assert.match(sshKeygen("-F", name), new RegExp(`^# Host ${name.replace(/[[\]]/g, "\\$&")} found: line`));
  assert.equal(sshKeygen("-l").split("\n")[0], `256 ${fingerprintOf(KEY)} example.org (ED25519)`);
  sshKeygen("-H");
  assert.match(await readFile(store.file, "utf8"), /^(\|1\|\S+ ssh-ed25519 \S+\n){6}$/);
  for (const name of names) assert.equal((await store.find(name, KEY)).type, "pinned", name);
  assert.equal((await store.find("example.com", KEY)).type, "unknown");
  sshKeygen("-R", "[example.org]:22");
  assert.equal((await store.find("[example.org]:22", KEY)).type, "unknown");
  assert.equal((await store.find("example.org", KEY)).type, "pinned");
});

test("patterns and hashes match as they do for ssh-keygen -F", async (t) => {
  if (lacksSshKeygen(t)) return;
  const file = join(await temporaryFolder(t), "known_hosts");
  const letters = (alphabet: string) => fc.string({ unit: fc.constantFrom(...alphabet), minLength: 1, maxLength: 6 });
  const pattern = fc.tuple(fc.constantFrom("", "", "!"), letters("aabB.*?")).map(([mark, body]) => mark + body);
  const hosts = fc.oneof(
    fc.array(pattern, { minLength: 1, maxLength: 3 }).map((list) => list.join(",")),
    letters("ab.").map((name) => hashed(name)),
  );
  await fc.assert(
    fc.asyncProperty(hosts, letters("ab."), async (list, name) => {
      const line = `${list} ${text(KEY)}\n`;
      await writeFile(file, line);
      let found = "pinned";
      try {
        execFileSync("ssh-keygen", ["-F", name, "-f", file], { stdio: "ignore" });
      } catch {
        found = "unknown";
      }
      assert.equal(search(line, file, name, KEY).type, found);
    }),
    { numRuns: 150 },
  );
});

const KEY = key("ssh-ed25519", 1);
const OTHER = key("ssh-ed25519", 2);
const THIRD = key("ssh-rsa", 3);

function key(type: string, seed: number): HostKey {
  const field = (octets: Uint8Array) => Buffer.concat([Uint8Array.of(0, 0, 0, octets.length), octets]);
  return {
    type,
    blob: Buffer.concat([field(Buffer.from(type)), field(createHash("sha256").update(`${seed}`).digest())]),
  };
}

function text({ type, blob }: HostKey): string {
  return `${type} ${Buffer.from(blob).toString("base64")}`;
}

function hashed(name: string): string {
  const salt = createHash("sha1").update(name).digest();
  return `|1|${salt.toString("base64")}|${createHmac("sha1", salt).update(name).digest("base64")}`;
}

function unreadable(about: string): (error: unknown) => boolean {
  return (error) =>
    error instanceof FivedError && error.code === "KNOWN_HOSTS_UNREADABLE" && error.message.includes(about);
}

async function temporaryFolder(t: TestContext): Promise<string> {
  const folder = await mkdtemp(join(tmpdir(), "fived-known-hosts-"));
  t.after(() => rm(folder, { recursive: true }));
  return folder;
}

function lacksSshKeygen(t: TestContext): boolean {
  const { FIVED_TEST_STRICT } = process.env;
  try {
    execFileSync("ssh-keygen", ["-F", "x", "-f", "/dev/null"], { stdio: "ignore" });
  } catch (error) {
    if (error instanceof Error && "code" in error && error.code === "ENOENT") {
      if (FIVED_TEST_STRICT === "1") throw new Error("ssh-keygen is missing: install openssh-client");
      t.skip("needs ssh-keygen (openssh-client)");
      return true;
    }
  }
  return false;
}
