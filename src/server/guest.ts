/**
 * Guests: functions that are not ours and run in our process, as `module` services do. Whatever one of them throws, at once or in any
 * callback that it has set going, ends the stream it serves and nothing else (abuse case S08): a socket of its own that breaks must not be
 * the end of everybody's sessions. What we throw ourselves ends the process, as ever.
 * @module
 */
import { AsyncLocalStorage } from "node:async_hooks";
import type { EventEmitter } from "node:events";

/** Told of what a guest has thrown. */
export type Failed = (error: unknown) => void;

/** On whose behalf the code runs that is running now. */
const guests = new AsyncLocalStorage<Failed>();

/** Runs a guest's code. What it throws at once comes through; what it throws later goes to `failed`. */
export function asGuest<T>(failed: Failed, act: () => T): T {
  expectGuests();
  return guests.run(failed, act);
}

/** Listeners of these events are a guest's from now on: what they throw, at once or later, is told, and not thrown into whoever emits. */
export function lendEvents(emitter: EventEmitter, failed: Failed): void {
  const emit = emitter.emit.bind(emitter);
  emitter.emit = (event: string | symbol, ...args: unknown[]): boolean => {
    try {
      return guests.run(failed, () => emit(event, ...args));
    } catch (error) {
      failed(error);
      return true;
    }
  };
}

let expecting = false;

/** Node ends a process for what nobody has caught; from the first guest on we look first whose it is. */
function expectGuests(): void {
  if (expecting) return;
  expecting = true;
  const judge = (error: unknown): void => {
    const failed = guests.getStore();
    if (failed !== undefined && !isOurs(error)) return failed(error);
    process.off("uncaughtException", judge);
    queueMicrotask(() => {
      throw error;
    });
  };
  process.on("uncaughtException", judge);
}

/** This package's own modules, in the sources and in what is published. */
const OURS = new URL("..", import.meta.url).href;

/** Was it thrown by our own code? Work of ours may have been set going by a guest, and its mistakes are still ours. */
function isOurs(error: unknown): boolean {
  if (!(error instanceof Error)) return false;
  const frames = (error.stack ?? "").split("\n").filter((line) => /^\s+at /.test(line));
  return frames.find((frame) => !frame.includes("node:"))?.includes(OURS) ?? false;
}
