/**
 * Makes package.json fit for publishing while npm packs, and puts it back afterwards (`prepack` and `postpack`).
 * Left out: the pinned runtimes, 190 MB that a checkout needs and a dependant does not (there `engines` speaks), and what only a checkout can run.
 * A run that was cut short leaves the original beside it, and the next run starts by putting that back.
 * @module
 */
import fs from "node:fs";
import path from "node:path";

const folder = process.cwd();
const manifest = path.join(folder, "package.json");
/** The original while npm packs; in .gitignore. */
const original = path.join(folder, ".package.json.full");

if (fs.existsSync(original)) fs.renameSync(original, manifest);

switch (process.argv[2]) {
  case "publish": {
    fs.copyFileSync(manifest, original);
    const draft = `${original}.published`;
    fs.writeFileSync(draft, published(fs.readFileSync(manifest, "utf8")));
    fs.renameSync(draft, manifest);
    break;
  }
  case "restore":
    break;
  default:
    throw new Error(`Cannot tell what to do with "${process.argv[2] ?? ""}": say publish or restore`);
}

function published(text: string): string {
  const { scripts: _scripts, devDependencies: _devDependencies, optionalDependencies, ...kept } = JSON.parse(text);
  const optional = Object.entries(optionalDependencies ?? {}).filter(([name]) => !name.startsWith("node-linux-"));
  const result = optional.length > 0 ? { ...kept, optionalDependencies: Object.fromEntries(optional) } : kept;
  return `${JSON.stringify(result, undefined, 2)}\n`;
}
