/**
 * Group H of the abuse cases: sessions that outlive their connections, and who may go on with them (PROTOCOL §4.7, §4.8, §7.5).
 * @module
 */
import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import test from "node:test";
import { TLSSocket } from "node:tls";
import {
  type AttachClaim,
  attachLine,
  parseAttached,
  parseDetachable,
  proveAttach,
  serverProof,
  storedForm,
  type Ticket,
} from "../../src/identity/index.ts";
import { RecallReader } from "../../src/session/index.ts";
import { Code, type SequencedContent, type UnsequencedFrame } from "../../src/wire/index.ts";
import { eventually } from "../support/deadline.ts";
import { backEnd, Victim } from "../support/victim.ts";
import { data, Enemy, EnemySession, open } from "./enemy.ts";

const TLS = { tls: {} };
const REFUSED = "- 403 ATTACH refused";
const KIBIBYTE = 1024;
const MEBIBYTE = 1024 * KIBIBYTE;

test("H: who may go on with a session", async (t) => {
  const echo = await backEnd(t, (socket) => socket.pipe(socket));
  const victim = await Victim.start(t, {
    services: { echo: { to: echo } },
    users: [
      { name: "alice", password: "secret" },
      { name: "bob", password: "secret" },
    ],
    auth: { mechanisms: ["up"] },
    sessions: { detach: { keep: "2s", perIdentity: 30, attaches: 40 } },
    limits: { penalties: { spareLoopback: true } },
  });

  await victim.survives(
    t,
    "D01 a ticket whose successor was confirmed is of no use, and the session goes on",
    async () => {
      await using session = await detachable(victim);
      const { ticket, next } = await session.attaches();
      session.tell({ type: "ticketStored", received: session.received, generation: next.generation });
      await session.echoes("confirmed");
      assert.equal(await session.refused(ticket), REFUSED);
      await eventually(async () => {
        const reasons = victim.log().map(({ reason }) => reason);
        assert.ok(reasons.includes("an old ticket was used again"));
      }, "a line of the log");
      await session.echoes("the session goes on");
    },
  );

  await victim.survives(
    t,
    "D03 T19 a proof that was made for another connection proves nothing on this one",
    async () => {
      await using session = await detachable(victim);
      await using there = await Enemy.approach(victim.at, TLS);
      await using here = await Enemy.approach(victim.at, TLS);
      here.say(`${session.line(there, session.ticket)}\r\n`);
      assert.equal(await here.line(), REFUSED);
      await session.attaches();
      await session.echoes("with its own");
    },
  );

  await victim.survives(
    t,
    "D04 a valid ticket in the hands of another user is refused, and stays as it was",
    async () => {
      await using session = await detachable(victim);
      await using bob = await signedIn(victim, "bob");
      bob.say(`${session.line(bob, session.ticket)}\r\n`);
      assert.equal(await bob.line(), REFUSED);
      await using alice = await signedIn(victim, "alice");
      const { next } = await session.attachesOn(alice);
      assert.equal(next.generation, 1);
      await session.echoes("hers");
    },
  );

  await victim.survives(
    t,
    "D28 who has lost his memory is told what the server has, and hears again what he had not confirmed",
    async () => {
      await using session = await detachable(victim);
      await session.echoes("not confirmed");
      const old = session.enemy;
      // A count makes no sense, a ticket that proves nothing has the answer of all, and another user's conversation too.
      await using counts = await Enemy.approach(victim.at, TLS);
      counts.say(`${session.line(counts, session.ticket, 1, "recall")}\r\n`);
      assert.match(await counts.rest(), /^- 501 [^\r]*\r\n$/);
      await using guesses = await Enemy.approach(victim.at, TLS);
      guesses.say(`${session.line(guesses, { ...session.ticket, secret: randomBytes(32) }, 0, "recall")}\r\n`);
      assert.equal(await guesses.rest(), `${REFUSED}\r\n`);
      await using bob = await signedIn(victim, "bob");
      bob.say(`${session.line(bob, session.ticket, 0, "recall")}\r\n`);
      assert.equal(await bob.rest(), `${REFUSED}\r\n`);
      await session.echoes("nothing has changed");

      const { enemy, attached, next } = await session.answered("recall", 0);
      assert.equal(attached.received, session.sent);
      const reader = new RecallReader();
      while (reader.push(await enemy.line()) === "more");
      const [stream, ...others] = reader.told?.streams ?? [];
      assert.deepEqual(others, []);
      assert.deepEqual([stream?.id, stream?.sent, stream?.ended], [1, session.offset, false]);
      assert.ok((stream?.received ?? 0) <= Buffer.byteLength(session.texts.get(1) ?? ""));
      await old.over(); // the connection that was there is fenced
      enemy.socket.destroy();
      session.ticket = next;
      await session.attaches();
      await session.echoes("and on");
    },
  );

  await victim.survives(t, "D05 in the clear neither DETACHABLE nor ATTACH is looked at", async () => {
    await using enemy = await Enemy.approach(victim.at);
    enemy.say("DETACHABLE nonsense and more\r\nDETACHABLE\r\nATTACH nonsense\r\n");
    for (let lines = 0; lines < 3; lines++) assert.match(await enemy.line(), /^- 530 /);
    assert.equal(await enemy.over(), "ended");
  });

  await victim.survives(t, "D07 guessed sessions and proofs all have one answer, and lock nobody out", async () => {
    await using session = await detachable(victim);
    const answers = new Set<string>();
    for (let guesses = 0; guesses < 200; guesses++) {
      await using enemy = await Enemy.approach(victim.at, TLS);
      const sid = guesses % 2 === 0 ? randomBytes(16) : session.ticket.sid;
      enemy.say(`${session.line(enemy, { ...session.ticket, sid, secret: randomBytes(32) })}\r\n`);
      answers.add(await enemy.rest());
    }
    assert.deepEqual([...answers], [`${REFUSED}\r\n`]);
    await session.attaches();
    await session.echoes("not locked");
  });

  await victim.survives(t, "D08 a count above what was said is refused, and the ticket is as it was", async () => {
    await using session = await detachable(victim);
    for (const more of [1, 1_000, Number.MAX_SAFE_INTEGER - session.received])
      assert.equal(await session.refused(session.ticket, session.received + more), REFUSED);
    for (const text of ["-1", "01", "1e3", "0x10", "9007199254740992", ""]) {
      await using enemy = await Enemy.approach(victim.at, TLS);
      enemy.say(`${session.line(enemy, session.ticket).replace(/(replace) \d+/, `$1 ${text}`)}\r\n`);
      assert.match(await enemy.rest(), /^- 501 [^\r]*\r\n$/);
    }
    const { next } = await session.attaches();
    assert.equal(next.generation, 1);
    await session.echoes("and on");
  });

  await victim.survives(t, "D09 a count below what was acknowledged is honest: the higher one holds", async () => {
    await using session = await detachable(victim);
    await session.echoes("something");
    session.acknowledge();
    await session.echoes("something more"); // the acknowledgement was read before it
    const before = session.received;
    const { attached } = await session.attaches(0);
    assert.ok(attached.base > 0 && attached.base <= before, `${attached.base}`);
    await session.echoes("and on");
  });

  await victim.survives(
    t,
    "D12 D25 the answer to ATTACH is lost: the old ticket still works, and gives the same next one",
    async () => {
      await using session = await detachable(victim);
      const lost = await session.answered();
      lost.enemy.socket.destroy();
      const again = await session.answered();
      again.enemy.socket.destroy();
      assert.deepEqual(again.next, lost.next);
      // Also by whoever has stored the next one, and could not say so.
      session.ticket = lost.next;
      const { next } = await session.attaches();
      assert.equal(next.generation, lost.next.generation + 1);
      await session.echoes("still here");
    },
  );

  await victim.survives(t, "D13 two that replace one another: one survives, the other is superseded", async () => {
    await using session = await detachable(victim);
    for (let rounds = 0; rounds < 5; rounds++) {
      const both = [await Enemy.approach(victim.at, TLS), await Enemy.approach(victim.at, TLS)];
      const received = session.received;
      const lines = both.map((enemy) => session.line(enemy, session.ticket, received));
      for (const [at, enemy] of both.entries()) enemy.say(`${lines[at]}\r\n`);
      const said = await Promise.all(both.map((enemy) => enemy.line()));
      for (const line of said) assert.ok(parseAttached(line) !== undefined, line);
      // The later one has fenced the earlier.
      const left = await Promise.race(both.map(async (enemy) => await enemy.over().then(() => enemy)));
      const stays = both.find((enemy) => enemy !== left);
      assert.ok(stays !== undefined && stays.end === "open");
      session.goOn(stays);
      await session.echoes(`round ${rounds}`);
    }
  });

  await victim.survives(t, "D15 a connection that was replaced is not read any more", async () => {
    await using session = await detachable(victim);
    await session.echoes("before");
    const old = session.enemy;
    await session.attaches();
    // What it says would be the next frames of the log.
    const [sent, offset] = [session.sent, session.offset];
    old.say(session.framed(data(1, session.offset, "from the grave")));
    session.sent = sent;
    session.offset = offset;
    await session.echoes("from the living");
    assert.doesNotMatch(session.texts.get(1) ?? "", /grave/);
  });

  await victim.survives(
    t,
    "D21 it is kept by the monotonic clock, whatever the wall clock does; then it is gone",
    async () => {
      await using session = await detachable(victim);
      session.enemy.socket.destroy();
      victim.moveClock(90 * 86_400_000);
      await session.attaches();
      await session.echoes("ninety days later");
      victim.moveClock(-91 * 86_400_000);
      session.enemy.socket.destroy();
      await session.attaches();
      await session.echoes("and the day before");
      const detached = () => victim.log().filter(({ msg }) => msg === "session detached");
      const before = detached().length;
      session.enemy.socket.destroy();
      await eventually(async () => assert.ok(detached().length > before), "a line of the log");
      const id = detached().at(-1)?.["session"];
      await eventually(async () => {
        const ends = victim.log().filter((line) => line["session"] === id && line["msg"] === "session ended");
        assert.deepEqual(
          ends.map(({ reason }) => reason),
          ["nobody attached to it in time"],
        );
      }, "its end");
      assert.equal(await session.refused(session.ticket), "- 410 that session is over");
      assert.equal(
        await session.refused({ ...session.ticket, secret: randomBytes(32) }),
        REFUSED,
        "told to its owner only",
      );
    },
  );

  await victim.survives(
    t,
    "D23 D24 of two connections one is behind, and dies with what was said on it: the other goes on",
    async () => {
      await using session = await detachable(victim);
      await session.echoes("one connection");
      const first = session.enemy;
      const { enemy: second } = await session.answered("add");
      // The frame that comes first in the log comes last.
      const [early, late] = [
        session.framed(data(1, session.offset, "first,")),
        session.framed(data(1, session.offset + 6, "then")),
      ];
      session.offset += 10;
      second.say(late);
      await new Promise((resolve) => setTimeout(resolve, 50));
      first.say(early);
      const heard = await Promise.race([
        session.hears(1, /first,then/).then(() => true),
        second.until(() => second.said !== "", "frames").then(() => true),
      ]);
      assert.ok(heard);
      first.socket.destroy();
      session.goOn(second);
      await session.echoes("on the other");
    },
  );
});

