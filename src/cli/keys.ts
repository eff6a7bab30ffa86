/**
 * `fived keys`: the keys with which back ends are told who is calling (docs/announce.md), to be printed and to be changed.
 * @module
 */
import { Command } from "commander";
import { serverOption } from "./server-flags.ts";
import { configurationOf, type ServerFlags } from "./user-store.ts";
import type { Verb } from "./verb.ts";

interface Flags extends ServerFlags {
  readonly rotate?: boolean;
  readonly withdraw?: boolean;
}

/** The verb `keys`. */
export const keys: Verb = (ended) =>
  new Command("keys")
    .description("print the public keys with which back ends verify who is calling")
    .option("--rotate", "sign with the next key from now on")
    .option("--withdraw", "make new keys, and publish none of the old ones any more")
    .addOption(serverOption("config"))
    .addOption(serverOption("state"))
    .action(async (flags: Flags) => {
      ended(await run(flags));
    });

async function run(flags: Flags): Promise<number> {
  const { AnnounceKeys, createLog } = await import("../server/index.ts");
  const { state, announce } = await configurationOf(flags);
  using opened = await AnnounceKeys.open({ state, publishAt: announce.keys, log: createLog({ level: "error" }) });
  if (flags.withdraw === true) await opened.rotate({ withdraw: true });
  else if (flags.rotate === true) await opened.rotate();
  process.stdout.write(`${JSON.stringify(opened.jwks, undefined, 2)}\n`);
  return 0;
}
