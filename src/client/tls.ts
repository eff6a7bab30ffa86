/**
 * TLS 1.3 towards a session server, from the first octet or after the in-band `TLS` of the paper (PROTOCOL §2.2, §4.3; abuse cases T03, T04, T11,
 * T17). When a promise of this file is fulfilled, the server speaks `fived/1`, has proved possession of its key, and is trusted; until then
 * not an octet of ours but TLS itself, and the line `TLS`, has left. What trust means is `trust.ts`'s business.
 *
 *     dial ─► [TLS ─► + SUCCESS] ─► handshake ─► ALPN ─► key, PKI ─► trust ─► the caller's
 * @module
 */
import { createHash, X509Certificate } from "node:crypto";
import { once } from "node:events";
import { readFile } from "node:fs/promises";
import { Socket } from "node:net";
import { Duplex } from "node:stream";
import {
  connect as connectTls,
  createSecureContext,
  getCACertificates,
  type SecureContext,
  type TLSSocket,
} from "node:tls";
import { FivedError, type HostKey, hostKeyOf } from "../io/index.ts";
import { assertNever, encodeLine, LineReader, parseReply } from "../wire/index.ts";
import { type Address, hostLine, printAddress } from "./address.ts";
import { ALPN } from "./alpn.ts";
import { Limit, type Patience } from "./limit.ts";
import type { Grounds, Pki, Trust } from "./trust.ts";

/** Where the octets go: a connection that is there and unread, or how to get one, once more where trust took its time. */
export type Target = Duplex | ((limit: AbortSignal) => Promise<Duplex>);

/** Whom to expect, and on whose word. */
export interface SecureOptions extends Patience {
  /** Whom the server must prove to be; `target` may be elsewhere. */
  readonly address: Address;
  readonly trust: Trust;
  /** PEM file of certification authorities besides the system's. */
  readonly ca?: string;
  /** What to show to a server that asks for it. */
  readonly certificate?: CertificateFiles;
}

/** PEM files. */
export interface CertificateFiles {
  /** The certificate, and those between it and its authority behind it. */
  readonly certificate: string;
  readonly key: string;
}

/** A trusted server. */
export interface Secured {
  /** Errors are listened to already: its "close" says what there is to say. */
  readonly socket: TLSSocket;
  readonly hostKey: HostKey;
  readonly grounds: Grounds;
  /** For the user. */
  readonly warnings: readonly string[];
}

/**
 * Speaks TLS from the first octet. Rejects with `RESOLVE_FAILED`, `CONNECT_FAILED`, `TLS_FAILED`, `ALPN_MISSING`, `TIMEOUT`, `ABORTED`,
 * `CONFIGURATION_BAD`, or as trust decides; the socket is destroyed then.
 * @example
 * const { socket } = await secure((limit) => tcp.open(address, limit), { address, trust });
 */
export function secure(target: Target, options: SecureOptions): Promise<Secured> {
  return establish(target, options, async () => {});
}

/** As {@link secure}, but asks for TLS with the line `TLS`; rejects with `PROTOCOL_ERROR` also, where the answer is none. */
export function secureInBand(target: Target, options: SecureOptions): Promise<Secured> {
  return establish(target, options, requestTls);
}

/** What happens on a connection before TLS begins. */
type Prelude = (socket: Duplex, address: Address, limit: AbortSignal) => Promise<void>;

async function establish(target: Target, options: SecureOptions, prelude: Prelude): Promise<Secured> {
  const { address, trust, signal } = options;
  const context = await contextWith(options).catch((error: unknown) => {
    if (target instanceof Duplex) target.destroy();
    throw error;
  });
  for (let again = !(target instanceof Duplex); ; again = false) {
    const { socket, hostKey, pki } = await meet(target, options, prelude, context);
    try {
      const { asked, grounds, warnings } = await trust.decide({ address, key: hostKey, pki }, signal);
      // A server waits seconds for the first line, a person with a fingerprint takes minutes: who spoke or left meanwhile, gave up.
      const gone = socket.destroyed || (asked && (socket.readableEnded || socket.readableLength > 0));
      if (!gone) return { socket, hostKey, grounds, warnings };
      if (!again)
        throw failed("CONNECT_FAILED", address, "the server did not wait for the decision to trust it; connect again");
      socket.destroy();
    } catch (error) {
      socket.destroy();
      throw error;
    }
  }
}

/** A server that speaks TLS and our protocol, and is not trusted yet. */
interface Stranger {
  readonly socket: TLSSocket;
  readonly hostKey: HostKey;
  readonly pki: Pki;
}

