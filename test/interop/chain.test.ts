/**
 * Session servers behind one another, two and three of them, with real TLS, pins and passwords, and a back end at the end of the chain
 * (docs/chaining.md; PROTOCOL §4.12).
 * @module
 */
import assert from "node:assert/strict";
import { once } from "node:events";
import type { Socket } from "node:net";
import { buffer } from "node:stream/consumers";
import test, { type TestContext } from "node:test";
import { FivedError } from "../../src/index.ts";
import { hopTo, type Link, startLink } from "../support/chain.ts";
import { Lab } from "../support/lab.ts";
import { backEnd } from "../support/victim.ts";

const echo = (t: TestContext): Promise<string> => backEnd(t, (socket) => socket.pipe(socket));

/** What `service` does when it is opened: the code of its refusal. */
async function refusal(link: Link, service: string, user?: string): Promise<FivedError> {
  const stream = link.opens(service, user);
  const [error] = await once(stream, "error");
  assert.ok(error instanceof FivedError);
  return error;
}

test("a service behind another server is served over one session that is kept", async (t) => {
  const lab = await Lab.open(t);
  const inner = await startLink(lab, "inner", { services: { wiki: { to: await echo(t), allow: ["gateway"] } } }, [
    { name: "gateway" },
  ]);
  const outer = await startLink(lab, "outer", {
    hops: await hopTo(lab, inner, "gateway"),
    services: { wiki: { to: `fived://gateway@${inner.address}/wiki`, allow: ["anyone"] } },
  });
  for (let round = 0; round < 3; round++) assert.equal(await outer.asks("wiki", `round ${round}`), `round ${round}`);
  const signIns = (await inner.audit()).filter(({ event }) => event === "sign-in");
  assert.equal(signIns.length, 1, "the session is kept");
  const opened = await inner.event({ event: "open", service: "wiki" });
  assert.equal(opened["user"], "gateway", "without announce the other server's rights are our own");
  assert.deepEqual(opened["via"], { hops: 1 });
});
