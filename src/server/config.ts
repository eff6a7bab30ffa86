/**
 * The configuration: read from a YAML file or from the command line, checked against the one schema (schema.ts), every mistake told at once
 * with file, line and column. What a mistake is, and what is assumed where nothing is said, is the schema's business; opening what a
 * configuration names is registry.ts's.
 * @module
 */
import { readFile, stat } from "node:fs/promises";
import { homedir } from "node:os";
import { dirname, join, resolve } from "node:path";
import {
  type Document,
  isAlias,
  isMap,
  isNode,
  isScalar,
  isSeq,
  LineCounter,
  type Pair,
  parseDocument,
  type YAMLMap,
} from "yaml";
import type { z } from "zod";
import { canonicalName, FivedError } from "../io/index.ts";
import { checkPolicies } from "./access/policies.ts";
import { pamProblem } from "./auth/pam-process.ts";
import { loadCertificate } from "./certificate.ts";
import { type Endpoint, parseFarServer } from "./endpoint.ts";
import { escapeControls } from "./log.ts";
import {
  ANYONE,
  type AnnounceSettings,
  AT_KEY,
  type AuditSettings,
  type AuthSettings,
  type BackEndSettings,
  configurationSchema,
  EVERYONE_SIGNED_IN,
  type HopSettings,
  type Limits,
  type SessionSettings,
  type Settings,
  type TrustSettings,
} from "./schema.ts";

/** Something wrong (error) or doubtful (warning) in a configuration. */
export interface Problem {
  readonly severity: "error" | "warning";
  /** The file; undefined for the command line. */
  readonly file: string | undefined;
  /** Counted from 1; undefined where there is no such place. */
  readonly line: number | undefined;
  readonly column: number | undefined;
  /** The keys on the way to the value, such as `services.wiki.to`; empty for the whole file. */
  readonly path: string;
  /** The path, the value if there is one, and what was expected. */
  readonly message: string;
}

/** A service as configured, before anything is started for it. */
export interface ServiceSettings {
  /** In the spelling of the configuration. */
  readonly name: string;
  readonly backEnd: BackEndSettings;
  /** Users, roles, `anyone`, `everyone-signed-in`; empty for nobody. */
  readonly allow: readonly string[];
  /** Where it is written, for messages about it: `fived.yaml:12:3 services.quote`. */
  readonly at: string;
}

/** A virtual host as configured. */
export interface HostSettings {
  /** Canonical name. */
  readonly name: string;
  readonly services: readonly ServiceSettings[];
  /** Its own certificate; undefined for the server's. */
  readonly tls: TlsSettings | undefined;
}

/** Absolute paths of PEM files. */
export interface TlsSettings {
  readonly certificate: string;
  readonly key: string;
  readonly clientCa?: string | undefined;
}

/** Where the server listens. */
export interface ListenSettings {
  readonly endpoint: Endpoint;
  /** Serve plaintext also where others could listen. */
  readonly plaintext: boolean;
}

/** Everything a server is told before it starts; complete and free of contradictions. */
export interface Configuration {
  /** The file it came from; undefined for the command line. */
  readonly file: string | undefined;
  /** Folder of what the server has to remember. */
  readonly state: string;
  readonly listen: readonly ListenSettings[];
  /** undefined: a self-signed certificate in the state folder. */
  readonly tls: TlsSettings | undefined;
  /** Services of the default host, as LIST shows them. */
  readonly services: readonly ServiceSettings[];
  readonly hosts: readonly HostSettings[];
  /** Role names and their members. */
  readonly roles: ReadonlyMap<string, readonly string[]>;
  readonly auth: AuthSettings;
  /** Absolute path of a file of Cedar policies. */
  readonly policies: string | undefined;
  readonly audit: AuditSettings | undefined;
  readonly announce: AnnounceSettings;
  /** Other session servers, as `parseFarServer` writes them, and who we are there. */
  readonly hops: ReadonlyMap<string, HopSettings>;
  readonly trusts: readonly TrustSettings[];
  readonly sessions: SessionSettings;
  readonly limits: Limits;
  /** What is allowed and yet hardly meant. */
  readonly warnings: readonly Problem[];
}

