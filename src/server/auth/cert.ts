/**
 * `cert`: the client's TLS certificate (paper section 3.1.3, PROTOCOL §4.6.3). The handshake has proved that the client holds its key; here
 * it is decided whose it is.
 * @module
 */
import type { X509Certificate } from "node:crypto";
import type { Exchange, Finding, Mechanism } from "./mechanism.ts";

/** Extended key usage of client certificates (RFC 5280 section 4.2.1.12). */
const CLIENT_AUTH = "1.3.6.1.5.5.7.3.2";
/** Names are as those of users everywhere here. */
const NAME = /^[A-Za-z0-9][A-Za-z0-9._@+-]{0,127}$/;

/** AUTH by certificate. Holds nothing: what is believed is the chain that the handshake has checked. */
export class CertificateMechanism implements Mechanism {
  readonly name = "cert";

  async authenticate({ certificate, initial }: Exchange): Promise<Finding | undefined> {
    return initial.length > 1 ? undefined : findingOf(certificate, initial[0]);
  }
}

/** Who a certificate is about; of several, the one of that name, or the likeliest. Undefined for one that does not count. */
export function findingOf(certificate: Exchange["certificate"], name: string | undefined): Finding | undefined {
  if (certificate === undefined || !certificate.valid) return undefined;
  const names = namesOf(certificate.leaf);
  const user = name === undefined ? names[0] : names.find((each) => each === name);
  return user === undefined ? undefined : { user, groups: [], roles: [] };
}

/**
 * Whom a client certificate is about, the likeliest first: the common name of its subject, then its e-mail addresses. None where it is not
 * for clients.
 */
export function namesOf(leaf: X509Certificate): readonly string[] {
  // Node's `keyUsage` is the extended one; a certificate without any is for everything and therefore for nobody here.
  if (!(leaf.keyUsage ?? []).includes(CLIENT_AUTH)) return [];
  const { CN } = subjectOf(leaf);
  const names = [...(CN === undefined ? [] : [CN]), ...emailsOf(leaf)];
  return [...new Set(names)].filter((name) => NAME.test(name));
}

/** The subject's common name; none where there are several, as nobody knows which is meant. */
function subjectOf(leaf: X509Certificate): { readonly CN: string | undefined } {
  const names = leaf.subject.split("\n").filter((line) => line.startsWith("CN="));
  return { CN: names.length === 1 ? names[0]?.slice(3) : undefined };
}

/** rfc822Names of the subjectAltName. Node quotes a name that could be mistaken for several (CVE-2021-44532): such a one is none. */
function emailsOf({ subjectAltName = "" }: X509Certificate): readonly string[] {
  if (subjectAltName.includes('"')) return [];
  return subjectAltName
    .split(", ")
    .filter((name) => name.startsWith("email:"))
    .map((name) => name.slice("email:".length));
}
