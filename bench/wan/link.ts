/**
 * The emulated link of the WAN benchmark: two network namespaces, `link.c` between them, and how to run something at one of its ends. They
 * have no names and vanish with the last process in them.
 * @module
 */
import { spawn } from "node:child_process";
import { once } from "node:events";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { findProgram, run } from "../processes.ts";

/** Addresses of the ends, of the network that is set apart for benchmarks (RFC 2544). */
export const SERVER_ADDRESS = "198.18.0.1";
const CLIENT_ADDRESS = "198.18.0.2";

/** What the paper measured over: round trip and its standard deviation as it says, the rates of a home of its time. */
export const MODEL = {
  roundTripMs: 28.36,
  deviationMs: 3.4,
  correlationMs: 100,
  downMbit: 50,
  upMbit: 10,
  downQueue: 128,
  upQueue: 64,
} as const;

/** Descriptors of `link.c` at which its namespaces are. */
const NAMESPACES = { client: 10, server: 11 } as const;

/** One of the two ends. */
export type End = keyof typeof NAMESPACES;

/** How the ends' TCP is set up. */
export interface LinkOptions {
  /** Congestion control of both ends: `cubic`, `bbr`, `reno`. */
  readonly congestionControl: string;
  /** TCP starts slowly again after it was idle, as Linux has it unless told otherwise. */
  readonly slowStartAfterIdle: boolean;
}

/** A link beside another one, between the same ends. */
export interface Beside {
  readonly link: Link;
  /** Rates of this one, Mbit/s. */
  readonly downMbit: number;
  readonly upMbit: number;
  /** Name of its device. The addresses and ways are the caller's to set up. */
  readonly device: string;
}

/** A running link. */
export interface Link extends AsyncDisposable {
  /** Where the namespace of an end is, for as long as the link runs. */
  space(end: End): string;
  /** The command line that runs this one at that end. */
  at(end: End, command: readonly string[]): readonly [string, ...string[]];
  /** How late the link delivered the latest packet since it was last asked, in milliseconds: then it was not the link it claims to be. */
  late(): Promise<number>;
  /** Packets carried and dropped since the beginning. */
  count(): Promise<string>;
  /** Packets of TCP connections with this port are lost from now on, as when a translator has forgotten them. */
  forget(port: number): Promise<void>;
  /** From now on all packets are lost, or none by this, and nobody is told. */
  swallow(how: "on" | "off"): Promise<void>;
}

/** What is lacking for a link; undefined when nothing. */
export function missingForLink(): string | undefined {
  if (process.getuid?.() !== 0) return "it makes network namespaces, for which it has to be root";
  const lacking = ["gcc", "ip", "nsenter", "sysctl"].filter((name) => findProgram(name) === undefined);
  return lacking.length === 0 ? undefined : `not installed: ${lacking.join(", ")}`;
}

/**
 * Compiles the emulator into `folder` and starts it; rejects where the machine does not let it.
 * @param rates other ones than the model's; or all about a second link between the same ends
 */
export async function startLink(folder: string, options: LinkOptions, rates: Partial<Beside> = {}): Promise<Link> {
  const program = join(folder, rates.device ?? "link");
  await run("gcc", ["-O2", "-Wall", "-o", program, join(import.meta.dirname, "link.c"), "-lm"]);
  const { roundTripMs, deviationMs, correlationMs, downQueue, upQueue } = MODEL;
  const { downMbit = MODEL.downMbit, upMbit = MODEL.upMbit, link: beside, device } = rates;
  const words = [roundTripMs, deviationMs, correlationMs, downMbit, upMbit, downQueue, upQueue, 1].map(String);
  if (beside !== undefined && device !== undefined) words.push(device, beside.space("client"), beside.space("server"));
  // In a group of its own, so that Ctrl-C does not take the link from under what is being ended. It ends with its input, which is ours.
  const child = spawn(program, words, { stdio: ["pipe", "pipe", "inherit"], detached: true });
  const exited = once(child, "exit");
  const waiting: ((line: string) => void)[] = [];
  createInterface(child.stdout).on("line", (line) => waiting.shift()?.(line));
  child.stdin.on("error", () => {}); // its exit says the rest
  async function next(): Promise<string> {
    const { promise, resolve } = Promise.withResolvers<string>();
    waiting.push(resolve);
    const line = await Promise.race([promise, exited.then(() => undefined)]);
    if (line === undefined) throw new Error("Cannot go on: the emulated link has ended");
    return line;
  }
  async function ask(question: string): Promise<string> {
    child.stdin.write(`${question}\n`);
    return await next();
  }
  const link: Link = {
    space: (end) => `/proc/${child.pid}/fd/${NAMESPACES[end]}`,
    at: (end, command) => ["nsenter", `--net=${link.space(end)}`, "--", ...command],
    late: async () => Number(await ask("late")) / 1_000,
    count: () => ask("count"),
    forget: async (port) => void (await ask(`forget ${port}`)),
    swallow: async (how) => void (await ask(`swallow ${how}`)),
    async [Symbol.asyncDispose]() {
      child.stdin.end();
      await exited;
    },
  };
  try {
    await next();
    if (beside !== undefined) return link;
    await setUp(link, "client", [CLIENT_ADDRESS, SERVER_ADDRESS], options);
    await setUp(link, "server", [SERVER_ADDRESS, CLIENT_ADDRESS], options);
  } catch (error) {
    await link[Symbol.asyncDispose]();
    throw error;
  }
  return link;
}

async function setUp(
  link: Link,
  end: End,
  [own, other]: readonly [string, string],
  { congestionControl, slowStartAfterIdle }: LinkOptions,
): Promise<void> {
  const settings = {
    "net.ipv6.conf.all.disable_ipv6": 1, // nothing on the link but what is measured
    "net.ipv4.tcp_slow_start_after_idle": slowStartAfterIdle ? 1 : 0,
    "net.ipv4.tcp_no_metrics_save": 1, // what one connection found out would be known to the next
  };
  const words = Object.entries(settings).map(([name, value]) => `${name}=${value}`);
  const commands: readonly (readonly string[])[] = [
    ["sysctl", "-qw", ...words],
    ["ip", "link", "set", "lo", "up"],
    ["ip", "address", "add", own, "dev", "wan"],
    // The emulated queue drops, and nothing before it.
    ["ip", "link", "set", "wan", "txqueuelen", "10000", "up"],
    // By the route, as a namespace may not choose every algorithm for all of itself.
    ["ip", "route", "add", other, "dev", "wan", "src", own, "congctl", congestionControl],
  ];
  for (const command of commands) {
    const [program, ...args] = link.at(end, command);
    await run(program, args);
  }
}
