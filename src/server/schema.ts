/**
 * The one schema of the configuration: what may stand in it, what is assumed where nothing stands, and what each key means. From it come
 * the checks (config.ts), the JSON Schema for editors and the reference page (scripts/schema.ts). Reading YAML, and saying where in the
 * file a mistake is, is config.ts's part.
 *
 * Every mapping arrives as a Map: keys such as `__proto__` or `22` are then like any other, and keep their order (abuse case L06).
 * @module
 */
import { accessSync, constants, statSync } from "node:fs";
import { isIP } from "node:net";
import { delimiter, extname, join, resolve } from "node:path";
import { z } from "zod";
import { canonicalName } from "../io/index.ts";
import { isServiceName } from "../wire/index.ts";
import { isPamServiceName } from "./auth/pam-process.ts";
import { isDefaultHost } from "./default-host.ts";
import {
  ENDPOINT_FORMS,
  type Endpoint,
  endpointText,
  FAR_FORM,
  type FarTarget,
  farUser,
  parseEndpoint,
  parseFarServer,
  parseFarTarget,
} from "./endpoint.ts";
import { RESERVED_WORDS } from "./words.ts";

/** Names in `allow` that need no definition. */
export const ANYONE = "anyone";
/** See {@link ANYONE}. */
export const EVERYONE_SIGNED_IN = "everyone-signed-in";

/** Where relative paths of a configuration start, and where its programs are looked for. */
export interface Surroundings {
  readonly folder: string;
  /** As in the environment variable PATH. */
  readonly path: string;
}

/** What a checked configuration file says, before config.ts gives it names and places. */
export type Settings = z.output<ReturnType<typeof configurationSchema>>;
/** What one session, one source or one service may cost; every bound of PROTOCOL §9.5 that an administrator can move. */
export type Limits = Settings["limits"];
/** How people sign in. */
export type AuthSettings = Settings["auth"];
/** What is signed of who is calling. */
export type AnnounceSettings = Settings["announce"];
/** Where the audit is written, and what follows when that fails. */
export type AuditSettings = NonNullable<Settings["audit"]>;
/** How long sessions live without a connection, and with how many. */
export type SessionSettings = Settings["sessions"];
/** How another session server is reached, and who we are there. */
export type HopSettings = z.output<ReturnType<typeof hopSchema>>;
/** Whose word about callers is believed. */
export type TrustSettings = z.output<ReturnType<typeof trustsSchema>>[number];
/** How the targets of a service share its streams. */
export type Balance = (typeof BALANCES)[number];

/** How a back end may learn who is calling. */
export type Announcement = (typeof ANNOUNCEMENTS)[number];

const ANNOUNCEMENTS = ["proxy-v2", "http", "fived"] as const;
const BALANCES = ["least-streams", "round-robin", "first"] as const;

/** More addresses than a computer has. */
const LISTENERS_MAX = 64;
/** More targets than a service of this kind ever has, and few enough to look at each when a stream opens. */
const TARGETS_MAX = 64;
/** Other servers whose word is believed: each is looked through for every stream that comes with one. */
const TRUSTS_MAX = 64;
/** Timers of Node end at 2^31 ms, and fire at once beyond. */
const DURATION_MS_MAX = 24 * 24 * 3_600_000;
/** Sizes count buffers in memory: more than this is a mistake in the unit. */
const SIZE_BYTES_MAX = 64 * 1024 ** 3;

/** Parameter of an issue: the key is wrong rather than its value. */
export const AT_KEY = { at: "key" };
/** Mark in the metadata of a list: a single item may stand for a list of one. */
export const ONE_OR_MANY = "x-one-or-many";
/** Mark in the metadata of a value: the JSON Schema of a shorter form it also takes. */
export const SHORT_FORM = "x-short-form";

