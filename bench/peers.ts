/**
 * What is measured: each peer as an object that says whether it is here, and starts a tunnel to the two back ends. All of them are set up
 * alike: loopback, TLS 1.3 (or ssh) with AES-128-GCM, one thread an end where that can be chosen, no compression, everything in a temporary
 * folder, nothing of the machine's own configuration. fived is told its ports and its limits, nothing else: its cipher is its own choice.
 * @module
 */
import { existsSync } from "node:fs";
import { mkdir, readFile, rmdir, writeFile } from "node:fs/promises";
import { userInfo } from "node:os";
import { join } from "node:path";
import { ROOT, startForward, startServer } from "./fived.ts";
import type { BackEnds, Tunnel } from "./measure.ts";
import { findProgram, freePort, run, type Started, start, untilEcho, untilListening } from "./processes.ts";

/** Where a peer may put its files and what it leads to. */
export interface Ground {
  readonly folder: string;
  readonly backEnds: BackEnds;
  readonly signal: AbortSignal;
}

/** Something that carries bytes between two ports. */
export interface Peer {
  readonly name: string;
  /** How it is set up, for the report. */
  readonly about: string;
  /** What it lacks to run here; undefined when nothing. */
  missing(): string | undefined;
  /** Its version, for the report. */
  version(): Promise<string>;
  start(ground: Ground): Promise<Tunnel>;
}

/** Where Debian's sshd drops its privileges; started by hand on a machine without an ssh service, it lacks the folder. */
const SSHD_FOLDER = "/run/sshd";

const direct: Peer = {
  name: "direct",
  about: "no tunnel: what the load program and the kernel can do",
  missing: () => undefined,
  version: async () => (await readFile("/proc/sys/kernel/osrelease", "utf8")).trim(),
  start: async ({ backEnds }) => ({
    name: "direct",
    bulkPort: backEnds.bulk,
    echoPort: backEnds.echo,
    pids: () => [],
    [Symbol.asyncDispose]: async () => {},
  }),
};

const ssh: Peer = {
  name: "ssh",
  about: "ssh -L over one connection, aes128-gcm@openssh.com",
  missing: () => absent("ssh", "sshd", "ssh-keygen"),
  version: async () => (await run("ssh", ["-V"])).stderr.trim(),
  async start({ folder, backEnds, signal }) {
    const [port, bulkPort, echoPort] = [await freePort(), await freePort(), await freePort()];
    const path = (name: string) => join(folder, name);
    for (const name of ["hostKey", "userKey"]) {
      await run("ssh-keygen", ["-q", "-t", "ed25519", "-N", "", "-f", path(name)]);
    }
    await writeFile(path("known_hosts"), `[127.0.0.1]:${port} ${await readFile(path("hostKey.pub"), "utf8")}`);
    await writeFile(
      path("sshd_config"),
      `ListenAddress 127.0.0.1:${port}
HostKey ${path("hostKey")}
AuthorizedKeysFile ${path("userKey.pub")}
AuthenticationMethods publickey
PermitRootLogin prohibit-password
AllowTcpForwarding yes
Ciphers aes128-gcm@openssh.com
StrictModes no
UsePAM no
PidFile none
LogLevel ERROR
`,
    );
    return await assemble("ssh", { bulkPort, echoPort, signal }, async (stack) => {
      await sshdFolder(stack);
      const log = path("log");
      const server = stack.use(await start(program("sshd"), ["-D", "-e", "-f", path("sshd_config")], { log }));
      await untilListening(port, server, signal);
      const client = stack.use(
        await start(
          program("ssh"),
          [
            ...["-F", "/dev/null", "-N", "-p", String(port), "-l", userInfo().username, "-i", path("userKey")],
            ...["-c", "aes128-gcm@openssh.com", "-o", `UserKnownHostsFile=${path("known_hosts")}`],
            ...["BatchMode=yes", "IdentitiesOnly=yes", "IdentityAgent=none", "ExitOnForwardFailure=yes"].flatMap(
              (option) => ["-o", option],
            ),
            ...["-L", `127.0.0.1:${bulkPort}:127.0.0.1:${backEnds.bulk}`],
            ...["-L", `127.0.0.1:${echoPort}:127.0.0.1:${backEnds.echo}`, "127.0.0.1"],
          ],
          { log },
        ),
      );
      return [server, client];
    });
  },
};

