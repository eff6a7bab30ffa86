import assert from "node:assert/strict";
import test from "node:test";
import fc from "fast-check";
import { effort, seed } from "../../test/sim/seed.ts";
import { RECALLED_STREAMS_MAX, RecallReader, recalledLines } from "./recalled-lines.ts";
import type { RecalledStream, Recollection } from "./state.ts";

const STREAM: RecalledStream = { id: 1, sent: 3, credit: 9, received: 4, granted: 8, ended: false, finished: true };
const TOLD: Recollection = {
  nextStream: 7,
  lastTaken: undefined,
  limit: 1_048_576,
  peer: { payload: 65_512, streams: 100, credit: 65_536, window: 1_048_576 },
  streams: [STREAM, { ...STREAM, id: 5, ended: true, finished: false }],
};

function read(lines: readonly string[]): Recollection | undefined {
  const reader = new RecallReader();
  for (const [at, line] of lines.entries()) {
    const found = reader.push(line);
    if (found === "nonsense") return undefined;
    assert.equal(found, at === lines.length - 1 ? "complete" : "more");
  }
  return reader.told;
}

test("what a server remembers is read as it was told", () => {
  const lines = recalledLines(TOLD);
  assert.deepEqual(lines, [
    "+ RECALLED 7 - 1048576 65512 100 65536 1048576 2",
    "+ STREAM 1 3 9 4 8 -s",
    "+ STREAM 5 3 9 4 8 c-",
  ]);
  assert.deepEqual(read(lines), TOLD);
  const alone = { ...TOLD, streams: [], lastTaken: 5 };
  assert.deepEqual(read(recalledLines(alone)), alone);
});

test("what makes no sense is not believed", () => {
  const [head = "", first = "", second = ""] = recalledLines(TOLD);
  for (const lines of [
    ["+ RECALLED 7 - 1 1 1 1 1"],
    [head.replace("7", "8")],
    [head.replace("7", "9007199254740993")],
    [head.replace(/2$/, String(RECALLED_STREAMS_MAX + 1))],
    [head.replace(/2$/, "-1")],
    ["- 403 ATTACH refused"],
    [head, second, first],
    [head, first, first],
    [head, first.replace("+ STREAM 1", "+ STREAM 2")],
    [head, first.replace("+ STREAM 1", "+ STREAM 7")],
    [head, first.replace("3 9", "9 3")],
    [head, first.replace("4 8", "8 4")],
    [head, first.replace("-s", "xs")],
    [head, first, second, second],
  ]) {
    const reader = new RecallReader();
    assert.ok(
      lines.some((line) => reader.push(line) === "nonsense"),
      lines.join(" / "),
    );
  }
  assert.equal(new RecallReader().told, undefined);
});

test("no line whatsoever breaks the reader", () => {
  const words = fc.array(fc.oneof(fc.nat(), fc.constantFrom("+", "RECALLED", "STREAM", "-", "--", "cs")), {
    maxLength: 10,
  });
  const line = fc.oneof(
    fc.string(),
    words.map((each) => each.join(" ")),
    fc.constantFrom(...recalledLines(TOLD)),
  );
  fc.assert(
    fc.property(fc.array(line, { maxLength: 6 }), (lines) => {
      const reader = new RecallReader();
      for (const each of lines) if (reader.push(each) === "nonsense") break;
    }),
    { seed, numRuns: 1_000 * effort },
  );
});
