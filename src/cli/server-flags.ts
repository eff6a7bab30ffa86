/**
 * The flags that server verbs share. Each may also come from the environment (`FIVED_CONFIG`, `FIVED_LISTEN`, `FIVED_STATE`), as
 * service managers and containers like it; a flag wins.
 * @module
 */
import { Option } from "commander";

/** One of the shared flags. */
export function serverOption(name: keyof typeof OPTIONS): Option {
  return OPTIONS[name]();
}

const OPTIONS = {
  config: () => new Option("-c, --config <file>", "configuration").env("FIVED_CONFIG"),
  listen: () =>
    new Option("--listen <url>", "where to listen: tcp://HOST:PORT or unix:/path; may be repeated")
      .argParser((url: string, before: readonly string[] = []) => [...before, url])
      .env("FIVED_LISTEN"),
  state: () => new Option("--state <folder>", "where the server keeps its key and its users").env("FIVED_STATE"),
} as const;