/** A configuration cannot be used; `problems` says why, in the order of the file. */
export class ConfigurationError extends FivedError {
  readonly problems: readonly Problem[];

  constructor(source: string, problems: readonly Problem[], options?: ErrorOptions) {
    const lines = problems.map((problem) => `\n  ${problemText(problem)}`);
    super("CONFIGURATION_BAD", `Cannot use ${source}:${lines.join("")}`, options);
    this.problems = problems;
  }
}

/** A problem as one line: `fived.yaml:7:12 services.wiki.to: "tcp://", expected …`. */
export function problemText({ severity, file, line, column, message }: Problem): string {
  const place = [file, line, column].filter((part) => part !== undefined).join(":");
  return `${place === "" ? "" : `${place} `}${severity === "warning" ? "warning: " : ""}${message}`;
}

/** A configuration of 100,000 services is 10 MB; anything larger is another file. */
const FILE_BYTES_MAX = 64 * 1024 * 1024;
/** Nodes that aliases may add to a file: what is written once and meant often is small, a YAML bomb is not. */
const ALIASED_NODES_MAX = 10_000;
/** The schema is six levels deep. */
const DEPTH_MAX = 32;
/** Mistakes of form that are told: those behind the first few follow from them. */
const FORM_PROBLEMS_MAX = 5;
/** Characters of a wrong value that are shown. */
const SHOWN_MAX = 60;

/** Reads and checks a file; throws {@link ConfigurationError} with every problem in it. `state` is where the server keeps its own files. */
export async function loadConfiguration(
  file: string,
  { state = defaultStateFolder() }: { readonly state?: string } = {},
): Promise<Configuration> {
  const { source, settings, problems } = await checkFile(file);
  if (settings === undefined || problems.length > 0)
    throw new ConfigurationError(`the configuration ${file}`, problems);
  return compile(settings, source, state);
}

/** Everything wrong or doubtful in a file, in its order; starts nothing and throws nothing for what is in it. */
export async function checkConfiguration(file: string): Promise<readonly Problem[]> {
  const { source, settings, problems } = await checkFile(file);
  return settings === undefined ? problems : inOrder([...problems, ...warningsOf(settings, source)]);
}

/** Targets of the command line, `NAME=TARGET`. */
export interface TargetOptions {
  readonly targets: readonly string[];
  readonly listen?: readonly string[];
  /** Who may use the services; anyone by default, as nothing is published beyond loopback unless `listen` says so. */
  readonly allow?: readonly string[] | ((name: string) => readonly string[]);
  readonly state?: string;
  /** Where relative paths start; the working folder by default. */
  readonly folder?: string;
}

/**
 * The configuration that a command line describes: `web=3000`, `db=host:5432`, `s=unix:/path`, `q=./quote.ts`, `date=exec:date -u` (split on
 * blanks, no shell). Throws {@link ConfigurationError}.
 */
export function configurationFromTargets(options: TargetOptions): Configuration {
  const { targets, listen = [], allow = [ANYONE], folder = process.cwd() } = options;
  const services = new Map<string, unknown>();
  const problems: Problem[] = [];
  for (const target of targets) {
    const [name, value] = splitTarget(target);
    if (value === undefined) problems.push(said(target, "expected NAME=TARGET, such as web=3000"));
    else if (services.has(name)) problems.push(said(target, `the name "${name}" stands here twice`));
    else services.set(name, new Map([...targetKeys(value), ["allow", allowOf(allow, name)]]));
  }
  const root = new Map<string, unknown>([["services", services]]);
  if (listen.length > 0) root.set("listen", listen);
  const source = { file: undefined, root, problems, place: () => NOWHERE };
  const checked = check(source, folder);
  if (checked.settings === undefined || checked.problems.length > 0) {
    throw new ConfigurationError("the command line", checked.problems);
  }
  return compile(checked.settings, source, options.state ?? defaultStateFolder());
}

