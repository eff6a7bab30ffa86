/**
 * Signing in (PROTOCOL §4.6; abuse cases A12, O01): which connection, which host, which key, when a password, and when to stop.
 *
 * Two ways lead to a session that has an identity. The *careful* one says a line and waits for the answer:
 *
 *     dial ─► HOST ─► AUTH pubkey, a key after the other ─► AUTH up ─► the session
 *
 * The one *ahead* sends HOST, AUTH, MULTIPLEX, SETTINGS, OPEN and the first octets in one flight, which spares a round trip or two. It is
 * taken only with a key which this server has taken from this user before, at the same host and without a question (`logins.ts`): else
 * MULTIPLEX and OPEN would be read as answers to the question, or be granted to nobody. Should such a key be refused after all, the server
 * may have opened streams as nobody's, where services allow anyone. So the session is ended at once, nothing that came on its streams is
 * handed to anybody, and nothing is asked for a second time by itself: every stream fails with AUTH_REFUSED, and the next attempt is a
 * careful one. A stream is thus never served twice, nor as somebody whom its opener did not mean to be without telling.
 *
 * A password goes only to a server whose key is pinned or valid. Where the key was pinned in this very process without anybody's yes, and
 * where a key was used with this server before, a person is asked first; where there is none, that is the end.
 * @module
 */
import { FivedError } from "../../io/index.ts";
import { parseReply } from "../../wire/index.ts";
import { type Address, hostLine, printAddress } from "../address.ts";
import { type ConnectOptions, type Dialled, dial } from "../dial.ts";
import { pinName } from "../known-hosts.ts";
import { type Answer, type Asked, refusal } from "../replies.ts";
import { Conversation } from "./conversation.ts";
import { AuthExchange, type Step } from "./exchange.ts";
import { type Logins, loginsInMemory, type Way } from "./logins.ts";
import { type AuthOptions, CLIENT_MECHANISMS, type ClientMechanism } from "./options.ts";
import type { Signer } from "./signer.ts";

/** Refusals that a connection survives; the next one ends it (PROTOCOL §4.6), and so does a wise client first. */
const REFUSALS_MAX = 3;
/** Keys to try: two connections' worth. A server takes more for guessing, and makes whoever guesses wait. */
const KEYS_MAX = 2 * REFUSALS_MAX;
/** Octets of an answer (PROTOCOL §4.6.1). */
const ANSWER_BYTES_MAX = 1_024;

/** A connection on which somebody is signed in, or will be once what is `ahead` was said and answered. */
export interface SignedIn {
  readonly dialled: Dialled;
  /** Requests in front of MULTIPLEX that are still to be said. */
  readonly ahead: readonly Asked[];
  /** Who the server says it is; rejects with AUTH_REFUSED when what was `ahead` is refused. */
  readonly identity: Promise<string>;
}

/**
 * Dials and signs in. Rejects as {@link dial} does, with AUTH_REFUSED, with AUTH_IMPOSSIBLE where there is nothing to sign in with, and with
 * SESSION_LOST or PROTOCOL_ERROR where the server leaves or says what it must not.
 */
export async function signIn(address: Address, options: ConnectOptions, auth: AuthOptions): Promise<SignedIn> {
  const attempt = new Attempt(address, options, auth);
  try {
    return await attempt.run();
  } catch (error) {
    attempt.leave();
    throw error;
  }
}

/** Who signs in at an address, if anybody does: an address that names a user wants him to. */
export function authOf(address: Address, options: ConnectOptions): AuthOptions | undefined {
  return options.auth ?? (address.user === undefined ? undefined : {});
}

/** A conversation on which a mechanism of one's own can be used: HOST is said and answered. */
export interface Opening extends Disposable {
  readonly conversation: Conversation;
  /** Host in force: undefined where the server was not told one, as nobody vouches for it, and may have taken one from SNI. */
  readonly host: string | undefined;
}

/** Says HOST where that may be told; dials where that was not done already. */
export async function openConversation(
  address: Address,
  options: ConnectOptions,
  dialling: Promise<Dialled> = dial(address, options),
): Promise<Opening> {
  const dialled = await dialling;
  const name = hostLine(address);
  const conversation = new Conversation(address, dialled);
  try {
    const host = name === undefined ? "" : dialled.vouched ? await enter(conversation, name, options) : undefined;
    return { conversation, host, [Symbol.dispose]: () => conversation[Symbol.dispose]() };
  } catch (error) {
    conversation[Symbol.dispose]();
    throw error;
  }
}

