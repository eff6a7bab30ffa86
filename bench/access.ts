/**
 * What rights cost, with 10,000 services, 10,000 users and 100 roles: a LIST, and a stream opened, beside the same server where everybody may
 * use everything. Both on one warm session in turns, so that what is compared differs in nothing but the rights.
 * @module
 */
import { once } from "node:events";
import { mkdir, writeFile } from "node:fs/promises";
import { type AddressInfo, createServer } from "node:net";
import { join } from "node:path";
import { connect, type Session } from "../src/client/index.ts";
import { openUsers } from "../src/server/auth/users.ts";
import { silentLog } from "../src/server/log.ts";
import { startServer } from "./fived.ts";
import { cpuSecondsOf, type Started } from "./processes.ts";

const SERVICES = 10_000;
const USERS = 10_000;
const ROLES = 100;
/** Roles of the one who is measured. */
const HIS_ROLES = 10;
const LISTS = 30;
/** Streams opened in a row, one after the other, before another server has its turn. */
const OPENS = 500;
const ROUNDS = 8;
const USER = "user-0";
const PASSWORD = "correct horse battery staple";

const POLICIES = `// Bulk machines are left alone at night, and whoever guards keys gives a second factor.
forbid(principal, action, resource in Host::"night.example") when { context.hour < 6 };
forbid(principal, action, resource == Service::"svc-7") unless { context.secondFactor };
forbid(principal, action, resource) unless { context.secure };
forbid(principal in Role::"role-99", action, resource) when { context.mechanism == "up" };
`;

/** One server under measurement, and what was measured. */
interface Candidate {
  readonly name: string;
  readonly process: Started;
  readonly session: Session;
  /** Names that he may use. */
  readonly names: readonly string[];
  readonly lists: number[];
  readonly openMs: number[];
  readonly cpuMicros: number[];
}

/** Measures, and returns the report as markdown. */
export async function access(folder: string, signal: AbortSignal): Promise<string> {
  await using stack = new AsyncDisposableStack();
  const echo = createServer((socket) => socket.pipe(socket)).listen(0, "127.0.0.1");
  await once(echo, "listening");
  stack.defer(() => void echo.close());
  const to = `tcp://127.0.0.1:${(echo.address() as AddressInfo).port}`;
  const open: readonly string[] = ["anyone"];
  const members = Object.fromEntries(
    Array.from({ length: ROLES }, (_, role) => [
      `role-${role}`,
      Array.from(
        { length: USERS / ROLES },
        (_, at) => `user-${role < HIS_ROLES && at === 0 ? 0 : role * (USERS / ROLES) + at}`,
      ),
    ]),
  );
  const services = (allowOf: (at: number) => readonly string[]) =>
    Object.fromEntries(Array.from({ length: SERVICES }, (_, at) => [`svc-${at}`, { to, allow: allowOf(at) }]));
  const guarded = services((at) => [`role-${at % ROLES}`]);
  const candidates: Candidate[] = [];
  const setUps = [
    { name: "anyone may use everything", services: services(() => open) },
    { name: "100 roles", services: guarded, roles: members },
    { name: "100 roles, and policies", services: guarded, roles: members, policies: true },
  ];
  for (const [at, { name, services, roles = {}, policies = false }] of setUps.entries()) {
    const place = join(folder, `access-${at}`);
    await mkdir(join(place, "state"), { recursive: true, mode: 0o700 });
    await enrol(join(place, "state"));
    const file = join(place, "policies.cedar");
    await writeFile(file, POLICIES);
    const more = { roles, auth: { mechanisms: ["up"] }, ...(policies ? { policies: file } : {}) };
    const { process, port } = await startServer(place, { services, env: {}, signal, more });
    stack.use(process);
    const session = await connect(`${USER}@127.0.0.1:${port}`, {
      knownHosts: join(place, "known_hosts"),
      strictHostKeyChecking: "accept-new",
      ask: async () => true,
      auth: { user: USER, password: async () => PASSWORD },
    });
    stack.defer(() => session[Symbol.asyncDispose]());
    const names = (await session.list()).filter((each) => each.startsWith("svc-"));
    candidates.push({ name, process, session, names, lists: [], openMs: [], cpuMicros: [] });
  }
  for (let round = -1; round < ROUNDS; round++) for (const each of candidates) await measure(each, round < 0);
  return report(candidates);
}

/** The users' file as `fived user` keeps it: one can sign in with a password, the others are there. */
async function enrol(state: string): Promise<void> {
  {
    using store = await openUsers({ folder: state, log: silentLog });
    await store.add({ name: USER, password: Buffer.from(PASSWORD) });
  }
  const others = Array.from({ length: USERS - 1 }, (_, at) => JSON.stringify({ user: `user-${at + 1}` }));
  await writeFile(join(state, "users"), `${others.sort().join("\n")}\n`, { flag: "a" });
}

async function measure(candidate: Candidate, isWarmUp: boolean): Promise<void> {
  const { session, names, process } = candidate;
  for (let list = 0; list < LISTS; list++) {
    const began = performance.now();
    await session.list();
    if (!isWarmUp) candidate.lists.push(performance.now() - began);
  }
  const cpu = cpuSecondsOf(process.tree());
  const began = performance.now();
  for (let opened = 0; opened < OPENS; opened++) await echoed(session, names[opened % names.length] ?? "");
  if (isWarmUp) return;
  candidate.openMs.push((performance.now() - began) / OPENS);
  candidate.cpuMicros.push(((cpuSecondsOf(process.tree()) - cpu) / OPENS) * 1e6);
}

/** Opens a stream, has one octet there and back, and closes it. */
function echoed(session: Session, service: string): Promise<void> {
  return new Promise((resolve, reject) => {
    const stream = session.open(service);
    stream.once("error", reject);
    stream.once("data", () => stream.end());
    stream.once("close", resolve);
    stream.write("x");
  });
}

function report(candidates: readonly Candidate[]): string {
  const [baseline] = candidates;
  const rows = candidates.map(({ name, names, lists, openMs, cpuMicros }) => {
    const more = (median(openMs) - median(baseline?.openMs ?? [])) * 1_000;
    const moreCpu = median(cpuMicros) - median(baseline?.cpuMicros ?? []);
    const cells = [
      ...[name, names.length, median(lists).toFixed(2), (median(openMs) * 1_000).toFixed(0), more.toFixed(0)],
      ...[median(cpuMicros).toFixed(0), moreCpu.toFixed(0)],
    ];
    return `| ${cells.join(" | ")} |`;
  });
  return `| ${SERVICES} services, ${USERS} users | may use | LIST, ms | open and echo, µs | more than anyone | CPU of the server, µs | more than anyone |
|---|---|---|---|---|---|---|
${rows.join("\n")}
`;
}

function median(values: readonly number[]): number {
  const sorted = [...values].sort((one, other) => one - other);
  return sorted[sorted.length >> 1] ?? Number.NaN;
}
