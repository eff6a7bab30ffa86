/**
 * Where a person's files are: the folders of the XDG Base Directory Specification.
 * @module
 */
import { homedir } from "node:os";
import { isAbsolute, join } from "node:path";

/** What a person configures: `known_hosts` and the like. */
export function configurationFolder(): string {
  return join(base("XDG_CONFIG_HOME", ".config"), "fived");
}

/** What a person's client keeps: whom it signed in as, and keys of its own. */
export function clientStateFolder(): string {
  return join(base("XDG_STATE_HOME", join(".local", "state")), "fived");
}

function base(variable: string, otherwise: string): string {
  const folder = process.env[variable];
  // The specification says to ignore a relative path.
  return folder !== undefined && isAbsolute(folder) ? folder : join(homedir(), otherwise);
}
