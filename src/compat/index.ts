/**
 * The door of `compat/`: ways in for programs that know hosts and ports, and nothing of sessions.
 * @module
 */
export { type Policies, readPolicies } from "./policies.ts";
export { type Proxy, type ProxyOptions, startProxy } from "./proxy.ts";
