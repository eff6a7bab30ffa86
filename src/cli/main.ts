/**
 * The command `fived`: reads the command line, runs one verb, and says in one line what went wrong. The verbs lie in a file each and load
 * the rooms they need when they run, so that `fived connect` never waits for the server's libraries.
 *
 * Exit status: 0 done; 1 the answer is no (list of an unknown name, check of a faulty file); 2 wrong use; 255 fived itself failed.
 * @module
 */
import { CommanderError } from "commander";
import { FivedError } from "../io/index.ts";
import { commandTable } from "./table.ts";

/** Wrong use of the command line, as for every GNU tool. */
const EXIT_USAGE = 2;
/** fived's own failure, as for ssh: so that a status below it can be somebody else's. */
const EXIT_OWN_FAILURE = 255;

/** Runs the command line (without the program's own name) and answers its exit status. */
export async function main(args: readonly string[]): Promise<number> {
  let status = 0;
  const table = commandTable((ended) => {
    status = ended;
  });
  try {
    await table.parseAsync(args, { from: "user" });
    return status;
  } catch (error) {
    if (error instanceof CommanderError) return error.exitCode === 0 ? 0 : EXIT_USAGE;
    const verbose = table.commands.some((command) => command.opts()["verbose"] === true);
    process.stderr.write(`fived: ${explained(error, verbose)}\n`);
    return EXIT_OWN_FAILURE;
  }
}

function explained(error: unknown, verbose: boolean): string {
  const message = printable(error instanceof Error ? error.message : String(error));
  // What the world does to us has a code, ours or the system's. An error without one is a mistake of ours, and its place matters.
  if (error instanceof FivedError || (error instanceof Error && "code" in error)) {
    return verbose ? [message, ...causes(error)].join("\nfived:   because: ") : message;
  }
  const stack =
    verbose && error instanceof Error
      ? `\n${printable(error.stack ?? "")}`
      : "; run it again with -v and report what it prints";
  return `Internal error: ${message}${stack}`;
}

/** Causes of an error, outermost first, at most as many as anyone reads. */
function causes(error: Error): readonly string[] {
  const found: string[] = [];
  for (let { cause } = error; cause instanceof Error && found.length < 4; cause = cause.cause) {
    found.push(printable(cause.message));
  }
  return found;
}

/** A message may quote a peer, and a peer must not move the cursor. */
function printable(text: string): string {
  return text.replace(/[\p{Cc}\u2028-\u202e\u2066-\u2069]/gu, (character) =>
    character === "\n" || character === "\t" ? character : `\\u{${character.codePointAt(0)?.toString(16)}}`,
  );
}