/** How one exchange of AUTH ended. `questions` were answered by a person. */
export type Outcome =
  | { readonly type: "identity"; readonly identity: string; readonly questions: number }
  | { readonly type: "refused"; readonly code: number | undefined; readonly text: string };

/** Answers a question of the server; the octets are wiped once they are sent. Rejects where it cannot be answered. */
export type Answering = (question: string, shown: boolean) => Promise<string | Uint8Array>;

/** Says an AUTH line and leads the exchange to its end. */
export async function exchange(
  conversation: Conversation,
  request: string,
  answer: Answering,
  { signal, log }: ConnectOptions,
): Promise<Outcome> {
  conversation.say(request);
  const lines = new AuthExchange(mechanismOf(request));
  let questions = 0;
  for (;;) {
    const step = lines.read(await conversation.hear(signal));
    switch (step.type) {
      case "more":
        break;
      case "tell":
        log?.(`the server says: ${step.text}`);
        break;
      case "ask": {
        const octets = octetsOf(await answer(step.question, step.shown));
        if (!conversation.open) throw conversation.failed("SESSION_LOST", "the server did not wait for the answer");
        conversation.saySecret(octets);
        questions++;
        break;
      }
      case "identity":
        return { type: "identity", identity: step.identity, questions };
      case "refused":
        return step;
      case "error":
        throw conversation.failed("PROTOCOL_ERROR", step.why);
    }
  }
}

/** What proves who somebody is in one line. */
interface Proof {
  readonly mechanism: "pubkey" | "cert";
  /** The words behind the mechanism; undefined where it cannot be used after all. */
  words(binding: Uint8Array): Promise<string | undefined>;
}

/** What this process remembers where nobody said where else. */
const remembered = loginsInMemory();

/** One attempt to sign in: its connection, and what was refused on it. */
class Attempt {
  readonly #address: Address;
  readonly #options: ConnectOptions;
  readonly #auth: AuthOptions;
  readonly #user: string;
  readonly #server: string;
  readonly #logins: Logins;
  #opening: Opening | undefined;
  /** A connection on which nothing was said yet. */
  #dialling: Promise<Dialled> | undefined;
  /** On the connection that is open. */
  #refusals = 0;
  /** A person has agreed to tell this server passwords. */
  #agreed = false;

  constructor(address: Address, options: ConnectOptions, auth: AuthOptions) {
    this.#address = address;
    this.#options = options;
    this.#auth = auth;
    this.#user = userOf(address, auth);
    this.#server = pinName(address);
    this.#logins = auth.logins ?? remembered;
  }

  async run(): Promise<SignedIn> {
    if (this.#options.tls === "off")
      throw this.#impossible("without TLS everybody on the way could be you; leave out -o Tls=off");
    const known = await this.#logins.find(this.#server);
    const way = known.ways.get(this.#user);
    const mechanisms = this.#auth.mechanisms ?? CLIENT_MECHANISMS;
    if (this.#expectsAhead(way, mechanisms)) this.#dialSoon(); // while keys are read
    const signers = mechanisms.includes("pubkey") ? await this.#signers(way?.key) : [];
    const proof = this.#expectedProof(way, mechanisms, signers[0]);
    if (way !== undefined && proof !== undefined) {
      const ahead = await this.#goAhead(proof, way);
      if (ahead !== undefined) return ahead;
    }
    const refused: string[] = [];
    const keysBefore = [...known.ways.values()].some(({ mechanism, key }) => key !== undefined || mechanism === "cert");
    const means: Readonly<Record<ClientMechanism, () => Promise<SignedIn | undefined>>> = {
      cert: () => this.#withCertificate(refused),
      pubkey: () => this.#withKeys(signers, refused),
      up: () => this.#withPassword(keysBefore, refused),
    };
    for (const mechanism of mechanisms) {
      const signedIn = await means[mechanism]();
      if (signedIn !== undefined) return signedIn;
    }
    if (refused.length === 0)
      throw this.#impossible("there is no key, and nobody to ask for a password; name a key, or run it at a terminal");
    throw this.#refused(403, `the server accepts neither ${refused.join(" nor ")}`);
  }

  leave(): void {
    this.#opening?.[Symbol.dispose]();
    this.#opening = undefined;
    this.#dialling?.then(({ socket }) => socket.destroy()).catch(() => {});
    this.#dialling = undefined;
  }

  #dialSoon(): void {
    this.#dialling = dial(this.#address, this.#options);
    this.#dialling.catch(() => {}); // whoever waits for it hears of it
  }

  /** The connection on which nothing was said, if the server still waits for that, or a new one. */
  async #dial(): Promise<Dialled> {
    const dialled = await this.#dialling;
    this.#dialling = undefined;
    const isOpen = dialled !== undefined && !dialled.socket.destroyed && !dialled.socket.readableEnded;
    return isOpen ? dialled : await dial(this.#address, this.#options);
  }

  /** Keys to try, the one that was taken before in front. */
  async #signers(preferred: string | undefined): Promise<readonly Signer[]> {
    const { signers = [] } = this.#auth;
    const all = typeof signers === "function" ? await signers() : signers;
    const known = all.filter(({ fingerprint }) => fingerprint === preferred);
    return [...known.slice(0, 1), ...all.filter(({ fingerprint }) => fingerprint !== preferred)];
  }

  #expectsAhead(way: Way | undefined, mechanisms: readonly ClientMechanism[]): boolean {
    return this.#auth.careful !== true && mechanisms[0] !== "up" && way?.ahead === true;
  }