/** The schema of a whole file. */
export function configurationSchema(surroundings: Surroundings) {
  const services = servicesSchema(surroundings);
  const tls = tlsSchema(surroundings);
  const configuration = mapping({
    listen: listenSchema(surroundings)
      .prefault(["tcp://127.0.0.1:1078"])
      .describe("Where the server listens: an address, or a list of addresses."),
    tls: tls
      .optional()
      .describe("The server's certificate. Without it the server makes its own and keeps it in the state folder."),
    auth: authSchema(surroundings).prefault({}).describe("How people sign in."),
    roles: rolesSchema().prefault(new Map()).describe("Names for groups of people, to be used in `allow`."),
    policies: file(surroundings.folder, "policies in Cedar")
      .optional()
      .describe("A file of Cedar policies, for rules that roles cannot express: see policies.md."),
    audit: auditSchema(surroundings)
      .optional()
      .describe("Where each sign-in, refusal and stream is written down, one JSON object a line: a file, or `stderr`."),
    announce: announceSchema(surroundings)
      .prefault({})
      .describe("What is signed of who is calling, for services with `announce`: see announce.md."),
    services: services.prefault(new Map()).describe("The services of the default host, in the order LIST shows them."),
    hosts: dictionary(
      mapping({
        services: services
          .prefault(new Map())
          .describe("The services of this host; those of the default host do not appear here."),
        tls: tls.optional().describe("A certificate of its own; without it the host shows the server's."),
      }),
      hostProblem,
      (name) => canonicalName(name) ?? name,
    )
      .prefault(new Map())
      .describe("Virtual hosts: other services under another name at the same address. The key is the host name."),
    hops: dictionary(
      hopSchema(surroundings),
      (name) => (parseFarServer(name) === undefined ? "expected [user@]host[:port], as in to" : undefined),
      (name) => parseFarServer(name) ?? name,
    )
      .prefault(new Map())
      .describe(
        `Other session servers that services lie behind, and who this server is there: see chaining.md. The key is what stands between fived:// and the service in \`to\`: \`[user@]host[:port]\`.`,
      ),
    trusts: trustsSchema(surroundings)
      .prefault([])
      .describe("Other session servers whose word about their callers is believed: see chaining.md."),
    sessions: sessionsSchema().prefault({}).describe("How sessions live."),
    limits: limitsSchema()
      .prefault({})
      .describe("What sessions and strangers may cost. The defaults are safe for the open Internet."),
  });
  return configuration.superRefine(({ services, hosts, hops }, context) => {
    const known = new Set([...hops.keys()].map((name) => parseFarServer(name)));
    const look = (entries: typeof services, path: string[]): void => {
      for (const [name, { backEnd }] of entries)
        if (backEnd.type === "far" && !known.has(backEnd.server))
          complain(
            context,
            [...path, name, "to"],
            `nothing says how to know that server; write an entry "${backEnd.server}" under hops`,
          );
    };
    look(services, ["services"]);
    for (const [name, host] of hosts) look(host.services, ["hosts", name, "services"]);
    for (const [name, { identity, password }] of hops) {
      const isSomebody = farUser(parseFarServer(name) ?? "") !== undefined;
      const proof = identity ?? password;
      if (isSomebody && proof === undefined)
        complain(context, ["hops", name], "expected identity or password: what the user signs in with", AT_KEY);
      if (!isSomebody && proof !== undefined)
        complain(context, ["hops", name], "signing in needs a user: write user@ in front", AT_KEY);
    }
  });
}

function hopSchema({ folder }: Surroundings) {
  return mapping({
    key: text("SHA256: and a fingerprint")
      .regex(/^SHA256:[A-Za-z0-9+/]{43}$/, "expected SHA256: and the fingerprint that the other server prints")
      .optional()
      .describe("Fingerprint of the only key that server may have."),
    knownHosts: file(folder, "pins, as in known_hosts")
      .optional()
      .describe("A file of pins that says which key it may have; nothing is added to it."),
    ca: text("system, or the path of certificates")
      .transform((path) => (path === "system" ? path : resolve(folder, path)))
      .refine((path) => path === "system" || isUsable(path, constants.R_OK), "there is no such file that we may read")
      .optional()
      .describe("Authorities that may vouch for that server's name: `system`, or a PEM file of others besides."),
    identity: file(folder, "a private SSH key")
      .optional()
      .describe("The SSH key, without a passphrase, that this server signs in with there."),
    password: file(folder, "a password")
      .optional()
      .describe("A file with the password that this server signs in with there; nobody else may read it."),
  }).superRefine(({ key, knownHosts, ca }, context) => {
    const given = [key, knownHosts, ca].filter((ground) => ground !== undefined).length;
    if (given !== 1) complain(context, [], "expected exactly one of key, knownHosts and ca: who that server has to be");
  });
}

function trustsSchema({ folder }: Surroundings) {
  const organisation = text("the name of a server, such as gate.example.org").transform((name, context) => {
    const canonical = canonicalName(name);
    if (canonical === undefined) complain(context, [], "expected the name of a server, such as gate.example.org");
    return canonical ?? name;
  });
  const keys = text("a file of keys, or the https address of one").transform((source, context) => {
    if (!/^https?:/.test(source)) {
      const path = resolve(folder, source);
      if (!isUsable(path, constants.R_OK)) complain(context, [], "there is no such file that we may read");
      return path;
    }
    const url = URL.parse(source);
    const isHere = url !== null && /^(?:localhost|127(?:\.\d+){3}|\[::1\])$/.test(url.hostname);
    if (url === null || (url.protocol !== "https:" && !isHere))
      complain(context, [], "whoever is on the way could give other keys; expected a file or https");
    return url ?? source;
  });
  const trust = mapping({
    issuer: organisation.describe(
      "That server's name (`announce.issuer` there); its people are called `NAME@ISSUER` here.",
    ),
    keys: keys.describe("Its public keys (JWKS): a file, or the https address where it publishes them."),
    as: z
      .array(
        text("a user or a role").refine((name) => name !== ANYONE, "expected who that server is here: it signs in"),
        { error: "expected a list, such as [gateway]" },
      )
      .min(1, "expected at least one")
      .describe("Who that server is here: users and roles, one of which it has to have signed in as."),
    through: z
      .array(organisation, { error: "expected a list, such as [a.example]" })
      .max(TRUSTS_MAX, `expected at most ${TRUSTS_MAX}`)
      .prefault([])
      .describe("Other servers of whose people it may speak too, as it was told of them."),
  });
  return z
    .array(trust, { error: "expected a list of mappings with issuer, keys and as" })
    .max(TRUSTS_MAX, `expected at most ${TRUSTS_MAX}`)
    .superRefine((trusts, context) => {
      const seen = new Set<string>();
      for (const [index, { issuer }] of trusts.entries()) {
        if (seen.has(issuer)) complain(context, [index, "issuer"], "it stands here twice");
        seen.add(issuer);
      }
    });
}

