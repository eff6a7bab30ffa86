/**
 * The door of `io/`: sessions and conversations on real sockets, with a clock and memory; host keys, host names and the error class
 * everybody uses.
 * @module
 */
export { BareChannel } from "./bare-channel.ts";
export { type Channel, type Keeper, nobody, type Receiver, type Splice, spliceOf, type Traffic } from "./channel.ts";
export { ChannelDuplex } from "./duplex.ts";
export { ERROR_CODES, type ErrorCode, FivedError } from "./errors.ts";
export { clientStateFolder, configurationFolder } from "./folders.ts";
export { FrameBudget } from "./frame-budget.ts";
export { fingerprintOf, type HostKey, hostKeyOf } from "./host-key.ts";
export { canonicalHost, canonicalName, type Host } from "./host-name.ts";
export { keySet } from "./key-set.ts";
export {
  type FileLock,
  lockFile,
  type PrivateFile,
  privateFileVersion,
  readPrivateFile,
  replacePrivateFile,
} from "./private-file.ts";
export { type PumpOwner, SessionPump } from "./pump.ts";
export type { SessionStream } from "./session-stream.ts";
export { removeStale } from "./stale-socket.ts";
export type { Urgency } from "./turn.ts";
