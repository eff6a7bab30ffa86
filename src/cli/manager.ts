/**
 * `fived up`, `down` and `status`: the session manager, which the client verbs start when they first need it; and how they come by it.
 * @module
 */
import { styleText } from "node:util";
import { Command } from "commander";
import type { HeldStatus, ManagerClient, ManagerStatus } from "../client/index.ts";
import { FivedError } from "../io/index.ts";
import { size } from "./progress.ts";
import { toldToStop } from "./stop.ts";
import type { Verb } from "./verb.ts";

/** A manager that was started on demand ends when it was of no use for so long. */
const IDLE_MS = 60 * 60_000;

/** The verb `up`. */
export const up: Verb = (ended) =>
  new Command("up")
    .description("start the session manager, which holds sessions for all programs; others start it when they need it")
    .option("--foreground", "run it here, until told to stop")
    .option("--json", "print JSON")
    .action(async (flags: { readonly foreground?: boolean; readonly json?: boolean }) => {
      ended(flags.foreground === true ? await runHere() : await start(flags.json === true));
    });

/** The verb `down`. */
export const down: Verb = (ended) =>
  new Command("down")
    .description("end the session manager, and the sessions that it holds")
    .argument("[address]", "end only the session at this address")
    .action(async (address: string | undefined) => {
      ended(await stop(address));
    });

/** The verb `status`. */
export const status: Verb = (ended) =>
  new Command("status")
    .description("show the sessions that are held: state, identity, streams; exit status 1 where no manager runs")
    .option("--json", "print JSON")
    .action(async (flags: { readonly json?: boolean }) => {
      ended(await show(flags.json === true));
    });

/** The manager of this person, started where none runs; undefined where FIVED_MANAGER says off. */
export async function ourManager(): Promise<ManagerClient | undefined> {
  const { managerAt, managerSocket } = await import("../client/index.ts");
  const socket = managerSocket(process.env);
  return socket === undefined ? undefined : await managerAt(socket);
}

async function runHere(): Promise<number> {
  const { managerSocket, startManager } = await import("../client/index.ts");
  const socket = managerSocket(process.env);
  if (socket === undefined)
    throw new FivedError("STATE_UNUSABLE", "Cannot start the session manager: FIVED_MANAGER says off");
  const told = toldToStop(["SIGINT", "SIGTERM", "SIGHUP"]);
  const isOnDemand = process.env["FIVED_MANAGER_ON_DEMAND"] === "1";
  await using manager = await startManager({
    socket,
    log: (line) => void process.stderr.write(`${new Date().toISOString()} ${line}\n`),
    ...(isOnDemand ? { idleMs: IDLE_MS } : {}),
  });
  if (!isOnDemand) process.stdout.write(`fived: session manager ${process.pid} at ${socket}\n`);
  await Promise.race([told, manager.stopped]);
  return 0;
}

async function start(json: boolean): Promise<number> {
  const manager = await ourManager();
  if (manager === undefined)
    throw new FivedError("STATE_UNUSABLE", "Cannot start the session manager: FIVED_MANAGER says off");
  await using _manager = manager;
  const { pid, socket } = manager;
  process.stdout.write(json ? `${JSON.stringify({ pid, socket })}\n` : `fived: session manager ${pid} at ${socket}\n`);
  return 0;
}

/** The manager of this person, if one runs. */
export async function running(): Promise<ManagerClient | undefined> {
  const { ManagerClient, managerSocket } = await import("../client/index.ts");
  const socket = managerSocket(process.env);
  return socket === undefined ? undefined : await ManagerClient.connect(socket);
}

async function stop(address: string | undefined): Promise<number> {
  const manager = await running();
  if (manager === undefined) {
    process.stderr.write("fived: no session manager runs\n");
    return address === undefined ? 0 : 1;
  }
  await using _manager = manager;
  if (address === undefined) {
    await manager.stop();
    return 0;
  }
  if ((await manager.end(address)) > 0) return 0;
  process.stderr.write(`fived: no session is held at ${address}\n`);
  return 1;
}

async function show(json: boolean): Promise<number> {
  const manager = await running();
  if (manager === undefined) {
    if (json) process.stdout.write(`${JSON.stringify({ running: false })}\n`);
    else process.stderr.write("fived: no session manager runs\n");
    return 1;
  }
  await using _manager = manager;
  const status = await manager.status();
  process.stdout.write(json ? `${JSON.stringify({ running: true, ...status })}\n` : table(status));
  return 0;
}

const HEAD = ["ADDRESS", "AS", "STATE", "CONNECTIONS", "STREAMS", "QUEUED", "RTT"] as const;

function table({ pid, sessions, forwards }: ManagerStatus): string {
  const rows = [HEAD, ...sessions.map(cells)];
  const widths = HEAD.map((_, column) => Math.max(...rows.map((row) => row[column]?.length ?? 0)));
  const lines = rows.map((row) =>
    row
      .map((cell, column) => cell.padEnd(widths[column] ?? 0))
      .join("  ")
      .trimEnd(),
  );
  const troubles = sessions.flatMap(({ trouble }) => (trouble === undefined ? [] : [`  ${trouble}`]));
  const bold = (text: string): string => styleText("bold", text, { stream: process.stdout });
  const [head = "", ...others] = lines;
  return [
    `session manager ${pid}`,
    ...(sessions.length === 0 ? ["no sessions"] : [bold(head), ...others, ...troubles]),
    ...forwards.map((forward) => `forward ${forward}`),
    "",
  ].join("\n");
}

function cells({
  address,
  user,
  identity,
  state,
  connections,
  streams,
  queuedBytes,
  roundTripMs,
}: HeldStatus): readonly string[] {
  return [
    ...[address, identity ?? user ?? "-", state, String(connections), String(streams), size(queuedBytes)],
    roundTripMs === undefined ? "-" : `${roundTripMs.toFixed(1)} ms`,
  ];
}
