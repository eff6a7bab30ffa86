import assert from "node:assert/strict";
import test from "node:test";
import fc from "fast-check";
import { canonicalHost, FivedError } from "../io/index.ts";
import { type Address, hostLine, parseAddress, printAddress, type TcpAddress } from "./address.ts";

function tcp(host: TcpAddress["host"], rest: Partial<Omit<TcpAddress, "host">> = {}): TcpAddress {
  return { type: "tcp", user: undefined, host, port: 1078, service: undefined, virtualHost: undefined, ...rest };
}

const example = { type: "name", text: "example.org" } as const;

test("an address is read in its short form, as a URL and as a Unix socket", () => {
  const cases: readonly (readonly [string, Address])[] = [
    ["example.org", tcp(example)],
    ["example.org:22", tcp(example, { port: 22 })],
    ["example.org/wiki", tcp(example, { service: "wiki" })],
    ["example.org/", tcp(example)],
    ["alice@example.org:22/wiki", tcp(example, { user: "alice", port: 22, service: "wiki" })],
    ["bob@p.example@example.org", tcp(example, { user: "bob@p.example" })],
    ["192.0.2.1:22", tcp({ type: "ipv4", text: "192.0.2.1" }, { port: 22 })],
    ["[2001:db8::1]:22/db", tcp({ type: "ipv6", text: "2001:db8::1" }, { port: 22, service: "db" })],
    ["[fe80::1%eth0]", tcp({ type: "ipv6", text: "fe80::1%eth0" })],
    ["fived://example.org", tcp(example)],
    [
      "FIVED://a%40b@example.org:22/wiki?host=Git.Example.org.",
      { ...tcp(example), user: "a@b", port: 22, service: "wiki", virtualHost: "git.example.org" },
    ],
    ["fived://[fe80::1%25eth0]/", tcp({ type: "ipv6", text: "fe80::1%eth0" })],
    [
      "fived://127.0.0.1?host=git.example.org",
      tcp({ type: "ipv4", text: "127.0.0.1" }, { virtualHost: "git.example.org" }),
    ],
    ["unix:/run/fived.sock", { type: "unix", user: undefined, path: "/run/fived.sock" }],
    ["alice@unix:/run/with space/@:?", { type: "unix", user: "alice", path: "/run/with space/@:?" }],
  ];
  for (const [text, expected] of cases) assert.deepEqual(parseAddress(text), expected, text);
});

test("O05 host:443 and host are different servers, and host:1078 is host", () => {
  assert.notDeepEqual(parseAddress("example.org:443"), parseAddress("example.org"));
  assert.deepEqual(parseAddress("example.org:1078"), parseAddress("example.org"));
});

