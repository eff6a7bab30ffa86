/**
 * Asks for every word in every state of a conversation that this release has (test/vectors/words.json, PROTOCOL §3.3), of a real server,
 * and then finds out what the conversation has become.
 * @module
 */
import assert from "node:assert/strict";
import fs from "node:fs";
import path from "node:path";
import test from "node:test";
import { BUILT_IN_WORDS, RESERVED_WORDS } from "../../src/server/words.ts";
import { CARRIERS, Connection, type Conversation, Frames, multiplex, Stream } from "./by-hand.ts";
import { elsewhere, testElsewhere } from "./elsewhere.ts";
import { type Served, type Serving, type SetUp, serveSetUp } from "./set-up.ts";

interface Outcome {
  readonly refuse?: number;
  readonly next: "lines" | "tls" | "frames" | "bytes" | "closed";
}

interface Words {
  readonly states: readonly string[];
  readonly words: Readonly<Record<string, Readonly<Record<string, Outcome>>>>;
}

const vectors: Words = JSON.parse(
  fs.readFileSync(path.join(import.meta.dirname, "..", "vectors", "words.json"), "utf8"),
);

/** A way to a state: how to serve, and how to call. */
interface Way {
  readonly state: string;
  readonly serving?: Serving;
  /** A stream of a session in the clear: words that need TLS are refused there too (§3.3 ⁴). */
  readonly inTheClear?: true;
  /** AUTH has fixed the default host (§4.6). */
  readonly staysAtHost?: true;
  open(served: Served): Promise<Conversation>;
}

const ways: Readonly<Record<string, Way>> =
  elsewhere === undefined
    ? {
        "plain, from a loopback address": { state: "plain", open: ({ at }) => Connection.open(at) },
        "plain, over a Unix socket": {
          state: "plain",
          serving: { listen: "unix:socket" },
          open: ({ at }) => Connection.open(at),
        },
        "secure, from the first octet": {
          state: "secure",
          open: ({ at }) => CARRIERS["TLS from the first octet"](at, "whole"),
        },
        "secure, in-band": { state: "secure", open: ({ at }) => CARRIERS["TLS in-band"](at, "whole") },
        "stream, of a session in plaintext": {
          state: "stream",
          inTheClear: true,
          open: ({ at }) => CARRIERS["a stream in plaintext"](at, "whole"),
        },
        "stream, of a session inside TLS": {
          state: "stream",
          open: ({ at }) => CARRIERS["a stream in TLS"](at, "whole"),
        },
        "authenticated, inside TLS": {
          state: "authenticated",
          staysAtHost: true,
          open: async ({ at }) => signedIn(await CARRIERS["TLS in-band"](at, "whole")),
        },
        "stream-authenticated, of a connection that was signed in on": {
          state: "stream-authenticated",
          open: async ({ at }) => {
            const connection = await signedIn(await CARRIERS["TLS from the first octet"](at, "whole"));
            return new Stream(connection, await multiplex(connection), 1, "whole");
          },
        },
        "stream-authenticated, of a session that a stream signed in": {
          state: "stream-authenticated",
          async open({ at }) {
            const connection = await CARRIERS["TLS in-band"](at, "whole");
            const frames = await multiplex(connection);
            const stream = await signedIn(new Stream(connection, frames, 1, "whole"));
            await stream.end();
            await stream.over();
            return new Stream(connection, frames, 3, "whole");
          },
        },
      }
    : {
        "restricted, from elsewhere": {
          state: "restricted",
          serving: { listen: `tcp://${elsewhere}:0` },
          open: ({ at }) => Connection.open(at),
        },
        "plain, from elsewhere at a listener that says so": {
          state: "plain",
          serving: { listen: { url: `tcp://${elsewhere}:0`, plaintext: true } },
          open: ({ at }) => Connection.open(at),
        },
        "secure, from elsewhere": {
          state: "secure",
          serving: { listen: `tcp://${elsewhere}:0` },
          open: ({ at }) => CARRIERS["TLS in-band"](at, "whole"),
        },
      };

/** Says who it is, and is believed. */
async function signedIn<Kind extends Conversation>(conversation: Kind): Promise<Kind> {
  await conversation.say(Buffer.from("AUTH up alice\r\n"));
  assert.equal(await conversation.ear.line(), "+ SUCCESS <up>");
  assert.equal(await conversation.ear.line(), "* Enter Password:");
  await conversation.say(Buffer.from("secret\r\n"));
  assert.equal(await conversation.ear.line(), "Authentication as alice successful");
  return conversation;
}

const setUp: SetUp = {
  users: [{ name: "alice", password: "secret" }],
  services: [
    { name: "echo", allow: "anyone", does: "echo" },
    { name: "secret", allow: "ops", does: "echo" },
  ],
  hosts: { "git.example.org": { services: [] } },
};

