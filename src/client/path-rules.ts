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

const NAME = /^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$/;

/** True for rules as a program hands them to the session manager. */
export function arePathRules(value: unknown): value is readonly PathRule[] {
  return Array.isArray(value) && value.length <= RULES_MAX && value.every(isPathRule);
}

function isPathRule(value: unknown): boolean {
  if (typeof value !== "object" || value === null) return false;
  return (
    Object.entries(value).every(([key, part]) => {
      switch (key) {
        case "name":
          return typeof part === "string" && NAME.test(part);
        case "localAddress":
          return typeof part === "string" && isIP(part) > 0;
        case "transport":
          return typeof part === "string" && part.length <= 4_096 && isTransport(part);
        case "reserved":
          return typeof part === "boolean";
        case "services":
          return (
            Array.isArray(part) &&
            part.length <= 1_000 &&
            part.every((each) => typeof each === "string" && isServiceName(each))
          );
        default:
          return false;
      }
    }) && "name" in value
  );
}

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
  const { z } = await import("zod"); // it is large, and most people have no rules
  const written = z
    .array(
      z.strictObject({
        name: z.string().regex(NAME, "expected a name of letters, digits and . _ -"),
        from: z
          .string()
          .refine((text) => isIP(text) > 0, "expected an IP address")
          .optional(),
        via: z.string().max(4_096).refine(isTransport, "expected a transport").optional(),
        reserved: z.boolean().optional(),
        services: z.array(z.string().refine(isServiceName, "expected names of services")).max(1_000).optional(),
        hosts: z.array(z.string().min(1).max(255)).max(1_000).optional(),
      }),
    )
    .max(RULES_MAX)
    .refine((rules) => new Set(rules.map((rule) => rule.name)).size === rules.length, "expected each name once");
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
