/**
 * `fived attach [FILE]`: goes on with a session that was detached, here or on another computer. One of its streams becomes standard input and output; a terminal
 * goes on where it was, and a file at the octet behind the last that had come.
 * @module
 */
import fs from "node:fs/promises";
import { Command } from "commander";
import type { AttachedSession, DetachedStream } from "../client/index.ts";
import { FivedError, replacePrivateFile } from "../io/index.ts";
import { type ClientFlags, connectOptions, withClientFlags } from "./client-flags.ts";
import { size } from "./progress.ts";
import { joinStandardStreams } from "./standard-streams.ts";
import { toldToStop } from "./stop.ts";
import type { Verb } from "./verb.ts";

interface Flags extends ClientFlags {
  readonly list?: boolean;
  readonly stream?: number;
  readonly terminal?: boolean;
  readonly skip?: boolean;
}

/** The verb `attach`. */
export const attach: Verb = (ended) =>
  withClientFlags(new Command("attach"))
    .description("go on with a session that was detached")
    .argument(
      "[file]",
      "file with the token; where it is left out, or -, the first line of standard input is the token",
    )
    .option("--list", "print the streams, and leave the session alone")
    .option("--stream <number>", "which stream to go on with, where there are several", Number)
    .option("--skip", "standard input is a file from its beginning: pass over what was sent of it")
    .option(
      "-t, --terminal",
      "hand every key to the service as it is typed; ~. ends it, ~d detaches it into FILE again",
    )
    .action(async (file: string | undefined, flags: Flags, command: Command) => {
      ended(await run(file, flags, command));
    });

/** A token of a session with very many streams; who sends more has mistaken the file. */
const TOKEN_OCTETS_MAX = 1_000_000;
const NEW_LINE = "\n".charCodeAt(0);

async function run(given: string | undefined, flags: Flags, command: Command): Promise<number> {
  const client = await import("../client/index.ts");
  const file = given === undefined || given === "-" ? undefined : given;
  const { token, rest } =
    file === undefined ? await firstLine() : { token: await fs.readFile(file, "utf8"), rest: undefined };
  const detached = await client.parseDetached(token, Date.now());
  const streams = client.detachedStreams(detached.state);
  if (flags.list === true) {
    for (const stream of streams) process.stdout.write(`${described(stream)}\n`);
    return 0;
  }
  const chosen =
    flags.stream === undefined && streams.length === 1 ? streams[0] : streams.find(({ id }) => id === flags.stream);
  if (chosen === undefined)
    command.error(`fived: Cannot attach: say with --stream which one of\n${streams.map(described).join("\n")}`);
  const session = await client.attach(token, await connectOptions(flags, client.parseAddress(detached.address)));
  if (file !== undefined) await fs.rm(file, { force: true }); // a token is good once
  process.stderr.write(`fived: attached to ${detached.address}: ${described(chosen)}\n`);
  await goOn(session, chosen, {
    ...flags,
    ...(file === undefined ? {} : { file }),
    ...(rest === undefined ? {} : { rest }),
  });
  return 0;
}

/** Goes on with one stream until it is over, or until the session is left again. */
async function goOn(
  { session, streams }: AttachedSession,
  { id, sent }: DetachedStream,
  { terminal, skip, file, rest }: Flags & { readonly file?: string; readonly rest?: Uint8Array },
): Promise<void> {
  const stream = streams.find((each) => each.id === id)?.stream;
  if (stream === undefined) throw new Error(`Invariant: stream ${id} is open`);
  for (const { stream: other } of streams) if (other !== stream) other.on("error", () => {}); // its end is the session's
  let left: Promise<string> | undefined;
  const leave = (): void => {
    left ??= session.detach();
    left.catch((error: Error) => stream.destroy(error));
  };
  void toldToStop(["SIGHUP", "SIGTERM"]).then(leave);
  if (skip === true) await passOver(sent);
  try {
    await joinStandardStreams(stream, {
      terminal: terminal === true,
      ...(rest === undefined ? {} : { first: rest }),
      detach: leave,
    });
  } catch (error) {
    if (left === undefined) throw error;
    await keep(await left, file);
    return;
  }
  await session[Symbol.asyncDispose]();
}

/** Where the token of a session is kept that was left again: in the file it came from, else it is told. */
async function keep(token: string, file: string | undefined): Promise<void> {
  if (file === undefined) return void process.stderr.write(`fived: detached\n${token}\n`);
  await replacePrivateFile(file, `${token}\n`);
  process.stderr.write(`fived: detached; go on with it: fived attach ${file}\n`);
}

function described({ id, service, sent, received }: DetachedStream): string {
  return `${id} ${service}, ${sent} octets sent (${size(sent)}), ${received} received (${size(received)})`;
}

/** Reads the first line of standard input; what was read behind it is the stream's. */
async function firstLine(): Promise<{ readonly token: string; readonly rest: Uint8Array }> {
  const read: Buffer[] = [];
  let octets = 0;
  for await (const piece of process.stdin.iterator({ destroyOnReturn: false })) {
    read.push(piece);
    octets += piece.length;
    const end = piece.indexOf(NEW_LINE);
    if (end < 0 && octets <= TOKEN_OCTETS_MAX) continue;
    const all = Buffer.concat(read);
    const at = end < 0 ? all.length : all.length - piece.length + end;
    return { token: all.toString("latin1", 0, at), rest: all.subarray(at + 1) };
  }
  return { token: Buffer.concat(read).toString("latin1"), rest: new Uint8Array(0) };
}

/** Reads so many octets of standard input, and forgets them. */
async function passOver(octets: number): Promise<void> {
  let left = octets;
  while (left > 0) {
    const piece: Buffer | null = process.stdin.read();
    if (piece !== null) {
      if (piece.length > left) process.stdin.unshift(piece.subarray(left));
      left -= Math.min(left, piece.length);
    } else if (process.stdin.readableEnded)
      throw new FivedError(
        "ABORTED",
        `Cannot go on with the file: it is ${left} octets shorter than what was sent of it`,
      );
    else await new Promise((resolve) => process.stdin.once("readable", resolve).once("end", resolve));
  }
}