const stunnel: Peer = {
  name: "stunnel",
  about: "stunnel client and server, TLS_AES_128_GCM_SHA256, a TLS connection a stream, resumed",
  missing: () => absent("stunnel", "openssl"),
  // It says so on standard error, where it then also complains that "-version" is no file.
  version: async () =>
    (await run("stunnel", ["-version"])).stderr.match(/^stunnel \S+|OpenSSL \S+/gm)?.join(", ") ?? "",
  async start({ folder, backEnds, signal }) {
    const { certificate, key } = await makeCertificate(folder);
    const [bulkPort, echoPort, bulkTls, echoTls] = [
      await freePort(),
      await freePort(),
      await freePort(),
      await freePort(),
    ];
    const common = `foreground = yes
pid =
debug = err
socket = l:TCP_NODELAY=1
socket = r:TCP_NODELAY=1
sslVersionMin = TLSv1.3
ciphersuites = TLS_AES_128_GCM_SHA256
`;
    const server = join(folder, "server.conf");
    const client = join(folder, "client.conf");
    const service = (name: string, accept: number, connect: number, more: string) =>
      `[${name}]\naccept = 127.0.0.1:${accept}\nconnect = 127.0.0.1:${connect}\n${more}`;
    const serverKeys = `cert = ${certificate}\nkey = ${key}\n`;
    const clientKeys = `client = yes\nverifyPeer = yes\nCAfile = ${certificate}\n`;
    await writeFile(
      server,
      common +
        service("bulk", bulkTls, backEnds.bulk, serverKeys) +
        service("echo", echoTls, backEnds.echo, serverKeys),
    );
    await writeFile(
      client,
      common + service("bulk", bulkPort, bulkTls, clientKeys) + service("echo", echoPort, echoTls, clientKeys),
    );
    return await assemble("stunnel", { bulkPort, echoPort, signal }, async (stack) => {
      const log = join(folder, "log");
      return [
        stack.use(await start(program("stunnel"), [server], { log })),
        stack.use(await start(program("stunnel"), [client], { log })),
      ];
    });
  },
};

const haproxy: Peer = {
  name: "haproxy",
  about: "haproxy client and server, one thread each, TLS_AES_128_GCM_SHA256, a TLS connection a stream, resumed",
  missing: () => absent("haproxy", "openssl"),
  version: async () => (await run(program("haproxy"), ["-v"])).stdout.split(" - ")[0]?.trim() ?? "",
  async start({ folder, backEnds, signal }) {
    const { certificate, both } = await makeCertificate(folder);
    const [bulkPort, echoPort, bulkTls, echoTls] = [
      await freePort(),
      await freePort(),
      await freePort(),
      await freePort(),
    ];
    const common = `global
  nbthread 1
  maxconn 2000
defaults
  mode tcp
  timeout connect 5s
  timeout client 1h
  timeout server 1h
`;
    const proxy = (name: string, bind: string, server: string) =>
      `listen ${name}\n  bind 127.0.0.1:${bind}\n  server far 127.0.0.1:${server}\n`;
    const tls = "ssl-min-ver TLSv1.3 ciphersuites TLS_AES_128_GCM_SHA256";
    const accept = `ssl crt ${both} ${tls}`;
    const dial = `ssl verify required ca-file ${certificate} ${tls}`;
    const server = join(folder, "server.cfg");
    const client = join(folder, "client.cfg");
    await writeFile(
      server,
      common +
        proxy("bulk", `${bulkTls} ${accept}`, String(backEnds.bulk)) +
        proxy("echo", `${echoTls} ${accept}`, String(backEnds.echo)),
    );
    await writeFile(
      client,
      common +
        proxy("bulk", String(bulkPort), `${bulkTls} ${dial}`) +
        proxy("echo", String(echoPort), `${echoTls} ${dial}`),
    );
    return await assemble("haproxy", { bulkPort, echoPort, signal }, async (stack) => {
      const log = join(folder, "log");
      return [
        stack.use(await start(program("haproxy"), ["-db", "-f", server], { log })),
        stack.use(await start(program("haproxy"), ["-db", "-f", client], { log })),
      ];
    });
  },
};

