/**
 * What every file owes its reader: a head that says what lives there, a name that says what it holds, and error codes that are explained.
 * @module
 */
import assert from "node:assert/strict";
import fs from "node:fs";
import os from "node:os";
import path from "node:path";
import test from "node:test";
import ts from "typescript";
import { root, sources } from "./sources.ts";

/** Names that say nothing of what is inside: such a drawer fills and never empties. */
const DRAWERS = /^(utils?|helpers?|common|misc|shared|lib|stuff)$/i;

/** Codes have this shape; `ENOENT` and its kind have it too, and are the platform's. */
const CODE = /^[A-Z][A-Z0-9]*(_[A-Z0-9]+)*$/;

const all = sources("src", "test", "scripts", "bench", "examples");

// A file's own test lies beside it and needs no second head; a test that belongs to no file has to say what it is about.
test("every file begins with a head that says what lives in it", () => {
  const owing = all.filter(({ path: file, isTest }) => !(isTest && file.startsWith("src/")));
  const headless = owing.filter(({ text }) => !/^(#!.*\n)?\/\*\*(?:(?!\*\/).)*@module\b(?:(?!\*\/).)*\*\//s.test(text));
  assert.ok(all.length > 0, "looked at no file");
  assert.deepEqual(
    headless.map((file) => file.path),
    [],
    "begin each with /** what lives here, what deliberately does not, the PROTOCOL section; @module */: a reader decides there whether to go on",
  );
});

test("no file or folder is a drawer", () => {
  const drawers = all.filter(({ path: file }) =>
    file.split("/").some((part) => DRAWERS.test(part.replace(/(\.test)?\.ts$/, ""))),
  );
  assert.deepEqual(
    drawers.map((file) => file.path),
    [],
    "call a file what it holds; a function that is used once stays where it is used",
  );
});

test("every error code in the sources is explained in docs/errors.md, and every code there exists", () => {
  const used = new Map<string, string>();
  const literals = new Set<string>();
  for (const source of sources("src").filter((file) => !file.isTest)) {
    const tree = ts.createSourceFile(source.path, source.text, ts.ScriptTarget.ESNext, true);
    const visit = (node: ts.Node): void => {
      for (const code of codesOf(node)) used.set(code, source.path);
      if (ts.isStringLiteral(node)) literals.add(node.text);
      if (ts.isPropertyAssignment(node)) literals.add(node.name.getText());
      ts.forEachChild(node, visit);
    };
    visit(tree);
  }
  const page = fs.readFileSync(path.join(root, "docs", "errors.md"), "utf8");
  const explained = new Set([...page.matchAll(/^\| `([A-Z][A-Z0-9_]*)` \|/gm)].map(([, code = ""]) => code));
  assert.ok(used.size > 0, "found no code in src/");
  assert.ok(explained.size > 0, "found no row `| `CODE` | ...` in docs/errors.md");
  assert.deepEqual(
    [...used].filter(([code]) => !explained.has(code)).map(([code, file]) => `${code} (${file})`),
    [],
    "give each a row in docs/errors.md: people look there for the code that their script met",
  );
  assert.deepEqual(
    [...explained].filter((code) => !literals.has(code)),
    [],
    "docs/errors.md explains codes that src/ never gives",
  );
});

test("there is a change log, and it knows the version in package.json", () => {
  const { version } = JSON.parse(fs.readFileSync(path.join(root, "package.json"), "utf8"));
  const log = fs.readFileSync(path.join(root, "CHANGELOG.md"), "utf8");
  assert.ok(
    log.includes(`## [${version}]`),
    `CHANGELOG.md has no section "## [${version}]": users read there what a new version changes for them`,
  );
});

/** The codes that a node gives out: `code: "X"`, a type `code: "X" | "Y"`, `new FivedError("X", …)` and the table ERROR_CODES. */
function codesOf(node: ts.Node): readonly string[] {
  const texts: string[] = [];
  const collect = (inner: ts.Node | undefined): void => {
    if (inner === undefined) return;
    if (ts.isStringLiteral(inner)) texts.push(inner.text);
    else if (ts.isConditionalExpression(inner)) [inner.whenTrue, inner.whenFalse].forEach(collect);
    else if (ts.isUnionTypeNode(inner)) inner.types.forEach(collect);
    else if (ts.isLiteralTypeNode(inner)) collect(inner.literal);
    else if (ts.isAsExpression(inner)) collect(inner.expression);
    else if (ts.isArrayLiteralExpression(inner)) inner.elements.forEach(collect);
  };
  if (ts.isPropertyAssignment(node) && node.name.getText() === "code") collect(node.initializer);
  if (ts.isPropertySignature(node) && node.name.getText() === "code") collect(node.type);
  if (ts.isPropertyDeclaration(node) && node.name.getText() === "code") collect(node.initializer ?? node.type);
  if (ts.isNewExpression(node) && node.expression.getText() === "FivedError") collect(node.arguments?.[0]);
  if (ts.isVariableDeclaration(node) && node.name.getText() === "ERROR_CODES") collect(node.initializer);
  return texts.filter((code) => CODE.test(code) && !(code in os.constants.errno));
}
