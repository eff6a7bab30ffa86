/**
 * The program that asks PAM about one person, and ends: `node pam-attempt.js SERVICE [FOLDER]`, run as root, with the server or its helper on
 * file descriptor 3 (`pam-protocol.ts`) and the service's file in FOLDER where that is not `/etc/pam.d`. All that is native happens here: a module that hangs, leaks or crashes takes nothing else along, and
 * whoever started this kills it when it has been silent for too long (abuse cases A06, A08).
 *
 * PAM calls back in the middle of `pam_authenticate`, and expects its answers there and then. So this process does nothing else, and reads
 * and writes its descriptor synchronously.
 * @module
 */
import { execFileSync } from "node:child_process";
import fs from "node:fs";
import {
  PAM_ANSWER_BYTES_MAX,
  PAM_GROUPS_MAX,
  PAM_TEXT_BYTES_MAX,
  type PamMessage,
  type PamRequest,
  parseRequest,
  printMessage,
} from "./pam-protocol.ts";

/** Where the server is. */
const LINK = 3;

/** Of `security/_pam_types.h`, as Linux-PAM has them. */
const Pam = {
  success: 0,
  conversationError: 19,
  promptHidden: 1,
  promptShown: 2,
  errorMessage: 3,
  textInfo: 4,
  itemUser: 2,
  itemTerminal: 3,
  itemRemoteHost: 4,
  itemFailDelay: 10,
  /** PAM_DISALLOW_NULL_AUTHTOK: who has no password cannot sign in with none. */
  disallowNull: 1,
  /** PAM_MAX_NUM_MSG. */
  messagesMax: 32,
} as const;

/** Options of `prctl`. */
const Prctl = {
  /** A signal for the end of whoever started this: nobody is left then to end an attempt that hangs. */
  parentDeathSignal: 1,
  /** 0: no core of this process, which has seen passwords, and nobody may trace it. */
  dumpable: 4,
} as const;
const SIGKILL = 9;
/** A directory that does not say somebody's groups within this time, in milliseconds, says none. */
const GROUPS_MS_MAX = 5_000;
/** What modules that ask for a terminal are told, as sshd tells them `ssh`. */
const TERMINAL = "fived";

await main();

async function main(): Promise<void> {
  const [service = "", folder] = process.argv.slice(2);
  try {
    const pam = await load();
    say({ type: "ready" });
    const request = parseRequest(readFrame());
    if (request === undefined) throw new Error("the request cannot be read");
    say(pam.ask(service, folder, request));
  } catch (error) {
    say({ type: "broken", why: short(error instanceof Error ? error.message : String(error)) });
  }
}