function listenSchema({ folder }: Surroundings) {
  const url = text("an address such as tcp://0.0.0.0:1078 or unix:/run/fived/fived.sock")
    .transform(endpointIn(folder, 0))
    .meta({ title: "address", examples: ["tcp://0.0.0.0:1078", "unix:/run/fived/fived.sock"] });
  const listener = mapping({
    url: url.describe(`The address: ${ENDPOINT_FORMS}. Port 0 takes any free port.`),
    plaintext: flag()
      .prefault(false)
      .describe(
        "Serve those who do not use TLS too. They always may on loopback addresses and Unix sockets; elsewhere others can listen.",
      ),
  });
  const short = z
    .preprocess((value) => (typeof value === "string" || typeof value === "number" ? { url: value } : value), listener)
    .meta({ [SHORT_FORM]: { title: "address", type: "string" } });
  return oneOrMany(short, LISTENERS_MAX).superRefine((listeners, context) => {
    const seen = new Set<string>();
    for (const [index, { url: endpoint }] of listeners.entries()) {
      const address = endpointText(endpoint);
      if (seen.has(address) && !address.endsWith(":0")) complain(context, [index], `the address stands here twice`);
      seen.add(address);
    }
  });
}

function tlsSchema({ folder }: Surroundings) {
  return mapping({
    certificate: file(folder, "a certificate in PEM form").describe(
      "PEM file: the certificate, then any intermediate certificates.",
    ),
    key: file(folder, "a key in PEM form").describe(
      "PEM file: the private key, unencrypted; only its owner and group may read it.",
    ),
    clientCa: file(folder, "certificates in PEM form")
      .optional()
      .describe("PEM file: authorities whose client certificates are believed."),
  });
}

function authSchema({ folder }: Surroundings) {
  const pattern = text("the path of authorized keys, such as /etc/fived/keys/%u")
    .refine((path) => /%u/.test(path), "expected a path with %u, which stands for the user's name")
    .transform((path) => resolve(folder, path));
  const passwords = mapping({
    store: text("the name of a user store")
      .optional()
      .describe(
        "The user store that `fived user` keeps: a path, in the state folder where it is relative. `users` unless said otherwise.",
      ),
    pam: text("the name of a PAM service")
      .refine(isPamServiceName, "expected the name of a file in /etc/pam.d")
      .optional()
      .describe("Ask PAM instead, as the service of this name in /etc/pam.d; see pam.md."),
    helper: text("the path of a socket")
      .transform((path) => resolve(folder, path))
      .optional()
      .describe("With `pam`, where the server is not root: the socket of `fived pam-helper`, which is."),
  }).superRefine(({ store, pam, helper }, context) => {
    if (store !== undefined && pam !== undefined) complain(context, [], "expected one of store and pam");
    if (helper !== undefined && pam === undefined) complain(context, ["helper"], "belongs to pam", AT_KEY);
  });
  const pubkey = mapping({
    authorizedKeys: pattern
      .optional()
      .describe("Files of keys as OpenSSH's authorized_keys; %u is the user. Besides the keys of the user store."),
    userCa: file(folder, "public keys of certificate authorities")
      .optional()
      .describe(
        "A file of public keys, a line each: OpenSSH user certificates that one of them has signed are believed.",
      ),
  });
  const cert = mapping({
    automatic: flag()
      .prefault(false)
      .describe("Sign in whoever shows a valid certificate, without waiting for AUTH cert."),
  });
  return mapping({
    mechanisms: z
      .array(oneOf(MECHANISM_CHOICES), { error: "expected a list, such as [pubkey, up]" })
      .prefault(["pubkey", "up"])
      .describe("The ways to sign in that are offered."),
    up: passwords.prefault({}).describe("Where passwords are checked."),
    pubkey: pubkey.prefault({}).describe("Whose SSH keys are believed, besides those of the user store."),
    cert: cert.prefault({}).describe("TLS client certificates by an authority of `tls.clientCa`."),
    secondFactor: z
      .array(text("a user or a role"), { error: "expected a list, such as [ops]" })
      .prefault([])
      .describe(
        "Who has to give a second factor (TOTP) too: users and roles. Whoever has one set up is asked for it anyway.",
      ),
    plaintext: flag()
      .prefault(false)
      .describe("Let people sign in outside TLS. Everybody on the way then reads what they type."),
    providers: unavailable("Other servers whose identities are believed."),
  });
}

/** What `auth.mechanisms` may name. */
const MECHANISM_CHOICES = ["pubkey", "up", "cert", "ext"] as const;

function auditSchema({ folder }: Surroundings) {
  const target = text("a file, or stderr").transform((path) => (path === "stderr" ? path : resolve(folder, path)));
  const audit = mapping({
    file: target.describe("The file, to which lines are added; or `stderr`."),
    onFailure: oneOf(["continue", "refuse"])
      .prefault("continue")
      .describe("What happens to requests while lines cannot be written."),
  });
  return z
    .preprocess((value) => (typeof value === "string" ? { file: value } : value), audit)
    .meta({ [SHORT_FORM]: { title: "file", type: "string" } });
}

