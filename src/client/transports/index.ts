/**
 * Transports by what a person writes for them. What one is: `transport.ts`.
 * @module
 */
import type { Address } from "../address.ts";
import { command } from "./command.ts";
import { tcp } from "./tcp.ts";
import type { Transport } from "./transport.ts";
import { unix } from "./unix.ts";

/** How transports are written, for messages. */
const TRANSPORT_FORMS = "tcp, mptcp, ws://host/path, wss://host/path or exec:COMMAND";

/** Whether that is a way to write one. */
export function isTransport(text: string): boolean {
  return readTransport(text) !== undefined;
}

type Written = "tcp" | "mptcp" | { readonly command: string } | { readonly url: URL };

function readTransport(text: string): Written | undefined {
  if (text === "tcp" || text === "mptcp") return text;
  if (text.startsWith("exec:")) return text === "exec:" ? undefined : { command: text.slice("exec:".length) };
  const url = /^wss?:\/\//.test(text) ? URL.parse(text) : null;
  return url === null || url.hash !== "" ? undefined : { url };
}

/** The transport for an address: the one that was chosen, else a Unix socket where the address is one, else TCP. */
export async function transportFor(address: Address, chosen: string | Transport | undefined): Promise<Transport> {
  if (typeof chosen === "object") return chosen;
  const written = chosen === undefined ? "tcp" : readTransport(chosen);
  if (written === undefined) throw new TypeError(`${chosen} is no transport: write ${TRANSPORT_FORMS}`);
  if (written === "tcp") return address.type === "unix" ? unix : tcp;
  // Loaded where somebody wants it.
  if (written === "mptcp") return (await import("./mptcp.ts")).mptcp;
  if ("command" in written) return command(written.command);
  return (await import("./websocket.ts")).websocket(written.url);
}
