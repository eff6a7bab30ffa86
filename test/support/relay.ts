/**
 * A relay of TCP connections that a test can cut: the network between a client and a server, at its worst.
 * @module
 */
import { once } from "node:events";
import net from "node:net";
import type { TestContext } from "node:test";
import { portOf } from "./lab.ts";

interface Pair {
  readonly client: net.Socket;
  readonly server: net.Socket;
}

/** A relay to one server, which lasts as long as the test. */
export class Relay {
  readonly port: number;
  /** Octets that have gone through, both ways. */
  relayed = 0;
  /** Connections that were accepted. */
  accepted = 0;
  /** Called after each piece. */
  passed: () => void = () => {};
  readonly #pairs = new Set<Pair>();
  readonly #forgotten = new Set<net.Socket>();

  private constructor(server: net.Server) {
    this.port = portOf(server);
  }

  static async to(t: TestContext, at: { readonly host: string; readonly port: number }): Promise<Relay> {
    const listener = net.createServer({ allowHalfOpen: true }, (client) => relay.#carry(client, at));
    listener.listen(0, "127.0.0.1");
    await once(listener, "listening");
    const relay = new Relay(listener);
    t.after(() => {
      relay.cut();
      for (const socket of relay.#forgotten) socket.destroy();
      listener.close();
    });
    return relay;
  }

  /** Ends all connections: both ends are told. */
  cut(): void {
    for (const { client, server } of this.#pairs) {
      client.destroy();
      server.destroy();
    }
    this.#pairs.clear();
  }

  /** All connections are lost, and one end is not told: what it says goes nowhere, as when a translator has forgotten them. */
  forget(untold: "client" | "server"): void {
    for (const pair of this.#pairs) {
      for (const socket of [pair.client, pair.server]) socket.removeAllListeners("data").pause();
      pair[untold === "client" ? "server" : "client"].destroy();
      this.#forgotten.add(pair[untold]);
    }
    this.#pairs.clear();
  }

  #carry(client: net.Socket, at: { readonly host: string; readonly port: number }): void {
    this.accepted++;
    const server = net.connect({ ...at, allowHalfOpen: true });
    const pair = { client, server };
    this.#pairs.add(pair);
    this.#direction(pair, client, server);
    this.#direction(pair, server, client);
  }

  #direction(pair: Pair, from: net.Socket, to: net.Socket): void {
    from.on("error", () => {});
    from.on("close", () => {
      if (!this.#pairs.delete(pair)) return;
      to.destroy();
    });
    from.on("end", () => to.end());
    to.on("drain", () => from.resume());
    from.on("data", (octets) => {
      this.relayed += octets.length;
      if (!to.write(octets)) from.pause();
      this.passed();
    });
  }
}
