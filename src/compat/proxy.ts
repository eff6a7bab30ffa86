/**
 * `fived proxy`: SOCKS 5, 4 and 4a, and HTTP, on one port; the first octet tells which. A program connects through it as through any other proxy, and
 * what its host and port mean is said by {@link Policies}. HTTP is CONNECT, requests with a whole URL, and requests to `SERVICE.HOST.localhost`,
 * which browsers lead to this computer by themselves.
 * @module
 */
import {
  createServer as createHttpServer,
  type Server as HttpServer,
  type IncomingMessage,
  request,
  type ServerResponse,
} from "node:http";
import { connect as connectSocket, createServer, isIPv6, type Server, type Socket } from "node:net";
import type { Duplex } from "node:stream";
import type { Address, Bind } from "../client/index.ts";
import { FivedError, removeStale, spliceOf } from "../io/index.ts";
import { answerTo } from "./answers.ts";
import { Placeholders } from "./placeholders.ts";
import type { Policies, Way } from "./policies.ts";
import { SocksReader, type SocksRequest, socksAnswer } from "./socks.ts";

/** What it needs. */
export interface ProxyOptions {
  readonly bind: Bind;
  readonly policies: Policies;
  /** Opens a stream to a service: "connect" says that it is there, "error" why not. */
  readonly open: (address: Address, service: string) => Promise<Duplex> | Duplex;
  readonly log: (line: string) => void;
}

/** A running proxy. */
export interface Proxy extends AsyncDisposable {
  /** Where it listens: `127.0.0.1:1080`, `[::1]:1080` or `unix:/path`. */
  readonly address: string;
}

/** Time for a program to say what it wants. */
const REQUEST_MS = 10_000;
/** Programs that have connected at once. */
const CONNECTIONS_MAX = 4_096;
/** A first octet of these is SOCKS; HTTP begins with a letter. */
const SOCKS: ReadonlySet<number> = new Set([4, 5]);

/** Starts one. Rejects with LISTEN_FAILED. */
export async function startProxy(options: ProxyOptions): Promise<Proxy> {
  const door = new Door(options);
  await door.listen();
  return door;
}

class Door implements Proxy {
  readonly #options: ProxyOptions;
  readonly #server: Server;
  readonly #http: HttpServer;
  readonly #open = new Set<Socket>();
  readonly #placeholders = new Placeholders();
  address = "";

  constructor(options: ProxyOptions) {
    this.#options = options;
    this.#server = createServer({ allowHalfOpen: true, noDelay: true }, (socket) => this.#accept(socket));
    this.#server.maxConnections = CONNECTIONS_MAX;
    this.#http = createHttpServer({ requestTimeout: 0 }, (incoming, response) => this.#forward(incoming, response));
    this.#http.on("connect", (incoming, socket, head) => void this.#tunnel(incoming, socket as Socket, head));
    this.#http.on("upgrade", (incoming, socket, head) => this.#upgrade(incoming, socket, head));
  }

