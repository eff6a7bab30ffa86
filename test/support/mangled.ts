/**
 * Octets that were right once, for whoever has to survive what they became: cut at each octet, one octet of them changed, one more behind
 * them. fast-check has the ones that never were right.
 * @module
 */

/** Bits of an octet that are turned over: the lowest, the highest, all. Where each try is slow, one of them has to do. */
const CHANGES: readonly number[] = [0x01, 0x80, 0xff];

/** Every way to spoil octets by one octet. */
export function* mangled(right: Uint8Array, changes = CHANGES): Generator<Uint8Array> {
  for (let length = 0; length < right.length; length++) yield Uint8Array.from(right.subarray(0, length));
  for (let at = 0; at < right.length; at++)
    for (const change of changes) {
      const wrong = Uint8Array.from(right);
      wrong[at] = (wrong[at] ?? 0) ^ change;
      yield wrong;
    }
  yield Uint8Array.from([...right, 0]);
}
