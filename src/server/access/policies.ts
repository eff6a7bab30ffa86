/**
 * Policies in Cedar (docs/policies.md): what roles cannot say, such as a network, an hour, or how somebody has signed in. Cedar is loaded
 * only where there are policies. Fails closed: a policy that cannot be evaluated denies.
 *
 * Policies see a service by its name and its host alone, so two services that no policy names are the same to them: that is what keeps LIST
 * over ten thousand services at a handful of evaluations. And they are told only what they ask for: most of what an evaluation costs is
 * telling Cedar about somebody, and about the time.
 * @module
 */
import { createHash } from "node:crypto";
import { readFile, stat } from "node:fs/promises";
import type { CedarValueJson, EntityUidJson } from "@cedar-policy/cedar-wasm/nodejs";
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
  readonly #reads: Reads;
  /** Evaluations so far, for tests that count work. */
  evaluations = 0;

  private constructor(cedar: Cedar, id: string, reads: Reads) {
    this.#cedar = cedar;
    this.#id = id;
    this.#reads = reads;
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
    return new Policies(cedar, id, readsOf(cedar, text));
  }

  /** True where a policy names that very service; all others of a host are decided alike. */
  names(service: string): boolean {
    return this.#reads.services.has(service);
  }

  /** False where no policy reads a clock: a decision about somebody then holds for as long as he is who he is. */
  get readsClock(): boolean {
    return CLOCKS.some((attribute) => this.#reads.attributes.has(attribute));
  }

  /** May the service be used? */
  allows({ caller, host, service, granted }: Question): boolean {
    this.evaluations++;
    const principal = { type: "User", id: caller.user ?? "" };
    const resource = { type: "Service", id: this.names(service) ? service : "" };
    const entities = [
      { uid: principal, attrs: {}, parents: parentsOf(caller) },
      { uid: resource, attrs: {}, parents: [{ type: "Host", id: host ?? "" }] },
    ];
    const answer = this.#cedar.statefulIsAuthorized({
      principal,
      action: { type: "Action", id: "use" },
      resource,
      context: contextOf(caller, granted, this.#reads.attributes),
      preparsedPolicySetId: this.#id,
      entities: this.#reads.membership ? entities : [],
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

/** What policies read of a question. */
interface Reads {
  /** Names of services: a policy has no other way to tell one from another (see the schema). */
  readonly services: ReadonlySet<string>;
  /** Attributes of the context. */
  readonly attributes: ReadonlySet<string>;
  /** Who or what is in which group, role or host. */
  readonly membership: boolean;
}

/** Attributes that change by themselves. */
const CLOCKS = ["authAge", "hour", "minute", "weekday", "now"] as const;
const ATTRIBUTES = ["granted", "secure", "signedIn", "mechanism", "secondFactor", "address", ...CLOCKS] as const;

/** Reads the policies' own trees, in Cedar's JSON; what is used in a way that is not known here is all read. */
function readsOf(cedar: Cedar, text: string): Reads {
  const services = new Set<string>();
  const attributes = new Set<string>(["granted"]);
  let membership = false;
  const visit = (node: unknown): void => {
    if (Array.isArray(node)) return node.forEach(visit);
    if (!isObject(node)) return;
    const { type, id, op } = node;
    if (type === "Service" && typeof id === "string") services.add(id);
    if (op === "in" || "in" in node) membership = true;
    if (node["Var"] === "context") for (const attribute of ATTRIBUTES) attributes.add(attribute);
    for (const [operator, operand] of Object.entries(node)) {
      const attribute = operator === "." || operator === "has" ? contextAttribute(operand) : undefined;
      if (attribute === undefined) visit(operand);
      else attributes.add(attribute);
    }
  };
  const parts = cedar.policySetTextToParts(text);
  for (const policy of parts.type === "success" ? parts.policies : []) {
    const json = cedar.policyToJson(policy);
    if (json.type === "success") visit(json.json);
  }
  return { services, attributes, membership };
}

/** `context.hour`, as Cedar writes it. */
function contextAttribute(operand: unknown): string | undefined {
  if (!isObject(operand) || !isObject(operand["left"]) || operand["left"]["Var"] !== "context") return undefined;
  const { attr } = operand;
  return typeof attr === "string" ? attr : undefined;
}

function isObject(value: unknown): value is Readonly<Record<string, unknown>> {
  return typeof value === "object" && value !== null;
}

function parentsOf({ roles, identity }: Caller): EntityUidJson[] {
  const groups = identity?.groups ?? [];
  return [...roles.map((id) => ({ type: "Role", id })), ...groups.map((id) => ({ type: "Group", id }))];
}

/** The attributes that are read; those that are dear are made only then. */
function contextOf({ user, identity, secure, peer }: Caller, granted: boolean, read: ReadonlySet<string>) {
  const now = new Date();
  const { mechanism = "none", secondFactor = false, at = now.getTime() } = identity ?? {};
  const context: Record<string, CedarValueJson> = { granted };
  const tell = (attribute: (typeof ATTRIBUTES)[number], value: () => CedarValueJson | undefined): void => {
    const told = read.has(attribute) ? value() : undefined;
    if (told !== undefined) context[attribute] = told;
  };
  tell("secure", () => secure);
  tell("signedIn", () => user !== undefined);
  tell("mechanism", () => mechanism);
  tell("secondFactor", () => secondFactor);
  tell("authAge", () => Math.max(0, Math.floor((now.getTime() - at) / 1_000)));
  tell("address", () => {
    const address = /^\[?([0-9a-fA-F:.]+?)\]?:\d+$/.exec(peer)?.[1]?.replace(/^::ffff:(?=\d+\.)/i, "");
    return address === undefined ? undefined : { __extn: { fn: "ip", arg: address } };
  });
  tell("hour", () => now.getHours());
  tell("minute", () => now.getMinutes());
  tell("weekday", () => (now.getDay() === 0 ? 7 : now.getDay()));
  tell("now", () => ({ __extn: { fn: "datetime", arg: now.toISOString().replace(/\.\d+Z$/, "Z") } }));
  return context;
}
