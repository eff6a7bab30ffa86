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
const CODE = /^([A-Z][A-Z0-9]*(_[A-Z0-9]+)*|\d{3})$/;

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
  for (const source of sources("src").filter((file) => !file.isTest)) {
    const tree = ts.createSourceFile(source.path, source.text, ts.ScriptTarget.ESNext, true);
    const visit = (node: ts.Node): void => {
      for (const code of codesOf(node)) used.set(code, source.path);
      ts.forEachChild(node, visit);
    };
    visit(tree);
  }
  const page = fs.readFileSync(path.join(root, "docs", "errors.md"), "utf8");
  // A row begins with the code, or with the number of a frame code and then its name: | `404` |, | `1` | `PROTOCOL` |, | `TIMEOUT` |.
  const rows = page.matchAll(/^\| `(?:\d{1,2}` \| `)?([A-Z][A-Z0-9_]*|\d{3})` \|/gm);
  const explained = new Set([...rows].map(([, code = ""]) => code));
  assert.ok(used.size > 0, "found no code in src/");
  assert.ok(explained.size > 0, "found no table of codes in docs/errors.md");
  assert.deepEqual(
    [...used].filter(([code]) => !explained.has(code)).map(([code, file]) => `${code} (${file})`),
    [],
    "give each a row in docs/errors.md: people look there for the code that their script met",
  );
  assert.deepEqual(
    [...explained].filter((code) => !used.has(code)),
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

test("the lock file has every optional dependency, those of other platforms too", () => {
  const { packages } = JSON.parse(fs.readFileSync(path.join(root, "package-lock.json"), "utf8"));
  const locked: readonly (readonly [string, { readonly optionalDependencies?: object }])[] = Object.entries(packages);
  const missing = locked.flatMap(([where, { optionalDependencies = {} }]) =>
    Object.keys(optionalDependencies).filter(
      (name) => !(`node_modules/${name}` in packages) && !(`${where}/node_modules/${name}` in packages),
    ),
  );
  assert.ok(locked.length > 1, "looked at no package");
  assert.deepEqual(
    missing,
    [],
    "npm ci refuses a lock file without them; a registry that lacks them makes npm install leave them out",
  );
});

/**
 * The codes that a node gives out: `code: "X"`, a type `code: "X" | "Y"`, `new FivedError("X", …)`, and the tables ERROR_CODES
 * (our own errors), Code (frames) and RefusalCode (lines).
 */
function codesOf(node: ts.Node): readonly string[] {
  const texts: string[] = [];
  const collect = (inner: ts.Node | undefined): void => {
    if (inner === undefined) return;
    if (ts.isStringLiteral(inner) || ts.isNumericLiteral(inner)) texts.push(inner.text);
    else if (ts.isConditionalExpression(inner)) [inner.whenTrue, inner.whenFalse].forEach(collect);
    else if (ts.isUnionTypeNode(inner)) inner.types.forEach(collect);
    else if (ts.isLiteralTypeNode(inner)) collect(inner.literal);
    else if (ts.isAsExpression(inner)) collect(inner.expression);
    else if (ts.isArrayLiteralExpression(inner)) inner.elements.forEach(collect);
    else if (ts.isObjectLiteralExpression(inner))
      texts.push(...inner.properties.map((entry) => entry.name?.getText() ?? ""));
  };
  if (ts.isPropertyAssignment(node) && node.name.getText() === "code") collect(node.initializer);
  if (ts.isPropertySignature(node) && node.name.getText() === "code") collect(node.type);
  if (ts.isPropertyDeclaration(node) && node.name.getText() === "code") collect(node.initializer ?? node.type);
  if (ts.isNewExpression(node) && node.expression.getText() === "FivedError") collect(node.arguments?.[0]);
  if (ts.isVariableDeclaration(node) && /^(ERROR_CODES|Code)$/.test(node.name.getText())) collect(node.initializer);
  if (ts.isTypeAliasDeclaration(node) && node.name.text === "RefusalCode") collect(node.type);
  return texts.filter((code) => CODE.test(code) && !(code in os.constants.errno));
}
