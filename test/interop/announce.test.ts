/**
 * Back ends that learn who is calling: nginx, haproxy, PostgreSQL behind haproxy, and a program with our middleware, each behind a real
 * server at which somebody has signed in with an SSH key.
 * @module
 */
import assert from "node:assert/strict";
import { once } from "node:events";
import fs from "node:fs/promises";
import { createServer, type IncomingMessage, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { buffer } from "node:stream/consumers";
import test, { type TestContext } from "node:test";
import { type FivedCaller, fivedIdentity, type ProxyHeader, parseProxyV2, verifier } from "../../src/backend/index.ts";
import { openUsers } from "../../src/server/auth/users.ts";
import { silentLog } from "../../src/server/log.ts";
import { eventually } from "../support/deadline.ts";
import { type Configuration, client, type Server, serve } from "../support/fived.ts";
import { freePort, Lab, reachable } from "../support/lab.ts";
import { needs } from "../support/needs.ts";
import { startPostgres } from "../support/postgres.ts";
import { makeKey } from "../support/ssh-keys.ts";
import { backEnd } from "../support/victim.ts";

const ISSUER = "gate.example.org";

/** A server that knows alice by her key; asks a service of it as her, or as nobody. */
interface Gate {
  readonly lab: Lab;
  readonly server: Server;
  /** The file of the server's public keys. */
  readonly keys: string;
  /** Arguments of a client verb that sign alice in. */
  readonly alice: readonly string[];
  /** What a service answers to these octets. */
  asks(service: string, octets: string, who?: "alice" | "nobody"): Promise<string>;
}

async function gate(lab: Lab, configuration: Configuration): Promise<Gate> {
  const key = await makeKey(lab, "id_alice");
  const state = await lab.makeFolder("server");
  await fs.chmod(state, 0o700);
  using store = await openUsers({ folder: state, log: silentLog });
  await store.add({ name: "alice", roles: ["ops"], keys: [key.line] });
  const server = await serve(lab, {
    roles: { ops: [], staff: ["alice"] },
    announce: { issuer: ISSUER },
    ...configuration,
  });
  const alice = ["-l", "alice", "-i", key.file, "-o", "IdentitiesOnly=yes"];
  return {
    lab,
    server,
    keys: `${state}/jwks.json`,
    alice,
    async asks(service, octets, who = "alice") {
      const flags = who === "alice" ? alice : [];
      const ended = await lab.run([...client("connect", ...flags, server.address, service)], { input: octets });
      assert.equal(ended.status, 0, ended.stderr);
      return ended.stdout.toString();
    },
  };
}

/** The body of an HTTP response. */
function bodyOf(response: string): string {
  return response.slice(response.indexOf("\r\n\r\n") + 4).trim();
}

/** nginx with one server, as its block says; its address. */
async function startNginx(lab: Lab, server: (port: number) => string): Promise<string> {
  const port = await freePort();
  const folder = await lab.makeFolder("nginx");
  const temporary = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"].map(
    (kind) => `${kind}_temp_path ${folder}/${kind};`,
  );
  const file = await lab.write(
    "nginx.conf",
    `daemon off; pid ${folder}/pid; error_log stderr; events {}
    http { access_log off; ${temporary.join(" ")} server { ${server(port)} } }`,
  );
  const nginx = lab.start(["nginx", "-p", folder, "-c", file, "-e", "stderr"]);
  await eventually(() => reachable(port), "nginx to listen", { seen: () => nginx.complained });
  return `tcp://127.0.0.1:${port}`;
}

async function startHaproxy(lab: Lab, sections: string): Promise<void> {
  const file = await lab.write(
    "haproxy.cfg",
    `defaults\n  timeout connect 5s\n  timeout client 60s\n  timeout server 60s\n${sections}\n`,
  );
  const haproxy = lab.start(["haproxy", "-db", "-f", file]);
  for (const [, port] of sections.matchAll(/bind 127\.0\.0\.1:(\d+)/g))
    await eventually(() => reachable(Number(port)), "haproxy to listen", { seen: () => haproxy.complained });
}

