/**
 * The door of `identity/`: proofs of who somebody is that both ends have to agree on, as octets: SSH keys and signatures, statements and
 * their verification. Knows no sockets and no sessions.
 * @module
 */
export {
  ASSERTION_SECONDS,
  type Assertion,
  type AssertionKey,
  audienceOf,
  CLOCK_TOLERANCE_SECONDS,
  type Expectation,
  judgeAssertion,
  type Statement,
  signAssertion,
  TOKEN_LENGTH_MAX,
  type Verdict,
} from "./assertion.ts";
export {
  encodeProxyV2,
  PROXY_HEADER_BYTES_MAX,
  type ProxyAddress,
  type ProxyField,
  type ProxyHeader,
  type ProxyReading,
  type ProxySsl,
  ProxyTlv,
  parseProxyV2,
} from "./proxy-v2.ts";
