/**
 * What a mechanism of AUTH is (paper section 3.1.2, PROTOCOL §4.6): a way for somebody to prove who he is. A file each; the words of the
 * exchange, the tries, the deadlines and what an identity may do afterwards are not a mechanism's business but `services/auth.ts`'s.
 * @module
 */
import type { X509Certificate } from "node:crypto";

/** Mechanisms there are, in the order in which a server prefers to list them. */
export const MECHANISMS = ["pubkey", "cert", "ext", "up", "invite"] as const;
/** One of {@link MECHANISMS}. */
export type MechanismName = (typeof MECHANISMS)[number];

/** Who somebody is, as a mechanism found out. */
export interface Identity {
  /** `researcher`, or `alice@p.example` for somebody of another provider. */
  readonly user: string;
  /** Names of groups; `group:NAME` in the roles of the configuration means their members. */
  readonly groups: readonly string[];
  /** Roles that come with the person or the key, besides those of the configuration. */
  readonly roles: readonly string[];
  /** `via` for somebody whom another session server vouches for. */
  readonly mechanism: MechanismName | "via";
  /** A second factor was given. */
  readonly secondFactor: boolean;
  /** When, by the wall clock, in milliseconds. */
  readonly at: number;
  /** Somebody of the user store, and what he had besides: he is somebody for as long as he stands there. Absent for everybody else. */
  readonly stored?: StoredIdentity;
}

/** What is kept of how somebody of the user store came in. */
export interface StoredIdentity {
  /** Roles that he had from his key, and not from the store. */
  readonly brought: readonly string[];
  /** Groups that the operating system counts him to, whatever the store says. */
  readonly systemGroups: readonly string[];
  /** Fingerprint of the key of the store that he came in with: when it is taken away, he is nobody. */
  readonly key: string | undefined;
}

/** What a mechanism has found: somebody, and whether more is needed to believe it. */
export interface Finding {
  readonly user: string;
  readonly groups: readonly string[];
  readonly roles: readonly string[];
  /** Somebody of the user store: who has left it meanwhile is nobody. */
  readonly ofStore?: boolean;
  /** Fingerprint of the key of the user store that was proved. */
  readonly key?: string | undefined;
}

/** One exchange of AUTH as its mechanism sees it. Every wait has a deadline, behind which {@link Exchange.ask} rejects. */
export interface Exchange {
  /** `people` ask questions without CRLF, as the paper's transcript; `programs` mark each line by its first octet (PROTOCOL §4.6.1). */
  readonly form: "people" | "programs";
  /**
   * Words behind the mechanism in the AUTH line or, where there were none, those of the line after it; `up` and `cert` ask instead. The first
   * is the user's name where the mechanism takes one.
   */
  readonly initial: readonly string[];
  /** The TLS exporter of the connection, 32 octets (RFC 9266); undefined in plaintext, where nothing that signs can succeed. */
  readonly binding: Uint8Array | undefined;
  /** Host in force, canonical; empty for the default host. */
  readonly host: string;
  /** IP address of the peer, without port; undefined over a Unix socket. */
  readonly address: string | undefined;
  /** What the client has shown in the handshake, and whether its chain leads to an authority we were configured with. */
  readonly certificate: { readonly leaf: X509Certificate; readonly valid: boolean } | undefined;
  /** Aborted when the conversation is gone or the whole exchange takes too long. */
  readonly signal: AbortSignal;
  /**
   * Asks, and resolves with the octets of the answer (0 to 1,024, no NUL, CR, LF): the caller wipes them (`fill(0)`). Rejects when the
   * conversation is gone, too slow, or has been asked {@link QUESTIONS_MAX} times.
   */
  ask(question: string, answer: "shown" | "hidden"): Promise<Uint8Array>;
  /** Tells something that is not answered. */
  tell(text: string): void;
}

/** Questions in one exchange (abuse case A07). */
export const QUESTIONS_MAX = 16;

/** One way to prove who one is. */
export interface Mechanism {
  readonly name: MechanismName;
  /**
   * Finds out who it is; undefined when it cannot, for whatever reason: unknown, wrong, forbidden and broken look the same from outside, in
   * text and in work (abuse case A05).
   */
  authenticate(exchange: Exchange): Promise<Finding | undefined>;
}

/** Somebody this server knows by itself. */
export interface User {
  /** 1 to 64 of `a-z0-9._-`, starting with a letter or digit. */
  readonly name: string;
  readonly groups: readonly string[];
  readonly roles: readonly string[];
  /** Lines as in OpenSSH's `authorized_keys`. */
  readonly keys: readonly string[];
  /** Secret of the second factor (RFC 6238), if he has one. */
  readonly totp: Uint8Array | undefined;
}

/** The people a server knows. */
export interface Users extends Disposable {
  /** Undefined for a name nobody has. Reads from memory. */
  find(name: string): User | undefined;
  /** The user, if that is his password. Costs the same whether or not there is such a user (abuse case A05). */
  verify(name: string, password: Uint8Array): Promise<User | undefined>;
  /** Called after people were added, changed or removed; returns what ends the calls. */
  onChange(changed: () => void): () => void;
}
