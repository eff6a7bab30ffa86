/**
 * fived: reach services by name through one encrypted, multiplexed session, and publish them.
 * @module
 */
export {
  type Assertion,
  type FivedCaller,
  type FivedFastifyOptions,
  type FivedIdentityOptions,
  fivedFastify,
  fivedIdentity,
  type JwksSource,
  type ProxyHeader,
  type ProxyReading,
  parseProxyV2,
  type VerifierOptions,
  verifier,
  verifyAssertion,
} from "./backend/index.ts";
export { serve } from "./chain/index.ts";
export {
  type Address,
  type AuthClaim,
  type AuthOptions,
  type ClientMechanism,
  type ConnectOptions,
  connect,
  type Forward,
  type ForwardOptions,
  forward,
  type HostKeyChecking,
  type Logins,
  loginsIn,
  loginsInMemory,
  type OpenOptions,
  parseAddress,
  type ServerLogins,
  type Session,
  type Signer,
  type Transport,
  type Way,
} from "./client/index.ts";
export { type ErrorCode, FivedError } from "./io/index.ts";
export {
  type Caller,
  type Configuration,
  ConfigurationError,
  configurationFromTargets,
  createLog,
  type HandledService,
  type Handler,
  type Log,
  loadConfiguration,
  type Next,
  type Service,
  type SessionServer,
  service,
  type Talk,
  type Visitor,
} from "./server/index.ts";
