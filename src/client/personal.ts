/**
 * How a person connects who has said nothing of it: pins, keys and logins lie where `fived` keeps them, so that a program and the command
 * line trust the same servers and are the same person there.
 * @module
 */
import { homedir } from "node:os";
import { join } from "node:path";
import { clientStateFolder, configurationFolder } from "../io/index.ts";
import type { Address } from "./address.ts";
import { agentSocket } from "./auth/agent.ts";
import { type Logins, loginsIn } from "./auth/logins.ts";
import type { ClientChoices } from "./choices.ts";
import { pinName } from "./known-hosts.ts";
import { personalPaths } from "./path-rules.ts";

/**
 * A person's choices at an address. Rejects with STATE_UNUSABLE where the logins cannot be read, with CONFIGURATION_BAD where the rules for
 * connections cannot.
 * @param who the user that was named, and the one to be where nobody was and nobody has signed in: then nobody signs in, if left out
 */
export async function personalChoices(
  address: Address,
  who: { readonly user?: string | undefined; readonly otherwise?: string | undefined } = {},
): Promise<ClientChoices> {
  const known = await personalLogins().find(pinName(address));
  const user = who.user ?? address.user ?? known.user ?? who.otherwise;
  const keyFile = user === undefined ? undefined : known.ways.get(user)?.keyFile;
  const agent = agentSocket(process.env);
  const paths = await personalPaths(address);
  return {
    knownHosts: personalPins(),
    strictHostKeyChecking: "ask",
    ...(user === undefined ? {} : { user }),
    identityFiles: keyFile === undefined ? [] : [keyFile],
    ...(agent === undefined ? {} : { agent }),
    keysFolder: join(homedir(), ".ssh"),
    loginsFile: loginsFile(),
    ...(paths.length > 0 ? { paths } : {}),
  };
}

/** A person's file of pins. */
export function personalPins(): string {
  return join(configurationFolder(), "known_hosts");
}

/** Where a person has signed in. */
export function personalLogins(): Logins {
  return loginsIn(loginsFile());
}

function loginsFile(): string {
  return join(clientStateFolder(), "logins.yaml");
}
