/**
 * The door of `backend/`: for programs behind a session server that want to know who is calling.
 * @module
 */
export { type Assertion, type ProxyHeader, type ProxyReading, parseProxyV2 } from "../identity/index.ts";
export { type JwksSource, type VerifierOptions, verifier, verifyAssertion } from "./assertions.ts";
export {
  type FivedCaller,
  type FivedFastifyOptions,
  type FivedIdentityOptions,
  fivedFastify,
  fivedIdentity,
} from "./middleware.ts";
