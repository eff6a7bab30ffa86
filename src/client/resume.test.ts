import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import { once } from "node:events";
import fs from "node:fs";
import type { Socket } from "node:net";
import path from "node:path";
import test, { type TestContext } from "node:test";
import { eventually, within } from "../../test/support/deadline.ts";
import { type Heard, type Script, type Scripted, scripted } from "../../test/support/scripted-server.ts";
import {
  type Attached,
  type AttachRequest,
  attachedLine,
  detachableLine,
  parseAttach,
  serverProof,
  storedForm,
  type Ticket,
} from "../identity/index.ts";
import { codeName } from "../wire/index.ts";
import { parseAddress } from "./address.ts";
import type { AttachAnswer } from "./attach.ts";
import { connect } from "./connect.ts";
import { type Resumable, Resumption } from "./resume.ts";

const TICKET: Ticket = { sid: randomBytes(16), generation: 4, secret: randomBytes(32) };
const POSITIONS = { sent: 111, acknowledged: 84, received: 107 };
const SAID = { received: 111, base: 107, generation: 5, secret: randomBytes(32), limit: 1_000 };

/** What a session was told, of one that waits for a connection. */
class Waiting implements Resumable {
  readonly positions: Resumable["positions"];
  readonly roundTripMs = undefined;
  readonly told = Promise.withResolvers<{ code?: string; attached?: Attached; rest?: string }>();
  readonly stored: Ticket[] = [];

  constructor(positions: Resumable["positions"] = POSITIONS) {
    this.positions = positions;
  }

  store(ticket: Ticket): void {
    this.stored.push(ticket);
  }

  resumed(socket: Socket, { attached, rest }: AttachAnswer): void {
    this.told.resolve({ attached, rest: Buffer.from(rest).toString("latin1") });
    socket.destroy();
  }

  failed(code: number): void {
    this.told.resolve({ code: codeName(code) });
  }

  /** Begins to look for a connection. */
  resume(t: TestContext, server: Scripted): Resumption {
    const options = { ...server.options, log() {} };
    const address = parseAddress(server.address);
    const [, host = "", port] = /^(.+):(\d+)$/.exec(server.address) ?? [];
    const resumption = new Resumption(this, TICKET, {
      address,
      options,
      reached: { host, port: Number(port) },
    });
    t.after(() => resumption.stop());
    return resumption;
  }
}

/** Answers ATTACH as a server that has the ticket does. */
function attaching(answer: (request: AttachRequest, on: Heard, times: number) => readonly string[]): Script {
  let times = 0;
  return (line, on) => {
    const [word, ...args] = line.split(" ");
    const request = parseAttach(args);
    if (word !== "ATTACH" || request === undefined) return ["- 501 Ill-formed"];
    return answer(request, on, times++);
  };
}

function honest(said: Attached, request: AttachRequest, { binding }: Heard): string {
  return attachedLine(said, serverProof(storedForm(TICKET), request, said, binding));
}

interface ClientCase {
  readonly name: string;
  readonly client?: Resumable["positions"];
  readonly answer: { readonly rxs: number; readonly base: number };
  readonly goesOn?: boolean;
  readonly ends?: string;
}

const vectors: { attach: readonly ClientCase[] } = JSON.parse(
  fs.readFileSync(path.join(import.meta.dirname, "../../test/vectors/session.json"), "utf8"),
);

for (const { name, client, answer, goesOn = false, ends } of vectors.attach) {
  if (client === undefined) continue;
  test(`D16 what the server says of the counts is checked: ${name}`, async (t) => {
    const said = { ...SAID, received: answer.rxs, base: answer.base };
    const server = await scripted(
      t,
      attaching((request, on) => [honest(said, request, on)]),
    );
    const waiting = new Waiting(client);
    waiting.resume(t, server);
    const told = await within(waiting.told.promise, "an end or a connection");
    if (goesOn) assert.deepEqual(told, { attached: said, rest: "" });
    else assert.deepEqual(told, { code: ends });
    assert.equal(waiting.stored.length, goesOn ? 1 : 0);
  });
}

