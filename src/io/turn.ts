/**
 * The end of an event loop turn: whatever many sockets gave in one turn is handled, and written, once. Node's check phase follows the
 * poll phase directly, so nothing waits; it only travels together (PROTOCOL §8.5).
 * @module
 */

/** Somebody with work for the end of the turn. */
export interface Participant {
  turn(): void;
}

let waiting: Participant[] = [];

/**
 * How soon something has to be written: "now" at the end of this turn; "next" at the end of the following one, so that what its other
 * end is about to say can travel along; "soon" within {@link SOON_MS}, for what nobody waits for.
 */
export type Urgency = "now" | "next" | "soon";

/** Long enough for a back end on this computer to answer, short enough not to be felt. */
const SOON_MS = 1;

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

let following: Participant[] = [];
let later: Participant[] = [];

/** Calls {@link Participant.turn} when it is due. A participant whose work was done meanwhile has an empty turn. */
export function when(urgency: Exclude<Urgency, "now">, participant: Participant): void {
  if (urgency === "next") {
    if (following.length === 0) setImmediate(() => setImmediate(runFollowing));
    following.push(participant);
  } else {
    if (later.length === 0) setTimeout(runLater, SOON_MS);
    later.push(participant);
  }
}

function runFollowing(): void {
  const now = following;
  following = [];
  for (const participant of now) participant.turn();
}

function runLater(): void {
  const now = later;
  later = [];
  for (const participant of now) participant.turn();
}
