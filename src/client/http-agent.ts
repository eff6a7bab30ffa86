/**
 * HTTP over services, for programs of Node: an agent for `http.request` and what is built on it, and a connector for undici's `fetch`. Which service is
 * said once; the host of a URL is what the web server behind it sees.
 * @module
 */
import { Agent, type AgentOptions, type ClientRequestArgs } from "node:http";
import type { Socket } from "node:net";
import type { Duplex } from "node:stream";
import type { Address } from "./address.ts";
import { connect } from "./connect.ts";
import type { ConnectOptions } from "./dial.ts";
import type { OpenOptions } from "./session.ts";

/** How an agent reaches its service. */
export interface FivedAgentOptions extends AgentOptions {
  /** As for {@link connect}; the person's own choices, and his session manager, if left out. */
  readonly connect?: ConnectOptions & OpenOptions;
}

/**
 * An `http.Agent` whose connections are streams to a service. They are kept alive between requests unless the options say otherwise.
 * @example
 * http.get("http://wiki/", { agent: new FivedAgent("example.org", "wiki") }, (response) => response.pipe(process.stdout));
 */
export class FivedAgent extends Agent {
  readonly #open: () => Duplex;

  constructor(address: string | Address, service: string, { connect: options, ...agent }: FivedAgentOptions = {}) {
    super({ keepAlive: true, ...agent });
    this.#open = () => streamTo(address, service, options);
  }

  override createConnection(
    _: ClientRequestArgs,
    callback?: (error: Error | null, stream: Duplex) => void,
  ): Duplex | null | undefined {
    const stream = this.#open();
    if (callback === undefined) return stream;
    const fail = (error: Error): void => callback(error, stream);
    stream.once("error", fail);
    stream.once("connect", () => {
      stream.off("error", fail);
      callback(null, stream);
    });
    return undefined;
  }
}

/** What undici calls for a connection. */
type Connector = (options: object, callback: (...answer: [Error, null] | [null, Socket]) => void) => void;

/**
 * The connector of an undici `Agent`, for `fetch` with a dispatcher.
 * @example
 * const dispatcher = new Agent({ connect: fivedConnector("example.org", "wiki") }); // import { Agent, fetch } from "undici"
 * await fetch("http://wiki/", { dispatcher });
 */
export function fivedConnector(
  address: string | Address,
  service: string,
  options?: ConnectOptions & OpenOptions,
): Connector {
  return (_, callback) => {
    const stream = streamTo(address, service, options);
    const fail = (error: Error): void => callback(error, null);
    stream.once("error", fail);
    stream.once("connect", () => {
      stream.off("error", fail);
      callback(null, stream as Socket);
    });
  };
}

/** Clients of HTTP take what they have for a socket: what they set on one has no meaning here, and does no harm. */
function streamTo(
  address: string | Address,
  service: string,
  options: (ConnectOptions & OpenOptions) | undefined,
): Duplex {
  const stream = connect(address, service, options);
  const none = (): Duplex => stream;
  return Object.assign(stream, { setNoDelay: none, setKeepAlive: none, setTimeout: none, ref: none, unref: none });
}
