/**
 * Multipath TCP (RFC 8684): a connection that has the kernel's other paths besides, as `ip mptcp` is set up. With a server that knows nothing of it
 * it is plain TCP. Node has no word for it, so the socket is made with the C library's own calls, through koffi.
 * @module
 */
import { isIPv6, Socket, SocketAddress } from "node:net";
import { endianness } from "node:os";
import type { Address } from "../address.ts";
import type { Endpoint } from "../initiator/endpoints.ts";
import { reachServer } from "./tcp.ts";
import { noConnection, type Transport } from "./transport.ts";

/** Where the kernel has it. */
export const mptcp: Transport = {
  name: "mptcp",
  async open(address, signal) {
    const calls = await callsOf(address);
    return await reachServer(address, (endpoint, each) => openMptcp(calls, address, endpoint, each), signal);
  },
};

/** Linux, the only system that has it. */
const AF_INET = 2;
const AF_INET6 = 10;
const SOCK_STREAM = 1;
const SOCK_CLOEXEC = 0o2000000;
const IPPROTO_MPTCP = 262;
const SHUT_RDWR = 2;

interface Calls {
  socket(family: number, type: number, protocol: number): number;
  /** In a thread of its own, as it waits; resolves with 0, or with the error's name. */
  connect(fd: number, where: Buffer): Promise<string | 0>;
  shutdown(fd: number, how: number): number;
  close(fd: number): number;
}

async function callsOf(address: Address): Promise<Calls> {
  const { default: koffi } = await import("koffi").catch((cause: unknown) => {
    throw noConnection(address, "MPTCP needs the package koffi, an optional dependency, which is not installed", cause);
  });
  const libc = koffi.load(null);
  const connect = libc.func("int connect(int fd, const void *where, uint32_t length)");
  const names = new Map(Object.entries(koffi.os.errno).map(([name, number]) => [number, name]));
  return {
    socket: libc.func("int socket(int family, int type, int protocol)"),
    shutdown: libc.func("int shutdown(int fd, int how)"),
    close: libc.func("int close(int fd)"),
    connect: (fd, where) =>
      new Promise((resolve, reject) => {
        connect.async(fd, where, where.length, (error: unknown, result: number) => {
          if (error !== null && error !== undefined) reject(error);
          else resolve(result === 0 ? 0 : (names.get(koffi.errno()) ?? "an error"));
        });
      }),
  };
}

async function openMptcp(calls: Calls, address: Address, endpoint: Endpoint, signal: AbortSignal): Promise<Socket> {
  signal.throwIfAborted();
  const where = socketAddress(endpoint);
  const fd = calls.socket(isIPv6(endpoint.host) ? AF_INET6 : AF_INET, SOCK_STREAM | SOCK_CLOEXEC, IPPROTO_MPTCP);
  if (fd < 0) throw noConnection(address, "this kernel has no MPTCP, or it is off (sysctl net.mptcp.enabled)");
  const abort = (): void => void calls.shutdown(fd, SHUT_RDWR); // wakes the thread that waits
  signal.addEventListener("abort", abort, { once: true });
  const why = await calls.connect(fd, where);
  signal.removeEventListener("abort", abort);
  if (why === 0 && !signal.aborted) {
    const socket = new Socket({ fd, readable: true, writable: true, allowHalfOpen: true });
    socket.on("error", () => {}); // "close" says what there is to say
    return socket.setNoDelay(true);
  }
  calls.close(fd);
  signal.throwIfAborted();
  throw Object.assign(new Error(`connect ${why} ${endpoint.host}:${endpoint.port}`), { code: why });
}

/** A `sockaddr_in` or `sockaddr_in6` (ip(7), ipv6(7)); numbers of the kernel's are in this computer's order, those of the network are not. */
function socketAddress({ host, port }: Endpoint): Buffer {
  const family = isIPv6(host) ? AF_INET6 : AF_INET;
  const octets = Buffer.alloc(family === AF_INET6 ? 28 : 16);
  if (endianness() === "LE") octets.writeUInt16LE(family, 0);
  else octets.writeUInt16BE(family, 0);
  octets.writeUInt16BE(port, 2);
  if (family === AF_INET) Buffer.from(host.split(".").map(Number)).copy(octets, 4);
  else ipv6Octets(host).copy(octets, 8);
  return octets;
}

function ipv6Octets(host: string): Buffer {
  const [address = ""] = new SocketAddress({ address: host, family: "ipv6" }).address.split("%");
  const [, front = "", four] = /^(.*?)(\d+\.\d+\.\d+\.\d+)?$/.exec(address) ?? [];
  const groupsOf = (text: string): readonly number[] =>
    text
      .split(":")
      .filter((group) => group !== "")
      .map((group) => Number.parseInt(group, 16));
  const tail = four === undefined ? [] : Buffer.from(four.split(".").map(Number));
  const [left = "", right] = front.split("::");
  const octets = Buffer.alloc(16);
  groupsOf(left).forEach((group, at) => void octets.writeUInt16BE(group, 2 * at));
  const end = 16 - tail.length;
  const groups = right === undefined ? [] : groupsOf(right);
  groups.forEach((group, at) => void octets.writeUInt16BE(group, end - 2 * (groups.length - at)));
  Buffer.from(tail).copy(octets, end);
  return octets;
}
