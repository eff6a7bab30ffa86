/**
 * Starts the session manager of this person in the background: whoever needs it first, and whoever misses it first when it was killed.
 * @module
 */
import { spawn } from "node:child_process";
import fs from "node:fs";
import path from "node:path";
import { setTimeout as pause } from "node:timers/promises";
import { clientStateFolder, FivedError, lockFile } from "../../io/index.ts";
import { ManagerClient } from "./client.ts";
import { preparePlace } from "./place.ts";

/** Time for a manager to be there after it was started; the first look is soon, as it takes a tenth of a second. */
const START_MS = 10_000;
const LOOK_EVERY_MS = 10;
/** A log that has grown beyond this is begun anew. */
const LOG_BYTES_MAX = 1024 * 1024;
/** The launcher of this package, from `src/` and from `dist/`. */
const LAUNCHER = path.join(import.meta.dirname, "..", "..", "..", "bin", "fived.js");

/** The manager at a socket, started where none answers. Rejects with STATE_UNUSABLE. */
export async function managerAt(socket: string): Promise<ManagerClient> {
  const there = await ManagerClient.connect(socket);
  if (there !== undefined) return there;
  await preparePlace(socket);
  // Many programs miss it at the same time: one of them starts it.
  await using _lock = await lockFile(`${socket}.starting`);
  return (await ManagerClient.connect(socket)) ?? (await started(socket));
}

async function started(socket: string): Promise<ManagerClient> {
  const log = openLog();
  const { npm_execpath: _, ...environment } = process.env; // it outlives whoever starts it, npm too
  const child = spawn(process.execPath, [LAUNCHER, "up", "--foreground"], {
    detached: true,
    stdio: ["ignore", log, log],
    cwd: "/",
    env: { ...environment, FIVED_MANAGER: socket, FIVED_MANAGER_ON_DEMAND: "1" },
  });
  fs.closeSync(log);
  let end: string | undefined;
  child.once("exit", (code, signal) => {
    end = `it ended with ${signal ?? code}`;
  });
  child.once("error", (error) => {
    end = error.message;
  });
  child.unref();
  const until = performance.now() + START_MS;
  for (;;) {
    // One that was started beside ours is as good.
    const manager = await ManagerClient.connect(socket);
    if (manager !== undefined) return manager;
    if (end !== undefined || performance.now() > until) {
      const why = end ?? "it did not answer in time";
      throw new FivedError(
        "STATE_UNUSABLE",
        `Cannot start the session manager: ${why}; see ${logFile()}, or say FIVED_MANAGER=off`,
      );
    }
    await pause(LOOK_EVERY_MS);
  }
}

function logFile(): string {
  return path.join(clientStateFolder(), "manager.log");
}

function openLog(): number {
  const file = logFile();
  fs.mkdirSync(path.dirname(file), { recursive: true, mode: 0o700 });
  const size = fs.statSync(file, { throwIfNoEntry: false })?.size ?? 0;
  return fs.openSync(file, size > LOG_BYTES_MAX ? "w" : "a", 0o600);
}
