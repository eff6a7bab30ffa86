/**
 * Whether to go on with a server (PROTOCOL §2.2; abuse cases O01, O02). {@link judge} decides, and is a pure function of what was found;
 * {@link trustWith} finds it, asks and pins. A TLS key comes in with proof of possession (TLS 1.3's CertificateVerify): that, and whether
 * the certificate is valid for the name, is `tls.ts`'s business.
 *
 *     known_hosts says     yes               accept-new        ask                          off
 *     revoked, damaged     refuse            refuse            refuse                       refuse
 *     pinned               trust             trust             trust                        trust
 *     changed              refuse            refuse            refuse                       trust, with a warning
 *     unknown, PKI valid   trust, no pin     trust, no pin     trust, no pin                trust, no pin
 *     unknown              refuse            pin               ask; no terminal: refuse     trust, with a warning
 * @module
 */
import { FivedError, fingerprintOf, type HostKey } from "../io/index.ts";
import { assertNever } from "../wire/index.ts";
import type { Address } from "./address.ts";
import { type Lookup, type Pin, type PinStore, pinName } from "./known-hosts.ts";

/** What ssh calls StrictHostKeyChecking: what to do with a server that nobody vouches for. */
export type HostKeyChecking = "yes" | "accept-new" | "ask" | "off";

/** What certification authorities say of the server's certificate; `none` where the address is no DNS name, and they have no say. */
export type Pki =
  | { readonly type: "valid" }
  | { readonly type: "invalid"; readonly reason: string }
  | { readonly type: "none" };

/** A server as it presented itself. */
export interface Presented {
  readonly address: Address;
  readonly key: HostKey;
  readonly pki: Pki;
}

/** Why a server is trusted; `accepted-new` was pinned by this process without anybody's yes, and should be told no password (O01). */
export type Grounds = "pinned" | "pki" | "accepted-new" | "off";

/** A server that may be talked to, and what its user should hear about that. */
export interface Trusted {
  readonly grounds: Grounds;
  /** A person was asked, which takes a person's time. */
  readonly asked: boolean;
  readonly warnings: readonly string[];
}

/** Decides about servers, for as long as a process talks to them. */
export interface Trust {
  /**
   * Resolves for a server to go on with; rejects with `HOST_KEY_UNKNOWN`, `HOST_KEY_CHANGED`, `HOST_KEY_REVOKED`, or as the pin store does.
   * While it waits for an answer to a question it may be aborted; the question stays open for others.
   * @param ask whom to ask this time, where that is not whoever {@link TrustOptions.ask} asks; when he leaves, others who wait ask theirs
   */
  decide(presented: Presented, signal?: AbortSignal, ask?: TrustOptions["ask"]): Promise<Trusted>;
}

/** How to decide, with which pins, and whom to ask. */
export interface TrustOptions {
  /** `ask` if left out. */
  readonly checking?: HostKeyChecking;
  readonly pins: PinStore;
  /** Asks the user yes or no; left out where there is no terminal. */
  readonly ask?: (question: string) => Promise<boolean>;
  /** Fingerprint of the only key to trust, as an invitation names it: any other is refused, this one is pinned without a question. */
  readonly expected?: string;
}

/** A question that somebody is being asked. */
interface Question {
  readonly fingerprint: string;
  readonly answer: Promise<boolean>;
}

/**
 * Trust on the strength of pins, certification authorities and the user, in this order.
 * @example
 * const trust = trustWith({ checking: "accept-new", pins: knownHosts("/home/alice/.config/fived/known_hosts") });
 */
