/**
 * Policies in Cedar (docs/policies.md): what roles cannot say, such as a network, an hour, or how somebody has signed in. Cedar is loaded
 * only where there are policies. Fails closed: a policy that cannot be evaluated denies.
 *
 * Policies see a service by its name and its host alone, so two services that no policy names are the same to them: that is what keeps LIST
 * over ten thousand services at a handful of evaluations.
 * @module
 */

import { createHash } from "node:crypto";
import { readFile, stat } from "node:fs/promises";
import type { EntityUidJson } from "@cedar-policy/cedar-wasm/nodejs";
import { FivedError } from "../../io/index.ts";
import type { Caller } from "../service.ts";

type Cedar = typeof import("@cedar-policy/cedar-wasm/nodejs");

/** Policies are written by hand. */
const FILE_BYTES_MAX = 1024 * 1024;

/** What `allow` says, as a policy: before all others, so that a file of policies narrows or widens it. */
const GRANTED = "permit(principal, action, resource) when { context.granted };\n";

/** What policies may speak of; docs/policies.md explains it. */
export const POLICY_SCHEMA = `entity Group;
entity Role;
entity Host;
entity User in [Group, Role];
entity Service in [Host];
action use appliesTo {
  principal: User,
  resource: Service,
  context: {
    granted: Bool,
    secure: Bool,
    signedIn: Bool,
    mechanism: String,
    secondFactor: Bool,
    authAge: Long,
    address?: ipaddr,
    hour: Long,
    minute: Long,
    weekday: Long,
    now: datetime
  }
};
`;

/** What is asked. */
export interface Question {
  readonly caller: Caller;
  /** Canonical name; undefined for the default host. */
  readonly host: string | undefined;
  /** In the spelling of the configuration; empty for one that is not there. */
  readonly service: string;
  /** `allow` names the caller. */
  readonly granted: boolean;
}

/** Where in a file of policies something is wrong. */
export interface PolicyProblem {
  /** Counted from 1. */
  readonly line: number;
  readonly column: number;
  readonly message: string;
}

/** A file of policies that has been checked. */
export class Policies {
  readonly #cedar: Cedar;
  readonly #id: string;
  /** Services that some policy names. */
  readonly #named: ReadonlySet<string>;
  /** Evaluations so far, for tests that count work. */
  evaluations = 0;

  private constructor(cedar: Cedar, id: string, named: ReadonlySet<string>) {
    this.#cedar = cedar;
    this.#id = id;
    this.#named = named;
  }

  /** Reads and checks a file; rejects with `CONFIGURATION_BAD` that says what is wrong with it, and where. */
  static async load(file: string): Promise<Policies> {
    const text = await readPolicies(file);
    const cedar = await loadCedar();
    const [problem] = problemsIn(cedar, text);
    if (problem !== undefined) {
      const { line, column, message } = problem;
      throw new FivedError("CONFIGURATION_BAD", `Cannot use the policies ${file}:${line}:${column}: ${message}`);
    }
    // Cedar keeps what it has parsed for ever, by name: the same policies again, after a reload, are kept once.
    const id = createHash("sha256").update(text).digest("base64url");
    const parsed = cedar.preparsePolicySet(id, { staticPolicies: GRANTED + text });
    if (parsed.type !== "success")
      throw new FivedError("CONFIGURATION_BAD", `Cannot use the policies ${file}: ${parsed.errors[0]?.message ?? ""}`);
    return new Policies(cedar, id, servicesNamedIn(cedar, text));
  }

  /** True where a policy names that very service; all others of a host are decided alike. */
  names(service: string): boolean {
    return this.#named.has(service);
  }

  /** May the service be used? */
  allows({ caller, host, service, granted }: Question): boolean {
    this.evaluations++;
    const principal = { type: "User", id: caller.user ?? "" };
    const resource = { type: "Service", id: this.#named.has(service) ? service : "" };
    const answer = this.#cedar.statefulIsAuthorized({
      principal,
      action: { type: "Action", id: "use" },
      resource,
      context: contextOf(caller, granted),
      preparsedPolicySetId: this.#id,
      entities: [
        { uid: principal, attrs: {}, parents: parentsOf(caller) },
        { uid: resource, attrs: {}, parents: [{ type: "Host", id: host ?? "" }] },
      ],
    });
    // Cedar passes over a policy that has failed, also one that forbids: here it is as if it had forbidden.
    return (
      answer.type === "success" &&
      answer.response.decision === "allow" &&
      answer.response.diagnostics.errors.length === 0
    );
  }
}

