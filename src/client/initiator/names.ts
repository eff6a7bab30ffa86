/**
 * Asks the name service: addresses as every program of this computer gets them, with /etc/hosts and what else it is set up with, and the records
 * SRV and SVCB from its name servers, which the system's own call has no word for.
 *
 * A server that answers nonsense, for another question, or nothing, is passed over: what comes from DNS is only where to try, and whoever answers
 * there has to prove that he is the server of the name.
 * @module
 */
import { randomInt } from "node:crypto";
import { createSocket } from "node:dgram";
import { getServers } from "node:dns";
import { lookup } from "node:dns/promises";
import { connect, isIPv6 } from "node:net";
import { type Answer, decode, encode, type Packet, RECURSION_DESIRED, streamDecode, streamEncode } from "dns-packet";
import { canonicalName } from "../../io/index.ts";
import { readSvcb, type Svcb } from "./svcb.ts";

/** A record SRV (RFC 2782). */
export interface Srv {
  readonly priority: number;
  readonly weight: number;
  /** Canonical, without the final dot; empty for "there is no such service here". */
  readonly target: string;
  readonly port: number;
}

/** Who knows where names lead. */
export interface Names {
  /** Addresses of one family; rejects with the system's error where there are none. */
  addresses(host: string, family: 4 | 6): Promise<readonly string[]>;
  /** Records; none where there are none, or where nobody answers in time. */
  srv(name: string, signal: AbortSignal): Promise<readonly Srv[]>;
  /** As {@link Names.srv}. */
  svcb(name: string, signal: AbortSignal): Promise<readonly Svcb[]>;
}

/** The time for one server to answer, and how often each is asked: a packet may be lost. */
const ANSWER_MS = 1_500;
const TRIES = 2;
/** Octets of an answer that no way cuts in pieces (DNS Flag Day 2020). */
const UDP_BYTES_MAX = 1_232;
const DNS_PORT = 53;
const SVCB_TYPE = "UNKNOWN_64";
/** Names that lead to another before the records come. */
const ALIASES_MAX = 8;

/** The name service of this computer. */
export const systemNames: Names = namesOf(() => getServers());

/** @param servers addresses of name servers, `host`, `host:port` or `[v6]:port`, in the order in which they are asked */
export function namesOf(servers: () => readonly string[]): Names {
  const ask = (name: string, type: "SRV" | typeof SVCB_TYPE, signal: AbortSignal): Promise<readonly Answer[]> =>
    answersOf(servers(), { name, type }, signal);
  return {
    async addresses(host, family) {
      const found = await lookup(host, { family, all: true, order: "verbatim" });
      return found.map(({ address }) => address);
    },
    async srv(name, signal) {
      const answers = await ask(name, "SRV", signal);
      return answers.flatMap((answer) => (answer.type === "SRV" ? srvOf(answer.data) : []));
    },
    async svcb(name, signal) {
      const answers = await ask(name, SVCB_TYPE, signal);
      return answers.flatMap((answer) => {
        const data = "data" in answer ? answer.data : undefined;
        return data instanceof Uint8Array ? (readSvcb(data) ?? []) : [];
      });
    },
  };
}

function srvOf(data: {
  readonly priority?: number | undefined;
  readonly weight?: number | undefined;
  readonly port: number;
  readonly target: string;
}): Srv[] {
  const { priority = 0, weight = 0, port, target } = data;
  const isNowhere = target === "." || target === "";
  const name = isNowhere ? "" : canonicalName(target);
  return name === undefined ? [] : [{ priority, weight, port, target: name }];
}

interface Question {
  readonly name: string;
  readonly type: string;
}

async function answersOf(
  servers: readonly string[],
  question: Question,
  signal: AbortSignal,
): Promise<readonly Answer[]> {
  for (let round = 0; round < TRIES; round++) {
    for (const server of servers) {
      const answer = await askedOf(server, question, signal).catch((error: unknown) => {
        if (signal.aborted) throw error;
        return undefined;
      });
      // What says that the name is not there has answered; a server that is at a loss has not.
      if (answer?.rcode === "NOERROR" || answer?.rcode === "NXDOMAIN") return recordsOf(answer.packet, question);
    }
  }
  return [];
}

interface Answered {
  readonly packet: Packet;
  readonly rcode: string;
}

