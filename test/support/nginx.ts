/**
 * nginx as a back end: two sites told apart by name, files to fetch, and a folder that takes uploads.
 * @module
 */
import { userInfo } from "node:os";
import { eventually } from "./deadline.ts";
import { freePort, type Lab, reachable } from "./lab.ts";
import { isRoot } from "./needs.ts";

/** A running nginx. */
export interface Nginx {
  readonly port: number;
  /** Folder of the files that it serves under `/`; uploads to `/upload/` arrive there too. */
  readonly root: string;
}

/** Starts nginx; `GET /` says which site answered. */
export async function startNginx(lab: Lab): Promise<Nginx> {
  const port = await freePort();
  const root = await lab.makeFolder("www");
  const temporary = await lab.makeFolder("nginx");
  const configuration = await lab.write(
    "nginx.conf",
    `daemon off;
    ${isRoot() ? `user ${userInfo().username};` : ""}
    worker_processes 1;
    pid ${temporary}/pid;
    error_log stderr;
    events { worker_connections 512; }
    http {
      access_log off;
      ${TEMPORARY.map((kind) => `${kind}_temp_path ${temporary}/${kind};`).join("\n")}
      server {
        listen 127.0.0.1:${port} default_server;
        server_name one.test;
        root ${root};
        client_max_body_size 0;
        location = / { return 200 "site one\\n"; }
        location /upload/ { dav_methods PUT; create_full_put_path on; }
      }
      server {
        listen 127.0.0.1:${port};
        server_name two.test;
        location = / { return 200 "site two\\n"; }
      }
    }`,
  );
  const nginx = lab.start(["nginx", "-p", temporary, "-c", configuration, "-e", "stderr"]);
  await eventually(() => reachable(port), `nginx to listen on ${port}`, { seen: () => `\n${nginx.complained}` });
  return { port, root };
}

/** nginx wants a folder for each, used or not. */
const TEMPORARY = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"];
