/**
 * `fived login ADDR`: sign in, and be that person at that server from now on, until `fived logout ADDR`.
 * @module
 */
import { Command } from "commander";
import { type ClientFlags, choicesOf, clientLogins, peopleHere, withClientFlags } from "./client-flags.ts";
import { ourManager, running } from "./manager.ts";
import type { Verb } from "./verb.ts";

/** The verb `login`. */
export const login: Verb = (ended) =>
  withClientFlags(new Command("login"))
    .description("sign in to a session server, and from now on whenever it is used")
    .argument("<address>", "session server: [user@]host[:port]")
    .option("--json", "print JSON")
    .action(async (address: string, flags: JsonFlags) => {
      ended(await signIn(address, flags));
    });

/** The verb `logout`. */
export const logout: Verb = (ended) =>
  new Command("logout")
    .description("forget whom one has signed in as, and end the sessions that are held there")
    .argument("<address>", "session server: [user@]host[:port]")
    .action(async (address: string) => {
      ended(await forget(address));
    });

type JsonFlags = ClientFlags & { readonly json?: boolean };

async function signIn(text: string, flags: JsonFlags): Promise<number> {
  const { connect, optionsOf, parseAddress, pinName, printAddress } = await import("../client/index.ts");
  const parsed = parseAddress(text);
  const server = { ...parsed, user: undefined, ...(parsed.type === "tcp" ? { service: undefined } : {}) };
  const choices = await choicesOf(flags, parsed, "always");
  const { user } = choices;
  const identity = await signedIn();
  const logins = await clientLogins();
  const way = user === undefined ? undefined : (await logins.find(pinName(server))).ways.get(user);
  if (user === undefined || way === undefined || identity === undefined)
    throw new Error("Invariant: who has signed in has done so in some way");
  await logins.keep(pinName(server), user, way, "stay");
  const address = printAddress(server);
  process.stdout.write(
    flags.json === true
      ? `${JSON.stringify({ address, user: identity, mechanism: way.mechanism, ...(way.key === undefined ? {} : { key: way.key }) })}\n`
      : `signed in at ${address} as ${identity} (${way.mechanism})\n`,
  );
  return 0;

  async function signedIn(): Promise<string | undefined> {
    const people = peopleHere(flags);
    const manager = await ourManager();
    if (manager !== undefined) {
      await using _manager = manager;
      return await manager.login(printAddress(server), choices, people);
    }
    await using session = await connect(server, optionsOf(choices, people));
    return await session.identity;
  }
}

async function forget(text: string): Promise<number> {
  const { parseAddress, pinName, printAddress } = await import("../client/index.ts");
  const parsed = parseAddress(text);
  const server = { ...parsed, user: undefined, ...(parsed.type === "tcp" ? { service: undefined } : {}) };
  const known = await (await clientLogins()).forget(pinName(server));
  await using manager = await running();
  await manager?.end(printAddress(server));
  process.stderr.write(`fived: ${known ? "signed out of" : "was not signed in at"} ${printAddress(server)}\n`);
  return known ? 0 : 1;
}
