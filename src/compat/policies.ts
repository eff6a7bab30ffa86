/**
 * What becomes of a host and a port that a program asks for: which service of which organisation is meant, and whether there is another way where there
 * is no session. Rules are tried in order, and the first that fits decides.
 *
 *     wiki.example.org.localhost:8080  →  wiki at example.org, by no rule: the name says it all
 *     wiki.example.org:443             →  { match: "*.example.org", at: example.org }: wiki at example.org
 *     example.org:22                   →  { match: example.org }: ssh at example.org, by the port's name
 * @module
 */
import { type Address, parseAddress } from "../client/index.ts";
import { canonicalHost, FivedError } from "../io/index.ts";

/** What may be done for a name. `session-or-direct` goes past the session layer only where the name has no session server at all. */
export type Policy = "session" | "session-or-direct" | "direct" | "refuse";

const POLICIES: readonly string[] = ["session", "session-or-direct", "direct", "refuse"] satisfies readonly Policy[];

/** What is to be done for one request. */
export interface Way {
  readonly policy: Policy;
  /** Undefined where the policy needs none. */
  readonly session: { readonly address: Address; readonly service: string } | undefined;
  /** Where the program wanted to go. */
  readonly host: string;
  readonly port: number;
}

/** Rules, read. */
export interface Policies {
  /** Throws ADDRESS_BAD for what is no host, and for a name under `.localhost` that names no service. */
  wayTo(host: string, port: number): Way;
}

/** A rule as it is written. */
interface Rule {
  readonly match: string;
  readonly policy: Policy;
  readonly at: Address | undefined;
  readonly services: ReadonlyMap<number, string>;
}

/** IANA's names of ports that people use, for services that are called so. */
const PORT_NAMES: ReadonlyMap<number, string> = new Map([
  ...([
    [21, "ftp"],
    [22, "ssh"],
    [23, "telnet"],
    [25, "smtp"],
    [53, "domain"],
    [80, "http"],
    [110, "pop3"],
  ] as const),
  ...([
    [143, "imap"],
    [389, "ldap"],
    [443, "https"],
    [445, "microsoft-ds"],
    [465, "submissions"],
  ] as const),
  ...([
    [587, "submission"],
    [636, "ldaps"],
    [993, "imaps"],
    [995, "pop3s"],
    [1883, "mqtt"],
    [3306, "mysql"],
  ] as const),
  ...([
    [3389, "ms-wbt-server"],
    [5222, "xmpp-client"],
    [5432, "postgresql"],
    [5900, "rfb"],
    [6379, "redis"],
  ] as const),
]);

/** Names, and what a name under which this computer's own programs are asked for ends in (RFC 6761). */
const LOCAL = ".localhost";

/**
 * Reads rules: a list of `{ match, policy, at, services }`, as in `config.yaml`. Throws CONFIGURATION_BAD.
 * @param named short names for addresses, as in `wiki.lab.localhost`
 * @param otherwise where no rule fits
 */
export function readPolicies(
  written: unknown,
  named: ReadonlyMap<string, string> = new Map(),
  otherwise: Policy = "session",
): Policies {
  const rules = Array.isArray(written) ? written.map(readRule) : [];
  if (written !== undefined && written !== null && !Array.isArray(written))
    throw bad("policies", "it is no list of rules");
  const addressOf = (name: string): Address => parseAddress(named.get(name) ?? name);
  return {
    wayTo(text, port) {
      const host = canonicalHost(text)?.text;
      if (host === undefined)
        throw new FivedError("ADDRESS_BAD", `Cannot connect to ${JSON.stringify(text.slice(0, 200))}: it is no host`);
      if (host.endsWith(LOCAL)) return { policy: "session", session: localService(host, addressOf), host, port };
      const rule = rules.find(({ match }) => fits(match, host));
      const policy = rule?.policy ?? otherwise;
      if (policy === "direct" || policy === "refuse") return { policy, session: undefined, host, port };
      return { policy, session: meant(rule, host, port, addressOf), host, port };
    },
  };
}

/** `wiki.example.org.localhost` is `wiki` at `example.org`. */
function localService(host: string, addressOf: (name: string) => Address): NonNullable<Way["session"]> {
  const [service = "", ...rest] = host.slice(0, -LOCAL.length).split(".");
  if (rest.length === 0)
    throw new FivedError(
      "ADDRESS_BAD",
      `Cannot connect to ${host}: write SERVICE.HOST.localhost, as in wiki.example.org.localhost`,
    );
  return { address: addressOf(rest.join(".")), service };
}

function meant(
  rule: Rule | undefined,
  host: string,
  port: number,
  addressOf: (name: string) => Address,
): NonNullable<Way["session"]> {
  const byPort = rule?.services.get(port) ?? PORT_NAMES.get(port) ?? `port-${port}`;
  if (rule?.at === undefined) return { address: addressOf(host), service: byPort };
  const suffix = rule.match.startsWith("*.") ? rule.match.slice(1) : undefined;
  const before = suffix !== undefined && host.endsWith(suffix) ? host.slice(0, -suffix.length) : "";
  // A service's name is one label; what has more of them is asked for by the port.
  return { address: rule.at, service: before !== "" && !before.includes(".") ? before : byPort };
}

function fits(match: string, host: string): boolean {
  if (match === "*") return true;
  return match.startsWith("*.") ? host.endsWith(match.slice(1)) : host === match;
}

function readRule(written: unknown, index: number): Rule {
  const where = `policies[${index}]`;
  if (typeof written !== "object" || written === null) throw bad(where, "it is no rule: write { match: …, policy: … }");
  const { match, policy, at, services = {}, ...others } = written as Readonly<Record<string, unknown>>;
  const [unknown] = Object.keys(others);
  if (unknown !== undefined) throw bad(`${where}.${unknown}`, "known are match, policy, at and services");
  if (
    typeof match !== "string" ||
    !(match === "*" || canonicalHost(match.replace(/^\*\./, ""))?.text === match.replace(/^\*\./, ""))
  )
    throw bad(`${where}.match`, "expected a host in lower case, *.example.org, or *");
  if (!isPolicy(policy)) throw bad(`${where}.policy`, `expected one of ${POLICIES.join(", ")}`);
  if (typeof services !== "object" || services === null)
    throw bad(`${where}.services`, "expected ports with a service each");
  const ports = new Map(
    Object.entries(services).map(([port, service]) => {
      if (!/^[0-9]{1,5}$/.test(port) || typeof service !== "string")
        throw bad(`${where}.services`, "expected { 80: web }");
      return [Number(port), service] as const;
    }),
  );
  if (at !== undefined && typeof at !== "string") throw bad(`${where}.at`, "expected the address of a session server");
  return { match, policy, at: at === undefined ? undefined : parseAddress(at), services: ports };
}

/** Whether that is a policy. */
export function isPolicy(value: unknown): value is Policy {
  return typeof value === "string" && POLICIES.includes(value);
}

function bad(where: string, why: string): FivedError {
  return new FivedError("CONFIGURATION_BAD", `Cannot use the configuration: ${where}: ${why}`);
}