test("nginx is told the address by the PROXY protocol", { skip: needs("nginx", "ssh-keygen") }, async (t) => {
  const lab = await Lab.open(t);
  const to = await startNginx(
    lab,
    (port) =>
      `listen 127.0.0.1:${port} proxy_protocol; location / { return 200 "$proxy_protocol_addr|$remote_addr\\n"; }`,
  );
  const at = await gate(lab, { services: { wiki: { to, announce: "proxy-v2" } } });
  assert.equal(bodyOf(await at.asks("wiki", "GET / HTTP/1.0\r\n\r\n")), "127.0.0.1|127.0.0.1");
});

test("the header says address, host, stream, TLS and user, and the assertion in it is one", {
  skip: needs("ssh-keygen"),
}, async (t) => {
  const lab = await Lab.open(t);
  const headers: ProxyHeader[] = [];
  const to = await backEnd(t, (socket) => {
    void buffer(socket).then((octets) => {
      const read = parseProxyV2(octets);
      assert.equal(read.type, "header");
      if (read.type === "header") headers.push(read.header);
      socket.end(octets.subarray(read.type === "header" ? read.bytes : 0));
    });
  });
  const at = await gate(lab, {
    services: { wiki: { to, announce: "proxy-v2" } },
    hosts: { "git.example.org": { services: { wiki: { to, announce: "proxy-v2" } } } },
  });
  assert.equal(await at.asks("wiki", "hello"), "hello", "nothing else comes through");
  assert.equal(await at.asks("wiki", "hello", "nobody"), "hello");
  const [alice, nobody] = headers;
  assert.ok(alice?.type === "proxy" && nobody?.type === "proxy");
  assert.equal(alice.source?.address, "127.0.0.1");
  assert.equal(alice.destination?.port, at.server.port);
  assert.deepEqual([alice.authority, alice.user, alice.ssl?.version], [undefined, "alice", "TLSv1.3"]);
  const verify = verifier({ keys: at.keys, audience: "wiki", issuer: ISSUER });
  const { user, mechanism, roles, session } = await verify(alice.assertion ?? "");
  assert.deepEqual([user, mechanism, [...roles].sort()], ["alice", "pubkey", ["ops", "staff"]]);
  assert.equal(Buffer.from(alice.uniqueId ?? []).toString(), `${session}/1`);
  assert.deepEqual([nobody.user, nobody.assertion], [undefined, undefined]);
});

test("haproxy takes the header, and its checks as well as ours pass", {
  skip: needs("haproxy", "ssh-keygen"),
}, async (t) => {
  const lab = await Lab.open(t);
  const port = await freePort();
  await startHaproxy(
    lab,
    `frontend told
  mode http
  bind 127.0.0.1:${port} accept-proxy
  http-request return status 200 content-type text/plain lf-string "%[src]|%[fc_pp_authority]|%[fc_pp_unique_id]\\n"`,
  );
  const at = await gate(lab, {
    services: { wiki: { to: `tcp://127.0.0.1:${port}`, announce: "proxy-v2", health: { interval: "100ms" } } },
  });
  const [address, authority, id = ""] = bodyOf(await at.asks("wiki", "GET / HTTP/1.0\r\n\r\n")).split("|");
  assert.deepEqual([address, authority], ["127.0.0.1", ""]);
  assert.match(id, /^\S+\/1$/);
});

test("psql works through a session and haproxy", {
  skip: needs("haproxy", "postgres", "psql", "ssh-keygen"),
}, async (t) => {
  const lab = await Lab.open(t);
  const postgres = await startPostgres(lab);
  const port = await freePort();
  await startHaproxy(
    lab,
    `listen db\n  mode tcp\n  bind 127.0.0.1:${port} accept-proxy\n  server pg 127.0.0.1:${postgres.port}`,
  );
  const at = await gate(lab, {
    services: { db: { to: `tcp://127.0.0.1:${port}`, announce: "proxy-v2", allow: ["staff"] } },
  });
  const front = lab.start(client("forward", ...at.alice, `0=${at.server.address}/db`));
  const [, local = ""] = await front.hears(/127\.0\.0\.1:(\d+) -> \S+\/db\n/);
  const psql = ["psql", "-X", "-At", "-h", "127.0.0.1", "-p", local, "-U", "postgres", "-c", "select 6 * 7"];
  const { status, stdout, stderr } = await lab.run(psql);
  assert.equal(status, 0, stderr);
  assert.equal(stdout.toString(), "42\n");
});