export function trustWith({ checking = "ask", pins, ask, expected }: TrustOptions): Trust {
  /** Questions on the terminal, by name: two connections to one new server are one question. */
  const questions = new Map<string, Question>();
  let answered = 0;
  /** Names pinned without a yes; bounded by the servers this process was told to talk to. */
  const unasked = new Set<string>();

  function put(question: string, name: string, key: HostKey, asking: (question: string) => Promise<boolean>): Question {
    const answer = Promise.resolve(question)
      .then(asking)
      .then(async (yes) => {
        if (yes) await pins.pin(name, key);
        return yes;
      })
      .finally(() => {
        questions.delete(name);
        answered += 1;
      });
    answer.catch(() => {}); // Whoever waits hears of it; it may be nobody any more.
    const open = { fingerprint: fingerprintOf(key), answer };
    questions.set(name, open);
    return open;
  }

  return {
    async decide({ address, key, pki }, signal, askNow = ask) {
      /** What we have asked ourselves. */
      let own: Question | undefined;
      const name = pinName(address);
      const fingerprint = fingerprintOf(key);
      const warnings: string[] = [];
      let asked = false;
      for (;;) {
        const question = questions.get(name);
        asked ||= question !== undefined;
        let declined = false;
        try {
          const yes = question === undefined || (await unlessAborted(question.answer, name, signal));
          declined = !yes && question?.fingerprint === fingerprint;
        } catch (error) {
          const hasLeft = error instanceof FivedError && error.code === "ABORTED" && signal?.aborted !== true;
          if (question === own || !hasLeft) throw error;
        }
        const before = answered;
        const lookup = await pins.find(name, key);
        if (answered !== before) continue; // The file was read before the answer was kept, perhaps.
        const evidence = { name, key, pki, file: pins.file, lookup };
        const verdict = expected === undefined ? judge(checking, evidence) : judgeExpected(expected, evidence);
        switch (verdict.type) {
          case "trust": {
            const grounds = verdict.grounds === "pinned" && unasked.has(name) ? "accepted-new" : verdict.grounds;
            return { grounds, asked, warnings: [...warnings, ...verdict.warnings] };
          }
          case "refuse":
            throw new FivedError(verdict.code, verdict.message);
          case "pin":
            if ((await pins.pin(name, key, signal)).type === "pinned") {
              if (expected === undefined) unasked.add(name);
              warnings.push(verdict.warning);
            }
            break; // What is known now, a key that somebody else pinned meanwhile included, is judged again.
          case "ask":
            if (askNow === undefined || declined) throw new FivedError("HOST_KEY_UNKNOWN", verdict.otherwise);
            if (!questions.has(name)) own = put(verdict.question, name, key, askNow);
            break;
          default:
            return assertNever(verdict);
        }
      }
    },
  };
}

/** A server as it presented itself, and what is known of it. */
export interface Evidence {
  /** As in known_hosts. */
  readonly name: string;
  readonly key: HostKey;
  readonly pki: Pki;
  readonly lookup: Lookup;
  /** The pin store's file, for messages. */
  readonly file: string;
}

/** What follows from the evidence. `otherwise` is the refusal where nobody can be asked, or says no. */
export type Verdict =
  | { readonly type: "trust"; readonly grounds: "pinned" | "pki" | "off"; readonly warnings: readonly string[] }
  | { readonly type: "pin"; readonly warning: string }
  | { readonly type: "ask"; readonly question: string; readonly otherwise: string }
  | {
      readonly type: "refuse";
      readonly code: "HOST_KEY_UNKNOWN" | "HOST_KEY_CHANGED" | "HOST_KEY_REVOKED" | "KNOWN_HOSTS_UNREADABLE";
      readonly message: string;
    };

