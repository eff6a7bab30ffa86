/**
 * `fived detach ADDRESS`: takes a session from this computer and prints what another one needs to go on with it. Its programs here end behind
 * what has come for them.
 * @module
 */
import { Command } from "commander";
import { FivedError } from "../io/index.ts";
import { running } from "./manager.ts";
import type { Verb } from "./verb.ts";

/** The verb `detach`. */
export const detach: Verb = (ended) =>
  new Command("detach")
    .description("leave a session, and print the token with which it is gone on with elsewhere")
    .argument("<address>", "session server: host[:port]")
    .addHelpText("after", "\nThe token is a secret, and good once: fived detach example.org | ssh other fived attach")
    .action(async (address: string) => {
      ended(await run(address));
    });

async function run(address: string): Promise<number> {
  const manager = await running();
  if (manager === undefined)
    throw new FivedError(
      "DETACH_IMPOSSIBLE",
      `Cannot detach ${address}: no session manager runs, so it holds no session`,
    );
  await using _manager = manager;
  for (const token of await manager.detach(address)) process.stdout.write(`${token}\n`);
  process.stderr.write("fived: detached; go on with it elsewhere: fived attach < TOKEN\n");
  return 0;
}