  /** What proves who it is as it did before, without a question; undefined where that is not to be expected. */
  #expectedProof(
    way: Way | undefined,
    mechanisms: readonly ClientMechanism[],
    signer: Signer | undefined,
  ): Proof | undefined {
    if (way === undefined || !this.#expectsAhead(way, mechanisms)) return undefined;
    const { certificate } = this.#options;
    if (way.mechanism === "cert" && certificate !== undefined && mechanisms.includes("cert"))
      return { mechanism: "cert", words: async () => this.#user };
    if (way.mechanism !== "pubkey" || signer === undefined || way.key !== signer.fingerprint) return undefined;
    return { mechanism: "pubkey", words: (binding) => this.#words(signer, binding, way.host) };
  }

  /** Signs for a flight of all; undefined when that would not be safe after all: the connection is then used with care. */
  async #goAhead(proof: Proof, way: Way): Promise<SignedIn | undefined> {
    const dialled = await this.#dial();
    const { socket, grounds, binding } = dialled;
    try {
      const isKnown = grounds === "pinned" || grounds === "pki";
      const words = isKnown ? await proof.words(needed(binding)) : undefined;
      if (words === undefined) {
        this.#dialling = Promise.resolve(dialled);
        return undefined;
      }
      const { promise, resolve, reject } = Promise.withResolvers<string>();
      promise.catch(() => {}); // whoever wants to know asks; the streams are told anyway
      const name = hostLine(this.#address);
      const lines = new AuthExchange(proof.mechanism);
      const hear = (line: string): Answer | { type: "more" } => {
        const step = lines.read(line);
        if (step.type === "more" || step.type === "tell") return { type: "more" };
        if (step.type === "identity") {
          resolve(step.identity);
          return { type: "accepted" };
        }
        const error = this.#disappointed(step);
        reject(error);
        const careful = this.#logins.keep(this.#server, this.#user, { ...way, ahead: false });
        careful.catch((cause: unknown) => this.#warn(cause)); // the error in hand says more
        return { type: "refused", error };
      };
      const ahead: Asked[] = [
        ...(name === undefined ? [] : [{ text: `HOST ${name}`, mayBeUnknown: true as const }]),
        { text: `AUTH ${proof.mechanism} ${words}`, hear },
      ];
      return { dialled, ahead, identity: promise };
    } catch (error) {
      socket.destroy();
      throw error;
    }
  }

  /** Why what was sent ahead did not go well. */
  #disappointed(step: Step): FivedError {
    const again = "nothing was handed on; run it again, and every key is tried with care";
    switch (step.type) {
      case "refused":
        return this.#refused(step.code, `the server refuses what it took before; ${again}`);
      case "ask":
        return this.#refused(403, `the server asks "${step.question}" now, which it did not before; ${again}`);
      default:
        return new FivedError(
          "PROTOCOL_ERROR",
          `${this.#cannot}: ${step.type === "error" ? step.why : "the server's answer is none"}`,
        );
    }
  }

  async #withKeys(signers: readonly Signer[], refused: string[]): Promise<SignedIn | undefined> {
    let tried = 0;
    for (const signer of signers.slice(0, KEYS_MAX)) {
      for (const host of (await this.#open()).hosts) {
        const { conversation } = await this.#open();
        const words = await this.#words(signer, needed(conversation.dialled.binding), host);
        if (words === undefined) break;
        const outcome = await exchange(
          conversation,
          `AUTH pubkey ${words}`,
          async (question, shown) => signer.answer?.(question) ?? this.#answer(conversation, question, shown),
          this.#options,
        );
        if (outcome.type === "identity") {
          const { questions, identity } = outcome;
          const way = {
            mechanism: "pubkey",
            key: signer.fingerprint,
            ...(signer.file === undefined ? {} : { keyFile: signer.file }),
            host,
            ahead: questions === 0,
          } as const;
          return await this.#done(conversation, identity, way);
        }
        this.#count(outcome);
        tried++;
      }
    }
    if (tried > 0) refused.push(tried === 1 ? "the key" : `any of ${Math.min(signers.length, KEYS_MAX)} keys`);
    const left = signers.length - KEYS_MAX;
    if (left > 0)
      this.#options.log?.(`${left} more keys were not tried: say which one to use with -i and -o IdentitiesOnly=yes`);
    return undefined;
  }

  /** The certificate of the handshake: what it proves is bound to no host. */
  async #withCertificate(refused: string[]): Promise<SignedIn | undefined> {
    if (this.#options.certificate === undefined) return undefined;
    const { conversation, hosts } = await this.#open();
    const answer: Answering = (question, shown) => this.#answer(conversation, question, shown);
    const outcome = await exchange(conversation, `AUTH cert ${this.#user}`, answer, this.#options);
    if (outcome.type === "identity") {
      const { questions, identity } = outcome;
      const way = { mechanism: "cert", host: hosts[0] ?? "", ahead: questions === 0 } as const;
      return await this.#done(conversation, identity, way);
    }
    this.#count(outcome);
    refused.push("the certificate");
    return undefined;
  }

  async #withPassword(keysBefore: boolean, refused: string[]): Promise<SignedIn | undefined> {
    if (this.#auth.password === undefined) return undefined;
    // Who has chosen passwords alone is not surprised by being asked for one.
    const chosen = this.#auth.mechanisms !== undefined && !this.#auth.mechanisms.includes("pubkey");
    if (keysBefore && !chosen) await this.#agree("has taken a key of yours before, and takes none of them now");
    const { conversation } = await this.#open();
    await this.#mayBeTold(conversation.dialled);
    for (let left = this.#auth.passwordTries ?? 1; left > 0; left--) {
      const opening = await this.#open();
      const outcome = await exchange(
        opening.conversation,
        `AUTH up ${this.#user}`,
        (question, shown) => this.#answer(opening.conversation, question, shown),
        this.#options,
      );
      if (outcome.type === "identity") {
        const way = { mechanism: "up", host: opening.hosts[0] ?? "", ahead: false } as const;
        return await this.#done(opening.conversation, outcome.identity, way);
      }
      this.#count(outcome);
      if (left > 1) this.#options.log?.("the server refuses that; try again");
    }
    refused.push("the password");
    return undefined;
  }

  /** The connection to try on, a new one where the old one has seen enough refusals or is gone; and for which hosts to try. */
  async #open(): Promise<{ readonly conversation: Conversation; readonly hosts: readonly string[] }> {
    if (this.#opening === undefined || this.#refusals >= REFUSALS_MAX || !this.#opening.conversation.open) {
      this.#opening?.[Symbol.dispose]();
      this.#opening = undefined;
      this.#refusals = 0;
      this.#opening = await openConversation(this.#address, this.#options, this.#dial());
    }
    const { conversation, host } = this.#opening;
    // Where no name may be told, SNI has been, and whether the server knows a host of that name nobody has said.
    return { conversation, hosts: host === undefined ? ["", hostLine(this.#address) ?? ""] : [host] };
  }

  /** Notes a refusal; throws where more tries are of no use. */
  #count({ code, text }: Extract<Outcome, { type: "refused" }>): void {
    this.#refusals++;
    if (code === 403) return;
    const said = [code, text].filter((part) => part !== undefined && part !== "").join(" ");
    const hint = code === 429 ? "; wait some minutes" : code === 500 || code === 404 ? "; it may know no AUTH" : "";
    throw this.#refused(code, `the server says "${said}"${hint}`);
  }

  /** The words behind `AUTH pubkey`; undefined, said so, where the key cannot be used. */
  async #words(signer: Signer, binding: Uint8Array, host: string): Promise<string | undefined> {
    try {
      return await signer.authWords({ user: this.#user, binding, host });
    } catch (error) {
      this.#options.log?.(`cannot use the key ${signer.comment}: ${error instanceof Error ? error.message : error}`);
      return undefined;
    }
  }

  async #answer(conversation: Conversation, question: string, shown: boolean): Promise<string | Uint8Array> {
    const { password } = this.#auth;
    if (password === undefined)
      throw this.#impossible(`the server asks "${question}", and there is nobody to answer; run it at a terminal`);
    await this.#mayBeTold(conversation.dialled);
    return await password(question, shown);
  }

  /** Only a server that is known may be told a secret (O01). */
  async #mayBeTold({ grounds }: Dialled): Promise<void> {
    if (grounds === "pinned" || grounds === "pki") return;
    if (grounds === "accepted-new") return this.#agree("is new, and nobody has compared its key");
    throw this.#impossible("nobody vouches for this server, so it is told no password; check its key");
  }

  async #agree(why: string): Promise<void> {
    if (this.#agreed) return;
    const { ask } = this.#options;
    const text = `The server at ${printAddress(this.#address)} ${why}`;
    if (ask === undefined)
      throw this.#impossible(`it ${why}, and nobody is there to say that it may be told a password`);
    this.#agreed = await ask(`${text}. Tell it your password all the same?`);
    if (!this.#agreed) throw new FivedError("ABORTED", `${this.#cannot}: the password was not to be told`);
  }

  async #done(conversation: Conversation, identity: string, way: Way): Promise<SignedIn> {
    conversation.release();
    this.#opening = undefined;
    await this.#logins.keep(this.#server, this.#user, way).catch((cause: unknown) => this.#warn(cause));
    return { dialled: conversation.dialled, ahead: [], identity: Promise.resolve(identity) };
  }

  /** What could not be kept is no reason not to go on. */
  #warn(cause: unknown): void {
    this.#options.log?.(cause instanceof Error ? cause.message : String(cause));
  }

  get #cannot(): string {
    return `Cannot sign in at ${printAddress({ ...this.#address, user: undefined })} as ${this.#user}`;
  }

  #impossible(why: string): FivedError {
    return new FivedError("AUTH_IMPOSSIBLE", `${this.#cannot}: ${why}`);
  }

  #refused(status: number | undefined, why: string): FivedError {
    return new FivedError("AUTH_REFUSED", `${this.#cannot}: ${why}`, { status });
  }
}

