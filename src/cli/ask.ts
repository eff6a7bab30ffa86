/**
 * Asks the person at the terminal. The question goes to the terminal itself and not to standard input and output, which carry the bytes
 * of a service; where there is no terminal there is nobody to ask.
 * @module
 */
import fs from "node:fs";
import readline from "node:readline/promises";
import tty from "node:tty";

const TERMINAL = "/dev/tty";

/** A function that asks yes or no, or undefined where this process has no terminal. */
export function asker(): ((question: string) => Promise<boolean>) | undefined {
  try {
    fs.closeSync(fs.openSync(TERMINAL, "r+"));
  } catch {
    return undefined;
  }
  return ask;
}

async function ask(question: string): Promise<boolean> {
  const input = new tty.ReadStream(fs.openSync(TERMINAL, "r"));
  const output = new tty.WriteStream(fs.openSync(TERMINAL, "w"));
  // terminal: false leaves line editing and Ctrl-C to the kernel, whose Ctrl-C ends us as anybody expects.
  const lines = readline.createInterface({ input, output, terminal: false });
  try {
    output.write(`${question} (yes/no) `);
    for await (const line of lines) {
      const answer = line.trim().toLowerCase();
      if (answer === "yes" || answer === "no") return answer === "yes";
      output.write("Please write yes or no: ");
    }
    return false; // End of file is no yes.
  } finally {
    lines.close();
    input.destroy();
    output.destroy();
  }
}