  async listen(): Promise<void> {
    const { bind, log } = this.#options;
    if ("path" in bind) await removeStale(bind.path);
    const where = "path" in bind ? `unix:${bind.path}` : written(bind.host, bind.port);
    await new Promise<void>((resolve, reject) => {
      this.#server.once("error", (cause) => {
        reject(new FivedError("LISTEN_FAILED", `Cannot listen on ${where}: ${cause.message}`, { cause }));
      });
      this.#server.listen(bind, resolve);
    });
    this.#server.on("error", (error) => log(`cannot accept a connection: ${error.message}`));
    const bound = this.#server.address();
    this.address = typeof bound === "object" && bound !== null ? written(bound.address, bound.port) : where;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    const closed = new Promise((resolve) => this.#server.close(resolve));
    this.#http.close();
    for (const socket of this.#open) socket.destroy();
    await closed;
  }

  #accept(socket: Socket): void {
    this.#open.add(socket);
    socket.once("close", () => this.#open.delete(socket));
    socket.on("error", () => {}); // "close" follows
    const late = setTimeout(() => socket.destroy(), REQUEST_MS);
    const end = (): void => void socket.destroy();
    socket.once("close", () => clearTimeout(late)).once("end", end);
    socket.once("data", (first: Buffer) => {
      clearTimeout(late);
      socket.pause().off("end", end);
      socket.unshift(first);
      if (SOCKS.has(first[0] ?? 0)) return this.#socks(socket);
      this.#http.emit("connection", socket);
      socket.resume();
    });
  }

  // ---- SOCKS

  #socks(socket: Socket): void {
    const reader = new SocksReader();
    const late = setTimeout(() => socket.destroy(), REQUEST_MS);
    const end = (): void => void socket.destroy();
    const hear = (octets: Buffer): void => {
      let read = reader.push(octets);
      for (; read.type === "say"; read = reader.push(NOTHING)) socket.write(read.octets);
      if (read.type === "more") return;
      clearTimeout(late);
      socket.off("data", hear).off("end", end).pause();
      if (read.type === "wrong") return void socket.end(read.octets, () => socket.destroy());
      if (read.rest.length > 0) socket.unshift(read.rest);
      void this.#serve(socket, read.request);
    };
    socket.once("close", () => clearTimeout(late));
    socket.on("data", hear).once("end", end).resume();
  }

  async #serve(socket: Socket, asked: SocksRequest): Promise<void> {
    const { version, command } = asked;
    const answer = (reply: number, found?: readonly number[] | string): void =>
      void socket.end(socksAnswer(version, reply, found));
    if (command === "other") return answer(7);
    if (command === "resolve-ptr") {
      const name = this.#placeholders.nameOf(asked.host);
      return name === undefined ? answer(4) : answer(0, name);
    }
    try {
      const way = this.#way(asked.host, asked.port);
      if (command === "resolve") {
        if (way.policy === "refuse") throw refused(way);
        const address = this.#placeholders.addressOf(way.host);
        return address === undefined ? answer(1) : answer(0, address.split(".").map(Number));
      }
      const stream = await this.#connected(way);
      socket.write(socksAnswer(version, 0));
      join(socket, stream);
    } catch (error) {
      this.#tell(asked.host, asked.port, error);
      answer(answerTo(error).socks);
    }
  }

  // ---- HTTP

  /** CONNECT: what comes behind the answer is the service's. */
  async #tunnel({ url = "" }: IncomingMessage, socket: Socket, head: Buffer): Promise<void> {
    const [, bracketed, plain = "", digits = ""] = /^(?:\[([^\]]+)\]|([^:]+)):(\d{1,5})$/.exec(url) ?? [];
    const host = bracketed ?? plain;
    const port = Number(digits);
    // What came with the request is the service's as well; it must not be read before there is one.
    socket.pause();
    if (head.length > 0) socket.unshift(head);
    if (host === "" || port > 65_535) return void socket.end(head400);
    try {
      const stream = await this.#connected(this.#way(host, port));
      socket.write("HTTP/1.1 200 OK\r\n\r\n");
      join(socket, stream);
    } catch (error) {
      this.#tell(host, port, error);
      const { http } = answerTo(error);
      const said = `${error instanceof Error ? error.message : String(error)}\n`;
      const headers = `content-type: text/plain; charset=utf-8\r\ncontent-length: ${Buffer.byteLength(said)}\r\nconnection: close`;
      socket.end(
        `HTTP/1.1 ${http} ${REASONS[http] ?? "Bad Gateway"}\r\n${proxyStatus(error)}${headers}\r\n\r\n${said}`,
      );
    }
  }

  /** A request with a whole URL, or to a name under `.localhost`. */
  #forward(incoming: IncomingMessage, response: ServerResponse): void {
    this.#onward(incoming, (error) => {
      const { http } = answerTo(error);
      if (response.headersSent) return void response.destroy();
      response.writeHead(http, { "content-type": "text/plain; charset=utf-8", connection: "close" });
      response.end(`${error instanceof Error ? error.message : String(error)}\n`);
    })
      .then((outgoing) => {
        if (outgoing === undefined) return;
        outgoing.once("response", (answer) => {
          response.writeHead(answer.statusCode ?? 502, answer.statusMessage, hopByHopless(answer));
          answer.pipe(response);
          answer.once("error", () => response.destroy());
        });
        response.once("close", () => outgoing.destroy());
        incoming.pipe(outgoing);
      })
      .catch(() => response.destroy());
  }

  /** A WebSocket, or another protocol that begins as HTTP. */
  #upgrade(incoming: IncomingMessage, socket: Duplex, head: Buffer): void {
    const fail = (error: unknown): void => {
      const { http } = answerTo(error);
      socket.end(`HTTP/1.1 ${http} ${REASONS[http] ?? "Bad Gateway"}\r\nconnection: close\r\n\r\n`);
    };
    this.#onward(incoming, fail)
      .then((outgoing) => {
        if (outgoing === undefined) return;
        const say = (answer: IncomingMessage): void => {
          const lines = answer.rawHeaders.flatMap((name, at, all) => (at % 2 === 0 ? [`${name}: ${all[at + 1]}`] : []));
          socket.write(`HTTP/1.1 ${answer.statusCode} ${answer.statusMessage}\r\n${lines.join("\r\n")}\r\n\r\n`);
        };
        outgoing.once("upgrade", (answer, stream, rest) => {
          say(answer);
          if (rest.length > 0) stream.unshift(rest);
          if (head.length > 0) socket.unshift(head);
          join(socket as Socket, stream);
        });
        outgoing.once("response", (answer) => {
          say(answer);
          answer.pipe(socket);
        });
        socket.once("close", () => outgoing.destroy());
        outgoing.end();
      })
      .catch(fail);
  }

  /** The request as the service is to have it, on a stream of its own. */
  async #onward(
    incoming: IncomingMessage,
    failed: (error: unknown) => void,
  ): Promise<ReturnType<typeof request> | undefined> {
    const url = wholeUrl(incoming);
    if (url === undefined) {
      failed(
        new FivedError(
          "ADDRESS_BAD",
          "Cannot say where that is to go: this is a proxy; ask it for a whole http:// URL, or for SERVICE.HOST.localhost",
        ),
      );
      return undefined;
    }
    const port = url.port === "" ? 80 : Number(url.port);
    const host = url.hostname.replace(/^\[(.*)\]$/, "$1");
    try {
      const stream = await this.#connected(this.#way(host, port));
      const isUpgrade = incoming.headers.upgrade !== undefined;
      const outgoing = request({
        method: incoming.method ?? "GET",
        path: `${url.pathname}${url.search}`,
        headers: {
          ...(isUpgrade ? incoming.headers : hopByHopless(incoming)),
          host: incoming.headers.host ?? url.host,
        },
        createConnection: () => stream as Socket,
      });
      outgoing.on("error", failed);
      return outgoing;
    } catch (error) {
      this.#tell(host, port, error);
      failed(error);
      return undefined;
    }
  }

  // ---- both

  #way(host: string, port: number): Way {
    return this.#options.policies.wayTo(this.#placeholders.nameOf(host) ?? host, port);
  }

  #tell(host: string, port: number, error: unknown): void {
    this.#options.log(`${host}:${port}: ${error instanceof Error ? error.message : String(error)}`);
  }

  async #connected(way: Way): Promise<Duplex> {
    const { policy, session, host, port } = way;
    if (policy === "refuse") throw refused(way);
    if (policy === "direct" || session === undefined) return await direct(host, port);
    try {
      return await accepted(await this.#options.open(session.address, session.service));
    } catch (error) {
      if (policy === "session-or-direct" && hasNoServer(error)) return await direct(host, port);
      throw error;
    }
  }
}