/** Where a server keeps its own files when nobody says: `/var/lib/fived` for root, `$XDG_STATE_HOME/fived` for others. */
export function defaultStateFolder(): string {
  if (process.geteuid?.() === 0) return "/var/lib/fived";
  const { XDG_STATE_HOME } = process.env;
  // The XDG Base Directory Specification says to ignore a relative path.
  return join(XDG_STATE_HOME?.startsWith("/") ? XDG_STATE_HOME : join(homedir(), ".local", "state"), "fived");
}

function allowOf(allow: NonNullable<TargetOptions["allow"]>, name: string): readonly string[] {
  return typeof allow === "function" ? allow(name) : allow;
}

type Path = readonly PropertyKey[];

interface Place {
  readonly line: number | undefined;
  readonly column: number | undefined;
}

const NOWHERE: Place = { line: undefined, column: undefined };

/** What was written, before anything of it is believed. */
interface Source {
  readonly file: string | undefined;
  readonly root: unknown;
  /** What was wrong already with the form. */
  readonly problems: readonly Problem[];
  /** Where a value stands, or its key. */
  place(path: Path, key: boolean): Place;
}

interface Checked {
  /** undefined when the file is too wrong to say what it means. */
  readonly settings: Settings | undefined;
  readonly problems: readonly Problem[];
}

async function checkFile(file: string): Promise<Checked & { readonly source: Source }> {
  const source = await readSource(file);
  const folder = dirname(resolve(file));
  const { settings, problems } = check(source, folder);
  return {
    source,
    settings,
    problems: inOrder([
      ...problems,
      ...(await certificateProblems(source, folder, problems)),
      ...(await pamProblems(settings, source)),
      ...(await policyProblems(settings)),
    ]),
  };
}

async function readSource(file: string): Promise<Source> {
  let content: string;
  try {
    const { size } = await stat(file);
    if (size > FILE_BYTES_MAX) throw new Error(`it is ${size} bytes long, the limit is ${FILE_BYTES_MAX}`);
    content = await readFile(file, "utf8");
  } catch (error) {
    return unreadable(file, `cannot be read: ${error instanceof Error ? error.message : String(error)}`);
  }
  return parseSource(file, content);
}

function unreadable(file: string, message: string): Source {
  const problem: Problem = { severity: "error", file, line: 1, column: 1, path: "", message };
  return { file, root: undefined, problems: [problem], place: () => NOWHERE };
}

function parseSource(file: string, content: string): Source {
  const lines = new LineCounter();
  // Keys are compared below: the parser's own comparison takes quadratic time, and holds 22 and 0x16 for the same.
  const document = parseDocument(content, { lineCounter: lines, prettyErrors: false, uniqueKeys: false });
  const placed = (offset: number): Place => {
    const { line, col } = lines.linePos(offset);
    return { line, column: col };
  };
  const found: { readonly offset: number; readonly message: string }[] = [...document.errors, ...document.warnings]
    .slice(0, FORM_PROBLEMS_MAX)
    .map(({ pos, message }) => ({ offset: pos[0], message: `is not YAML: ${firstLower(message)}` }));
  const root = found.length === 0 ? toData(document, (offset, message) => found.push({ offset, message })) : undefined;
  return {
    file,
    root,
    problems: found.map(({ offset, message }) => ({ severity: "error", file, ...placed(offset), path: "", message })),
    place: (path, key) => placed(findOffset(document, path, key)),
  };
}

/**
 * The document as Maps, arrays and scalars: mappings are Maps so that no key is special and all keep their order. Undefined when it
 * cannot be held; a key that stands there twice is told and the last one taken.
 */
