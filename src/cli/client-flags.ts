/**
 * The flags every client verb takes, with the letters and the words of ssh: `-o Key=Value`, `-i KEYFILE`, `-l USER`, `-v`; and whom a verb
 * signs in as. As with ssh, there is always somebody to be: the named user, the one of `fived login`, in the end the one of this computer;
 * but unlike ssh, where nobody was named and nobody has logged in, nobody signs in, for many services are for anyone.
 * @module
 */
import fs from "node:fs";
import os from "node:os";
import path from "node:path";
import { type Command, InvalidArgumentError } from "commander";
import type {
  Address,
  ClientChoices,
  ClientMechanism,
  ConnectOptions,
  Logins,
  People,
  SshKeysOptions,
} from "../client/index.ts";
import { FivedError } from "../io/index.ts";
import { asker, questioner } from "./ask.ts";
import { expanded } from "./folders.ts";

/** What commander makes of these flags. */
export interface ClientFlags {
  readonly o?: Partial<Chosen>;
  readonly i?: readonly string[];
  readonly l?: string;
  readonly verbose?: boolean;
}

/** What `-o` can choose. */
interface Chosen extends Omit<ConnectOptions, "auth" | "certificate" | "transport"> {
  readonly transport: string;
  readonly certificateFile: string;
  /** In the same file as the certificate where it is left out. */
  readonly certificateKeyFile: string;
  readonly user: string;
  readonly identityFile: string;
  readonly identitiesOnly: boolean;
  readonly mechanisms: readonly ClientMechanism[];
  /** Nobody is asked anything. */
  readonly batch: boolean;
}

/** How often a person may mistype a password, as with ssh. */
const PASSWORD_TRIES = 3;

/** Adds the flags to a subcommand. */
export function withClientFlags(command: Command): Command {
  return command
    .option(
      "-o <key=value>",
      `set an option as for ssh: ${Object.values(OPTIONS)
        .map((option) => option.usage)
        .join(", ")}`,
      readOption,
    )
    .option("-i <keyfile>", "private key to sign in with; may be repeated", collect)
    .option("-l <user>", "whom to sign in as, if the address names nobody")
    .option("-v, --verbose", "say more on standard error, and why something failed");
}

/**
 * What the flags ask of the client, at this address; questions go to the terminal, if there is one.
 * @param always sign in, as the user of this computer where nobody else was named
 */
export async function connectOptions(flags: ClientFlags, address: Address, always?: "always"): Promise<ConnectOptions> {
  const { optionsOf } = await import("../client/index.ts");
  return optionsOf(await choicesOf(flags, address, always), peopleHere(flags));
}

/** The same as plain data. */
export async function choicesOf(flags: ClientFlags, address: Address, always?: "always"): Promise<ClientChoices> {
  const { user, identityFile, batch: _, certificateFile, certificateKeyFile, ...o } = flags.o ?? {};
  const named = [...(flags.i ?? []), ...(identityFile === undefined ? [] : [identityFile])].map(absolute);
  for (const file of named) mustBeReadable(file);
  const { personalChoices } = await import("../client/index.ts");
  const local = always === undefined ? undefined : os.userInfo().username;
  return {
    ...(await personalChoices(address, { user: flags.l ?? user, otherwise: local })),
    ...(certificateFile === undefined
      ? {}
      : { certificate: { certificate: certificateFile, key: certificateKeyFile ?? certificateFile } }),
    ...o,
    ...(named.length > 0 ? { identityFiles: named } : {}),
    ...(always === undefined ? {} : { careful: true }),
  };
}

/** Whoever sits at the terminal, if there is one and the flags let him be asked. */
export function peopleHere(flags: ClientFlags): People {
  const isBatch = flags.o?.batch === true;
  const confirm = isBatch ? undefined : asker();
  const ask = isBatch ? undefined : questioner();
  const log = (line: string): void => void process.stderr.write(`fived: ${line}\n`);
  return {
    ...(confirm === undefined ? {} : { confirm }),
    ...(ask === undefined ? {} : { ask }),
    tries: process.env["FIVED_ASKPASS"] ? 1 : PASSWORD_TRIES,
    log,
    ...(flags.verbose === true ? { detail: log } : {}),
  };
}

/** Where ssh has a person's keys, and what else is asked of them. */
export async function keysOptions(options: Omit<SshKeysOptions, "agent" | "folder">): Promise<SshKeysOptions> {
  const { agentSocket } = await import("../client/index.ts");
  return { ...options, agent: agentSocket(process.env), folder: path.join(os.homedir(), ".ssh") };
}

/** A file that was named, wherever it is used from later. */
export function absolute(file: string): string {
  return path.resolve(expanded(file));
}

/** Where this person has signed in. */
export async function clientLogins(): Promise<Logins> {
  const { personalLogins } = await import("../client/index.ts");
  return personalLogins();
}

