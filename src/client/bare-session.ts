/**
 * What stands for a session where there is none: a connection a stream, as RFC 1078 has it.
 * @module
 */
import type { Duplex } from "node:stream";
import { BareChannel, ChannelDuplex, FivedError, type Splice } from "../io/index.ts";
import { Code, encodeLine } from "../wire/index.ts";
import { type Address, printAddress } from "./address.ts";
import { type ConnectOptions, dial } from "./dial.ts";
import { expectReplies } from "./replies.ts";
import type { OpenOptions, ServiceOpener, SessionStatus } from "./session.ts";
import { abortWith, asked, checkName, listing, lost, readList } from "./session-lines.ts";

/** Without TLS and MULTIPLEX a "session" is only an address: each stream has a connection of its own (RFC 1078). */
export class BareSession implements ServiceOpener {
  readonly closed: Promise<void>;
  readonly identity = Promise.resolve(undefined);
  readonly heard: Promise<void> = Promise.resolve();
  readonly openable = true;
  readonly isSilent = false;
  readonly isHeard = true;
  readonly binding = undefined;
  readonly #address: Address;
  readonly #options: ConnectOptions;
  readonly #close: () => void;

  constructor(address: Address, options: ConnectOptions) {
    this.#address = address;
    this.#options = options;
    const closed = Promise.withResolvers<void>();
    this.closed = closed.promise;
    this.#close = closed.resolve;
  }

  open(service: string, options: OpenOptions = {}): Duplex {
    const duplex = new ChannelDuplex();
    this.openOn(duplex, service, options);
    return duplex;
  }

  openOn(duplex: ChannelDuplex, service: string, options: OpenOptions): void {
    checkName(service);
    this.#start(duplex, service, options.host).catch((error: Error) => duplex.destroy(error));
    abortWith(duplex, options.signal);
  }

  async #start(duplex: ChannelDuplex, service: string, host: string | undefined): Promise<void> {
    const { socket } = await dial(this.#address, this.#options);
    const channel = new BareChannel(socket);
    const requests = asked(service, host);
    const wait = this.#options.pipeline === false;
    for (const { text } of requests) channel.write(encodeLine(text));
    if (!wait) duplex.attach(channel);
    expectReplies(
      channel,
      requests,
      (answer) => {
        if (answer.type === "accepted") return void duplex.emit("connect");
        duplex.destroy(answer.error);
        channel.reset(Code.CANCEL);
      },
      wait ? (rest) => duplex.attach(channel, rest) : undefined,
    );
  }

  probe(): void {}

  async addPath(): Promise<void> {
    throw new FivedError(
      "DETACH_IMPOSSIBLE",
      `Cannot add a connection to ${printAddress(this.#address)}: without TLS there is no session`,
    );
  }

  removePath(): boolean {
    return false;
  }

  move(): boolean {
    return false;
  }

  async detach(): Promise<string> {
    throw new FivedError(
      "DETACH_IMPOSSIBLE",
      `Cannot detach ${printAddress(this.#address)}: without TLS there is no session`,
    );
  }

  readonly status: SessionStatus = {
    streams: 0,
    queuedBytes: 0,
    roundTripMs: undefined,
    connections: 0,
    isAttaching: false,
  };

  join(
    service: string,
    to: Splice,
    answered: (error: FivedError | undefined, octets: number) => void,
    { host }: { readonly host?: string | undefined } = {},
  ): undefined {
    const duplex = this.open(service, host === undefined ? {} : { host });
    duplex.once("connect", () => answered(undefined, 0));
    duplex.once("error", (error) => {
      answered(error instanceof FivedError ? error : lost(this.#address, error.message), 0);
      to.destroy();
    });
    to.output.pipe(duplex);
    duplex.pipe(to.input);
  }

  async list(service?: string): Promise<string[]> {
    const duplex = new ChannelDuplex();
    const { socket } = await dial(this.#address, this.#options);
    const channel = new BareChannel(socket);
    duplex.attach(channel);
    channel.write(encodeLine(listing(service)));
    return readList(duplex);
  }

  async close(): Promise<void> {
    this.#close();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#close();
  }
}