test("D17 a server that does not prove that it has the session is not believed: ticket and log stay, and it is tried again", async (t) => {
  const forged: ((request: AttachRequest, on: Heard) => string)[] = [
    () => attachedLine(SAID, randomBytes(32)),
    (request, on) => honest(SAID, { ...request, nonce: randomBytes(16) }, on),
    (request, on) => honest(SAID, request, { ...on, binding: randomBytes(32) }),
    // Counts that are not those that the proof is of.
    (request, on) =>
      attachedLine({ ...SAID, received: 90 }, serverProof(storedForm(TICKET), request, SAID, on.binding)),
    () => "+ SUCCESS",
    () => "* 200",
  ];
  const server = await scripted(
    t,
    attaching((request, on, times) => [forged[times]?.(request, on) ?? honest(SAID, request, on)]),
  );
  const waiting = new Waiting();
  waiting.resume(t, server);
  const told = await within(waiting.told.promise, "a connection");
  assert.deepEqual(told, { attached: SAID, rest: "" });
  assert.deepEqual(waiting.stored, [{ sid: TICKET.sid, generation: 5, secret: SAID.secret }]);
  const claims = server.heard.flatMap(({ lines }) => lines.filter((line) => line.startsWith("ATTACH")));
  assert.equal(claims.length, forged.length + 1);
  for (const claim of claims) assert.equal(parseAttach(claim.split(" ").slice(1))?.generation, TICKET.generation);
  assert.equal(new Set(claims).size, claims.length, "no line is said twice");
});

test("the frames behind the answer are the session's", async (t) => {
  const server = await scripted(
    t,
    attaching((request, on) => [`${honest(SAID, request, on)}\r\nframes`]),
  );
  const waiting = new Waiting();
  waiting.resume(t, server);
  assert.equal((await within(waiting.told.promise, "a connection")).rest, "frames\r\n");
});

for (const [said, code] of [
  ["- 403 ATTACH refused", "UNAVAILABLE"],
  ["- 410 that session is over", "UNAVAILABLE"],
] as const) {
  test(`a session that cannot be attached to is over: ${said}`, async (t) => {
    const server = await scripted(t, (line) => (line.startsWith("ATTACH") ? [said] : ["- 501 Ill-formed"]));
    const waiting = new Waiting();
    waiting.resume(t, server);
    assert.deepEqual(await within(waiting.told.promise, "the end"), { code });
    assert.deepEqual(waiting.stored, []);
  });
}

for (const said of ["- 429 Later", "- 503 Not now", "- 500 Something broke"]) {
  test(`a server that cannot attach now is asked again: ${said}`, async (t) => {
    const server = await scripted(
      t,
      attaching((request, on, times) => [times < 3 ? said : honest(SAID, request, on)]),
    );
    const waiting = new Waiting();
    const resumption = waiting.resume(t, server);
    assert.deepEqual(await within(waiting.told.promise, "a connection"), { attached: SAID, rest: "" });
    assert.match(resumption.trouble, new RegExp(said.slice(2)));
  });
}

test("who is stopped dials no more, and uses no connection that comes too late", async (t) => {
  const server = await scripted(t, () => undefined);
  const waiting = new Waiting();
  const resumption = waiting.resume(t, server);
  await eventually(async () => assert.ok(server.heard.some(({ lines }) => lines.length > 0)), "an attempt");
  const [first] = server.heard;
  assert.ok(first !== undefined);
  const over = once(first.socket, "close");
  resumption.stop();
  await within(over, "the end of the attempt");
  assert.deepEqual(waiting.stored, []);
});

test("a server that gives a ticket of nonsense is none that is believed", async (t) => {
  const server = await scripted(t, (line) =>
    line.startsWith("DETACHABLE")
      ? [`${detachableLine({ ...TICKET, ttlSeconds: 60, queueBytes: 1 })} and more`]
      : line === "MULTIPLEX"
        ? undefined
        : ["+ SUCCESS"],
  );
  const session = await connect(server.address, { ...server.options, detachable: 60 });
  await assert.rejects(session.closed, { code: "PROTOCOL_ERROR", message: /DETACHABLE/ });
});
