/**
 * Asks the person at the terminal. The question goes to the terminal itself and not to standard input and output, which carry the bytes
 * of a service; where there is no terminal there is nobody to ask.
 * @module
 */
import { spawn } from "node:child_process";
import { once } from "node:events";
import fs from "node:fs";
import readline from "node:readline/promises";
import tty from "node:tty";
import { FivedError } from "../io/index.ts";

const TERMINAL = "/dev/tty";
/** Octets of an answer, as many as fit in a line of the protocol. */
const ANSWER_BYTES_MAX = 1_024;

/** Answers a question, as octets without the end of the line; they are the caller's to wipe. Rejects with ABORTED where nobody wants to. */
export type Questioner = (question: string, shown: boolean) => Promise<Uint8Array>;

/** A function that asks yes or no, or undefined where this process has no terminal. */
export function asker(): ((question: string) => Promise<boolean>) | undefined {
  return hasTerminal() ? ask : undefined;
}

/**
 * Asks for passwords and the like: the program that FIVED_ASKPASS names, which gets the question as its argument and prints the answer, as
 * ssh has it; or the person at the terminal. Undefined where there is neither.
 */
export function questioner(): Questioner | undefined {
  const program = process.env["FIVED_ASKPASS"];
  if (program !== undefined && program !== "") return (question) => askProgram(program, question);
  return hasTerminal() ? askTerminal : undefined;
}

function hasTerminal(): boolean {
  try {
    fs.closeSync(fs.openSync(TERMINAL, "r+"));
    return true;
  } catch {
    return false;
  }
}

async function askProgram(program: string, question: string): Promise<Uint8Array> {
  const child = spawn(program, [question], { stdio: ["ignore", "pipe", "inherit"] });
  const answer = Buffer.alloc(ANSWER_BYTES_MAX + 2);
  let bytes = 0;
  child.stdout.on("data", (chunk: Buffer) => {
    bytes += chunk.copy(answer, bytes);
    chunk.fill(0);
  });
  const why = await once(child, "close").then(
    ([code]) => (code === 0 ? undefined : "it said no"),
    (error: Error) => error.message,
  );
  if (why !== undefined) throw new FivedError("ABORTED", `Cannot ask "${question}" with ${program}: ${why}`);
  const said = answer.subarray(0, bytes);
  const end = said.at(-1) !== 0x0a ? bytes : said.at(-2) === 0x0d ? bytes - 2 : bytes - 1;
  return answer.subarray(0, end);
}

async function askTerminal(question: string, shown: boolean): Promise<Uint8Array> {
  const input = new tty.ReadStream(fs.openSync(TERMINAL, "r"));
  const output = new tty.WriteStream(fs.openSync(TERMINAL, "w"));
  try {
    input.setRawMode(true); // first: what is typed as soon as the question stands there must not be shown
    output.write(/\s$/.test(question) ? question : `${question} `);
    return await typed(input, output, shown);
  } finally {
    input.setRawMode(false);
    input.destroy();
    output.destroy();
  }
}

/** What was typed behind an answer, before the next question was there. */
let typedAhead: Buffer = Buffer.alloc(0);

/** The keys of a line editor that a person expects; in raw mode nobody else minds them. */
const Key = { interrupt: 0x03, end: 0x04, back: 0x08, newline: 0x0a, enter: 0x0d, clear: 0x15, erase: 0x7f } as const;

/** Reads a line key by key, as only then nothing of it is shown; wherever it lay, it is wiped. */
async function typed(input: tty.ReadStream, output: tty.WriteStream, shown: boolean): Promise<Uint8Array> {
  const line = Buffer.alloc(ANSWER_BYTES_MAX);
  let bytes = 0;
  const erase = (): void => {
    // An octet of the form 10xxxxxx goes on with a character of UTF-8: it takes those before it along.
    while (bytes > 0 && ((line[--bytes] ?? 0) & 0xc0) === 0x80);
    if (shown) output.write("\b \b");
  };
  for (;;) {
    const keys = typedAhead;
    typedAhead = Buffer.alloc(0);
    for (const [at, key] of keys.entries()) {
      switch (key) {
        case Key.newline:
        case Key.enter:
          output.write("\r\n");
          typedAhead = Buffer.from(keys.subarray(at + 1));
          keys.fill(0);
          return line.subarray(0, bytes);
        case Key.back:
        case Key.erase:
          if (bytes > 0) erase();
          break;
        case Key.clear:
          while (bytes > 0) erase();
          break;
        case Key.interrupt:
        case Key.end:
          if (key === Key.end && bytes > 0) break;
          line.fill(0);
          output.write("\r\n");
          input.setRawMode(false);
          if (key === Key.interrupt) process.kill(process.pid, "SIGINT");
          throw new FivedError("ABORTED", "Cannot go on: the question was not answered");
        default:
          if (key < 0x20 || bytes === line.length) break;
          line[bytes++] = key;
          if (shown) output.write(Uint8Array.of(key));
      }
    }
    keys.fill(0);
    const more = await keysOf(input);
    if (more === undefined) throw new FivedError("ABORTED", "Cannot go on: the terminal is gone");
    typedAhead = more;
  }
}

/** What is typed next; undefined when the terminal is gone. */
function keysOf(input: tty.ReadStream): Promise<Buffer | undefined> {
  const { promise, resolve } = Promise.withResolvers<Buffer | undefined>();
  const gone = (): void => resolve(undefined);
  input.once("data", resolve).once("end", gone).once("error", gone);
  return promise.finally(() => input.off("data", resolve).off("end", gone).off("error", gone));
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