const NOTHING = new Uint8Array(0);
const head400 = "HTTP/1.1 400 Bad Request\r\nconnection: close\r\n\r\n";
const REASONS: Readonly<Record<number, string>> = {
  400: "Bad Request",
  403: "Forbidden",
  502: "Bad Gateway",
  503: "Service Unavailable",
  504: "Gateway Timeout",
  508: "Loop Detected",
};

/** Nothing listens there, or the name leads nowhere: there is no session layer. Silence, TLS, trust and AUTH that fail say no such thing. */
function hasNoServer(error: unknown): boolean {
  return error instanceof FivedError && (error.code === "CONNECT_FAILED" || error.code === "RESOLVE_FAILED");
}

function refused({ host, port }: Way): FivedError {
  return new FivedError("POLICY_REFUSED", `Cannot connect to ${host}:${port}: a policy of yours refuses it`);
}

/** RFC 9209. */
function proxyStatus(error: unknown): string {
  const code = error instanceof FivedError ? error.code : "INTERNAL";
  return `proxy-status: fived; error=proxy_internal_response; details="${code}"\r\n`;
}

/** A stream, once the service has accepted. */
function accepted(stream: Duplex): Promise<Duplex> {
  return new Promise((resolve, reject) => {
    stream.once("error", reject);
    stream.once("connect", () => {
      stream.off("error", reject).on("error", () => {}); // "close" follows
      resolve(stream);
    });
  });
}