test("what is no address is refused with its value, the reason and the way out", () => {
  const cases: readonly (readonly [string, RegExp])[] = [
    ["", /neither a host name nor an IP address/],
    ["/wiki", /neither a host name/],
    ["example.org:", /port "" is not a number from 1 to 65535/],
    ["example.org:0", /port "0"/],
    ["example.org:65536", /port "65536"/],
    ["example.org:1e3", /port "1e3"/],
    ["::1", /IPv6 address goes in brackets, as in \[::1\]/],
    ["[::1", /./],
    ["[::1]x", /./],
    ["[::g]", /neither/],
    ["[fe80::1%]", /neither/],
    ["a..b", /neither/],
    ["..", /neither/],
    ["foo.1", /neither/],
    ["-oProxyCommand=x", /neither/],
    ["-host", /neither/],
    ["a%2eb", /neither/],
    ["fived://a%2fb", /neither/],
    [`${"a".repeat(64)}.org`, /neither/],
    ["a b", /neither/],
    ["a\u0000b", /neither/],
    ["*.example.org", /neither/],
    ["a,b", /neither/],
    ["@example.org", /"" is not a user name/],
    ["a b@example.org", /not a user name/],
    ["alice:secret@example.org", /password has no place/],
    ["fived://alice:secret@example.org", /password has no place/],
    ["example.org/wi ki", /not a service name/],
    ["example.org/a/b", /not a service name/],
    ["https://example.org", /"https:" is not a scheme of ours/],
    ["fived://example.org/#SHA256:x", /fived join/],
    ["fived://example.org/?user=x", /only parameter/],
    ["fived://example.org/?host=a&host=b", /only parameter/],
    ["fived://example.org/?host=127.0.0.1", /cannot be a virtual host/],
    ["fived://example.org/?host=localhost", /cannot be a virtual host/],
    ["fived://example.org/%zz", /broken %-escape/],
    ["unix:run.sock", /begins with \//],
    ["unix:/a\nb", /control character/],
    [`unix:/${"x".repeat(107)}`, /at most 107 octets/],
    ["x".repeat(2_000), /limit is 1024/],
  ];
  for (const [text, expected] of cases) {
    assert.throws(
      () => parseAddress(text),
      (error) => {
        assert.ok(error instanceof FivedError && error.code === "ADDRESS_BAD", text);
        assert.match(error.message, expected, text);
        assert.match(error.message, /; write \[user@\]host/);
        assert.doesNotMatch(error.message, /\p{Cc}/u);
        return true;
      },
    );
  }
});

test("HOST and SNI are sent for names only", () => {
  const cases: readonly (readonly [string, string | undefined])[] = [
    ["Example.org.", "example.org"],
    ["bücher.de", "xn--bcher-kva.de"],
    ["laptop", "laptop"],
    ["localhost", undefined],
    ["LOCALHOST.", undefined],
    ["127.0.0.1", undefined],
    ["2130706433", undefined],
    ["[::1]", undefined],
    ["unix:/run/fived.sock", undefined],
    ["fived://127.0.0.1/?host=git.example.org", "git.example.org"],
  ];
  for (const [text, expected] of cases) assert.equal(hostLine(parseAddress(text)), expected, text);
});

test("a printed address is read back as the same address", () => {
  const label = fc.stringMatching(/^[a-z_]([a-z0-9_-]{0,10}[a-z_])?$/);
  const name = fc.array(label, { minLength: 1, maxLength: 4 }).map((labels) => labels.join("."));
  const host = fc
    .oneof(
      name,
      fc.ipV4(),
      fc.ipV6().map((ip) => `[${ip}]`),
    )
    .map((text) => canonicalHost(text));
  const optional = <T>(arbitrary: fc.Arbitrary<T>) => fc.option(arbitrary, { nil: undefined });
  const user = fc
    .string({ unit: "grapheme", minLength: 1, maxLength: 20 })
    .filter((text) => /^[^\s\p{C}/:]+$/u.test(text));
  const addresses = fc.oneof(
    fc.record(
      {
        type: fc.constant("tcp" as const),
        user: optional(user),
        host: host.filter((canonical) => canonical !== undefined),
        port: fc.integer({ min: 1, max: 65_535 }),
        service: optional(fc.stringMatching(/^[A-Za-z0-9_][A-Za-z0-9._+-]{0,63}$/)),
        virtualHost: optional(name.filter((text) => canonicalHost(text)?.type === "name" && text !== "localhost")),
      },
      { noNullPrototype: true },
    ),
    fc.record(
      {
        type: fc.constant("unix" as const),
        user: optional(user),
        path: fc.string({ maxLength: 30 }).map((text) => `/${text}`),
      },
      { noNullPrototype: true },
    ),
  );
  fc.assert(fc.property(addresses, (address) => assert.deepEqual(parseAddress(printAddress(address)), address)));
});

test("whatever is typed, reading it ends in an address that prints canonically or in ADDRESS_BAD", () => {
  fc.assert(
    fc.property(
      fc.oneof(fc.string({ unit: "binary" }), fc.string({ unit: fc.constantFrom(..."ab:/@[]%.?#1x-*") })),
      (text) => {
        let address: Address;
        try {
          address = parseAddress(text);
        } catch (error) {
          assert.ok(error instanceof FivedError && error.code === "ADDRESS_BAD");
          return;
        }
        assert.deepEqual(parseAddress(printAddress(address)), address);
      },
    ),
  );
});
