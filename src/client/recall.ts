/**
 * Going on with a session whose process was killed: nothing is left of it but its ticket, and what its server and the programs remember (PROTOCOL §4.8, `recall`;
 * decision 0029).
 * @module
 */
import { FivedError } from "../io/index.ts";
import { parseAddress, printAddress } from "./address.ts";
import type { ConnectOptions } from "./dial.ts";
import type { KeptSession } from "./kept.ts";
import { MultiplexedSession } from "./multiplexed-session.ts";
import { type Resumable, Resumption } from "./resume.ts";

/**
 * Goes on with it as soon as its server can be reached; its streams wait there to be claimed. Rejects with SESSION_LOST where the server does not know it, or cannot be
 * reached for as long as it keeps it.
 */
export function recallSession(kept: KeptSession, options: ConnectOptions): Promise<MultiplexedSession> {
  const address = parseAddress(kept.address);
  const { fingerprint, ttlMs, reached } = kept;
  const trusting: ConnectOptions = { ...options, expectedKey: fingerprint };
  return new Promise((resolve, reject) => {
    let { ticket } = kept;
    const fail = (why: string): void => {
      clearTimeout(late);
      resumption.stop();
      options.tickets?.forget(kept.ticket.sid);
      reject(new FivedError("SESSION_LOST", `Cannot go on with the session at ${printAddress(address)}: ${why}`));
    };
    const resumable: Resumable = {
      isRecalled: true,
      positions: { sent: 0, acknowledged: 0, received: 0 },
      roundTripMs: undefined,
      async store(next) {
        ticket = next;
        await options.tickets?.keep({ ...kept, ticket });
      },
      resumed(socket, { attached, recalled, rest }) {
        clearTimeout(late);
        if (recalled === undefined) throw new Error("A recall without what is recalled");
        resolve(
          new MultiplexedSession(address, { ...kept, ticket, recalled, attached, socket, rest }, trusting, false),
        );
      },
      failed: (_, reason) => fail(reason),
    };
    const resumption = new Resumption(resumable, ticket, { address, options: trusting, reached });
    const late = setTimeout(() => fail(`it was not reached in time: ${resumption.trouble}`), ttlMs);
  });
}
