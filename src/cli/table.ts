/**
 * The table of commands: every verb once, in the order of `fived --help`. Help, completion and the parser all read this one table.
 * @module
 */
import fs from "node:fs";
import { Command } from "commander";
import { attach } from "./attach.ts";
import { check } from "./check.ts";
import { completion } from "./completion.ts";
import { connect } from "./connect.ts";
import { demo } from "./demo.ts";
import { detach } from "./detach.ts";
import { forward } from "./forward.ts";
import { invite } from "./invite.ts";
import { join } from "./join.ts";
import { keys } from "./keys.ts";
import { list } from "./list.ts";
import { login, logout } from "./login.ts";
import { down, status, up } from "./manager.ts";
import { pamHelper } from "./pam-helper.ts";
import { proxy } from "./proxy.ts";
import { serve } from "./serve.ts";
import { user } from "./user.ts";
import type { Verb } from "./verb.ts";

const VERBS: readonly Verb[] = [
  ...[demo, serve, check, user, invite, keys, pamHelper],
  ...[list, connect, forward, proxy, join, login, logout],
  ...[up, down, status, detach, attach],
  completion,
];

/** Builds the table; `ended` is told the exit status of the verb that ran. */
export function commandTable(ended: (status: number) => void): Command {
  const program = new Command("fived")
    .description("services by name, through one encrypted, multiplexed session")
    .version(version(), "-V, --version", "print the version")
    .helpOption("-h, --help", "print help")
    .configureOutput({ outputError: (text, write) => write(text.replace(/^error: /, "fived: ")) })
    .showHelpAfterError("(fived --help says more)")
    .exitOverride();
  for (const verb of VERBS) program.addCommand(adopted(verb(ended), program));
  return program;
}

/** A subcommand, and those below it, with the settings of the program. */
function adopted(command: Command, parent: Command): Command {
  command.copyInheritedSettings(parent).helpOption("-h, --help", "print help").helpCommand(false);
  for (const each of command.commands) adopted(each, command);
  return command;
}

/** The version of the package that this file belongs to, built or not. */
function version(): string {
  return JSON.parse(fs.readFileSync(new URL("../../package.json", import.meta.url), "utf8")).version;
}
