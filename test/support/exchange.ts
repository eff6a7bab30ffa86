/**
 * An exchange of AUTH that a test holds by itself: answers that were written down before, and what was asked. No conversation, no lines.
 * @module
 */
import type { Exchange } from "../../src/server/auth/mechanism.ts";

/** What was asked, and how the answer was to be shown. */
export interface Asked {
  readonly question: string;
  readonly answer: "shown" | "hidden";
}

/** An exchange, and what happened in it. */
export interface ScriptedExchange extends Exchange {
  readonly asked: readonly Asked[];
  /** The octets that were handed out as answers, to see whether they were wiped. */
  readonly given: readonly Uint8Array[];
  /** What was told without being asked. */
  readonly told: readonly string[];
}

/** Makes an exchange that gives these answers, one a question, and rejects when there are no more. */
export function scripted(
  answers: readonly (string | Uint8Array)[],
  {
    initial = [],
    binding = new Uint8Array(32).fill(1),
    host = "",
    address = "192.0.2.1",
    signal = new AbortController().signal,
  }: {
    readonly initial?: readonly string[];
    readonly binding?: Uint8Array | undefined | "none";
    readonly host?: string;
    readonly address?: string;
    readonly signal?: AbortSignal;
  } = {},
): ScriptedExchange {
  const asked: Asked[] = [];
  const given: Uint8Array[] = [];
  const told: string[] = [];
  return {
    form: initial.length === 0 ? "people" : "programs",
    initial,
    binding: binding === "none" ? undefined : binding,
    host,
    address,
    certificate: undefined,
    signal,
    asked,
    given,
    told,
    async ask(question, answer) {
      const next = answers[asked.length];
      asked.push({ question, answer });
      if (next === undefined) throw new Error(`asked once too often: ${question}`);
      const octets = Uint8Array.from(Buffer.from(next));
      given.push(octets);
      return octets;
    },
    tell: (text) => void told.push(text),
  };
}
