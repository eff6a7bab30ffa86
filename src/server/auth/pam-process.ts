/**
 * Starting the process that asks PAM (`pam-attempt.ts`), one for each attempt, and ending it: whatever a module of PAM does, it does it
 * there, and is gone with it.
 * @module
 */
import { spawn } from "node:child_process";
import { once } from "node:events";
import { constants } from "node:fs";
import { access } from "node:fs/promises";
import { extname, join } from "node:path";
import { Duplex } from "node:stream";
import { PamLink } from "./pam-link.ts";
import { type PamMessage, PamMessageReader } from "./pam-protocol.ts";

/** Attempts at once: a process of some 50 MiB each (abuse case A06). */
export const PAM_ATTEMPTS_MAX = 16;
/** A PAM that says nothing for so long hangs (PROTOCOL §4.6.1), in milliseconds. */
export const PAM_SILENT_MS_MAX = 20_000;
/** An attempt as a whole, people's answers included, in milliseconds. */
export const PAM_ATTEMPT_MS_MAX = 120_000;

/** As which service PAM is asked. */
export interface PamService {
  readonly service: string;
  /** Folder of the service's file, instead of the system's. */
  readonly folder?: string;
}

/** Folders in which Linux-PAM looks for a service's file. */
const SYSTEM_FOLDERS = ["/etc/pam.d", "/usr/lib/pam.d"];
/** The program, beside this file and of its kind: source in a checkout, built in a package. */
const PROGRAM = join(import.meta.dirname, `pam-attempt${extname(import.meta.filename)}`);
/** Where the process has its end of the link. */
const LINK = 3;

/** True for the name of a file in `/etc/pam.d`: PAM would take a path as well. */
export function isPamServiceName(name: string): boolean {
  return /^[A-Za-z0-9_-]{1,64}$/.test(name);
}

/** Starts a process, which ends with the link and not later; rejects when it cannot be started. */
export async function startAttempt({ service, folder }: PamService): Promise<PamLink<PamMessage>> {
  const child = spawn(
    process.execPath,
    ["--disable-sigusr1", PROGRAM, service, ...(folder === undefined ? [] : [folder])],
    {
      cwd: "/",
      env: { PATH: "/usr/sbin:/usr/bin:/sbin:/bin", LANG: process.env["LANG"] ?? "C.UTF-8" },
      stdio: ["ignore", "ignore", "ignore", "pipe"],
      // Its own process group, so that what a module has started can be ended with it.
      detached: true,
    },
  );
  await once(child, "spawn");
  const stream: unknown = child.stdio[LINK];
  if (!(stream instanceof Duplex)) throw new Error("Invariant: a pipe is a socket of our own");
  child.on("error", () => {}); // a signal that failed: the process has ended by itself
  stream.once("close", () => {
    if (child.pid === undefined || child.exitCode !== null || child.signalCode !== null) return;
    try {
      process.kill(-child.pid, "SIGKILL");
    } catch {
      child.kill("SIGKILL"); // too young to have its group
    }
  });
  return new PamLink(stream, new PamMessageReader());
}

/** Why PAM cannot be asked as that service on this computer; undefined if it can. */
export async function pamProblem(service: PamService): Promise<string | undefined> {
  if (!isPamServiceName(service.service)) return "expected the name of a file in /etc/pam.d";
  const files = (service.folder === undefined ? SYSTEM_FOLDERS : [service.folder]).map((folder) =>
    join(folder, service.service),
  );
  const found = await Promise.allSettled(files.map((file) => access(file, constants.F_OK)));
  if (found.every(({ status }) => status === "rejected")) return `there is no file ${files[0]}`;
  const link = await startAttempt(service);
  try {
    const message = await link.next(PAM_SILENT_MS_MAX);
    if (message === undefined) return `the process that asks it: ${link.why}`;
    return message.type === "broken" ? message.why : undefined;
  } finally {
    link.destroy("it was only asked whether it is there");
  }
}