function announceSchema({ folder }: Surroundings) {
  return mapping({
    issuer: text("a name without blanks")
      .refine((name) => /^[\x21-\x7e]{1,255}$/.test(name), "expected a name without blanks")
      .optional()
      .describe("Name of this server in what it signs; the computer's host name unless said otherwise."),
    keys: text("a file")
      .transform((path) => resolve(folder, path))
      .optional()
      .describe("Where the public keys are written, too, for back ends that may not read the state folder."),
  });
}

function rolesSchema() {
  const member = text('a user ("alice", "bob@p.example") or a group ("group:staff")').refine(
    (name) => /^[^\s,\p{C}]{1,255}$/u.test(name),
    "expected a name without blanks and commas",
  );
  return dictionary(
    z.array(member).describe("Who has the role: users, and `group:NAME`."),
    (name) => {
      if (name === ANYONE || name === EVERYONE_SIGNED_IN)
        return "the name has its own meaning in allow, choose another";
      return isServiceName(name) ? undefined : "the name of a role has 1 to 64 of A-Z a-z 0-9 . _ + -";
    },
    (name) => name,
  );
}

function servicesSchema(surroundings: Surroundings) {
  const { folder } = surroundings;
  const forms = `${ENDPOINT_FORMS}, or ${FAR_FORM}`;
  const near = endpointIn(folder, 1);
  const to = text(forms)
    .transform((value, context): Endpoint | FarTarget => {
      if (!value.startsWith("fived://")) return near(value, context);
      const far = parseFarTarget(value);
      if (far !== undefined) return far;
      complain(context, [], `expected ${FAR_FORM}`);
      return z.NEVER;
    })
    .meta({ title: "address", examples: ["tcp://127.0.0.1:8080", "unix:/run/app.sock", "fived://other.example/wiki"] });
  const target = z
    .preprocess((value) => (Number.isInteger(value) ? String(value) : value), to)
    .meta({ [SHORT_FORM]: { title: "port", type: "integer", minimum: 1, maximum: 65_535 } });
  const argument = text("text; put numbers in quotes").refine(
    (value) => !value.includes("\0"),
    "expected text without a NUL",
  );
  const command = z
    .array(argument, { error: "expected a list of arguments, such as [date, -u]" })
    .min(1, "expected a program and its arguments")
    .transform(([name = "", ...args], context) => {
      const program = findProgram(name, surroundings);
      if (program === undefined) complain(context, [0], "there is no such program that we may run");
      return { program: program ?? name, args };
    });
  const service = mapping({
    to: oneOrMany(target, TARGETS_MAX)
      .optional()
      .describe(
        `Where the bytes go: ${ENDPOINT_FORMS}, or a list of several; or ${FAR_FORM}, a service behind another session server.`,
      ),
    exec: command
      .optional()
      .describe(
        "A program and its arguments, started for every stream, without a shell. The stream is its standard input and output.",
      ),
    module: file(folder, "a module that exports a service")
      .refine(
        (path) => MODULE_EXTENSIONS.has(extname(path)),
        `expected a file ending in ${[...MODULE_EXTENSIONS].join(", ")}`,
      )
      .optional()
      .describe("A JavaScript or TypeScript module whose default export was made by `service()`."),
    keys: z
      .literal(true, { error: "expected true" })
      .optional()
      .describe("Instead of a back end: answers HTTP with the public keys of what this server signs (JWKS)."),
    processes: count(1, 10_000)
      .optional()
      .describe("With `exec`: how many may run at once (256 unless said otherwise)."),
    balance: oneOf(BALANCES)
      .optional()
      .describe(
        "With several addresses in `to`: which one gets the next stream; `least-streams` unless said otherwise.",
      ),
    health: mapping({
      interval: duration().prefault("10s").describe("How often each address is tried."),
    })
      .transform(({ interval }) => ({ intervalMs: interval }))
      .optional()
      .describe("With `to`: try the addresses also while nobody uses them. Always done when there are several."),
    allow: z
      .array(text(`a user, a role, ${ANYONE} or ${EVERYONE_SIGNED_IN}`), {
        error: `expected a list, such as [${ANYONE}] or [ops, alice]`,
      })
      .optional()
      .describe(
        `Who may use the service: users, roles, \`${ANYONE}\`, \`${EVERYONE_SIGNED_IN}\`. Without it nobody sees the service.`,
      ),
    announce: oneOf(ANNOUNCEMENTS)
      .optional()
      .describe(
        "With `to`: how the back end learns who is calling; see announce.md, and chaining.md for `fived`. Programs learn it from their environment.",
      ),
  })
    .superRefine(
      ({ to, exec, module, keys, processes, balance, health, announce }, context) => {
        const given = [to, exec, module, keys].filter((backEnd) => backEnd !== undefined).length;
        if (given !== 1) complain(context, [], "expected exactly one of to, exec, module and keys");
        if (exec === undefined && processes !== undefined) complain(context, ["processes"], "belongs to exec", AT_KEY);
        if (to === undefined && balance !== undefined) complain(context, ["balance"], "belongs to to", AT_KEY);
        if (to === undefined && health !== undefined) complain(context, ["health"], "belongs to to", AT_KEY);
        if (to === undefined && announce !== undefined) complain(context, ["announce"], "belongs to to", AT_KEY);
        const isFar = to?.some(({ type }) => type === "far") ?? false;
        if (isFar && to?.length !== 1)
          complain(context, ["to"], "a service behind another session server has one address");
        if (isFar && balance !== undefined) complain(context, ["balance"], "belongs to several addresses", AT_KEY);
        if (isFar && health !== undefined) complain(context, ["health"], "belongs to sockets", AT_KEY);
        if (to !== undefined && announce !== undefined && (announce === "fived") !== isFar)
          complain(context, ["announce"], `expected ${isFar ? "fived" : "proxy-v2 or http"} for that address`);
      },
      { when: ({ value }) => typeof value === "object" && value !== null },
    )
    .transform(({ allow, ...keys }) => ({ backEnd: backEnd(keys, folder), allow }));
  return dictionary(
    service,
    (name) => {
      if (isWildcard(name)) return undefined;
      if (RESERVED_WORDS.includes(name.toUpperCase())) return "the name is a word of the protocol, choose another";
      return isServiceName(name)
        ? undefined
        : "the name of a service has 1 to 64 of A-Z a-z 0-9 . _ + - and begins with none of . + -";
    },
    (name) => name.toLowerCase(),
  ).superRefine((entries, context) => {
    for (const name of entries.keys()) {
      const backEnd = entries.get(name)?.backEnd;
      if (backEnd === undefined) continue; // it has been complained of
      const isSameName = backEnd.type === "far" && backEnd.service === undefined;
      if (isWildcard(name) === isSameName) continue;
      const what = isSameName ? "write * in the name, too" : "a name with * needs fived://host/* in to";
      complain(context, [name], `* stands in both or in neither: ${what}`, AT_KEY);
    }
  });
}

