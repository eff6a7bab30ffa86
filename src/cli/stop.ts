/**
 * Waiting to be told to stop, for the verbs that run until then.
 * @module
 */
import { constants } from "node:os";

/**
 * Copies of one Ctrl-C arrive within this time: a terminal sends it to every process of the job, and npx and our own launcher pass it on
 * as well. Only what comes later is a second request.
 */
const SAME_REQUEST_MS = 300;

/** How often a program that npm has started looks whether its parent is still there. */
const PARENT_LOOK_MS = 250;

/** Resolves at the first of the signals. A second request ends the process at once, with the status a shell gives to that signal. */
export function toldToStop(signals: readonly NodeJS.Signals[] = ["SIGINT", "SIGTERM"]): Promise<NodeJS.Signals> {
  return new Promise((resolve) => {
    let firstAt: number | undefined;
    for (const signal of signals) {
      process.on(signal, () => {
        const now = performance.now();
        firstAt ??= now;
        if (now - firstAt > SAME_REQUEST_MS) process.exit(128 + constants.signals[signal]);
        resolve(signal);
      });
    }
    // npm and npx put a shell between themselves and us. It dies of their SIGTERM without passing it on, and would leave us behind.
    const parent = process.ppid;
    if (process.env["npm_execpath"] === undefined) return;
    const looking = setInterval(() => {
      if (process.ppid === parent) return;
      clearInterval(looking);
      resolve("SIGTERM");
    }, PARENT_LOOK_MS).unref();
  });
}
