/**
 * Which services there are, at which host, and who may see them: one immutable snapshot made from a configuration. A reload makes another
 * one; streams that are open keep what they have. Who somebody is, is not decided here.
 * @module
 */
import { hostname } from "node:os";
import { createSecureContext, type SecureContext } from "node:tls";
import { canonicalName, FivedError } from "../io/index.ts";
import { assertNever } from "../wire/index.ts";
import { Access, type Audience, type Guarded } from "./access/access.ts";
import { Policies } from "./access/policies.ts";
import type { Announcer } from "./announce/announcer.ts";
import { Assertions } from "./announce/assertions.ts";
import { HttpAnnouncer } from "./announce/http.ts";
import type { AnnounceKeys, KeysWhenNeeded } from "./announce/keys.ts";
import { KeysService } from "./announce/keys-service.ts";
import { ProxyV2Announcer } from "./announce/proxy-v2.ts";
import { Vouchings } from "./announce/vouchings.ts";
import type { Identity } from "./auth/mechanism.ts";
import { ExecService } from "./backends/exec.ts";
import { FarService, farName } from "./backends/far.ts";
import { loadModule } from "./backends/module.ts";
import { TcpService } from "./backends/tcp.ts";
import { type Certificate, loadCertificate, ownCertificate } from "./certificate.ts";
import type { Configuration, ServiceSettings } from "./config.ts";
import { isDefaultHost } from "./default-host.ts";
import type { Hops } from "./hops.ts";
import type { Log } from "./log.ts";
import { type Announcement, isWildcard } from "./schema.ts";
import type { Caller, Service } from "./service.ts";
import { type SeenVouchings, Trusts } from "./trusts.ts";
import type { FarServer } from "./upstream.ts";

/** A service at a host, and who may use it. */
export interface Published extends Guarded {
  readonly service: Service;
  /** One of all those of another server: only that server knows whether it is there. */
  readonly isFar?: true;
}

/** A host with services of its own. */
export interface VirtualHost {
  /** Canonical name; undefined for the default host. */
  readonly name: string | undefined;
  /** Equal for hosts that show the same certificate: only between those may HOST move (abuse case H01). */
  readonly group: string;
  /** By names in lower case, in the order of the configuration. */
  readonly services: ReadonlyMap<string, Published>;
  /** All services of another server each; of two that fit a name, the first. */
  readonly wildcards: readonly Wildcard[];
  readonly certificate: Certificate;
}

/** All services of another server, under `*` or `*.other`. */
export interface Wildcard extends Guarded {
  readonly service: FarService;
}

/** The services of a server, as one configuration has them. Disposing ends what runs for them by itself, and touches no stream. */
export interface Registry extends AsyncDisposable {
  /** Of the key of the default host, as `known_hosts` tools print it. */
  readonly fingerprint: string;
  /** Some host believes client certificates: clients are asked for theirs. */
  readonly believesCertificates: boolean;
  /** The host of that name; IP addresses, localhost and no name are the default host. Undefined for a name nobody configured. */
  host(name: string | undefined): VirtualHost | undefined;
  /**
   * The service of that name at a host, if the caller may use it. One that is forbidden costs the same work as one that is not there, so
   * that no clock tells them apart (PROTOCOL §3.2).
   */
  find(host: VirtualHost | undefined, name: string, caller: Caller): Published | undefined;
  /** Those of a host's services that the caller may use, in the order of the configuration. */
  usable(host: VirtualHost | undefined, caller: Caller): Iterable<Published>;
  /** Names of services behind other servers, besides those; with a name, that one if the caller may use it there. Asks those servers. */
  farNames(
    host: VirtualHost | undefined,
    caller: Caller,
    signal: AbortSignal,
    name?: string,
  ): Promise<readonly string[]>;
  /** There is, or may be, a service of that name at the host, whoever asks. */
  offers(host: VirtualHost | undefined, name: string): boolean;
  /** Whose word about callers counts. */
  readonly trusts: Trusts;
  /** Roles of somebody: those of the configuration, by name and by group, and those that came with him. */
  rolesOf(identity: Identity): readonly string[];
  /** What to show in a TLS handshake; for a name nobody configured the default host's. Never throws. */
  secureContextFor(servername: string | undefined): SecureContext;
}

