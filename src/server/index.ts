/**
 * The door of `server/`: the session server, its configuration, and the way to write a service.
 * @module
 */
export { AnnounceKeys } from "./announce/keys.ts";
export { readAuthorizedKeys } from "./auth/authorized-keys.ts";
export { createInvite } from "./auth/invites.ts";
export { servePam } from "./auth/pam-helper.ts";
export { newSecondFactor } from "./auth/second-factor.ts";
export type { InviteRecord } from "./auth/user-records.ts";
export { type ListedUser, openUsers, PASSWORD_BYTES_MAX, type UserStore, usersFileOf } from "./auth/users.ts";
export {
  type Configuration,
  ConfigurationError,
  configurationFromTargets,
  loadConfiguration,
  type Problem,
} from "./config.ts";
export { type HandledService, type Handler, service, type Visitor } from "./define.ts";
export { fingerprintAt } from "./fingerprint.ts";
export { listen, visitorOf } from "./http-service.ts";
export { createLog, type Log, type LogLevel } from "./log.ts";
export { type ServeOptions, type SessionServer, serve } from "./server.ts";
export type { Caller, Next, Service, Talk } from "./service.ts";
export type { FarServer, FarSession, Hop, Upstream } from "./upstream.ts";