/** What is wrong in a file of policies; empty where nothing is. */
export async function checkPolicies(file: string): Promise<readonly PolicyProblem[]> {
  try {
    const text = await readPolicies(file);
    return problemsIn(await loadCedar(), text);
  } catch (error) {
    if (!(error instanceof FivedError)) throw error;
    return [{ line: 1, column: 1, message: error.message }];
  }
}

async function readPolicies(file: string): Promise<string> {
  try {
    const { size } = await stat(file);
    if (size > FILE_BYTES_MAX) throw new Error(`it is ${size} bytes long, the limit is ${FILE_BYTES_MAX}`);
    return await readFile(file, "utf8");
  } catch (cause) {
    const why = cause instanceof Error ? cause.message : String(cause);
    throw new FivedError("CONFIGURATION_BAD", `Cannot use the policies ${file}: ${why}`, { cause });
  }
}

/** 16 MB of WebAssembly, and 40 ms: only for those who have policies. */
function loadCedar(): Promise<Cedar> {
  return import("@cedar-policy/cedar-wasm/nodejs");
}

function problemsIn(cedar: Cedar, text: string): readonly PolicyProblem[] {
  const parsed = cedar.policySetTextToParts(text);
  if (parsed.type === "failure") return parsed.errors.map((error) => problemOf(text, error));
  if (parsed.policy_templates.length > 0)
    return [{ line: 1, column: 1, message: "templates (?principal, ?resource) cannot be used here" }];
  const validated = cedar.validate({ schema: POLICY_SCHEMA, policies: { staticPolicies: text } });
  if (validated.type === "failure") return validated.errors.map((error) => problemOf(text, error));
  return validated.validationErrors.map(({ error }) => problemOf(text, error));
}

interface CedarError {
  readonly message: string;
  readonly help: string | null;
  readonly sourceLocations?: readonly { readonly start: number; readonly label: string | null }[];
}

function problemOf(text: string, { message, help, sourceLocations = [] }: CedarError): PolicyProblem {
  const [place] = sourceLocations;
  const before = Buffer.from(text).toString("utf8", 0, place?.start ?? 0);
  const line = before.split("\n").length;
  const column = before.length - before.lastIndexOf("\n");
  const hints = [place?.label, help].filter((hint) => typeof hint === "string");
  return { line, column, message: [message.replace(/^for policy `policy\d+`, /, ""), ...hints].join("; ") };
}

/** Ids of the services that stand in the policies: a policy has no other way to tell one service from another (see the schema). */
function servicesNamedIn(cedar: Cedar, text: string): ReadonlySet<string> {
  const named = new Set<string>();
  const parts = cedar.policySetTextToParts(text);
  for (const policy of parts.type === "success" ? parts.policies : []) {
    const json = cedar.policyToJson(policy);
    if (json.type === "success") collect(json.json, named);
  }
  return named;
}

function collect(node: unknown, named: Set<string>): void {
  if (Array.isArray(node)) for (const each of node) collect(each, named);
  else if (typeof node === "object" && node !== null) {
    const { type, id } = node as { readonly type?: unknown; readonly id?: unknown };
    if (type === "Service" && typeof id === "string") named.add(id);
    for (const each of Object.values(node)) collect(each, named);
  }
}

function parentsOf({ roles, identity }: Caller): EntityUidJson[] {
  const groups = identity?.groups ?? [];
  return [...roles.map((id) => ({ type: "Role", id })), ...groups.map((id) => ({ type: "Group", id }))];
}

function contextOf({ user, identity, secure, peer }: Caller, granted: boolean) {
  const now = new Date();
  const address = /^\[?([0-9a-fA-F:.]+?)\]?:\d+$/.exec(peer)?.[1]?.replace(/^::ffff:(?=\d+\.)/i, "");
  return {
    granted,
    secure,
    signedIn: user !== undefined,
    mechanism: identity?.mechanism ?? "none",
    secondFactor: identity?.secondFactor ?? false,
    authAge: identity === undefined ? 0 : Math.max(0, Math.floor((now.getTime() - identity.at) / 1_000)),
    ...(address === undefined ? {} : { address: { __extn: { fn: "ip", arg: address } } }),
    hour: now.getHours(),
    minute: now.getMinutes(),
    weekday: now.getDay() === 0 ? 7 : now.getDay(),
    now: { __extn: { fn: "datetime", arg: now.toISOString().replace(/\.\d+Z$/, "Z") } },
  };
}