test("H: bounds of detached sessions", async (t) => {
  let poured = 0;
  const pour = await backEnd(t, (socket) => {
    const more = (): void => {
      while (socket.writable && socket.write(Buffer.alloc(64 * KIBIBYTE, "x"))) poured += 64 * KIBIBYTE;
    };
    socket.on("drain", more);
    more();
  });
  const echo = await backEnd(t, (socket) => socket.pipe(socket));
  const victim = await Victim.start(t, {
    services: { pour: { to: pour }, echo: { to: echo } },
    users: [{ name: "alice", password: "secret" }],
    auth: { mechanisms: ["up"] },
    limits: { penalties: { spareLoopback: true }, unauthenticated: { spareLoopback: true } },
  });

  await victim.survives(t, "D11 ATTACH over and over: five at once, then not so soon", async () => {
    await using session = await detachable(victim);
    for (let times = 0; times < 5; times++) (await session.answered()).enemy.socket.destroy();
    assert.match(await session.refused(session.ticket), /^- 429 /);
  });

  await victim.survives(
    t,
    "D19 without a connection, services that talk are read up to the queue, and not an octet is lost",
    async () => {
      const before = await victim.usage();
      await using session = await detachable(victim);
      const streams = Array.from({ length: 20 }, (_, at) => 3 + 2 * at);
      session.say(...streams.map((stream) => open(stream, "pour", MEBIBYTE)));
      await session.hears(streams.at(-1) ?? 0, 64 * KIBIBYTE);
      const detached = () => victim.log().filter(({ msg }) => msg === "session detached").length;
      const earlier = detached();
      session.enemy.socket.destroy();
      await eventually(async () => assert.ok(detached() > earlier), "the server to know");
      await eventually(async () => {
        const at = poured;
        const during = await victim.usage();
        // The log at its widest, of each stream the pieces of memory that its queue lies in, and what is kept of such pieces for the next.
        const held = during.heap - before.heap;
        assert.ok(held < 8 * MEBIBYTE + streams.length * MEBIBYTE + 8 * MEBIBYTE, `${held} octets are held`);
        assert.equal(poured, at, "the back ends are paused");
      }, "the back ends to be paused");
      await session.attaches();
      for (const stream of streams) await session.hears(stream, 512 * KIBIBYTE);
    },
  );

  await victim.survives(t, "D20 of one's own sessions the one that is alone longest makes room", async () => {
    const held = await Promise.all(Array.from({ length: 4 }, () => signedIn(victim, "alice")));
    await using first = await detachable(victim);
    first.enemy.socket.destroy();
    await eventually(async () => assert.ok(victim.log().some(({ msg }) => msg === "session detached")), "the loss");
    try {
      let granted = 0;
      for (const enemy of held) {
        enemy.say("DETACHABLE\r\n");
        if ((await enemy.line()).startsWith("+ DET")) granted++;
      }
      assert.equal(granted, 4);
      assert.equal(await first.refused(first.ticket), "- 410 that session is over");
    } finally {
      for (const enemy of held) enemy.socket.destroy();
    }
  });

  await victim.survives(t, "D20 four of an identity, none of nobody", async () => {
    await using nobody = await Enemy.approach(victim.at, TLS);
    nobody.say("DETACHABLE\r\nLIST tls\r\n");
    assert.match(await nobody.line(), /^- 507 /);
    assert.equal(await nobody.line(), "TLS", "the conversation goes on");
    await eventually(async () => {
      const all = await Promise.all(Array.from({ length: 6 }, () => signedIn(victim, "alice")));
      try {
        const answers: string[] = [];
        for (const enemy of all) {
          enemy.say("DETACHABLE\r\n");
          answers.push((await enemy.line()).slice(0, 5));
        }
        const granted = answers.filter((answer) => answer === "+ DET").length;
        assert.ok(granted <= 4 && answers.filter((answer) => answer === "- 507").length === 6 - granted);
        assert.ok(granted > 0);
      } finally {
        for (const enemy of all) enemy.socket.destroy();
      }
    }, "room, as those of the tests before end");
  });
});

