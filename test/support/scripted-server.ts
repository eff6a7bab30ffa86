/**
 * A server whose lines a test writes, on real sockets and real TLS, and what each client said to it. From MULTIPLEX on it is a session, whose
 * streams give back what comes.
 * @module
 */
import { once } from "node:events";
import fs from "node:fs/promises";
import { createServer, type Socket } from "node:net";
import os from "node:os";
import path from "node:path";
import type { TestContext } from "node:test";
import { TLSSocket } from "node:tls";
import { type ConnectOptions, parseAddress } from "../../src/client/index.ts";
import { knownHosts, pinName } from "../../src/client/known-hosts.ts";
import { BareChannel, type Channel, type HostKey, SessionPump } from "../../src/io/index.ts";
import { ownCertificate } from "../../src/server/certificate.ts";
import { SESSION_LIMITS } from "../../src/session/index.ts";
import { encodeLine, LineReader } from "../../src/wire/index.ts";
import { portOf } from "./lab.ts";

/** A client's connection, as the server saw it. */
export interface Heard {
  /** Its lines up to MULTIPLEX. */
  readonly lines: string[];
  /** The exporter, as the server has it. */
  readonly binding: Uint8Array;
  /** The requests of its streams. */
  readonly requests: string[];
  readonly socket: TLSSocket;
}

/** What the server says to a line: lines, CRLF is added to each; `undefined` says nothing; `"close"` hangs up. */
export type Script = (line: string, on: Heard) => readonly string[] | "close" | undefined;

/** Takes whoever comes, and keeps no session. */
export const WELCOME: Script = (line) => (/^(MULTIPLEX|DETACHABLE.*)$/.test(line) ? undefined : ["+ SUCCESS"]);

/** A server by script. */
export interface Scripted {
  readonly address: string;
  readonly folder: string;
  readonly hostKey: HostKey;
  readonly fingerprint: string;
  readonly heard: readonly Heard[];
  /** Those of a client to whom the server's key is known. */
  readonly options: ConnectOptions;
}

/** How else it behaves. */
export interface ScriptedOptions {
  /** Says nothing before this has come, in plaintext: what must travel in one flight. */
  readonly hold?: RegExp;
  /** Serves a stream; gives back what comes if left out. */
  readonly serve?: (channel: Channel, request: string) => void;
}

/** Starts one; it ends with the test. */
export async function scripted(t: TestContext, script: Script, options: ScriptedOptions = {}): Promise<Scripted> {
  const folder = await fs.mkdtemp(path.join(os.tmpdir(), "fived-scripted-"));
  const { context, hostKey, fingerprint } = await ownCertificate(path.join(folder, "server"), ["localhost"]);
  const heard: Heard[] = [];
  const sockets = new Set<Socket>();
  const server = createServer({ allowHalfOpen: true }, (socket) => {
    sockets.add(socket);
    socket.on("error", () => {});
    const tls = new TLSSocket(socket, { isServer: true, ...context, ALPNProtocols: ["fived/1"] });
    tls.on("error", () => {});
    tls.once("secure", () => {
      const binding = tls.exportKeyingMaterial(32, "EXPORTER-Channel-Binding", Buffer.alloc(0));
      const on: Heard = { lines: [], binding, requests: [], socket: tls };
      heard.push(on);
      converse(on, script, options);
    });
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  const address = `127.0.0.1:${portOf(server)}`;
  const pins = knownHosts(path.join(folder, "known_hosts"));
  await pins.pin(pinName(parseAddress(address)), hostKey);
  t.after(async () => {
    for (const socket of sockets) socket.destroy();
    server.close();
    await fs.rm(folder, { recursive: true, force: true });
  });
  return { address, folder, hostKey, fingerprint, heard, options: { knownHosts: pins.file, detachable: false } };
}

function converse(on: Heard, script: Script, { hold, serve = echo }: ScriptedOptions): void {
  const lines = new LineReader();
  const channel = new BareChannel(on.socket);
  let held = hold === undefined ? undefined : "";
  channel.receiver = {
    ...channel.receiver,
    data(octets) {
      lines.push(octets.slice());
      if (held !== undefined && hold !== undefined) {
        held += Buffer.from(octets).toString("latin1");
        if (!hold.test(held)) return;
        held = undefined;
      }
      for (let line = lines.next(); line?.type === "line"; line = lines.next()) {
        on.lines.push(line.text);
        // What most scripts are not about.
        const said = script(line.text, on) ?? (line.text.startsWith("DETACHABLE") ? ["- 507 not here"] : undefined);
        if (said === "close") return channel.close();
        for (const each of said ?? []) channel.write(Buffer.from(`${each}\r\n`, "latin1"));
        if (line.text === "MULTIPLEX") return carry();
      }
    },
    end: () => channel.close(),
  };
  function carry(): void {
    const pump = new SessionPump(
      { role: "server", retain: false, limits: SESSION_LIMITS },
      {
        opened(stream, octets) {
          const request = Buffer.from(octets).toString("latin1");
          on.requests.push(request);
          serve(stream, request);
        },
        ready() {},
        idle() {},
        goingAway() {},
        ended() {},
        disconnected() {},
      },
    );
    channel.release();
    pump.carry(on.socket, encodeLine("+ SUCCESS"))(lines.rest());
  }
}

function echo(channel: Channel): void {
  channel.write(encodeLine("+ SUCCESS"));
  const duplex = channel.duplex(new Uint8Array(0));
  duplex.on("error", () => {}).pipe(duplex);
}
