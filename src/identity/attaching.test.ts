import assert from "node:assert/strict";
import fs from "node:fs";
import path from "node:path";
import test from "node:test";
import fc from "fast-check";
import {
  type AttachRequest,
  attachedLine,
  attachLine,
  detachableLine,
  isProved,
  parseAttach,
  parseAttached,
  parseDetachable,
  proveAttach,
  serverProof,
  storedForm,
  type Ticket,
} from "./attaching.ts";

const octets = (bytes: number) => fc.uint8Array({ minLength: bytes, maxLength: bytes });
const count = fc.maxSafeNat();
const generation = fc.nat(0xffff_ffff);
const ticket = fc.record({ sid: octets(16), generation, secret: octets(32) });
const request = fc.record({
  sid: octets(16),
  generation,
  mode: fc.constantFrom("replace" as const, "add" as const),
  received: count,
  nonce: octets(16),
  proof: octets(32),
});

const parsed = (line: string): AttachRequest | undefined => parseAttach(line.split(" ").slice(1));

test("what is written is read as it was", () => {
  const attached = fc.record({ generation, secret: octets(32), received: count, base: count, limit: count });
  const grant = fc.record({
    sid: octets(16),
    generation,
    secret: octets(32),
    ttlSeconds: generation,
    queueBytes: count,
  });
  const plain = (value: object | undefined) =>
    value &&
    Object.fromEntries(
      Object.entries(value).map(([key, part]) => [key, part instanceof Uint8Array ? [...part] : part]),
    );
  fc.assert(fc.property(request, (asked) => assert.deepEqual(plain(parsed(attachLine(asked))), plain(asked))));
  fc.assert(
    fc.property(attached, octets(32), (said, proof) =>
      assert.deepEqual(plain(parseAttached(attachedLine(said, proof))), plain({ ...said, proof })),
    ),
  );
  fc.assert(
    fc.property(grant, (given) => assert.deepEqual(plain(parseDetachable(detachableLine(given))), plain(given))),
  );
});

test("a proof holds for its claim, its connection and its secret, and for no other", () => {
  fc.assert(
    fc.property(
      ticket,
      request,
      octets(32),
      fc.nat(31),
      fc.integer({ min: 1, max: 255 }),
      (held, asked, binding, at, change) => {
        const claim = { ...asked, sid: held.sid, generation: held.generation };
        const proof = proveAttach(held, claim, binding);
        const stored = storedForm(held);
        const flip = (bytes: Uint8Array): Uint8Array =>
          bytes.map((octet, each) => (each === at % bytes.length ? octet ^ change : octet));
        assert.ok(isProved({ ...claim, proof }, stored, binding));
        assert.ok(!isProved({ ...claim, proof: flip(proof) }, stored, binding));
        assert.ok(!isProved({ ...claim, proof, nonce: flip(claim.nonce) }, stored, binding));
        assert.ok(
          !isProved({ ...claim, proof, received: claim.received === 0 ? 1 : claim.received - 1 }, stored, binding),
        );
        assert.ok(!isProved({ ...claim, proof, mode: claim.mode === "add" ? "replace" : "add" }, stored, binding));
        assert.ok(!isProved({ ...claim, proof }, stored, flip(binding)), "D03: on another connection");
        assert.ok(!isProved({ ...claim, proof }, flip(stored), binding));
        const other: Ticket = { ...held, secret: flip(held.secret) };
        assert.ok(!isProved({ ...claim, proof: proveAttach(other, claim, binding) }, stored, binding), "D07: guessed");
      },
    ),
  );
});

test("the server's proof covers every count", () => {
  fc.assert(
    fc.property(ticket, request, octets(32), count, count, generation, (held, claim, binding, received, base, next) => {
      const said = { received, base, generation: next };
      const proof = (changed: object): string =>
        Buffer.from(serverProof(storedForm(held), claim, { ...said, ...changed }, binding)).toString("hex");
      const other = (value: number): number => (value === 0 ? 1 : value - 1);
      assert.notEqual(proof({}), proof({ received: other(received) }));
      assert.notEqual(proof({}), proof({ base: other(base) }));
      assert.notEqual(proof({}), proof({ generation: other(next) }));
    }),
  );
});

test("D08 counts that are none, and everything else that is ill-formed, are nothing", () => {
  const good =
    "1 AAECAwQFBgcICQoLDA0ODw 0 replace 72 EBESExQVFhcYGRobHB0eHw p7Z-gapk-Vnz4bN4VSEd2wi1k_DbPAYC3hibSZfJt3c".split(
      " ",
    );
  assert.ok(parseAttach(good));
  const wrong = [
    "",
    "-1",
    "+1",
    "01",
    "1e3",
    "0x10",
    "9007199254740992",
    "99999999999999999999",
    "1.0",
    " 1",
    "NaN",
    "１",
  ];
  for (const text of wrong)
    for (const at of [2, 4]) assert.equal(parseAttach(good.with(at, text)), undefined, `${at}: ${text}`);
  assert.equal(parseAttach(good.with(2, "4294967296")), undefined);
  assert.ok(parseAttach(good.with(4, "9007199254740991")));
  for (const at of [1, 5, 6]) {
    const part = good[at] ?? "";
    for (const text of [part.slice(1), `${part}A`, `${part.slice(1)}=`, `${part.slice(1)}!`, `${part.slice(0, -1)}_`])
      if (text !== part) assert.equal(parseAttach(good.with(at, text)), undefined, `${at}: ${text}`);
  }
  for (const [at, text] of [
    [0, "2"],
    [3, "REPLACE"],
    [3, "both"],
  ] as const)
    assert.equal(parseAttach(good.with(at, text)), undefined);
  assert.equal(parseAttach(good.slice(1)), undefined);
  assert.equal(parseAttach([...good, "x"]), undefined);
  fc.assert(fc.property(fc.array(fc.string(), { maxLength: 9 }), (args) => void parseAttach(args)));
  fc.assert(fc.property(fc.string(), (line) => void [parseAttached(line), parseDetachable(line)]));
});

test("the vectors of the protocol hold", () => {
  const file = path.join(import.meta.dirname, "../../test/vectors/proofs.json");
  const { attach }: { attach: readonly Record<string, string & number>[] } = JSON.parse(fs.readFileSync(file, "utf8"));
  assert.ok(attach.length > 0);
  for (const vector of attach) {
    const hex = (name: string): Uint8Array => Buffer.from(String(vector[name]), "hex");
    const held: Ticket = { sid: hex("sid"), generation: Number(vector["generation"]), secret: hex("K") };
    const stored = storedForm(held);
    assert.deepEqual(stored, hex("S"));
    const asked = parsed(String(vector["request"]));
    assert.ok(asked !== undefined && isProved(asked, stored, hex("cb")));
    const { proof: _, ...claim } = asked;
    assert.equal(attachLine({ ...claim, proof: proveAttach(held, claim, hex("cb")) }), vector["request"]);
    const said = parseAttached(String(vector["reply"]));
    assert.ok(said !== undefined);
    assert.deepEqual(said.proof, serverProof(stored, claim, said, hex("cb")));
    assert.deepEqual(said.secret, hex("nextK"));
    assert.deepEqual([said.received, said.base, said.limit], [vector["rxs"], vector["base"], vector["limit"]]);
  }
});
