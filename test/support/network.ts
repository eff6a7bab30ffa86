/**
 * A network of a test's own: a client's computer and a server's, each in a namespace, and paths between them that come, go and change their
 * addresses. Nothing of it is left when the test ends.
 * @module
 */
import type { Lab } from "./lab.ts";
import type { Program } from "./program.ts";

/** Where the server's computer is reached, over whichever path there is. */
export const SERVER = "10.78.0.1";

/** Two computers, and what lies between them. Needs `root`, `ip`, `nsenter` and `unshare`. */
export class Network {
  readonly #lab: Lab;
  readonly #client: Program;
  readonly #server: Program;

  private constructor(lab: Lab, client: Program, server: Program) {
    this.#lab = lab;
    this.#client = client;
    this.#server = server;
  }

  static async open(lab: Lab): Promise<Network> {
    const computer = async (): Promise<Program> => {
      const program = lab.start(["unshare", "--net", "sh", "-c", "ip link set lo up && echo up && exec cat"]);
      await program.hears(/up\n/);
      return program;
    };
    const network = new Network(lab, await computer(), await computer());
    await network.#ip(network.atServer, "address", "add", `${SERVER}/32`, "dev", "lo");
    return network;
  }

  /** The command line that runs this on the client's computer. */
  readonly atClient = (command: readonly string[]): readonly string[] => inside(this.#client, command);

  /** The command line that runs this on the server's. */
  readonly atServer = (command: readonly string[]): readonly string[] => inside(this.#server, command);

  /** Lays a path and brings it up; the client uses it from now on, and has an address of its own on it. Numbers are 1 to 200. */
  async lay(number: number): Promise<void> {
    const [name, other] = [`path${number}`, `htap${number}`];
    const peer = ["peer", "name", other, "netns", String(this.#server.pid)];
    await this.#ip(this.atClient, "link", "add", name, "type", "veth", ...peer);
    await this.#ip(this.atServer, "address", "add", `10.78.${number}.1/24`, "dev", other);
    await this.#ip(this.atServer, "link", "set", other, "up");
    await this.raise(number);
  }

  /** Brings a path up again, with this address of the client's. */
  async raise(number: number, host = 2): Promise<void> {
    const name = `path${number}`;
    await this.#ip(this.atClient, "link", "set", name, "up");
    await this.#ip(this.atClient, "address", "replace", `10.78.${number}.${host}/24`, "dev", name);
    const way = [SERVER, "via", `10.78.${number}.1`, "dev", name] as const;
    await this.#ip(this.atClient, "route", "replace", ...way);
    // Who starts from the address of a path goes that way, whichever came last.
    await this.#ip(this.atClient, "route", "replace", ...way, "table", `${100 + number}`);
    await this.#ip(this.atClient, "rule", "add", "from", `10.78.${number}.${host}`, "lookup", `${100 + number}`);
  }

  /** Takes the client's address and way from a path. */
  async fell(number: number): Promise<void> {
    await this.#ip(this.atClient, "address", "flush", "dev", `path${number}`);
    await this.#ip(this.atClient, "link", "set", `path${number}`, "down");
  }

  /** What goes over this path is lost, or is so no more. The client's computer keeps address and way, and is told nothing. */
  async swallow(number: number, how: "from now on" | "no more"): Promise<void> {
    await this.#ip(this.atServer, "link", "set", `htap${number}`, how === "no more" ? "up" : "down");
  }

  async #ip(at: (command: readonly string[]) => readonly string[], ...args: readonly string[]): Promise<void> {
    const { status, stderr } = await this.#lab.run(at(["ip", ...args]));
    if (status !== 0) throw new Error(`Cannot run ip ${args.join(" ")}: ${stderr}`);
  }
}

function inside(computer: Program, command: readonly string[]): readonly string[] {
  return ["nsenter", `--net=/proc/${computer.pid}/ns/net`, "--", ...command];
}