/** All services of another server: `*`, or `*.other` for their names with something behind each. */
export function isWildcard(name: string): boolean {
  return /^\*(?:\.[A-Za-z0-9._+-]{1,62})?$/.test(name);
}

/** Where the bytes of a service go. */
export type BackEndSettings =
  | {
      readonly type: "tcp";
      readonly targets: readonly Endpoint[];
      readonly balance: Balance;
      /** How the target learns who is calling; undefined for not at all. */
      readonly announce: Exclude<Announcement, "fived"> | undefined;
      /** How often each target is tried; undefined for never. */
      readonly checkIntervalMs: number | undefined;
    }
  | {
      readonly type: "exec";
      readonly program: string;
      readonly args: readonly string[];
      /** Working directory of the process. */
      readonly folder: string;
      readonly processesMax: number;
    }
  | { readonly type: "module"; readonly file: string }
  | { readonly type: "keys" }
  | (FarTarget & {
      /** Tell the other server who is calling. */
      readonly vouches: boolean;
    });

/** Processes of one `exec` service, unless the configuration says otherwise: a few hundred small ones fit any computer. */
export const PROCESSES_DEFAULT = 256;
/** How often targets are tried where there are several and nothing else is said. */
const CHECK_INTERVAL_MS_DEFAULT = 10_000;

interface ServiceKeys {
  readonly to?: readonly (Endpoint | FarTarget)[] | undefined;
  readonly exec?: { readonly program: string; readonly args: readonly string[] } | undefined;
  readonly module?: string | undefined;
  readonly keys?: true | undefined;
  readonly processes?: number | undefined;
  readonly balance?: Balance | undefined;
  readonly health?: { readonly intervalMs: number } | undefined;
  readonly announce?: Announcement | undefined;
}

function backEnd(keys: ServiceKeys, folder: string): BackEndSettings {
  if (keys.to !== undefined) {
    const checked = keys.health?.intervalMs ?? (keys.to.length > 1 ? CHECK_INTERVAL_MS_DEFAULT : undefined);
    const { to, balance = "least-streams", announce } = keys;
    for (const target of to) if (target.type === "far") return { ...target, vouches: announce === "fived" };
    const targets = to.filter((target) => target.type !== "far");
    return {
      ...{ type: "tcp", targets, balance, checkIntervalMs: checked },
      announce: announce === "fived" ? undefined : announce,
    };
  }
  if (keys.exec !== undefined) {
    return { type: "exec", ...keys.exec, folder, processesMax: keys.processes ?? PROCESSES_DEFAULT };
  }
  if (keys.module !== undefined) return { type: "module", file: keys.module };
  if (keys.keys !== undefined) return { type: "keys" };
  throw new Error("Invariant: a checked service has one back end");
}

function sessionsSchema() {
  return mapping({
    connections: count(1, 64).prefault(4).describe("Connections that one session may have at once."),
    detach: detachSchema().prefault({}).describe("Sessions that outlive their connections (DETACHABLE)."),
  });
}