/** A session of alice's with a ticket, and an echo on stream 1. */
class Detachable implements AsyncDisposable {
  readonly victim: Victim;
  readonly session: EnemySession;
  ticket: Ticket;
  /** Octets said on stream 1. */
  offset = 0;

  constructor(victim: Victim, session: EnemySession, ticket: Ticket) {
    this.victim = victim;
    this.session = session;
    this.ticket = ticket;
  }

  get enemy(): Enemy {
    return this.session.enemy;
  }

  get received(): number {
    return this.session.received;
  }

  get sent(): number {
    return this.session.sent;
  }

  set sent(position: number) {
    this.session.sent = position;
  }

  get texts(): ReadonlyMap<number, string> {
    return this.session.texts;
  }

  framed(...contents: readonly SequencedContent[]): Buffer {
    return this.session.framed(...contents);
  }

  say(...contents: readonly SequencedContent[]): void {
    this.session.say(...contents);
  }

  tell(frame: UnsequencedFrame): void {
    this.session.tell(frame);
  }

  acknowledge(): void {
    this.session.acknowledge();
  }

  hears(stream: number, what: RegExp | number): Promise<void> {
    return this.session.hears(stream, what);
  }

  goOn(enemy: Enemy): void {
    this.session.goOn(enemy);
  }

