/**
 * OpenSSH's sshd as a back end, with keys and a configuration of its own: one key may log in as whoever runs the test.
 * @module
 */
import assert from "node:assert/strict";
import fs from "node:fs/promises";
import { freePort, type Lab } from "./lab.ts";
import { isRoot, unshare } from "./needs.ts";

/** A running sshd. */
export interface Sshd {
  readonly port: number;
  /** The private key that may log in. */
  readonly identity: string;
}

/** Starts sshd. */
export async function startSshd(lab: Lab): Promise<Sshd> {
  const port = await freePort();
  const hostKey = lab.path("ssh_host_key");
  const identity = lab.path("id_ed25519");
  for (const file of [hostKey, identity]) {
    const made = await lab.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", file]);
    assert.equal(made.status, 0, made.stderr);
  }
  await fs.copyFile(`${identity}.pub`, lab.path("authorized_keys"));
  const configuration = await lab.write(
    "sshd_config",
    `ListenAddress 127.0.0.1:${port}
    HostKey ${hostKey}
    AuthorizedKeysFile ${lab.path("authorized_keys")}
    PidFile none
    UsePAM no
    StrictModes no
    PermitRootLogin yes
    PasswordAuthentication no
    KbdInteractiveAuthentication no
    AcceptEnv GIT_PROTOCOL
    Subsystem sftp internal-sftp
    `,
  );
  const sshd = ["/usr/sbin/sshd", "-D", "-e", "-f", configuration];
  // As root sshd insists on an empty /run/sshd, which the service script makes: it gets one that nobody else sees.
  const runFolder = 'mount -t tmpfs none /run && mkdir /run/sshd && exec "$@"';
  const daemon = lab.start(isRoot() ? [...unshare("--mount"), "sh", "-c", runFolder, "sh", ...sshd] : sshd);
  await daemon.logs(/Server listening on/);
  return { port, identity };
}