/** fived as its users start it; `env` is what a variant adds to both ends. */
function fived(name: string, about: string, env: Readonly<Record<string, string>>): Peer {
  return {
    name,
    about,
    missing: () => (existsSync(join(ROOT, "dist")) ? undefined : "dist/ is missing: npm run build"),
    version: fivedVersion,
    async start({ folder, backEnds, signal }) {
      const [bulkPort, echoPort] = [await freePort(), await freePort()];
      return await assemble(name, { bulkPort, echoPort, signal }, async (stack) => {
        const server = await startServer(folder, {
          services: {
            bulk: { to: `tcp://127.0.0.1:${backEnds.bulk}`, allow: ["anyone"] },
            echo: { to: `tcp://127.0.0.1:${backEnds.echo}`, allow: ["anyone"] },
          },
          env,
          signal,
        });
        stack.use(server.process);
        const client = stack.use(
          await startForward(
            folder,
            [`${bulkPort}=127.0.0.1:${server.port}/bulk`, `${echoPort}=127.0.0.1:${server.port}/echo`],
            env,
          ),
        );
        return [server.process, client];
      });
    },
  };
}

/** Every peer the bench knows, in the order of the report. */
export const PEERS: readonly Peer[] = [
  fived("fived", "fived serve and fived forward, all streams in one session", {}),
  fived("fived-retain", "the same, with the session log kept as for a detachable session (FIVED_BENCH_RETAIN=1)", {
    FIVED_BENCH_RETAIN: "1",
  }),
  ssh,
  haproxy,
  stunnel,
  direct,
];

/** The package's version, and the commit. */
export async function fivedVersion(): Promise<string> {
  const manifest = await readFile(join(ROOT, "package.json"), "utf8");
  const version = manifest.match(/"version": "([^"]+)"/)?.[1] ?? "unknown";
  try {
    const { stdout } = await run("git", ["-C", ROOT, "describe", "--always", "--dirty"]);
    return `${version} (${stdout.trim()})`;
  } catch {
    return version; // Not a checkout.
  }
}

/** Starts a tunnel's processes and waits for the first echo through them; what was started is ended again when that fails. */
async function assemble(
  name: string,
  at: { readonly bulkPort: number; readonly echoPort: number; readonly signal: AbortSignal },
  launch: (stack: AsyncDisposableStack) => Promise<readonly Started[]>,
): Promise<Tunnel> {
  await using stack = new AsyncDisposableStack();
  const processes = await launch(stack);
  await untilEcho(at.echoPort, processes, at.signal);
  const kept = stack.move();
  return {
    name,
    bulkPort: at.bulkPort,
    echoPort: at.echoPort,
    pids: () => processes.flatMap((process) => process.tree()),
    [Symbol.asyncDispose]: () => kept.disposeAsync(),
  };
}

/** Makes the folder without which sshd does not start, where there is none; it goes with the stack. */
export async function sshdFolder(stack: AsyncDisposableStack): Promise<void> {
  if (process.getuid?.() !== 0 || existsSync(SSHD_FOLDER)) return;
  await mkdir(SSHD_FOLDER, { mode: 0o755 });
  stack.defer(() => rmdir(SSHD_FOLDER));
}

/** A self-signed P-256 certificate, its key, and both in one file as haproxy wants them. */
export async function makeCertificate(
  folder: string,
  address = "127.0.0.1",
): Promise<{ certificate: string; key: string; both: string }> {
  const certificate = join(folder, "server.pem");
  const key = join(folder, "server.key");
  const both = join(folder, "both.pem");
  await run("openssl", [
    ...["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"],
    ...["-subj", `/CN=${address}`, "-addext", `subjectAltName=IP:${address}`, "-out", certificate, "-keyout", key],
  ]);
  await writeFile(both, (await readFile(certificate, "utf8")) + (await readFile(key, "utf8")), { mode: 0o600 });
  return { certificate, key, both };
}

/** Where the program is; throws where it is not. */
export function program(name: string): string {
  const path = findProgram(name);
  if (path === undefined) throw new Error(`Cannot start ${name}: it is not installed`);
  return path;
}

/** What is not installed of these; undefined when all of it is. */
export function absent(...names: readonly string[]): string | undefined {
  const lacking = names.filter((name) => findProgram(name) === undefined);
  return lacking.length === 0 ? undefined : `not installed: ${lacking.join(", ")}`;
}
