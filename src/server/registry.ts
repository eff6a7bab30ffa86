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
import type { Identity } from "./auth/mechanism.ts";
import { ExecService } from "./backends/exec.ts";
import { loadModule } from "./backends/module.ts";
import { TcpService } from "./backends/tcp.ts";
import { type Certificate, loadCertificate, ownCertificate } from "./certificate.ts";
import type { Configuration, ServiceSettings } from "./config.ts";
import { isDefaultHost } from "./default-host.ts";
import type { Log } from "./log.ts";
import type { Announcement } from "./schema.ts";
import type { Caller, Service } from "./service.ts";

/** A service at a host, and who may use it. */
export interface Published extends Guarded {
  readonly service: Service;
}

/** A host with services of its own. */
export interface VirtualHost {
  /** Canonical name; undefined for the default host. */
  readonly name: string | undefined;
  /** Equal for hosts that show the same certificate: only between those may HOST move (abuse case H01). */
  readonly group: string;
  /** By names in lower case, in the order of the configuration. */
  readonly services: ReadonlyMap<string, Published>;
  readonly certificate: Certificate;
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
  /** Roles of somebody: those of the configuration, by name and by group, and those that came with him. */
  rolesOf(identity: Identity): readonly string[];
  /** What to show in a TLS handshake; for a name nobody configured the default host's. Never throws. */
  secureContextFor(servername: string | undefined): SecureContext;
}

/** What outlasts a configuration. */
export interface RegistryOptions {
  readonly log: Log;
  readonly announceKeys: KeysWhenNeeded;
}

/** Makes what a configuration describes; throws `CONFIGURATION_BAD` or `STATE_UNUSABLE`, and then nothing is left running. */
export async function buildRegistry(
  configuration: Configuration,
  { log, announceKeys }: RegistryOptions,
): Promise<Registry> {
  const started: Disposable[] = [];
  try {
    const announcing = await announcingOf(configuration, { log, announceKeys });
    const options = { connectMs: configuration.limits.connectMs, log, started, ...announcing };
    const certificate = await defaultCertificate(configuration);
    const hosts = new Map<string, VirtualHost>();
    for (const { name, tls, services } of configuration.hosts) {
      const own = tls === undefined ? certificate : await loadCertificate(tls);
      hosts.set(name, { name, group: own.group, services: await publish(services, options), certificate: own });
    }
    const services = await publish(configuration.services, options);
    const defaultHost = { name: undefined, group: certificate.group, services, certificate };
    const policies = configuration.policies === undefined ? undefined : await Policies.load(configuration.policies);
    const access = new Access(configuration.roles, policies);
    return new Snapshot(defaultHost, hosts, access, { log, started });
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
  readonly announcers: Readonly<Record<Announcement, Announcer>> | undefined;
}

async function announcingOf(
  { services, hosts, state, announce }: Configuration,
  { log, announceKeys }: RegistryOptions,
): Promise<Announcing> {
  const all = [...services, ...hosts.flatMap((host) => host.services)];
  const needed = all.some(
    ({ backEnd }) => backEnd.type === "keys" || (backEnd.type === "tcp" && backEnd.announce !== undefined),
  );
  if (!needed) return { announcers: undefined };
  const keys = await announceKeys.open({ state, publishAt: announce.keys, log });
  const assertions = new Assertions({ keys, issuer: announce.issuer ?? hostname() });
  return {
    keys,
    announcers: { "proxy-v2": new ProxyV2Announcer(assertions), http: new HttpAnnouncer(assertions, log) },
  };
}

interface Options extends Announcing {
  readonly connectMs: number;
  readonly log: Log;
  /** Takes what has to be ended. */
  readonly started: Disposable[];
}

async function publish(
  services: readonly ServiceSettings[],
  options: Options,
): Promise<ReadonlyMap<string, Published>> {
  const published = new Map<string, Published>();
  const audiences = new Map<string, Audience>();
  for (const settings of services) {
    const { name, allow } = settings;
    const made = serviceOf(settings, options);
    // Awaiting what is there already would cost a turn for each of thousands.
    const service = made instanceof Promise ? await made : made;
    const key = JSON.stringify(allow);
    const audience = audiences.get(key) ?? { names: new Set(allow) };
    audiences.set(key, audience);
    published.set(name.toLowerCase(), { name, audience, service });
  }
  return published;
}

function serviceOf(
  { name, backEnd, at }: ServiceSettings,
  { connectMs, log, started, keys, announcers }: Options,
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

  constructor(
    defaultHost: VirtualHost,
    hosts: ReadonlyMap<string, VirtualHost>,
    access: Access,
    { log, started }: Pick<Options, "log" | "started">,
  ) {
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
    const published = host?.services.get(name.toLowerCase());
    return this.#access.allows(published, name, host?.name, caller) ? published : undefined;
  }

  usable(host: VirtualHost | undefined, caller: Caller): Iterable<Published> {
    return this.#access.usable(host?.services.values() ?? [], host?.name, caller);
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
