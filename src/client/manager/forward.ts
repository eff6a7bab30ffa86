/**
 * A forward by way of the session manager: this process listens and has the connections of local programs, so that they outlive the manager; their streams are the
 * manager's.
 * @module
 */
import { spliceOf } from "../../io/index.ts";
import { type Bind, type Forward, listen } from "../forward.ts";
import type { Asked, ManagerClient, StreamRequest } from "./client.ts";

/** What to listen for. */
export interface ManagedForward extends StreamRequest {
  readonly bind: Bind;
}

/**
 * Starts one. Rejects with LISTEN_FAILED.
 * @param broken is told when there is no manager any more, and no other can be had
 */
export async function forwardThrough(
  first: ManagerClient,
  { bind, ...request }: ManagedForward,
  people: Asked,
  broken: (error: unknown) => void,
): Promise<Forward> {
  let manager = first;
  const forward = await listen({ bind, log: (line) => people.log(line) }, (socket, refused) => {
    manager.join(spliceOf(socket), request, people, refused);
  });
  let isOver = false;
  /** The manager shows it, as long as both are there. */
  const show = (): void => {
    if (isOver) return;
    manager.listening(forward.address, () => {
      if (isOver) return;
      manager.next(people).then((next) => {
        manager = next;
        show();
      }, broken);
    });
  };
  show();
  return {
    address: forward.address,
    async [Symbol.asyncDispose]() {
      isOver = true;
      await forward[Symbol.asyncDispose]();
      manager.listensNoMore(forward.address);
    },
  };
}