interface Option {
  readonly usage: string;
  /** The part of the client's options that the value stands for; undefined when it stands for nothing. */
  read(value: string): Partial<Chosen> | undefined;
}

/** Keys in lower case: as in ssh, their case does not matter. */
const OPTIONS: Readonly<Record<string, Option>> = {
  stricthostkeychecking: {
    usage: "StrictHostKeyChecking=yes|accept-new|ask|off",
    read(value) {
      if (value === "no") return { strictHostKeyChecking: "off" }; // ssh takes both words.
      if (value === "yes" || value === "accept-new" || value === "ask" || value === "off")
        return { strictHostKeyChecking: value };
      return undefined;
    },
  },
  userknownhostsfile: {
    usage: "UserKnownHostsFile=FILE",
    read: (value) => (value === "" ? undefined : { knownHosts: expanded(value) }),
  },
  tls: {
    usage: "Tls=required|in-band|off",
    read: (value) => (value === "required" || value === "in-band" || value === "off" ? { tls: value } : undefined),
  },
  pipeline: {
    usage: "Pipeline=yes|no",
    read: (value) => (value === "yes" || value === "no" ? { pipeline: value === "yes" } : undefined),
  },
  transport: {
    usage: "Transport=tcp|mptcp|ws://…|wss://…|exec:COMMAND",
    read: (value) => (/^(tcp|mptcp|wss?:\/\/.+|exec:.+)$/s.test(value) ? { transport: value } : undefined),
  },
  proxycommand: {
    usage: "ProxyCommand=COMMAND",
    read: (value) => (value === "" ? undefined : { transport: value === "none" ? "tcp" : `exec:${value}` }),
  },
  connecttimeout: {
    usage: "ConnectTimeout=SECONDS",
    read: (value) => (/^[1-9][0-9]{0,5}$/.test(value) ? { connectTimeoutMs: Number(value) * 1000 } : undefined),
  },
  cafile: {
    usage: "CaFile=FILE",
    read: (value) => (value === "" ? undefined : { ca: expanded(value) }),
  },
  tlscertificate: {
    usage: "TlsCertificate=FILE",
    read: (value) => (value === "" ? undefined : { certificateFile: absolute(value) }),
  },
  tlskey: {
    usage: "TlsKey=FILE",
    read: (value) => (value === "" ? undefined : { certificateKeyFile: absolute(value) }),
  },
  user: {
    usage: "User=NAME",
    read: (value) => (value === "" ? undefined : { user: value }),
  },
  identityfile: {
    usage: "IdentityFile=FILE",
    read: (value) => (value === "" ? undefined : { identityFile: value }),
  },
  identitiesonly: {
    usage: "IdentitiesOnly=yes|no",
    read: (value) => (value === "yes" || value === "no" ? { identitiesOnly: value === "yes" } : undefined),
  },
  preferredauthentications: {
    usage: "PreferredAuthentications=cert,pubkey,up",
    read(value) {
      const mechanisms = value.split(",").flatMap((word) => MECHANISMS.get(word.trim().toLowerCase()) ?? []);
      return mechanisms.length === value.split(",").length ? { mechanisms } : undefined;
    },
  },
  batchmode: {
    usage: "BatchMode=yes|no",
    read: (value) => (value === "yes" || value === "no" ? { batch: value === "yes" } : undefined),
  },
};

/** Our words, and those that ssh has for the same. */
const MECHANISMS: ReadonlyMap<string, ClientMechanism> = new Map([
  ["cert", "cert"],
  ["pubkey", "pubkey"],
  ["publickey", "pubkey"],
  ["up", "up"],
  ["password", "up"],
  ["keyboard-interactive", "up"],
]);

function collect(value: string, before: readonly string[] = []): readonly string[] {
  return [...before, value];
}

function readOption(text: string, before: Partial<Chosen> = {}): Partial<Chosen> {
  const [, key = "", value = ""] = /^\s*([^=\s]+)\s*[=\s]\s*(.*?)\s*$/s.exec(text) ?? [];
  const option = Object.hasOwn(OPTIONS, key.toLowerCase()) ? OPTIONS[key.toLowerCase()] : undefined;
  if (option === undefined) {
    const usages = Object.values(OPTIONS).map(({ usage }) => usage);
    throw new InvalidArgumentError(`Known are ${usages.join(", ")}`);
  }
  const read = option.read(value);
  if (read === undefined) throw new InvalidArgumentError(`Write ${option.usage}`);
  // As in ssh, the first value given for a key stands.
  return { ...read, ...before };
}

/** Of a key that an agent holds, the file with its public half will do. */
function mustBeReadable(file: string): void {
  try {
    fs.accessSync(file, fs.constants.R_OK);
  } catch (cause) {
    if (fs.existsSync(`${file}.pub`)) return;
    throw new FivedError(
      "STATE_UNUSABLE",
      `Cannot use the key file ${file}: it is missing or not readable; name another with -i`,
      { cause },
    );
  }
}
