/**
 * A stream joined with standard input and output, as `fived connect` and `fived attach` do it.
 * @module
 */
import { once } from "node:events";
import { type Duplex, Transform, type TransformCallback } from "node:stream";
import { FivedError } from "../io/index.ts";
import { standardOutput } from "./standard-output.ts";

/** How else a stream is joined. */
export interface Joining {
  /** A terminal hands over every key as it is typed, and {@link Escapes} are looked for. */
  readonly terminal: boolean;
  /** What was read of standard input already. */
  readonly first?: Uint8Array;
  /** Called when the person asks with `~d` to leave the session. */
  readonly detach?: () => void;
}

/** Joins the stream with standard input and output until nothing more can come or go; rejects with what broke the stream. */
export async function joinStandardStreams(stream: Duplex, { terminal, first, detach }: Joining): Promise<void> {
  const output = standardOutput();
  const isTerminal = terminal && process.stdin.isTTY;
  let outputGone = false;
  output.on("error", () => {
    // Whoever read our output has left (`fived connect … | head`). That is their right and no failure, but nobody needs the rest.
    outputGone = true;
    stream.destroy();
  });
  stream.once("end", () => {
    // A person at a terminal has nothing more to say to a service that has ended.
    if (process.stdin.isTTY) stream.end();
  });
  process.stdin.once("error", () => stream.end());
  if (first !== undefined && first.length > 0) stream.write(first);
  if (isTerminal) {
    process.stdin.setRawMode(true);
    const escapes = new Escapes(() => stream.destroy(new FivedError("ABORTED", "Left with ~.")), detach);
    process.stdin.pipe(escapes).pipe(stream);
  } else process.stdin.pipe(stream);
  stream.pipe(output);
  try {
    await once(stream, "close");
    if (!stream.readableEnded && !outputGone) {
      throw stream.errored ?? new FivedError("SESSION_LOST", "Lost the stream before the service had ended it");
    }
  } catch (error) {
    if (!outputGone) throw error;
  } finally {
    if (isTerminal) process.stdin.setRawMode(false);
    process.stdin.destroy();
    if (!outputGone && !output.writableFinished) await once(output.end(), "finish").catch(() => {});
  }
}

/** As ssh has it: `~.` at the start of a line leaves, `~d` detaches, `~~` is a tilde. */
class Escapes extends Transform {
  readonly #leave: () => void;
  readonly #detach: (() => void) | undefined;
  #isLineStart = true;
  #isEscaped = false;

  constructor(leave: () => void, detach: (() => void) | undefined) {
    super();
    this.#leave = leave;
    this.#detach = detach;
  }

  override _transform(keys: Uint8Array, _encoding: BufferEncoding, done: TransformCallback): void {
    const typed: number[] = [];
    for (const key of keys) {
      const character = String.fromCharCode(key);
      if (this.#isEscaped) {
        this.#isEscaped = false;
        if (character === ".") this.#leave();
        else if (character === "d" && this.#detach !== undefined) this.#detach();
        else typed.push(...(character === "~" ? [key] : [TILDE, key]));
        this.#isLineStart = false;
      } else if (this.#isLineStart && key === TILDE) this.#isEscaped = true;
      else {
        typed.push(key);
        this.#isLineStart = character === "\r" || character === "\n";
      }
    }
    done(null, Buffer.from(typed));
  }
}

const TILDE = "~".charCodeAt(0);