function detachSchema() {
  return mapping({
    keep: duration().prefault("15m").describe("How long a session is kept without a connection, at most."),
    queue: size(64 * 1024)
      .prefault("1MiB")
      .describe("What is held for it meanwhile; then its back ends wait."),
    perIdentity: count(0, 1_000_000).prefault(4).describe("Detachable sessions of one user."),
    anonymous: count(0, 1_000_000)
      .prefault(0)
      .describe("Detachable sessions of users who are not known, all together."),
    attaches: count(1, 1_000_000).prefault(10).describe("Attaches to one session a minute; half as many at once."),
    total: count(0, 10_000_000).prefault(1_000).describe("Detachable sessions in all."),
    memory: size(1024 * 1024)
      .prefault("256MiB")
      .describe("What all sessions without a connection may hold; beyond it those end that have been so longest."),
  }).transform(({ keep, queue, memory, ...counts }) => ({
    ...counts,
    keepMs: keep,
    queueBytes: queue,
    memoryBytes: memory,
  }));
}

function limitsSchema() {
  const anonymous = mapping({
    streams: count(1, 10_000).prefault(8).describe("Streams at once in a session whose user is not known."),
    budget: size(64 * 1024)
      .prefault("512KiB")
      .describe("What the peer of such a session may make the server hold."),
  }).transform(({ streams, budget }) => ({ streams, budgetBytes: budget }));

  const unauthenticated = mapping({
    perSource: count(1, 1_000_000)
      .prefault(16)
      .describe("Connections of one source that have not made a first accepted request."),
    start: count(1, 1_000_000)
      .prefault(10)
      .describe("From so many such connections in all, new ones are refused at random …"),
    rate: count(0, 100).prefault(30).describe("… first so many in a hundred, then more and more …"),
    full: count(1, 1_000_000).prefault(100).describe("… and from so many on, all of them (as OpenSSH's MaxStartups)."),
    ipv4Prefix: count(0, 32).prefault(32).describe("Bits of an IPv4 address that make a source."),
    ipv6Prefix: count(0, 128).prefault(56).describe("Bits of an IPv6 address that make a source."),
    time: duration().prefault("30s").describe("Time until a first request is granted, however many are refused."),
    spareLoopback: flag().prefault(false).describe("Count no connections from this computer."),
  })
    .superRefine(({ start, full }, context) => {
      if (full < start) complain(context, ["full"], "expected at least as many as start");
    })
    .transform(({ time, ...counts }) => ({ ...counts, timeMs: time }));

  const penalties = mapping({
    authFailure: duration().prefault("5s").describe("For each sign-in that failed."),
    min: duration().prefault("15s").describe("A source is refused once its penalties come to so much …"),
    max: duration().prefault("10m").describe("… and for at most so long."),
    sources: count(1, 1_000_000)
      .prefault(65_536)
      .describe("Sources that are remembered; of more, the least guilty are forgotten."),
    exempt: z
      .array(text("a network such as 10.0.0.0/8"), { error: "expected a list, such as [10.0.0.0/8]" })
      .prefault([])
      .describe("Networks whose sources get no penalties."),
    spareLoopback: flag().prefault(false).describe("Connections from this computer get no penalties."),
  })
    .superRefine(({ min, max, exempt }, context) => {
      if (max < min) complain(context, ["max"], "expected at least as much as min");
      for (const [index, network] of exempt.entries())
        if (!isNetwork(network))
          complain(context, ["exempt", index], "expected a network such as 10.0.0.0/8 or 2001:db8::/32");
    })
    .transform(({ authFailure, min, max, ...rest }) => ({
      ...rest,
      authFailureMs: authFailure,
      minMs: min,
      maxMs: max,
    }));

  const controlQueue = mapping({
    frames: count(1, 1_000_000)
      .prefault(1_000)
      .describe("Answers that may wait for a peer that does not read; then it is not read either."),
  });

  const glitches = mapping({
    capacity: count(1, 1_000_000)
      .prefault(1_000)
      .describe("Oddities a connection may have at once; a reset counts 10, an empty frame 5."),
    perSecond: count(1, 1_000_000).prefault(33).describe("Oddities forgiven every second."),
  });

  const pings = mapping({
    capacity: count(1, 1_000_000).prefault(10).describe("PING frames at once; more are oddities."),
    perSecond: count(1, 1_000_000).prefault(2).describe("PING frames every second."),
  });

  const keepalive = mapping({
    interval: duration().prefault("30s").describe("A silent connection is asked for a sign of life after this time."),
    misses: count(1, 100).prefault(2).describe("Questions without an answer after which the connection is dead."),
  }).transform(({ interval, misses }) => ({ intervalMs: interval, misses }));

  return mapping({
    streams: count(1, 10_000).prefault(100).describe("Streams at once in a session whose user is known."),
    pendingOpens: count(1, 10_000).prefault(32).describe("Of these, streams whose back end has not answered yet."),
    budget: size(64 * 1024)
      .prefault("8MiB")
      .describe("What the peer of a session may make the server hold: credit that is outstanding."),
    initialCredit: size(64 * 1024)
      .prefault("64KiB")
      .describe("Credit of a new stream; the protocol demands at least 64KiB."),
    window: size(64 * 1024)
      .prefault("4MiB")
      .describe("How far the credit of one stream may grow."),
    logWindow: size(1024 * 1024)
      .prefault("8MiB")
      .describe("How much may be under way unacknowledged; the protocol demands at least 1MiB."),
    anonymous: anonymous.prefault({}).describe("Sessions whose user is not known."),
    unauthenticated: unauthenticated.prefault({}).describe("Connections that have not made a first accepted request."),
    penalties: penalties
      .prefault({})
      .describe("What a source gets for sign-ins that failed, after OpenSSH's PerSourcePenalties."),
    firstLine: duration().prefault("10s").describe("Time for the first line of a connection."),
    betweenLines: duration().prefault("120s").describe("Time between two lines of a conversation that has spoken."),
    handshake: duration().prefault("10s").describe("Time for the TLS handshake."),
    connect: duration()
      .prefault("5s")
      .describe("Time for a back end to accept a connection, all its addresses together."),
    controlQueue: controlQueue.prefault({}).describe("Answers that wait for a peer."),
    sendQueue: size(16 * 1024)
      .prefault("256KiB")
      .describe("What may wait for one connection; then the services are not read any more."),
    stall: duration().prefault("60s").describe("A connection that takes nothing for this time is closed."),
    streamStall: duration()
      .prefault("10m")
      .describe("A stream on which nothing moves though something waits is reset after this time."),
    glitches: glitches.prefault({}).describe("Oddities: legal once, an attack in bulk."),
    framesPerSecond: count(100, 100_000_000)
      .prefault(20_000)
      .describe("Small frames of one session every second, while others are active."),
    pings: pings.prefault({}).describe("PING frames of a peer."),
    keepalive: keepalive.prefault({}).describe("When a silent connection counts as dead."),
    shutdown: duration().prefault("10s").describe("How long streams may go on when the server is told to end."),
  })
    .superRefine(({ window, initialCredit }, context) => {
      if (window < initialCredit) complain(context, ["window"], "expected at least initialCredit");
    })
    .transform(({ budget, initialCredit, window, logWindow, firstLine, betweenLines, handshake, connect, ...rest }) => {
      const { sendQueue, stall, streamStall, shutdown, ...plain } = rest;
      return {
        ...plain,
        budgetBytes: budget,
        initialCreditBytes: initialCredit,
        windowBytesMax: window,
        logWindowBytesMax: logWindow,
        sendQueueBytes: sendQueue,
        firstLineMs: firstLine,
        betweenLinesMs: betweenLines,
        handshakeMs: handshake,
        connectMs: connect,
        stallMs: stall,
        streamStallMs: streamStall,
        shutdownMs: shutdown,
      };
    });
}

