/**
 * Opens the connection under a session: a transport (`transports/`), then TLS 1.3 from the first octet, or after the paper's in-band `TLS`, or
 * none at all. Trust is decided before anything of ours is said.
 * @module
 */
import { Socket } from "node:net";
import type { TLSSocket } from "node:tls";
import { fingerprintOf } from "../io/index.ts";
import { type Address, parseAddress } from "./address.ts";
import type { AuthOptions } from "./auth/options.ts";
import type { TicketKeeper } from "./kept.ts";
import { knownHosts } from "./known-hosts.ts";
import { Limit, type Patience } from "./limit.ts";
import type { PathRule } from "./path-rules.ts";
import { personalPins } from "./personal.ts";
import { type CertificateFiles, secure, secureInBand } from "./tls.ts";
import { transportFor } from "./transports/index.ts";
import { noConnection, type Transport } from "./transports/transport.ts";
import { type Grounds, type HostKeyChecking, type Trust, trustWith } from "./trust.ts";

/** How to reach a session server, and whom to trust. */
export interface ConnectOptions {
  /** File of pins; `$XDG_CONFIG_HOME/fived/known_hosts` if left out. */
  readonly knownHosts?: string;
  /** What to do with a server nobody vouches for; `ask` if left out. */
  readonly strictHostKeyChecking?: HostKeyChecking;
  /** Asks the user yes or no; left out where there is no terminal. */
  readonly ask?: (question: string) => Promise<boolean>;
  /** TLS from the first octet (`required`, the default), after the in-band `TLS`, or `off`: plain RFC 1078, one connection a stream. */
  readonly tls?: "required" | "in-band" | "off";
  /** How octets get there: `tcp`, `mptcp`, `ws://…`, `wss://…`, `exec:COMMAND`, or one of your own; TCP, or the address's Unix socket, if left out. */
  readonly transport?: string | Transport;
  /** Send before the peer has answered; false for plain RFC 1078 peers, some of which drop what they did not wait for. */
  readonly pipeline?: boolean;
  /** PEM file of further certification authorities. */
  readonly ca?: string;
  /** PEM files of a client certificate, with what leads to its authority, and of its key, for a server that asks for one. */
  readonly certificate?: CertificateFiles;
  readonly signal?: AbortSignal;
  /** Time for name, connection and handshake together, without the user's time for an answer; 10 s if left out. */
  readonly connectTimeoutMs?: number;
  /** Warnings for the user, one line each. */
  readonly log?: (line: string) => void;
  /** Keep what was said until it is acknowledged. */
  readonly retain?: boolean;
  /**
   * For how many seconds the server is asked to keep the session when its connection is lost; three minutes if left out, and false for not at
   * all. A session that is kept goes on over another connection, and its streams with it.
   */
  readonly detachable?: number | false;
  /** Keeps the session's ticket where another process finds it when this one is killed. */
  readonly tickets?: TicketKeeper;
  /** Connections that the session is to have beside the first one, where the server keeps it; and services that keep to one. */
  readonly paths?: readonly PathRule[];
  /** Sign in; left out, and with no user in the address, the session belongs to nobody. */
  readonly auth?: AuthOptions;
  /** `SHA256:…` of the only key that the server may have; a new server that has it is pinned without a question. */
  readonly expectedKey?: string;
}

/** A connection to a server. */
export interface Dialled {
  readonly socket: Socket;
  /** Why this is the server of the name we asked for; undefined without TLS. */
  readonly grounds: Grounds | undefined;
  /** A pin or an authority vouches for that: only then may the name be told with HOST. */
  readonly vouched: boolean;
  /** The exporter of the connection (PROTOCOL §2.2), which every proof on it contains; undefined without TLS. */
  readonly binding: Uint8Array | undefined;
  /** `SHA256:…` of its key; undefined without TLS. */
  readonly fingerprint: string | undefined;
}

/** Connects; rejects with RESOLVE_FAILED, CONNECT_FAILED, TLS_FAILED, TIMEOUT, ABORTED or what trust decides. */
export async function dial(address: Address, options: ConnectOptions): Promise<Dialled> {
  const tls = options.tls ?? "required";
  if (tls === "off") {
    const socket = await dialPlain(address, options);
    return { socket, grounds: undefined, vouched: false, binding: undefined, fingerprint: undefined };
  }
  const transport = await transportFor(address, options.transport);
  const secured = await (tls === "in-band" ? secureInBand : secure)((limit) => transport.open(address, limit), {
    address,
    trust: { decide: (presented, signal) => trustOf(options).decide(presented, signal, options.ask) },
    ...(options.ca === undefined ? {} : { ca: options.ca }),
    ...(options.certificate === undefined ? {} : { certificate: options.certificate }),
    ...patienceOf(options),
  });
  for (const warning of secured.warnings) options.log?.(warning);
  const { socket, grounds, hostKey } = secured;
  const fingerprint = fingerprintOf(hostKey);
  return { socket, grounds, vouched: grounds !== "off", binding: bindingOf(socket), fingerprint };
}

/** RFC 9266 `tls-exporter`. */
function bindingOf(socket: TLSSocket): Uint8Array {
  return socket.exportKeyingMaterial(32, "EXPORTER-Channel-Binding", Buffer.alloc(0));
}

/** The address of a session server, as typed or parsed. */
export function addressOf(address: string | Address): Address {
  return typeof address === "string" ? parseAddress(address) : address;
}

/** A connection in the clear, for plain RFC 1078 peers: of those transports whose directions end one by one. */
async function dialPlain(address: Address, options: ConnectOptions): Promise<Socket> {
  using limit = new Limit(address, patienceOf(options));
  const transport = await transportFor(address, options.transport);
  const socket = await transport.open(address, limit.signal);
  if (socket instanceof Socket) return socket;
  socket.destroy();
  throw noConnection(
    address,
    `without TLS there is no way over the transport ${transport.name}; use tcp or a Unix socket`,
  );
}

function patienceOf({ signal, connectTimeoutMs }: ConnectOptions): Patience {
  return { signal, timeoutMs: connectTimeoutMs };
}

/** One decision about each server for the whole process: two streams to a new server are one question. */
const trusts = new Map<string, Trust>();

function trustOf(options: ConnectOptions): Trust {
  const file = options.knownHosts ?? personalPins();
  const checking = options.strictHostKeyChecking ?? "ask";
  const { expectedKey } = options;
  const key = JSON.stringify([file, checking, options.ask !== undefined, expectedKey]);
  const known = trusts.get(key);
  if (known !== undefined) return known;
  const trust = trustWith({
    checking,
    pins: knownHosts(file),
    ...(options.ask === undefined ? {} : { ask: options.ask }),
    ...(expectedKey === undefined ? {} : { expected: expectedKey }),
  });
  trusts.set(key, trust);
  return trust;
}
