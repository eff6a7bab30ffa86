/**
 * What the two ends of the WAN benchmark agree on: who listens where, which files lie where, and what is asked of the client's end. Ports
 * are fixed, as nobody else is in these namespaces.
 * @module
 */
import { join } from "node:path";

/** Octets that are asked for: the paper's third figure is the time to the last of them. */
export const ANSWER_BYTES = 1_000_000;

/** Ports at the server's end; those of `near` at the client's, on 127.0.0.1. */
export const PORTS = {
  origin: 7_000,
  https: 443,
  ssh: 22,
  stunnel: 7_001,
  haproxy: 7_002,
  fived: 1_078,
  near: { ssh: 7_100, stunnel: 7_101, haproxy: 7_102 },
} as const;

/** Who signs in at the fived server, and at which service. */
export const USER = "bench";
/** Services of the fived server, both the origin: one for anyone, one for {@link USER}. */
export const SERVICES = { open: "open", private: "private" } as const;

/** Files of both ends. */
export function filesIn(folder: string) {
  return {
    certificate: join(folder, "server.pem"),
    userKey: join(folder, "user-key"),
    sshKnownHosts: join(folder, "ssh-known-hosts"),
    fivedKnownHosts: join(folder, "fived-known-hosts"),
  } as const;
}

/** Arguments of an ssh that signs in with the key in `folder` and nothing of this machine's own. */
export function sshArguments(folder: string, user: string): readonly string[] {
  const { userKey, sshKnownHosts } = filesIn(folder);
  const options = ["BatchMode=yes", "IdentitiesOnly=yes", "IdentityAgent=none", "ExitOnForwardFailure=yes"];
  return [
    ...["-F", "/dev/null", "-l", user, "-i", userKey, "-o", `UserKnownHostsFile=${sshKnownHosts}`],
    ...options.flatMap((option) => ["-o", option]),
  ];
}

/** Ways to the origin. */
export const WAYS = ["tcp", "https", "stunnel", "haproxy", "ssh", "bare", "bare-waiting", "fived"] as const;
/** One of {@link WAYS}. */
export type WayName = (typeof WAYS)[number];

/** `cold`: with a connection or session of its own. `hot`: right after another answer. `idle`: after two seconds without a word. */
export type Warmth = "cold" | "hot" | "idle";

/** From the request until so many octets were with the program that asked, in milliseconds. */
export interface Times {
  readonly first: number;
  readonly thousandth: number;
  readonly millionth: number;
}

/** What the client's end is asked to do. */
export type Order =
  | { readonly type: "time"; readonly way: WayName; readonly warm: boolean }
  | { readonly type: "echo"; readonly way: WayName; readonly leadSeconds: number; readonly seconds: number };

/** What it says then. */
export type Outcome =
  | { readonly type: "ready" }
  | { readonly type: "timed"; readonly times: Times }
  | { readonly type: "echoed"; readonly echoesMs: readonly number[]; readonly besideBytes: number }
  | { readonly type: "failed"; readonly message: string };
