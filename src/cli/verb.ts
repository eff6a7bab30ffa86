/**
 * What a subcommand's file exports.
 * @module
 */
import type { Command } from "commander";

/** Makes one subcommand; its action calls `ended` with the exit status, and throws when fived itself failed. */
export type Verb = (ended: (status: number) => void) => Command;