function isNetwork(text: string): boolean {
  const [address = "", prefix, ...more] = text.split("/");
  const bits = isIP(address) === 6 ? 128 : 32;
  if (isIP(address) === 0 || more.length > 0) return false;
  return prefix === undefined || (/^\d{1,3}$/.test(prefix) && Number(prefix) <= bits);
}

/** A mapping with exactly these keys. */
function mapping<Shape extends z.ZodRawShape>(shape: Shape) {
  const keys = Object.keys(shape);
  const object = z.strictObject(shape, {
    // One line a key, in the order of the keys: config.ts tells each at its own place.
    error: (issue) =>
      issue.code === "unrecognized_keys"
        ? issue.keys.map((key) => unknownKey(key, keys)).join("\n")
        : `expected a mapping with ${words(keys, "and")}`,
  });
  return z.preprocess((value) => (value instanceof Map ? withoutPrototype(value) : value), object);
}

/** Any number of entries under names of the administrator's choice. `problem` judges a name, `identity` says which names are the same. */
function dictionary<Value extends z.ZodType>(
  value: Value,
  problem: (name: string) => string | undefined,
  identity: (name: string) => string,
) {
  return z.map(z.string(), value, { error: "expected a mapping of names" }).superRefine(
    (entries, context) => {
      const seen = new Map<string, string>();
      for (const name of entries.keys()) {
        const wrong = problem(name);
        const twin = seen.get(identity(name));
        if (wrong !== undefined) complain(context, [name], wrong, AT_KEY);
        else if (twin !== undefined) complain(context, [name], `the name means the same as "${twin}"`, AT_KEY);
        else seen.set(identity(name), name);
      }
    },
    { when: ({ value: entries }) => entries instanceof Map },
  );
}

/** One item, or a list of them. */
function oneOrMany<Item extends z.ZodType>(item: Item, most: number) {
  const items = z.array(item).min(1, "expected at least one").max(most, `expected at most ${most}`);
  return z.preprocess((value) => (Array.isArray(value) ? value : [value]), items).meta({ [ONE_OR_MANY]: true });
}

/** A key that a later release knows: better refused than silently without effect. */
function unavailable(description: string) {
  return z
    .unknown()
    .superRefine((value, context) => {
      if (value !== undefined) complain(context, [], "not available in this release", AT_KEY);
    })
    .optional()
    .meta({ not: {}, description: `${description} Not available in this release.` });
}

function text(expected: string) {
  return z.string({ error: `expected ${expected}` }).min(1, `expected ${expected}`);
}

function flag() {
  return z.boolean({ error: "expected true or false" });
}

function oneOf<const Words extends readonly string[]>(choices: Words) {
  return z.enum(choices, { error: `expected ${words(choices, "or")}` });
}

function count(least: number, most: number) {
  const error = `expected a whole number from ${least} to ${most}`;
  return z.int({ error }).min(least, error).max(most, error);
}