function toData(document: Document, tell: (offset: number, message: string) => void): unknown {
  let aliased = 0;
  let tooMuch = false;
  const convert = (node: unknown, depth: number, alias: number | undefined): unknown => {
    if (tooMuch) return undefined;
    if (alias !== undefined) aliased++;
    if (aliased > ALIASED_NODES_MAX || depth > DEPTH_MAX) {
      tooMuch = true;
      const what = aliased > ALIASED_NODES_MAX ? "the aliases in it grow too large" : "it is too deep";
      return tell(alias ?? offsetOf(node), what);
    }
    if (isAlias(node)) return convert(node.resolve(document), depth + 1, alias ?? offsetOf(node));
    if (isSeq(node)) return node.items.map((item) => convert(item, depth + 1, alias));
    if (!isMap(node)) return isScalar(node) ? node.value : node;
    const entries = new Map<string, unknown>();
    for (const { key, value } of node.items) {
      const name = keyText(key);
      if (entries.has(name) && alias === undefined)
        tell(offsetOf(key), `the key ${show(name, false)} stands here twice`);
      entries.set(name, convert(value, depth + 1, alias));
    }
    return entries;
  };
  const data = convert(document.contents, 0, undefined);
  return tooMuch ? undefined : (data ?? new Map()); // an empty file is an empty configuration
}

/** A key as it is written: `22`, `0x16` and `true` are names like any other. */
function keyText(key: unknown): string {
  if (!isScalar(key)) return String(key);
  return typeof key.value === "string" ? key.value : (key.source ?? String(key.value));
}

/** Where the node begins that a path leads to, or its key; else the last one on the way that is there. */
function findOffset(document: Document, path: Path, key: boolean): number {
  let node: unknown = document.contents;
  let offset = offsetOf(node);
  for (const [depth, part] of path.entries()) {
    if (isAlias(node)) node = node.resolve(document);
    if (isMap(node)) {
      const pair = pairsOf(node).get(part);
      if (pair === undefined) return offset;
      node = pair.value;
      offset = offsetOf((key && depth === path.length - 1) || isEmpty(node) ? pair.key : node);
    } else if (isSeq(node) && typeof part === "number") {
      node = node.items[part];
      offset = offsetOf(node);
    } else return offset;
  }
  return offset;
}

/** The pairs of a mapping by their keys; kept, as every service of thousands asks for its own. */
function pairsOf(node: YAMLMap): ReadonlyMap<PropertyKey, Pair> {
  const kept = PAIRS.get(node);
  if (kept !== undefined) return kept;
  const pairs = new Map<PropertyKey, Pair>(node.items.map((pair) => [keyText(pair.key), pair]));
  PAIRS.set(node, pairs);
  return pairs;
}

const PAIRS = new WeakMap<YAMLMap, ReadonlyMap<PropertyKey, Pair>>();

/** A key with nothing behind it has a value of no length, somewhere behind it. */
function isEmpty(node: unknown): boolean {
  return node === null || (isScalar(node) && node.value === null && node.source === "");
}

function offsetOf(node: unknown): number {
  return isNode(node) ? (node.range?.[0] ?? 0) : 0;
}

function check(source: Source, folder: string): Checked {
  if (source.root === undefined) return { settings: undefined, problems: source.problems };
  const schema = configurationSchema({ folder, path: process.env["PATH"] ?? DEFAULT_PATH });
  const result = schema.safeParse(source.root);
  const problems = [...source.problems, ...(result.error?.issues.flatMap((issue) => problemsOf(issue, source)) ?? [])];
  return { settings: result.data, problems: inOrder(problems) };
}

/** Where programs are looked for when our own environment does not say. */
const DEFAULT_PATH = "/usr/local/bin:/usr/bin:/bin";

function problemsOf(issue: z.core.$ZodIssue, source: Source): readonly Problem[] {
  const { path, message } = issue;
  if (issue.code === "unrecognized_keys") {
    const messages = message.split("\n"); // the schema words them one a line
    return issue.keys.map((key, index) => atKey([...path, key], messages[index] ?? message, source));
  }
  if (issue.code === "custom" && issue.params?.["at"] === AT_KEY.at) return [atKey(path, message, source)];
  const found = lookUp(source.root, path);
  const shown = show(found.value, issue.code === "invalid_type");
  // A short form stands for a mapping: what is wrong with its `url` is wrong with the text that stands there.
  const known = found.value === undefined ? path : path.slice(0, found.depth);
  return [problem(known, `${shown === undefined ? "" : `${shown}, `}${message}`, source, source.place(path, false))];
}

