/**
 * `fived connect ADDR SERVICE`: standard input and output become the service's. Made for `ssh -o ProxyCommand` and for pipes: every byte
 * passes as it is, each direction ends by itself, and a slow reader on one end slows the writer on the other.
 * @module
 */
import { Command } from "commander";
import { type ClientFlags, choicesOf, connectOptions, peopleHere, withClientFlags } from "./client-flags.ts";
import { ourManager } from "./manager.ts";
import { isWatched, showProgress } from "./progress.ts";
import { joinStandardStreams } from "./standard-streams.ts";
import type { Verb } from "./verb.ts";

/** The verb `connect`. */
export const connect: Verb = (ended) =>
  withClientFlags(new Command("connect"))
    .description("connect standard input and output to a service")
    .argument("<address>", "session server: [user@]host[:port], or with the service behind it: host/service")
    .argument("[service]", "name of the service")
    .option("-t, --terminal", "hand every key to the service as it is typed; ~. at the start of a line ends it")
    .option("--progress", "show how far a transfer is, between pipes too")
    .action(async (address: string, service: string | undefined, flags: Flags, command: Command) => {
      ended(await run(address, service, flags, command));
    });

interface Flags extends ClientFlags {
  readonly terminal?: boolean;
  readonly progress?: boolean;
}

async function run(text: string, name: string | undefined, flags: Flags, command: Command): Promise<number> {
  const client = await import("../client/index.ts");
  const parsed = client.parseAddress(text);
  const service = name ?? (parsed.type === "tcp" ? parsed.service : undefined);
  if (service === undefined) command.error(`fived: Cannot connect to ${text}: say which service, as in ${text}/echo`);
  const address = client.printAddress(parsed.type === "tcp" ? { ...parsed, service: undefined } : parsed);
  const manager = await ourManager();
  const stream =
    manager === undefined
      ? client.connect(address, service, await connectOptions(flags, parsed))
      : manager.open({ address, service, choices: await choicesOf(flags, parsed) }, peopleHere(flags));
  if (flags.verbose === true)
    stream.once("connect", () => process.stderr.write(`fived: connected to ${address}/${service}\n`));
  if (flags.progress === true || isWatched()) showProgress(stream);
  await joinStandardStreams(stream, { terminal: flags.terminal === true });
  return 0;
}
