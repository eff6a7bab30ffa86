/**
 * fived under measurement, driven as its users drive it: a configuration file and two commands. The limits are raised where one client on
 * one address does what a thousand do elsewhere; everything else stays at its default.
 * @module
 */
import { existsSync } from "node:fs";
import { mkdir, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { stringify } from "yaml";
import { freePort, type Started, start, untilListening } from "./processes.ts";

/** Where this checkout lies. */
export const ROOT = join(import.meta.dirname, "..");

/** Nobody signs in here, so the bounds of strangers apply: raised to what the idle measurements hold, and a budget that does not throttle. */
const LIMITS = {
  streams: 10_000,
  anonymous: { streams: 10_000, budget: "512MiB" },
  unauthenticated: { perSource: 10_000, start: 10_000, full: 10_000 },
};

const PINNED = join(ROOT, "node_modules", ".bin", "node");
/** The runtime that the package pins; without it, the one that runs the bench. */
export const RUNTIME = existsSync(PINNED) ? PINNED : process.execPath;
/** The command `fived`. */
export const COMMAND = join(ROOT, "bin", "fived.js");

/** A service as the configuration file has it. */
export type ServiceEntry =
  | { readonly to: string; readonly allow: readonly string[] }
  | { readonly module: string; readonly allow: readonly string[] };

/** How a server is started. */
export interface ServerOptions {
  readonly services: Readonly<Record<string, ServiceEntry>>;
  readonly env: Readonly<Record<string, string>>;
  readonly signal: AbortSignal;
  /** What else its configuration says. */
  readonly more?: Readonly<Record<string, unknown>>;
  /** Arguments for node itself. */
  readonly nodeArgs?: readonly string[];
}

/** Starts `fived serve` on a free port with its state in `folder`. */
export async function startServer(folder: string, options: ServerOptions): Promise<{ process: Started; port: number }> {
  const port = await freePort();
  const file = join(folder, "fived.yaml");
  await writeFile(
    file,
    stringify(
      { listen: [`tcp://127.0.0.1:${port}`], limits: LIMITS, services: options.services, ...options.more },
      { aliasDuplicateObjects: false }, // looking up ten thousand aliases takes minutes
    ),
  );
  const process = await start(
    RUNTIME,
    [...(options.nodeArgs ?? []), COMMAND, "serve", "-c", file, "--state", join(folder, "state")],
    { log: join(folder, "server.log"), env: options.env },
  );
  try {
    await untilListening(port, process, options.signal);
  } catch (error) {
    await process[Symbol.asyncDispose]();
    throw error;
  }
  return { process, port };
}

/** Starts `fived forward` as a user with nothing in the home folder; without a session manager, so that all of it is in one process. */
export async function startForward(
  folder: string,
  forwards: readonly string[],
  env: Readonly<Record<string, string>>,
): Promise<Started> {
  const home = { XDG_CONFIG_HOME: "config", XDG_STATE_HOME: "client-state", XDG_RUNTIME_DIR: "run" };
  const folders = Object.fromEntries(Object.entries(home).map(([name, sub]) => [name, join(folder, sub)]));
  for (const sub of Object.values(folders)) await mkdir(sub, { recursive: true, mode: 0o700 });
  return await start(
    RUNTIME,
    [
      COMMAND,
      "forward",
      "-o",
      "StrictHostKeyChecking=accept-new",
      ...forwards.map((forward) => `127.0.0.1:${forward}`),
    ],
    { log: join(folder, "client.log"), env: { ...env, ...folders, FIVED_MANAGER: "off" } },
  );
}
