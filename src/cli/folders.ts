/**
 * Where the system's files of fived are, `/etc` and `/var/lib`; a person's are where `io/` says.
 * @module
 */
import fs from "node:fs";
import os from "node:os";
import path from "node:path";
import { clientStateFolder } from "../io/index.ts";

/** The system's configuration, where no other is named. */
export const SYSTEM_CONFIGURATION = "/etc/fived/fived.yaml";

/** What a server has to find again after a restart: its host key. Root has the system's folder once the system is set up for fived. */
export function stateFolder(): string {
  if (process.getuid?.() === 0 && fs.existsSync(path.dirname(SYSTEM_CONFIGURATION))) return "/var/lib/fived";
  return clientStateFolder();
}

/** A path as people write it behind `=`, where no shell has expanded the tilde. */
export function expanded(file: string): string {
  return file.startsWith("~/") ? path.join(os.homedir(), file.slice(2)) : file;
}
