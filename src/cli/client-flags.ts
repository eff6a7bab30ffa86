/**
 * The flags every client verb takes, with the letters and the words of ssh: `-o Key=Value`, `-i KEYFILE`, `-v`.
 * @module
 */
import fs from "node:fs";
import path from "node:path";
import { type Command, InvalidArgumentError } from "commander";
import type { ConnectOptions } from "../client/index.ts";
import { FivedError } from "../io/index.ts";
import { asker } from "./ask.ts";
import { configurationFolder, expanded } from "./folders.ts";

/** What commander makes of these flags. */
export interface ClientFlags {
  readonly o?: Partial<ConnectOptions>;
  readonly i?: string;
  readonly verbose?: boolean;
}

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
    .option("-i <keyfile>", "private key to sign in with, where the server asks for it")
    .option("-v, --verbose", "say more on standard error, and why something failed");
}

/** What the flags ask of the client; questions go to the terminal, if there is one. */
export function connectOptions({ o = {}, i }: ClientFlags): ConnectOptions {
  if (i !== undefined) mustBeReadable(expanded(i));
  const ask = asker();
  return {
    knownHosts: path.join(configurationFolder(), "known_hosts"),
    strictHostKeyChecking: "ask",
    ...(ask === undefined ? {} : { ask }),
    log: (line) => void process.stderr.write(`fived: ${line}\n`),
    ...o,
  };
}

interface Option {
  readonly usage: string;
  /** The part of the client's options that the value stands for; undefined when it stands for nothing. */
  read(value: string): Partial<ConnectOptions> | undefined;
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
  connecttimeout: {
    usage: "ConnectTimeout=SECONDS",
    read: (value) => (/^[1-9][0-9]{0,5}$/.test(value) ? { connectTimeoutMs: Number(value) * 1000 } : undefined),
  },
  cafile: {
    usage: "CaFile=FILE",
    read: (value) => (value === "" ? undefined : { ca: expanded(value) }),
  },
};

function readOption(text: string, before: Partial<ConnectOptions> = {}): Partial<ConnectOptions> {
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

function mustBeReadable(file: string): void {
  try {
    fs.accessSync(file, fs.constants.R_OK);
  } catch (cause) {
    throw new FivedError(
      "STATE_UNUSABLE",
      `Cannot use the key file ${file}: it is missing or not readable; name another with -i`,
      { cause },
    );
  }
}
