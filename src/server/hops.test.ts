import assert from "node:assert/strict";
import test from "node:test";
import { Hops } from "./hops.ts";
import { silentLog } from "./log.ts";
import type { FarServer, Hop } from "./upstream.ts";

const HOP: Hop = { server: "gateway@a.example", settings: { ca: "system" }, state: "/state" };

function counted() {
  const told: string[] = [];
  const upstream = {
    to({ server }: Hop): FarServer {
      told.push(`to ${server}`);
      return {
        session: () => Promise.reject(new Error("nobody is there")),
        retire: () => void told.push(`retire ${server}`),
        [Symbol.asyncDispose]: async () => void told.push(`end ${server}`),
      };
    },
  };
  return { told, hops: new Hops(upstream, silentLog) };
}

test("who asks for the same server as the same user shares the way there, and the last to leave ends it", async () => {
  const { told, hops } = counted();
  const [first, second] = [hops.take(HOP), hops.take({ ...HOP, settings: { ...HOP.settings } })];
  assert.equal(first.far, second.far);
  const other = hops.take({ ...HOP, server: "a.example" });
  const others = hops.take({ ...HOP, settings: { key: `SHA256:${"A".repeat(43)}` } });
  assert.equal(new Set([first.far, other.far, others.far]).size, 3);
  first[Symbol.dispose]();
  first[Symbol.dispose]();
  assert.deepEqual(told, ["to gateway@a.example", "to a.example", "to gateway@a.example"]);
  second[Symbol.dispose]();
  assert.equal(told.at(-1), "retire gateway@a.example");
  assert.notEqual(hops.take(HOP).far, first.far);
  await hops[Symbol.asyncDispose]();
  assert.equal(told.filter((each) => each.startsWith("end")).length, 3);
});

test("a server that was started without a way to others says so", () => {
  assert.throws(() => new Hops(undefined, silentLog).take(HOP), { code: "CONFIGURATION_BAD" });
});
