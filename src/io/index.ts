export { ERROR_CODES, type ErrorCode, FivedError } from "./errors.ts";
export { fingerprintOf, type HostKey, hostKeyOf } from "./host-key.ts";
