/**
 * `fived demo`: a session server on this computer with a few services to play with, one of them for members, and what to try next, ready to
 * be copied. The services lie in demo/, a file of about ten lines each: they are what a service of one's own looks like.
 * @module
 */
import fs from "node:fs";
import path from "node:path";
import { styleText } from "node:util";
import { Command } from "commander";
import { FivedError } from "../io/index.ts";
import type { SessionServer } from "../server/index.ts";
import { stateFolder } from "./folders.ts";
import { serverOption } from "./server-flags.ts";
import { toldToStop } from "./stop.ts";
import type { Verb } from "./verb.ts";

/** Where the demonstration listens unless something else does already. */
const USUAL = "tcp://127.0.0.1:1078";
const ANY_PORT = "tcp://127.0.0.1:0";

/** The services, in the order LIST shows them, and what is said of each. */
const SERVICES = {
  hello: "greets you",
  clock: "tells the time every second",
  echo: "says what you say",
  whoami: "tells what a service learns about you",
  web: "a web page, for browsers and curl",
  club: "is for members: nobody else sees it",
} as const;

/** Whom the invitation is for, in a user store of the demonstration's own: playing makes nobody a user of a real server. */
const GUEST = "guest";
const STORE = "demo-users";
const INVITE_MS = 24 * 3_600_000;

interface Flags {
  readonly listen?: readonly string[];
  readonly state?: string;
  readonly verbose?: boolean;
}

/** The verb `demo`. */
export const demo: Verb = (ended) =>
  new Command("demo")
    .description("start a server with services to play with, on this computer only")
    .addOption(serverOption("listen"))
    .addOption(serverOption("state"))
    .option("-v, --verbose", "log what happens to every session and stream")
    .action(async (flags: Flags) => {
      ended(await run(flags));
    });

async function run(flags: Flags): Promise<number> {
  const stop = toldToStop(["SIGINT", "SIGTERM", "SIGHUP"]);
  const { state = stateFolder() } = flags;
  await using running = await start({ ...flags, state });
  process.stdout.write(invitation(running, await inviteTo(running, state)));
  await stop;
  process.stdout.write("\nfived: the demonstration is over\n");
  await running.drain(0);
  return 0;
}

/** An invite for the demonstration's own user store. */
async function inviteTo(running: SessionServer, state: string): Promise<string> {
  const { createInvite, createLog, openUsers } = await import("../server/index.ts");
  using store = await openUsers({ file: path.join(state, STORE), log: createLog({ level: "error" }) });
  const { fingerprint } = running;
  return await createInvite(store, { user: GUEST, address: addressOf(running), fingerprint, lifeMs: INVITE_MS });
}

/** Where it listens, as clients write it. */
function addressOf({ addresses: [address = USUAL] }: SessionServer): string {
  return address.replace(/^tcp:\/\//, "");
}

async function start({ listen, state, verbose = false }: Flags & { readonly state: string }): Promise<SessionServer> {
  const server = await import("../server/index.ts");
  const log = server.createLog({ level: verbose ? "debug" : "warn" });
  // Built or not, the services lie beside this file and end as it does.
  const folder = path.join(import.meta.dirname, "demo");
  const modules = Object.keys(SERVICES).map(
    (name) => `${name}=${path.join(folder, name)}${path.extname(import.meta.filename)}`,
  );
  const serve = (urls: readonly string[]) => {
    const configuration = server.configurationFromTargets({
      targets: [...modules, "date=exec:date"],
      listen: urls,
      allow: (name) => [name === "club" ? "everyone-signed-in" : "anyone"],
      // The folder of `fived serve` too: who has pinned this key at this address meets the same key when the playing is over.
      state,
    });
    const { auth } = configuration;
    return server.serve({ ...configuration, auth: { ...auth, up: { ...auth.up, store: STORE } } }, { log });
  };
  try {
    return await serve(listen ?? [USUAL]);
  } catch (error) {
    if (listen !== undefined || !(error instanceof FivedError) || error.code !== "LISTEN_FAILED") throw error;
    process.stdout.write(`fived: ${USUAL} is taken, so another port is used\n`);
    return await serve([ANY_PORT]);
  }
}

function invitation(running: SessionServer, invite: string): string {
  const address = addressOf(running);
  const fived = commandPrefix();
  const trust = "-o StrictHostKeyChecking=accept-new";
  const tries: readonly (readonly [string, string])[] = [
    [`${fived} list ${address} ${trust}`, "what is there? (pins the key)"],
    [`${fived} connect ${address} hello`, "use one"],
    [`echo anyone there | ${fived} connect ${address} echo`, "standard input and output"],
    [`${fived} connect ${address} clock`, "until Ctrl-C"],
    [`${fived} forward 8078=${address}/web`, "a local port for any program: curl http://127.0.0.1:8078"],
    [`${fived} join ${invite}`, ""],
    [`${fived} connect ${address} club`, "now that you are a member; list shows it, too"],
    ...byHand(address),
  ];
  const width = Math.max(...tries.filter(([, about]) => about !== "").map(([command]) => command.length));
  const bold = (text: string) => styleText("bold", text, { stream: process.stdout });
  const dim = (text: string) => styleText("dim", text, { stream: process.stdout });
  return [
    `${bold("fived demo")}: on this computer only, until Ctrl-C`,
    "",
    ...running.addresses.map((each) => `  listening on ${each}  key ${running.fingerprint}`),
    "",
    ...Object.entries(SERVICES).map(([name, about]) => `  ${bold(name.padEnd(8))} ${about}`),
    `  ${bold("date".padEnd(8))} runs the program of that name`,
    "",
    "Try, in another terminal:",
    "",
    ...tries.map(([command, about]) =>
      about === "" ? `  ${bold(command)}` : `  ${bold(command.padEnd(width))}  ${dim(`# ${about}`)}`,
    ),
    "",
    "",
  ].join("\n");
}

/** The protocol without our own client; only where the listener is TCP. */
function byHand(address: string): readonly (readonly [string, string])[] {
  const [, host, port] = /^(?:\[([^\]]+)\]|[^:]+):(\d+)$/.exec(address) ?? [];
  if (port === undefined) return [];
  return [
    [`nc -C ${host ?? address.slice(0, -port.length - 1)} ${port}`, "by hand: LIST, or the name of a service"],
    [`openssl s_client -connect ${address} -alpn fived/1 -crlf -nocommands -quiet`, "the same inside TLS"],
  ];
}

/** What has to stand before a verb for the next terminal: `npx` where npm started us or no `fived` is on the PATH. */
function commandPrefix(): string {
  if (process.env["npm_execpath"] !== undefined) return "npx fived";
  const folders = (process.env["PATH"] ?? "").split(path.delimiter);
  return folders.some((folder) => fs.existsSync(path.join(folder, "fived"))) ? "fived" : "npx fived";
}
