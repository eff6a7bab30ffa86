/**
 * The door of `identity/`: proofs of who somebody is that both ends have to agree on, as octets: SSH keys and signatures, statements and
 * their verification. Knows no sockets and no sessions.
 * @module
 */

export {
  ASSERTION_SECONDS,
  type Assertion,
  type AssertionKey,
  CLOCK_TOLERANCE_SECONDS,
  type Expectation,
  judgeAssertion,
  type Statement,
  signAssertion,
  type Verdict,
} from "./assertion.ts";
export {
  type AttachClaim,
  type Attached,
  type AttachMode,
  type AttachRequest,
  attachedLine,
  attachLine,
  type DetachableGrant,
  detachableLine,
  isProved,
  NONCE_BYTES,
  parseAttach,
  parseAttached,
  parseDetachable,
  proveAttach,
  SECRET_BYTES,
  SID_BYTES,
  serverProof,
  storedForm,
  type Ticket,
} from "./attaching.ts";
export {
  INVITE_SECRET_BYTES,
  type Invite,
  type InviteClaim,
  type InviteError,
  inviteKey,
  inviteProof,
  isUserName,
  parseInvite,
  printInvite,
  proveInvite,
} from "./invite.ts";
export {
  encodeProxyV2,
  type ProxyAddress,
  type ProxyField,
  type ProxyHeader,
  type ProxyReading,
  type ProxySsl,
  parseProxyV2,
} from "./proxy-v2.ts";
export {
  authorityFingerprint,
  type Certificate,
  type CertificateUse,
  certifiedTypeOf,
  checkCertificate,
  parseCertificate,
} from "./ssh/certificate.ts";
export { FieldReader, fromBase64, fromBase64url, string as sshString, u32 as sshU32 } from "./ssh/fields.ts";
export { nobodysKey } from "./ssh/nobody.ts";
export { KEY_FILE_BYTES_MAX, type PrivateKeyFile, readPrivateKey } from "./ssh/private-key.ts";
export {
  type KeyType,
  keyFingerprint,
  type PublicKey,
  parsePublicKey,
  parsePublicKeyLine,
  publicKeyOf,
} from "./ssh/public-key.ts";
export {
  type Demands,
  meets,
  NO_DEMANDS,
  parseSignature,
  type Signature,
  type SignatureAlgorithm,
  signOctets,
  suits,
  verifySignature,
} from "./ssh/signature.ts";
export { type PubkeyClaim, pubkeyMessage, sshsigOctets } from "./ssh/sshsig.ts";
export {
  claimedIssuer,
  judgeVouching,
  signVouching,
  type Vouching,
  type VouchingStatement,
  type VouchingVerdict,
} from "./vouching.ts";
