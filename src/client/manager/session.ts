/**
 * A session that the manager holds, as a program sees it: it is shared with the person's other programs, so that what one of them closes is
 * its own use of it.
 * @module
 */
import type { Duplex } from "node:stream";
import { ChannelDuplex, FivedError } from "../../io/index.ts";
import type { ClientChoices } from "../choices.ts";
import type { OpenOptions, Session } from "../session.ts";
import { abortWith } from "../session-lines.ts";
import type { Asked, ManagerClient } from "./client.ts";

/** Uses a session through the manager. */
export class ManagedSession implements Session {
  readonly closed: Promise<void>;
  readonly identity: Promise<string | undefined>;
  readonly #manager: ManagerClient;
  readonly #address: string;
  readonly #choices: ClientChoices;
  readonly #asked: Asked;
  readonly #over: () => void;
  readonly #streams = new Set<Duplex>();
  #isClosing = false;

  private constructor(
    manager: ManagerClient,
    address: string,
    choices: ClientChoices,
    asked: Asked,
    identity: string | undefined,
  ) {
    const closed = Promise.withResolvers<void>();
    this.closed = closed.promise;
    this.#over = closed.resolve;
    this.identity = Promise.resolve(identity);
    this.#manager = manager;
    this.#address = address;
    this.#choices = choices;
    this.#asked = asked;
  }

  /** Has the manager open the session where it is not open yet; rejects as {@link connect} does. */
  static async open(
    manager: ManagerClient,
    address: string,
    choices: ClientChoices,
    asked: Asked,
  ): Promise<ManagedSession> {
    return new ManagedSession(manager, address, choices, asked, await manager.login(address, choices, asked));
  }

  open(service: string, { host, signal }: OpenOptions = {}): Duplex {
    if (this.#isClosing)
      throw new FivedError("SESSION_LOST", `Cannot open "${service}": the session at ${this.#address} was closed`);
    const duplex = new ChannelDuplex();
    this.#streams.add(duplex);
    duplex.once("close", () => {
      this.#streams.delete(duplex);
      this.#endIfIdle();
    });
    const request = {
      address: this.#address,
      service,
      choices: this.#choices,
      ...(host === undefined ? {} : { host }),
    };
    this.#manager.openOn(duplex, request, this.#asked);
    abortWith(duplex, signal);
    return duplex;
  }

  async list(service?: string): Promise<string[]> {
    const manager = await this.#manager.current(this.#asked);
    return await manager.list(this.#address, service, this.#choices, this.#asked);
  }

  async addPath(): Promise<void> {
    throw new FivedError(
      "DETACH_IMPOSSIBLE",
      `Cannot add a connection to ${this.#address}: the session is the session manager's, and shared`,
    );
  }

  async detach(): Promise<string> {
    throw new FivedError(
      "DETACH_IMPOSSIBLE",
      `Cannot detach the session at ${this.#address}: the session manager shares it with other programs; fived detach takes it from all of them`,
    );
  }

  removePath(): boolean {
    return false;
  }

  move(): boolean {
    return false;
  }

  async close(): Promise<void> {
    this.#isClosing = true;
    this.#endIfIdle();
    await this.closed;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const stream of this.#streams) stream.destroy();
    await this.close();
  }

  #endIfIdle(): void {
    if (this.#isClosing && this.#streams.size === 0) this.#over();
  }
}
