import assert from "node:assert/strict";
import test from "node:test";
import { LOG_WINDOW_BYTES, NARROW_WINDOW_BYTES } from "./limits.ts";
import { LogWindow } from "./window.ts";

const MiB = 2 ** 20;

/** A path that takes `leastMs` when it is empty, and holds up what is under way beyond that. */
interface Path {
  readonly leastMs: number;
  readonly bytesPerMs: number;
  /** Round trips are as long as others make them. */
  readonly foreignMs?: number;
}

/** One look at a loaded path: three questions and their answers. */
function look(window: LogWindow, { leastMs, bytesPerMs, foreignMs = 0 }: Path): void {
  for (let sample = 0; sample < 3; sample++) {
    const roundTripMs = Math.max(leastMs + foreignMs, window.bytes / bytesPerMs);
    window.measured(roundTripMs, Math.min(window.bytes, roundTripMs * bytesPerMs));
  }
}

test("it doubles while half of it comes well within the shortest round trip, up to its bound", () => {
  const window = new LogWindow(3 * MiB, 0);
  window.measured(100, undefined);
  window.acknowledging(MiB / 4, 100, 20);
  assert.equal(window.bytes, LOG_WINDOW_BYTES, "a quarter says nothing");
  window.acknowledging(MiB / 2, 100, 79);
  assert.equal(window.bytes, 2 * MiB);
  window.acknowledging(MiB / 2 + MiB, 100, 160);
  assert.equal(window.bytes, 2 * MiB, "81 ms are too long");
  window.acknowledging(MiB / 2 + 2 * MiB, 100, 200);
  assert.equal(window.bytes, 3 * MiB);
});

test("a queue brings it down to what keeps the path full, and there it stays", () => {
  const path: Path = { leastMs: 28, bytesPerMs: 6_250 };
  const window = new LogWindow(8 * MiB, 0);
  window.measured(path.leastMs, undefined);
  for (let looks = 0; looks < 10; looks++) look(window, path);
  const roundTripMs = window.bytes / path.bytesPerMs;
  assert.ok(roundTripMs > path.leastMs && roundTripMs < 28 + 16 + 8, `${roundTripMs} ms`);
  window.acknowledging(window.bytes / 2, 28, 1);
  assert.ok(window.bytes < MiB / 2, "one quick half is no reason to double it again");
});

test("it does not come down for a short queue, a single long answer, or where others bound what is under way", () => {
  const window = new LogWindow(8 * MiB, 0);
  window.measured(28, undefined);
  look(window, { leastMs: 28, bytesPerMs: MiB / 46 });
  assert.equal(window.bytes, LOG_WINDOW_BYTES);
  for (const [roundTripMs, underWay] of [
    [30, MiB],
    [500, MiB],
    [30, MiB],
  ] as const)
    window.measured(roundTripMs, underWay);
  assert.equal(window.bytes, LOG_WINDOW_BYTES);
  for (let sample = 0; sample < 3; sample++) window.measured(300, MiB / 4);
  assert.equal(window.bytes, LOG_WINDOW_BYTES);
});

test("it never comes below four full frames", () => {
  const window = new LogWindow(8 * MiB, 0);
  window.measured(1, undefined);
  for (let looks = 0; looks < 10; looks++) look(window, { leastMs: 1, bytesPerMs: 10 });
  assert.equal(window.bytes, NARROW_WINDOW_BYTES);
});

test("a queue that does not get shorter is another's: the window comes back, and does not go down again for it", () => {
  const path: Path = { leastMs: 28, bytesPerMs: 1e6, foreignMs: 100 };
  const window = new LogWindow(8 * MiB, 0);
  window.measured(28, undefined);
  for (let sample = 0; sample < 3; sample++) window.measured(128, MiB);
  assert.ok(window.bytes < MiB / 2);
  for (let sample = 0; sample < 3; sample++) window.measured(128, window.bytes);
  assert.equal(window.bytes, LOG_WINDOW_BYTES);
  for (let looks = 0; looks < 10; looks++) look(window, path);
  assert.equal(window.bytes, LOG_WINDOW_BYTES);
});

test("a fitted window grows with the path, slowly; a new connection lets it double again", () => {
  const window = new LogWindow(8 * MiB, 0);
  window.measured(28, undefined);
  for (let looks = 0; looks < 5; looks++) look(window, { leastMs: 28, bytesPerMs: 6_250 });
  const narrow = window.bytes;
  for (let looks = 0; looks < 4; looks++) look(window, { leastMs: 28, bytesPerMs: 100_000 });
  assert.ok(window.bytes > 1.5 * narrow && window.bytes < 3 * narrow, `${narrow} became ${window.bytes}`);
  window.newPath();
  window.measured(28, undefined);
  const before = window.bytes;
  window.acknowledging(0, 28, 100);
  window.acknowledging(before, 28, 110);
  assert.equal(window.bytes, 2 * before);
});

test("it asks for the round trip a few times a second at most, and not before it knows the path", () => {
  const window = new LogWindow(8 * MiB, 0);
  assert.ok(!window.wantsRoundTrip(1_000));
  window.measured(28, undefined);
  let asked = 0;
  for (let now = 1_000; now < 11_000; now++) if (window.wantsRoundTrip(now)) asked++;
  assert.ok(asked >= 10 && asked < 20, `${asked} times in ten seconds`);
});
