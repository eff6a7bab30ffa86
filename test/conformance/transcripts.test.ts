/**
 * Plays every conversation of test/vectors/transcripts with a real server, whole and octet by octet: as it is written, and, where nothing
 * in it says what carries it, over everything that can carry a conversation.
 * @module
 */
import assert from "node:assert/strict";
import fs from "node:fs";
import type { NetConnectOpts } from "node:net";
import path from "node:path";
import test, { type TestContext } from "node:test";
import { BUILT_IN_WORDS, RESERVED_WORDS } from "../../src/server/words.ts";
import { encodeUnsequenced, type Frame, FrameReader } from "../../src/wire/index.ts";
import { CARRIERS, Connection, type Conversation, CUTS, type Cut, Frames } from "./by-hand.ts";
import { elsewhere, testElsewhere } from "./elsewhere.ts";
import { type SetUp, serveSetUp } from "./set-up.ts";

/** A line, octets or a frame of one end, a handshake, or an end; test/vectors/README.md says what each means. */
interface Step {
  readonly c?: string;
  readonly cText?: string;
  readonly cFrame?: string;
  readonly s?: string;
  readonly sText?: string;
  readonly sFrame?: string;
  readonly words?: readonly string[];
  readonly tls?: { readonly sni?: string };
  readonly end?: "client" | "server";
}

interface Transcript extends SetUp {
  readonly name: string;
  readonly needs?: readonly string[];
  readonly transport: "plain" | "restricted";
  readonly steps: readonly Step[];
}

const folder = path.join(import.meta.dirname, "..", "vectors", "transcripts");
const all: readonly Transcript[] = fs
  .globSync("*.json", { cwd: folder })
  .sort()
  .map((file) => JSON.parse(fs.readFileSync(path.join(folder, file), "utf8")));

const implemented: ReadonlySet<string> = new Set(BUILT_IN_WORDS);
const playable = all.filter(({ needs = [] }) => needs.every((word) => implemented.has(word)));

test("every transcript is played, but those that need words of later releases, and say so", (t) => {
  assert.ok(playable.length > 0, "looked at nothing");
  for (const { name, needs = [] } of all.filter((transcript) => !playable.includes(transcript))) {
    const missing = needs.filter((word) => !implemented.has(word));
    for (const word of missing) assert.ok(RESERVED_WORDS.includes(word), `${name} needs ${word}, which is no word`);
    t.diagnostic(`${name} waits for ${missing.join(" and ")}`);
  }
});

testElsewhere(import.meta.filename);

for (const transcript of playable) {
  const anyhow = elsewhere === undefined && transcript.transport === "plain" && carriedAnyhow(transcript);
  if (!anyhow && (transcript.transport === "plain" ? elsewhere === undefined : mayBePlayed(transcript)))
    for (const cut of CUTS)
      test(`${transcript.name}, ${cut}`, async (t) => {
        const { at } = await serveSetUp(t, transcript, { listen: `tcp://${elsewhere ?? "127.0.0.1"}:0` });
        await using connection = await Connection.open(at, cut);
        await play(transcript, connection, connection);
      });
  for (const [carrier, open] of Object.entries(anyhow ? CARRIERS : {}))
    for (const cut of CUTS) test(`${transcript.name} over ${carrier}, ${cut}`, (t) => carry(t, transcript, open, cut));
}

async function carry(
  t: TestContext,
  transcript: Transcript,
  open: (at: NetConnectOpts, cut: Cut) => Promise<Conversation>,
  cut: Cut,
): Promise<void> {
  const { at } = await serveSetUp(t, transcript);
  await using conversation = await open(at, cut);
  await play(transcript, conversation, undefined);
}

/** Clients of this computer may play those from elsewhere too, unless the answers tell where they came from. */
function mayBePlayed({ steps }: Transcript): boolean {
  return elsewhere !== undefined || !steps.some(({ s }) => s?.startsWith("- 530") === true);
}

/** True where nothing is asked of what carries the conversation. */
function carriedAnyhow({ steps }: Transcript): boolean {
  return steps.every(({ tls, cFrame, sFrame }) => tls === undefined && cFrame === undefined && sFrame === undefined);
}

