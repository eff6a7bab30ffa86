/**
 * PostgreSQL through a session: bulk in both directions, and a connection on which the server speaks first.
 * @module
 */
import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import test, { type TestContext } from "node:test";
import { client, forward, serve } from "../support/fived.ts";
import { Lab } from "../support/lab.ts";
import { needs } from "../support/needs.ts";
import { startPostgres } from "../support/postgres.ts";

const skip = needs("postgres", "psql");

test("psql copies a hundred thousand rows in, and out again as they were", { skip }, async (t) => {
  const { psql } = await database(t);
  const rows = Array.from(
    { length: 100_000 },
    (_, i) => `${i}\t${createHash("sha256").update(`${i}`).digest("hex")}\n`,
  ).join("");
  await psql("create table sums (id integer primary key, sum text not null)");
  await psql("copy sums from stdin", rows);
  assert.equal(await psql("select count(*), sum(id::bigint) from sums"), "100000|4999950000\n");
  assert.ok((await psql("copy (select * from sums order by id) to stdout")) === rows, "the rows came back changed");
});

test("a listener in psql is notified of what another client says", { skip }, async (t) => {
  const { lab, command, psql } = await database(t);
  const listener = lab.start(command);
  listener.says("listen news;\n\\echo listening\n");
  await listener.hears(/listening\n/);
  await psql("notify news, 'hello'");
  // psql looks for notifications after each statement.
  listener.says("select 'asked';\n");
  await listener.hears(/Asynchronous notification "news" with payload "hello" received from server process/);
  listener.hangsUp();
  assert.equal(await listener.ended, 0);
});

test("Unix sockets do as well as ports, in front and behind", { skip }, async (t) => {
  const lab = await Lab.open(t);
  const postgres = await startPostgres(lab);
  const server = await serve(lab, { services: { db: { to: `unix:${postgres.socket}` } } });
  const folder = await lab.makeFolder("front");
  const front = lab.start(client("forward", `unix:${folder}/.s.PGSQL.5432=${server.address}/db`));
  await front.hears(/-> \S+\/db\n/);
  const { status, stdout, stderr } = await lab.run([
    "psql",
    "-X",
    "-At",
    "-h",
    folder,
    "-U",
    "postgres",
    "-c",
    "select 6 * 7",
  ]);
  assert.equal(status, 0, stderr);
  assert.equal(stdout.toString(), "42\n");
});

/** PostgreSQL as the service `db`, a forward to it, and psql. */
async function database(t: TestContext) {
  const lab = await Lab.open(t);
  const postgres = await startPostgres(lab);
  const server = await serve(lab, { services: { db: { to: `tcp://127.0.0.1:${postgres.port}` } } });
  const [port] = await forward(lab, server, "db");
  const command = [
    "psql",
    "-X",
    "-At",
    "-q",
    "-v",
    "ON_ERROR_STOP=1",
    "-h",
    "127.0.0.1",
    "-p",
    `${port}`,
    "-U",
    "postgres",
  ];
  return {
    lab,
    command,
    async psql(statement: string, input = ""): Promise<string> {
      const { status, stdout, stderr } = await lab.run([...command, "-c", statement], { input });
      assert.equal(status, 0, stderr);
      return stdout.toString();
    },
  };
}