/** What outlasts a configuration. */
export interface RegistryOptions {
  readonly log: Log;
  readonly announceKeys: KeysWhenNeeded;
  readonly hops: Hops;
  readonly seenVouchings: SeenVouchings;
}

/** Makes what a configuration describes; throws `CONFIGURATION_BAD` or `STATE_UNUSABLE`, and then nothing is left running. */
export async function buildRegistry(
  configuration: Configuration,
  { log, announceKeys, hops, seenVouchings }: RegistryOptions,
): Promise<Registry> {
  const started: Disposable[] = [];
  try {
    const announcing = await announcingOf(configuration, { log, announceKeys });
    const farServer = (server: string): FarServer => {
      const settings = configuration.hops.get(server);
      if (settings === undefined) throw new Error("Invariant: a checked service has an entry under hops");
      const taken = hops.take({ server, settings, state: configuration.state });
      started.push(taken);
      return taken.far;
    };
    const options = { connectMs: configuration.limits.connectMs, log, started, farServer, ...announcing };
    const certificate = await defaultCertificate(configuration);
    const virtualHosts = new Map<string, VirtualHost>();
    for (const { name, tls, services } of configuration.hosts) {
      const own = tls === undefined ? certificate : await loadCertificate(tls);
      virtualHosts.set(name, { name, group: own.group, ...(await publish(services, options)), certificate: own });
    }
    const published = await publish(configuration.services, options);
    const defaultHost = { name: undefined, group: certificate.group, ...published, certificate };
    const policies = configuration.policies === undefined ? undefined : await Policies.load(configuration.policies);
    const access = new Access(configuration.roles, policies);
    const trusts = new Trusts(configuration.trusts, {
      seen: seenVouchings,
      isOneOf: (caller, names) => access.isOneOf(caller, names),
    });
    return new Snapshot(defaultHost, virtualHosts, access, { log, started, trusts });
  } catch (error) {
    for (const each of started) each[Symbol.dispose]();
    throw error;
  }
}

async function defaultCertificate({ tls, state, hosts }: Configuration): Promise<Certificate> {
  if (tls !== undefined) return await loadCertificate(tls);
  const names = hosts.filter((host) => host.tls === undefined).map((host) => host.name);
  const ours = canonicalName(hostname());
  return await ownCertificate(state, [...names, ...(ours === undefined ? [] : [ours]), "localhost"]);
}

/** How back ends learn who is calling; nothing, and no keys, where no service needs it. */
interface Announcing {
  readonly keys?: AnnounceKeys;
  readonly announcers: Readonly<Record<Exclude<Announcement, "fived">, Announcer>> | undefined;
  readonly vouchings?: Vouchings;
}

async function announcingOf(
  { services, hosts, state, announce }: Configuration,
  { log, announceKeys }: Pick<RegistryOptions, "log" | "announceKeys">,
): Promise<Announcing> {
  const all = [...services, ...hosts.flatMap((host) => host.services)];
  const vouches = all.some(({ backEnd }) => backEnd.type === "far" && backEnd.vouches);
  const needed = all.some(
    ({ backEnd }) => backEnd.type === "keys" || (backEnd.type === "tcp" && backEnd.announce !== undefined),
  );
  if (!needed && !vouches) return { announcers: undefined };
  const issuer = announce.issuer ?? hostname();
  if (vouches && canonicalName(issuer) !== issuer) {
    const why = `"${issuer}" is no name by which another server could know this one`;
    throw new FivedError("CONFIGURATION_BAD", `Cannot announce callers to another server: ${why}; set announce.issuer`);
  }
  const keys = await announceKeys.open({ state, publishAt: announce.keys, log });
  const assertions = new Assertions({ keys, issuer });
  return {
    keys,
    vouchings: new Vouchings({ keys, issuer }),
    announcers: { "proxy-v2": new ProxyV2Announcer(assertions), http: new HttpAnnouncer(assertions, log) },
  };
}

