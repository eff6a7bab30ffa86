import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import test from "node:test";
import fc from "fast-check";
import { effort, seed } from "../../test/sim/seed.ts";
import { FivedError } from "../io/index.ts";
import { type DetachedSession, detachedStreams, parseDetached, printDetached } from "./detached.ts";

const SESSION: DetachedSession = {
  address: "example.org",
  fingerprint: "SHA256:jS2bZ5GvhXz0n0rqyWqrmEFyhV3f0eWUq1vdCZy0z0A",
  ticket: { sid: randomBytes(16), generation: 3, secret: randomBytes(32) },
  ttlMs: 900_000,
  expires: 2_000,
  state: {
    ...{ sent: 500, received: 900, limit: 2_000, nextStream: 7, lastTaken: undefined },
    peer: { payload: 65_512, streams: 100, credit: 65_536, window: 1_048_576 },
    streams: [
      {
        ...{ id: 1, request: Buffer.from("shell"), sent: 12, credit: 100, received: 40, granted: 200, window: 160 },
        ...{ ended: false, finished: true },
      },
      {
        ...{
          id: 5,
          request: Buffer.from("HOST a.example"),
          sent: 0,
          credit: 100,
          received: 0,
          granted: 200,
          window: 160,
        },
        ...{ ended: true, finished: false },
      },
    ],
    reset: [[3, 77]],
  },
};

test("a detached session is read as it was written", async () => {
  const text = printDetached(SESSION);
  assert.match(text, /^fived-session:[\w-]+$/);
  const read = await parseDetached(`\n ${text} \r\n`, 1_999);
  const plain = ({ ticket, state, ...rest }: DetachedSession): object => ({
    ...rest,
    ticket: { ...ticket, sid: [...ticket.sid], secret: [...ticket.secret] },
    state: { ...state, streams: state.streams.map((stream) => ({ ...stream, request: [...stream.request] })) },
  });
  assert.deepEqual(plain(read), plain(SESSION));
  assert.deepEqual(detachedStreams(read.state), [
    { id: 1, service: "shell", sent: 12, received: 40 },
    { id: 5, service: "HOST", sent: 0, received: 0 },
  ]);
});

async function refused(text: string, now = 0): Promise<void> {
  await assert.rejects(
    parseDetached(text, now),
    (error) => error instanceof FivedError && error.code === "TOKEN_BAD" && !error.message.includes(text.slice(20, 60)),
  );
}

test("what is no token, or one whose time is over, is refused, and nothing of it is repeated", async () => {
  await refused(printDetached(SESSION), 2_000);
  for (const text of ["", "fived-session:", `fived-session:${"A".repeat(2_000_000)}`])
    await assert.rejects(parseDetached(text, 0));
  const broken = (
    change: (contents: { [key: string]: unknown; streams: { [key: string]: unknown }[] }) => void,
  ): string => {
    const contents = JSON.parse(Buffer.from(printDetached(SESSION).slice(14), "base64url").toString());
    change(contents);
    return `fived-session:${Buffer.from(JSON.stringify(contents)).toString("base64url")}`;
  };
  const changes: Parameters<typeof broken>[0][] = [
    (token) => {
      token["version"] = 2;
    },
    (token) => {
      token["more"] = 1;
    },
    (token) => {
      token["secret"] = "AAAA";
    },
    (token) => {
      token["sent"] = -1;
    },
    (token) => {
      token["received"] = 2 ** 53;
    },
    (token) => {
      token["limit"] = 899;
    },
    (token) => {
      token["key"] = "MD5:00";
    },
    ({ streams }) => {
      streams[1] = { ...streams[1], id: 1 };
    },
    ({ streams }) => {
      streams[1] = { ...streams[1], id: 7 };
    },
    ({ streams }) => {
      streams[0] = { ...streams[0], sent: 101 };
    },
    ({ streams }) => {
      streams[0] = { ...streams[0], received: 201 };
    },
    ({ streams }) => {
      streams[0] = { ...streams[0], request: 5 };
    },
  ];
  for (const change of changes) await refused(broken(change));
});

test("whatever octets are read as a token, it is one or it is refused", async () => {
  const good = printDetached(SESSION);
  await fc.assert(
    fc.asyncProperty(
      fc.oneof(
        fc.string(),
        fc.string().map((text) => `fived-session:${text}`),
        fc.json().map((text) => `fived-session:${Buffer.from(text).toString("base64url")}`),
        fc
          .tuple(fc.nat(good.length - 1), fc.string({ minLength: 1, maxLength: 1 }))
          .map(([at, with_]) => good.slice(0, at) + with_ + good.slice(at + 1)),
      ),
      async (text) => {
        try {
          await parseDetached(text, 0);
        } catch (error) {
          assert.ok(error instanceof FivedError && error.code === "TOKEN_BAD", String(error));
        }
      },
    ),
    { seed, numRuns: 500 * effort },
  );
});