async function meet(
  target: Target,
  options: SecureOptions,
  prelude: Prelude,
  context: SecureContext,
): Promise<Stranger> {
  const { address } = options;
  using limit = new Limit(address, options);
  const socket = target instanceof Duplex ? target : await target(limit.signal);
  limit.step = "TLS";
  socket.on("error", () => {}); // Who waits hears of it; where nobody does, "close" says enough.
  try {
    if (socket instanceof Socket) socket.setNoDelay(true);
    await prelude(socket, address, limit.signal);
    const tls = await handshake(socket, address, context, limit.signal);
    return { socket: tls, ...examine(tls, address) };
  } catch (error) {
    socket.destroy();
    throw error;
  }
}

/** The paper's in-band upgrade (3.1.2): asks for TLS, and takes nothing for the answer but one `+` line with nothing behind it. */
async function requestTls(socket: Duplex, address: Address, limit: AbortSignal): Promise<void> {
  // What came before the question cannot be its answer: "already signed in" is how STARTTLS was talked out of it (CVE-2014-2567).
  if (socket.readableLength > 0)
    throw failed("PROTOCOL_ERROR", address, "the server spoke before it was asked for TLS");
  const reader = new LineReader();
  const { promise, resolve, reject } = Promise.withResolvers<string>();
  const onData = (chunk: Uint8Array) => {
    reader.push(chunk);
    const line = reader.next();
    if (line === undefined) return;
    if (line.type === "error")
      reject(failed("PROTOCOL_ERROR", address, `the answer to TLS is no line: ${line.bytes} octets`));
    // What lies behind the answer was written without the key; obeyed after the handshake it would pass for the server's (CVE-2021-23222).
    else if (reader.buffered > 0)
      reject(failed("PROTOCOL_ERROR", address, "there is plaintext behind the answer to TLS"));
    else resolve(line.text);
  };
  const onEnd = () =>
    reject(failed("TLS_FAILED", address, "the server closed the connection instead of answering TLS"));
  const onAbort = () => reject(limit.reason);
  socket.on("data", onData).on("end", onEnd).on("close", onEnd);
  limit.addEventListener("abort", onAbort);
  try {
    limit.throwIfAborted();
    socket.write(encodeLine("TLS"));
    const text = await promise;
    const reply = parseReply(text);
    switch (reply.type) {
      case "accepted":
        return;
      case "refused":
        throw failed("TLS_FAILED", address, `the server refuses TLS: ${quoted(text)}`);
      case "error":
        throw failed("PROTOCOL_ERROR", address, `${quoted(text)} is no answer to TLS`);
      default:
        return assertNever(reply);
    }
  } finally {
    socket.pause().off("data", onData).off("end", onEnd).off("close", onEnd);
    limit.removeEventListener("abort", onAbort);
  }
}

async function handshake(
  socket: Duplex,
  address: Address,
  context: SecureContext,
  limit: AbortSignal,
): Promise<TLSSocket> {
  if (socket.readableLength > 0) throw failed("PROTOCOL_ERROR", address, "there is plaintext before the handshake");
  const servername = hostLine(address);
  const tls = connectTls({
    socket,
    secureContext: context,
    ALPNProtocols: [ALPN],
    ...(servername === undefined ? {} : { servername }),
    // Trust is decided afterwards, by pins first: a chain that is none must not end the handshake. No session is ever resumed,
    // for a resumed one shows no certificate, and a pin would be checked against nothing (T17).
    rejectUnauthorized: false,
  });
  tls.on("error", () => {});
  try {
    await event(tls, "secureConnect", limit, (cause) => tlsFailure(address, cause));
  } catch (error) {
    tls.destroy();
    throw error;
  }
  return tls;
}

/** The key the server has proved to hold, and what certification authorities say of it; a server of another protocol is refused. */
function examine(tls: TLSSocket, address: Address): { hostKey: HostKey; pki: Pki } {
  if (tls.alpnProtocol !== ALPN) throw failed("ALPN_MISSING", address, ANOTHER_PROTOCOL); // Node asks it of servers only.
  const certificate = tls.getPeerX509Certificate();
  if (certificate === undefined) throw failed("TLS_FAILED", address, "the server shows no certificate");
  return { hostKey: hostKeyOf(certificate.publicKey), pki: pkiOf(tls, certificate, hostLine(address)) };
}

