/**
 * What a person has chosen for a connection, as plain data: it can be written down, compared, and told to the session manager, in which the
 * functions that a {@link ConnectOptions} has besides are made anew. Nobody is asked anything here.
 * @module
 */
import { signerOf, sshKeys } from "./auth/keys.ts";
import { loginsIn } from "./auth/logins.ts";
import type { AuthOptions, ClientMechanism } from "./auth/options.ts";
import type { ConnectOptions } from "./dial.ts";

/** Options of a connection that are data. */
export interface ClientChoices
  extends Pick<
    ConnectOptions,
    "strictHostKeyChecking" | "tls" | "pipeline" | "ca" | "certificate" | "connectTimeoutMs" | "paths"
  > {
  readonly knownHosts: string;
  /** How octets get there, as it is written. */
  readonly transport?: string;
  /** Whom to sign in as; nobody signs in where it is left out. */
  readonly user?: string;
  readonly mechanisms?: readonly ClientMechanism[];
  /** Key files that were named. */
  readonly identityFiles: readonly string[];
  readonly identitiesOnly?: boolean;
  /** Socket of the ssh-agent. */
  readonly agent?: string;
  /** Folder of keys that nobody named, as `~/.ssh`. */
  readonly keysFolder: string;
  /** File of {@link loginsIn}. */
  readonly loginsFile: string;
  /** Wait for the answer to AUTH in any case. */
  readonly careful?: boolean;
}

/** Who can be asked, and told. */
export interface People {
  /** Answers yes or no; left out where there is nobody. */
  readonly confirm?: (question: string) => Promise<boolean>;
  /** Answers a question, in octets that are wiped after use; left out where there is nobody. */
  readonly ask?: (question: string, shown: boolean) => Promise<Uint8Array>;
  /** How often a password may be mistyped. */
  readonly tries: number;
  log(line: string): void;
  /** Hears why keys are passed over; left out where nobody wants to. */
  readonly detail?: (line: string) => void;
}

/** The options that these choices stand for. */
export function optionsOf(choices: ClientChoices, people: People): ConnectOptions {
  const { user, mechanisms, identityFiles, identitiesOnly, agent, keysFolder, loginsFile, careful, ...plain } = choices;
  const { confirm, ask, detail } = people;
  const log = (line: string): void => people.log(line);
  const options: ConnectOptions = { ...plain, log, ...(confirm === undefined ? {} : { ask: confirm }) };
  if (user === undefined) return options;
  const keys = {
    identityFiles,
    folder: keysFolder,
    agent,
    ...(identitiesOnly === undefined ? {} : { identitiesOnly }),
    ...(ask === undefined ? {} : { passphrase: (file: string) => ask(`Enter passphrase for ${file}: `, false) }),
    ...(detail === undefined ? {} : { log: detail }),
  };
  const auth: AuthOptions = {
    user,
    logins: loginsIn(loginsFile),
    ...(mechanisms === undefined ? {} : { mechanisms }),
    ...(ask === undefined ? {} : { password: ask, passwordTries: people.tries }),
    ...(careful === undefined ? {} : { careful }),
    signers: async () => (await sshKeys(keys)).map((key) => signerOf(key, keys)),
  };
  return { ...options, auth };
}
