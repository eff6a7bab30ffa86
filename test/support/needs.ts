/**
 * What a test needs of the machine it runs on: programs of Debian packages, and private namespaces. Where something is missing the test is
 * skipped with the reason; with FIVED_TEST_STRICT=1 it runs, and fails of what it misses.
 * @module
 */
import { spawnSync } from "node:child_process";
import fs from "node:fs";
import path from "node:path";

/** What can be asked for: a program, `namespaces` for mount and network namespaces of one's own, `pam-wrapper` for its modules, or `root`. */
export type Need = keyof typeof PACKAGES | "namespaces" | "pam-wrapper" | "root";

/** Where each program comes from, for whoever reads why a test was skipped. */
const PACKAGES = {
  curl: "curl",
  gcc: "gcc",
  git: "git",
  haproxy: "haproxy",
  "inetutils-inetd": "inetutils-inetd",
  ip: "iproute2",
  nc: "netcat-openbsd",
  nginx: "nginx-light",
  nsenter: "util-linux",
  openssl: "openssl",
  postgres: "postgresql",
  psql: "postgresql-client",
  "redis-server": "redis-server",
  "redis-cli": "redis-tools",
  scp: "openssh-client",
  ssh: "openssh-client",
  "ssh-add": "openssh-client",
  "ssh-agent": "openssh-client",
  "ssh-keygen": "openssh-client",
  spin: "spin",
  sshd: "openssh-server",
  unshare: "util-linux",
  useradd: "passwd",
} as const;

/** For the option `skip` of a test: why it cannot run here, or false. */
export function needs(...all: readonly Need[]): string | false {
  if (process.env["FIVED_TEST_STRICT"] === "1") return false;
  const missing = all.flatMap((need) => lack(need) ?? []);
  return missing.length > 0 && `needs ${missing.join(" and ")}`;
}

/** Full path of a program; daemons are found wherever Debian puts them, whatever PATH says. */
export function programPath(name: string): string | undefined {
  if (path.isAbsolute(name)) return name;
  const postgres = fs
    .globSync("/usr/lib/postgresql/*/bin")
    .sort((one, other) => other.localeCompare(one, "en", { numeric: true }));
  const folders = [...(process.env["PATH"] ?? "").split(path.delimiter), "/usr/sbin", "/sbin", ...postgres];
  return folders.map((folder) => path.join(folder, name)).find((file) => fs.existsSync(file));
}

/** Full path of a module for tests of PAM, such as `pam_matrix.so`. */
export function pamWrapperModule(name: string): string | undefined {
  return fs.globSync(path.join("/usr/lib/*/pam_wrapper", name))[0];
}

/** The arguments that make `unshare` work for whoever we are: only root may do without a user namespace. */
export function unshare(...kinds: readonly ("--mount" | "--net")[]): readonly string[] {
  return ["unshare", ...(isRoot() ? [] : ["--map-root-user"]), ...kinds];
}

/** True for root, who may do more, and whom some daemons want to be something less. */
export function isRoot(): boolean {
  return process.getuid?.() === 0;
}

function lack(need: Need): string | undefined {
  if (need === "namespaces") {
    const [command = "", ...args] = [...unshare("--mount", "--net"), "true"];
    return spawnSync(command, args).status === 0 ? undefined : "the right to make mount and network namespaces";
  }
  if (need === "pam-wrapper")
    return pamWrapperModule("pam_matrix.so") === undefined
      ? "modules of PAM (Debian package libpam-wrapper)"
      : undefined;
  if (need === "root") return isRoot() ? undefined : "root";
  return programPath(need) === undefined ? `${need} (Debian package ${PACKAGES[need]})` : undefined;
}