/** Decides about a server, by the table above. */
export function judge(checking: HostKeyChecking, evidence: Evidence): Verdict {
  const { name, key, lookup, pki, file } = evidence;
  switch (lookup.type) {
    case "revoked":
      return {
        type: "refuse",
        code: "HOST_KEY_REVOKED",
        message: `Cannot trust "${name}": its key ${shown(key)} is revoked by ${place(lookup.pin)}; ask its administrator for a server with another key`,
      };
    case "damaged":
      return {
        type: "refuse",
        code: "KNOWN_HOSTS_UNREADABLE",
        message: `Cannot tell whether "${name}" is known: line ${lookup.line} of ${lookup.file} names it, and its key is damaged; repair that line, or delete it`,
      };
    case "pinned":
      return { type: "trust", grounds: "pinned", warnings: [] };
    case "changed": {
      const before = lookup.pins.map((pin) => `${pin.fingerprint} (${pin.keyType}, ${place(pin)})`).join(" or ");
      const what = `its key has changed, as it would with somebody in between: it is now ${shown(key)}, and was ${before}`;
      if (checking === "off") return accepted(`The server "${name}" may be another: ${what}`);
      return {
        type: "refuse",
        code: "HOST_KEY_CHANGED",
        message: `Cannot trust "${name}": ${what}; only if its administrator confirms the new key, remove the old one: ssh-keygen -R '${name}' -f ${quoted(file)}`,
      };
    }
    case "unknown":
      return pki.type === "valid" ? { type: "trust", grounds: "pki", warnings: [] } : judgeUnknown(checking, evidence);
    default:
      return assertNever(lookup);
  }
}

/** Decides about a server whose key somebody trusted has told: that key and no other, whatever authorities and options say. */
export function judgeExpected(expected: string, evidence: Evidence): Verdict {
  const { name, key, file } = evidence;
  const verdict = judge("yes", { ...evidence, pki: { type: "none" } });
  const known = verdict.type === "refuse" && verdict.code !== "HOST_KEY_UNKNOWN";
  if (known) return verdict;
  if (fingerprintOf(key) !== expected) {
    return {
      type: "refuse",
      code: "HOST_KEY_CHANGED",
      message: `Cannot trust "${name}": its key is ${shown(key)}, and the one to expect is ${expected}, so this may be somebody in between; ask whoever told you of that key`,
    };
  }
  if (verdict.type === "trust") return verdict;
  return {
    type: "pin",
    warning: `The server "${name}" has the key ${shown(key)} that was to be expected; it is kept in ${file}`,
  };
}

function judgeUnknown(checking: HostKeyChecking, { name, key, pki, file }: Evidence): Verdict {
  const certificate = pki.type === "invalid" ? `, and its certificate is not valid (${pki.reason})` : "";
  const what = `its key ${shown(key)} is not known${certificate}`;
  const refusal = `Cannot trust "${name}": ${what}; compare the fingerprint with its administrator's, then connect once with -o StrictHostKeyChecking=accept-new`;
  switch (checking) {
    case "yes":
      return { type: "refuse", code: "HOST_KEY_UNKNOWN", message: refusal };
    case "accept-new":
      return { type: "pin", warning: `The server "${name}" is new: ${what}; from now on it is, in ${file}` };
    case "ask": {
      const question = `The server "${name}" is new: ${what}. Is this its administrator's fingerprint, and shall it be kept?`;
      return { type: "ask", question, otherwise: refusal };
    }
    case "off":
      return accepted(`The server "${name}" may be anybody: ${what}`);
    default:
      return assertNever(checking);
  }
}

function accepted(warning: string): Verdict {
  return { type: "trust", grounds: "off", warnings: [`${warning}; accepted because StrictHostKeyChecking is off`] };
}

function shown(key: HostKey): string {
  return `${fingerprintOf(key)} (${key.type})`;
}

function place(pin: Pin): string {
  return `${pin.file}:${pin.line}`;
}

/** For a shell; a canonical name needs no more than quotes, a file may hold anything. */
function quoted(file: string): string {
  return /^[A-Za-z0-9_/.+-]+$/.test(file) ? file : `'${file.replaceAll("'", "'\\''")}'`;
}

/** Waits for an answer that others may wait for too. */
async function unlessAborted<T>(answer: Promise<T>, name: string, signal: AbortSignal | undefined): Promise<T> {
  const { promise, reject } = Promise.withResolvers<never>();
  const abort = () => reject(new FivedError("ABORTED", `Gave up asking about "${name}"`, { cause: signal?.reason }));
  if (signal?.aborted) abort();
  signal?.addEventListener("abort", abort);
  try {
    return await Promise.race([answer, promise]);
  } finally {
    signal?.removeEventListener("abort", abort);
  }
}
