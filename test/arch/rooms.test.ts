/**
 * The room table as a test: imports go downwards and through doors, and the pure rooms stay pure. Reads the sources with the
 * TypeScript parser, so comments and strings cannot fool it. A failure says which line breaks which rule, and why the rule is there.
 * @module
 */
import assert from "node:assert/strict";
import fs from "node:fs";
import path from "node:path";
import test from "node:test";
import ts from "typescript";
import { sources } from "./sources.ts";

/** What each room may import from, besides itself: docs/ARCHITECTURE.md draws the same table. A new room gets its line here first. */
const BELOW: Readonly<Record<string, readonly string[]>> = {
  wire: [],
  session: ["wire"],
  identity: ["wire"],
  io: ["session", "wire"],
  server: ["io", "session", "wire", "identity"],
  client: ["io", "session", "wire", "identity"],
  backend: ["io", "identity"],
  // A server that is a client of others: the one room that knows both.
  chain: ["io", "server", "client"],
  compat: ["io", "client"],
  cli: ["wire", "session", "identity", "io", "server", "client", "chain", "compat"],
  // The package's own door, src/index.ts: what `import ... from "fived"` gives.
  "": ["wire", "session", "identity", "io", "server", "client", "backend", "chain", "compat"],
};

/** Rooms in which nothing of the platform may be named, so that a test can be the network, the clock and the dice. */
const PURE = ["wire", "session"];

const PLATFORM = new Set([
  ...["Date", "performance", "setTimeout", "setInterval", "setImmediate", "queueMicrotask", "process", "Buffer"],
  ...["globalThis", "global", "crypto", "console", "fetch", "AbortSignal", "EventTarget", "Promise"],
]);

const all = sources("src");

test("every folder of src is a room of the table, and has a door", () => {
  const rooms = new Set(all.map((source) => source.room));
  for (const room of rooms) {
    assert.ok(
      room in BELOW,
      `src/${room}/ is no room that test/arch knows: say in BELOW what it may import, or put its files elsewhere`,
    );
    const door = path.join("src", room, room === "cli" ? "main.ts" : "index.ts");
    assert.ok(
      fs.existsSync(path.join(import.meta.dirname, "..", "..", door)),
      `${door} is missing: a room is used through its door only`,
    );
  }
  assert.ok(rooms.size >= 5, "looked at too few rooms to be right");
});

test("imports go down the room table, and through the other room's door", () => {
  const wrong: string[] = [];
  let looked = 0;
  for (const source of all) {
    for (const { fileName: target, pos } of ts.preProcessFile(source.text, true, true).importedFiles) {
      if (!target.startsWith(".")) continue;
      looked++;
      const file = path.posix.join(path.posix.dirname(source.path), target);
      const room = roomOf(file);
      if (room === source.room || (source.isTest && file.startsWith("test/"))) continue;
      const at = `${source.path}:${source.text.slice(0, pos).split("\n").length}: imports ${target}`;
      if (room === "cli") {
        wrong.push(`${at}: nothing imports cli/, it is where programs begin`);
      } else if (!BELOW[source.room]?.includes(room)) {
        wrong.push(
          `${at}: ${source.room || "src"}/ may only import from ${BELOW[source.room]?.join(", ") || "itself"}, so that each room can be read, tested and replaced without those above it`,
        );
      } else if (file !== `src/${room}/index.ts`) {
        wrong.push(
          `${at}: use ../${room}/index.ts, the door of that room; what is not exported there is free to change`,
        );
      }
    }
  }
  assert.ok(looked > 0, "looked at no import");
  assert.deepEqual(wrong, []);
});

test("wire and session name nothing of the platform: no socket, timer, clock, randomness or await", () => {
  const wrong: string[] = [];
  let looked = 0;
  for (const source of all.filter((file) => PURE.includes(file.room) && !file.isTest)) {
    looked++;
    const why = `: ${source.room}/ is pure; what it needs comes in as an argument and what it wants goes out as a value, so that a test can cut, delay and repeat anything without waiting`;
    for (const { fileName: target } of ts.preProcessFile(source.text, true, true).importedFiles) {
      if (!target.startsWith(".")) wrong.push(`${source.path}: imports ${target}${why}`);
    }
    const tree = ts.createSourceFile(source.path, source.text, ts.ScriptTarget.ESNext, true);
    const visit = (node: ts.Node): void => {
      const name = platformName(node);
      if (name !== undefined) {
        wrong.push(
          `${source.path}:${tree.getLineAndCharacterOfPosition(node.getStart()).line + 1}: names ${name}${why}`,
        );
      }
      ts.forEachChild(node, visit);
    };
    visit(tree);
  }
  assert.ok(looked > 0, "looked at no file");
  assert.deepEqual(wrong, []);
});

function roomOf(file: string): string {
  const [, room, rest] = file.split("/");
  return rest === undefined ? "" : (room ?? "");
}

function platformName(node: ts.Node): string | undefined {
  if (ts.isAwaitExpression(node)) return "await";
  if (ts.isPropertyAccessExpression(node) && node.getText() === "Math.random") return "Math.random";
  if (!ts.isIdentifier(node) || !PLATFORM.has(node.text)) return undefined;
  // A member of that name is no platform: frame.performance, { process: 1 }.
  const { parent } = node;
  const isMember =
    (ts.isPropertyAccessExpression(parent) && parent.name === node) ||
    ((ts.isPropertyAssignment(parent) ||
      ts.isPropertySignature(parent) ||
      ts.isPropertyDeclaration(parent) ||
      ts.isMethodDeclaration(parent)) &&
      parent.name === node);
  return isMember ? undefined : node.text;
}