/** What to say for a row of the table; every name that is none of this release is one that nobody knows. */
const requests: Readonly<Record<string, readonly string[]>> = {
  HOST: ["HOST localhost", "host GIT.example.org.", "hOsT 127.0.0.1"],
  // With mechanisms that nobody has: how AUTH succeeds is for auth.test.ts.
  AUTH: ["AUTH nothing", "auth <nothing,else>", "aUtH nothing at all"],
  // Of a session that is none: how ATTACH succeeds is for attach.test.ts.
  ATTACH: [
    "ATTACH 1 AAECAwQFBgcICQoLDA0ODw 0 replace 72 EBESExQVFhcYGRobHB0eHw p7Z-gapk-Vnz4bN4VSEd2wi1k_DbPAYC3hibSZfJt3c",
  ],
  DETACHABLE: ["DETACHABLE", "detachable 60", "dEtAchable 9999999999"],
  VIA: ["VIA 1", "via 8", "vIa 1 -"],
  "a service": ["echo", "ECHO", "eChO"],
  "an unknown name": [
    "nonexistent",
    "secret",
    "__proto__",
    "constructor",
    ...RESERVED_WORDS.filter((word) => !BUILT_IN_WORDS.some((own) => own === word)),
  ],
};

/** Words that a stream of a session in the clear has no more than plaintext has. */
const NEEDS_TLS: ReadonlySet<string> = new Set(["AUTH", "DETACHABLE", "PROVEAUTH", "GETSIGNKEY"]);

/** Those without an argument, in both cases. */
function requestsFor(word: string): readonly string[] {
  return requests[word] ?? [word, word.toLowerCase()];
}

/** A ticket; or, of a session that has as many as it may, none. */
const DETACHABLE = /^(\+ DETACHABLE [\w-]{22} 0 [\w-]{43} \d+ 1048576|- (503|507) .+)$/;

testElsewhere(import.meta.filename);

for (const [how, way] of Object.entries(ways)) {
  test(`L11 each word in the state ${how}`, async (t) => {
    const served = await serveSetUp(t, setUp, way.serving);
    let looked = 0;
    for (const [word, row] of Object.entries(vectors.words)) {
      if (RESERVED_WORDS.includes(word) && !BUILT_IN_WORDS.some((own) => own === word)) continue;
      const outcome = way.inTheClear && NEEDS_TLS.has(word) ? row["plain"] : row[way.state];
      assert.ok(outcome !== undefined, `${word} has no outcome in ${way.state}`);
      for (const request of requestsFor(word)) {
        if (way.staysAtHost && /git\.example/i.test(request)) continue;
        looked++;
        const told = [request, outcome.refuse ?? "acts", outcome.next].join(", ");
        await t.test(told, () => ask(served, way, request, outcome));
      }
    }
    assert.ok(looked > BUILT_IN_WORDS.length, "looked at too little");
  });
}

async function ask(served: Served, way: Way, request: string, { refuse, next }: Outcome): Promise<void> {
  await using conversation = await way.open(served);
  await conversation.say(Buffer.from(`${request}\r\n`));
  if (refuse !== undefined) assert.match(await conversation.ear.line(), new RegExp(`^- ${refuse} .`));
  else if (/^AUTH /i.test(request)) assert.match(await conversation.ear.line(), /^- 403 ./);
  else if (/^ATTACH /i.test(request)) {
    assert.match(await conversation.ear.line(), /^- 403 ./);
    return await prove(conversation, "closed");
  } else if (/^DETACHABLE/i.test(request)) assert.match(await conversation.ear.line(), DETACHABLE);
  else if (/^(LIST|HELP)$/i.test(request)) await heardList(conversation, way.state !== "restricted");
  else assert.equal(await conversation.ear.line(), "+ SUCCESS");
  await prove(conversation, next);
}

/** LIST, to its empty line: built-in words always, services where they may be used. */
async function heardList({ ear }: Conversation, services: boolean): Promise<void> {
  const lines: string[] = [];
  for (let line = await ear.line(); line !== ""; line = await ear.line()) lines.push(line);
  assert.deepEqual(lines, [...BUILT_IN_WORDS, ...(services ? ["echo"] : [])]);
}

/** Does what only a conversation that has become this can do. */
async function prove(conversation: Conversation, next: Outcome["next"]): Promise<void> {
  const { ear } = conversation;
  switch (next) {
    case "lines":
      await conversation.say(Buffer.from("LIST tls\r\n"));
      assert.deepEqual([await ear.line(), await ear.line()], ["TLS", ""]);
      await conversation.end();
      return await conversation.over();
    case "closed":
      return await conversation.over();
    case "bytes":
      await conversation.say(Buffer.from("LIST\r\n\0\x16\xff"));
      assert.equal((await ear.take(10)).toString("latin1"), "LIST\r\n\0\x16\xc3\xbf");
      await conversation.end();
      return await conversation.over();
    case "tls": {
      assert.ok(conversation instanceof Connection);
      await conversation.secure();
      await conversation.say(Buffer.from("LIST echo\r\n"));
      assert.deepEqual([await conversation.ear.line(), await conversation.ear.line()], ["echo", ""]);
      return;
    }
    case "frames": {
      assert.ok(conversation instanceof Connection);
      const frames = new Frames(conversation);
      await frames.settings.promise;
      await frames.say({ type: "settings", entries: new Map() }, { type: "end", code: 0 });
      await conversation.end();
      return await conversation.over();
    }
  }
}

test("the table has the words and states that the server has", () => {
  const words = Object.keys(vectors.words).filter((word) => !word.startsWith("a"));
  assert.deepEqual(words, RESERVED_WORDS);
  for (const row of Object.values(vectors.words)) assert.deepEqual(Object.keys(row), vectors.states);
});
