/**
 * Whom a connection, or a session with all its streams, belongs to: nobody at first, somebody after AUTH, and then nobody else (PROTOCOL §4.6).
 * What a conversation may do is decided with what stands here when it begins.
 * @module
 */
import type { X509Certificate } from "node:crypto";
import { TLSSocket } from "node:tls";
import { subjectOf } from "./auth/cert.ts";
import type { Exchange } from "./auth/mechanism.ts";
import type { Caller } from "./service.ts";

/** Attempts at AUTH of a connection, or of a session's streams together; the last one that fails closes (PROTOCOL §4.6). */
export const ATTEMPTS_MAX = 4;

/** Exporter of the connection that proofs are bound to (RFC 9266). */
const EXPORTER_LABEL = "EXPORTER-Channel-Binding";
const EXPORTER_BYTES = 32;

/** Who a connection's conversation or a session belongs to. Handed on from the one to the other by MULTIPLEX. */
export class Standing {
  /** Who it belongs to now; others who stood here earlier keep what they were given. */
  caller: Caller;
  #attempts = 0;
  #socket: TLSSocket | undefined;
  /** Bare address of the peer; undefined over a Unix socket. */
  address: string | undefined;
  /** Whether what the client showed in the handshake leads to an authority we were configured with. */
  #certificateValid: boolean;
  /** What the client showed in the handshake: it counts for the session also when that connection is gone. */
  #leaf: X509Certificate | undefined;

  /** @param carrier the connection; one inside TLS has had its handshake */
  constructor(caller: Caller, carrier: { readonly socket: unknown; readonly address: string | undefined }) {
    this.#socket = carrier.socket instanceof TLSSocket ? carrier.socket : undefined;
    this.address = carrier.address;
    this.#certificateValid = this.#socket !== undefined && isVerified(this.#socket);
    this.#leaf = this.#socket?.getPeerX509Certificate();
    const { leaf, valid = false } = this.certificate ?? {};
    const name = leaf !== undefined && valid ? subjectOf(leaf).CN : undefined;
    this.caller = name === undefined ? caller : { ...caller, certificateName: name };
  }

  /** The session goes on over another connection: what is proved in it from now on is bound to that one. */
  movedTo(other: Standing): void {
    this.#socket = other.#socket;
    this.address = other.address;
    this.#certificateValid = other.#certificateValid;
    this.#leaf = other.#leaf;
    const { peer, local } = other.caller;
    this.caller = { ...this.caller, peer, ...(local === undefined ? {} : { local }) };
  }

  /** The session has no connection: of the last one nothing is kept. */
  parked(): void {
    this.#socket = undefined;
  }

  /** See {@link Exchange.binding}. */
  get binding(): Uint8Array | undefined {
    if (this.#socket === undefined || this.#socket.destroyed) return undefined;
    return this.#socket.exportKeyingMaterial(EXPORTER_BYTES, EXPORTER_LABEL, Buffer.alloc(0));
  }

  /** See {@link Exchange.certificate}. */
  get certificate(): Exchange["certificate"] {
    const leaf = this.#leaf;
    return leaf === undefined ? undefined : { leaf, valid: this.#certificateValid };
  }

  /** Counts one more attempt at AUTH when it begins, so that many at once are no way around the bound. Returns the how many-th it is. */
  attempt(): number {
    return ++this.#attempts;
  }
}

/** What OpenSSL found out about the client's certificate. Node says so only to its own TLS server, which our one port cannot be. */
function isVerified(socket: TLSSocket): boolean {
  const { ssl } = socket as TLSSocket & { readonly ssl?: { verifyError?(): Error | null } };
  return ssl?.verifyError !== undefined && ssl.verifyError() === null;
}