interface Options extends Announcing {
  readonly connectMs: number;
  readonly log: Log;
  /** Takes what has to be ended. */
  readonly started: Disposable[];
  /** The way to another server. */
  farServer(server: string): FarServer;
}

async function publish(
  services: readonly ServiceSettings[],
  options: Options,
): Promise<Pick<VirtualHost, "services" | "wildcards">> {
  const published = new Map<string, Published>();
  const wildcards: Wildcard[] = [];
  const audiences = new Map<string, Audience>();
  for (const settings of services) {
    const { name, allow } = settings;
    const made = serviceOf(settings, options);
    // Awaiting what is there already would cost a turn for each of thousands.
    const service = made instanceof Promise ? await made : made;
    const key = JSON.stringify(allow);
    const audience = audiences.get(key) ?? { names: new Set(allow) };
    audiences.set(key, audience);
    if (isWildcard(name) && service instanceof FarService) wildcards.push({ name, audience, service });
    else published.set(name.toLowerCase(), { name, audience, service });
  }
  // What fits fewer names goes first: `*.other` before `*`.
  return { services: published, wildcards: wildcards.toSorted((a, b) => b.name.length - a.name.length) };
}

function serviceOf(
  { name, backEnd, at }: ServiceSettings,
  { connectMs, log, started, keys, announcers, vouchings, farServer }: Options,
): Service | Promise<Service> {
  switch (backEnd.type) {
    case "tcp": {
      const announcer = backEnd.announce && announcers?.[backEnd.announce];
      const service = new TcpService(name, backEnd, { connectMs, log, announcer });
      started.push(service);
      return service;
    }
    case "exec":
      return new ExecService(name, backEnd, log);
    case "module":
      return loadModule(name, backEnd.file, log).catch((error: Error) => {
        throw new FivedError("CONFIGURATION_BAD", `${at}: ${error.message}`, { cause: error });
      });
    case "keys":
      if (keys === undefined) throw new Error("Invariant: keys are opened where a service needs them");
      return new KeysService(name, keys);
    case "far": {
      const { server, vouches } = backEnd;
      return new FarService(name, backEnd, {
        ...{ far: farServer(server), connectMs, log },
        vouchings: vouches ? vouchings : undefined,
      });
    }
    default:
      return assertNever(backEnd);
  }
}

/** A certificate that ends within this time is worth a word when the server starts. */
const ENDS_SOON_MS = 14 * 24 * 60 * 60 * 1_000;

class Snapshot implements Registry {
  readonly fingerprint: string;
  readonly believesCertificates: boolean;
  readonly #defaultHost: VirtualHost;
  readonly #hosts: ReadonlyMap<string, VirtualHost>;
  readonly #access: Access;
  /** By group: hosts that show the same certificate share it, as it is the larger part of what a host costs. */
  readonly #contexts = new Map<string, SecureContext>();
  readonly #defaultContext: SecureContext;
  readonly #started: readonly Disposable[];
  readonly trusts: Trusts;

  constructor(
    defaultHost: VirtualHost,
    hosts: ReadonlyMap<string, VirtualHost>,
    access: Access,
    { log, started, trusts }: Pick<Options, "log" | "started"> & { readonly trusts: Trusts },
  ) {
    this.trusts = trusts;
    this.fingerprint = defaultHost.certificate.fingerprint;
    const certificates = [defaultHost, ...hosts.values()].map(({ certificate }) => certificate);
    this.believesCertificates = certificates.some(({ context }) => context.ca !== undefined);
    this.#defaultHost = defaultHost;
    this.#hosts = hosts;
    this.#access = access;
    this.#started = started;
    this.#defaultContext = this.#prepare(defaultHost, log);
    for (const host of hosts.values()) this.#prepare(host, log);
  }