function pkiOf(tls: TLSSocket, certificate: X509Certificate, name: string | undefined): Pki {
  if (name === undefined) return { type: "none" };
  if (!tls.authorized) return { type: "invalid", reason: String(tls.authorizationError) };
  // Node has compared the name already, with the common name as well if there is no other: RFC 9525 takes no common names.
  const named = certificate.checkHost(name, { subject: "never", partialWildcards: false }) !== undefined;
  return named ? { type: "valid" } : { type: "invalid", reason: "ERR_TLS_CERT_ALTNAME_INVALID" };
}

const CONTEXT_OPTIONS = {
  minVersion: "TLSv1.3",
  // AES-128 first: half the CPU a byte of ChaCha20 wherever there is AES in hardware.
  ciphers: "TLS_AES_128_GCM_SHA256:TLS_AES_256_GCM_SHA384:TLS_CHACHA20_POLY1305_SHA256",
} as const;

/** The last context made, by a digest of what its files hold: reading a hundred certificates takes 17 ms, and one process uses the same files. */
let made: { readonly of: string; readonly context: SecureContext } | undefined;

async function contextWith({ ca, certificate }: SecureOptions): Promise<SecureContext> {
  const authorities = ca === undefined ? undefined : await readAuthorities(ca);
  const shown = certificate === undefined ? undefined : await readCertificate(certificate);
  const of = createHash("sha256")
    .update(JSON.stringify([authorities, shown]))
    .digest("hex");
  if (made?.of === of) return made.context;
  const trusted = authorities === undefined ? {} : { ca: [...getCACertificates("default"), authorities] };
  try {
    made = { of, context: createSecureContext({ ...CONTEXT_OPTIONS, ...trusted, ...shown }) };
    return made.context;
  } catch (cause) {
    if (certificate === undefined) throw cause;
    throw unusable(certificate, cause);
  }
}

async function readCertificate(files: CertificateFiles): Promise<{ readonly cert: string; readonly key: string }> {
  try {
    const [cert, key] = await Promise.all([readFile(files.certificate, "latin1"), readFile(files.key, "latin1")]);
    return { cert, key };
  } catch (cause) {
    throw unusable(files, cause);
  }
}

function unusable({ certificate, key }: CertificateFiles, cause: unknown): FivedError {
  const message = `Cannot use the certificate ${certificate} with the key ${key}: ${messageOf(cause)}`;
  return new FivedError("KEY_UNUSABLE", message, { cause });
}

async function readAuthorities(file: string): Promise<string> {
  try {
    const pem = await readFile(file, "latin1");
    new X509Certificate(pem); // createSecureContext passes over what is no certificate without a word
    return pem;
  } catch (cause) {
    const why = cause instanceof Error ? cause.message : String(cause);
    throw new FivedError(
      "CONFIGURATION_BAD",
      `Cannot use the CA file ${file}: ${why}; give a PEM file of certificates`,
      { cause },
    );
  }
}

/** Waits for an event; an "error" before it becomes what `failure` makes of it, the limit its own reason. */
async function event(
  socket: Duplex,
  name: string,
  limit: AbortSignal,
  failure: (cause: unknown) => FivedError,
): Promise<void> {
  try {
    await once(socket, name, { signal: limit });
  } catch (cause) {
    limit.throwIfAborted();
    throw failure(cause);
  }
}

function tlsFailure(address: Address, cause: unknown): FivedError {
  if (cause instanceof FivedError) return cause; // the connection itself has failed, and says how
  const code = codeOf(cause);
  if (code.endsWith("_ALERT_NO_APPLICATION_PROTOCOL"))
    return failed("ALPN_MISSING", address, ANOTHER_PROTOCOL, { cause });
  if (code === "ERR_SSL_WRONG_VERSION_NUMBER") {
    return failed("TLS_FAILED", address, "the server answers in plaintext; is it a session server?", { cause });
  }
  return failed("TLS_FAILED", address, code === "" ? messageOf(cause) : `${messageOf(cause)} (${code})`, { cause });
}

const ANOTHER_PROTOCOL = `the server does not speak ${ALPN}; is the port right?`;

function failed(code: FivedError["code"], address: Address, why: string, options?: ErrorOptions): FivedError {
  return new FivedError(code, `Cannot connect to ${printAddress(address)}: ${why}`, options);
}

function codeOf(error: unknown): string {
  return error instanceof Error && "code" in error ? String(error.code) : "";
}

function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}

/** What a server said, so that it cannot write on the terminal. */
function quoted(line: string): string {
  return JSON.stringify(line.slice(0, 100)).replace(/[^\x20-\x7e]/g, "?");
}
