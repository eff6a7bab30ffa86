/**
 * Where fived keeps its files: the folders of the XDG Base Directory Specification for a person, `/etc` and `/var/lib` for the system.
 * @module
 */
import fs from "node:fs";
import os from "node:os";
import path from "node:path";

/** The system's configuration, where no other is named. */
export const SYSTEM_CONFIGURATION = "/etc/fived/fived.yaml";

/** What a person configures: `known_hosts` and the like. */
export function configurationFolder(): string {
  return path.join(base("XDG_CONFIG_HOME", ".config"), "fived");
}

/** What a person's client keeps: whom it signed in as, and keys of its own. */
export function clientStateFolder(): string {
  return path.join(base("XDG_STATE_HOME", path.join(".local", "state")), "fived");
}

/** What a server has to find again after a restart: its host key. Root has the system's folder once the system is set up for fived. */
export function stateFolder(): string {
  if (process.getuid?.() === 0 && fs.existsSync(path.dirname(SYSTEM_CONFIGURATION))) return "/var/lib/fived";
  return clientStateFolder();
}

/** A path as people write it behind `=`, where no shell has expanded the tilde. */
export function expanded(file: string): string {
  return file.startsWith("~/") ? path.join(os.homedir(), file.slice(2)) : file;
}

function base(variable: string, otherwise: string): string {
  const folder = process.env[variable];
  // The specification says to ignore a relative path.
  return folder !== undefined && path.isAbsolute(folder) ? folder : path.join(os.homedir(), otherwise);
}
