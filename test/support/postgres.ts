/**
 * PostgreSQL as a back end: a cluster of its own in a temporary folder, on TCP and on a Unix socket. It refuses to run as root; then it runs
 * as the user that Debian made for it.
 * @module
 */
import assert from "node:assert/strict";
import fs from "node:fs/promises";
import { freePort, type Lab } from "./lab.ts";
import { isRoot } from "./needs.ts";

/** A running PostgreSQL; user and database `postgres` exist, and no password is asked. */
export interface Postgres {
  readonly port: number;
  readonly socket: string;
}

/** Starts PostgreSQL. */
export async function startPostgres(lab: Lab): Promise<Postgres> {
  const port = await freePort();
  const folder = await lab.makeFolder("pg");
  const data = `${folder}/data`;
  const user = isRoot() ? await debianUser(lab) : undefined;
  if (user !== undefined) await fs.chown(folder, user.uid, user.gid);
  const as = { cwd: folder, ...(user === undefined ? {} : { user }) };
  const made = await lab.run(
    ["initdb", "--no-sync", "--auth=trust", "--username=postgres", "--encoding=UTF8", "-D", data],
    as,
  );
  assert.equal(made.status, 0, made.stderr);
  const settings = [`port=${port}`, "listen_addresses=127.0.0.1", `unix_socket_directories=${folder}`, "fsync=off"];
  const command = ["postgres", "-D", data, ...settings.flatMap((setting) => ["-c", setting])];
  // SIGTERM would wait for every client to leave.
  const postgres = lab.start(command, { ...as, endSignal: "SIGINT" });
  await postgres.logs(/ready to accept connections/);
  return { port, socket: `${folder}/.s.PGSQL.${port}` };
}

async function debianUser(lab: Lab): Promise<{ readonly uid: number; readonly gid: number }> {
  const { stdout } = await lab.run(["getent", "passwd", "postgres"]);
  const [, , uid, gid] = stdout.toString().split(":");
  assert.ok(uid !== undefined && gid !== undefined, "PostgreSQL does not run as root, and there is no user postgres");
  return { uid: Number(uid), gid: Number(gid) };
}
