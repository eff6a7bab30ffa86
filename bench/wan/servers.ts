/**
 * What the ways lead through: the origin, and each server at the far end of the link with whatever it needs at the near one. All of them as
 * their packages install them, with nothing but addresses, keys and TLS 1.3 set up.
 * @module
 */
import { existsSync } from "node:fs";
import { mkdir, readFile, writeFile } from "node:fs/promises";
import { userInfo } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { stringify } from "yaml";
import { openUsers } from "../../src/server/auth/users.ts";
import { silentLog } from "../../src/server/log.ts";
import { COMMAND, ROOT, RUNTIME } from "../fived.ts";
import { absent, fivedVersion, makeCertificate, program, sshdFolder } from "../peers.ts";
import { run, type Started, start } from "../processes.ts";
import { type End, type Link, SERVER_ADDRESS } from "./link.ts";
import { ANSWER_BYTES, filesIn, PORTS, SERVICES, sshArguments, USER, type WayName } from "./site.ts";

/** What a server may take from its start until it listens. */
const READY_SECONDS = 20;
const POLL_MS = 50;

/** Where a server is started, and what ends it. */
export interface Ground {
  readonly folder: string;
  readonly link: Link;
  readonly stack: AsyncDisposableStack;
  readonly signal: AbortSignal;
}

/** A server, or a pair of them. */
export interface Server {
  readonly name: string;
  /** Ways that lead through it. */
  readonly ways: readonly WayName[];
  /** What it lacks to run here; undefined when nothing. */
  missing(): string | undefined;
  /** Its version, for the report. */
  version(): Promise<string>;
  /** Starts it; rejects with the end of its log when it does not listen. */
  start(ground: Ground): Promise<void>;
}

/** Makes what several servers use: a certificate for the server's address, and a key pair for whoever signs in. */
export async function makeKeys(folder: string): Promise<void> {
  await makeCertificate(folder, SERVER_ADDRESS);
  for (const name of ["user-key", "host-key"])
    await run("ssh-keygen", ["-q", "-t", "ed25519", "-N", "", "-C", name, "-f", join(folder, name)]);
}

const origin: Server = {
  name: "origin",
  ways: ["tcp"],
  missing: () => absent("gcc"),
  version: async () => (await readFile("/proc/sys/kernel/osrelease", "utf8")).trim(),
  async start(ground) {
    const binary = join(ground.folder, "origin");
    await run("gcc", ["-O2", "-Wall", "-pthread", "-o", binary, join(import.meta.dirname, "origin.c")]);
    await serving(ground, "server", PORTS.origin, [binary, String(PORTS.origin)]);
  },
};

const nginx: Server = {
  name: "nginx",
  ways: ["https"],
  missing: () => absent("nginx", "openssl"),
  version: async () => (await run(program("nginx"), ["-v"])).stderr.trim(),
  async start(ground) {
    const { folder } = ground;
    await writeFile(join(folder, "million"), Buffer.alloc(ANSWER_BYTES, "x"));
    const configuration = await written(
      folder,
      "nginx.conf",
      `daemon off;
user ${userInfo().username};
worker_processes 1;
pid ${folder}/nginx.pid;
error_log stderr;
events {}
http {
  access_log off;
  sendfile on;
  tcp_nopush on;
  default_type application/octet-stream;
  keepalive_timeout 1h;
  keepalive_requests 1000000;
  ${["client_body", "proxy", "fastcgi", "uwsgi", "scgi"].map((name) => `${name}_temp_path ${folder}/nginx-${name};`).join("\n  ")}
  server {
    listen ${SERVER_ADDRESS}:${PORTS.https} ssl;
    ssl_certificate ${folder}/server.pem;
    ssl_certificate_key ${folder}/server.key;
    ssl_protocols TLSv1.3;
    location = /million { root ${folder}; }
  }
}
`,
    );
    const command = [program("nginx"), "-e", "stderr", "-p", folder, "-c", configuration];
    await serving(ground, "server", PORTS.https, command);
  },
};

