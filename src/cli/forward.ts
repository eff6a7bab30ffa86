/**
 * `fived forward [BIND:]PORT=ADDR/SERVICE ...`: local ports that lead to services, until told to stop.
 * @module
 */
import { Command, InvalidArgumentError } from "commander";
import type { Address, Bind, Forward } from "../client/index.ts";
import { FivedError } from "../io/index.ts";
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
  readonly bind: { readonly host: string; readonly port: number } | { readonly path: string };
  readonly to: string;
}

async function run(wanted: readonly Wanted[], flags: ClientFlags, command: Command): Promise<number> {
  const client = await import("../client/index.ts");
  const stop = toldToStop(["SIGINT", "SIGTERM", "SIGHUP"]);
  await using opened = new AsyncDisposableStack();
  const manager = opened.use(await ourManager());
  /** The manager that listens for us has ended. */
  const gone = Promise.withResolvers<FivedError>();
  for (const { bind, to } of wanted) {
    const parsed = client.parseAddress(to);
    const service = parsed.type === "tcp" ? parsed.service : undefined;
    if (parsed.type !== "tcp" || service === undefined) {
      command.error(`fived: Cannot forward to ${to}: say which service, as in ${to}/web`);
    }
    const address = client.printAddress({ ...parsed, service: undefined });
    const open = opened.use(await listening({ bind, address, service }, parsed));
    process.stdout.write(`fived: ${open.address} -> ${address}/${service}\n`);
  }
  const lost = await Promise.race([stop, gone.promise]);
  if (lost instanceof FivedError) throw lost;
  return 0;

  async function listening(wish: Wish, parsed: Address): Promise<Forward> {
    if (manager === undefined) return await client.forward({ ...wish, client: await connectOptions(flags, parsed) });
    const request = { ...wish, choices: await choicesOf(flags, parsed) };
    return await manager.forward(request, peopleHere(flags), gone.resolve);
  }
}

/** Where to listen, and for what. */
interface Wish {
  readonly bind: Bind;
  readonly address: string;
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

function bindIn(text: string): Wanted["bind"] {
  if (text.startsWith("unix:/")) return { path: text.slice("unix:".length) };
  const [, host = "127.0.0.1", port = ""] = /^(?:(\[[^\]]+\]|[^:]+):)?([0-9]{1,5})$/.exec(text) ?? [];
  if (port === "" || Number(port) > 65_535) {
    throw new InvalidArgumentError(
      `"${text}" is no place to listen on: write PORT, HOST:PORT, [IPv6]:PORT or unix:/path.`,
    );
  }
  return { host: host.replace(/^\[(.*)\]$/, "$1"), port: Number(port) };
}
