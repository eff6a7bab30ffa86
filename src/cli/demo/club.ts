/**
 * The demonstration's service `club`: for whoever has signed in, and invisible to everybody else.
 * @module
 */
import { service } from "../../server/index.ts";

export default service("club", (stream, { user, mechanism }) => {
  stream.end(`Welcome, ${user}: you signed in by ${mechanism}, and nobody else sees this service.\n`);
});