function duration() {
  const error = "expected a duration from 1ms to 24d, such as 500ms, 10s or 15m";
  return z
    .string({ error })
    .regex(/^\d+(\.\d+)?(ms|s|m|h|d)$/, error)
    .transform(scaled({ ms: 1, s: 1_000, m: 60_000, h: 3_600_000, d: 86_400_000 }, 1, DURATION_MS_MAX, error))
    .meta({ title: "duration" });
}

function size(least: number) {
  const smallest = least < 1024 * 1024 ? `${least / 1024}KiB` : `${least / 1024 / 1024}MiB`;
  const error = `expected a size from ${smallest} to 64GiB, such as 512KiB or 8MiB`;
  return z
    .string({ error })
    .regex(/^\d+(\.\d+)?(B|KiB|MiB|GiB)$/, error)
    .transform(scaled({ B: 1, KiB: 1024, MiB: 1024 ** 2, GiB: 1024 ** 3 }, least, SIZE_BYTES_MAX, error))
    .meta({ title: "size" });
}

/** Number and unit as a whole number of the smallest unit. */
function scaled(units: Readonly<Record<string, number>>, least: number, most: number, error: string) {
  return (value: string, context: z.RefinementCtx): number => {
    const [, number, unit = ""] = /^([\d.]+)([A-Za-z]+)$/.exec(value) ?? [];
    const amount = Math.round(Number(number) * (units[unit] ?? Number.NaN));
    if (!(amount >= least && amount <= most)) complain(context, [], error);
    return amount;
  };
}

function endpointIn(folder: string, leastPort: number) {
  return (value: string, context: z.RefinementCtx): Endpoint => {
    const endpoint = parseEndpoint(value, folder);
    if (endpoint !== undefined && (endpoint.type === "unix" || endpoint.port >= leastPort)) return endpoint;
    complain(context, [], `expected ${ENDPOINT_FORMS}`);
    return z.NEVER;
  };
}

/** The absolute path of a file that is there and that we may read. */
function file(folder: string, what: string) {
  return text(`the path of ${what}`)
    .transform((path) => resolve(folder, path))
    .refine((path) => isUsable(path, constants.R_OK), "there is no such file that we may read");
}

/** What a shell would run: a path if there is a slash in it, else the first of that name in PATH. */
function findProgram(name: string, { folder, path }: Surroundings): string | undefined {
  if (name.includes("/")) {
    const program = resolve(folder, name);
    return isUsable(program, constants.X_OK) ? program : undefined;
  }
  // An empty entry of PATH means the working folder, which is nobody's intention here.
  const places = path.split(delimiter).filter((place) => place !== "");
  return places.map((place) => join(place, name)).find((program) => isUsable(program, constants.X_OK));
}

function isUsable(path: string, access: number): boolean {
  try {
    accessSync(path, access);
    return statSync(path).isFile();
  } catch {
    return false; // whatever the reason: we cannot use it
  }
}

const MODULE_EXTENSIONS: ReadonlySet<string> = new Set([".ts", ".mts", ".js", ".mjs"]);

function hostProblem(name: string): string | undefined {
  if (isDefaultHost(name)) return "the name means the default host: write its services under services";
  return canonicalName(name) === undefined ? "expected the name of a host, such as git.example.org" : undefined;
}

function unknownKey(key: string, known: readonly string[]): string {
  const meant = known
    .map((word) => ({ word, distance: editDistance(key.toLowerCase(), word.toLowerCase()) }))
    .filter(({ word, distance }) => distance <= Math.max(1, word.length / 3))
    .sort((a, b) => a.distance - b.distance)[0];
  return meant === undefined
    ? `unknown key; known here: ${known.join(", ")}`
    : `unknown key, did you mean ${meant.word}?`;
}

/** How many letters must be changed, added, left out or swapped with their neighbour to come from one word to the other. */
function editDistance(from: string, to: string): number {
  let [before, last] = [[] as number[], Array.from({ length: to.length + 1 }, (_, at) => at)];
  for (let row = 1; row <= from.length; row++) {
    const next = [row];
    for (let column = 1; column <= to.length; column++) {
      const same = from[row - 1] === to[column - 1];
      const swapped = from[row - 2] === to[column - 1] && from[row - 1] === to[column - 2];
      next[column] = Math.min(
        (last[column] ?? 0) + 1,
        (next[column - 1] ?? 0) + 1,
        (last[column - 1] ?? 0) + (same ? 0 : 1),
        swapped && row > 1 && column > 1 ? (before[column - 2] ?? 0) + 1 : Number.POSITIVE_INFINITY,
      );
    }
    [before, last] = [last, next];
  }
  return last[to.length] ?? 0;
}

function complain(context: z.RefinementCtx, path: (string | number)[], message: string, params?: typeof AT_KEY): void {
  context.addIssue({ code: "custom", path, message, ...(params === undefined ? {} : { params }) });
}

function withoutPrototype(entries: ReadonlyMap<unknown, unknown>): object {
  const object: Record<string, unknown> = Object.create(null);
  for (const [key, value] of entries) object[String(key)] = value;
  return object;
}

function words(list: readonly string[], last: "and" | "or"): string {
  return list.length < 2 ? list.join("") : `${list.slice(0, -1).join(", ")} ${last} ${list.at(-1)}`;
}