/** Plays a transcript; `connection` where it may ask for TLS or frames. */
async function play(transcript: Transcript, conversation: Conversation, connection: Connection | undefined) {
  let frames: Frames | undefined;
  const steps = [...transcript.steps];
  for (let step = steps.shift(); step !== undefined; step = steps.shift()) {
    if (said(step, frames) !== undefined) {
      const group: Step[] = [step];
      while (steps[0] !== undefined && said(steps[0], frames) !== undefined) group.push(steps.shift() ?? {});
      await say(conversation, group, frames);
    } else if (step.tls !== undefined) {
      await connection?.secure(step.tls);
    } else if (step.sFrame !== undefined) {
      assert.ok(connection !== undefined);
      frames ??= new Frames(connection);
      await expectFrame(frames, frameOf(step.sFrame));
    } else if (step.end === "client") {
      await conversation.end();
    } else if (step.end === "server") {
      return await conversation.over();
    } else await expectOctets(conversation, step);
  }
  // The conversation was left open: nothing was said that the transcript does not have.
  await conversation.end();
  await conversation.over();
}

/** The octets of a client's step; undefined for every other step. */
function said(step: Step, frames: Frames | undefined): Uint8Array | undefined {
  if (step.c !== undefined) return Buffer.from(`${step.c}\r\n`);
  if (step.cText !== undefined) return Buffer.from(step.cText);
  if (step.cFrame === undefined) return undefined;
  const frame = frameOf(step.cFrame);
  if ("seq" in frame || frames === undefined) return Buffer.from(step.cFrame, "hex");
  // What our server's log has reached depends on how it cuts its DATA; an acknowledgement of more than that would be a fault.
  const { received } = frames;
  return encodeUnsequenced(
    frame.type === "ack" ? { ...frame, received, limit: received + 1_048_576 } : { ...frame, received },
  );
}

/** Sends what stands together, in one write or octet by octet. */
async function say(conversation: Conversation, group: readonly Step[], frames: Frames | undefined): Promise<void> {
  const octets = Buffer.concat(group.map((step) => said(step, frames) ?? Buffer.alloc(0)));
  // Octets behind the TLS line are plaintext only if the server finds them together with it: later ones are a handshake (PROTOCOL §4.3).
  const together = group[0]?.c === "TLS" && group.length > 1 ? "TLS\r".length : octets.length;
  await conversation.say(octets.subarray(0, together));
  if (together < octets.length) await conversation.say(octets.subarray(together), "whole");
}

async function expectOctets({ ear }: Conversation, { s, sText, words }: Step): Promise<void> {
  if (s !== undefined) assert.equal(withoutText(await ear.line()), withoutText(s));
  if (sText !== undefined) assert.equal((await ear.take(sText.length)).toString("latin1"), sText);
  if (words === undefined) return;
  const listed: string[] = [];
  for (const _ of BUILT_IN_WORDS) listed.push(await ear.line());
  assert.deepEqual(
    listed.filter((word) => words.includes(word)),
    words,
  );
  assert.deepEqual(
    listed.filter((word) => !words.includes(word) && !RESERVED_WORDS.includes(word)),
    [],
  );
}

/** Texts behind the code of a refusal are free. */
function withoutText(line: string): string {
  return line.replace(/^(- \d{3}) .*$/, "$1");
}

/** Frames match by what they say: DATA may be cut otherwise, SETTINGS have other values, ACK come at other times or not at all. */
async function expectFrame(frames: Frames, frame: Frame): Promise<void> {
  switch (frame.type) {
    case "settings":
      await frames.settings.promise;
      return;
    case "data": {
      const ear = frames.stream(frame.stream);
      const text = Buffer.from(frame.payload).toString("latin1");
      if (text.startsWith("- ")) assert.equal(`${withoutText(await ear.line())}`, withoutText(text.trimEnd()));
      else assert.equal((await ear.take(text.length)).toString("latin1"), text);
      if (frame.fin) await ear.over();
      return;
    }
    case "reset":
      assert.equal(await frames.reset(frame.stream), frame.code);
      return;
    case "ack":
      return;
    default:
      assert.fail(`a transcript's server says ${frame.type}, which this test does not know how to hear`);
  }
}

function frameOf(hex: string): Frame {
  const reader = new FrameReader();
  reader.push(Buffer.from(hex, "hex"));
  const frame = reader.next();
  assert.ok(frame !== undefined && frame.type !== "error");
  return frame;
}
