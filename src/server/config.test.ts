import assert from "node:assert/strict";
import { chmod, mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import test, { type TestContext } from "node:test";
import { fileURLToPath } from "node:url";
import { FivedError } from "../io/index.ts";
import { ownCertificate } from "./certificate.ts";
import {
  ConfigurationError,
  checkConfiguration,
  configurationFromTargets,
  loadConfiguration,
  problemText,
} from "./config.ts";
import type { BackEndSettings } from "./schema.ts";

const STATE = "/state";

/** A folder with a configuration and, beside it, whatever else is given. */
async function written(t: TestContext, yaml: string, others: Readonly<Record<string, string>> = {}): Promise<string> {
  const folder = await mkdtemp(join(tmpdir(), "fived-config-"));
  t.after(() => rm(folder, { recursive: true, force: true }));
  for (const [name, content] of Object.entries(others)) await writeFile(join(folder, name), content);
  const file = join(folder, "fived.yaml");
  await writeFile(file, yaml);
  return file;
}

/** What is wrong in a configuration, without the name of its file. */
async function complaints(t: TestContext, yaml: string): Promise<readonly string[]> {
  const file = await written(t, yaml);
  const problems = await checkConfiguration(file);
  return problems.map((problem) => problemText(problem).replace(`${file}:`, ""));
}

test("a configuration with a bit of everything means what it says", async (t) => {
  const file = await written(
    t,
    `
listen: [tcp://0.0.0.0:0, { url: "unix:run/fived.sock", plaintext: true }]
roles: { ops: [alice, "bob@p.example"], staff: ["group:staff"] }
services:
  wiki:  { to: tcp://127.0.0.1:8080, allow: [staff], announce: proxy-v2 }
  db:    { to: ["tcp://10.0.0.1:5432", "[::1]:5432", "unix:db.sock"], balance: round-robin, allow: [ops, alice] }
  one:   { to: 3000, health: { interval: 2.5s }, allow: [anyone] }
  clock: { exec: [date, -u], processes: 3, allow: [anyone] }
  quote: { module: ./quote.ts, allow: [everyone-signed-in] }
hosts:
  Git.Example.org.: { services: { ssh: { to: "git.example.org:22", allow: ["carol@p.example"] } } }
sessions: { connections: 2 }
limits: { anonymous: { streams: 4, budget: 1MiB }, connect: 500ms }
`,
    { "quote.ts": "" },
  );
  const folder = join(file, "..");
  const configuration = await loadConfiguration(file, { state: "/state" });
  assert.deepEqual(configuration.listen, [
    { endpoint: { type: "tcp", host: "0.0.0.0", port: 0 }, plaintext: false },
    { endpoint: { type: "unix", path: join(folder, "run/fived.sock") }, plaintext: true },
  ]);
  assert.deepEqual(
    configuration.services.map(({ name, allow }) => [name, ...allow]),
    [
      ["wiki", "staff"],
      ["db", "ops", "alice"],
      ["one", "anyone"],
      ["clock", "anyone"],
      ["quote", "everyone-signed-in"],
    ],
  );
  const [wiki, db, one, clock, quote] = configuration.services.map(({ backEnd }) => backEnd);
  assert.deepEqual(wiki, {
    type: "tcp",
    targets: [{ type: "tcp", host: "127.0.0.1", port: 8080 }],
    balance: "least-streams",
    announce: "proxy-v2",
    checkIntervalMs: undefined,
  });
  assert.deepEqual(db, {
    type: "tcp",
    targets: [
      { type: "tcp", host: "10.0.0.1", port: 5432 },
      { type: "tcp", host: "::1", port: 5432 },
      { type: "unix", path: join(folder, "db.sock") },
    ],
    balance: "round-robin",
    announce: undefined,
    checkIntervalMs: 10_000,
  });
  assert.equal(one?.type === "tcp" && one.checkIntervalMs, 2_500);
  assert.ok(clock?.type === "exec" && clock.program.endsWith("/date"));
  assert.deepEqual([clock.args, clock.folder, clock.processesMax], [["-u"], folder, 3]);
  assert.deepEqual(quote, { type: "module", file: join(folder, "quote.ts") });
  assert.equal(configuration.services[4]?.at, `${file}:9:3 services.quote`);
  assert.deepEqual(
    configuration.hosts.map(({ name, services, tls }) => [name, services[0]?.name, services[0]?.backEnd, tls]),
    [
      [
        "git.example.org",
        "ssh",
        {
          type: "tcp",
          targets: [{ type: "tcp", host: "git.example.org", port: 22 }],
          balance: "least-streams",
          announce: undefined,
          checkIntervalMs: undefined,
        },
        undefined,
      ],
    ],
  );
  assert.deepEqual(
    [...configuration.roles],
    [
      ["ops", ["alice", "bob@p.example"]],
      ["staff", ["group:staff"]],
    ],
  );
  assert.equal(configuration.sessions.connections, 2);
  assert.deepEqual(configuration.limits.anonymous, { streams: 4, budgetBytes: 1_048_576 });
  assert.equal(configuration.limits.connectMs, 500);
  assert.equal(configuration.limits.framesPerSecond, 20_000);
  assert.deepEqual([configuration.file, configuration.state, configuration.tls], [file, "/state", undefined]);
  assert.deepEqual(configuration.warnings, []);
});

test("there is nothing wrong with the example", async () => {
  assert.deepEqual(await checkConfiguration(fileURLToPath(new URL("../../examples/fived.yaml", import.meta.url))), []);
});

test("an empty file is a configuration of loopback and nothing", async (t) => {
  const configuration = await loadConfiguration(await written(t, "# nothing yet\n"), { state: STATE });
  assert.deepEqual(configuration.listen, [
    { endpoint: { type: "tcp", host: "127.0.0.1", port: 1078 }, plaintext: false },
  ]);
  assert.deepEqual([configuration.services, configuration.hosts], [[], []]);
});

test("every problem is told at once, with its place, its value and what was expected", async (t) => {
  const yaml = `listen: [tcp://x, { url: tcp://127.0.0.1:1, plaintxt: true }]
servces: {}
tls: { certificate: none.pem }
services:
  wiki: { to: "tcp://127.0.0.1:99999", balance: least-stream, allow: ops }
  list: { to: 81 }
  "a b": { to: 82, exec: [date] }
  lost: { exec: [no-such-program-here] }
  quote: { module: ./quote.ts, processes: 4, health: {} }
  num: { exec: [sleep, 5] }
  empty:
hosts:
  127.0.0.1: {}
limits: { streams: 0, firstLine: 10, anonymous: { budget: 12MB } }
`;
  assert.deepEqual(await complaints(t, yaml), [
    '1:10 listen[0]: "tcp://x", expected a port, host:port, tcp://host:port or unix:/path',
    "1:45 listen[1].plaintxt: unknown key, did you mean plaintext?",
    "2:1 servces: unknown key, did you mean services?",
    "3:6 tls.key: missing, expected the path of a key in PEM form",
    '3:21 tls.certificate: "none.pem", there is no such file that we may read',
    '5:15 services.wiki.to: "tcp://127.0.0.1:99999", expected a port, host:port, tcp://host:port or unix:/path',
    '5:49 services.wiki.balance: "least-stream", expected least-streams, round-robin or first',
    '5:70 services.wiki.allow: "ops", expected a list, such as [anyone] or [ops, alice]',
    "6:3 services.list: the name is a word of the protocol, choose another",
    '7:3 services."a b": the name of a service has 1 to 64 of A-Z a-z 0-9 . _ + - and begins with none of . + -',
    '7:10 services."a b": expected exactly one of to, exec, module and keys',
    '8:18 services.lost.exec[0]: "no-such-program-here", there is no such program that we may run',
    '9:20 services.quote.module: "./quote.ts", there is no such file that we may read',
    "9:32 services.quote.processes: belongs to exec",
    "9:46 services.quote.health: belongs to to",
    "10:24 services.num.exec[1]: 5, expected text; put numbers in quotes",
    "11:3 services.empty: nothing, expected a mapping with to, exec, module, keys, processes, balance, health, allow and announce",
    '13:3 hosts."127.0.0.1": the name means the default host: write its services under services',
    "14:20 limits.streams: 0, expected a whole number from 1 to 10000",
    "14:34 limits.firstLine: 10, expected a duration from 1ms to 24d, such as 500ms, 10s or 15m",
    '14:59 limits.anonymous.budget: "12MB", expected a size from 64KiB to 64GiB, such as 512KiB or 8MiB',
  ]);
});

test("loading throws one error that carries every problem", async (t) => {
  const file = await written(t, "servces: {}\nlimits: { streams: no }\n");
  await assert.rejects(loadConfiguration(file, { state: STATE }), (error) => {
    assert.ok(error instanceof ConfigurationError && error instanceof FivedError);
    assert.equal(error.code, "CONFIGURATION_BAD");
    assert.deepEqual(
      error.problems.map(({ severity, line, column, path }) => [severity, line, column, path]),
      [
        ["error", 1, 1, "servces"],
        ["error", 2, 20, "limits.streams"],
      ],
    );
    assert.equal(error.message.split("\n").length, 3);
    return true;
  });
});

test("L09 words of the protocol are no names of services, in any case", async (t) => {
  const words = ["LIST", "help", "Tls", "MULTIPLEX", "host", "Auth", "DETACHABLE", "attach", "ProveAuth", "GETSIGNKEY"];
  const yaml = words.map((word) => `  ${word}: { to: 80, allow: [anyone] }\n`).join("");
  const found = await complaints(t, `services:\n${yaml}`);
  assert.deepEqual(
    found,
    words.map((word, index) => `${index + 2}:3 services.${word}: the name is a word of the protocol, choose another`),
  );
});

test("L09 two names that the protocol cannot tell apart are refused, services and hosts alike", async (t) => {
  const found = await complaints(
    t,
    `services:
  http: { to: 80, allow: [anyone] }
  HtTp: { to: 81, allow: [anyone] }
hosts:
  bücher.example: {}
  xn--bcher-kva.EXAMPLE.: {}
  a.example: { services: { http: { to: 82, allow: [anyone] } } }
`,
  );
  assert.deepEqual(found, [
    '3:3 services.HtTp: the name means the same as "http"',
    '6:3 hosts."xn--bcher-kva.EXAMPLE.": the name means the same as "bücher.example"',
  ]);
});

test("a key that stands there twice is told, and so is everything else", async (t) => {
  const found = await complaints(t, "services: {}\nlimits: { stremas: 1 }\nservices: {}\n");
  assert.deepEqual(found, [
    "2:11 limits.stremas: unknown key, did you mean streams?",
    '3:1 the key "services" stands here twice',
  ]);
});

test("what is not YAML, not a mapping or not there is told as such", async (t) => {
  assert.match((await complaints(t, "services: [\n")).join(), /^2:1 is not YAML: /);
  assert.match((await complaints(t, "a: !!js/function x\n")).join(), /^1:4 is not YAML: unresolved tag/);
  assert.match((await complaints(t, "- a\n- b\n")).join(), /^1:1 a list, expected a mapping with listen, /);
  assert.match((await complaints(t, "--- {}\n--- {}\n")).join(), /^2:1 is not YAML: /);
  assert.match((await complaints(t, `${"[".repeat(40)}${"]".repeat(40)}`)).join(), /^1:34 it is too deep$/);
  assert.match((await complaints(t, "[".repeat(100_000))).join(), /^1:\d+ is not YAML: maximum call stack/);
  const [problem] = await checkConfiguration("/nonexistent/fived.yaml");
  assert.match(
    problem === undefined ? "" : problemText(problem),
    /^\/nonexistent\/fived\.yaml:1:1 cannot be read: ENOENT/,
  );
});

test("keys of a later release are refused rather than silently without effect", async (t) => {
  assert.deepEqual(await complaints(t, "auth: { providers: {} }\n"), [
    "1:9 auth.providers: not available in this release",
  ]);
});

test("how people sign in is read with its defaults, and what does not fit together is refused", async (t) => {
  const { auth } = await loadConfiguration(await written(t, "{}"), { state: STATE });
  assert.deepEqual(auth, {
    mechanisms: ["pubkey", "up"],
    up: {},
    pubkey: {},
    cert: { automatic: false },
    secondFactor: [],
    plaintext: false,
  });
  const yaml = `auth:
  mechanisms: [pubkey, password]
  up: { store: users, pam: login }
  pubkey: { authorizedKeys: /etc/keys }
services: { a: { exec: [date], allow: [anyone], announce: http } }
limits: { penalties: { min: 1h, max: 1m, exempt: [10.0.0.0/33, 10.0.0.0/8, "2001:db8::/32"] } }
`;
  assert.deepEqual(await complaints(t, yaml), [
    '2:24 auth.mechanisms[1]: "password", expected pubkey, up, cert or ext',
    "3:7 auth.up: expected one of store and pam",
    '4:29 auth.pubkey.authorizedKeys: "/etc/keys", expected a path with %u, which stands for the user\'s name',
    "5:49 services.a.announce: belongs to to",
    '6:38 limits.penalties.max: "1m", expected at least as much as min',
    '6:51 limits.penalties.exempt[0]: "10.0.0.0/33", expected a network such as 10.0.0.0/8 or 2001:db8::/32',
  ]);
});

test("what is wrong in a file of policies is told with the place in that file", async (t) => {
  const file = await written(t, "policies: p.cedar\n", {
    "p.cedar": "\nforbid(principal, action, resource) when { context.vpn };\n",
  });
  const [problem, ...more] = await checkConfiguration(file);
  assert.deepEqual(more, []);
  assert.match(problemText(problem ?? assert.fail()), /\/p\.cedar:2:\d+ attribute `vpn`/);
  await assert.rejects(loadConfiguration(file, { state: STATE }), { code: "CONFIGURATION_BAD" });
});

test("doubts are warnings: a service for nobody, a role that nothing defines", async (t) => {
  const yaml = `roles: { ops: [alice] }
services:
  a: { to: 1 }
  b: { to: 1, allow: [] }
  c: { to: 1, allow: [ops, alice, staff, "bob@p.example", anyone] }
hosts: { x.example: { services: { d: { to: 1, allow: [x] } } } }
`;
  const expected = [
    "3:3 warning: services.a: nobody may use it; say who, as in allow: [anyone]",
    "4:3 warning: services.b: nobody may use it; say who, as in allow: [anyone]",
    '5:35 warning: services.c.allow[2]: "staff", no role of that name is defined: nobody has it, unless a user is called so',
    '6:55 warning: hosts."x.example".services.d.allow[0]: "x", no role of that name is defined: nobody has it, unless a user is called so',
  ];
  const file = await written(t, yaml);
  const { warnings } = await loadConfiguration(file, { state: STATE });
  assert.deepEqual(
    warnings.map((problem) => problemText(problem).replace(`${file}:`, "")),
    expected,
  );
  assert.deepEqual(await checkConfiguration(file), warnings);
});

test("names from JavaScript's own objects are names like any other", async (t) => {
  const names = ["__proto__", "constructor", "toString", "hasOwnProperty"];
  const services = names.map((name) => `  ${name}: { to: 80, allow: [anyone] }\n`).join("");
  const { services: found } = await loadConfiguration(await written(t, `services:\n${services}`), { state: STATE });
  assert.deepEqual(
    found.map(({ name }) => name),
    names,
  );
  assert.equal(Reflect.get({}, "to"), undefined);
  assert.deepEqual(await complaints(t, "__proto__: { polluted: true }\nlimits: { constructor: 1 }\n"), [
    `1:1 __proto__: unknown key; known here: listen, tls, auth, roles, policies, audit, announce, services, hosts, hops, trusts, sessions, limits`,
    (await complaints(t, "limits: { constructor: 1 }\n"))[0]?.replace(/^1:/, "2:"),
  ]);
  assert.equal(Reflect.get({}, "polluted"), undefined);
});

test("names that look like numbers keep their spelling and their place", async (t) => {
  const yaml = "services:\n  z: { to: 1 }\n  22: { to: 1 }\n  0x16: { to: 1 }\n  true: { to: 1 }\n  1: { to: 1 }\n";
  const { services } = await loadConfiguration(await written(t, yaml), { state: STATE });
  assert.deepEqual(
    services.map(({ name }) => name),
    ["z", "22", "0x16", "true", "1"],
  );
});

test("aliases may repeat what was written once, and may not grow without bound", async (t) => {
  const fair = "roles: { a: &people [alice, bob], b: *people }\n";
  const { roles } = await loadConfiguration(await written(t, fair), { state: STATE });
  assert.deepEqual(roles.get("b"), ["alice", "bob"]);
  const rows = Array.from(
    { length: 30 },
    (_, row) => `  - &r${row} [${Array(9).fill(row === 0 ? "x" : `*r${row - 1}`)}]`,
  );
  const bomb = `listen:\n${rows.join("\n")}\n`;
  const started = performance.now();
  assert.match((await complaints(t, bomb)).join(), /the aliases in it grow too large|is not YAML/);
  assert.ok(performance.now() - started < 2_000);
  assert.match((await complaints(t, "roles: &all { a: *all }\n")).join(), /too large|too deep|is not YAML/);
});

test("a mistake behind an alias is told where it was written", async (t) => {
  const found = await complaints(t, "roles:\n  a: &people [alice, 5]\n  b: *people\n");
  assert.deepEqual(found, [
    `2:22 roles.a[1]: 5, expected a user ("alice", "bob@p.example") or a group ("group:staff")`,
    `2:22 roles.b[1]: 5, expected a user ("alice", "bob@p.example") or a group ("group:staff")`,
  ]);
});

test("PAM is looked at when a configuration is checked, unless a helper asks it", async (t) => {
  assert.deepEqual(await complaints(t, "auth:\n  up: { pam: fived-no-such-service }\n"), [
    '2:14 auth.up.pam: "fived-no-such-service", PAM cannot be asked: there is no file /etc/pam.d/fived-no-such-service',
  ]);
  assert.deepEqual(await complaints(t, "auth: { up: { pam: ../passwd } }\n"), [
    '1:20 auth.up.pam: "../passwd", expected the name of a file in /etc/pam.d',
  ]);
  assert.deepEqual(await complaints(t, "auth: { up: { pam: fived-no-such-service, helper: pam.sock } }\n"), []);
});

test("certificates are opened when a configuration is checked, those of hosts too", async (t) => {
  const yaml = `tls: { certificate: host.pem, key: host.key }
hosts: { a.example: { tls: { certificate: host.pem, key: other.pem } } }
`;
  const file = await written(t, yaml, { "other.pem": "nothing" });
  const folder = join(file, "..");
  await chmod(join(folder, "other.pem"), 0o600);
  await ownCertificate(folder, ["a.example"]);
  const found = (await checkConfiguration(file)).map((problem) => problemText(problem).replaceAll(`${folder}/`, ""));
  assert.deepEqual(found, [
    'fived.yaml:2:23 hosts."a.example".tls: Cannot use the key other.pem: it is not a PEM private key',
  ]);
});

test("what a file says is shown with its controls escaped", async (t) => {
  const [found = ""] = await complaints(t, 'services: { a: { to: "\\e[2J\\x9b\\u202e" } }\n');
  assert.match(found, /^[\x20-\x7e]+$/);
});

test("targets of the command line become services", async (t) => {
  const folder = await mkdtemp(join(tmpdir(), "fived-config-"));
  t.after(() => rm(folder, { recursive: true, force: true }));
  await writeFile(join(folder, "quote.ts"), "");
  const targets = ["web=3000", "db=DB.example:5432", "s=unix:/p", "q=./quote.ts", "date=exec:date  -u", "six=[::1]:80"];
  const configuration = configurationFromTargets({ targets, state: "/state", folder });
  assert.deepEqual(configuration.listen, [
    { endpoint: { type: "tcp", host: "127.0.0.1", port: 1078 }, plaintext: false },
  ]);
  const leadsTo = (backEnd: BackEndSettings): unknown => {
    if (backEnd.type === "tcp") return backEnd.targets[0];
    if (backEnd.type === "exec") return backEnd.args;
    return backEnd.type === "module" ? backEnd.file : backEnd.type;
  };
  assert.deepEqual(
    configuration.services.map(({ name, backEnd, allow }) => [name, leadsTo(backEnd), ...allow]),
    [
      ["web", { type: "tcp", host: "127.0.0.1", port: 3000 }, "anyone"],
      ["db", { type: "tcp", host: "db.example", port: 5432 }, "anyone"],
      ["s", { type: "unix", path: "/p" }, "anyone"],
      ["q", join(folder, "quote.ts"), "anyone"],
      ["date", ["-u"], "anyone"],
      ["six", { type: "tcp", host: "::1", port: 80 }, "anyone"],
    ],
  );
  const listening = configurationFromTargets({
    targets: ["a=1"],
    listen: ["tcp://0.0.0.0:0"],
    allow: ["ops"],
    state: STATE,
  });
  assert.deepEqual(listening.listen[0]?.endpoint, { type: "tcp", host: "0.0.0.0", port: 0 });
  assert.deepEqual(listening.services[0]?.allow, ["ops"]);
});

test("a wrong command line is told argument by argument", () => {
  const targets = ["web", "=x", "web=1", "web=2", "q=./nope.ts", "e=exec:", "h=http://x:1", "list=1"];
  assert.throws(
    () => configurationFromTargets({ targets, listen: ["tcp://x"], state: STATE, folder: "/" }),
    (error) => {
      assert.ok(error instanceof ConfigurationError);
      assert.deepEqual(error.problems.map(problemText), [
        '"web", expected NAME=TARGET, such as web=3000',
        '"=x", expected NAME=TARGET, such as web=3000',
        '"web=2", the name "web" stands here twice',
        'listen[0]: "tcp://x", expected a port, host:port, tcp://host:port or unix:/path',
        'services.q.module: "./nope.ts", there is no such file that we may read',
        "services.e.exec: expected a program and its arguments",
        'services.h.to: "http://x:1", expected a port, host:port, tcp://host:port or unix:/path',
        "services.list: the name is a word of the protocol, choose another",
      ]);
      return true;
    },
  );
});

test("ten thousand services are read, each with its own place", async (t) => {
  const services = Array.from(
    { length: 10_000 },
    (_, n) => `  s${n}: { to: tcp://127.0.0.1:${1 + n}, allow: [anyone] }`,
  );
  const file = await written(t, `services:\n${services.join("\n")}\n`);
  const configuration = await loadConfiguration(file, { state: STATE });
  assert.equal(configuration.services.length, 10_000);
  assert.equal(configuration.services[9_999]?.at, `${file}:10001:3 services.s9999`);
});

test("services behind other servers say how those are known, and who this server is there", async (t) => {
  const file = await written(t, "");
  const folder = dirname(file);
  for (const name of ["pins", "id", "keys"]) await writeFile(join(folder, name), "");
  const key = `SHA256:${"A".repeat(43)}`;
  const yaml = `services:
  wiki: { to: "fived://Gateway@Other.Example/Wiki", announce: fived, allow: [anyone] }
  "*.b": { to: "fived://[::1]:7/*", allow: [anyone] }
hops:
  Gateway@other.example.:1078: { key: "${key}", identity: id }
  "[::1]:7": { knownHosts: pins }
trusts:
  - { issuer: A.Example., keys: keys, as: [gateway] }
  - { issuer: b.example, keys: "https://b.example/.well-known/jwks.json", as: [ops], through: [C.example] }
`;
  await writeFile(file, yaml);
  const { services, hops, trusts } = await loadConfiguration(file, { state: STATE });
  assert.deepEqual(
    services.map(({ backEnd }) => backEnd),
    [
      { type: "far", server: "Gateway@other.example", service: "Wiki", vouches: true },
      { type: "far", server: "[::1]:7", service: undefined, vouches: false },
    ],
  );
  assert.deepEqual(
    [...hops],
    [
      ["Gateway@other.example", { key, identity: join(folder, "id") }],
      ["[::1]:7", { knownHosts: join(folder, "pins") }],
    ],
  );
  assert.deepEqual(trusts, [
    { issuer: "a.example", keys: join(folder, "keys"), as: ["gateway"], through: [] },
    {
      ...{ issuer: "b.example", keys: new URL("https://b.example/.well-known/jwks.json") },
      ...{ as: ["ops"], through: ["c.example"] },
    },
  ]);
});

test("mistakes about other servers are told with their places", async (t) => {
  const key = `SHA256:${"A".repeat(43)}`;
  const forms = `services:
  a: { to: "fived://x" }
  b: { to: ["fived://x/b", 80] }
  c: { to: "fived://x/c", balance: first, health: {}, announce: http }
  d: { to: 80, announce: fived }
  "*g": { to: "fived://x/*" }
  via: { to: 80 }
hops:
  "a:b@x": { ca: system }
  x: {}
  y: { ca: system, key: "${key}" }
  z: { key: "SHA256:AAA" }
  w: { ca: none.pem }
trusts:
  - { issuer: "a b", keys: none, as: [anyone] }
  - { issuer: c.example, keys: "http://c.example/keys", as: [] }
  - { issuer: d.example, keys: "https://d.example/", as: [d], through: ["-"] }
`;
  assert.deepEqual(await complaints(t, forms), [
    '2:12 services.a.to: "fived://x", expected fived://[user@]host[:port]/service',
    "3:12 services.b.to: a service behind another session server has one address",
    "4:27 services.c.balance: belongs to several addresses",
    "4:43 services.c.health: belongs to sockets",
    '4:65 services.c.announce: "http", expected fived for that address',
    '5:26 services.d.announce: "fived", expected proxy-v2 or http for that address',
    '6:3 services."*g": the name of a service has 1 to 64 of A-Z a-z 0-9 . _ + - and begins with none of . + -',
    "7:3 services.via: the name is a word of the protocol, choose another",
    '9:3 hops."a:b@x": expected [user@]host[:port], as in to',
    "10:6 hops.x: expected exactly one of key, knownHosts and ca: who that server has to be",
    "11:6 hops.y: expected exactly one of key, knownHosts and ca: who that server has to be",
    '12:13 hops.z.key: "SHA256:AAA", expected SHA256: and the fingerprint that the other server prints',
    '13:12 hops.w.ca: "none.pem", there is no such file that we may read',
    '15:15 trusts[0].issuer: "a b", expected the name of a server, such as gate.example.org',
    '15:28 trusts[0].keys: "none", there is no such file that we may read',
    '15:39 trusts[0].as[0]: "anyone", expected who that server is here: it signs in',
    '16:32 trusts[1].keys: "http://c.example/keys", whoever is on the way could give other keys; expected a file or https',
    "16:61 trusts[1].as: expected at least one",
    '17:73 trusts[2].through[0]: "-", expected the name of a server, such as gate.example.org',
  ]);
  const wildcards = `services:
  "*": { to: "fived://x/e", allow: [anyone] }
  f: { to: "fived://x/*", allow: [anyone] }
  "*.g": { exec: [date], allow: [anyone] }
hops:
  x: { ca: system }
  X.: { ca: system }
trusts:
  - { issuer: d.example, keys: "https://d.example/", as: [d] }
  - { issuer: D.example, keys: "https://d.example/", as: [d] }
`;
  assert.deepEqual(await complaints(t, wildcards), [
    '2:3 services."*": * stands in both or in neither: a name with * needs fived://host/* in to',
    "3:3 services.f: * stands in both or in neither: write * in the name, too",
    '4:3 services."*.g": * stands in both or in neither: a name with * needs fived://host/* in to',
    '7:3 hops."X.": the name means the same as "x"',
    '10:15 trusts[1].issuer: "D.example", it stands here twice',
  ]);
  const known = `services:
  a: { to: "fived://gateway@x/a", allow: [anyone] }
hosts:
  h.example: { services: { b: { to: "fived://y/b", allow: [anyone] } } }
hops:
  x: { ca: system }
  gateway@y: { ca: system }
  z: { ca: system, password: fived.yaml }
`;
  assert.deepEqual(await complaints(t, known), [
    '2:12 services.a.to: "fived://gateway@x/a", nothing says how to know that server; write an entry "gateway@x" under hops',
    '4:37 hosts."h.example".services.b.to: "fived://y/b", nothing says how to know that server; write an entry "y" under hops',
    '7:3 hops."gateway@y": expected identity or password: what the user signs in with',
    "8:3 hops.z: signing in needs a user: write user@ in front",
  ]);
});
