/**
 * The table of test/abuse/README.md against the tests: each file it names shows the case, no test names a case that it lacks, and no case
 * waits for a word that is there. A test names a case in its title, `L03 64 MiB without …`, a vector in brackets in its name, `(L03)`;
 * what comments say shows nothing.
 * @module
 */
import assert from "node:assert/strict";
import fs from "node:fs";
import path from "node:path";
import test from "node:test";
import ts from "typescript";
import { BUILT_IN_WORDS } from "../../src/server/words.ts";
import { root, sources } from "./sources.ts";

/** A row of the table. */
interface Case {
  readonly id: string;
  /** The row's last cell: files in backquotes, or what the case comes with, or both. */
  readonly shown: string;
  readonly files: readonly string[];
}

const page = fs.readFileSync(path.join(root, "test", "abuse", "README.md"), "utf8");
const cases = [...page.matchAll(/^\| ([A-Z]\d\d) \|.*\| ([^|]+) \|$/gm)].map(([, id = "", shown = ""]): Case => {
  return { id, shown, files: [...shown.matchAll(/`([^`]+)`/g)].map(([, file = ""]) => file) };
});
const named = namedCases();

test("every case of test/abuse/README.md is there once, and says what shows it or what it comes with", () => {
  const ids = cases.map(({ id }) => id);
  assert.ok(ids.length > 100, "found no table of cases");
  assert.deepEqual(
    ids.filter((id, at) => ids.indexOf(id) !== at),
    [],
  );
  const lost = cases.filter(({ shown, files }) => files.length === 0 && !/\bcomes with \S/.test(shown));
  assert.deepEqual(
    lost.map(({ id }) => id),
    [],
    "name the test files that show the case, in backquotes, or write: comes with WORD",
  );
});

test("each file that the table names is there, and names the case in a title", () => {
  const wrong = cases.flatMap(({ id, files }) =>
    files.filter((file) => !named.get(file)?.has(id)).map((file) => `${id}: ${file}`),
  );
  assert.ok(
    cases.some(({ files }) => files.length > 0),
    "looked at no file",
  );
  assert.deepEqual(wrong, [], "a test that moved or went takes its entry in test/abuse/README.md along");
});

test("no test names a case that the table lacks", () => {
  const known = new Set(cases.map(({ id }) => id));
  const unknown = [...named].flatMap(([file, ids]) =>
    [...ids].filter((id) => !known.has(id)).map((id) => `${id}: ${file}`),
  );
  assert.ok(
    [...named.values()].some((ids) => ids.size > 0),
    "found no case in a title",
  );
  assert.deepEqual(unknown, [], "give each a row in test/abuse/README.md: people look there for what it is");
});

test("no case waits for a word that this release has", () => {
  const waiting = cases.flatMap(({ id, shown }) =>
    [...shown.matchAll(/\bcomes with ([A-Z]+)\b/g)].map(([, word = ""]) => ({ id, word })),
  );
  assert.ok(waiting.length > 0, "no case waits any more: this test can go");
  assert.deepEqual(
    waiting.filter(({ word }) => BUILT_IN_WORDS.some((own) => own === word)),
    [],
    "show the case in a test and name the file in test/abuse/README.md, or say there what it waits for now",
  );
});

/** The cases that each file of tests, and each file of vectors, names. */
function namedCases(): ReadonlyMap<string, ReadonlySet<string>> {
  const found = new Map<string, ReadonlySet<string>>();
  for (const { path: file, text } of sources("src", "test").filter(({ isTest }) => isTest)) {
    const ids = new Set<string>();
    const tree = ts.createSourceFile(file, text, ts.ScriptTarget.ESNext);
    const visit = (node: ts.Node): void => {
      if (ts.isStringLiteralLike(node) || ts.isTemplateHead(node) || ts.isTemplateMiddleOrTemplateTail(node))
        for (const [, id = ""] of node.text.matchAll(/(?<![^\s(])([A-Z]\d\d)(?![^\s),:])/g)) ids.add(id);
      ts.forEachChild(node, visit);
    };
    visit(tree);
    found.set(file, ids);
  }
  for (const file of fs.globSync("test/vectors/**/*.json", { cwd: root })) {
    const text = fs.readFileSync(path.join(root, file), "utf8");
    const ids = [...text.matchAll(/"(?:name|about)": ".*\(([A-Z]\d\d)\)/g)].map(([, id = ""]) => id);
    found.set(file.split(path.sep).join("/"), new Set(ids));
  }
  return found;
}
