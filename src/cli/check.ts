/**
 * `fived check -c FILE`: what is wrong in a configuration, in the form that editors jump to. Starts nothing.
 * @module
 */
import { Command } from "commander";
import type { Problem } from "../server/index.ts";
import { SYSTEM_CONFIGURATION } from "./folders.ts";
import { serverOption } from "./server-flags.ts";
import type { Verb } from "./verb.ts";

/** The verb `check`. */
export const check: Verb = (ended) =>
  new Command("check")
    .description("say what is wrong in a configuration")
    .addOption(serverOption("config").default(SYSTEM_CONFIGURATION))
    .option("--json", "print JSON")
    .action(async ({ config: file, json = false }: { readonly config: string; readonly json?: boolean }) => {
      const problems = await problemsOf(file);
      const ok = problems.every(({ severity }) => severity === "warning");
      if (json) process.stdout.write(`${JSON.stringify({ file, ok, problems })}\n`);
      else process.stdout.write(problems.length === 0 ? `${file}: ok\n` : problems.map(line).join(""));
      ended(ok ? 0 : 1);
    });

async function problemsOf(file: string): Promise<readonly Problem[]> {
  const { ConfigurationError, loadConfiguration } = await import("../server/index.ts");
  try {
    return (await loadConfiguration(file)).warnings;
  } catch (error) {
    if (error instanceof ConfigurationError) return error.problems;
    throw error;
  }
}

function line({ severity, file, line, column, message }: Problem): string {
  const place = [file, line, column].filter((part) => part !== undefined).join(":");
  return `${[place, severity, message].filter((part) => part !== "").join(": ")}\n`;
}