function direct(host: string, port: number): Promise<Duplex> {
  const socket = connectSocket({ host, port, allowHalfOpen: true, noDelay: true, autoSelectFamily: true });
  return accepted(socket).catch((cause: NodeJS.ErrnoException) => {
    const isUnknown = cause.code === "ENOTFOUND" || cause.code === "EAI_AGAIN";
    const code = isUnknown ? "RESOLVE_FAILED" : cause.code === "ETIMEDOUT" ? "TIMEOUT" : "CONNECT_FAILED";
    throw new FivedError(code, `Cannot connect to ${written(host, port)}: ${cause.message || cause.code}`, { cause });
  });
}

/** Joins a program and a stream: each direction ends by itself, and what is cut on one side is cut on the other. */
function join(socket: Socket, stream: Duplex): void {
  socket.pipe(stream);
  stream.pipe(socket);
  stream.once("close", () => {
    if (!stream.readableEnded) spliceOf(socket).destroy();
    else if (!stream.writableFinished) socket.unpipe(stream).resume();
  });
  socket.once("close", () => {
    if (!socket.readableEnded || !stream.readableEnded) stream.destroy();
  });
  socket.resume();
}

/** Where a request is to go; undefined where it does not say. */
function wholeUrl({ url = "", headers }: IncomingMessage): URL | undefined {
  const whole = URL.parse(url);
  if (whole?.protocol === "http:") return whole;
  const host = headers.host ?? "";
  const isLocal = /\.localhost(:\d+)?$/i.test(host) && url.startsWith("/");
  return isLocal ? (URL.parse(`http://${host}${url}`) ?? undefined) : undefined;
}

/** Headers that are for the next hop alone (RFC 9110, section 7.6.1). */
function hopByHopless({ headers }: IncomingMessage): Record<string, string | string[]> {
  const named = (headers.connection ?? "").split(",").map((name) => name.trim().toLowerCase());
  const dropped = new Set([
    "connection",
    "proxy-connection",
    "keep-alive",
    "proxy-authorization",
    "te",
    "upgrade",
    ...named,
  ]);
  const kept = Object.entries(headers).flatMap(([name, value]) =>
    value === undefined || dropped.has(name) || name === "transfer-encoding" ? [] : [[name, value] as const],
  );
  return Object.fromEntries(kept);
}

function written(host: string, port: number): string {
  return isIPv6(host) ? `[${host}]:${port}` : `${host}:${port}`;
}
