/**
 * The user store that a server with the same flags would use, for the verbs that change it: `fived user` and `fived invite`.
 * @module
 */
import fs from "node:fs";
import type { Configuration, UserStore } from "../server/index.ts";
import { SYSTEM_CONFIGURATION, stateFolder } from "./folders.ts";

/** Flags that say which server is meant. */
export interface ServerFlags {
  readonly config?: string;
  readonly state?: string;
}

/** The configuration that `fived serve` would have with these flags: of the named file, else the system's, else of none. */
export async function configurationOf({ config, state = stateFolder() }: ServerFlags): Promise<Configuration> {
  const { configurationFromTargets, loadConfiguration } = await import("../server/index.ts");
  const file = config ?? (fs.existsSync(SYSTEM_CONFIGURATION) ? SYSTEM_CONFIGURATION : undefined);
  return file === undefined
    ? configurationFromTargets({ targets: [], state })
    : await loadConfiguration(file, { state });
}

/** Opens the store of that server. */
export async function openStore(configuration: Configuration): Promise<UserStore> {
  const { createLog, openUsers, usersFileOf } = await import("../server/index.ts");
  return await openUsers({ file: usersFileOf(configuration), log: createLog({ level: "error" }) });
}

/** Adds a value to those of a flag that may be repeated. */
export function collected(value: string, before: readonly string[] = []): readonly string[] {
  return [...before, value];
}
