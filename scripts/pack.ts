/**
 * The package as npm would publish it, made from a copy of this checkout: packing rewrites package.json for a moment (manifest.ts),
 * and whoever else reads the checkout meanwhile must not notice. Used by `npm run ok` and by the test that installs the package.
 * @module
 */
import { execFile } from "node:child_process";
import fs from "node:fs/promises";
import path from "node:path";
import { promisify } from "node:util";

/** What a copy leaves behind: large, or made anew by packing. */
const LEFT_BEHIND = new Set([".git", "node_modules", "dist"]);

/** A packed package. */
export interface Package {
  /** Path of the tarball. */
  readonly tarball: string;
  /** Paths of the files in it, as they will lie in the installed package. */
  readonly files: readonly string[];
}

/** Packs the checkout that this file belongs to into `folder`, which must exist. */
export async function pack(folder: string): Promise<Package> {
  const checkout = path.join(import.meta.dirname, "..");
  const copy = path.join(folder, "checkout");
  await fs.cp(checkout, copy, {
    recursive: true,
    preserveTimestamps: true,
    filter: (source) => !LEFT_BEHIND.has(path.relative(checkout, source)),
  });
  await fs.symlink(path.join(checkout, "node_modules"), path.join(copy, "node_modules"));
  const { stdout } = await promisify(execFile)("npm", ["pack", "--json", "--pack-destination", folder], { cwd: copy });
  // The build's own output comes before npm's JSON when it has something to say.
  const packed: unknown = JSON.parse(stdout.slice(stdout.indexOf("[\n")));
  if (!Array.isArray(packed) || typeof packed[0]?.filename !== "string") {
    throw new Error(`Cannot read what npm pack says of the package: ${stdout}`);
  }
  const files: readonly { readonly path: string }[] = packed[0].files;
  return { tarball: path.join(folder, packed[0].filename), files: files.map((file) => file.path) };
}
