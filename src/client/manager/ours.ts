/**
 * The manager of whoever runs this program, where one is there. A program never starts one: the command line does.
 * @module
 */
import { ManagerClient } from "./client.ts";
import { managerSocket } from "./place.ts";

/** One connection for the whole program, by the manager's socket, as long as the manager is there. */
const known = new Map<string, Promise<ManagerClient | undefined>>();

/** It, or undefined where none runs or FIVED_MANAGER says off. Rejects as {@link ManagerClient.connect} does: what is wrong is not passed over. */
export async function managerHere(): Promise<ManagerClient | undefined> {
  const socket = managerSocket(process.env);
  if (socket === undefined) return undefined;
  const before = known.get(socket);
  if (before !== undefined) return await before;
  const connecting = ManagerClient.connect(socket);
  known.set(socket, connecting);
  const forget = (): void => void known.delete(socket);
  connecting.then((manager) => (manager === undefined ? forget() : manager.closed.then(forget)), forget);
  return await connecting;
}
