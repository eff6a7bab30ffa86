import assert from "node:assert/strict";
import test from "node:test";
import { isDefaultHost } from "./default-host.ts";

test("addresses and localhost mean the default host", () => {
  for (const name of ["127.0.0.1", "::1", "[::1]", "localhost", "LOCALHOST."]) assert.ok(isDefaultHost(name), name);
  for (const name of ["a.example", "", "[a]", "localhost.example"]) assert.ok(!isDefaultHost(name), name);
});

test("a spelling of an address that the protocol does not have is a name like any other, and nobody's", () => {
  for (const name of ["127.1", "0x7f.0.0.1", "2130706433", "[127.1]"]) assert.ok(!isDefaultHost(name), name);
});