async function askedOf(server: string, question: Question, signal: AbortSignal): Promise<Answered> {
  const [, bracketed, plain = server, digits] = /^(?:\[([^\]]+)\]|([^:]+))(?::(\d+))?$/.exec(server) ?? [];
  const where = { host: bracketed ?? plain, port: digits === undefined ? DNS_PORT : Number(digits) };
  const limit = AbortSignal.any([signal, AbortSignal.timeout(ANSWER_MS)]);
  const packet: Packet = {
    type: "query",
    id: randomInt(0x1_0000),
    flags: RECURSION_DESIRED,
    questions: [{ name: question.name, type: question.type as "SRV" }],
    additionals: [
      {
        type: "OPT",
        name: ".",
        udpPayloadSize: UDP_BYTES_MAX,
        flags: 0,
        options: [],
        extendedRcode: 0,
        ednsVersion: 0,
        flag_do: false,
      },
    ],
  };
  const answer = await byUdp(where, packet, limit);
  return isCut(answer.packet) ? await byTcp(where, packet, limit) : answer;
}

interface Where {
  readonly host: string;
  readonly port: number;
}

function byUdp({ host, port }: Where, query: Packet, limit: AbortSignal): Promise<Answered> {
  return new Promise((resolve, reject) => {
    // Connected, so that the kernel takes answers of that server only, and says when nobody is there.
    const socket = createSocket(isIPv6(host) ? "udp6" : "udp4");
    const fail = (error: unknown): void => done(() => reject(error));
    const abort = (): void => fail(limit.reason);
    const done = (tell: () => void): void => {
      limit.removeEventListener("abort", abort);
      socket.off("error", fail).on("error", () => {});
      socket.close();
      tell();
    };
    if (limit.aborted) return reject(limit.reason);
    limit.addEventListener("abort", abort, { once: true });
    socket.once("error", fail);
    socket.on("message", (message) => {
      const answer = read(() => decode(message), query);
      if (answer !== undefined) done(() => resolve(answer));
    });
    socket.connect(port, host, () => socket.send(encode(query)));
  });
}

function byTcp(where: Where, query: Packet, limit: AbortSignal): Promise<Answered> {
  return new Promise((resolve, reject) => {
    const socket = connect({ ...where, signal: limit });
    let octets: Buffer = Buffer.alloc(0);
    socket.once("error", reject);
    socket.once("close", () => reject(new Error(`the name server at ${where.host} closed without an answer`)));
    socket.on("data", (part) => {
      octets = Buffer.concat([octets, part]);
      // Two octets of length, so that there are never more than 64 KiB.
      if (octets.length < 2 || octets.length < 2 + octets.readUInt16BE(0)) return;
      const answer = read(() => streamDecode(octets) ?? undefined, query);
      if (answer === undefined) reject(new Error(`the name server at ${where.host} answers something else`));
      else resolve(answer);
      socket.destroy();
    });
    socket.write(streamEncode(query));
  });
}

/** What is an answer to that query, and can be read; undefined for anything else. */
function read(decoded: () => Packet | undefined, query: Packet): Answered | undefined {
  try {
    const packet = decoded();
    if (packet === undefined || packet.type !== "response" || packet.id !== query.id) return undefined;
    const [question] = packet.questions ?? [];
    const [asked] = query.questions ?? [];
    const isSame = question?.name.toLowerCase() === asked?.name.toLowerCase() && question?.type === asked?.type;
    const rcode = "rcode" in packet && typeof packet.rcode === "string" ? packet.rcode : "SERVFAIL";
    return isSame ? { packet, rcode } : undefined;
  } catch {
    return undefined;
  }
}

function isCut(packet: Packet): boolean {
  return "flag_tc" in packet && packet.flag_tc === true;
}

/** The records that were asked for, under the name or under what it is an alias of. */
function recordsOf({ answers = [] }: Packet, { name, type }: Question): readonly Answer[] {
  let owner = name.toLowerCase();
  for (let alias = 0; alias < ALIASES_MAX; alias++) {
    const found = answers.filter((answer) => answer.type === type && answer.name.toLowerCase() === owner);
    if (found.length > 0) return found;
    const next = answers.find((answer) => answer.type === "CNAME" && answer.name.toLowerCase() === owner);
    if (next === undefined || next.type !== "CNAME") return [];
    owner = next.data.toLowerCase();
  }
  return [];
}