function atKey(path: Path, message: string, source: Source): Problem {
  return problem(path, message, source, source.place(path, true));
}

function problem(
  path: Path,
  message: string,
  { file }: Source,
  place: Place,
  severity: Problem["severity"] = "error",
): Problem {
  const where = pathText(path);
  return { severity, file, ...place, path: where, message: where === "" ? message : `${where}: ${message}` };
}

/** A complaint about one argument of the command line. */
function said(argument: string, message: string): Problem {
  const text = `${show(argument, false)}, ${message}`;
  return { severity: "error", file: undefined, ...NOWHERE, path: "", message: text };
}

/** The value at a path, as far as the path goes into what was written. */
function lookUp(root: unknown, path: Path): { readonly value: unknown; readonly depth: number } {
  let value = root;
  for (const [depth, part] of path.entries()) {
    if (value instanceof Map) value = value.get(part);
    else if (Array.isArray(value) && typeof part === "number") value = value[part];
    else return { value, depth };
  }
  return { value, depth: path.length };
}

/** A wrong value in a few words; a mapping or a list only where it should have been something else. */
function show(value: unknown, kind: boolean): string | undefined {
  if (value === undefined) return kind ? "missing" : undefined;
  if (value === null) return "nothing";
  if (value instanceof Map) return kind ? "a mapping" : undefined;
  if (Array.isArray(value)) return kind ? "a list" : undefined;
  const text = typeof value === "string" ? JSON.stringify(value) : String(value);
  return escapeControls(text.length > SHOWN_MAX ? `${text.slice(0, SHOWN_MAX)}…` : text);
}

/** `services.wiki.to`, `listen[0]`, `hosts."git.example.org"`. */
function pathText(path: Path): string {
  const parts = path.map((part) => {
    if (typeof part === "number") return `[${part}]`;
    const name = String(part);
    return `.${/^[\w+-]+$/.test(name) ? name : (show(name, false) ?? "")}`;
  });
  return parts.join("").replace(/^\./, "");
}

function inOrder(problems: readonly Problem[]): readonly Problem[] {
  return problems.toSorted((a, b) => (a.line ?? 0) - (b.line ?? 0) || (a.column ?? 0) - (b.column ?? 0));
}

/** Opens the certificates of a file in which nothing else is wrong with them: a key that does not fit is better known before the start. */
async function certificateProblems(
  source: Source,
  folder: string,
  known: readonly Problem[],
): Promise<readonly Problem[]> {
  const hosts = lookUp(source.root, ["hosts"]).value;
  const names = hosts instanceof Map ? [...hosts.keys()] : [];
  const found: Problem[] = [];
  for (const path of [["tls"], ...names.map((name) => ["hosts", name, "tls"])]) {
    const [certificate, key, clientCa] = ["certificate", "key", "clientCa"].map((name) => {
      const value = lookUp(source.root, [...path, name]).value;
      return typeof value === "string" ? resolve(folder, value) : undefined;
    });
    if (certificate === undefined || key === undefined) continue;
    if (known.some((problem) => problem.path.startsWith(pathText(path)))) continue;
    try {
      await loadCertificate({ certificate, key, clientCa });
    } catch (error) {
      if (!(error instanceof FivedError)) throw error;
      found.push(atKey(path, error.message, source));
    }
  }
  return found;
}

/** Asks whether PAM is at hand; where a helper asks it, that is the helper's to know. */
async function pamProblems(settings: Settings | undefined, source: Source): Promise<readonly Problem[]> {
  const { pam, helper } = settings?.auth.up ?? {};
  if (pam === undefined || helper !== undefined) return [];
  const why = await pamProblem({ service: pam });
  const path = ["auth", "up", "pam"];
  return why === undefined
    ? []
    : [problem(path, `"${pam}", PAM cannot be asked: ${why}`, source, source.place(path, false))];
}

