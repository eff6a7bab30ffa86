/**
 * `fived list ADDR [SERVICE]`: the names of the services that I may use there.
 * @module
 */
import { styleText } from "node:util";
import { Command } from "commander";
import { type ClientFlags, choicesOf, connectOptions, peopleHere, withClientFlags } from "./client-flags.ts";
import { ourManager } from "./manager.ts";
import type { Verb } from "./verb.ts";

/** The verb `list`. */
export const list: Verb = (ended) =>
  withClientFlags(new Command("list"))
    .description("list the services that I may use")
    .argument("<address>", "session server: [user@]host[:port][/service]")
    .argument("[service]", "only this one; exit status 1 when it is not there")
    .option("--json", "print JSON")
    .action(async (address: string, service: string | undefined, flags: ClientFlags & { readonly json?: boolean }) => {
      ended(await run(address, service, flags));
    });

async function run(
  text: string,
  name: string | undefined,
  flags: ClientFlags & { readonly json?: boolean },
): Promise<number> {
  const { connect, parseAddress, printAddress } = await import("../client/index.ts");
  const parsed = parseAddress(text);
  const service = name ?? (parsed.type === "tcp" ? parsed.service : undefined);
  const address = printAddress(parsed.type === "tcp" ? { ...parsed, service: undefined } : parsed);
  const services = await listed();
  if (flags.json === true) {
    process.stdout.write(`${JSON.stringify({ address, services })}\n`);
  } else {
    if (process.stdout.isTTY && services.length > 0)
      process.stdout.write(`${styleText("bold", `SERVICES AT ${address}`)}\n`);
    for (const each of services) process.stdout.write(`${each}\n`);
  }
  if (service === undefined || services.length > 0) return 0;
  if (flags.json !== true) process.stderr.write(`fived: no service "${service}" at ${address} is visible to you\n`);
  return 1;

  async function listed(): Promise<readonly string[]> {
    const manager = await ourManager();
    if (manager !== undefined) {
      await using _manager = manager;
      return await manager.list(address, service, await choicesOf(flags, parsed), peopleHere(flags));
    }
    await using session = await connect(address, await connectOptions(flags, parsed));
    return await session.list(service);
  }
}