/** Says HOST and hears whether it holds: an unknown one leaves the default host in force. */
async function enter(conversation: Conversation, name: string, { signal }: ConnectOptions): Promise<string> {
  const request = `HOST ${name}`;
  conversation.say(request);
  const reply = parseReply(await conversation.hear(signal));
  if (reply.type === "accepted") return name;
  if (reply.type === "refused" && reply.code === 404) return "";
  throw refusal(request, reply);
}

/** The name to sign in with. An identity has no other characters (PROTOCOL §1.3), but who knows what stands behind the server. */
function userOf(address: Address, { user = address.user }: AuthOptions): string {
  if (user !== undefined && /^[\x21-\x7e]{1,255}$/.test(user)) return user;
  const why = user === undefined ? "say as whom: write user@ in front of it" : `"${user}" is no name of a user`;
  throw new FivedError("ADDRESS_BAD", `Cannot sign in at ${printAddress(address)}: ${why}`);
}

function mechanismOf(request: string): string {
  return request.split(" ")[1] ?? "";
}

function needed(binding: Uint8Array | undefined): Uint8Array {
  if (binding === undefined) throw new Error("Invariant: only TLS connections are signed in on");
  return binding;
}

/** An answer as the octets of a line. */
function octetsOf(answer: string | Uint8Array): Uint8Array {
  const octets = typeof answer === "string" ? Buffer.from(answer, "utf8") : answer;
  if (octets.length <= ANSWER_BYTES_MAX && !octets.some((octet) => octet === 0 || octet === 0x0d || octet === 0x0a))
    return octets;
  octets.fill(0);
  throw new FivedError(
    "AUTH_IMPOSSIBLE",
    `Cannot answer the server: an answer has at most ${ANSWER_BYTES_MAX} octets, on one line`,
  );
}
