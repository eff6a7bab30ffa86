/**
 * The fingerprint of the key that a server with a given configuration shows: for whoever is to know it before he connects. Starts nothing
 * and makes no key: a key made by whoever asks might not be readable for the server.
 * @module
 */
import { access } from "node:fs/promises";
import { join } from "node:path";
import { FivedError } from "../io/index.ts";
import { loadCertificate, ownCertificate } from "./certificate.ts";
import type { Configuration } from "./config.ts";

/**
 * `SHA256:…` of the key shown at that host, canonical; undefined for the default host, as are names that are not configured. Rejects with
 * `STATE_UNUSABLE` where the server has not made its key yet, and with `CONFIGURATION_BAD` for a certificate that cannot be used.
 */
export async function fingerprintAt(
  { tls, hosts, state }: Pick<Configuration, "tls" | "hosts" | "state">,
  host: string | undefined,
): Promise<string> {
  const configured = hosts.find(({ name }) => name === host)?.tls ?? tls;
  if (configured !== undefined) return (await loadCertificate(configured)).fingerprint;
  await access(join(state, "host.key")).catch((cause: unknown) => {
    const why = `no server has made its key in ${state}`;
    throw new FivedError(
      "STATE_UNUSABLE",
      `Cannot say which key the server has: ${why}; start it once, or name its --state`,
      {
        cause,
      },
    );
  });
  // Without names any certificate fits: none is made anew.
  return (await ownCertificate(state, [])).fingerprint;
}
