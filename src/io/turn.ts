/**
 * The end of an event loop turn: whatever many sockets gave in one turn is handled, and written, once. Node's check phase follows the
 * poll phase directly, so nothing waits; it only travels together.
 * @module
 */

/** Somebody with work for the end of the turn. */
export interface Participant {
  turn(): void;
}

let waiting: Participant[] = [];

/** Calls {@link Participant.turn} at the end of this event loop turn. Callers see to it that they are listed once. */
export function atTurnEnd(participant: Participant): void {
  if (waiting.length === 0) setImmediate(run);
  waiting.push(participant);
}

function run(): void {
  const now = waiting;
  waiting = [];
  for (const participant of now) participant.turn();
}
