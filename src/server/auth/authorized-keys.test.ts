import assert from "node:assert/strict";
import { generateKeyPairSync } from "node:crypto";
import test from "node:test";
import fc from "fast-check";
import { seed } from "../../../test/sim/seed.ts";
import { keyFingerprint, publicKeyOf } from "../../identity/index.ts";
import {
  KEY_LINE_BYTES_MAX,
  KEYS_BYTES_MAX,
  keyLines,
  readAuthorities,
  readAuthorizedKeys,
  readKeyLine,
} from "./authorized-keys.ts";

fc.configureGlobal({ seed, numRuns: 500 });

function newKey(): string {
  const key = publicKeyOf(generateKeyPairSync("ed25519").publicKey);
  assert.ok(key);
  return `${key.type} ${Buffer.from(key.blob).toString("base64")}`;
}

const key = newKey();

function granting(options: string) {
  const read = readKeyLine(`${options} ${key} somebody`, 1);
  assert.ok("key" in read, JSON.stringify(read));
  return read;
}

function reason(line: string): string {
  const read = readKeyLine(line, 7);
  assert.ok("reason" in read, line);
  assert.equal(read.line, 7);
  return read.reason;
}

test("a line without options, with a comment that looks like some, grants a login", () => {
  for (const line of [key, `  ${key}\t`, `${key}\r`, `${key} command="x" from="y"`]) {
    const read = readKeyLine(line, 1);
    assert.ok("key" in read, line);
    assert.deepEqual([read.isAuthority, read.from, read.expires, read.touch], [false, undefined, undefined, true]);
  }
});

test("options that make sense here are understood, whatever their case", () => {
  const read = granting(
    'From="192.0.2.0/24,!192.0.2.9",EXPIRY-TIME="20300102Z",no-touch-required,verify-required,fived-roles="ops,staff"',
  );
  assert.equal(read.from?.("192.0.2.1"), true);
  assert.equal(read.from?.("192.0.2.9"), false);
  assert.equal(read.expires, Date.UTC(2030, 0, 2));
  assert.deepEqual([read.touch, read.verification, read.roles], [false, true, ["ops", "staff"]]);
  assert.deepEqual(granting('cert-authority,principals="a,b"').principals, ["a", "b"]);
  assert.equal(granting("cert-authority").isAuthority, true);
});

test("options that are only about ssh are passed over", () => {
  granting("restrict,pty,no-pty,no-port-forwarding,no-agent-forwarding,no-X11-forwarding,no-user-rc,user-rc");
  granting("port-forwarding,agent-forwarding,X11-forwarding");
});

test("an option that narrows and cannot be honoured, or is new, makes its line grant nothing", () => {
  for (const option of [
    ...['command="/bin/true"', 'environment="A=b"', 'tunnel="0"', 'permitopen="host:80"', 'permitlisten="80"'],
    ...[
      "no-fived",
      'new="x"',
      "from",
      "expiry-time",
      "principals",
      "fived-roles",
      "command",
      'no-pty="x"',
      'restrict=""',
    ],
    ...[
      'from="example org"',
      'from=""',
      'from="!*.example.org"',
      'fived-roles=""',
      'fived-roles="a b"',
      'fived-roles="a,,b"',
    ],
    ...[
      'expiry-time="soon"',
      'expiry-time="20301301"',
      'expiry-time="20300230"',
      'expiry-time="203001"',
      'expiry-time=""',
    ],
    ...['expiry-time="203001022400Z"', 'from="::1",from="*"', 'principals="a"', "cert-authority=yes"],
  ])
    assert.ok(reason(`${option} ${key}`).length > 10, option);
});

test("a time may be a day, a minute or a second, here or in UTC, and the earlier of two counts", () => {
  const expires = (value: string) => granting(`expiry-time="${value}"`).expires;
  assert.equal(expires("20300102"), new Date(2030, 0, 2).getTime());
  assert.equal(expires("203001020304"), new Date(2030, 0, 2, 3, 4).getTime());
  assert.equal(expires("20300102030405Z"), Date.UTC(2030, 0, 2, 3, 4, 5));
  const two = granting('expiry-time="20310101Z",expiry-time="20300101Z"').expires;
  assert.equal(two, Date.UTC(2030, 0, 1));
});

