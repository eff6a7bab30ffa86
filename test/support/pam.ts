/**
 * PAM for tests: services whose modules are those of libpam-wrapper and one of our own (`pam-odd.c`), in a folder that goes with the test.
 * The system's own services and users are left alone.
 * @module
 */
import { execFileSync } from "node:child_process";
import fs from "node:fs/promises";
import os from "node:os";
import path from "node:path";
import type { TestContext } from "node:test";
import { pamWrapperModule } from "./needs.ts";

/** Somebody whom only the services of a {@link PamFolder} know. */
export const PAM_USER = { name: "bob", password: "secret" };

/** A folder of services. */
export interface PamFolder {
  readonly folder: string;
  /** Writes a service; each line is as in a file of `/etc/pam.d`, with `odd` and `matrix` for our modules. */
  write(service: string, ...lines: readonly string[]): Promise<{ readonly service: string; readonly folder: string }>;
}

/** Makes the folder, and the module with it. */
export async function pamFolder(t: TestContext): Promise<PamFolder> {
  const folder = await fs.mkdtemp(path.join(os.tmpdir(), "fived-pam-"));
  t.after(() => fs.rm(folder, { recursive: true, force: true }));
  const odd = path.join(folder, "pam_odd.so");
  const source = path.join(import.meta.dirname, "pam-odd.c");
  execFileSync("gcc", ["-Wall", "-Werror", "-shared", "-fPIC", "-o", odd, source]);
  const passwords = path.join(folder, "passwords");
  return {
    folder,
    async write(service, ...lines) {
      await fs.appendFile(passwords, `${PAM_USER.name}:${PAM_USER.password}:${service}\n`);
      const modules = { odd, matrix: `${pamWrapperModule("pam_matrix.so")} passdb=${passwords}` };
      const text = lines.map((line) =>
        line.replace(/\b(odd|matrix)\b/, (name) => modules[name === "odd" ? "odd" : "matrix"]),
      );
      await fs.writeFile(path.join(folder, service), `${text.join("\n")}\n`);
      return { service, folder };
    },
  };
}