/** What is wrong in the file of policies, at its own places. */
async function policyProblems(settings: Settings | undefined): Promise<readonly Problem[]> {
  const file = settings?.policies;
  if (file === undefined) return [];
  const problems = await checkPolicies(file);
  return problems.map((each) => ({ severity: "error", file, path: "policies", ...each }));
}

function compile(settings: Settings, source: Source, state: string): Configuration {
  const services = serviceSettings(settings.services, ["services"], source);
  const hosts = [...settings.hosts].map(([name, host]) => ({
    name: canonicalName(name) ?? name,
    services: serviceSettings(host.services, ["hosts", name, "services"], source),
    tls: host.tls,
  }));
  return {
    file: source.file,
    state: resolve(state),
    listen: settings.listen.map(({ url, plaintext }) => ({ endpoint: url, plaintext })),
    tls: settings.tls,
    services,
    hosts,
    roles: settings.roles,
    auth: settings.auth,
    policies: settings.policies,
    audit: settings.audit,
    announce: settings.announce,
    hops: new Map([...settings.hops].map(([name, hop]) => [parseFarServer(name) ?? name, hop])),
    trusts: settings.trusts,
    sessions: settings.sessions,
    limits: settings.limits,
    warnings: inOrder(warningsOf(settings, source)),
  };
}

function serviceSettings(services: Settings["services"], path: Path, source: Source): readonly ServiceSettings[] {
  return [...services].map(([name, { backEnd, allow = [] }]) => {
    const { line, column } = source.place([...path, name], true);
    const place = [source.file, line, column].filter((part) => part !== undefined).join(":");
    return { name, backEnd, allow, at: [place, pathText([...path, name])].filter((part) => part !== "").join(" ") };
  });
}

function warningsOf(settings: Settings, source: Source): Problem[] {
  const { roles } = settings;
  // A name with a provider behind it needs no definition of ours; a plain one is a user only if some role says so.
  const members = new Set([...roles.values()].flat());
  const defined = (name: string) =>
    name === ANYONE || name === EVERYONE_SIGNED_IN || roles.has(name) || members.has(name) || /@|^group:/.test(name);
  const warnings: Problem[] = [];
  const warn = (path: Path, message: string, place: Place) =>
    warnings.push(problem(path, message, source, place, "warning"));
  const look = (services: Settings["services"], path: Path) => {
    for (const [name, { allow }] of services) {
      const at = [...path, name];
      if (allow === undefined || allow.length === 0) {
        warn(at, `nobody may use it; say who, as in allow: [${ANYONE}]`, source.place(at, true));
        continue;
      }
      for (const [index, entry] of allow.entries()) {
        if (defined(entry)) continue;
        const where = [...at, "allow", index];
        warn(
          where,
          `${show(entry, false)}, no role of that name is defined: nobody has it, unless a user is called so`,
          source.place(where, false),
        );
      }
    }
  };
  look(settings.services, ["services"]);
  for (const [name, { services }] of settings.hosts) look(services, ["hosts", name, "services"]);
  return warnings;
}

/** `web=3000` as name and target; without a target when there is none. */
function splitTarget(argument: string): readonly [string, string | undefined] {
  const at = argument.indexOf("=");
  return at < 1 || at === argument.length - 1 ? [argument, undefined] : [argument.slice(0, at), argument.slice(at + 1)];
}

/** The keys that a target of the command line stands for. */
function targetKeys(target: string): readonly (readonly [string, unknown])[] {
  if (target.startsWith("exec:")) {
    return [
      [
        "exec",
        target
          .slice("exec:".length)
          .split(" ")
          .filter((word) => word !== ""),
      ],
    ];
  }
  if (/^\.{0,2}\//.test(target) || /\.m?[jt]s$/.test(target)) return [["module", target]];
  return [["to", target]];
}

function firstLower(text: string): string {
  return text.charAt(0).toLowerCase() + text.slice(1);
}
