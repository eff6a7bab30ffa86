/**
 * The door of `client/`: reach services by name, and trust their servers.
 * @module
 */
export { type Address, parseAddress, printAddress } from "./address.ts";
export { agentSocket } from "./auth/agent.ts";
export { makeKeyIfMissing, redeemInvite } from "./auth/invited.ts";
export { type SshKey, type SshKeysOptions, signerOf, sshKeys } from "./auth/keys.ts";
export { type Logins, loginsIn, loginsInMemory, type ServerLogins, type Way } from "./auth/logins.ts";
export type { AuthOptions, ClientMechanism } from "./auth/options.ts";
export type { AuthClaim, Signer } from "./auth/signer.ts";
export { type ClientChoices, optionsOf, type People } from "./choices.ts";
export { connect } from "./connect.ts";
export { type DetachedStream, detachedStreams, parseDetached } from "./detached.ts";
export type { ConnectOptions } from "./dial.ts";
export { type Bind, type Forward, type ForwardOptions, forward } from "./forward.ts";
export { FivedAgent, type FivedAgentOptions, fivedConnector } from "./http-agent.ts";
export { pinName } from "./known-hosts.ts";
export { ManagerClient } from "./manager/client.ts";
export { forwardThrough } from "./manager/forward.ts";
export type { HeldStatus } from "./manager/held.ts";
export { managerAt } from "./manager/launch.ts";
export { type Manager, type ManagerStatus, startManager } from "./manager/manager.ts";
export { managerSocket } from "./manager/place.ts";
export { type AttachedSession, type AttachedStream, attach } from "./open-session.ts";
export { personalChoices, personalLogins } from "./personal.ts";
export { SessionPool } from "./pool.ts";
export type { OpenOptions, PathOptions, ServiceOpener, Session } from "./session.ts";
export type { Transport } from "./transports/transport.ts";
export type { HostKeyChecking } from "./trust.ts";
