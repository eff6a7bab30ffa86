/**
 * fived: reach services by name through one encrypted, multiplexed session, and publish them.
 * @module
 */
export {
  type Address,
  type ConnectOptions,
  connect,
  type Forward,
  type ForwardOptions,
  forward,
  type HostKeyChecking,
  type OpenOptions,
  parseAddress,
  type Session,
} from "./client/index.ts";
export { type ErrorCode, FivedError } from "./io/index.ts";
export {
  type Caller,
  type Configuration,
  ConfigurationError,
  configurationFromTargets,
  createLog,
  type Log,
  loadConfiguration,
  type Next,
  type Service,
  type ServiceContext,
  type SessionServer,
  serve,
  service,
  type Talk,
} from "./server/index.ts";
