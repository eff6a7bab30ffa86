/**
 * Says the lines of test/vectors/lines.json to a real server, whole and octet by octet, and compares what it answers and what the
 * conversation then is. What a reader alone makes of them is tested beside the vectors.
 * @module
 */
import assert from "node:assert/strict";
import fs from "node:fs";
import path from "node:path";
import test from "node:test";
import { BUILT_IN_WORDS } from "../../src/server/words.ts";
import { CARRIERS, Connection, type Conversation, CUTS, type Cut, Frames } from "./by-hand.ts";
import { elsewhere, testElsewhere } from "./elsewhere.ts";
import { type Served, serveSetUp } from "./set-up.ts";

interface Vector {
  readonly name: string;
  readonly needs?: readonly string[];
  readonly state?: string;
  readonly input: readonly { readonly ascii?: string; readonly hex?: string; readonly times?: number }[];
  readonly results: readonly {
    readonly word?: string;
    readonly answer?: string | number;
    readonly refuse?: number;
  }[];
  readonly then: "lines" | "tls" | "frames" | "bytes" | "closed";
  readonly waits?: number;
  readonly rest?: string;
  readonly prints?: readonly string[];
}

interface Vectors {
  readonly services: readonly string[];
  readonly forbidden: readonly string[];
  readonly hosts: readonly string[];
  readonly lines: readonly Vector[];
}

const vectors: Vectors = JSON.parse(
  fs.readFileSync(path.join(import.meta.dirname, "..", "vectors", "lines.json"), "utf8"),
);

/** Longer inputs octet by octet show nothing that shorter ones do not, and take their time. */
const SINGLY_OCTETS_MAX = 2_000;

testElsewhere(import.meta.filename);

test("lines.json, said to a server", async (t) => {
  const served = await serveSetUp(
    t,
    {
      services: [
        ...vectors.services.map((name) => ({ name, allow: "anyone", does: "echo" as const })),
        ...vectors.forbidden.map((name) => ({ name, allow: "ops", does: "echo" as const })),
      ],
      hosts: Object.fromEntries(vectors.hosts.map((name) => [name, { services: [] }])),
    },
    { listen: `tcp://${elsewhere ?? "127.0.0.1"}:0` },
  );
  const sayable = vectors.lines.filter(({ needs = [], state = "plain" }) => {
    const here = (state === "restricted") === (elsewhere !== undefined);
    return here && needs.every((need) => BUILT_IN_WORDS.some((word) => word === need));
  });
  assert.ok(sayable.length > 0, "looked at nothing");
  for (const vector of sayable) {
    const octets = octetsOf(vector);
    // Plaintext behind TLS is one only if the server finds both together; inside TLS the word is another case.
    const asksForTls = vector.results.some(({ word }) => word === "TLS");
    const cuts: readonly Cut[] = asksForTls || octets.length > SINGLY_OCTETS_MAX ? ["whole"] : CUTS;
    for (const cut of cuts) {
      await t.test(`${vector.name}, ${cut}`, async () => {
        await using connection = await Connection.open(served.at, cut);
        await check(connection, vector, octets);
      });
      const isForTheClear = asksForTls || vector.results.some(({ answer }) => answer === 530);
      if (elsewhere === undefined && !isForTheClear)
        await t.test(`${vector.name}, ${cut}, inside TLS`, () => checkInTls(served, vector, octets, cut));
    }
  }
});

async function checkInTls(served: Served, vector: Vector, octets: Uint8Array, cut: Cut): Promise<void> {
  await using connection = await CARRIERS["TLS in-band"](served.at, cut);
  await check(connection, vector, octets);
}

async function check(connection: Connection, vector: Vector, octets: Uint8Array): Promise<void> {
  await connection.say(octets);
  const printed: string[] = [];
  for (const { word = "", answer, refuse } of vector.results) {
    const refused = refuse ?? (typeof answer === "number" ? answer : undefined);
    if (refused !== undefined) assert.match(await connection.ear.line(), new RegExp(`^- ${refused} .`));
    else if (/^(LIST|HELP)$/i.test(word)) printed.push(...(await listing(connection)));
    else assert.equal(await connection.ear.line(), "+ SUCCESS");
  }
  if (vector.prints !== undefined) assert.deepEqual(printed, vector.prints);
  if (vector.then === "closed") return await connection.over();
  if (vector.then === "frames") {
    await new Frames(connection).settings.promise;
    return;
  }
  if (vector.then === "bytes") {
    // Whatever came behind the request, and comes now, is the service's; this one gives it back.
    await connection.say(Buffer.from("LIST\r\n"));
    const rest = Buffer.concat([Buffer.from(vector.rest ?? "", "hex"), Buffer.from("LIST\r\n")]);
    assert.deepEqual(await connection.ear.take(rest.length), rest);
  } else if (vector.waits === undefined) {
    await connection.say(Buffer.from("LIST tls\r\n"));
    assert.deepEqual(await listing(connection), ["TLS", ""]);
  }
  // A line that is waited for is answered neither before its end nor when that can no longer come.
  await connection.end();
  await connection.over();
}

async function listing({ ear }: Conversation): Promise<string[]> {
  const lines: string[] = [];
  do lines.push(await ear.line());
  while (lines.at(-1) !== "");
  return lines;
}

function octetsOf({ input }: Vector): Uint8Array {
  return Buffer.concat(
    input.map(({ ascii, hex = "", times = 1 }) => {
      const part = ascii === undefined ? Buffer.from(hex, "hex") : Buffer.from(ascii, "latin1");
      return Buffer.concat(Array.from({ length: times }, () => part));
    }),
  );
}
