/**
 * `fived forward [BIND:]PORT=ADDR/SERVICE ...`: local ports that lead to services, until told to stop.
 * @module
 */
import { Command, InvalidArgumentError } from "commander";
import type { Address, Bind } from "../client/index.ts";
import { bindIn } from "./bind.ts";
import { type ClientFlags, choicesOf, connectOptions, peopleHere, withClientFlags } from "./client-flags.ts";
import { ourManager } from "./manager.ts";
import { toldToStop } from "./stop.ts";
import type { Verb } from "./verb.ts";

/** The verb `forward`. */
export const forward: Verb = (ended) =>
  withClientFlags(new Command("forward"))
    .description("open local ports that lead to services")
    .argument("[forward...]", "[BIND:]PORT=ADDR/SERVICE or unix:/path=ADDR/SERVICE; port 0 takes a free one", collect)
    .option("-L <forward>", "the same, with the letter of ssh; may be repeated", collect)
    .action(
      async (
        named: readonly Wanted[] | undefined,
        flags: ClientFlags & { readonly L?: readonly Wanted[] },
        command: Command,
      ) => {
        const wanted = [...(named ?? []), ...(flags.L ?? [])];
        if (wanted.length === 0)
          command.error("fived: Cannot forward nothing: say what leads where, as in 8080=example.org/web");
        ended(await run(wanted, flags, command));
      },
    );

/** One forward as asked for: where to listen, and which service at which address lies behind it. */
interface Wanted {
  readonly bind: Bind;
  readonly to: string;
}

async function run(wanted: readonly Wanted[], flags: ClientFlags, command: Command): Promise<number> {
  const client = await import("../client/index.ts");
  const stop = toldToStop(["SIGINT", "SIGTERM", "SIGHUP"]);
  /** There is no manager any more, and no other can be had. */
  const broken = Promise.withResolvers<never>();
  await using opened = new AsyncDisposableStack();
  const wishes = wanted.map(({ bind, to }): Wish => {
    const parsed = client.parseAddress(to);
    const service = parsed.type === "tcp" ? parsed.service : undefined;
    if (parsed.type !== "tcp" || service === undefined)
      command.error(`fived: Cannot forward to ${to}: say which service, as in ${to}/web`);
    return { bind, address: { ...parsed, service: undefined }, service };
  });
  const manager = opened.use(await ourManager());
  for (const { bind, address, service } of wishes) {
    const where = client.printAddress(address);
    const forward =
      manager === undefined
        ? await client.forward({ bind, address, service, client: await connectOptions(flags, address) })
        : await client.forwardThrough(
            manager,
            { bind, address: where, service, choices: await choicesOf(flags, address) },
            peopleHere(flags),
            broken.reject,
          );
    opened.use(forward);
    process.stdout.write(`fived: ${forward.address} -> ${where}/${service}\n`);
  }
  await Promise.race([stop, broken.promise]);
  return 0;
}

/** Where to listen, and for what. */
interface Wish {
  readonly bind: Bind;
  readonly address: Address;
  readonly service: string;
}

function collect(text: string, before: readonly Wanted[] = []): readonly Wanted[] {
  const split = /^(?<bind>[^=]+)=(?<to>.+)$/s.exec(text);
  const bind = split?.groups?.["bind"];
  const to = split?.groups?.["to"];
  if (bind === undefined || to === undefined)
    throw new InvalidArgumentError("Write [BIND:]PORT=ADDR/SERVICE, as in 8080=example.org/web.");
  return [...before, { bind: bindIn(bind), to }];
}
