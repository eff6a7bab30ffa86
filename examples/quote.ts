/**
 * A service in ten lines: `fived serve quote=./quote.ts`, then `fived connect 127.0.0.1 quote`.
 * @module
 */
import { service } from "fived";

const QUOTES = [
  "The network is the computer. (John Gage)",
  "A name indicates what we seek. An address indicates where it is. (RFC 791)",
  "Be conservative in what you do, be liberal in what you accept from others. (RFC 761)",
];

export default service("quote", (stream, { user }) => {
  const quote = QUOTES[Math.floor(Math.random() * QUOTES.length)];
  stream.end(`For ${user ?? "a stranger"}: ${quote}\n`);
});
