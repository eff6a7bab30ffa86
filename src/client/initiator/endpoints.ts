/**
 * Where a session server may be reached: what SVCB, SRV and the addresses of its name say, in the order in which to try. All is asked for at once,
 * so that the answers cost one round trip together, and the first endpoint comes as soon as the order allows.
 *
 *     SVCB _fived.HOST  ─┐ usable?                  SVCB for another port: _PORT._fived.HOST, and no SRV
 *     SRV  _fived._tcp… ─┤ none usable, SRV?
 *     AAAA, A of HOST   ─┘ neither: HOST itself, at its port
 *
 * Whom the server must prove to be is decided by the name that was asked for, never by what is found here.
 * @module
 */
import { isIP } from "node:net";
import { setTimeout as pause } from "node:timers/promises";
import type { Names, Srv } from "./names.ts";
import type { Svcb } from "./svcb.ts";

/** Where a connection may be tried. */
export interface Endpoint {
  /** An IP address. */
  readonly host: string;
  readonly port: number;
}

/** A name and a port that records lead to. */
interface Target {
  readonly host: string;
  readonly port: number;
  readonly hints: readonly string[];
}

/** Endpoints that are tried for one name: whoever answers with 1,000 addresses has no more of them tried than others. */
export const ENDPOINTS_MAX = 16;

/** Addresses that are known wait so long for SVCB and SRV: name servers that drop what they do not know would cost seconds. */
const RECORDS_WAIT_MS = 250;

/** Addresses of one family wait so long for those of the other (RFC 8305, section 3). */
const OTHER_FAMILY_WAIT_MS = 50;

/** Names of SVCB that lead to another. */
const ALIASES_MAX = 4;

/** What a domain says whose SRV record names no target (RFC 2782). */
export class NotOffered extends Error {}

/** What to look for. */
export interface Wanted {
  readonly host: string;
  readonly port: number;
  /** It is the port where the protocol lives; another one was meant as it was written. */
  readonly isDefaultPort: boolean;
  /** False for what is no session server, but only on the way to one: no records are asked for. */
  readonly hasRecords?: false;
}

/** Endpoints in the order to try them; throws the system's error, or {@link NotOffered}, where there is none. */
export async function* endpointsOf(wanted: Wanted, names: Names, signal: AbortSignal): AsyncGenerator<Endpoint> {
  const { host, port } = wanted;
  if (isIP(host) > 0) return yield { host, port };
  const seen = new Set<string>();
  for await (const endpoint of inOrder(wanted, names, signal)) {
    const key = `${endpoint.host} ${endpoint.port}`;
    if (seen.has(key)) continue;
    seen.add(key);
    yield endpoint;
    if (seen.size === ENDPOINTS_MAX) return;
  }
}

async function* inOrder(wanted: Wanted, names: Names, signal: AbortSignal): AsyncGenerator<Endpoint> {
  const { host, port } = wanted;
  // RFC 6761: such names are this computer, and nobody is asked about them.
  const isLocal = host === "localhost" || host.endsWith(".localhost");
  if (isLocal) return yield* atPort(new Lookup("localhost", names), port);
  const own = new Lookup(host, names);
  const targets = targetsOf(wanted, names, signal);
  targets.catch(() => {}); // whoever needs them is told
  const late = own.first.then(
    () => pause(RECORDS_WAIT_MS, undefined, { signal }),
    () => targets, // without an address there is nothing to do meanwhile
  );
  late.catch(() => {}); // called off
  const inTime = await Promise.race([targets, late]);
  if (inTime !== undefined) return yield* ofTargets(inTime, names);
  // Either there are no records, or they are late, and then they come behind.
  yield* atPort(own, port);
  const behind = await targets;
  if (behind !== undefined) yield* ofTargets(behind, names);
}

async function* atPort({ first, all }: Pick<Lookup, "first" | "all">, port: number): AsyncGenerator<Endpoint> {
  for (const host of await first) yield { host, port };
  for (const host of await all) yield { host, port }; // those that were known are passed over
}

async function* ofTargets(targets: readonly Target[], names: Names): AsyncGenerator<Endpoint> {
  const known = targets.slice(0, ENDPOINTS_MAX).map((target) => ({ target, lookup: new Lookup(target.host, names) }));
  let found = 0;
  let last: unknown;
  for (const { target, lookup } of known) {
    const { port } = target;
    for (const host of interleaved(target.hints)) {
      found++;
      yield { host, port };
    }
    try {
      for await (const endpoint of atPort(lookup, port)) {
        found++;
        yield endpoint;
      }
    } catch (error) {
      last = error;
    }
  }
  if (found === 0) throw last;
}