const stunnel: Server = {
  name: "stunnel",
  ways: ["stunnel"],
  missing: () => absent("stunnel", "openssl"),
  version: async () => (await run("stunnel", ["-version"])).stderr.match(/^stunnel \S+/m)?.[0] ?? "",
  async start(ground) {
    const { folder } = ground;
    const common = "foreground = yes\npid =\ndebug = err\nsslVersionMin = TLSv1.3\n";
    const noDelay = "socket = l:TCP_NODELAY=1\nsocket = r:TCP_NODELAY=1\n";
    const far = await written(
      folder,
      "stunnel-far.conf",
      `${common}${noDelay}[far]
accept = ${SERVER_ADDRESS}:${PORTS.stunnel}
connect = 127.0.0.1:${PORTS.origin}
cert = ${folder}/server.pem
key = ${folder}/server.key
`,
    );
    const near = await written(
      folder,
      "stunnel-near.conf",
      `${common}${noDelay}[near]
client = yes
accept = 127.0.0.1:${PORTS.near.stunnel}
connect = ${SERVER_ADDRESS}:${PORTS.stunnel}
verifyPeer = yes
CAfile = ${folder}/server.pem
`,
    );
    await serving(ground, "server", PORTS.stunnel, [program("stunnel"), far]);
    await serving(ground, "client", PORTS.near.stunnel, [program("stunnel"), near]);
  },
};

const haproxy: Server = {
  name: "haproxy",
  ways: ["haproxy"],
  missing: () => absent("haproxy", "openssl"),
  version: async () => (await run(program("haproxy"), ["-v"])).stdout.split(" - ")[0]?.trim() ?? "",
  async start(ground) {
    const { folder } = ground;
    const common = `global
  nbthread 1
defaults
  mode tcp
  timeout connect 10s
  timeout client 1h
  timeout server 1h
`;
    const proxy = (bind: string, server: string) => `${common}listen way\n  bind ${bind}\n  server next ${server}\n`;
    const far = await written(
      folder,
      "haproxy-far.cfg",
      proxy(
        `${SERVER_ADDRESS}:${PORTS.haproxy} ssl crt ${folder}/both.pem ssl-min-ver TLSv1.3`,
        `127.0.0.1:${PORTS.origin}`,
      ),
    );
    const near = await written(
      folder,
      "haproxy-near.cfg",
      proxy(
        `127.0.0.1:${PORTS.near.haproxy}`,
        `${SERVER_ADDRESS}:${PORTS.haproxy} ssl verify required ca-file ${folder}/server.pem ssl-min-ver TLSv1.3`,
      ),
    );
    await serving(ground, "server", PORTS.haproxy, [program("haproxy"), "-db", "-f", far]);
    await serving(ground, "client", PORTS.near.haproxy, [program("haproxy"), "-db", "-f", near]);
  },
};

const ssh: Server = {
  name: "OpenSSH",
  ways: ["ssh"],
  missing: () => absent("ssh", "sshd", "ssh-keygen"),
  version: async () => (await run("ssh", ["-V"])).stderr.trim(),
  async start(ground) {
    const { folder, stack } = ground;
    const { userKey, sshKnownHosts } = filesIn(folder);
    const configuration = await written(
      folder,
      "sshd_config",
      `ListenAddress ${SERVER_ADDRESS}:${PORTS.ssh}
HostKey ${folder}/host-key
AuthorizedKeysFile ${userKey}.pub
AuthenticationMethods publickey
PermitRootLogin prohibit-password
StrictModes no
UsePAM no
PidFile none
LogLevel ERROR
`,
    );
    await writeFile(sshKnownHosts, `${SERVER_ADDRESS} ${await readFile(join(folder, "host-key.pub"), "utf8")}`);
    await sshdFolder(stack);
    await serving(ground, "server", PORTS.ssh, [program("sshd"), "-D", "-e", "-f", configuration]);
    const forward = `127.0.0.1:${PORTS.near.ssh}:127.0.0.1:${PORTS.origin}`;
    const client = [program("ssh"), ...sshArguments(folder, userInfo().username), "-N", "-L", forward, SERVER_ADDRESS];
    await serving(ground, "client", PORTS.near.ssh, client);
  },
};

