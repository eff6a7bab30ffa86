/**
 * Writes what is made from the configuration's schema: `docs/fived.schema.json` for editors and `docs/configuration.md` for people.
 * `--check` writes nothing and fails when they are not up to date.
 *
 *     node scripts/schema.ts [--check]
 * @module
 */
import { execFileSync } from "node:child_process";
import { readFile, writeFile } from "node:fs/promises";
import { fileURLToPath } from "node:url";
import { z } from "zod";
import { configurationSchema, ONE_OR_MANY, SHORT_FORM } from "../src/server/schema.ts";

type Json = { readonly [key: string]: unknown };

const DOCS = new URL("../docs/", import.meta.url);

const schema = configurationJsonSchema();
const made = [
  { file: fileURLToPath(new URL("fived.schema.json", DOCS)), content: formatted("fived.schema.json", schema) },
  { file: fileURLToPath(new URL("configuration.md", DOCS)), content: referencePage(schema) },
];
for (const { file, content } of made) {
  if (!process.argv.includes("--check")) await writeFile(file, content);
  else if ((await readFile(file, "utf8").catch(() => "")) !== content) {
    process.stderr.write(`${file} is not up to date: run node scripts/schema.ts\n`);
    process.exitCode = 1;
  }
}

/** The schema for editors (JSON Schema, draft 7). */
function configurationJsonSchema(): Json {
  const { $schema, ...rest } = toJson(configurationSchema({ folder: "/", path: "" }));
  return { $schema, title: "fived configuration", ...rest };
}

function toJson(schema: z.ZodType): Json {
  const json = z.toJSONSchema(schema, {
    target: "draft-07",
    io: "input",
    unrepresentable: ({ zodSchema }) =>
      zodSchema instanceof z.ZodMap ? { type: "object", additionalProperties: valuesOf(zodSchema) } : "any",
  });
  return record(withForms(json));
}

function valuesOf(map: z.ZodMap): Json {
  const value = map.valueType;
  if (!(value instanceof z.ZodType)) throw new Error("Invariant: the schema is made of zod's own classes");
  const { $schema, ...rest } = toJson(value);
  return rest;
}

/** Puts the shorter forms in, which zod does not see: they are turned into the long ones before it looks. */
function withForms(json: unknown): unknown {
  if (Array.isArray(json)) return json.map(withForms);
  if (!isRecord(json)) return json;
  const entries = Object.entries(json).map(([key, value]) => [key, withForms(value)]);
  const {
    [ONE_OR_MANY]: oneOrMany,
    [SHORT_FORM]: short,
    description,
    default: assumed,
    ...form
  } = record(Object.fromEntries(entries));
  // Defaults that only say "the defaults of what is inside" help nobody.
  const said = {
    ...(description === undefined ? {} : { description }),
    ...(assumed === undefined || JSON.stringify(assumed) === "{}" ? {} : { default: assumed }),
  };
  if (oneOrMany !== undefined) return { ...said, anyOf: [form["items"], form] };
  if (short !== undefined) return { ...said, anyOf: [short, form] };
  return { ...said, ...form };
}

/** As biome wants it, which looks at all JSON here. */
function formatted(name: string, json: Json): string {
  const biome = fileURLToPath(new URL("../node_modules/.bin/biome", import.meta.url));
  return execFileSync(biome, ["format", `--stdin-file-path=docs/${name}`], {
    input: JSON.stringify(json, undefined, 2),
    encoding: "utf8",
  });
}

function referencePage(schema: Json): string {
  return `<!-- Made by scripts/schema.ts from src/server/schema.ts: change it there. -->
# The configuration of a session server

A YAML file for \`fived serve -c FILE\`; \`fived check -c FILE\` says what is wrong in it without starting anything. Every key may be left
out. Relative paths start at the folder of the file. [fived.yaml](../examples/fived.yaml) is an example, and
[fived.schema.json](fived.schema.json) tells editors what may stand where:

\`\`\`yaml
# yaml-language-server: $schema=fived.schema.json
\`\`\`

A *duration* is a number with \`ms\`, \`s\`, \`m\`, \`h\` or \`d\`; a *size* one with \`B\`, \`KiB\`, \`MiB\` or \`GiB\`.

${section("", schema)}`;
}

/** A table of the keys of a mapping, then a section for each key that has keys of its own. What was told once is only pointed to. */
function section(path: string, json: Json, told = new Map<string, string>()): string {
  const rows: string[] = [];
  const sections: string[] = [];
  for (const [key, value] of Object.entries(record(json["properties"]))) {
    const { description, default: assumed } = record(value);
    const standard = assumed === undefined ? "" : `\`${text(assumed)}\``;
    rows.push(`| \`${key}\` | ${kind(record(value))} | ${standard} | ${text(description)} |`);
    const inner = mappingIn(record(value));
    if (inner === undefined) continue;
    const name = `${path === "" ? "" : `${path}.`}${key}${inner.below}`;
    const twin = told.get(JSON.stringify(inner.json));
    told.set(JSON.stringify(inner.json), twin ?? name);
    const body = twin === undefined ? section(name, inner.json, told) : `The same keys as in \`${twin}\`.`;
    sections.push(`## \`${name}\`\n\n${text(description)}\n\n${body.trimEnd()}`);
  }
  const table = ["| key | value | default | meaning |", "|---|---|---|---|", ...rows].join("\n");
  return `${[table, ...sections].join("\n\n")}\n`;
}

/** The mapping that a value is, or contains. */
function mappingIn(json: Json): { readonly below: string; readonly json: Json } | undefined {
  if (json["properties"] !== undefined) return { below: "", json };
  if (isRecord(json["additionalProperties"])) {
    const inner = mappingIn(json["additionalProperties"]);
    return inner === undefined ? undefined : { below: `.NAME${inner.below}`, json: inner.json };
  }
  const forms = Array.isArray(json["anyOf"]) ? json["anyOf"].map(record) : [];
  for (const form of forms) {
    const inner = mappingIn(form);
    if (inner !== undefined) return inner;
  }
  return undefined;
}

/** What a value looks like, in a word or two. */
function kind(json: Json): string {
  const { type, title, items, not } = json;
  if (not !== undefined) return "";
  if (Array.isArray(json["enum"])) return json["enum"].map((word) => `\`${word}\``).join(", ");
  if (Array.isArray(json["anyOf"])) return [...new Set(json["anyOf"].map((form) => kind(record(form))))].join(" or ");
  if (typeof title === "string") return title;
  if (type === "array") return `list of ${kind(record(items))}`;
  if (type === "object") return "mapping";
  if (type === "integer") return `${text(json["minimum"])} to ${text(json["maximum"])}`;
  if (type === "boolean") return "`true`, `false`";
  return "text";
}

function text(value: unknown): string {
  if (value === undefined) return "";
  return typeof value === "string" ? value : JSON.stringify(value);
}

function isRecord(value: unknown): value is Json {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

function record(value: unknown): Json {
  if (!isRecord(value))
    throw new Error(`Invariant: expected an object in the JSON Schema, not ${JSON.stringify(value)}`);
  return value;
}
