/**
 * `announce: proxy-v2`: a header of the PROXY protocol before the caller's bytes (identity/proxy-v2.ts), with his address, the host, the
 * session, what is known of TLS, and a signed assertion of who he is. After it the bytes are joined as they are.
 * @module
 */
import { encodeProxyV2, type ProxyAddress, type ProxySsl } from "../../identity/index.ts";
import type { Caller, Talk } from "../service.ts";
import type { Announcement, Announcer } from "./announcer.ts";
import { type Announced, type Assertions, userToTell } from "./assertions.ts";

/** All TLS that this server speaks (PROTOCOL §2.2). */
const TLS_VERSION = "TLSv1.3";

/** Says it in a header of the PROXY protocol. */
export class ProxyV2Announcer implements Announcer {
  /** LOCAL: this connection is our own, and there is no caller. */
  readonly greeting = encodeProxyV2({ type: "local" });
  readonly #assertions: Assertions;

  constructor(assertions: Assertions) {
    this.#assertions = assertions;
  }

  async announce(talk: Talk): Promise<Announcement> {
    const preamble = headerOf(talk, await this.#assertions.of(talk));
    return { preamble, wrap: (backEnd) => backEnd };
  }
}

/** Identifier of a stream: its session's, and its number there. The same in the server's log. */
export function streamId({ caller, streamNumber }: Announced): string {
  return streamNumber === undefined ? caller.session : `${caller.session}/${streamNumber}`;
}

function headerOf(announced: Announced, assertion: string | undefined): Uint8Array {
  const { caller, host } = announced;
  return encodeProxyV2({
    type: "proxy",
    // A caller over a Unix socket has no address: the header says "unspecified", and everything else all the same.
    source: addressOf(caller.peer),
    destination: caller.local === undefined ? undefined : addressOf(caller.local),
    authority: host,
    uniqueId: Buffer.from(streamId(announced)),
    ssl: sslOf(caller),
    assertion,
    user: userToTell(caller),
    others: [],
  });
}

function sslOf({ secure, certificateName }: Caller): ProxySsl | undefined {
  if (!secure) return undefined;
  const certificate = certificateName !== undefined;
  return { version: TLS_VERSION, certificate, verified: certificate, commonName: certificateName };
}

function addressOf(peer: string): ProxyAddress | undefined {
  const [, six, four, port] = /^(?:\[([0-9a-fA-F:.%\w]+)\]|([\d.]+)):(\d{1,5})$/.exec(peer) ?? [];
  const address = six ?? four;
  return address === undefined ? undefined : { address, port: Number(port) };
}
