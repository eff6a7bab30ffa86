/**
 * `fived join INVITE`: become a user of a server that one was invited to. The server's key is compared with the invite's, so nobody is asked
 * whether it is right; a key of one's own is made, and from now on it signs one in there.
 * @module
 */
import path from "node:path";
import { text } from "node:stream/consumers";
import { Command } from "commander";
import type { Invite } from "../identity/index.ts";
import { clientStateFolder, FivedError } from "../io/index.ts";
import {
  absolute,
  type ClientFlags,
  clientLogins,
  connectOptions,
  keysOptions,
  withClientFlags,
} from "./client-flags.ts";
import type { Verb } from "./verb.ts";

/** The verb `join`. */
export const join: Verb = (ended) =>
  withClientFlags(new Command("join"))
    .description("become a user of a server, with an invite")
    .argument("[invite]", "the invite; where it is left out, or -, it is read from standard input")
    .action(async (invite: string | undefined, flags: ClientFlags) => {
      ended(await run(invite, flags));
    });

async function run(given: string | undefined, flags: ClientFlags): Promise<number> {
  const { parseAddress, pinName, printAddress, redeemInvite, signerOf } = await import("../client/index.ts");
  const invite = await read(given);
  try {
    const address = parseAddress(invite.address);
    const options = await connectOptions({ ...flags, l: invite.user }, address);
    const { file, key } = await keyOf(invite.user, pinName(address), flags);
    const line = `${key.key.type} ${Buffer.from(key.key.blob).toString("base64")}`;
    const { identity, host, keyAlone } = await redeemInvite(invite, line, options);
    const way = { mechanism: "pubkey", key: signerOf(key).fingerprint, keyFile: file, host, ahead: keyAlone } as const;
    await (await clientLogins()).keep(pinName(address), invite.user, way, "stay");
    const where = printAddress(address);
    process.stdout.write(`joined ${where} as ${identity}, with the key ${file}\n`);
    process.stderr.write(`fived: the server has the key that the invite names; try: fived list ${where}\n`);
    return 0;
  } finally {
    invite.secret.fill(0);
  }
}

/** An invite is short; who sends more has mistaken the file. */
const INVITE_OCTETS_MAX = 64 * 1024;

async function read(given: string | undefined): Promise<Invite> {
  const { parseInvite } = await import("../identity/index.ts");
  const written = given === undefined || given === "-" ? await text(process.stdin) : given;
  const invite = parseInvite(written.slice(0, INVITE_OCTETS_MAX));
  if (!("code" in invite)) return invite;
  throw new FivedError(
    "INVITE_BAD",
    "Cannot join: that is no invite; copy all of what fived invite printed, from fived-invite: on",
  );
}

/** The key to join with: the one that was named, or one of its own for this server, which is made. */
async function keyOf(user: string, server: string, { i = [] }: ClientFlags) {
  const { makeKeyIfMissing, sshKeys } = await import("../client/index.ts");
  const [named] = i;
  const file =
    named === undefined
      ? path.join(clientStateFolder(), "keys", `${user}@${server}`.replace(/[^\w.@-]+/g, "_"))
      : absolute(named);
  if (named === undefined) await makeKeyIfMissing(file);
  const keys = await sshKeys(await keysOptions({ identityFiles: [file], identitiesOnly: true }));
  const key = keys.find(({ certificate }) => certificate === undefined);
  if (key === undefined) throw new FivedError("KEY_UNUSABLE", `Cannot join with the key ${file}: there is none in it`);
  return { file, key };
}
