/**
 * The standard input and output of a command, such as `ssh gate.example.org nc db.internal 1078`, for networks that only another program gets into.
 * As ssh has it with ProxyCommand: a line for the shell, in which %h and %p are the host and the port. What it says on standard error is the
 * person's to read.
 * @module
 */
import { type ChildProcessByStdio, spawn } from "node:child_process";
import { Duplex, type Readable, type Writable } from "node:stream";
import type { FivedError } from "../../io/index.ts";
import { noConnection, type Transport } from "./transport.ts";

/** Runs a command for each connection. */
export function command(line: string): Transport {
  return {
    name: "command",
    async open(address, signal) {
      signal.throwIfAborted();
      const host = address.type === "unix" ? address.path : address.host.text;
      const port = address.type === "unix" ? "" : String(address.port);
      const values: Readonly<Record<string, string>> = { "%%": "%", "%h": host, "%p": port };
      const filled = line.replace(/%[%hp]/g, (token) => values[token] ?? token);
      // exec: what is to end is the command itself, and no shell before it.
      const child = spawn("/bin/sh", ["-c", `exec ${filled}`], { stdio: ["pipe", "pipe", "inherit"] });
      return new CommandConnection(child, (why) => noConnection(address, `the command "${filled}" ${why}`));
    },
  };
}

class CommandConnection extends Duplex {
  readonly #child: ChildProcessByStdio<Writable, Readable, null>;

  /** @param failed the error for what has become of the command */
  constructor(child: ChildProcessByStdio<Writable, Readable, null>, failed: (why: string) => FivedError) {
    super({ allowHalfOpen: true });
    this.#child = child;
    child.stdin.on("error", () => {}); // it has ended: its status says why
    child.stdout.on("data", (octets: Buffer) => {
      if (!this.push(octets)) child.stdout.pause();
    });
    child.once("error", (error) => this.destroy(failed(`cannot be run: ${error.message}`)));
    // Behind all that it has said.
    child.once("close", (status, signal) => {
      if (status === 0) this.push(null);
      else this.destroy(failed(status === null ? `was ended by ${signal}` : `ended with ${status}`));
    });
  }

  override _read(): void {
    this.#child.stdout.resume();
  }

  override _write(octets: Buffer, _: BufferEncoding, done: (error?: Error | null) => void): void {
    this.#child.stdin.write(octets, () => done()); // what it does not take is told by its end
  }

  override _final(done: (error?: Error | null) => void): void {
    this.#child.stdin.end(() => done());
  }

  override _destroy(error: Error | null, done: (error?: Error | null) => void): void {
    this.#child.stdout.destroy();
    this.#child.kill();
    done(error);
  }
}
