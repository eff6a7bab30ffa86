/**
 * `fived forward [BIND:]PORT=ADDR/SERVICE ...`: local ports that lead to services, until told to stop.
 * @module
 */
import { Command, InvalidArgumentError } from "commander";
import { type ClientFlags, connectOptions, withClientFlags } from "./client-flags.ts";
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
  for (const { bind, to } of wanted) {
    const parsed = client.parseAddress(to);
    const service = parsed.type === "tcp" ? parsed.service : undefined;
    if (parsed.type !== "tcp" || service === undefined) {
      command.error(`fived: Cannot forward to ${to}: say which service, as in ${to}/web`);
    }
    const address = client.printAddress({ ...parsed, service: undefined });
    const options = await connectOptions(flags, parsed);
    const open = opened.use(await client.forward({ bind, address, service, client: options }));
    process.stdout.write(`fived: ${open.address} -> ${address}/${service}\n`);
  }
  await stop;
  return 0;
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
