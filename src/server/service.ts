/**
 * What a service is, to the session server: a word one may ask for and a function that answers. Built-in words (LIST, TLS, HOST …),
 * configured back ends and a user's own ten lines all use this one interface (paper section 1, "Creating a new service").
 * @module
 */
import type { Duplex, Readable, Writable } from "node:stream";

/** What a conversation becomes once a service has answered (PROTOCOL §3.2). */
export type Next = "lines" | "tls" | "frames" | "bytes" | "closed";

/** Codes of `- NNN text` lines (PROTOCOL §3.5, docs/errors.md). */
export type RefusalCode = 403 | 404 | 408 | 410 | 421 | 429 | 500 | 501 | 502 | 503 | 504 | 507 | 530 | 554;

/** Who asks, as far as is known. Anonymous sessions have no user and no roles. */
export interface Caller {
  /** Identifier of the session or bare connection, for logs and back ends. */
  readonly session: string;
  readonly user: string | undefined;
  readonly roles: readonly string[];
  /** True inside TLS. */
  readonly secure: boolean;
  /** Transport address of the peer: `192.0.2.1:4711`, `[2001:db8::1]:4711` or `unix:`. */
  readonly peer: string;
}

/** Bytes to and from something that is already connected: a socket, or the standard streams of a process. */
export interface Splice {
  /** Takes the caller's bytes; ended when the caller half-closes. */
  readonly input: Writable;
  /** Gives the bytes for the caller; its end half-closes towards the caller. Same object as `input` for a socket. */
  readonly output: Readable;
  /** True when the end of `output` is the end of the whole stream, whatever the caller still holds open (a process that has exited). */
  readonly endsWithOutput: boolean;
  /** Tears both down at once. */
  destroy(): void;
}

/** One conversation as the service that was asked for sees it. */
export interface Talk {
  readonly caller: Caller;
  /** Virtual host in force for this request; undefined is the default host. */
  readonly host: string | undefined;
  /** The word that was asked for, in the spelling of the configuration. */
  readonly service: string;
  /** Words behind it on the request line, at most 1,024 octets in all. */
  readonly args: readonly string[];
  /** Aborted when the conversation's stream or connection is gone. */
  readonly signal: AbortSignal;
  /** Says one line; CRLF is added. Only before "bytes". */
  say(line: string): void;
  /** Says `+ SUCCESS`: from here on the bytes belong to the service. */
  accept(): void;
  /** Says `- code text`. What the conversation becomes is still the return value of {@link Service.serve}. */
  refuse(code: RefusalCode, text: string): void;
  /** Joins the conversation's bytes to a connected back end, half-close included; return "bytes" afterwards. */
  splice(backEnd: Splice): void;
  /** The conversation's bytes as a stream; return "bytes" afterwards. */
  stream(): Duplex;
}

/** A word one may ask for, and what answers it. */
export interface Service {
  /** 1 to 64 of `A-Za-z0-9._+-` or `_`; built-in words are in capitals. */
  readonly word: string;
  serve(talk: Talk): Next | Promise<Next>;
}
