/**
 * The demonstration's service `hello`: says one sentence and ends.
 * @module
 */
import { service } from "../../server/index.ts";

export default service("hello", (stream, { user }) => {
  stream.end(`Hello ${user ?? "stranger"}: you asked for a name, and nobody had to know a port.\n`);
});