test("quotes end where sshd ends them", () => {
  // What stands in quotes is no option, however much it looks like one.
  assert.match(reason(`command="a\\",cert-authority,x=\\"" ${key}`), /command/);
  assert.match(
    reason(`environment="A=\\\\",cert-authority ${key}`),
    /no key behind/,
    "a backslash before a quote always hides it",
  );
  assert.match(reason(`fived-roles="ops ${key}`), /no key behind/);
  assert.match(reason(`fived-roles=ops ${key}`), /no key behind/);
  assert.match(reason(`no-pty,,no-pty ${key}`), /no key behind/);
  assert.match(reason(`no-pty, ${key}`), /no key behind/);
  assert.match(reason(`no-pty${key}`), /no key behind/);
});

test("lines that have no key we know grant nothing", () => {
  for (const line of ["ssh-dss AAAAB3NzaC1kc3M=", "ssh-ed25519", "ssh-ed25519 AAAA", "rubbish", `${key.slice(0, -3)}`])
    assert.match(reason(line), /no key behind/);
  assert.match(reason(`${key} ${"x".repeat(KEY_LINE_BYTES_MAX)}`), /longer than/);
});

test("a file is read line by line, and the same key may stand there twice", () => {
  const other = newKey();
  const file = `# comment\n\n  # another\r\n${key}\nno-pty,from="::1" ${key}\ncert-authority ${other}\nrubbish\n`;
  const { logins, authorities, useless } = readAuthorizedKeys(keyLines(Buffer.from(file)));
  const fingerprint = keyFingerprint(Buffer.from(key.split(" ")[1] ?? "", "base64"));
  assert.deepEqual(
    logins.get(fingerprint)?.map(({ line }) => line),
    [4, 5],
  );
  assert.equal(logins.size, 1);
  assert.equal(authorities.size, 1, "an authority is no login");
  assert.deepEqual(
    useless.map(({ line }) => line),
    [7],
  );
});

test("a file of authorities has a key on each line, and says which line has none", () => {
  assert.equal(readAuthorities(`# ours\n${key} ca\r\n\n${newKey()}\n`, "ca.pub").length, 2);
  assert.throws(() => readAuthorities(`${key}\nrubbish\n`, "ca.pub"), {
    code: "CONFIGURATION_BAD",
    message: /line 2 of ca\.pub/,
  });
  assert.throws(() => readAuthorities(`cert-authority ${key}`, "ca.pub"), { code: "CONFIGURATION_BAD" });
});

test("what is too much grants nothing: keys above 1,000, and any key of a file above a megabyte", () => {
  const keys = Array.from({ length: 1_002 }, () => key);
  const { logins, useless } = readAuthorizedKeys(keys);
  assert.equal([...logins.values()].flat().length, 1_000);
  assert.deepEqual(
    useless.map(({ line }) => line),
    [1_001],
  );
  assert.deepEqual(keyLines(Buffer.from(`${key}\n${"#".repeat(KEYS_BYTES_MAX)}`)), []);
});

test("a long line of anything costs no more than its length", () => {
  const long = KEY_LINE_BYTES_MAX - 200;
  const started = process.cpuUsage();
  for (const filler of [" ", "\t", '"', "\\", '\\"', "a", "a,", 'a="', ",", "x ", "ssh-rsa "])
    for (const line of [filler.repeat(long / filler.length), `${key}${filler.repeat(long / filler.length)}x`])
      readAuthorizedKeys([`${line}`, `no-pty ${line}`, `x="${line}`]);
  const { user } = process.cpuUsage(started);
  assert.ok(user < 2_000_000, `took ${user} µs`);
});

test("whatever a line says, reading it throws nothing, and only a line with a known key grants", () => {
  const piece = fc.oneof(
    fc.string({ unit: "binary-ascii" }),
    fc.constantFrom(key, "from=", '"', "\\", ",", " ", "cert-authority", 'expiry-time="2030', "fived-roles=", "no-pty"),
  );
  fc.assert(
    fc.property(fc.array(piece, { maxLength: 12 }), (pieces) => {
      const read = readKeyLine(pieces.join(""), 1);
      if ("key" in read) assert.ok(pieces.includes(key));
    }),
  );
  const line = `from="::1",expiry-time="20300101",fived-roles="a" ${key}`;
  for (let at = 0; at < line.length; at++)
    for (const octet of ["\0", '"', "\\", ",", " ", "\xff"])
      readKeyLine(line.slice(0, at) + octet + line.slice(at + 1), 1);
});
