/**
 * A session server under attack, and what everybody else on it may expect meanwhile: it lives, a fellow's session still gets a megabyte
 * through, and when the attack is over no memory is missing. Every abuse case asserts this, whatever else it is about.
 * @module
 */
import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import { createServer, type Socket } from "node:net";
import path from "node:path";
import { buffer } from "node:stream/consumers";
import type { TestContext } from "node:test";
import { connect, type Session } from "../../src/client/index.ts";
import { openUsers } from "../../src/server/auth/users.ts";
import { ownCertificate } from "../../src/server/certificate.ts";
import { silentLog } from "../../src/server/log.ts";
import type { Usage } from "./daemon.ts";
import { eventually, within } from "./deadline.ts";
import { Lab, portOf } from "./lab.ts";
import type { Program } from "./program.ts";

/** What the fellow sends through the server and back. */
const ECHO_BYTES = 1024 * 1024;
/** How long that may take him, whatever others do. */
const ECHO_MS = 2_000;
/** Memory that may be missing after an attack: what a process that did some work keeps for the next. */
const RSS_BYTES_MORE_MAX = 16 * 1024 * 1024;
/** Echoes until a new process has compiled what it needs and its pools are full. */
const WARM_UP_ECHOES = 8;
/** What a password costs a thief is not what is tested. */
const CHEAP = { memoryKiB: 8, passes: 1, lanes: 1 };
/** The fellow's own service: attacks leave it alone, as another session's streams. */
const FELLOW = "fellow";

/** A configuration, as in a file. Names in `services` may be used by anyone unless they say otherwise. */
export interface VictimSettings {
  readonly listen?: readonly (string | { readonly url: string; readonly plaintext: boolean })[];
  readonly services?: Readonly<Record<string, Readonly<Record<string, unknown>>>>;
  readonly hosts?: Readonly<
    Record<
      string,
      { readonly services: Readonly<Record<string, Readonly<Record<string, unknown>>>>; readonly tls?: unknown }
    >
  >;
  readonly roles?: Readonly<Record<string, readonly string[]>>;
  readonly auth?: Readonly<Record<string, unknown>>;
  readonly tls?: Readonly<Record<string, string>>;
  /** People of its user store; passwords cost next to nothing here. */
  readonly users?: readonly { readonly name: string; readonly password?: string; readonly keys?: readonly string[] }[];
  readonly limits?: Readonly<Record<string, unknown>>;
  readonly sessions?: Readonly<Record<string, unknown>>;
  readonly hops?: Readonly<Record<string, unknown>>;
  readonly trusts?: readonly Readonly<Record<string, unknown>>[];
  /** Command in front of the server's own, such as one that takes something away from it. */
  readonly under?: readonly string[];
  /** Files beside the configuration, by name. */
  readonly files?: Readonly<Record<string, string>>;
  /** Certificates beside the configuration, by folder, and the names in them: `FOLDER/host.pem` with `FOLDER/host.key`. */
  readonly certificates?: Readonly<Record<string, readonly string[]>>;
}

/** A session server under attack. */
export class Victim {
  /** For `net.connect`. */
  readonly at: { readonly host: string; readonly port: number };
  readonly program: Program;
  readonly lab: Lab;
  readonly #fellow: Session;

  private constructor(lab: Lab, program: Program, port: number, fellow: Session) {
    this.lab = lab;
    this.program = program;
    this.at = { host: "127.0.0.1", port };
    this.#fellow = fellow;
  }