/** The libraries, with what is called in them. */
async function load() {
  const { default: koffi } = await import("koffi").catch((cause: unknown) => {
    throw new Error("the package koffi, an optional dependency, is not installed", { cause });
  });
  const libc = koffi.load(null); // what Node itself is linked with, whichever it is
  const prctl = libc.func("int prctl(int option, unsigned long value)");
  prctl(Prctl.dumpable, 0);
  prctl(Prctl.parentDeathSignal, SIGKILL);
  // Global, as if we were linked with it: some modules are not, and rely on that.
  const libpam = koffi.load("libpam.so.0", { global: true });
  const calloc: (count: number, bytes: number) => bigint | null = libc.func("void *calloc(size_t count, size_t bytes)");
  const strnlen: (text: bigint, max: number) => number = libc.func("size_t strnlen(void *text, size_t max)");
  koffi.proto("int Conversation(int count, void **messages, void **responses, void *data)");
  koffi.proto("void FailDelay(int status, unsigned int microseconds, void *data)");
  koffi.struct("Conv", { conversation: "Conversation *", data: "void *" });
  const message = koffi.struct("Message", { style: "int", text: "void *" });
  const response = koffi.struct("Response", { answer: "void *", code: "int" });
  const start = libpam.func("int pam_start(const char *service, const char *user, Conv *conv, _Out_ void **handle)");
  const startIn = libpam.func(
    "int pam_start_confdir(const char *service, const char *user, Conv *conv, const char *folder, _Out_ void **handle)",
  );
  const setItem = libpam.func("int pam_set_item(void *handle, int item, const char *value)");
  const setFailDelay = libpam.func("pam_set_item", "int", ["void *", "int", "FailDelay *"]);
  const getItem = libpam.func("int pam_get_item(void *handle, int item, _Out_ const char **value)");
  const authenticate = libpam.func("int pam_authenticate(void *handle, int flags)");
  const accountMayBeUsed = libpam.func("int pam_acct_mgmt(void *handle, int flags)");
  const end = libpam.func("int pam_end(void *handle, int status)");
  const textOf = libpam.func("const char *pam_strerror(void *handle, int status)");

  /** Memory that PAM frees, with a NUL behind the octets. */
  function given(octets: Uint8Array): bigint {
    const memory = allocated(1, octets.length + 1);
    new Uint8Array(koffi.view(memory, octets.length + 1)).set(octets);
    return memory;
  }

  function allocated(count: number, bytes: number): bigint {
    const memory = calloc(count, bytes);
    if (memory === null) throw new Error("out of memory");
    return memory;
  }

  function textAt(pointer: bigint | null): string {
    if (pointer === null) return "";
    const length = strnlen(pointer, PAM_TEXT_BYTES_MAX);
    return length === 0 ? "" : short(Buffer.from(new Uint8Array(koffi.view(pointer, length))).toString("utf8"));
  }

  /**
   * What modules tell while they look at the account, kept until they let somebody in: who is refused for his account shall not learn from
   * it that the password was right (abuse case A05).
   */
  let kept: PamMessage[] | undefined;

  /** PAM's questions, one or several at once. */
  function converse(count: number, messages: bigint, responses: bigint | null): number {
    try {
      if (count < 1 || count > Pam.messagesMax) return Pam.conversationError;
      const answers = allocated(count, koffi.sizeof(response));
      for (let at = 0; at < count; at++) {
        const pointer: bigint = koffi.decode(messages, at * koffi.sizeof("void *"), "void *");
        const { style, text }: { style: number; text: bigint | null } = koffi.decode(pointer, message);
        switch (style) {
          case Pam.promptHidden:
          case Pam.promptShown: {
            say({ type: "ask", text: textAt(text), shown: style === Pam.promptShown });
            const octets = readFrame();
            koffi.encode(answers, at * koffi.sizeof(response), "void *", given(octets));
            octets.fill(0);
            break;
          }
          case Pam.errorMessage:
          case Pam.textInfo: {
            const told: PamMessage = { type: "tell", text: textAt(text) };
            if (kept === undefined) say(told);
            else if (kept.length < Pam.messagesMax) kept.push(told);
            break;
          }
          default:
            return Pam.conversationError;
        }
      }
      // A module that only tells something may have no use for responses.
      if (responses !== null) koffi.encode(responses, "void *", answers);
      return Pam.success;
    } catch {
      process.exit(1); // the server has left: nobody answers any more, and nobody wants to know
    }
  }

  return {
    ask(service: string, folder: string | undefined, { user, address }: PamRequest): PamMessage {
      const handles: [bigint | null] = [null];
      const conversation = koffi.register(converse, "Conversation *");
      const conv = { conversation, data: null };
      const started =
        folder === undefined ? start(service, user, conv, handles) : startIn(service, user, conv, folder, handles);
      const [handle] = handles;
      if (started !== Pam.success || handle === null) throw new Error(`pam_start fails: ${textOf(handle, started)}`);
      setItem(handle, Pam.itemTerminal, TERMINAL);
      if (address !== undefined) setItem(handle, Pam.itemRemoteHost, address);
      // Whoever started this keeps refusals waiting, and all alike (abuse case A05): waiting here as well would keep a process for it.
      setFailDelay(
        handle,
        Pam.itemFailDelay,
        koffi.register(() => {}, "FailDelay *"),
      );
      let status: number = authenticate(handle, Pam.disallowNull);
      if (status === Pam.success) {
        kept = [];
        status = accountMayBeUsed(handle, Pam.disallowNull);
        if (status === Pam.success) for (const message of kept) say(message);
      }
      const why = short(String(textOf(handle, status)));
      const names: [string | null] = [null];
      const named = status === Pam.success && getItem(handle, Pam.itemUser, names) === Pam.success;
      end(handle, status);
      const [name] = names;
      if (!named) return { type: "refused", why };
      return { type: "found", user: name ?? "", groups: groupsOf(name ?? "") };
    },
  };
}

/** Names of the groups the system counts somebody to; none for somebody whom only PAM knows. */
function groupsOf(user: string): readonly string[] {
  if (/^\d+$/.test(user)) return []; // `id` would take it for the number of somebody else
  try {
    return execFileSync("id", ["--groups", "--name", "--zero", "--", user], {
      env: { PATH: "/usr/bin:/bin" },
      encoding: "utf8",
      timeout: GROUPS_MS_MAX,
      stdio: ["ignore", "pipe", "ignore"],
    })
      .split("\0")
      .filter((name) => name !== "")
      .slice(0, PAM_GROUPS_MAX);
  } catch {
    return [];
  }
}

function say(message: PamMessage): void {
  const line = printMessage(message);
  for (let at = 0; at < line.length; ) at += fs.writeSync(LINK, line, at);
}

/** The next frame; throws when the server has left. */
function readFrame(): Uint8Array {
  const head = readOctets(2);
  const length = (head[0] ?? 0) * 256 + (head[1] ?? 0);
  if (length > PAM_ANSWER_BYTES_MAX) throw new Error("the answer is too long");
  return readOctets(length);
}

function readOctets(length: number): Uint8Array {
  const octets = Buffer.alloc(length);
  for (let at = 0; at < length; ) {
    const bytes = fs.readSync(LINK, octets, at, length - at, null);
    if (bytes === 0) throw new Error("the server has left");
    at += bytes;
  }
  return octets;
}

/** As much of a text as is told. */
function short(text: string): string {
  const octets = Buffer.from(text);
  return octets.length <= PAM_TEXT_BYTES_MAX ? text : octets.toString("utf8", 0, PAM_TEXT_BYTES_MAX - 3);
}
