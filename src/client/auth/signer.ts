/**
 * What signs for a person who signs in with a key (PROTOCOL §4.6.2): a key file, or a key in an agent. Where keys come from, and how they
 * sign, is not known here.
 * @module
 */

/** What a signature is for, and for nothing else. */
export interface AuthClaim {
  readonly user: string;
  /** The exporter of the connection, 32 octets (PROTOCOL §2.2). */
  readonly binding: Uint8Array;
  /** Host in force, in lower case; empty for the default host. */
  readonly host: string;
}

/** One key that can sign. */
export interface Signer {
  /** Of the public key: printable, without blanks, and always the same for one key. */
  readonly fingerprint: string;
  /** For people: the file it is from, or what the agent says of it. */
  readonly comment: string;
  /** File that the key was named by, to be looked in another time; undefined where it is found anyway. */
  readonly file?: string;
  /** The words behind `AUTH pubkey`: name, fingerprint, signature. Rejects when the key cannot be used now. */
  authWords(claim: AuthClaim): Promise<string>;
  /** The answer to a question behind those words that is about the key, as for its certificate; undefined where the question is a person's. */
  answer?(question: string): string | undefined;
}