const fived: Server = {
  name: "fived",
  ways: ["bare", "bare-waiting", "fived"],
  missing: () => (existsSync(join(ROOT, "dist")) ? undefined : "dist/ is missing: npm run build"),
  version: fivedVersion,
  async start(ground) {
    const { folder } = ground;
    const state = join(folder, "state");
    await mkdir(state, { mode: 0o700 });
    {
      using users = await openUsers({ folder: state, log: silentLog });
      await users.add({ name: USER, keys: [(await readFile(`${filesIn(folder).userKey}.pub`, "utf8")).trim()] });
    }
    const to = `tcp://127.0.0.1:${PORTS.origin}`;
    const configuration = await written(
      folder,
      "fived.yaml",
      stringify({
        listen: [{ url: `tcp://${SERVER_ADDRESS}:${PORTS.fived}`, plaintext: true }],
        auth: { mechanisms: ["pubkey"] },
        services: { [SERVICES.open]: { to, allow: ["anyone"] }, [SERVICES.private]: { to, allow: [USER] } },
      }),
    );
    const command = [RUNTIME, COMMAND, "serve", "-c", configuration, "--state", state];
    await serving(ground, "server", PORTS.fived, command);
    await meet(ground);
  },
};

/**
 * The first contact, in a process of its own: whoever pins a key without asking anybody trusts it fully from his next process on, and only
 * then does AUTH travel ahead.
 */
async function meet({ folder, link }: Ground): Promise<void> {
  const { userKey, fivedKnownHosts } = filesIn(folder);
  const options = ["StrictHostKeyChecking=accept-new", `UserKnownHostsFile=${fivedKnownHosts}`, "BatchMode=yes"];
  const [command, ...args] = link.at("client", [
    ...[RUNTIME, COMMAND, "list", "-i", userKey, ...options.flatMap((option) => ["-o", option])],
    `${USER}@${SERVER_ADDRESS}:${PORTS.fived}`,
  ]);
  const folders = { XDG_CONFIG_HOME: folder, XDG_STATE_HOME: folder, XDG_RUNTIME_DIR: folder, FIVED_MANAGER: "off" };
  await run(command, args, { env: { ...process.env, ...folders }, timeout: READY_SECONDS * 1_000 });
}

/** Every server, in the order in which they are started: all the others lead to the first. */
export const SERVERS: readonly Server[] = [origin, nginx, stunnel, haproxy, ssh, fived];

async function written(folder: string, name: string, text: string): Promise<string> {
  const file = join(folder, name);
  await writeFile(file, text, { mode: 0o600 });
  return file;
}

/** Starts a command at one end, and waits until it listens on the port. */
async function serving(
  { folder, link, stack, signal }: Ground,
  end: End,
  port: number,
  command: readonly string[],
): Promise<Started> {
  const [first, ...rest] = link.at(end, command);
  const log = join(folder, `${end}-${port}.log`);
  const started = stack.use(await start(first, rest, { log }));
  const [ss, ...look] = link.at(end, ["ss", "-Hltn", `sport = :${port}`]);
  const deadline = performance.now() + READY_SECONDS * 1_000;
  while ((await run(ss, look)).stdout.trim() === "") {
    if (!started.alive() || performance.now() > deadline) {
      const why = started.alive() ? `it does not listen within ${READY_SECONDS} s` : "it has ended";
      throw new Error(`${why}: ${(await readFile(log, "utf8")).trim().slice(-600)}`);
    }
    await sleep(POLL_MS, undefined, { signal });
  }
  return started;
}
