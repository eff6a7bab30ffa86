/**
 * The door of `server/`: the session server, its configuration, and the way to write a service.
 * @module
 */
export {
  type Configuration,
  ConfigurationError,
  configurationFromTargets,
  loadConfiguration,
  type Problem,
} from "./config.ts";
export { type HandledService, type Handler, service, type Visitor } from "./define.ts";
export { createLog, type Log, type LogLevel } from "./log.ts";
export { type SessionServer, serve } from "./server.ts";
export type { Caller, Next, Service, Talk } from "./service.ts";