/** What the records say; undefined where there is none to go by. */
async function targetsOf(wanted: Wanted, names: Names, signal: AbortSignal): Promise<readonly Target[] | undefined> {
  const none = (): readonly never[] => [];
  const { host, port, isDefaultPort, hasRecords } = wanted;
  if (hasRecords === false) return undefined;
  const svcbName = isDefaultPort ? `_fived.${host}` : `_${port}._fived.${host}`;
  const [svcb, srv] = await Promise.all([
    bindings(svcbName, wanted, names, signal).catch(none),
    isDefaultPort ? names.srv(`_fived._tcp.${host}`, signal).catch(none) : [],
  ]);
  if (svcb.length > 0) return svcb;
  if (srv.length === 0) return undefined;
  const offered = srv.filter(({ target }) => target !== "");
  if (offered.length === 0)
    throw new NotOffered(`the domain says that it has no session server (SRV _fived._tcp.${host})`);
  return drawn(offered).map((record) => ({ host: record.target, port: record.port, hints: [] }));
}

async function bindings(name: string, wanted: Wanted, names: Names, signal: AbortSignal): Promise<readonly Target[]> {
  let asked = name;
  for (let alias = 0; alias <= ALIASES_MAX; alias++) {
    const records: readonly Svcb[] = await names.svcb(asked, signal);
    const [other] = records.filter(({ priority }) => priority === 0);
    if (other === undefined) {
      // The name that was asked for is that of the record, and has addresses under it; ours are under the host's own name.
      const own = asked === name ? wanted.host : asked;
      return records
        .filter(({ usable }) => usable)
        .sort((one, next) => one.priority - next.priority)
        .map(({ target, port, hints }) => ({ host: target === "" ? own : target, port: port ?? wanted.port, hints }));
    }
    if (other.target === "") return [];
    asked = other.target;
  }
  return [];
}

/** RFC 2782: lower priorities first, and within one as often first as its weight says. */
export function drawn(records: readonly Srv[], random: () => number = Math.random): readonly Srv[] {
  const left = [...records].sort((one, other) => one.priority - other.priority || one.weight - other.weight);
  const order: Srv[] = [];
  for (let [first] = left; first !== undefined; [first] = left) {
    const { priority } = first;
    const group = left.filter((record) => record.priority === priority);
    let before = 0;
    const sums = group.map(({ weight }) => {
      before += weight;
      return before;
    });
    const at = random() * before;
    const chosen = group[sums.findIndex((sum) => sum >= at)] ?? first;
    left.splice(left.indexOf(chosen), 1);
    order.push(chosen);
  }
  return order;
}

/** Addresses of a name, of both families at once. */
class Lookup {
  /** Those that are known when the first family has come and the other had a little time; rejects with the system's error where there are none. */
  readonly first: Promise<readonly string[]>;
  /** All of them. */
  readonly all: Promise<readonly string[]>;

  constructor(host: string, names: Names) {
    const known: string[] = isIP(host) > 0 ? [host] : [];
    const families = known.length > 0 ? [] : ([6, 4] as const);
    const asked = families.map((family) => names.addresses(host, family).then((found) => void known.push(...found)));
    const settled = Promise.allSettled(asked);
    this.all = settled.then(() => interleaved(known));
    this.first = this.#first(asked, settled).then(() => interleaved(known));
    this.first.catch(() => {}); // whoever needs them is told
  }

  async #first(asked: readonly Promise<void>[], settled: Promise<unknown>): Promise<void> {
    if (asked.length === 0) return;
    try {
      await Promise.any(asked);
    } catch {
      await asked.at(-1); // what IPv4 says is what people know
    }
    await Promise.race([settled, pause(OTHER_FAMILY_WAIT_MS)]);
  }
}

/** IPv6 and IPv4 in turns, so that a family that leads nowhere costs one attempt (RFC 8305, section 4). */
function interleaved(addresses: readonly string[]): readonly string[] {
  const six = addresses.filter((address) => isIP(address) === 6);
  const four = addresses.filter((address) => isIP(address) === 4);
  return Array.from({ length: Math.max(six.length, four.length) }, (_, index) =>
    [six[index], four[index]].filter((address) => address !== undefined),
  ).flat();
}
