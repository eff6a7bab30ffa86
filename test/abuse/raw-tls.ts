/**
 * TLS 1.3 by hand (RFC 8446), as much of it as an enemy needs who does what no library would: KeyUpdate in floods, early data that nobody
 * asked for, any octets in SNI. One cipher suite, one group; the server's certificate is not looked at. Never for anything but tests.
 * @module
 */
import {
  createCipheriv,
  createDecipheriv,
  createHash,
  createHmac,
  createPublicKey,
  diffieHellman,
  generateKeyPairSync,
  randomBytes,
} from "node:crypto";
import type { NetConnectOpts } from "node:net";
import { Enemy } from "./enemy.ts";

const Content = { alert: 21, handshake: 22, application: 23 } as const;
const Message = {
  clientHello: 1,
  serverHello: 2,
  newSessionTicket: 4,
  encryptedExtensions: 8,
  finished: 20,
  keyUpdate: 24,
} as const;
const Extension = {
  serverName: 0,
  supportedGroups: 10,
  signatureAlgorithms: 13,
  alpn: 16,
  preSharedKey: 41,
  earlyData: 42,
  supportedVersions: 43,
  pskModes: 45,
  keyShare: 51,
} as const;

const TLS_AES_128_GCM_SHA256 = 0x1301;
const X25519 = 0x001d;
const HASH_BYTES = 32;
const TAG_BYTES = 16;
const ZEROS: Buffer = Buffer.alloc(HASH_BYTES);
const NOTHING: Buffer = Buffer.alloc(0);

/** What is special in a ClientHello. */
export interface Hello {
  /** Octets of the name in SNI; none if left out. */
  readonly sni?: Uint8Array;
  readonly alpn?: readonly string[];
  /** An earlier session's ticket, and early data to send with it whether the server allows any or not. */
  readonly resume?: { readonly ticket: Ticket; readonly earlyData: string };
}

/** What a server gives so that a client need not show its knowledge of the whole handshake again. */
export interface Ticket {
  readonly identity: Buffer;
  readonly ageAdd: number;
  readonly psk: Buffer;
  /** Types of the extensions in it: `early_data` (42) would allow early data. */
  readonly extensions: ReadonlySet<number>;
}

/** One direction's key, which changes with each KeyUpdate. */
class TrafficKey {
  #secret: Buffer;
  #key: Buffer = NOTHING;
  #iv: Buffer = NOTHING;
  #sequence = 0n;

  constructor(secret: Buffer) {
    this.#secret = secret;
    this.#derive();
  }

  /** The next generation (RFC 8446 §7.2). */
  update(): void {
    this.#secret = expandLabel(this.#secret, "traffic upd", NOTHING, HASH_BYTES);
    this.#derive();
  }

