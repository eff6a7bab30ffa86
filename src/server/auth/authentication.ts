/**
 * The ways in that a server offers, as its configuration has them (PROTOCOL §4.6): which mechanisms there are, whether a second factor is
 * asked for, and who is still known.
 * @module
 */
import type { Configuration } from "../config.ts";
import type { Log } from "../log.ts";
import { CertificateMechanism } from "./cert.ts";
import type { Exchange, Finding, Identity, Mechanism, MechanismName } from "./mechanism.ts";

/** What AUTH goes by. */
export interface Authentication extends Disposable {
  /** AUTH acts outside TLS too: the administrator said so. */
  readonly plaintext: boolean;
  /** The mechanism of that name, if it is offered. */
  mechanism(name: string): Mechanism | undefined;
  /** Asks for a second factor where there has to be one, or the person has one. */
  secondFactor(finding: Finding, exchange: Exchange): Promise<"none" | "given" | "missing">;
  /** Who shows that certificate, where that alone is enough; undefined otherwise. */
  automatic(certificate: Exchange["certificate"]): Identity | undefined;
  /** Who an identity is now: with the groups and roles of today; undefined when nobody is known by it any more. */
  current(identity: Identity): Identity | undefined;
  /** Called after people were added, changed or removed. */
  onChange(changed: () => void): void;
  /** A mechanism threw instead of finding anything. */
  broken(mechanism: MechanismName, error: unknown): void;
}

/** Makes what the configuration describes. */
export async function buildAuthentication(
  { auth }: Configuration,
  { log }: { readonly log: Log },
): Promise<Authentication> {
  const mechanisms = new Map<string, Mechanism>();
  if (auth.mechanisms.includes("cert")) mechanisms.set("cert", new CertificateMechanism());
  return {
    plaintext: auth.plaintext,
    mechanism: (name) => mechanisms.get(name),
    secondFactor: async () => "none",
    automatic: () => undefined,
    current: (identity) => identity,
    onChange: () => {},
    broken: (mechanism, error) => log.error({ mechanism, error }, "a mechanism of AUTH failed"),
    [Symbol.dispose]: () => {},
  };
}
