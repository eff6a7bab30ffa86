/**
 * The model of ATTACH (`attach.pml`), checked by spin: every order in which connections come and go, frames and acknowledgements are lost, and
 * tickets are renewed. What is right has no error; and each known mistake, put in on purpose, has one: a model that finds no mistake shows nothing.
 *
 * | in the model | in `src/` |
 * |---|---|
 * | `requeue`, `ackto` | `Session` (`#lose`, `#attach`, `#confirmed`), `Log.lost`, `Log.acknowledge` |
 * | `accept` | `Inbox.place`, `Inbox.advance` |
 * | `attach`, `sCur`, `sPend` | `SessionServer` (`#attach`), `Detachable.next`, `Detachable.confirmed` |
 * | `cGen`, `OKAY` | `Resumption` (`#goOn`): a ticket is stored before it is used |
 * @module
 */
import assert from "node:assert/strict";
import fs from "node:fs/promises";
import path from "node:path";
import test from "node:test";
import { Lab } from "../support/lab.ts";
import { needs } from "../support/needs.ts";

interface Run {
  readonly name: string;
  /** Sizes of the world, and mistakes. */
  readonly defines: string;
  /** What the search has to find. */
  readonly finds: "no error" | "the mistake";
}

/** Two connections, frames of one direction only. */
const DOWN = "N=2 N0=0 NC=2 CUTS=1";
const UP = "N=2 N1=0 NC=2 CUTS=1";

const RUNS: readonly Run[] = [
  { name: "both directions, two cuts", defines: "N=1 NC=2 CUTS=2", finds: "no error" },
  { name: "from client to server", defines: UP, finds: "no error" },
  { name: "from server to client", defines: DOWN, finds: "no error" },
  { name: "three frames from server to client", defines: "N=3 N0=0 NC=2 CUTS=1", finds: "no error" },
  { name: "positions do without a fence, downwards", defines: `${DOWN} NOFENCE`, finds: "no error" },
  { name: "positions do without a fence, upwards", defines: `${UP} NOFENCE`, finds: "no error" },
  {
    name: "counting would do if all else stopped first",
    defines: "N=1 NC=2 CUTS=1 NOSEQ NOADD FREEZE",
    finds: "no error",
  },
  { name: "the end is reached at all", defines: "N=1 NC=2 CUTS=1 REACH", finds: "the mistake" },
  { name: "counting frames with two connections", defines: `${DOWN} NOSEQ`, finds: "the mistake" },
  { name: "counting frames when one replaces another", defines: `${DOWN} NOSEQ NOADD`, finds: "the mistake" },
  {
    name: "counting frames and reading the old connection",
    defines: `${UP} NOSEQ NOADD NOFENCE`,
    finds: "the mistake",
  },
  { name: "forgetting what was written but not acknowledged", defines: `${DOWN} EAGERTRIM`, finds: "the mistake" },
  { name: "not saying a lost acknowledgement again", defines: `${DOWN} NOREACK`, finds: "the mistake" },
  { name: "refusing the old ticket too soon", defines: `${DOWN} NOGRACE`, finds: "the mistake" },
  { name: "a fresh next ticket for each ATTACH", defines: "N=1 N0=0 NC=2 CUTS=1 FRESHPEND", finds: "the mistake" },
  { name: "refusing a count below what was acknowledged", defines: `${DOWN} STRICTRX`, finds: "the mistake" },
];

/** What a search may take: more is a model that has grown. */
const SEARCH_MS = 300_000;
const MEGABYTES_MAX = 4_000;

for (const { name, defines, finds } of RUNS) {
  const options = { skip: needs("spin", "gcc"), timeout: 2 * SEARCH_MS };
  test(`spin finds ${finds} in attach.pml: ${name} (${defines})`, options, async (t) => {
    const lab = await Lab.open(t);
    const cwd = await lab.makeFolder("model");
    await fs.copyFile(path.join(import.meta.dirname, "attach.pml"), path.join(cwd, "attach.pml"));
    const done = async (command: readonly string[]): Promise<string> => {
      const { status, stdout, stderr } = await lab.run(command, { cwd, ms: SEARCH_MS });
      assert.equal(status, 0, `${command[0]}: ${stdout}${stderr}`);
      return stdout.toString();
    };
    await done(["spin", ...defines.split(" ").map((each) => `-D${each}`), "-a", "attach.pml"]);
    const memory = ["-DSAFETY", "-DCOLLAPSE", "-DVECTORSZ=2048", `-DMEMLIM=${MEGABYTES_MAX}`];
    await done(["gcc", "-O2", "-w", ...memory, "-o", "pan", "pan.c"]);
    const said = await done([path.join(cwd, "pan"), "-m200000"]);
    const errors = Number(/errors: (\d+)/.exec(said)?.[1]);
    if (finds === "the mistake") return assert.ok(errors > 0, said);
    assert.equal(errors, 0, said);
    assert.doesNotMatch(
      said,
      /Search not completed|reached -DMEMLIM|max search depth too small/,
      "it looked everywhere",
    );
    t.diagnostic(/[\d.e+]+ states, stored/.exec(said)?.[0] ?? "");
  });
}
