/**
 * A WebSocket (RFC 6455), sub-protocol `fived.v1`, for networks that let nothing pass but HTTP: to `ws://` and `wss://` addresses, and through the
 * proxy that HTTPS_PROXY, HTTP_PROXY, ALL_PROXY and NO_PROXY name. What `wss:` encrypts is read by whoever ends it; the TLS that
 * protects a session is inside, as everywhere.
 * @module
 */
import { request } from "node:http";
import type { Socket } from "node:net";
import { connect as connectTls } from "node:tls";
import { getProxyForUrl } from "proxy-from-env";
import { createWebSocketStream, WebSocket } from "ws";
import { canonicalHost } from "../../io/index.ts";
import type { Address } from "../address.ts";
import { openTcp, reach } from "./tcp.ts";
import { noConnection, type Transport } from "./transport.ts";

/** The sub-protocol of both ends. */
const SUB_PROTOCOL = "fived.v1";

/** Octets of a message: each is held whole before it is read. */
const MESSAGE_BYTES_MAX = 1024 * 1024;

/** Connects to a WebSocket at that URL, behind which the session server is. */
export function websocket(url: URL): Transport {
  return {
    name: "websocket",
    async open(address, signal) {
      const socket = await wayTo(url, address, signal);
      const web = new WebSocket(url, SUB_PROTOCOL, {
        perMessageDeflate: false, // what is encrypted does not shrink
        followRedirects: false,
        maxPayload: MESSAGE_BYTES_MAX,
        createConnection: () =>
          url.protocol === "wss:"
            ? connectTls({ socket, host: bare(url), servername: nameOf(url), ALPNProtocols: ["http/1.1"] })
            : socket,
      });
      const stream = createWebSocketStream(web, { allowHalfOpen: true });
      stream.on("error", () => {}); // "close" says what there is to say
      await new Promise<void>((resolve, reject) => {
        const abort = (): void => reject(signal.reason);
        signal.addEventListener("abort", abort, { once: true });
        web.once("open", resolve);
        web.once("error", (error) =>
          reject(noConnection(address, `the WebSocket ${url.href}: ${error.message}`, error)),
        );
        if (signal.aborted) abort();
      }).catch((error: unknown) => {
        web.terminate();
        socket.destroy();
        throw error;
      });
      return stream;
    },
  };
}

/** A connection to the URL's host, or through a proxy. */
async function wayTo(url: URL, address: Address, signal: AbortSignal): Promise<Socket> {
  const host = bare(url);
  const port = portOf(url);
  const proxy = getProxyForUrl(url.href.replace(/^ws/, "http"));
  if (proxy === "") return await direct(address, host, port, signal);
  const through = URL.parse(proxy);
  if (through?.protocol !== "http:")
    throw noConnection(
      address,
      `the proxy ${proxy} of the environment is none that we can use: name it as http://host:port`,
    );
  const socket = await direct(address, bare(through), portOf(through), signal);
  return await tunnel(socket, { through, host, port, address }, signal);
}

function direct(address: Address, text: string, port: number, signal: AbortSignal): Promise<Socket> {
  const host = canonicalHost(text);
  if (host === undefined) throw noConnection(address, `${text} is no host`);
  return reach(address, { host: host.text, port, isDefaultPort: false, hasRecords: false }, openTcp, signal);
}

interface Tunnel {
  readonly through: URL;
  readonly host: string;
  readonly port: number;
  readonly address: Address;
}

/** CONNECT (RFC 9110, section 9.3.6). */
function tunnel(socket: Socket, { through, host, port, address }: Tunnel, signal: AbortSignal): Promise<Socket> {
  const target = `${host.includes(":") ? `[${host}]` : host}:${port}`;
  const { username, password } = through;
  const credentials = `${decodeURIComponent(username)}:${decodeURIComponent(password)}`;
  return new Promise((resolve, reject) => {
    const fail = (why: string, cause?: unknown): void => {
      socket.destroy();
      reject(signal.aborted ? signal.reason : noConnection(address, `the proxy ${through.host} ${why}`, cause));
    };
    const asking = request({
      method: "CONNECT",
      path: target,
      headers: {
        host: target,
        ...(username === "" ? {} : { "proxy-authorization": `Basic ${Buffer.from(credentials).toString("base64")}` }),
      },
      createConnection: () => socket,
      signal,
    });
    asking.once("error", (error) => fail(`does not answer: ${error.message}`, error));
    asking.once("response", ({ statusCode }) => fail(`answers ${statusCode} to CONNECT`));
    asking.once("connect", ({ statusCode }, _, rest) => {
      if (statusCode !== 200) return fail(`answers ${statusCode} to CONNECT ${target}`);
      if (rest.length > 0) socket.unshift(rest);
      resolve(socket);
    });
    asking.end();
  });
}

function bare(url: URL): string {
  return url.hostname.replace(/^\[(.*)\]$/, "$1");
}

function portOf(url: URL): number {
  if (url.port !== "") return Number(url.port);
  return url.protocol === "wss:" || url.protocol === "https:" ? 443 : 80;
}

/** For SNI, which addresses have no place in. */
function nameOf(url: URL): string {
  return canonicalHost(bare(url))?.type === "name" ? url.hostname : "";
}
