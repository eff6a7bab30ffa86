/**
 * The project's own TypeScript files, as the architecture tests read them.
 * @module
 */
import fs from "node:fs";
import path from "node:path";

/** One source file. */
export interface Source {
  /** Path from the top of the checkout, with slashes. */
  readonly path: string;
  /** Folder under src/; empty for files in src/ itself and outside it. */
  readonly room: string;
  readonly isTest: boolean;
  readonly text: string;
}

/** Top of the checkout. */
export const root = path.join(import.meta.dirname, "..", "..");

/** Every TypeScript file under the given folders of the checkout. */
export function sources(...folders: readonly string[]): readonly Source[] {
  return folders
    .flatMap((folder) => fs.globSync(`${folder}/**/*.ts`, { cwd: root }))
    .sort()
    .map((file) => {
      const [top, room = "", rest] = file.split(path.sep);
      return {
        path: file.split(path.sep).join("/"),
        room: top === "src" && rest !== undefined ? room : "",
        isTest: file.endsWith(".test.ts"),
        text: fs.readFileSync(path.join(root, file), "utf8"),
      };
    });
}
