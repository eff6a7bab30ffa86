import assert from "node:assert/strict";
import test from "node:test";
import type { Endpoint } from "../endpoint.ts";
import type { Balance } from "../schema.ts";
import { BACKOFF_MS_MAX, Pool, Target } from "./pool.ts";

const endpoint = (port: number): Endpoint => ({ type: "tcp", host: "127.0.0.1", port });

function pool(balance: Balance, size = 3): Pool {
  const endpoints = Array.from({ length: size }, (_, port) => endpoint(port)); // ports tell them apart
  return new Pool(endpoints, balance);
}

/** Ports of the targets that successive streams get; each keeps its stream. */
function chosen(from: Pool, streams: number): readonly (number | undefined)[] {
  return Array.from({ length: streams }, () => {
    const target = from.next(0, []);
    if (target !== undefined) target.streams++;
    return portOf(target);
  });
}

function portOf(target: Target | undefined): number | undefined {
  return target?.endpoint.type === "tcp" ? target.endpoint.port : undefined;
}

test("round-robin takes turns, first stays with the first, least-streams fills up evenly", () => {
  assert.deepEqual(chosen(pool("round-robin"), 7), [0, 1, 2, 0, 1, 2, 0]);
  assert.deepEqual(chosen(pool("first"), 3), [0, 0, 0]);
  assert.deepEqual(chosen(pool("least-streams"), 6), [0, 1, 2, 0, 1, 2]);
});

test("least-streams goes where streams have ended, and takes turns among equals", () => {
  const targets = pool("least-streams");
  chosen(targets, 6);
  for (const target of targets.targets.slice(1, 2)) target.streams = 0;
  assert.deepEqual(chosen(targets, 2), [1, 1]);
  const idle = pool("least-streams");
  const ports = Array.from({ length: 6 }, () => portOf(idle.next(0, [])));
  assert.deepEqual(ports, [0, 1, 2, 0, 1, 2], "short streams do not all go to the first");
});

test("an address that was tried, or is down, is passed over", () => {
  const targets = pool("first");
  const [a, b] = targets.targets;
  assert.ok(a !== undefined && b !== undefined);
  a.failed(a.era, 0);
  assert.deepEqual([targets.next(1, [])?.endpoint, targets.next(1, [b])?.endpoint], [endpoint(1), endpoint(2)]);
  assert.equal(targets.left(1, [b]), 1);
  assert.equal(targets.next(1, targets.targets), undefined);
  assert.deepEqual(targets.next(200, [])?.endpoint, endpoint(0), "after its time it is tried again");
});

test("R05 a failed address waits 100 ms, then twice as long after each failure, up to 5 s", () => {
  const target = new Target(endpoint(1));
  const waits: number[] = [];
  let now = 1_000;
  for (let failure = 0; failure < 8; failure++) {
    target.failed(target.era, now);
    waits.push(target.backoffMs);
    assert.equal(target.mayBeUp(now + target.backoffMs - 1), false);
    now += target.backoffMs;
    assert.equal(target.mayBeUp(now), true);
  }
  assert.deepEqual(waits, [100, 200, 400, 800, 1_600, 3_200, BACKOFF_MS_MAX, BACKOFF_MS_MAX]);
  assert.equal(target.succeeded(), true);
  assert.deepEqual([target.up, target.mayBeUp(now), target.succeeded()], [true, true, false]);
  target.failed(target.era, now);
  assert.equal(target.backoffMs, 100);
});

test("a hundred attempts that fail together are one failure", () => {
  const target = new Target(endpoint(1));
  const eras = Array.from({ length: 100 }, () => target.era);
  assert.deepEqual(
    eras.map((era) => target.failed(era, 5)).filter((news) => news),
    [true],
  );
  assert.equal(target.backoffMs, 100);
});

test("while an address is down one stream at a time tries it", () => {
  const targets = pool("least-streams", 1);
  const [target] = targets.targets;
  assert.ok(target !== undefined);
  target.failed(target.era, 0);
  assert.equal(targets.next(99, []), undefined);
  assert.equal(targets.next(100, []), target);
  assert.equal(targets.next(101, []), undefined, "the attempt under way is enough");
  assert.equal(targets.next(200, []), target, "it may have been given up without a result");
  target.succeeded();
  assert.equal(targets.next(201, []), target);
});