  /** Starts a server that lasts as long as the test; its fellow is served already. */
  static async start(t: TestContext, settings: VictimSettings = {}): Promise<Victim> {
    const lab = await Lab.open(t);
    for (const [name, text] of Object.entries(settings.files ?? {})) await lab.write(name, text);
    for (const [folder, names] of Object.entries(settings.certificates ?? {}))
      await ownCertificate(lab.path(folder), names);
    const echo = await backEnd(t, (socket) => socket.pipe(socket));
    const services = { [FELLOW]: { to: echo }, ...settings.services };
    const {
      listen = ["tcp://127.0.0.1:0"],
      hosts = {},
      roles = {},
      auth = {},
      tls,
      users = [],
      limits = {},
      sessions = {},
      hops = {},
      trusts = [],
    } = settings;
    using store = await openUsers({ folder: await lab.makeFolder("server"), log: silentLog, cost: CHEAP });
    for (const { password, ...user } of users)
      await store.add({ ...user, ...(password === undefined ? {} : { password: Buffer.from(password) }) });
    const named = Object.entries(hosts).map(([name, host]) => [
      name,
      { ...host, services: openToAnyone(host.services) },
    ]);
    const configuration = {
      ...{ listen, roles, auth, limits, sessions, hops, trusts },
      ...(tls === undefined ? {} : { tls }),
      services: openToAnyone(services),
      hosts: Object.fromEntries(named),
    };
    const file = await lab.write("fived.yaml", JSON.stringify(configuration)); // JSON is YAML
    const script = path.join(import.meta.dirname, "daemon.ts");
    const program = lab.start([
      ...(settings.under ?? []),
      process.execPath,
      "--expose-gc",
      script,
      file,
      lab.path("server"),
    ]);
    const [, port] = await program.hears(/listening on tcp:\S+:(\d+)/);
    const fellow = await connect(`127.0.0.1:${port}`, {
      knownHosts: lab.path("known_hosts"),
      strictHostKeyChecking: "accept-new",
    });
    lab.defer(async () => await fellow[Symbol.asyncDispose]());
    const victim = new Victim(lab, program, Number(port), fellow);
    for (let echoes = 0; echoes < WARM_UP_ECHOES; echoes++) await victim.serves();
    return victim;
  }

  /** One attack as a test of its own: whatever it does, the server lives, its fellow is served, and no memory is missing afterwards. */
  async survives(t: TestContext, name: string, attack: (t: TestContext) => Promise<void>): Promise<void> {
    await t.test(name, async (t) => {
      const before = await this.usage();
      await attack(t);
      await this.serves();
      await this.#recovers(before);
    });
  }

  /** The fellow's session still gets a megabyte through and back, in time. */
  async serves(): Promise<void> {
    const sent = randomBytes(ECHO_BYTES);
    const stream = this.#fellow.open(FELLOW);
    stream.end(sent);
    const seen = (): string => `; the server says\n${this.program.complained.slice(-2_000)}`;
    const received = await within(buffer(stream), "an echo of a megabyte", { ms: ECHO_MS, seen });
    assert.ok(sent.equals(received), "the echo is what was sent");
  }

  /** What the server holds, garbage collected. */
  async usage(): Promise<Usage> {
    this.program.says("usage\n");
    const [, json = ""] = await this.program.hears(/usage (.*)\n/);
    return JSON.parse(json);
  }

  /** Moves the server's wall clock. */
  moveClock(ms: number): void {
    this.program.says(`clock ${ms}\n`);
  }

  /** The lines of the server's log, each of which has to be one JSON object. */
  log(): readonly Readonly<Record<string, unknown>>[] {
    const lines = this.program.complained.split("\n");
    return lines.filter((line) => line !== "").map((line) => JSON.parse(line));
  }

  /** What the attacker held is let go; that takes a moment, as closing does. */
  async #recovers(before: Usage): Promise<void> {
    await eventually(async () => {
      const after = await this.usage();
      assert.deepEqual(after.polluted, [], "no object has what another was given");
      const more = after.rss - before.rss;
      assert.ok(more <= RSS_BYTES_MORE_MAX, `${Math.round(more / 1024)} KiB of memory are missing`);
    }, "the memory that the attack has taken");
  }
}

/** A back end in the test's own process, until the test ends; its address. */
export async function backEnd(t: TestContext, serve: (socket: Socket) => void): Promise<string> {
  const sockets = new Set<Socket>();
  const server = createServer({ allowHalfOpen: true }, (socket) => {
    sockets.add(socket.once("close", () => sockets.delete(socket)));
    socket.on("error", () => {}); // "close" follows
    serve(socket);
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  t.after(() => {
    server.close();
    for (const socket of sockets) socket.destroy();
  });
  return `tcp://127.0.0.1:${portOf(server)}`;
}

function openToAnyone(services: Readonly<Record<string, Readonly<Record<string, unknown>>>>) {
  return Object.fromEntries(Object.entries(services).map(([name, entry]) => [name, { allow: ["anyone"], ...entry }]));
}