  host(name: string | undefined): VirtualHost | undefined {
    if (name === undefined) return this.#defaultHost;
    const canonical = canonicalName(name);
    const host = canonical === undefined ? undefined : this.#hosts.get(canonical);
    return host ?? (isDefaultHost(name) ? this.#defaultHost : undefined);
  }

  find(host: VirtualHost | undefined, name: string, caller: Caller): Published | undefined {
    const published = publishedAt(host, name);
    return this.#access.allows(published, name, host?.name, caller) ? published : undefined;
  }

  usable(host: VirtualHost | undefined, caller: Caller): Iterable<Published> {
    return this.#access.usable(host?.services.values() ?? [], host?.name, caller);
  }

  async farNames(
    host: VirtualHost | undefined,
    caller: Caller,
    signal: AbortSignal,
    name?: string,
  ): Promise<readonly string[]> {
    const asked = (host?.wildcards ?? []).filter(
      (each) =>
        (name === undefined || wildcardFor(host, name) === each) && this.#access.mayUseSome(each.audience, caller),
    );
    if (asked.length === 0) return [];
    const lists = await Promise.all(asked.map(({ service }) => service.names(caller, signal, name)));
    const names = lists.flatMap((list, at) => list.filter((each) => wildcardFor(host, each) === asked[at]));
    return [...new Set(names)].filter(
      (each) => host?.services.has(each.toLowerCase()) === false && this.find(host, each, caller) !== undefined,
    );
  }

  offers(host: VirtualHost | undefined, name: string): boolean {
    return publishedAt(host, name) !== undefined;
  }

  rolesOf(identity: Identity): readonly string[] {
    return this.#access.rolesOf(identity);
  }

  secureContextFor(servername: string | undefined): SecureContext {
    const group = this.host(servername)?.group;
    return (group === undefined ? undefined : this.#contexts.get(group)) ?? this.#defaultContext;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const each of this.#started) each[Symbol.dispose]();
  }

  #prepare({ name, group, certificate }: VirtualHost, log: Log): SecureContext {
    const kept = this.#contexts.get(group);
    if (kept !== undefined) return kept;
    const { validTo, context } = certificate;
    const leftMs = validTo.getTime() - Date.now();
    const reason = `${leftMs < 0 ? "it ended" : "it ends"} on ${validTo.toISOString().slice(0, 10)}`;
    if (leftMs < ENDS_SOON_MS) log.warn({ host: name, reason }, "the certificate needs to be renewed");
    try {
      const made = createSecureContext(context);
      this.#contexts.set(group, made);
      return made;
    } catch (cause) {
      const whose = name === undefined ? "the server" : name;
      const why = cause instanceof Error ? cause.message : String(cause);
      throw new FivedError("CONFIGURATION_BAD", `Cannot use the certificate of ${whose}: ${why}`, { cause });
    }
  }
}

/** The service of that name at a host. One of another server is there for whoever asks: that server knows whether it is. */
function publishedAt(host: VirtualHost | undefined, name: string): Published | undefined {
  const lower = name.toLowerCase();
  // Looked for in any case: what is there and forbidden takes no other time than what is not (L08).
  const wildcard = wildcardFor(host, lower);
  const exact = host?.services.get(lower);
  if (exact !== undefined || wildcard === undefined) return exact;
  return { name: lower, audience: wildcard.audience, service: wildcard.service, isFar: true };
}

function wildcardFor(host: VirtualHost | undefined, name: string): Wildcard | undefined {
  return host?.wildcards.find((wildcard) => farName(wildcard.name, name) !== undefined);
}
