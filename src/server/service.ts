/**
 * What a service is, to the session server: a word one may ask for and a function that answers. Built-in words (LIST, TLS, HOST …),
 * configured back ends and a user's own ten lines all use this one interface (paper section 1, "Creating a new service").
 * @module
 */
import type { Duplex } from "node:stream";
import type { AttachRequest, DetachableGrant } from "../identity/index.ts";
import type { Splice } from "../io/index.ts";
import type { Authentication } from "./auth/authentication.ts";
import type { Exchange, Identity, MechanismName } from "./auth/mechanism.ts";

/** What a conversation becomes once a service has answered (PROTOCOL §3.2). */
export type Next = "lines" | "tls" | "frames" | "bytes" | "closed";

/** Codes of `- NNN text` lines (docs/errors.md). */
export type RefusalCode = 403 | 404 | 408 | 410 | 421 | 429 | 500 | 501 | 502 | 503 | 504 | 507 | 508 | 530 | 554;

/** Who asks, as far as is known. Anonymous sessions have no user and no roles. */
export interface Caller {
  /** Identifier of the session or bare connection, for logs and back ends. */
  readonly session: string;
  readonly user: string | undefined;
  /** Those that apply here: of the configuration, and those that came with the identity. */
  readonly roles: readonly string[];
  /** How the user was recognised; undefined for nobody. */
  readonly identity: Identity | undefined;
  /** True inside TLS. */
  readonly secure: boolean;
  /** Transport address of the peer: `192.0.2.1:4711`, `[2001:db8::1]:4711` or `unix:`. */
  readonly peer: string;
  /** Where the peer has connected to, written as {@link Caller.peer} is; absent over a Unix socket. */
  readonly local?: string;
  /** Common name in the client certificate, where one was shown that leads to an authority of ours. */
  readonly certificateName?: string;
  /** How the stream came here, where that was through other session servers. */
  readonly through?: Through;
}

/** The way of a stream that another session server opened for a caller of its own (PROTOCOL §4.12). */
export interface Through {
  /** Session servers that it came through. */
  readonly hops: number;
  /** That server, as it has signed in here; absent where the stream is its own. */
  readonly hop?: Caller;
  /** Name under which it vouches for the caller; absent for nobody. */
  readonly issuer?: string;
  /** Identifier of the caller's session there. */
  readonly session?: string;
}

/** What a conversation has for VIA. Each is for once. */
export interface Passage {
  /** The stream is the other server's own. */
  came(hops: number): void;
  /** It is for somebody who has not signed in there. */
  cameAsNobody(hops: number): void;
  /** It is for whom the token is about. False for one that is not believed; why is written down. */
  cameAs(hops: number, token: string): Promise<boolean>;
}

/** What a conversation has for DETACHABLE and ATTACH (PROTOCOL §4.7, §4.8). */
export interface Detaching {
  /** Makes the session that is, or that MULTIPLEX will begin, detachable for so long at most; or why not. */
  detachable(ttlSeconds: number | undefined): DetachableGrant | Refusal;
  /**
   * Takes the connection into the session that is claimed, if that is proved: returns the lines of the answer, behind which "frames" is all that the
   * conversation may become, in the same turn.
   */
  attach(request: AttachRequest): readonly string[] | Refusal;
}

/** Why something is not done. */
export interface Refusal {
  readonly code: RefusalCode;
  readonly text: string;
}

/** What the caller may see from where it stands. */
export interface Directory {
  /** Names of the services the caller may use at this host, as configured. */
  names(): Iterable<string>;
  /** Names of services behind other servers that are configured as a whole; with a name, that one if the caller may use it there. */
  farNames(name?: string): Promise<readonly string[]>;
  /** The configured spelling of a service the caller may use, or of a built-in word; undefined for everything else. */
  find(name: string): string | undefined;
  /** Goes to another virtual host: "unknown" for a name nobody configured, "misdirected" for one of another certificate. */
  enter(host: string): "entered" | "unknown" | "misdirected";
}

/** What a conversation has for AUTH (PROTOCOL §4.6): who may come in here and how, and the octets of the dialogue that finds it out. */
export interface Entrance extends Pick<Exchange, "binding" | "certificate" | "address"> {
  /** The ways in, as they are configured now. */
  readonly authentication: Authentication;
  /** A stream at another host than its session's: no place to gain an identity that the session keeps. */
  readonly elsewhere: boolean;
  /** A dialogue begins; returns when it has to be over, by performance.now(). */
  beginDialogue(): number;
  /** Counts an attempt of this conversation, or of its session's streams together; returns the how many-th it is. */
  attempt(): number;
  /** Says a text as it is, in UTF-8: no line end is added, and it grants nothing. */
  tell(text: string): void;
  /** The next line; rejects with ABORTED when the conversation is gone, with TIMEOUT when the dialogue has taken too long. */
  answer(): Promise<Uint8Array>;
  /** The conversation, and its session, belong to somebody from now on. False if they do already. */
  recognised(identity: Identity): boolean;
  /** An attempt has failed. */
  failed(attempt: { readonly mechanism: MechanismName; readonly user: string | undefined }): void;
}

/** One conversation as the service that was asked for sees it. */
export interface Talk {
  readonly caller: Caller;
  /** Number of the stream in its session; undefined for a connection that is one conversation. */
  readonly streamNumber?: number | undefined;
  /** Virtual host in force for this request; undefined is the default host. */
  readonly host: string | undefined;
  /** The word that was asked for, in the spelling of the configuration. */
  readonly service: string;
  /** Words behind it on the request line, at most 1,024 octets in all. */
  readonly args: readonly string[];
  readonly directory: Directory;
  /** What AUTH works with. */
  readonly entrance: Entrance;
  /** What VIA works with. */
  readonly passage: Passage;
  /** What DETACHABLE and ATTACH work with. */
  readonly detaching: Detaching;
  /** Octets behind the request line that have arrived already. */
  readonly unread: number;
  /** Aborted when the conversation's stream or connection is gone. */
  readonly signal: AbortSignal;
  /** Says one or several lines (CRLF between them); the last CRLF is added. False asks to wait for {@link Talk.taken}. */
  say(lines: string): boolean;
  /** Resolves when what was said is taken and more may be said; rejects when the conversation is gone. */
  taken(): Promise<void>;
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
