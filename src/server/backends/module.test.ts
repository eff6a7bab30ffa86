import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { copyFile, mkdtemp, readFile, rm, utimes, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { text } from "node:stream/consumers";
import test, { type TestContext } from "node:test";
import { fileURLToPath } from "node:url";
import { silentLog } from "../log.ts";
import { FakeTalk, RecordingLog } from "./fake-talk.test.ts";
import { loadModule } from "./module.ts";

/** A file in a folder far from this package. */
async function written(t: TestContext, name: string, content: string): Promise<string> {
  const folder = await mkdtemp(join(tmpdir(), "fived-module-"));
  t.after(() => rm(folder, { recursive: true, force: true }));
  const file = join(folder, name);
  await writeFile(file, content);
  return file;
}

/** What a stranger gets from it. */
async function answer(file: string, word = "quote"): Promise<string> {
  const talk = new FakeTalk(word);
  const service = await loadModule(word, file, silentLog);
  assert.equal(service.word, word);
  assert.equal(await service.serve(talk), "bytes");
  return await text(talk.far);
}

const EXAMPLE = fileURLToPath(new URL("../../../examples/quote.ts", import.meta.url));

test("the example is about ten lines, and works where it lies and anywhere else", async (t) => {
  assert.match(await answer(EXAMPLE), /^For a stranger: .+\n$/);
  const copy = await written(t, "quote.ts", "");
  await copyFile(EXAMPLE, copy);
  assert.match(await answer(copy), /^For a stranger: .+\n$/);
  const code = (await readFile(EXAMPLE, "utf8")).replace(/\/\*\*.*?\*\//s, "").trim();
  assert.ok(code.split("\n").length <= 12);
});

test("a module may be TypeScript or JavaScript, and needs no package around it", async (t) => {
  const javaScript =
    'import { service } from "fived";\nexport default service("x", (stream) => { stream.end("hi"); });\n';
  const typeScript = javaScript.replace("(stream)", "(stream): void");
  for (const name of ["a.js", "a.mjs"]) assert.equal(await answer(await written(t, name, javaScript)), "hi");
  for (const name of ["a.ts", "a.mts", "with blank#?.ts"]) {
    assert.equal(await answer(await written(t, name, typeScript)), "hi");
  }
});

test("loading a module warns of nothing", async (t) => {
  const file = await written(t, "a.ts", 'import { service } from "fived";\nexport default service("x", () => {});\n');
  const program = `
    const { loadModule } = await import(${JSON.stringify(new URL("./module.ts", import.meta.url).href)});
    await loadModule("x", ${JSON.stringify(file)}, undefined);`;
  const child = spawn(process.execPath, ["--input-type=module", "--eval", program], {
    stdio: ["ignore", "ignore", "pipe"],
  });
  assert.equal(await text(child.stderr), "");
});

test("the name is the configuration's", async (t) => {
  const file = await written(
    t,
    "a.js",
    'import { service } from "fived";\nexport default service("x", (s) => s.end());\n',
  );
  assert.equal((await loadModule("y", file, silentLog)).word, "y");
});

test("a module that has not changed keeps what it remembers, one that has is loaded anew", async (t) => {
  const counting = (greeting: string) =>
    `import { service } from "fived";\nlet n = 0;\nexport default service("x", (s) => { s.end("${greeting} " + ++n); });\n`;
  const file = await written(t, "a.js", counting("a"));
  assert.deepEqual([await answer(file), await answer(file)], ["a 1", "a 2"]);
  await writeFile(file, counting("b"));
  await utimes(file, new Date(), new Date(Date.now() + 5_000)); // as if it had been written later, however quick we are
  assert.deepEqual([await answer(file), await answer(file)], ["b 1", "b 2"]);
});

test("a module that could not be loaded is loaded again once what it lacked is there", async (t) => {
  const file = await written(
    t,
    "a.js",
    'import { service } from "fived";\nimport { word } from "./word.js";\nexport default service("x", (s) => { s.end(word); });\n',
  );
  await assert.rejects(loadModule("x", file, silentLog), { code: "CONFIGURATION_BAD" });
  await writeFile(join(file, "..", "word.js"), 'export const word = "here";\n');
  assert.equal(await answer(file), "here");
});

test("what cannot be a service is refused with its file and the reason", async (t) => {
  const cases = [
    ["export const x = 1;\n", /its default export is no service; write export default service\(/],
    ["export default { word: 'x' };\n", /its default export is no service/],
    ["throw new Error('at start');\n", /at start$/],
    ["export default service(;\n", /./],
    ["enum A { B }\nexport default A;\n", /enum/],
  ] as const;
  for (const [content, message] of cases) {
    const file = await written(t, "a.ts", content);
    await assert.rejects(loadModule("x", file, silentLog), (error) => {
      assert.ok(error instanceof Error && "code" in error);
      assert.equal(error.code, "CONFIGURATION_BAD");
      assert.ok(error.message.startsWith(`Cannot load ${file}: `));
      assert.match(error.message, message);
      return true;
    });
  }
  await assert.rejects(loadModule("x", "/nonexistent.ts", silentLog), { code: "CONFIGURATION_BAD" });
});

test("an exception in a module ends that stream only, and is logged with its place", async (t) => {
  const file = await written(
    t,
    "a.js",
    'import { service } from "fived";\nlet n = 0;\nexport default service("x", (s) => { if (n++ === 0) throw new Error("first"); s.end("fine"); });\n',
  );
  const log = new RecordingLog();
  const service = await loadModule("x", file, log);
  const talk = new FakeTalk("x");
  assert.equal(await service.serve(talk), "bytes");
  const { error, session } = await log.seen("a service failed");
  assert.ok(error instanceof Error && error.stack?.includes("a.js"));
  assert.equal(session, "s1");
  const next = new FakeTalk("x");
  await service.serve(next);
  assert.equal(await text(next.far), "fine");
});

test("a module may speak the interface of the built-in words itself", async (t) => {
  const file = await written(
    t,
    "a.js",
    'export default { word: "X", serve(talk) { talk.refuse(403, "not today"); return "closed"; } };\n',
  );
  const service = await loadModule("x", file, silentLog);
  const talk = new FakeTalk("x");
  assert.equal(await service.serve(talk), "closed");
  assert.deepEqual(talk.said, ["- 403 not today"]);
});