  /** A record around a content. */
  seal(type: number, content: Uint8Array): Buffer {
    const inner = Buffer.concat([content, Buffer.of(type)]);
    const header = recordHeader(Content.application, inner.length + TAG_BYTES);
    const cipher = createCipheriv("aes-128-gcm", this.#key, this.#nonce());
    cipher.setAAD(header);
    return Buffer.concat([header, cipher.update(inner), cipher.final(), cipher.getAuthTag()]);
  }

  /** The content of a record. */
  open(header: Buffer, sealed: Buffer): { readonly type: number; readonly content: Buffer } {
    const decipher = createDecipheriv("aes-128-gcm", this.#key, this.#nonce());
    decipher.setAAD(header);
    decipher.setAuthTag(sealed.subarray(-TAG_BYTES));
    const inner = Buffer.concat([decipher.update(sealed.subarray(0, -TAG_BYTES)), decipher.final()]);
    let end = inner.length - 1;
    while (end > 0 && inner[end] === 0) end--; // padding
    return { type: inner[end] ?? 0, content: inner.subarray(0, end) };
  }

  #derive(): void {
    this.#key = expandLabel(this.#secret, "key", NOTHING, 16);
    this.#iv = expandLabel(this.#secret, "iv", NOTHING, 12);
    this.#sequence = 0n;
  }

  #nonce(): Buffer {
    const nonce = Buffer.from(this.#iv);
    nonce.writeBigUInt64BE(nonce.readBigUInt64BE(4) ^ this.#sequence++, 4);
    return nonce;
  }
}

/** The octets of a TLS 1.3 ClientHello, for those who want to send only a part of them. */
export function clientHello(hello: Hello = {}): Buffer {
  const octets = new HelloWriter(hello).octets;
  return Buffer.concat([recordHeader(Content.handshake, octets.length), octets]);
}

/** A TLS connection whose records are made by hand. */
export class RawTls implements AsyncDisposable {
  readonly enemy: Enemy;
  /** What the server has said inside TLS. */
  said = "";
  readonly tickets: Ticket[] = [];
  /** Types of the extensions in EncryptedExtensions: `early_data` (42) would say that early data was taken. */
  readonly encryptedExtensions = new Set<number>();
  /** KeyUpdates of the server. */
  keyUpdates = 0;
  /** The server's alert, if it gave one: its description. */
  alert: number | undefined;
  #records: Buffer = NOTHING;
  #messages: Buffer = NOTHING;
  readonly #hello: HelloWriter;
  readonly #transcript = createHash("sha256");
  #reading: TrafficKey | undefined;
  #writing: TrafficKey | undefined;
  #handshakeSecret: Buffer = ZEROS;
  #clientSecret: Buffer = ZEROS;
  #serverSecret: Buffer = ZEROS;
  #resumption: Buffer = ZEROS;
  established = false;

  private constructor(enemy: Enemy, hello: Hello) {
    this.enemy = enemy;
    this.#hello = new HelloWriter(hello);
    enemy.ear = (octets) => this.#hear(octets);
  }

  /** Connects and shakes hands; what comes of it is in {@link RawTls.established} and {@link RawTls.alert}. */
  static async handshake(at: NetConnectOpts, hello: Hello = {}): Promise<RawTls> {
    const tls = new RawTls(await Enemy.approach(at), hello);
    const { octets } = tls.#hello;
    tls.#transcript.update(octets);
    tls.enemy.say(Buffer.concat([recordHeader(Content.handshake, octets.length), octets]));
    if (hello.resume !== undefined) {
      const early = deriveSecret(extract(ZEROS, hello.resume.ticket.psk), "c e traffic", tls.#hash());
      tls.enemy.say(new TrafficKey(early).seal(Content.application, Buffer.from(hello.resume.earlyData, "latin1")));
    }
    await tls.enemy.until(() => tls.established || tls.enemy.end !== "open", "the end of a handshake");
    return tls;
  }

  /** Sends application data. */
  say(text: string): boolean {
    return this.enemy.say(this.seal(Content.application, Buffer.from(text, "latin1")));
  }

  /** The record of a KeyUpdate, after which the key is another. */
  keyUpdate(): Buffer {
    // update_not_requested: the server has to do all the work and has nothing to say.
    const record = this.seal(Content.handshake, Buffer.of(Message.keyUpdate, 0, 0, 1, 0));
    this.#writing?.update();
    return record;
  }

  /** A record under the key we write with. */
  seal(type: number, content: Uint8Array): Buffer {
    if (this.#writing === undefined) throw new Error("Cannot seal: there is no key yet");
    return this.#writing.seal(type, content);
  }

  /** Waits until what was said inside TLS matches. */
  async hears(pattern: RegExp): Promise<void> {
    await this.enemy.until(() => pattern.test(this.said) || this.enemy.end !== "open", `${pattern} inside TLS`);
    if (!pattern.test(this.said)) throw new Error(`Waited in vain for ${pattern}: heard ${JSON.stringify(this.said)}`);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.enemy[Symbol.asyncDispose]();
  }

  // ---- what comes

  #hear(octets: Uint8Array): void {
    this.#records = Buffer.concat([this.#records, octets]);
    while (this.#records.length >= 5) {
      const length = this.#records.readUInt16BE(3);
      if (this.#records.length < 5 + length) return;
      const header = this.#records.subarray(0, 5);
      const body = this.#records.subarray(5, 5 + length);
      this.#records = this.#records.subarray(5 + length);
      const sealed = header[0] === Content.application && this.#reading !== undefined;
      const record = sealed ? this.#reading?.open(header, body) : { type: header[0] ?? 0, content: body };
      if (record !== undefined) this.#record(record.type, record.content);
    }
  }

  #record(type: number, content: Buffer): void {
    if (type === Content.alert) this.alert = content[1];
    if (type === Content.application) this.said += content.toString("latin1");
    if (type !== Content.handshake) return;
    this.#messages = Buffer.concat([this.#messages, content]);
    while (this.#messages.length >= 4) {
      const length = this.#messages.readUIntBE(1, 3);
      if (this.#messages.length < 4 + length) return;
      const message = this.#messages.subarray(0, 4 + length);
      this.#messages = this.#messages.subarray(4 + length);
      this.#message(message[0] ?? 0, message.subarray(4), message);
    }
  }

  #message(type: number, body: Buffer, whole: Buffer): void {
    switch (type) {
      case Message.serverHello:
        this.#transcript.update(whole);
        return this.#agree(body);
      case Message.encryptedExtensions:
        for (const [extension] of extensionsIn(body)) this.encryptedExtensions.add(extension);
        break;
      case Message.finished:
        this.#transcript.update(whole);
        return this.#finish();
      case Message.newSessionTicket:
        return this.#keepTicket(body);
      case Message.keyUpdate:
        this.keyUpdates++;
        return this.#reading?.update();
      default: // certificates and their proofs are only part of the transcript
    }
    this.#transcript.update(whole);
  }

  /** ServerHello: both ends know the handshake's keys now (RFC 8446 §7.1). */
  #agree(body: Buffer): void {
    const sessionId = body[34] ?? 0;
    const extensions = extensionsIn(body.subarray(35 + sessionId + 3));
    const share = extensions.get(Extension.keyShare);
    if (share === undefined) throw new Error("The server has chosen no key share");
    const resumed = extensions.has(Extension.preSharedKey);
    const early = extract(ZEROS, resumed ? this.#hello.psk : ZEROS);
    const shared = this.#hello.agree(share.subarray(4));
    this.#handshakeSecret = extract(deriveSecret(early, "derived", createHash("sha256").digest()), shared);
    this.#clientSecret = deriveSecret(this.#handshakeSecret, "c hs traffic", this.#hash());
    this.#serverSecret = deriveSecret(this.#handshakeSecret, "s hs traffic", this.#hash());
    this.#reading = new TrafficKey(this.#serverSecret);
    this.#writing = new TrafficKey(this.#clientSecret);
  }

  #finish(): void {
    const atServerFinished = this.#hash();
    const verify = finished(this.#clientSecret, atServerFinished);
    const message = Buffer.concat([Buffer.of(Message.finished, 0, 0, verify.length), verify]);
    this.enemy.say(this.seal(Content.handshake, message));
    this.#transcript.update(message);
    const empty = createHash("sha256").digest();
    const master = extract(deriveSecret(this.#handshakeSecret, "derived", empty), ZEROS);
    this.#reading = new TrafficKey(deriveSecret(master, "s ap traffic", atServerFinished));
    this.#writing = new TrafficKey(deriveSecret(master, "c ap traffic", atServerFinished));
    this.#resumption = deriveSecret(master, "res master", this.#hash());
    this.established = true;
  }

  #keepTicket(body: Buffer): void {
    const ageAdd = body.readUInt32BE(4);
    const nonceEnd = 9 + (body[8] ?? 0);
    const identityEnd = nonceEnd + 2 + body.readUInt16BE(nonceEnd);
    this.tickets.push({
      identity: Buffer.from(body.subarray(nonceEnd + 2, identityEnd)),
      ageAdd,
      psk: expandLabel(this.#resumption, "resumption", body.subarray(9, nonceEnd), HASH_BYTES),
      extensions: new Set(extensionsIn(body.subarray(identityEnd)).keys()),
    });
  }

  #hash(): Buffer {
    return this.#transcript.copy().digest();
  }
}

/** A ClientHello and its key. */
class HelloWriter {
  readonly octets: Buffer;
  readonly psk: Buffer;
  readonly #keys = generateKeyPairSync("x25519");
  readonly #random = randomBytes(32);

  constructor({ sni, alpn = ["fived/1"], resume }: Hello) {
    const { x = "" } = this.#keys.publicKey.export({ format: "jwk" });
    const key = Buffer.from(x, "base64url");
    this.psk = resume?.ticket.psk ?? ZEROS;
    const extensions = [
      ...(sni === undefined ? [] : [extension(Extension.serverName, lp2(Buffer.concat([Buffer.of(0), lp2(sni)])))]),
      extension(Extension.supportedVersions, lp1(u16(0x0304))),
      extension(Extension.supportedGroups, lp2(u16(X25519))),
      extension(Extension.signatureAlgorithms, lp2(u16(0x0403, 0x0503, 0x0603, 0x0804, 0x0805, 0x0806, 0x0807))),
      extension(Extension.keyShare, lp2(Buffer.concat([u16(X25519), lp2(key)]))),
      extension(Extension.pskModes, lp1(Buffer.of(1))),
      ...(alpn.length === 0
        ? []
        : [extension(Extension.alpn, lp2(Buffer.concat(alpn.map((name) => lp1(Buffer.from(name))))))]),
      ...(resume === undefined ? [] : [extension(Extension.earlyData, NOTHING)]),
    ];
    if (resume === undefined) {
      this.octets = this.#whole(extensions);
      return;
    }
    // The binder is over everything in front of it, and comes last (RFC 8446 §4.2.11).
    const age = Buffer.alloc(4);
    age.writeUInt32BE(resume.ticket.ageAdd);
    const identities = lp2(Buffer.concat([lp2(resume.ticket.identity), age]));
    const bound = (binder: Buffer): Buffer =>
      this.#whole([...extensions, extension(Extension.preSharedKey, Buffer.concat([identities, lp2(lp1(binder))]))]);
    const early = extract(ZEROS, resume.ticket.psk);
    const binderKey = deriveSecret(early, "res binder", createHash("sha256").digest());
    const unbound = bound(ZEROS).subarray(0, -(HASH_BYTES + 3));
    this.octets = bound(finished(binderKey, createHash("sha256").update(unbound).digest()));
  }

  #whole(extensions: readonly Buffer[]): Buffer {
    const body = Buffer.concat([
      u16(0x0303),
      this.#random,
      lp1(NOTHING),
      lp2(u16(TLS_AES_128_GCM_SHA256)),
      lp1(Buffer.of(0)),
      lp2(Buffer.concat(extensions)),
    ]);
    return Buffer.concat([Buffer.of(Message.clientHello, 0), u16(body.length), body]);
  }

  /** The secret shared with the owner of a key. */
  agree(key: Buffer): Buffer {
    const jwk = { kty: "OKP", crv: "X25519", x: key.toString("base64url") };
    return diffieHellman({
      privateKey: this.#keys.privateKey,
      publicKey: createPublicKey({ key: jwk, format: "jwk" }),
    });
  }
}

/** Extensions by type, behind the length of all of them. */
function extensionsIn(octets: Buffer): ReadonlyMap<number, Buffer> {
  const extensions = new Map<number, Buffer>();
  for (let at = 2; at < octets.length; ) {
    const end = at + 4 + octets.readUInt16BE(at + 2);
    extensions.set(octets.readUInt16BE(at), octets.subarray(at + 4, end));
    at = end;
  }
  return extensions;
}

function extension(type: number, content: Uint8Array): Buffer {
  return Buffer.concat([u16(type), lp2(content)]);
}

function recordHeader(type: number, length: number): Buffer {
  return Buffer.concat([Buffer.of(type), u16(0x0303, length)]);
}

function u16(...numbers: readonly number[]): Buffer {
  return Buffer.from(numbers.flatMap((number) => [number >> 8, number & 0xff]));
}

function lp1(octets: Uint8Array): Buffer {
  return Buffer.concat([Buffer.of(octets.length), octets]);
}

function lp2(octets: Uint8Array): Buffer {
  return Buffer.concat([u16(octets.length), octets]);
}

function extract(salt: Uint8Array, secret: Uint8Array): Buffer {
  return createHmac("sha256", salt).update(secret).digest();
}

function expandLabel(secret: Uint8Array, label: string, context: Uint8Array, length: number): Buffer {
  const info = Buffer.concat([u16(length), lp1(Buffer.from(`tls13 ${label}`)), lp1(context), Buffer.of(1)]);
  return createHmac("sha256", secret).update(info).digest().subarray(0, length);
}

function deriveSecret(secret: Uint8Array, label: string, transcriptHash: Uint8Array): Buffer {
  return expandLabel(secret, label, transcriptHash, HASH_BYTES);
}

function finished(secret: Uint8Array, transcriptHash: Uint8Array): Buffer {
  const key = expandLabel(secret, "finished", NOTHING, HASH_BYTES);
  return createHmac("sha256", key).update(transcriptHash).digest();
}