/** A program with our middleware; says who is calling, and which fields it saw. */
async function program(t: TestContext, keys: () => string): Promise<string> {
  let middleware: ReturnType<typeof fivedIdentity> | undefined;
  const server = createServer((request: IncomingMessage & { fived?: FivedCaller }, response: ServerResponse) => {
    middleware ??= fivedIdentity({ keys: keys(), audience: "app", issuer: ISSUER, optional: true });
    middleware(request, response, (error) => {
      assert.equal(error, undefined);
      const fields = Object.keys(request.headers).filter((name) => /fived/i.test(name));
      const { user, roles, session } = request.fived ?? {};
      response.end(
        JSON.stringify({ user, roles, session, said: request.headers["fived-user"], fields, url: request.url }),
      );
    });
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  t.after(() => {
    server.close();
    server.closeAllConnections();
  });
  return `tcp://127.0.0.1:${(server.address() as AddressInfo).port}`;
}

test("an HTTP program is told by each request, and by nothing that a client says itself", {
  skip: needs("ssh-keygen"),
}, async (t) => {
  const lab = await Lab.open(t);
  const to = await program(t, () => lab.path("server", "jwks.json"));
  const at = await gate(lab, { services: { app: { to, announce: "http" }, keys: { keys: true } } });
  const forged = "Host: x\r\nFived-User: root\r\nfived_user: root\r\nFived-Assertion: x.y.z\r\n";
  const requests = `GET /one HTTP/1.1\r\n${forged}\r\nGET /two HTTP/1.1\r\n${forged}Connection: close\r\n\r\n`;
  const answers = [...(await at.asks("app", requests)).matchAll(/\{"user".*?\}|\{.*?\}/g)].map(([json]) =>
    JSON.parse(json),
  );
  assert.deepEqual(
    answers.map(({ user, said, url }) => [user, said, url]),
    [
      ["alice", "alice", "/one"],
      ["alice", "alice", "/two"],
    ],
  );
  assert.deepEqual([...answers[0].fields].sort(), ["fived-assertion", "fived-roles", "fived-session", "fived-user"]);
  const stranger = await at.asks("app", `GET / HTTP/1.1\r\n${forged}Connection: close\r\n\r\n`, "nobody");
  const { user, said, fields } = JSON.parse(/\{.*\}/.exec(stranger)?.[0] ?? "");
  assert.deepEqual([user, said, fields], [undefined, undefined, ["fived-session"]]);
  // The keys, for whoever may not read the file.
  const published = await at.asks("keys", "GET /.well-known/jwks.json HTTP/1.0\r\n\r\n", "nobody");
  assert.deepEqual(JSON.parse(bodyOf(published)), JSON.parse(await fs.readFile(at.keys, "utf8")));
});

test("nginx behind announce: http has the fields as variables", { skip: needs("nginx", "ssh-keygen") }, async (t) => {
  const lab = await Lab.open(t);
  const said = "$http_fived_user|$http_fived_roles|$http_x_other";
  const to = await startNginx(
    lab,
    (port) => `underscores_in_headers on; listen 127.0.0.1:${port}; location / { return 200 "${said}\\n"; }`,
  );
  const at = await gate(lab, { services: { app: { to, announce: "http" } } });
  const request = "GET / HTTP/1.1\r\nHost: x\r\nFived_User: root\r\nX-Other: kept\r\nConnection: close\r\n\r\n";
  const [user, roles = "", other] = bodyOf(await at.asks("app", request)).split("|");
  assert.deepEqual([user, roles.split(",").sort(), other], ["alice", ["ops", "staff"], "kept"]);
});