  /** Says words, and hears them. */
  async echoes(words: string): Promise<void> {
    this.session.say(data(1, this.offset, words));
    this.offset += words.length;
    await this.session.hears(1, new RegExp(words));
  }

  /** The line ATTACH, made with a ticket for a connection. */
  line(enemy: Enemy, ticket: Ticket, received = this.received, mode: AttachClaim["mode"] = "replace"): string {
    const { line } = this.#claimed(enemy, ticket, received, mode);
    return line;
  }

  #claimed(enemy: Enemy, ticket: Ticket, received: number, mode: AttachClaim["mode"]) {
    const { sid, generation } = ticket;
    const claim: AttachClaim = { sid, generation, mode, received, nonce: randomBytes(16) };
    const binding = bindingOf(enemy);
    return { claim, binding, line: attachLine({ ...claim, proof: proveAttach(ticket, claim, binding) }) };
  }

  /** What the server says to an attempt that it refuses. */
  async refused(ticket: Ticket, received = this.received): Promise<string> {
    await using enemy = await Enemy.approach(this.victim.at, TLS);
    enemy.say(`${this.line(enemy, ticket, received)}\r\n`);
    return (await enemy.rest()).trimEnd();
  }

  /** Attaches; the session is not told of it yet. */
  async answered(mode: AttachClaim["mode"] = "replace", received = this.received, on?: Enemy) {
    const enemy = on ?? (await Enemy.approach(this.victim.at, TLS));
    const { ticket } = this;
    const { claim, binding, line } = this.#claimed(enemy, ticket, received, mode);
    enemy.say(`${line}\r\n`);
    const said = await enemy.line();
    const attached = parseAttached(said);
    assert.ok(attached !== undefined, said);
    assert.deepEqual(
      Buffer.from(attached.proof),
      Buffer.from(serverProof(storedForm(ticket), claim, attached, binding)),
    );
    const next: Ticket = { sid: ticket.sid, generation: attached.generation, secret: attached.secret };
    return { enemy, attached, ticket, next };
  }

  /** Attaches, and goes on with the next ticket. */
  async attaches(received = this.received) {
    const answer = await this.answered("replace", received);
    return this.#goesOn(answer);
  }

  async attachesOn(enemy: Enemy) {
    return this.#goesOn(await this.answered("replace", this.received, enemy));
  }

  #goesOn<Answer extends { enemy: Enemy; next: Ticket }>(answer: Answer): Answer {
    this.session.goOn(answer.enemy);
    this.ticket = answer.next;
    return answer;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.session.say({ type: "end", code: Code.NO_ERROR });
    await this.session.enemy.over().catch(() => {});
    await this.session[Symbol.asyncDispose]();
  }
}

async function detachable(victim: Victim): Promise<Detachable> {
  const enemy = await signedIn(victim, "alice");
  enemy.say("DETACHABLE 600\r\n");
  const line = await enemy.line();
  const granted = parseDetachable(line);
  assert.ok(granted !== undefined, line);
  const session = await EnemySession.on(enemy);
  const { sid, generation, secret } = granted;
  session.say(open(1, "echo", MEBIBYTE));
  await session.hears(1, /^\+ SUCCESS\r\n/);
  return new Detachable(victim, session, { sid, generation, secret });
}

async function signedIn(victim: Victim, user: string): Promise<Enemy> {
  const enemy = await Enemy.approach(victim.at, TLS);
  enemy.say(`AUTH up ${user}\r\n`);
  for (const expected of [/^\+ SUCCESS <up>$/, /^\* Enter Password:/]) assert.match(await enemy.line(), expected);
  enemy.say("secret\r\n");
  assert.match(await enemy.line(), /successful$/);
  return enemy;
}

function bindingOf({ socket }: Enemy): Uint8Array {
  assert.ok(socket instanceof TLSSocket);
  return socket.exportKeyingMaterial(32, "EXPORTER-Channel-Binding", Buffer.alloc(0));
}
