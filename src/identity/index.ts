/**
 * The door of `identity/`: proofs of who somebody is that both ends have to agree on, as octets: SSH keys and signatures, statements and
 * their verification. Knows no sockets and no sessions.
 * @module
 */
export {
  INVITE_CHARACTERS_MAX,
  INVITE_PREFIX,
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
