/**
 * Rules for the connections of a session (paper section 3.1.8), as a person writes them in `config.yaml`: which there are beside the first one, and which services keep to
 * which.
 *
 * ```yaml
 * paths:
 *   - name: fat                # the other link
 *     from: 192.0.2.7          # address of this computer
 *     services: [backup]       # their streams keep to it
 *     reserved: true           # and no others use it
 *     hosts: [example.org]     # for sessions there; for all, if left out
 * ```
 * @module
 */
import { readFile } from "node:fs/promises";
import { isIP } from "node:net";
import { join } from "node:path";
import { parse } from "yaml";
import { z } from "zod";
import { configurationFolder, FivedError } from "../io/index.ts";
import { isServiceName } from "../wire/index.ts";
import type { Address } from "./address.ts";
import { isTransport } from "./transports/index.ts";

/** One connection that a session is to have, and what keeps to it. */
export interface PathRule {
  /** `main` is the connection with which a session begins. */
  readonly name: string;
  readonly localAddress?: string | undefined;
  readonly transport?: string | undefined;
  readonly reserved?: boolean | undefined;
  /** Services whose streams keep to it. */
  readonly services?: readonly string[] | undefined;
}

/** Connections a person may want of one session: a server allows fewer. */
const RULES_MAX = 16;

const name = z.string().regex(/^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$/, "expected a name of letters, digits and . _ -");

/** A rule as data, also between a program and the session manager. */
export const pathRule = z.strictObject({
  name,
  localAddress: z
    .string()
    .refine((text) => isIP(text) > 0, "expected an IP address")
    .optional(),
  transport: z.string().max(4_096).refine(isTransport, "expected a transport").optional(),
  reserved: z.boolean().optional(),
  services: z.array(z.string().refine(isServiceName, "expected names of services")).max(1_000).optional(),
});

const written = z
  .array(
    pathRule
      .omit({ localAddress: true, transport: true })
      .extend({
        from: pathRule.shape.localAddress,
        via: pathRule.shape.transport,
        hosts: z.array(z.string().min(1).max(255)).max(1_000).optional(),
      })
      .strict(),
  )
  .max(RULES_MAX)
  .refine((rules) => new Set(rules.map((rule) => rule.name)).size === rules.length, "expected each name once");

/** The rules of `config.yaml` for sessions at an address. Rejects with CONFIGURATION_BAD for what cannot be used. */
export async function personalPaths(address: Address): Promise<readonly PathRule[]> {
  const file = join(configurationFolder(), "config.yaml");
  const text = await readFile(file, "utf8").catch((cause: NodeJS.ErrnoException) => {
    if (cause.code === "ENOENT") return "";
    throw bad(file, cause.message);
  });
  let all: unknown;
  try {
    all = parse(text);
  } catch (cause) {
    throw bad(file, cause instanceof Error ? cause.message : String(cause));
  }
  const paths: unknown = typeof all === "object" && all !== null ? Reflect.get(all, "paths") : undefined;
  if (paths === undefined || paths === null) return [];
  const { success, data, error } = written.safeParse(paths);
  if (!success) {
    const [issue] = error.issues;
    throw bad(file, `${["paths", ...(issue?.path ?? [])].join(".")}: ${issue?.message}`);
  }
  const here = address.type === "unix" ? address.path : address.host.text;
  return data
    .filter(({ hosts }) => hosts === undefined || hosts.includes(here))
    .map(({ from, via, hosts: _, ...rule }) => ({
      ...rule,
      ...(from === undefined ? {} : { localAddress: from }),
      ...(via === undefined ? {} : { transport: via }),
    }));
}

function bad(file: string, why: string): FivedError {
  return new FivedError("CONFIGURATION_BAD", `Cannot use ${file}: ${why}`);
}
